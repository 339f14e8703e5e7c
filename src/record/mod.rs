//! PCAP files and the record of a call: everything `lc` leaves on a disk.
//!
//! | file | holds |
//! |---|---|
//! | [`dir`] | the one place files are created: modes, links, free space |
//! | [`name`] | safe file names out of hostile Call-IDs |
//! | [`pcap`], [`pcapng`] | one packet as bytes of a record |
//! | `block`, `file` | whole records in blocks; a file is never left with half a record |
//! | `direct` | long writes past the page cache, where they are synced at once |
//! | `behind` | blocks that are written by another thread than the one that fills them |
//! | [`append`] | an existing file: is it ours to continue, and where does its last whole record end |
//! | [`unified`], [`rotate`], [`calls`] | the three ways packets are filed |
//! | [`json`], [`state`], [`retain`] | the record of a call, what a restart needs, and when files go |
//!
//! ```text
//! packet ─▶ unified (1 MiB blocks) ─┐
//!        ─▶ calls  (64 KiB blocks) ─┼─▶ write(2) of whole records ─▶ FILE, 0600, append only
//!        ─▶ rotate (64 KiB blocks) ─┘        on error: cut back to the last whole record, keep the block, report
//! ```
//!
//! Promises: a packet accepted is written exactly once per file it belongs to, in the order it came, with its time and
//! length as they were; after an error nothing accepted is lost, the packet that met the error was not accepted, and
//! giving it again is right; memory, open files and names are bounded and what a bound refused is counted; nothing that
//! existed is truncated except the torn half of a last record.
//!
//! Refuses: threads, clocks and tasks (the caller is a blocking writer thread that says what time it is).

mod above;
pub mod append;
mod behind;
mod block;
pub mod calls;
mod changes;
pub mod dir;
pub(crate) mod direct;
mod error;
pub(crate) mod fault;
mod file;
pub mod json;
pub mod losses;
pub mod name;
pub mod pcap;
pub mod pcapng;
pub mod readers;
pub mod retain;
pub mod rotate;
pub mod state;
pub mod unified;

pub use dir::Names;
pub use error::RecordError;
pub use file::Grown;

use crate::packet::{LinkType, Timestamp};

/// Longest captured packet a capture file may carry: libpcap's and Wireshark's own limit; a longer record makes the rest
/// of the file unreadable for them.
pub const MAX_CAPTURED: usize = 262_144;
/// Link types of which a classic pcap has files beside each other: what captures have is one or two, and each is an open file.
pub const MAX_LINKS: usize = 16;

/// One packet on its way into a file.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Capture time, written to the nanosecond.
    pub ts: Timestamp,
    /// Length on the wire; written as is unless it is shorter than `data`, which no reader accepts.
    pub wire_len: u32,
    /// How `data` begins.
    pub link: LinkType,
    /// The captured bytes; at most [`MAX_CAPTURED`].
    pub data: &'a [u8],
    /// Where it was seen and why it is here.
    pub origin: Origin<'a>,
}

/// Where a packet was seen, and which filters chose it; pcapng says so, classic pcap cannot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// Hunter id; empty for a local capture.
    pub hunter: &'a str,
    /// Interface name at that hunter.
    pub interface: &'a str,
    /// Ids of the filters that chose the packet, joined by commas.
    pub filters: &'a str,
}

/// Which of the two capture formats a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Classic pcap with nanoseconds; one link type per file.
    Pcap,
    /// pcapng; any number of interfaces and link types.
    PcapNg,
}

impl Format {
    /// The format a file name's suffix asks for: `.pcapng` or `.ntar` is pcapng, everything else is pcap.
    pub fn from_name(name: &str) -> Self {
        let ng = [".pcapng", ".ntar"].iter().any(|s| name.len() > s.len() && name.to_ascii_lowercase().ends_with(s));
        if ng { Self::PcapNg } else { Self::Pcap }
    }

    /// The suffix, with its dot.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Pcap => ".pcap",
            Self::PcapNg => ".pcapng",
        }
    }
}

/// One finished file, as a record or a listing names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileFact {
    /// File name inside its directory.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Packets in it.
    pub packets: u64,
    /// SHA-256 of the whole file in hex; absent while it is still written, or when it vanished meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
