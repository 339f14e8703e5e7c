//! This processor as the processor above it sees it.

use std::sync::Arc;

use super::Upstream;
use crate::processor::shared::Shared;
use crate::uplink::{Control, FilterChange, HeartbeatFacts, LinkState, RegistrationFacts, Road};

/// What the uplink asks and tells.
pub(in crate::processor) struct Plane {
    pub(in crate::processor) shared: Arc<Shared>,
    pub(in crate::processor) upstream: Arc<Upstream>,
    pub(in crate::processor) listen_address: String,
    pub(in crate::processor) instance: u64,
}

impl Control for Plane {
    fn registration(&self) -> RegistrationFacts {
        let (below, depth) = self.shared.below.lock().tree();
        RegistrationFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance,
            listen_address: self.listen_address.clone(),
            below,
            depth,
            ..RegistrationFacts::default()
        }
    }

    /// A processor hands out its own filters, never another's.
    fn apply(&self, _: FilterChange) {}

    fn heartbeat(&self) -> HeartbeatFacts {
        HeartbeatFacts::default()
    }

    fn urgent(&self) -> u64 {
        0
    }

    fn link(&self, state: LinkState) {
        self.upstream.link.lock().connected = match state {
            LinkState::Up { target, .. } => Some(target),
            LinkState::Down => None,
        };
    }

    fn roads(&self, roads: Vec<Road>) {
        self.upstream.link.lock().roads = roads;
    }
}

/// The same while it sends what an earlier run left: nobody is below it.
pub(in crate::processor) struct Alone {
    pub(in crate::processor) instance: u64,
    pub(in crate::processor) listen_address: String,
}

impl Control for Alone {
    fn registration(&self) -> RegistrationFacts {
        RegistrationFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance,
            listen_address: self.listen_address.clone(),
            depth: 1,
            ..RegistrationFacts::default()
        }
    }

    fn apply(&self, _: FilterChange) {}

    fn heartbeat(&self) -> HeartbeatFacts {
        HeartbeatFacts::default()
    }

    fn urgent(&self) -> u64 {
        0
    }

    fn link(&self, _: LinkState) {}

    fn roads(&self, _: Vec<Road>) {}
}
