//! The tokio runtime of the commands that talk to the network.

use std::time::Duration;

use anyhow::Context;

use super::exit::Stop;

/// Tasks left over when a command has ended get this long; there should be none.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Runs a command's future to its end.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("lc-net")
        .build()
        .context("cannot start the network threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LEFTOVERS);
    result
}
