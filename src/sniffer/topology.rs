//! The threads of a sniffer: one inspects and writes; a file is read ahead by another; the caller's tasks wait for signals meanwhile.

use crate::capture::Ahead;

/// Runs `work` where blocking hurts nobody; `None`: it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Reads a file ahead. Without a thread for it the file ends in an error.
pub(super) fn read_ahead(ahead: Ahead) {
    let started = std::thread::Builder::new().name("lc-read".to_owned()).spawn(move || ahead.run());
    if let Err(error) = started {
        tracing::error!(%error, "no thread to read the file");
    }
}
