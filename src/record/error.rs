//! What can go wrong between a packet and a file.

use std::io;
use std::path::PathBuf;

/// Why a packet, record or file could not be written, opened or continued.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk or quota is full, or less than `--min-free` is left. Nothing accepted was lost; try the same packet again.
    #[error("no room for {path}: {detail}; free some space")]
    Full {
        /// What was being written.
        path: PathBuf,
        /// The kernel's words, or the free space that is left.
        detail: String,
    },
    /// Any other failure of the file system. Nothing accepted was lost; try the same packet again.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An existing file is not one we may continue.
    #[error("will not append to {path}: {reason}; move it away or choose another name")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// An existing file is damaged before its end; cutting there would destroy packets.
    #[error("will not append to {path}: damaged at byte {offset}: {reason}; move it away or choose another name")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Somewhere we refuse to write.
    #[error("will not write to {path}: {reason}")]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// Why not, and what would help.
        reason: &'static str,
    },
    /// A file or directory that the readers of output cannot be given.
    #[error(
        "cannot give {path} to the group {group} (--pcap-group): {source}; lc must run as a member of it, or be started as root"
    )]
    Group {
        /// The file or directory.
        path: PathBuf,
        /// The group's number.
        group: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A packet no capture file can carry. Trying again does not help; count it.
    #[error("a packet of {len} bytes is longer than the {max} a capture file can carry")]
    Oversize {
        /// Its captured length.
        len: usize,
        /// [`super::MAX_CAPTURED`].
        max: usize,
    },
    /// A packet of one link type too many for files that hold one each. Trying again does not help; count it.
    #[error("{path} has packets of {max} link types already, each in a file of its own; it gets no other")]
    LinkTypes {
        /// The first of the files.
        path: PathBuf,
        /// [`super::MAX_LINKS`].
        max: usize,
    },
    /// A file name pattern that cannot work.
    #[error("file name pattern `{pattern}`: {reason}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// A state or record file that cannot be read.
    #[error("cannot understand {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A state that is longer than this process may be.
    #[error(
        "will not read {path}: its {bytes} bytes are more than the {max} of --memory-limit; start once with more memory, and with \
         fewer --max-calls, and it gets shorter"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        max: u64,
    },
}

impl RecordError {
    /// From an I/O error, telling a full disk from everything else.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { path, detail: source.to_string() }
        } else {
            Self::Io { doing, path, source }
        }
    }

    /// The log that names of new files go to.
    pub(crate) fn log(source: io::Error) -> Self {
        Self::Io { doing: "write", path: "the commit log".into(), source }
    }

    /// Whether the disk is full: pause, and try the same packet again later.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether trying the same packet again can succeed.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. } | Self::Group { .. })
    }
}
