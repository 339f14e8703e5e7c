//! What a monitor may see, as long as it watches: its grant is looked at every second, and may become narrower, wider, or nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::sleep;
use tonic::Status;

use super::offered::Offered;
use crate::net::{Grant, PeerInfo, Sight};
use crate::processor::shared::Shared;
use crate::telemetry::Said;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// What is called, for the log.
const METHOD: &str = "SubscribePackets";

/// One monitor's grant; none: everything, for as long as it watches.
#[derive(Debug, Default)]
pub(super) struct Granted(Option<RwLock<Arc<Grant>>>);

/// What may be seen of a batch.
pub(super) enum Part {
    Whole,
    /// A narrower one.
    Of(Box<Offered>),
    Nothing,
}

impl Granted {
    /// What this peer may see.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(super) fn to(shared: &Shared, peer: Option<&PeerInfo>) -> Result<Self, Status> {
        shared.grant(peer, METHOD).map(|grant| Self(grant.map(RwLock::new)))
    }

    /// Whether anything may be seen of this hunter.
    pub(super) fn sees(&self, hunter: &str) -> bool {
        self.0.as_ref().is_none_or(|grant| grant.read().sees(hunter))
    }

    /// What may be seen of this batch.
    pub(super) fn part(&self, batch: &Offered) -> Part {
        let grant = self.0.as_ref().map(|grant| Arc::clone(&grant.read()));
        match grant.as_ref().map_or(Sight::All, |grant| grant.of(&batch.hunter)) {
            Sight::All => Part::Whole,
            Sight::Nothing => Part::Nothing,
            sight @ Sight::Chosen(_) => {
                batch.narrowed(|filter| sight.has_filter(filter)).map_or(Part::Nothing, |part| Part::Of(Box::new(part)))
            }
        }
    }

    /// As it was written, for the log.
    pub(super) fn said(&self) -> String {
        self.0.as_ref().map_or_else(|| "everything".to_owned(), |grant| grant.read().said().to_owned())
    }

    /// Refuses a hunter that was asked for by name.
    pub(super) fn refuse(shared: &Shared, hunter: &str) -> Status {
        shared.not_granted(METHOD, &format!("packets of hunter '{}' are not granted", Said(hunter)))
    }

    /// Follows the file; returns within two seconds once nothing is granted any more.
    pub(super) async fn gone(&self, shared: &Shared, peer: Option<PeerInfo>) -> Status {
        let Some(grant) = &self.0 else { return std::future::pending().await };
        loop {
            sleep(LOOK).await;
            let fresh = match shared.grant(peer.as_ref(), METHOD) {
                Ok(fresh) => fresh,
                Err(status) => return status,
            };
            let Some(fresh) = fresh.filter(|fresh| **fresh != **grant.read()) else { continue };
            let who = peer.as_ref().and_then(|p| p.identity.as_ref()).map(|who| who.id.clone()).unwrap_or_default();
            let before = self.said();
            *grant.write() = fresh;
            shared.monitors.granted_anew();
            tracing::info!(target: "audit", who = %Said(&who), before = %Said(&before), grant = %Said(&self.said()), "grant changed");
        }
    }
}
