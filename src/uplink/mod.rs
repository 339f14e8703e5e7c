//! The road from a sealed batch to an acknowledgement.
//!
//! | file | what |
//! |---|---|
//! | `backlog` | what waits, what is in flight, what was given up |
//! | `addresses` | the operator's processors, those that they name, and which is next |
//! | `ways` | the same at work, and the way back to the operator's own |
//! | [`BreakerState`] | leaves alone what fails again and again |
//! | [`Spooler`] | the thread between the backlog and its spool on disk |
//! | `facts` | what the uplink and its owner tell each other |
//! | `heartbeat` | what the hunter says of itself |
//! | `register` | the first word of a session; filters as they change |
//! | `run` | connect, register, stream, reconnect, drain |
//! | `stream` | the data stream's own body |
//! | `channel` | one HTTP/2 connection |
//! | `legacy` | batches for processors without our extensions |
//! | [`manage`] | questions of the command line |

mod addresses;
mod backlog;
mod breaker;
mod channel;
mod facts;
mod heartbeat;
mod legacy;
pub mod manage;
mod register;
mod run;
mod spooler;
mod stream;
mod ways;

pub use self::backlog::{
    Backlog, BacklogConfig, BacklogSnapshot, Connection, Credit, Durability, Exposed, Offer, Outgoing, PeerKind, WhenFull,
};
pub use self::breaker::BreakerState;
pub use self::facts::{Control, FilterChange, Health, HeartbeatFacts, LinkState, RegistrationFacts, Road, WireFilter};
pub use self::legacy::describe;
pub use self::run::{Ending, Party, SessionError, UplinkConfig, UplinkError, run};
pub use self::spooler::Spooler;

#[cfg(test)]
mod tests;
