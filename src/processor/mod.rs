//! The processor: receive, store, acknowledge; hand out filters.
//!
//! ```text
//! stream per hunter ─▶ data: wire → batch ─▶ ingest: identity, new or duplicate ─▶ branches/record ─▶ files ─▶ acknowledgement
//!                      management: registration, heartbeats, filters, status
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`topology`] | every thread, task and channel |
//! | [`data`], `feed`, `pace` | the data stream; whose it is; how fast it is read |
//! | [`below`] | processors below this one |
//! | [`access`], [`intake`], [`answers`] | who may call what; how much of it may be under way, and of what is answered |
//! | [`ingest`] | what arrived, what is stored |
//! | [`commit`] | when something is stored: the commit log, the commit thread, what a restart begins from |
//! | [`counts`] | what became of every packet |
//! | [`losses`] | when packets were lost before any call could be told |
//! | [`pressure`] | what is asked of the hunters |
//! | [`pages`] | figures and health over HTTP |
//! | [`management`], [`roster`], [`filters`] | the control plane |
//! | [`monitors`] | live copies for whoever watches |
//! | `branches/` | what becomes of a batch |
//! | [`upstream`] | the road to the processor above |
//!
//! Promises: a batch is acknowledged once it is stored in every file it belongs to (`--durability` says what that means), and stored once
//! however often it comes and whenever a process ends; a full disk stops acknowledgements, never loses what was acknowledged.

pub mod access;
pub mod answers;
pub mod below;
mod branches;
pub mod commit;
pub mod counts;
pub mod data;
mod feed;
pub mod filters;
pub mod ingest;
pub mod intake;
pub mod losses;
pub mod management;
pub mod monitors;
mod pace;
pub mod pages;
pub mod pressure;
pub mod roster;
pub mod shared;
pub mod topology;
pub mod upstream;

use std::path::PathBuf;

use crate::filter::Filter;
use crate::net::{Acceptor, PageListener, Transport};
use crate::record::state::Acked;
use crate::telemetry::Recent;
use crate::uplink::UplinkError;

pub use access::Access;
pub use branches::record::Outputs;
pub use commit::{Commit, Durability};
pub use counts::Counts;
pub use pace::Rates;
pub use topology::{drain, orders, run};
pub use upstream::{UpstreamFigures, UpstreamParts};

/// What a processor is told from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    #[default]
    Run,
    /// Read the filter file again; the number tells one order from the next.
    Reload(u64),
    /// Write what was received and end.
    Stop,
    /// End.
    StopNow,
}

/// Opens the files again, from what is stored in them.
pub type Reopen = Box<dyn FnMut() -> Result<(Outputs, Commit), Box<dyn std::error::Error + Send + Sync>> + Send>;

/// What a processor is made of.
pub struct Parts {
    /// Its name.
    pub id: String,
    /// Who may call what.
    pub access: Access,
    /// Where it listens.
    pub acceptor: Acceptor,
    /// Most hunters.
    pub max_hunters: usize,
    /// What is read from one in a second.
    pub hunter_rates: Rates,
    /// Other processors, as hunters are told of them.
    pub peers: Vec<String>,
    /// Most monitors.
    pub max_subscribers: usize,
    /// Files.
    pub outputs: Outputs,
    /// What an earlier run left, and the log that this one goes on with.
    pub commit: Commit,
    /// How both are opened once more, after the disk did not confirm what was written.
    pub reopen: Reopen,
    /// Filters at the start.
    pub filters: Vec<Filter>,
    /// Where versions begin.
    pub filter_version: u64,
    /// Followed for changes.
    pub filter_file: Option<PathBuf>,
    /// What an earlier run had stored.
    pub acked: Vec<Acked>,
    /// A statistics line every 5 s.
    pub stats: bool,
    /// Where figures and health are asked for.
    pub pages: Option<PageListener>,
    /// What they say of the connections.
    pub transport: Transport,
    /// The road to the processor above, if there is one.
    pub upstream: Option<UpstreamParts>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Packets.
    pub counts: Counts,
    /// What was lost lately.
    pub lately: Recent,
    /// The road upwards.
    pub upstream: Option<UpstreamFigures>,
}

/// Why a processor ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// The filters at the start.
    #[error("{0}")]
    Filters(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The state directory.
    #[error(transparent)]
    State(crate::record::RecordError),
    /// No processor above took what waits for it.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// A bug.
    #[error("the record thread panicked; this is a bug, please report it with the log above")]
    Panicked,
    /// The disk does not take what is left.
    #[error("the record thread did not end within 30 s; what was not written was not acknowledged")]
    Stuck,
}

#[cfg(test)]
mod tests;
