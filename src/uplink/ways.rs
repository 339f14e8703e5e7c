//! The addresses of an uplink at work: who is tried, who is told of it, whose list of peers is believed.
//!
//! A list of peers counts only from the operator's own processors, and only where these have shown by their certificates that they are: not in plain
//! text, not without verification. Each peer must then show a certificate of the same CA, of a processor, for the very name it is dialled by.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::addresses::{Address, Addresses, Choice, Failure};
use super::facts::{Control, Road};
use super::register::Registered;
use super::run::{Party, SessionError, Up, UplinkConfig};
use crate::net::Dialer;
use crate::telemetry::Escaped;

/// Whoever is at a peer asks this often whether one of the operator's own processors takes it again; a tenth more at most.
const BACK: Duration = Duration::from_mins(1);

/// When that is due.
pub(super) fn back_after(random: u64) -> Duration {
    BACK.saturating_add(Duration::from_millis(random % 6000))
}

/// Where a session is made.
pub(super) struct Way {
    pub(super) address: Address,
    /// It is there already.
    pub(super) up: Option<Box<Up>>,
}

/// Where an uplink may go.
pub(super) struct Ways<'a> {
    pub(super) config: &'a UplinkConfig,
    pub(super) control: &'a Arc<dyn Control>,
    to_peers: Dialer,
    addresses: Mutex<Addresses>,
}

impl<'a> Ways<'a> {
    pub(super) fn new(config: &'a UplinkConfig, control: &'a Arc<dyn Control>) -> Self {
        // patience that is bounded is used to the full
        let addresses = Mutex::new(Addresses::new(&config.targets, config.connect_timeout.is_some()));
        let this = Self { config, control, to_peers: config.dialer.clone().as_dialled(), addresses };
        this.tell();
        this
    }

    /// How it is reached.
    pub(super) fn dialer(&self, address: &Address) -> &Dialer {
        if address.peer { &self.to_peers } else { &self.config.dialer }
    }

    /// The next to be tried.
    ///
    /// # Errors
    /// When there is one again.
    pub(super) fn choose(&self, hurried: bool) -> Result<Way, Instant> {
        let mut addresses = self.addresses.lock();
        if hurried {
            addresses.hurry();
        }
        match addresses.choose(Instant::now()) {
            Choice::Try(address) => Ok(Way { address, up: None }),
            Choice::Wait(until) => Err(until),
        }
    }

    /// Until when an attempt may go on that is made now, if all must be over at `end`.
    pub(super) fn patience(&self, address: &Address, end: Instant) -> Instant {
        let now = Instant::now();
        now + self.addresses.lock().share(&address.target, end.saturating_duration_since(now))
    }

    /// The operator's own that may be tried.
    pub(super) fn own_ready(&self) -> Vec<Address> {
        self.addresses.lock().own_ready(Instant::now())
    }

    pub(super) fn attempt(&self, address: &Address) {
        if self.addresses.lock().attempt(&address.target) {
            tracing::info!(processor = %address.target, "trying again");
            self.tell();
        }
    }

    /// A session goes on.
    pub(super) fn steady(&self, address: &Address) {
        if self.addresses.lock().succeeded(&address.target) {
            self.tell();
        }
    }

    /// A session has ended that was one.
    pub(super) fn was_up(&self, address: &Address) {
        self.addresses.lock().begin_anew();
        self.steady(address);
    }

    /// An attempt has failed; true when it is left alone from here on.
    pub(super) fn failed(&self, address: &Address, error: &SessionError, random: u64) -> bool {
        let failure = Failure { full: matches!(error, SessionError::Full { .. }), settled: error.is_settled() };
        let now = Instant::now();
        let mut addresses = self.addresses.lock();
        let opened = addresses.failed(&address.target, failure, now, random);
        let left_alone = addresses.left_alone(now);
        drop(addresses);
        if opened {
            let why = if failure.full { "has no room" } else { "failed again and again" };
            if let Some(left_alone) = left_alone {
                tracing::warn!(processor = %address.target, why, "{left_alone}");
            }
            self.tell();
        }
        opened
    }

    pub(super) fn are_settled(&self) -> bool {
        self.addresses.lock().are_settled()
    }

    /// What the answer to a registration says of other processors.
    pub(super) fn hear(&self, from: &Address, answer: &Result<Registered, SessionError>) {
        let named = match answer {
            Ok(registered) => &registered.peers,
            Err(SessionError::Full { peers: Some(peers), .. }) => peers,
            Err(_) => return,
        };
        if from.peer || self.config.party != Party::Hunter || !self.config.dialer.verifies() {
            return;
        }
        let heard = self.addresses.lock().hear(named);
        if heard.left_out > 0 {
            let first = Escaped(heard.first.as_bytes());
            tracing::warn!(processor = %from.target, left_out = heard.left_out, %first, "peers that are no addresses, or too many, are left out");
        }
        if heard.changed {
            tracing::info!(processor = %from.target, peers = %self.peers(), "other processors that may take this hunter");
            self.tell();
        }
    }

    fn peers(&self) -> String {
        let addresses = self.addresses.lock();
        let peers: Vec<_> = addresses.states().filter(|(a, _)| a.peer).map(|(a, _)| a.target.to_string()).collect();
        if peers.is_empty() { "none".to_owned() } else { peers.join(" ") }
    }

    fn tell(&self) {
        let addresses = self.addresses.lock();
        let road = |(address, breaker): (&Address, _)| Road { target: address.target.to_string(), breaker, peer: address.peer };
        let roads = addresses.states().map(road).collect();
        drop(addresses);
        self.control.roads(roads);
    }
}
