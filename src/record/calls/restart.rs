//! What a graceful restart needs to know of calls, so that the next process continues the same files.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Call, CallFiles, Hand, Part, Track};
use crate::packet::{LinkType, Timestamp};
use crate::record::dir::Journal;
use crate::record::file::{CaptureFile, Shape};
use crate::record::{FileFact, RecordError};

/// A Call-ID in JSON: as text where it is text, in hex where it is not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

    /// Continues where an earlier process stopped. A file that is not as long as it was left is not touched; its call
    /// goes on in the next file, counted as `displaced`.
    pub fn restore(&mut self, calls: &[CallState]) {
        let mut closed = Vec::new();
        for state in calls.iter().take(self.cfg.max_calls) {
            let id: Arc<[u8]> = state.call_id.as_bytes().into();
            if self.ids.contains_key(&id) {
                continue;
            }
            let no = self.next_no;
            self.next_no = no.saturating_add(1);
            let closed_at = state.closed_at.map(Timestamp::from_nanos);
            closed.extend(closed_at.map(|at| (at, no)));
            let tracks = state.tracks.iter().map(|t| self.track(t)).collect();
            self.know(
                no,
                Call { id, stem: state.stem.as_str().into(), tracks, packets: state.packets, last: self.now, closed_at },
            );
        }
        closed.sort_unstable();
        self.closed.extend(closed.into_iter().map(|(at, no)| (no, at)));
    }

    /// What was committed stays: it is acknowledged.
    pub fn checkpoint(&self) {
        self.dir.checkpoint();
    }

    /// Goes back to the last checkpoint, as [`crate::record::unified::Unified::roll_back`]; [`Self::snapshot`] may follow.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn roll_back(&mut self) -> Result<(), RecordError> {
        let journal = self.dir.roll_back()?;
        for call in self.calls.values_mut() {
            call.tracks.iter_mut().for_each(|t| t.roll_back(&journal));
            call.packets = call.tracks.iter().map(Track::packets).sum();
        }
        (self.pending, self.dirty) = (0, VecDeque::new());
        Ok(())
    }

    /// Where the packets of a call lie that are written.
    pub fn history(&self, call_id: &[u8]) -> Vec<History> {
        let of = |t: &Track| {
            let now = (t.file.name(), t.file.packets_written());
            let files = t.done.iter().map(|f| (&*f.name, f.packets)).chain([now]);
            History { files: files.map(|(name, packets)| (self.dir.join(name), packets)).collect(), runs: t.runs.clone() }
        };
        self.call(call_id).map_or_else(Vec::new, |c| c.tracks.iter().map(of).collect())
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
        }
    }
}

impl Track {
    /// Packets in all its files.
    fn packets(&self) -> u64 {
        self.done.iter().map(|f| f.packets).fold(self.file.packets(), u64::saturating_add)
    }

    fn roll_back(&mut self, journal: &Journal) {
        self.file.roll_back(journal);
        for fact in &mut self.done {
            if let Some(extent) = journal.get(&*fact.name) {
                (fact.bytes, fact.packets, fact.sha256) = (extent.bytes, extent.packets, None);
            }
        }
        let mut left = self.packets();
        for run in &mut self.runs {
            run.packets = run.packets.min(left);
            left = left.saturating_sub(run.packets);
        }
        self.runs.retain(|r| r.packets > 0);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::record::calls::{CallFilesConfig, Layout};
    use crate::record::dir::MinFree;
    use crate::record::name::{Parties, Pattern, Purpose};
    use crate::record::unified::Unified;
    use crate::record::{Format, Origin, Packet, append};

    fn open(dir: &Path, layout: Layout) -> CallFiles {
        let pattern = Pattern::parse("{callid}.pcap", Purpose::Call).unwrap();
        let cfg = CallFilesConfig { min_free: MinFree::NONE, max_file_bytes: 200, layout, ..CallFilesConfig::new(pattern) };
        CallFiles::open(dir, cfg).unwrap()
    }

    fn packet(n: u8) -> Packet<'static> {
        const DATA: [u8; 40] = [5; 40];
        let origin = Origin { hunter: if n.is_multiple_of(4) { "h1" } else { "h2" }, ..Origin::default() };
        let ts = Timestamp::from_nanos(i64::from(n));
        Packet { ts, wire_len: 99, link: LinkType::ETHERNET, data: DATA.get(..20 + usize::from(n % 20)).unwrap(), origin }
    }

    fn put(files: &mut CallFiles, range: std::ops::Range<u8>) {
        for n in range {
            let (id, part) = ([b'a' + n % 3], if n % 2 == 0 { Part::Sip } else { Part::Rtp });
            files.write(&Parties { call_id: &id, ..Parties::default() }, part, &packet(n)).unwrap();
        }
        files.commit().unwrap();
    }

    /// Of every part of every call: its packets' bytes over all its files, how many, and whose they are.
    fn left(files: &CallFiles) -> Vec<(Vec<u8>, u64, Vec<Run>)> {
        let parts = [b"a", b"b", b"c"].into_iter().flat_map(|id| files.history(id));
        let read = |path: &PathBuf| fs::read(path).unwrap().get(24..).unwrap_or(&[]).to_vec();
        let of = |h: History| (h.files.iter().flat_map(|f| read(&f.0)).collect(), h.files.iter().map(|f| f.1).sum(), h.runs);
        parts.map(of).collect()
    }

    #[test]
    fn what_was_not_acknowledged_leaves_no_trace_when_it_comes_again_after_a_restart() {
        for layout in [Layout::Split, Layout::Merged] {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("d");
            for (acknowledged, more) in [(0, 1), (1, 40), (10, 11), (10, 30), (30, 33), (30, 80)] {
                let mut straight = open(&dir, layout);
                put(&mut straight, 0..acknowledged);
                put(&mut straight, acknowledged..80);
                let want = left(&straight);
                fs::remove_dir_all(&dir).unwrap();

                let mut first = open(&dir, layout);
                put(&mut first, 0..acknowledged);
                first.checkpoint();
                put(&mut first, acknowledged..more);
                first.roll_back().unwrap();
                let state = first.snapshot();
                drop(first);
                let mut second = open(&dir, layout);
                second.restore(&state);
                put(&mut second, acknowledged..80);
                let got = left(&second);
                fs::remove_dir_all(&dir).unwrap();

                assert_eq!(got.iter().map(|p| p.1).sum::<u64>(), 80);
                assert!(got == want, "{layout:?} {acknowledged} {more}");
            }
        }
    }

    #[test]
    fn the_unified_file_goes_back_to_what_was_acknowledged() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("all.pcap");
        let open = |trusted| Unified::open(&path, None, MinFree::NONE, trusted).unwrap();
        let mut first = open(Vec::new());
        first.write(&packet(1)).unwrap();
        first.flush().unwrap();
        first.checkpoint();
        first.write(&packet(2)).unwrap();
        first.flush().unwrap();
        first.write(&packet(3)).unwrap();

        first.roll_back().unwrap();
        let lengths = first.lengths();
        drop(first);
        let mut second = open(lengths);
        second.write(&packet(2)).unwrap();
        second.flush().unwrap();

        let found = append::scan(&mut fs::File::open(&path).unwrap(), &path, Format::Pcap, 0).unwrap();
        assert_eq!((found.packets, found.torn), (2, 0));
    }
}
