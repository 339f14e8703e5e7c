//! What somebody asked for: filters as written, as data, and compiled.
//!
//! ```text
//! YAML file ──▶ file::parse ─┐
//! RPC, flags ────────────────┴▶ Filter ──▶ Store (versions, per hunter) ──▶ wire ──▶ FilterSet::compile ──▶ Arc<FilterSet>
//! ```
//!
//! Promises: a filter that cannot be applied is reported by id and reason, never silently dead; a set is immutable and
//! swapped whole; no look-up gets slower with the number of filters; a failed filter never widens what is selected.
//!
//! Refuses: files, clocks, sockets. BPF is held as text here; whoever has libpcap hands in a [`BpfCompiler`].
//!
//! To add a kind: one variant of [`FilterKind`], one row in [`KINDS`], one file with its validation and its look-up.

mod bpf;
mod codec;
mod device;
pub mod file;
mod hits;
mod identity;
mod ip;
mod kinds;
mod legacy;
mod payload;
pub mod phone;
mod set;
mod store;
pub mod yaml;

use thiserror::Error;

use crate::pattern::{MAX_PATTERN_BYTES, PatternError};

pub use bpf::{BpfCompiler, BpfGate, MAX_BPF_BYTES, MAX_BPF_FILTERS, PacketTest, USUAL_LINKS};
pub use hits::{FilterIndex, Hits, MAX_HITS};
pub use kinds::{FilterKind, KINDS, Kind, Mode, Scope, capabilities};
pub use legacy::{Translation, meant_of_legacy, to_legacy, to_native};
pub use phone::{BadPlan, PhonePlan};
pub use set::{CompileOptions, FilterSet};
pub use store::{Change, Store, StoreError, Update, diff};

/// Most filters of one set; the number the product promises.
pub const MAX_FILTERS: usize = crate::pattern::MAX_PATTERNS;
/// Longest filter id in bytes: ids stand in file names' comments, records and every batch.
pub const MAX_ID_BYTES: usize = 256;
/// Longest description in bytes: it travels to every hunter.
pub const MAX_DESCRIPTION_BYTES: usize = 4096;
/// Most hunters one filter can name; more than that is "all", which an empty list says.
pub const MAX_TARGETS: usize = 4096;

/// One filter as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// The name it is known by everywhere; unique in a set.
    pub id: String,
    /// What the pattern is held against.
    pub kind: FilterKind,
    /// What to look for, in the kind's own syntax.
    pub pattern: String,
    /// Hunters it is meant for; none means all.
    pub target_hunters: Vec<String>,
    /// A disabled filter is kept and distributed but selects nothing.
    pub enabled: bool,
    /// Free text for people.
    pub description: String,
    /// What is kept of a matched call's media.
    pub media: MediaPolicy,
    /// Whose syntax the pattern is written in.
    pub dialect: Dialect,
}

impl Filter {
    /// An enabled filter for every hunter in our own dialect.
    pub fn new(id: impl Into<String>, kind: FilterKind, pattern: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind,
            pattern: pattern.into(),
            target_hunters: Vec::new(),
            enabled: true,
            description: String::new(),
            media: MediaPolicy::Full,
            dialect: Dialect::Native,
        }
    }

    /// Whether the filter is well formed, on whatever node it will run.
    ///
    /// # Errors
    /// [`BadFilter`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), BadFilter> {
        if self.id.is_empty() {
            return Err(BadFilter::NoId);
        }
        if self.id.len() > MAX_ID_BYTES || self.id.chars().any(char::is_control) {
            return Err(BadFilter::Id);
        }
        if self.description.len() > MAX_DESCRIPTION_BYTES {
            return Err(BadFilter::Description(self.description.len()));
        }
        if self.target_hunters.len() > MAX_TARGETS {
            return Err(BadFilter::Targets(self.target_hunters.len()));
        }
        (self.kind.row().validate)(&self.pattern, self.dialect)?;
        Ok(())
    }

    /// Whether the filter is meant for this hunter.
    pub fn targets(&self, hunter: &str) -> bool {
        self.target_hunters.is_empty() || self.target_hunters.iter().any(|t| t == hunter)
    }
}

/// What is kept of a matched call's media; ordered by how much that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaPolicy {
    /// Signalling only.
    None,
    /// RTP headers without what was said.
    Headers,
    /// Everything.
    #[default]
    Full,
}

impl MediaPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Full, Self::Headers, Self::None];

    /// As files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Headers => "headers",
            Self::None => "none",
        }
    }

    /// The policy of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name))
    }
}

/// Whose syntax a pattern is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Ours: a pattern without a star is exact.
    #[default]
    Native,
    /// A peer without our extensions: for users and URIs a pattern without a star means "contains".
    Legacy,
}

impl Dialect {
    /// Both dialects.
    pub const ALL: [Self; 2] = [Self::Native, Self::Legacy];

    /// As files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Legacy => "legacy",
        }
    }

    /// The dialect of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name().eq_ignore_ascii_case(name))
    }
}

/// A filter that this node does not apply, and why: what heartbeats carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// The filter.
    pub id: String,
    /// In words for the operator.
    pub reason: String,
}

/// Why a filter is not well formed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFilter {
    /// No id.
    #[error("the filter has no id")]
    NoId,
    /// Too long, or unfit for files and logs.
    #[error("the id is longer than {MAX_ID_BYTES} bytes or has control characters")]
    Id,
    /// Over [`MAX_DESCRIPTION_BYTES`].
    #[error("the description has {0} bytes, the limit is {MAX_DESCRIPTION_BYTES}")]
    Description(usize),
    /// Over [`MAX_TARGETS`].
    #[error("{0} target hunters, the limit is {MAX_TARGETS}; an empty list means all")]
    Targets(usize),
    /// The pattern does not suit the kind.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
}

/// Why a pattern does not suit its kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPattern {
    /// Not a pattern at all.
    #[error(transparent)]
    Syntax(#[from] PatternError),
    /// Over [`MAX_PATTERN_BYTES`].
    #[error("the pattern has {0} bytes, the limit is {MAX_PATTERN_BYTES}")]
    TooLong(usize),
    /// Over [`MAX_BPF_BYTES`].
    #[error("the expression has {0} bytes, the limit is {MAX_BPF_BYTES}")]
    ExpressionTooLong(usize),
    /// A `sip_user` pattern with a host.
    #[error("a user has no '@': use type sip_uri for user@host")]
    UserWithHost,
    /// A `sip_uri` pattern without a host.
    #[error(
        "a sip_uri pattern without a star is compared with the whole of user@host: add the host, or a star as in *@example.com"
    )]
    UriWithoutHost,
    /// Not a telephone number.
    #[error("not a telephone number: digits, one leading '+', separators '-. ()' and stars at the ends are allowed")]
    Phone,
    /// More digits than any number has.
    #[error("{0} digits are more than any telephone number has (19)")]
    PhoneTooLong(usize),
    /// Not an address or a network.
    #[error("not an IP address or network: write 192.0.2.7, 192.0.2.0/24, 192.0.* or 2001:db8::/32")]
    Ip,
    /// Not an IMSI.
    #[error("an IMSI has 6 to 15 digits (14 or 15 as a rule), or fewer with a star after them")]
    Imsi,
    /// Not an IMEI.
    #[error("an IMEI has 14 digits, 15 with its check digit or 16 with a software version, or fewer with a star after them")]
    Imei,
    /// Not a JA3 or JA3S fingerprint.
    #[error("a JA3 fingerprint is 32 hexadecimal digits")]
    Ja3,
    /// Not a JA4 fingerprint.
    #[error("a JA4 fingerprint looks like t13d1516h2_8daaf6152771_e5627efa2ab1")]
    Ja4,
    /// White space in a name that has none.
    #[error("the pattern has white space")]
    WhiteSpace,
}
