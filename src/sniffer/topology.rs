//! The threads of a sniffer: one inspects and writes; a file is read ahead by another; the caller's tasks wait for signals meanwhile, and look
//! at the memory that is taken.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::capture::Ahead;
use crate::telemetry::memory;

/// Runs `work` where blocking hurts nobody; `None`: it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// From now on it is known whether memory is short.
pub fn watch_memory() {
    tokio::spawn(async {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            memory::look();
        }
    });
}

/// Reads a file ahead. Without a thread for it the file ends in an error.
pub(super) fn read_ahead(ahead: Ahead) {
    let started = std::thread::Builder::new().name("lc-read".to_owned()).spawn(move || ahead.run());
    if let Err(error) = started {
        tracing::error!(%error, "no thread to read the file");
    }
}
