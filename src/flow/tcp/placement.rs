//! What the caller of reassembly gives and gets: limits, placements, gaps.

use std::ops::Range;

/// Bounds of one direction.
#[derive(Clone, Copy, Debug)]
pub struct TcpLimits {
    /// Bytes held, read or not, and the farthest a segment may lie ahead: four times the largest SIP message taken.
    pub max_bytes: usize,
    /// Holes waited for at one time; segments that continue each other count once.
    pub max_islands: usize,
}

impl Default for TcpLimits {
    /// 1 MiB, 64.
    fn default() -> Self {
        Self { max_bytes: 1 << 20, max_islands: 64 }
    }
}

/// What a segment turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No byte of the stream: a pure ACK, SYN, FIN or a keep-alive probe.
    Empty,
    /// The next bytes, all of them new.
    New,
    /// Some bytes new, some received before.
    PartlyNew,
    /// New bytes behind a hole.
    OutOfOrder,
    /// Nothing new.
    Retransmission,
    /// Not taken: too far from the stream, or no room behind another hole.
    OutOfWindow,
    /// Not taken: the direction has given up.
    GivenUp,
}

/// Where a segment's payload belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Stream offsets its payload covers, new or not.
    pub range: Range<u64>,
    /// What it turned out to be.
    pub kind: Kind,
}

/// Bytes missing in front of others that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub missing: u64,
    /// The receiver has them: the capture lost them, and no retransmission will come.
    pub acked: bool,
}
