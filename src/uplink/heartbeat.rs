//! Heartbeats: what the hunter says of itself every 5 s, and at once when it begins to lose packets or an interface goes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::Stream;
use tonic::Status;

use super::channel::Link;
use super::facts::{Control, Health, HeartbeatFacts};
use super::run::{GOODBYE_MAX, UplinkConfig};
use crate::reason::DropReason;
use crate::telemetry::clock;
use crate::wire::management::management_service_client::ManagementServiceClient;
use crate::wire::management::{HunterHeartbeat, HunterStats, HunterStatus};

/// Whether a heartbeat is due is looked at this often.
const SECOND: Duration = Duration::from_secs(1);
/// It is after so many (5 s are the peers' expectation), or when something urgent happened.
const HEARTBEAT: u32 = 5;

/// Sends heartbeats; returns when the stream ends.
pub(super) async fn beat(mut client: ManagementServiceClient<Link>, config: &UplinkConfig, control: &Arc<dyn Control>) -> Status {
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beats = Beats { ticks, silent: HEARTBEAT, urgent: 0, id: Arc::clone(&config.hunter_id), control: Arc::clone(control) };
    let mut answers = match client.heartbeat(beats).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::unavailable("the heartbeat stream ended"),
            Err(status) => return status,
        }
    }
}

/// The last heartbeat of a graceful stop.
pub(super) async fn say_goodbye(mut client: ManagementServiceClient<Link>, config: &UplinkConfig, control: &Arc<dyn Control>) {
    let mut facts = control.heartbeat();
    facts.health = Health::Stopping;
    let last = tokio_stream::once(heartbeat(&config.hunter_id, facts));
    let said = timeout(GOODBYE_MAX, async {
        let mut answers = client.heartbeat(last).await?.into_inner();
        answers.message().await
    });
    if !matches!(said.await, Ok(Ok(_))) {
        tracing::debug!("the processor was not told that we stop");
    }
}

struct Beats {
    ticks: Interval,
    /// Ticks since the last heartbeat.
    silent: u32,
    /// As it was then.
    urgent: u64,
    id: Arc<str>,
    control: Arc<dyn Control>,
}

impl Stream for Beats {
    type Item = HunterHeartbeat;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<HunterHeartbeat>> {
        loop {
            ready!(self.ticks.poll_tick(cx));
            let urgent = self.control.urgent();
            self.silent = self.silent.saturating_add(1);
            if self.silent >= HEARTBEAT || urgent != self.urgent {
                (self.silent, self.urgent) = (0, urgent);
                return Poll::Ready(Some(heartbeat(&self.id, self.control.heartbeat())));
            }
        }
    }
}

fn heartbeat(id: &str, f: HeartbeatFacts) -> HunterHeartbeat {
    let status = match f.health {
        Health::Healthy => HunterStatus::StatusHealthy,
        Health::Warning => HunterStatus::StatusWarning,
        Health::Error => HunterStatus::StatusError,
        Health::Stopping => HunterStatus::StatusStopping,
    };
    let drops = DropReason::ALL.iter().zip(f.drops).filter(|(_, n)| *n > 0).map(|(r, n)| (r.name().to_owned(), n)).collect();
    HunterHeartbeat {
        hunter_id: id.to_owned(),
        timestamp_ns: clock::wall().as_nanos(),
        status: status.into(),
        stats: Some(HunterStats {
            packets_captured: f.captured,
            packets_matched: f.matched,
            packets_forwarded: f.forwarded,
            packets_dropped: f.drops.iter().fold(0, |a, b| a.saturating_add(*b)),
            buffer_bytes: f.buffer_bytes,
            active_filters: f.active_filters,
            cpu_percent: f.cpu_percent,
            memory_rss_bytes: f.rss_bytes,
            memory_limit_bytes: f.memory_limit,
            kernel_received: f.kernel_received,
            kernel_dropped: f.kernel_dropped,
            interface_dropped: f.interface_dropped,
            drops,
            held_packets: f.held,
            spool_bytes: f.spool_bytes,
            spool_batches: f.spool_batches,
            in_ring: f.in_ring,
        }),
        filter_version: f.filter_version,
        filter_errors: f
            .filter_errors
            .into_iter()
            .map(|(id, reason)| crate::wire::management::FilterError { id, reason })
            .collect(),
    }
}
