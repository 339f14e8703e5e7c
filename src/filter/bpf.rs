//! `bpf` filters: pcap-filter expressions that restrict what everything else sees.
//!
//! Compiling needs libpcap, which this room does not touch: whoever has it implements [`BpfCompiler`].

use crate::packet::LinkType;

use super::{BadPattern, Dialect, FilterError, FilterIndex, FilterSet, Hits};
use crate::pattern::PatternError;

/// Most `bpf` filters of one set. They are tried one after the other on every packet, so this bounds a packet's cost.
pub const MAX_BPF_FILTERS: usize = 256;

/// Longest expression in bytes.
pub const MAX_BPF_BYTES: usize = 4096;

/// Link types that sources have as a rule, and packets inside tunnels: the filters of a set are compiled for them when the set is made.
pub const USUAL_LINKS: [LinkType; 3] = [LinkType::ETHERNET, LinkType::LINUX_SLL, LinkType::RAW];

/// Turns an expression into a test for frames of one link type.
pub trait BpfCompiler {
    /// Compiles `expr`.
    ///
    /// # Errors
    /// What is wrong with the expression, in words for the operator.
    fn compile(&self, link: LinkType, expr: &str) -> Result<Box<dyn PacketTest>, String>;
}

/// A compiled expression.
pub trait PacketTest: Send + Sync {
    /// Whether the frame, from its link layer on, passes.
    fn test(&self, frame: &[u8]) -> bool;
}

/// All `bpf` filters of a set, compiled for one link type; one that lets a packet pass is enough.
///
/// A gate without filters lets everything through. One whose filters all failed to compile lets nothing through: a
/// broken restriction must not select more than the working one would have.
pub struct BpfGate {
    tests: Vec<(FilterIndex, Box<dyn PacketTest>)>,
    open: bool,
}

impl BpfGate {
    /// Compiles the `bpf` filters of `set`; those that fail are reported.
    pub fn compile(set: &FilterSet, compiler: &dyn BpfCompiler, link: LinkType) -> (Self, Vec<FilterError>) {
        let mut errors = Vec::new();
        let mut tests = Vec::new();
        for (index, expr) in set.bpf() {
            match compiler.compile(link, expr) {
                Ok(test) => tests.push((*index, test)),
                Err(reason) => errors.extend(set.filter(*index).map(|f| FilterError { id: f.id.clone(), reason })),
            }
        }
        (Self { tests, open: !set.restricts_packets() }, errors)
    }

    /// Whether there is no restriction at all.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a frame of the link type compiled for passes; stops at the first filter that lets it.
    #[inline]
    pub fn passes(&self, frame: &[u8]) -> bool {
        self.open || self.tests.iter().any(|(_, test)| test.test(frame))
    }

    /// Adds every filter that lets the frame pass.
    pub fn find(&self, frame: &[u8], hits: &mut Hits) {
        self.tests.iter().filter(|(_, test)| test.test(frame)).for_each(|(index, _)| hits.insert(*index));
    }
}

impl std::fmt::Debug for BpfGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BpfGate").field("tests", &self.tests.len()).field("open", &self.open).finish()
    }
}

/// What can be said without libpcap.
pub(super) fn validate(pattern: &str, _: Dialect) -> Result<(), BadPattern> {
    if pattern.trim().is_empty() {
        return Err(PatternError::Empty.into());
    }
    if pattern.len() > MAX_BPF_BYTES {
        return Err(BadPattern::ExpressionTooLong(pattern.len()));
    }
    Ok(())
}
