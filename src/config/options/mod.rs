//! Every option of `lc`, as data: the one place that knows its key, variable, flag, default and help.
//!
//! Flags, environment names, configuration keys, `--help`, completions, man pages, `lc config defaults` and the precedence
//! test are all made from [`all`], so an option cannot exist in one of them and be missing in another.
//!
//! To add an option: one row in the table of its section, one field of the same name in that section's struct in
//! [`super::settings`]. A test fails when the two disagree.

mod capture;
mod edge;
mod hunter;
mod processor;
mod sniff;
mod system;
mod voip;

use super::kind::Kind;

/// The commands an option belongs to, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commands(u16);

impl Commands {
    /// `lc hunt` and everything below it.
    pub const HUNT: Self = Self(1);
    /// `lc hunt voip` alone.
    pub const HUNT_VOIP: Self = Self(1 << 1);
    /// `lc process`.
    pub const PROCESS: Self = Self(1 << 2);
    /// `lc sniff` and everything below it.
    pub const SNIFF: Self = Self(1 << 3);
    /// `lc sniff voip` alone.
    pub const SNIFF_VOIP: Self = Self(1 << 4);
    /// Commands that ask a processor: `lc list hunters`, `lc show status|hunter`.
    pub const REMOTE: Self = Self(1 << 5);
    /// `lc certs …`.
    pub const CERTS: Self = Self(1 << 6);
    /// Every command.
    pub const EVERY: Self = Self(1 << 7);
    /// Commands that print a table without asking a processor: `lc list interfaces`.
    pub const LOCAL: Self = Self(1 << 8);
    /// `lc spool …`.
    pub const SPOOL: Self = Self(1 << 9);
    /// `lc spool drain` alone.
    pub const SPOOL_DRAIN: Self = Self(1 << 10);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two sets share a command.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The heading an option stands under in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where packets come from.
    Capture,
    /// What is wanted.
    Selection,
    /// SIP, RTP and telephone numbers.
    Voip,
    /// The road to the processor.
    Forwarding,
    /// Who may connect, and what is written.
    Receiving,
    /// Files the processor or sniffer writes.
    Output,
    /// TLS.
    Security,
    /// Logs and the configuration file.
    General,
}

impl Group {
    /// The heading.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Capture => "Capture",
            Self::Selection => "What to keep",
            Self::Voip => "VoIP",
            Self::Forwarding => "To the processor",
            Self::Receiving => "Receiving",
            Self::Output => "Output",
            Self::Security => "Security",
            Self::General => "General",
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Dotted configuration key, unique: `hunter.batch_size`.
    pub key: &'static str,
    /// Keys of the predecessor and earlier spellings, accepted in files and in the environment.
    pub aliases: &'static [&'static str],
    /// Long flag without dashes, or empty for an option of the file and environment only.
    pub long: &'static str,
    /// Further long flags, accepted and not shown.
    pub long_aliases: &'static [&'static str],
    /// Short flag.
    pub short: Option<char>,
    /// What a value looks like.
    pub kind: Kind,
    /// Default as a user would write it; empty means "not set".
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Heading in `--help`.
    pub group: Group,
    /// Commands that take the flag.
    pub on: Commands,
    /// Accepted, but not shown in `--help`.
    pub hidden: bool,
    /// Names a person or a secret: `lc config dump` hides the value.
    pub private: bool,
}

impl Opt {
    const fn new(key: &'static str, kind: Kind, group: Group, on: Commands) -> Self {
        Self {
            key,
            aliases: &[],
            long: "",
            long_aliases: &[],
            short: None,
            kind,
            default: "",
            help: "",
            group,
            on,
            hidden: false,
            private: false,
        }
    }

    const fn flag(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn also_flags(mut self, aliases: &'static [&'static str]) -> Self {
        self.long_aliases = aliases;
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    const fn also_on(mut self, on: Commands) -> Self {
        self.on = self.on.and(on);
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    const fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// The environment variable: `LIPPYCAT_HUNTER__BATCH_SIZE`.
    pub fn variable(&self) -> String {
        variable_of(self.key)
    }

    /// What a person would call this option on the command line: `-P/--processor`, or its key when it has no flag.
    pub fn flag_name(&self) -> String {
        match (self.long, self.short) {
            ("", _) => self.key.to_owned(),
            (long, None) => format!("--{long}"),
            (long, Some(short)) => format!("-{short}/--{long}"),
        }
    }
}

/// The environment variable of a key: prefix, upper case, `__` for each level.
pub fn variable_of(key: &str) -> String {
    format!("LIPPYCAT_{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Every option, section by section.
pub fn all() -> impl Iterator<Item = &'static Opt> {
    [capture::ROWS, hunter::ROWS, voip::ROWS, sniff::ROWS, processor::ROWS, system::ROWS, edge::ROWS].into_iter().flatten()
}

/// The option a key or one of its aliases names.
pub fn find(key: &str) -> Option<&'static Opt> {
    all().find(|opt| opt.key == key || opt.aliases.contains(&key))
}

/// Keys of the predecessor that this program does not have, and what to say to somebody who writes one.
///
/// An exact key, or a section when it ends in a dot. Refusing them is deliberate: a security setting that is silently
/// ignored is worse than a start that fails.
pub const NOT_HERE: &[(&str, &str)] = &[
    ("security.", "API keys are hashes in a file of their own (processor.tls.api_keys_file)"),
    ("hunter.buffer_size", "there is no packet queue between capture and analysis; see capture.pcap_buffer_size"),
    ("hunter.batch_queue_size", "unacknowledged batches are bounded in bytes by hunter.max_memory"),
    ("hunter.voip_filter.", "pattern search chooses its own method"),
    ("processor.enable_detection", "calls are always recognised"),
    ("processor.pcap_command", "commands run on events are not supported yet"),
    ("processor.voip_command", "commands run on events are not supported yet"),
    ("processor.tunneling_command", "commands run on events are not supported yet"),
    ("processor.command_timeout", "commands run on events are not supported yet"),
    ("processor.command_concurrency", "commands run on events are not supported yet"),
    ("processor.virtual_interface", "virtual interfaces are not supported"),
    ("processor.tls_keylog.", "TLS traffic is not decrypted"),
    ("insecure", "say where: hunter.insecure, processor.insecure or remote.insecure"),
    ("pcap_timeout_ms", "the capture timeout is not configurable"),
    ("packet_buffer_size", "there is no packet queue between capture and analysis"),
];
