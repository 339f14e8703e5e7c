//! `lc process --processor`: the road to the processors above.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{ProcessConfig, ServerDurability};
use crate::net::Dialer;
use crate::processor::UpstreamParts;
use crate::spool::{self as queue, SpoolConfig, SpoolFull};
use crate::uplink::{Party, UplinkConfig};

use super::exit::Stop;
use super::hunt;
use super::security;
use super::spool;

/// Memory for batches on their way up.
const MEMORY: u64 = 64 << 20;

/// How the processors above are reached, if there are any; certificates may be root's alone.
pub(super) fn dialer(config: &ProcessConfig) -> Result<Option<Dialer>, Stop> {
    let Some(security) = &config.upstream else { return Ok(None) };
    security::warn_about(security, "packets are passed on");
    security::dialer(security).map(Some)
}

/// What the queue's files know it by: no hunter's id.
pub(super) fn owner(id: &str) -> String {
    format!("processor:{id}")
}

/// The road, with what an earlier run left to be passed on; `limit` is what the whole process may take.
pub(super) fn parts(config: &ProcessConfig, dialer: Option<Dialer>, limit: u64) -> Result<Option<UpstreamParts>, Stop> {
    let Some(dialer) = dialer else {
        let waits = |path: &PathBuf| {
            let all = std::fs::read_dir(path);
            all.is_ok_and(|mut all| all.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "seg"))))
        };
        for path in queue::directories(&config.upstream_dir, &owner(&config.id)).into_iter().filter(waits) {
            tracing::warn!(queue = %path.display(), "batches for a processor above wait here, and nothing passes them on: use --processor, or 'lc spool drain --role processor'");
        }
        return Ok(None);
    };
    let p = &config.processor;
    let instance = hunt::instance();
    let queue_limit = p.disk_buffer.max_mb.saturating_mul(1 << 20);
    let (sync_after, sync_bytes) = spool::EAGER;
    let opened = spool::queue(
        &config.upstream_dir,
        SpoolConfig {
            hunter_id: owner(&config.id),
            max_bytes: queue_limit,
            min_free: spool::min_free(p.min_free),
            // it waits, and lets the hunters wait: they have queues of their own
            when_full: SpoolFull::Refuse,
            segment_bytes: spool::SEGMENT_BYTES,
            sync_after,
            sync_bytes,
        },
        p.durability == ServerDurability::Disk,
    )?;
    Ok(Some(UpstreamParts {
        uplink: UplinkConfig {
            party: Party::Processor,
            hunter_id: Arc::from(config.id.as_str()),
            targets: security::targets(&p.processor_addr)?,
            dialer,
            connect_timeout: None,
            drain_timeout: hunt::DRAIN,
            seed: instance,
        },
        queue: opened,
        queue_limit,
        memory: usize::try_from(MEMORY.min(limit / 8)).unwrap_or(usize::MAX),
        listen_address: p.listen_addr.clone(),
        instance,
    }))
}
