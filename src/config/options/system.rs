//! Options of every command that runs for long, about the process itself (section `system`).

use super::super::kind::Kind;
use super::{Commands, Group, Opt};

const LONG: Commands = Commands::HUNT.and(Commands::SNIFF).and(Commands::PROCESS);

pub(super) const ROWS: &[Opt] = &[Opt::new("system.user", Kind::Text, Group::Security, LONG)
    .flag("user")
    .help("Started as root: become this user (NAME or UID:GID) before anything is received")];
