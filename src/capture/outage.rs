//! An interface that went down or away while others, or nobody, deliver: it is tried again for ever, with longer and longer pauses.

use std::time::Duration;

use super::{CaptureError, Source};
use crate::packet::Timestamp;
use crate::telemetry::clock::Moment;

/// Pauses between two attempts.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// One outage, from the first error to the moment when everything delivers.
struct Outage {
    /// Newest packet before.
    since: Timestamp,
    pause: Duration,
    tried: Moment,
}

/// The outage at hand, if there is one.
#[derive(Default)]
pub struct Outages {
    now: Option<Outage>,
}

impl Outages {
    /// Whether something does not deliver.
    pub fn is_on(&self) -> bool {
        self.now.is_some()
    }

    /// Something has gone wrong with the source; `newest` is packet time.
    pub fn begin(&mut self, e: &CaptureError, newest: Timestamp) {
        tracing::warn!(error = %e, "capture interrupted; trying again");
        self.now.get_or_insert_with(|| Outage { since: newest, pause: FIRST, tried: Moment::now() });
    }

    /// As [`Self::begin`] for an interface that may come back; any other error is handed back.
    pub fn take(&mut self, e: CaptureError, newest: Timestamp) -> Option<CaptureError> {
        if !matches!(e, CaptureError::InterfaceDown { .. } | CaptureError::InterfaceGone { .. }) {
            return Some(e);
        }
        self.begin(&e, newest);
        None
    }

    /// Tries again when it is time for it; when everything delivers again, the time of the last packet before.
    pub fn poll(&mut self, source: &mut dyn Source) -> Option<Timestamp> {
        let outage = self.now.as_mut()?;
        if !source.is_whole() {
            if outage.tried.elapsed() < outage.pause {
                return None;
            }
            if let Err(e) = source.recover() {
                tracing::debug!(error = %e, "still interrupted");
                outage.pause = outage.pause.saturating_mul(2).min(LONGEST);
                outage.tried = Moment::now();
                return None;
            }
        }
        tracing::info!(source = source.describe(), "capturing again");
        self.end()
    }

    /// The capture is over, or everything delivers: since when something has not.
    pub fn end(&mut self) -> Option<Timestamp> {
        self.now.take().map(|outage| outage.since)
    }
}
