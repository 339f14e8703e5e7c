//! Why a capture could not be opened or read on: what was being done, to what, why it failed, what to try.
//!
//! The messages are complete sentences for an operator; the command line prints them as they are.

use std::io;

/// A capture that could not be opened, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The interface does not exist.
    #[error("cannot open {name}: no such interface (have: {have}); see 'lc list interfaces'")]
    NoSuchInterface {
        /// As the user wrote it.
        name: String,
        /// The interfaces there are, comma separated.
        have: String,
    },
    /// The process may not open packet sockets.
    #[error("cannot capture on {name}: permission denied; run as root or: setcap cap_net_raw+ep $(command -v lc)")]
    Permission {
        /// The interface.
        name: String,
    },
    /// The interface exists and is administratively down.
    #[error("cannot capture on {name}: the interface is down; bring it up: ip link set {name} up")]
    InterfaceDown {
        /// The interface.
        name: String,
    },
    /// The interface vanished while capturing; [`super::Source::recover`] tries again.
    #[error("cannot capture on {name} any longer: {reason}; trying again until it is back")]
    InterfaceGone {
        /// The interface.
        name: String,
        /// libpcap's words, or ours.
        reason: String,
    },
    /// libpcap or the kernel refused for another reason.
    #[error("cannot capture on {name}: {reason}")]
    Live {
        /// The interface.
        name: String,
        /// libpcap's or the kernel's words.
        reason: String,
    },
    /// An option is outside its limits.
    #[error("cannot capture with {option} {value}: it must be {must}")]
    Option {
        /// The command-line name.
        option: &'static str,
        /// As given.
        value: u64,
        /// The allowed range.
        must: &'static str,
    },
    /// The filter expression does not compile.
    #[error("cannot use the BPF filter '{expression}': {reason}; see 'man pcap-filter'")]
    Bpf {
        /// As the user wrote it.
        expression: String,
        /// libpcap's words.
        reason: String,
    },
    /// A capture file could not be opened.
    #[error("cannot open {file}: {reason}")]
    Open {
        /// The path; `-` is "standard input".
        file: String,
        /// In words.
        reason: String,
        /// The system's answer.
        io: io::Error,
    },
    /// Nothing was given to read, or too much.
    #[error("cannot read {count} capture files: {must}")]
    FileCount {
        /// How many were named.
        count: usize,
        /// What is allowed.
        must: &'static str,
    },
    /// The file has no bytes at all.
    #[error("cannot read {file}: the file is empty; was the capture that made it stopped before its first write?")]
    Empty {
        /// The path.
        file: String,
    },
    /// The file ends inside its own header.
    #[error("cannot read {file}: it ends after {have} bytes, inside the file header")]
    ShortHeader {
        /// The path.
        file: String,
        /// How many bytes there are.
        have: usize,
    },
    /// The file is not a pcap or pcapng file.
    #[error("cannot read {file}: {what}")]
    NotACapture {
        /// The path.
        file: String,
        /// What it seems to be, and what to do.
        what: String,
    },
    /// The file is damaged here; everything before was delivered.
    #[error("cannot read on in {file} at byte {offset}: {what}; the {frames} packets before it were read")]
    Malformed {
        /// The path.
        file: String,
        /// Where the refused record begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
        /// How many packets came before.
        frames: u64,
    },
    /// The system failed to read; everything before was delivered.
    #[error("cannot read on in {file} at byte {offset}: {source}")]
    Read {
        /// The path.
        file: String,
        /// How far it was read.
        offset: u64,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}
