//! The one thread of a sniffer: it reads, inspects and writes; the caller's tasks wait for signals meanwhile.

/// Runs `work` where blocking hurts nobody; `None`: it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
