//! Options of commands that run for long, about the process itself (section `system`).

use super::super::kind::Kind;
use super::{Commands, Group, Opt};

const LONG: Commands = Commands::HUNT.and(Commands::SNIFF).and(Commands::PROCESS);
const BOTH: Commands = Commands::HUNT.and(Commands::SNIFF);
const YEAR: u64 = 31_536_000;

pub(super) const ROWS: &[Opt] = &[
    Opt::new("system.user", Kind::Text, Group::Security, LONG)
        .flag("user")
        .help("Started as root: become this user (NAME or UID:GID) before anything is received"),
    Opt::new("system.sandbox", Kind::Choice(&["on", "off"]), Group::Security, Commands::HUNT.and(Commands::PROCESS))
        .flag("sandbox")
        .default("on")
        .help("Deny this process the files and system calls it has no use for (landlock, seccomp)"),
    Opt::new("system.pcap_group", Kind::Text, Group::Output, Commands::PROCESS.and(Commands::SNIFF))
        .flag("pcap-group")
        .help("Let this group (NAME or GID) read captures and records: files 0640, directories 0750"),
    // less is no limit a capture can live in
    Opt::new("system.memory_limit", Kind::SizeOrNone { min: 64 << 20, max: 1 << 46 }, Group::General, LONG)
        .flag("memory-limit")
        .default("0")
        .help("Memory this process may take (0: half of the machine's or the container's)"),
    // the defaults are those of the parts; a test holds them to it
    Opt::new("system.max_flows", Kind::Integer { min: 1024, max: 4 << 20 }, Group::General, BOTH)
        .flag("max-flows")
        .default("262144")
        .help("Flows that each capture thread remembers, within --memory-limit"),
    Opt::new("system.max_calls", Kind::Integer { min: 100, max: 2_000_000 }, Group::General, LONG)
        .flag("max-calls")
        .default("100000")
        .help("Calls each capture thread, or a processor, remembers"),
    Opt::new("system.rtp_idle", Kind::Duration { max_secs: YEAR }, Group::General, LONG)
        .flag("rtp-idle")
        .default("5m")
        .help("Silence after which a call with media is over (0s: never)"),
    Opt::new("system.call_max_age", Kind::Duration { max_secs: YEAR }, Group::General, LONG)
        .flag("call-max-age")
        .default("2h")
        .help("Age at which any other call is over (0s: never)"),
    Opt::new("system.tcp_memory", Kind::Size { min: 1 << 20, max: 4 << 30 }, Group::General, BOTH)
        .flag("tcp-memory")
        .default("128M")
        .help("Memory to put TCP together in, of each capture thread, within --memory-limit"),
];
