//! The wire: protobuf types and gRPC stubs generated from `proto/`, and what belongs to the framing around them.
//!
//! Promises: the field numbers of `proto/`, strings that are valid UTF-8, no message larger than its limit. Refuses:
//! compression, and anything else a peer may not ask for. The packets' own encoding is in [`crate::batch`]; what is
//! generated here for it serves peers' stubs, tests and monitors.

pub mod frame;

/// The header of a refusal for want of room (`RESOURCE_EXHAUSTED`) that says where else a hunter may go: as `RegistrationResponse.peers`, parted
/// by commas.
pub const PEERS: &str = "lc-peers";
/// So many of them are heeded, and may be named.
pub const PEERS_MAX: usize = 16;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    unnameable_types,
    unused_qualifications,
    reason = "generated"
)]
mod generated {
    /// Types and stubs of `proto/data.proto`.
    pub mod data {
        tonic::include_proto!("lippycat.data");
    }

    /// Types and stubs of `proto/management.proto`.
    pub mod management {
        tonic::include_proto!("lippycat.management");
    }
}

pub use generated::{data, management};

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod relay_tests;
