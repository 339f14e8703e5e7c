//! What the uplink must know of its owner, and what it tells it: plain types, so that neither knows the other's insides.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::breaker::BreakerState;
use crate::batch::Epoch;
use crate::reason::DropReason;
use crate::spool::RunRecord;
use crate::telemetry::Exposition;
use crate::telemetry::exposition::Kind;

/// What a hunter says of itself when it registers.
#[derive(Clone, Debug, Default)]
pub struct RegistrationFacts {
    /// Host name, or the address of the capture interface: what monitors show.
    pub hostname: String,
    /// Interfaces, in the order packets index them.
    pub interfaces: Vec<String>,
    /// Our version.
    pub version: String,
    /// Filter kinds that can be applied, by name.
    pub filter_types: Vec<String>,
    /// Bytes of batches that fit into memory.
    pub max_buffer_bytes: u64,
    /// Unique for this process start.
    pub instance: u64,
    /// Epochs in use beyond those of which batches wait.
    pub epochs: Vec<Epoch>,
    /// What earlier runs of this hunter lost before their inspection, the last run among them.
    pub earlier: Vec<RunRecord>,
    /// Of a processor: where it listens.
    pub listen_address: String,
    /// Of a processor: those below it, however deep.
    pub below: Vec<String>,
    /// Of a processor: how many stand below each other there, itself included.
    pub depth: u32,
}

/// A filter as it crosses the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireFilter {
    /// Identifier.
    pub id: String,
    /// `FilterType` number.
    pub kind: i32,
    /// Pattern.
    pub pattern: String,
    /// Targets; empty: every hunter.
    pub target_hunters: Vec<String>,
    /// Whether it is on.
    pub enabled: bool,
    /// For people.
    pub description: String,
    /// Media policy by name; empty: full.
    pub media: String,
}

/// A change of the hunter's filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterChange {
    /// These are all there are.
    Replace {
        /// The set.
        filters: Vec<WireFilter>,
        /// Its version; 0 from peers without our extensions.
        version: u64,
        /// The peer has no extensions: its patterns have its own meaning.
        legacy: bool,
    },
    /// Added, or changed.
    Put {
        /// The filter.
        filter: WireFilter,
        /// The version after the group this belongs to.
        version: u64,
        /// More of the group follows: wait with the swap.
        more: bool,
        /// As above.
        legacy: bool,
    },
    /// Gone.
    Remove {
        /// Its identifier.
        id: String,
        /// As above.
        version: u64,
        /// As above.
        more: bool,
    },
}

/// How the hunter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    #[default]
    Healthy,
    /// It works, but something is wrong: an interface is down, packets were lost.
    Warning,
    /// It does not capture.
    Error,
    /// It is about to end.
    Stopping,
}

/// What a heartbeat carries.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatFacts {
    /// Health.
    pub health: Health,
    /// Packets captured.
    pub captured: u64,
    /// Packets chosen.
    pub matched: u64,
    /// Packets acknowledged.
    pub forwarded: u64,
    /// Packets given up, by reason.
    pub drops: [u64; DropReason::ALL.len()],
    /// Bytes of batches in memory.
    pub buffer_bytes: u64,
    /// Filters in force.
    pub active_filters: u32,
    /// CPU use since the last heartbeat, percent of one core.
    pub cpu_percent: f32,
    /// Resident memory.
    pub rss_bytes: u64,
    /// What it may take; 0 where that is not known.
    pub memory_limit: u64,
    /// Frames the kernel saw.
    pub kernel_received: u64,
    /// Frames the kernel dropped.
    pub kernel_dropped: u64,
    /// Frames the interface dropped.
    pub interface_dropped: u64,
    /// Frames accepted and not yet taken.
    pub in_ring: u64,
    /// Packets waiting for a verdict.
    pub held: u64,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Batches on disk and not in memory.
    pub spool_batches: u64,
    /// Version of the filters in force.
    pub filter_version: u64,
    /// Filters that could not be applied: id and reason.
    pub filter_errors: Vec<(String, String)>,
}

/// What becomes of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Registered; these are our sockets, both ends.
    Up {
        /// Which processor.
        target: String,
        /// Local and remote address of each connection.
        sockets: Vec<(SocketAddr, SocketAddr)>,
        /// It stores before it acknowledges.
        durable: bool,
    },
    /// Not connected.
    Down,
}

/// How a processor is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Road {
    /// Which.
    pub target: String,
    /// Whether it is tried.
    pub breaker: BreakerState,
    /// One of the operator's own named it.
    pub peer: bool,
}

impl Road {
    /// As metrics: 1 for the state each is in, and for the one that is `connected`.
    pub fn expose(roads: &[Self], connected: Option<&str>, x: &mut Exposition) {
        let mut breakers = x.family("lc_breaker_state", Kind::Gauge, "Whether a processor is tried: 1 for the state it is in.");
        for road in roads {
            for name in BreakerState::NAMES {
                let labels = [("processor", road.target.as_str()), ("state", name)];
                breakers.sample(&labels, u8::from(road.breaker.name() == name));
            }
        }
        let mut takes = x.family("lc_processor_connected", Kind::Gauge, "Whether it is this processor that takes the packets.");
        for road in roads {
            let labels = [("processor", road.target.as_str()), ("peer", if road.peer { "1" } else { "0" })];
            takes.sample(&labels, u8::from(connected == Some(road.target.as_str())));
        }
    }

    /// The same as JSON.
    pub fn status(roads: &[Self]) -> Vec<Value> {
        roads.iter().map(|road| json!({"processor": road.target, "state": road.breaker.name(), "peer": road.peer})).collect()
    }
}

/// What the uplink asks of its owner.
pub trait Control: Send + Sync {
    /// For a registration.
    fn registration(&self) -> RegistrationFacts;
    /// A change of filters.
    fn apply(&self, change: FilterChange);
    /// For a heartbeat.
    fn heartbeat(&self) -> HeartbeatFacts;
    /// Changes whenever a heartbeat should not wait for its turn: the kernel lost packets, an interface went or came.
    fn urgent(&self) -> u64;
    /// The connection came or went.
    fn link(&self, state: LinkState);
    /// A breaker changed, or others are known; all processors, most preferred first.
    fn roads(&self, roads: Vec<Road>);
}
