//! Configuration: flag > environment > file > default, for every option without exception.
//!
//! ```text
//! options (a table) ─┬─▶ defaults ─┐
//!                    ├─▶ file ─────┤  each value checked by its Kind where it is written
//!   locate, tree ────┘   variables ┤  (file:line, variable or flag in the message)
//!                        flags ────┴─▶ figment ─▶ Settings ─▶ HuntConfig, ProcessConfig, …
//! ```
//!
//! Promises: a configuration file alone is enough; unknown keys are errors that name the key, the file, the line and the
//! nearest right key; all problems are reported at once; no unprefixed variable changes anything.
//! Refuses: files over 1 MiB, nesting over 64, `./lippycat.yaml` of somebody else (see `locate.rs`).

mod environment;
mod error;
mod keys;
mod kind;
mod layers;
mod locate;
mod options;
mod roles;
mod settings;
mod show;
mod tree;
mod units;

#[cfg(test)]
mod tests;

pub use environment::{CONFIG_FILE, Environment, PRODUCTION};
pub use error::{ConfigError, Place, Problem};
pub use kind::{Item, Kind, MAX_ITEMS, MAX_PEERS, MAX_TEXT_BYTES};
pub use layers::{FlagValue, Merged, Origin, Sources};
pub use locate::Choice;
pub use options::{Commands, Group, NOT_HERE, Opt, all as options, find as find_option, variable_of};
pub use roles::{ClientSecurity, HuntConfig, Mode, ProcessConfig, RemoteConfig, ServerSecurity, SniffConfig, SpoolConfig};
pub use settings::{
    AutoRotatePcap, CallLayout, Capture, Certs, ClientTls, DiskBuffer, Durability, Filters, Hunter, ListenHost, Log, LogFormat,
    NoFilterPolicy, OutputFormat, PerCallPcap, Processor, Remote, Sandbox, ServerDurability, ServerTls, Settings, Sniff, Speed,
    System, Upstream, UpstreamBuffer, Voip, WhenFull, split_listen,
};
pub use show::{defaults, dump};
pub use tree::{MAX_DEPTH, MAX_FILE_BYTES};
pub use units::{
    DEFAULT_PORT, PortRange, Reserve, format_duration, format_size, parse_address, parse_duration, parse_listen, parse_size,
};
