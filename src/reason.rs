//! Word: why a packet was given up. A closed set, so that every counter, log line and record speaks the same language.

/// Why a packet that was wanted, or might have been, did not reach the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The hunter's memory for unacknowledged batches was full.
    MemFull,
    /// The disk queue was full: its bound, the reserve of the file system, or the disk itself.
    SpoolFull,
    /// The disk queue could not be written or read.
    SpoolIoError,
    /// What the disk queue gave back was not what was written.
    SpoolCorrupt,
    /// One packet was larger than a batch may be.
    Oversize,
    /// Unacknowledged when the hunter was told to stop now.
    Shutdown,
    /// A call was evicted from a full call table while its packets were held.
    EvictedCall,
    /// A held call ran out of its message budget (64 messages).
    HoldMessages,
    /// A held call ran out of its packet budget for media (200 packets).
    HoldMedia,
    /// A hold reached its age limit undecided.
    HoldAge,
    /// All holds together reached their byte budget.
    HoldBytes,
    /// Media nobody claimed left its short hold.
    HoldUnclaimed,
    /// Two calls claimed the same media and neither evidence decided.
    AmbiguousMedia,
    /// A fragmented datagram never completed.
    Fragment,
    /// TCP data that never became part of a message.
    TcpUnframed,
    /// The inspection panicked over it, or had it in its hold then: a bug.
    ParserPanic,
}

impl DropReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 16] = [
        Self::MemFull,
        Self::SpoolFull,
        Self::SpoolIoError,
        Self::SpoolCorrupt,
        Self::Oversize,
        Self::Shutdown,
        Self::EvictedCall,
        Self::HoldMessages,
        Self::HoldMedia,
        Self::HoldAge,
        Self::HoldBytes,
        Self::HoldUnclaimed,
        Self::AmbiguousMedia,
        Self::Fragment,
        Self::TcpUnframed,
        Self::ParserPanic,
    ];

    /// The label used in metrics, heartbeats, logs and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemFull => "mem_full",
            Self::SpoolFull => "spool_full",
            Self::SpoolIoError => "spool_io_error",
            Self::SpoolCorrupt => "spool_corrupt",
            Self::Oversize => "oversize",
            Self::Shutdown => "shutdown",
            Self::EvictedCall => "evicted_call",
            Self::HoldMessages => "hold_messages",
            Self::HoldMedia => "hold_media",
            Self::HoldAge => "hold_age",
            Self::HoldBytes => "hold_bytes",
            Self::HoldUnclaimed => "hold_unclaimed",
            Self::AmbiguousMedia => "ambiguous_media",
            Self::Fragment => "fragment",
            Self::TcpUnframed => "tcp_unframed",
            Self::ParserPanic => "parser_panic",
        }
    }

    /// Position in [`Self::ALL`], for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}
