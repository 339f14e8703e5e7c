//! SIGINT and SIGTERM stop, the second one at once; SIGHUP reloads (product.md).

use tokio::signal::unix::{self, SignalKind};

/// What somebody asked of a running command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop capturing, flush, acknowledge, end.
    Stop,
    /// End now.
    StopNow,
    /// Read certificates, filters and log level again.
    Reload,
}

/// The signals of this process. From its making on, none of them kills the process.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    stopping: bool,
}

impl Signals {
    /// Takes over the three signals; needs a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            stopping: false,
        })
    }

    /// Waits for the next one. Safe to drop and call again: a signal is not lost. Who stops reads nothing again: an order to
    /// reload would take the place of the order to stop.
    pub async fn next(&mut self) -> Signal {
        loop {
            let stop = tokio::select! {
                _ = self.interrupt.recv() => true,
                _ = self.terminate.recv() => true,
                _ = self.hangup.recv() => false,
            };
            match (stop, self.stopping) {
                (true, false) => {
                    self.stopping = true;
                    return Signal::Stop;
                }
                (true, true) => return Signal::StopNow,
                (false, false) => return Signal::Reload,
                (false, true) => {}
            }
        }
    }

    /// Drives `work` to its end, telling `on` about each signal meanwhile.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>, mut on: impl FnMut(Signal)) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                signal = self.next() => on(signal),
            }
        }
    }
}
