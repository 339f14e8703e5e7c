//! Questions to a processor, for `lc list` and `lc show`.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;

use super::channel::connect;
use super::run::SessionError;
use crate::net::{Dialer, Target};
use crate::wire::management::management_service_client::ManagementServiceClient;
use crate::wire::management::{HunterStatus, ProcessorStatus, StatusRequest};

/// A question takes this long at most.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Largest answer.
const MESSAGE_MAX: usize = 10 << 20;

/// One hunter, as its processor knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HunterAnswer {
    /// Its id.
    pub id: String,
    /// What it calls itself.
    pub hostname: String,
    /// Where it connected from.
    pub remote: String,
    /// `healthy`, `warning`, `error`, `stopping`.
    pub status: &'static str,
    /// Seconds since it registered.
    pub connected_secs: u64,
    /// What it captures from.
    pub interfaces: Vec<String>,
    /// Filter kinds it applies.
    pub filter_types: Vec<String>,
    /// Filters meant for it: how many, and the ids of the first.
    pub filters: u32,
    /// See above.
    pub filter_ids: Vec<String>,
    /// Filters in force there.
    pub active_filters: u32,
    /// Version of the filters in force there; 0 from old hunters.
    pub filter_version: u64,
    /// Filters it could not apply: id and reason.
    pub filter_errors: Vec<(String, String)>,
    /// Packets captured, matched, acknowledged, given up.
    pub packets: [u64; 4],
    /// Given up, by reason.
    pub drops: Vec<(String, u64)>,
    /// Frames the kernel saw, the kernel dropped, the interface dropped, still in the ring.
    pub kernel: [u64; 4],
    /// Packets waiting for a verdict.
    pub held: u64,
    /// Bytes of batches not yet acknowledged.
    pub window_bytes: u64,
    /// What waits on its disk: bytes, batches.
    pub spool: [u64; 2],
    /// Resident memory.
    pub rss_bytes: u64,
    /// Percent of one core.
    pub cpu_percent: f32,
}

/// A processor and its hunters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusAnswer {
    /// Its id.
    pub processor: String,
    /// `healthy`, `warning`, `error`.
    pub status: &'static str,
    /// Hunters: all, healthy, with a warning, in error.
    pub hunters: [u32; 4],
    /// Packets received.
    pub received: u64,
    /// Of those, seen before.
    pub duplicates: u64,
    /// Packets in every file they belong to.
    pub stored: u64,
    /// Filters.
    pub filters: u32,
    /// Their version; 0 from an old processor.
    pub filter_version: u64,
    /// The processor above, and whether it is connected; none: there is none.
    pub upstream: Option<(String, bool)>,
    /// Packets on the way there: offered, found on disk at the start, acknowledged, waiting, given up.
    pub passed_on: [u64; 5],
    /// Ids of the processors below.
    pub processors: Vec<String>,
    /// Monitors subscribed to packets; 0 from an old processor.
    pub subscribers: u32,
    /// Packets that monitors were too slow for.
    pub skipped: u64,
    /// The hunters.
    pub all: Vec<HunterAnswer>,
}

/// Asks for the status; `hunter` empty: of all.
///
/// # Errors
/// [`SessionError`].
pub async fn status(dialer: &Dialer, target: &Target, hunter: &str) -> Result<StatusAnswer, SessionError> {
    let channel = connect(dialer, target, &mut Vec::new()).await?;
    let mut client = ManagementServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
    let failed =
        |status: Status| SessionError::Call { target: target.to_string(), what: "GetHunterStatus", status: Box::new(status) };
    let asked = client.get_hunter_status(StatusRequest { hunter_id: hunter.to_owned() });
    let answer = timeout(CALL_MAX, asked).await.map_err(|_| failed(Status::deadline_exceeded("no answer within 10 s")))?;
    let answer = answer.map_err(failed)?.into_inner();
    let all = answer.hunters.into_iter().map(|h| {
        let status = match h.status() {
            HunterStatus::StatusHealthy => "healthy",
            HunterStatus::StatusWarning => "warning",
            HunterStatus::StatusError => "error",
            HunterStatus::StatusStopping => "stopping",
        };
        let s = h.stats.unwrap_or_default();
        let mut drops: Vec<(String, u64)> = s.drops.into_iter().collect();
        drops.sort();
        HunterAnswer {
            id: h.hunter_id,
            hostname: h.hostname,
            remote: h.remote_addr,
            status,
            connected_secs: h.connected_duration_sec,
            interfaces: h.interfaces,
            filter_types: h.capabilities.map(|c| c.filter_types).unwrap_or_default(),
            // an old processor does not say how many there are beyond those it lists
            filters: h.filters_meant.max(u32::try_from(h.filters.len()).unwrap_or(u32::MAX)),
            filter_ids: h.filters.into_iter().map(|f| f.id).collect(),
            active_filters: s.active_filters,
            filter_version: h.filter_version,
            filter_errors: h.filter_errors.into_iter().map(|e| (e.id, e.reason)).collect(),
            packets: [s.packets_captured, s.packets_matched, s.packets_forwarded, s.packets_dropped],
            drops,
            kernel: [s.kernel_received, s.kernel_dropped, s.interface_dropped, s.in_ring],
            held: s.held_packets,
            window_bytes: s.buffer_bytes,
            spool: [s.spool_bytes, s.spool_batches],
            rss_bytes: s.memory_rss_bytes,
            cpu_percent: s.cpu_percent,
        }
    });
    let all = all.collect();
    let p = answer.processor_stats.unwrap_or_default();
    let status = match p.status() {
        ProcessorStatus::ProcessorHealthy => "healthy",
        ProcessorStatus::ProcessorWarning => "warning",
        ProcessorStatus::ProcessorError => "error",
    };
    Ok(StatusAnswer {
        processor: p.processor_id,
        status,
        hunters: [p.total_hunters, p.healthy_hunters, p.warning_hunters, p.error_hunters],
        received: p.total_packets_received,
        duplicates: p.duplicates,
        subscribers: p.subscribers,
        skipped: p.subscriber_skipped,
        stored: p.committed,
        filters: p.total_filters,
        filter_version: p.filter_version,
        upstream: (!p.upstream_processor.is_empty()).then_some((p.upstream_processor, p.upstream_connected)),
        passed_on: [p.upstream_offered, p.upstream_recovered, p.total_packets_forwarded, p.upstream_backlog, p.upstream_dropped],
        processors: p.processors,
        all,
    })
}
