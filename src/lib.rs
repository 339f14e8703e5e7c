//! `lc`: targeted, distributed packet capture.
//!
//! Read top to bottom: a room imports only from the rooms above it; `tests/it/layering.rs` holds the same table as data
//! and fails the build on anything else.
//!
//! | layer | room | what lives there |
//! |---|---|---|
//! | words | [`field`], [`reason`] | what a protocol said, by name; why a packet was given up |
//! | | [`packet`] | a captured frame, its time, its decoded headers; tunnels; IP defragmentation |
//! | mechanisms | [`flow`] | flow table, packet-time timers, TCP reassembly |
//! | | [`pattern`] | multi-pattern search: exact, prefix, suffix, substring |
//! | knowledge | [`filter`] | the filter kinds as data, the compiled [`filter::FilterSet`], the filter file |
//! | | [`protocols`] | one folder per protocol: SIP, SDP, RTP, WebSocket … |
//! | | [`voip`] | calls: states, media claims, holds, verdicts, quality |
//! | core | [`engine`] | frame in, verdicts and events out; no I/O, no clock |
//! | | [`batch`] | what crosses the network: the sealed, wire-ready batch |
//! | outside | [`telemetry`] | log set-up, counters, drop reasons |
//! | | [`capture`] | libpcap and capture files as a [`capture::Source`] |
//! | | [`record`] | PCAP writers: unified, per call, rotating; the JSON record of a call |
//! | | [`spool`] | the disk queue: what waits for a processor survives a restart |
//! | | [`net`] | TLS, certificates, endpoints, back-off |
//! | | [`wire`] | generated protobuf types and their conversions |
//! | | [`uplink`] | the road from a sealed batch to an acknowledgement |
//! | assemblies | [`sniffer`], [`hunter`], [`processor`] | threads, tasks and channels; they never import each other |
//! | edge | [`config`], [`cli`] | files, environment, flags, exit codes |

#![cfg_attr(
    test,
    allow(
        clippy::many_single_char_names,
        clippy::format_collect,
        clippy::format_push_string,
        clippy::wildcard_enum_match_arm,
        clippy::print_stdout,
        clippy::redundant_closure,
        reason = "tests build bytes and text by hand and may print what they measured"
    )
)]

pub mod field;
pub mod packet;
pub mod reason;

pub mod flow;
pub mod pattern;

pub mod filter;
pub mod protocols;
pub mod voip;

pub mod engine;

pub mod batch;

pub mod telemetry;

pub mod capture;
pub mod record;
pub mod spool;

pub mod net;
pub mod wire;

pub mod uplink;

pub mod hunter;
pub mod processor;
pub mod sniffer;

pub mod config;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/not_run.rs"]
mod not_run;
#[cfg(test)]
#[path = "../tests/it/numbered.rs"]
mod numbered;
