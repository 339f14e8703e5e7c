//! What a graceful restart needs to know of calls, so that the next process continues the same files.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Call, CallFiles, Hand, Part, Track};
use crate::packet::{LinkType, Timestamp};
use crate::record::FileFact;
use crate::record::file::{CaptureFile, Shape};

/// A Call-ID in JSON: as text where it is text, in hex where it is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallKey {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl From<&[u8]> for CallKey {
    fn from(id: &[u8]) -> Self {
        str::from_utf8(id).map_or_else(|_| Self::Bytes(id.into()), |s| Self::Text(s.into()))
    }
}

impl CallKey {
    /// The Call-ID as it came.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(s) => s.as_bytes(),
            Self::Bytes(b) => b,
        }
    }
}

/// One call, open or closed so lately that late packets may come.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallState {
    /// Its Call-ID.
    pub call_id: CallKey,
    /// The common beginning of its file names.
    pub stem: String,
    /// Packets accepted.
    pub packets: u64,
    /// When it was closed, in nanoseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<i64>,
    /// Its files.
    pub tracks: Vec<TrackState>,
}

/// The files of one part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TrackState {
    /// Signalling, media or both.
    pub part: Part,
    /// Link type of the file (of its first packet for pcapng).
    pub link: u16,
    /// Whether the link type stands in the name.
    pub sibling: bool,
    /// Rotation number of the current file.
    pub index: u32,
    /// The current file: what is in it. Its sum is made again at close.
    pub current: FileFact,
    /// The files before it.
    pub done: Vec<FileFact>,
    /// Whose packets they hold, over all of them.
    #[serde(default)]
    pub runs: Vec<Run>,
}

/// Packets side by side in the files of a part that have one origin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Hunter that sent them.
    pub hunter: Arc<str>,
    /// Signalling, or media.
    pub sip: bool,
    /// How many.
    pub packets: u64,
}

/// The files of one part of a call, in order, to be read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Each file and how many packets it holds.
    pub files: Vec<(PathBuf, u64)>,
    /// Whose packets they are, over all files.
    pub runs: Vec<Run>,
}

impl CallFiles {
    /// What [`Self::restore`] needs, in the order the calls began; complete only right after [`Self::commit`].
    pub fn snapshot(&self) -> Vec<CallState> {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_unstable_by_key(|(no, _)| **no);
        calls.into_iter().map(|(_, c)| c.state()).collect()
    }

    /// The same of calls that changed since the last look, and those of which nothing is known any more since then; where another has their
    /// Call-ID, it is among the first.
    pub fn take_changes(&mut self) -> (Vec<CallState>, Vec<CallKey>) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        let mut calls = Vec::with_capacity(changed.len());
        for no in changed {
            if let Some(call) = self.calls.get_mut(&no) {
                call.changed = false;
                calls.push(call.state());
            }
        }
        (calls, std::mem::take(&mut self.gone))
    }

    /// Continues where an earlier process stopped. A file that is not as long as it was left is not touched; its call
    /// goes on in the next file, counted as `displaced`. They may be more than may be known: see [`Self::evict_beyond`].
    pub fn restore(&mut self, calls: &[CallState]) {
        let mut closed = Vec::new();
        for state in calls {
            let id: Arc<[u8]> = state.call_id.as_bytes().into();
            if self.ids.contains_key(&id) {
                continue;
            }
            let no = self.next_no;
            self.next_no = no.saturating_add(1);
            let closed_at = state.closed_at.map(Timestamp::from_nanos);
            closed.extend(closed_at.map(|at| (at, no)));
            let tracks = state.tracks.iter().map(|t| self.track(t)).collect();
            let first = state.tracks.first().and_then(|t| t.runs.first());
            self.know(
                no,
                Call {
                    id,
                    stem: state.stem.as_str().into(),
                    tracks,
                    packets: state.packets,
                    last: self.now,
                    closed_at,
                    hunter: first.map_or_else(|| Arc::from(""), |run| Arc::clone(&run.hunter)),
                    bytes: 0,
                    elsewhere: 0,
                    changed: false,
                },
            );
        }
        closed.sort_unstable();
        for (at, no) in closed {
            self.note_closed(no, at);
        }
    }

    /// Where the packets of a call lie that are written.
    pub fn history(&self, call_id: &[u8]) -> Vec<History> {
        self.call(call_id).map_or_else(Vec::new, |call| self.history_of(call))
    }

    pub(super) fn history_of(&self, call: &Call) -> Vec<History> {
        let of = |t: &Track| {
            let now = (t.file.name(), t.file.packets_written());
            let files = t.done.iter().map(|f| (&*f.name, f.packets)).chain([now]);
            History { files: files.map(|(name, packets)| (self.dir.join(name), packets)).collect(), runs: t.runs.clone() }
        };
        call.tracks.iter().map(of).collect()
    }

    fn track(&self, t: &TrackState) -> Track {
        let link = LinkType(t.link);
        let format = self.cfg.pattern.format();
        let shape = Shape { format, link, block: self.cfg.block_bytes, hash: false, comment: "" };
        Track {
            part: t.part,
            link,
            sibling: t.sibling,
            index: t.index,
            file: CaptureFile::parked(&t.current.name, shape, t.current.bytes, t.current.packets),
            done: t.done.clone(),
            runs: t.runs.clone(),
            dirty: false,
            turn: 0,
            hand: Hand::Unlisted,
            unannounced: false,
        }
    }
}

impl Call {
    fn state(&self) -> CallState {
        let track = |t: &Track| TrackState {
            part: t.part,
            link: t.link.0,
            sibling: t.sibling,
            index: t.index,
            current: FileFact {
                name: t.file.name().into(),
                bytes: t.file.block().written(),
                packets: t.file.packets_written(),
                sha256: None,
            },
            done: t.done.clone(),
            runs: t.runs.clone(),
        };
        CallState {
            call_id: (&*self.id).into(),
            stem: self.stem.to_string(),
            packets: self.packets,
            closed_at: self.closed_at.map(Timestamp::as_nanos),
            tracks: self.tracks.iter().map(track).collect(),
        }
    }
}
