//! One set of capture files per call.
//!
//! ```text
//! split   STEM_sip.pcap  STEM_rtp.pcap     merged   STEM.pcap        STEM.json beside them (record/json.rs)
//! link types   a pcap holds one: another goes to STEM_rtp.dlt113.pcap; a pcapng holds all
//! rotation     after 100 MB: STEM_rtp_1.pcap, STEM_rtp_2.pcap, … without end, counted
//! taken names  files of an earlier run are never mixed into: STEM-2, STEM-3, …
//! ```
//!
//! Inside a file packets stand in the order they were given: arrival order. For one hunter that is time order per call;
//! with several hunters `merged` interleaves them as their batches came.
//!
//! Promises: the name is final from the first packet; all hunters' packets of a Call-ID go to the same files; a packet
//! that comes within ten minutes after [`CallFiles::close`] continues them; thousands of calls are written through a
//! bounded number of descriptors and bytes of memory. Writing is lazy (64 KiB, 5 s or close); [`CallFiles::commit`] hands
//! everything to `write(2)`, which is what an acknowledgement waits for.
//!
//! | bound | default | when it is reached | counted |
//! |---|---|---|---|
//! | open files | 1024, at most half of `RLIMIT_NOFILE` | the least recently used (second chance) is closed, reopened when written | `reopened` |
//! | memory | 64 MiB | everything pending is written | `forced` |
//! | calls known, by number and by what is known of them here and elsewhere | 100 000; more at a restart with fewer, until the first have gone | of the hunter that has most: one that is closed is forgotten; else the one silent for longest, closed properly | `evicted_closed`, `evicted` |
//! | bytes per file | 100 MB | the next file | `rotated` |

mod files;
mod names;
mod restart;
mod shares;
#[cfg(test)]
mod tests;

pub use restart::{CallKey, CallState, History, Run, TrackState};

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;

use super::dir::{Access, Dir, MinFree};
use super::file::CaptureFile;
use super::name::{Parties, Pattern};
use super::readers::Readers;
use super::{FileFact, Format, MAX_CAPTURED, Packet, RecordError};
use crate::packet::{LinkType, Timestamp};

/// How a call's packets are spread over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Signalling in `_sip`, media in `_rtp`.
    #[default]
    Split,
    /// Everything in one file.
    Merged,
}

/// What a packet is for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Signalling.
    Sip,
    /// Media and its control: RTP, RTCP, T.38.
    Rtp,
    /// Both, where the layout is merged.
    Merged,
}

impl Part {
    const fn tag(self) -> &'static str {
        match self {
            Self::Sip => "_sip",
            Self::Rtp => "_rtp",
            Self::Merged => "",
        }
    }
}

/// How call files are written.
#[derive(Clone, Debug)]
pub struct CallFilesConfig {
    /// Name pattern ([`super::name::Purpose::Call`]); its suffix is the format.
    pub pattern: Pattern,
    /// One file per call or two.
    pub layout: Layout,
    /// A file that would grow longer is followed by the next. The predecessor's value, without its limit of ten files.
    pub max_file_bytes: u64,
    /// Descriptors in use at once.
    pub max_open_files: usize,
    /// Accepted bytes that are not yet written, over all calls.
    pub max_pending_bytes: usize,
    /// Calls known, closed ones that are remembered included.
    pub max_calls: usize,
    /// Bytes that whoever writes here may know of calls ([`CallFiles::evict_for`]).
    pub max_known_bytes: usize,
    /// Bytes per `write(2)`.
    pub block_bytes: usize,
    /// How long an accepted packet may wait in memory.
    pub max_wait: Duration,
    /// How long after its close a call's files are continued by late packets.
    pub reopen_for: Duration,
    /// Idle time after which a call that late packets reopened is closed again.
    pub close_again_after: Duration,
    /// Free space that is never used up.
    pub min_free: MinFree,
    /// Who may read the files.
    pub readers: Readers,
}

impl CallFilesConfig {
    /// The defaults, with this pattern.
    pub fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            layout: Layout::Split,
            max_file_bytes: 100_000_000,
            max_open_files: open_files_limit(),
            max_pending_bytes: 64 << 20,
            max_calls: 100_000,
            max_known_bytes: usize::MAX,
            block_bytes: 64 << 10,
            max_wait: Duration::from_secs(5),
            reopen_for: Duration::from_mins(10),
            close_again_after: Duration::from_secs(5),
            min_free: MinFree::default(),
            readers: Readers::NONE,
        }
    }
}

/// 1024, or half of what the process may have open.
pub fn open_files_limit() -> usize {
    const AT_MOST: u64 = 1024;
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(soft.map_or(AT_MOST, |s| (s / 2).clamp(1, AT_MOST))).unwrap_or(1)
}

/// What happened so far; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets accepted.
    pub packets: u64,
    /// Calls begun.
    pub calls: u64,
    /// Files created.
    pub files: u64,
    /// Files followed by another because they were full.
    pub rotated: u64,
    /// Files opened again after their descriptor was given up or their call was closed.
    pub reopened: u64,
    /// Calls continued by late packets after their close.
    pub late_calls: u64,
    /// Times everything was written because memory ran out.
    pub forced: u64,
    /// Calls closed before their end and forgotten because too many were known.
    pub evicted: u64,
    /// Calls that were closed already and forgotten before their time because too many were known.
    pub evicted_closed: u64,
    /// Files that somebody removed or changed under us; the call went on in another.
    pub displaced: u64,
    /// Files beside the first of their part because a pcap holds one link type.
    pub siblings: u64,
    /// Stems given a number because files of an earlier run had the name.
    pub renamed: u64,
    /// Times that did not fit the format and were moved to the nearest that does.
    pub clamped: u64,
    /// Packets under a shared interface because the table was full.
    pub shared_interface: u64,
}

/// What accepting a packet meant for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Its first packet.
    New,
    /// One more.
    Continued,
    /// A late one: the call was closed. It is closed again by itself ([`CallFiles::poll_closed`]).
    Reopened,
}

/// A call whose files are closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedCall {
    /// Its Call-ID as it came.
    pub call_id: Arc<[u8]>,
    /// The common beginning of its file names.
    pub stem: String,
    /// Its files with their sums, in order of part and rotation.
    pub files: Vec<FileFact>,
    /// Where its packets lie, of one that others needed the room of: nothing more is known of it here.
    pub history: Vec<History>,
}

type CallNo = u64;

/// Changes of origin remembered per part: with two hunters, one to each of their batches. What comes after counts as the last one's.
const MAX_RUNS: usize = 4096;
/// What one of them takes, where the list has just grown.
const RUN: usize = 2 * size_of::<Run>();
/// A finished file beside its name: its sum, its size.
const FACT: usize = 192;

const fn weight_of(done: &FileFact) -> usize {
    done.name.len().saturating_add(FACT)
}

#[derive(Debug)]
struct Call {
    id: Arc<[u8]>,
    stem: Box<str>,
    tracks: SmallVec<[Track; 2]>,
    packets: u64,
    last: Timestamp,
    closed_at: Option<Timestamp>,
    /// Who brought its first packet: it counts as that hunter's.
    hunter: Arc<str>,
    /// Bytes of what grows with what comes of it.
    bytes: usize,
    /// Bytes of what is known of it elsewhere.
    elsewhere: usize,
    /// It stands in `changed`.
    changed: bool,
}

impl Call {
    /// So many bytes more are known of it.
    fn grow(&mut self, bytes: usize, all: &mut usize, shares: &mut shares::Shares) {
        if bytes > 0 {
            self.bytes = self.bytes.saturating_add(bytes);
            *all = all.saturating_add(bytes);
            shares.weigh(&self.hunter, 0, bytes);
        }
    }

    /// Notes that a restart must know of it as it is now.
    fn note_change(&mut self, no: CallNo, changed: &mut Vec<CallNo>) {
        if !std::mem::replace(&mut self.changed, true) {
            changed.push(no);
        }
    }
}

/// The files of one part of a call, one after the other; for pcap per link type.
#[derive(Debug)]
struct Track {
    part: Part,
    link: LinkType,
    /// Whether the link type stands in the name: it is not the first of its part.
    sibling: bool,
    index: u32,
    file: CaptureFile,
    done: Vec<FileFact>,
    /// Whose packets are in all of them, in order.
    runs: Vec<Run>,
    /// Something waits to be written, and stands in `dirty` under this turn.
    dirty: bool,
    turn: u32,
    hand: Hand,
    /// Its name may not be used yet: it stands in `fresh`.
    unannounced: bool,
}

/// A file's place among the open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    /// Not in `open`.
    Unlisted,
    /// In `open`, not used since the clock hand came by.
    Cold,
    /// In `open` and used.
    Hot,
}

#[derive(Clone, Copy, Debug)]
struct Dirty {
    call: CallNo,
    track: usize,
    turn: u32,
    since: Timestamp,
}

/// The files of all calls.
#[derive(Debug)]
pub struct CallFiles {
    cfg: CallFilesConfig,
    dir: Dir,
    ids: HashMap<Arc<[u8]>, CallNo, RandomState>,
    calls: HashMap<CallNo, Call, RandomState>,
    next_no: CallNo,
    shares: shares::Shares,
    reopened: Vec<CallNo>,
    dirty: VecDeque<Dirty>,
    open: VecDeque<(CallNo, usize)>,
    open_count: usize,
    spare: Vec<Vec<u8>>,
    pending: usize,
    /// Bytes of what grows with what comes of calls, over all of them.
    bytes: usize,
    now: Timestamp,
    finished: VecDeque<ClosedCall>,
    forgotten: VecDeque<Arc<[u8]>>,
    /// Since [`CallFiles::take_changes`]: calls that are not as they were, and those that are not known any more.
    changed: Vec<CallNo>,
    gone: Vec<CallKey>,
    names: names::NewNames,
    counters: Counters,
}

impl CallFiles {
    /// Opens the directory, creating it where it is missing.
    ///
    /// # Errors
    /// [`RecordError::Unsafe`] when others may write to it; [`RecordError::Io`].
    pub fn open(dir: &Path, cfg: CallFilesConfig) -> Result<Self, RecordError> {
        Ok(Self {
            dir: Dir::open_for(dir, Access::Private, cfg.min_free, cfg.readers)?.nameless(),
            cfg,
            ids: HashMap::default(),
            calls: HashMap::default(),
            next_no: 0,
            shares: shares::Shares::default(),
            reopened: Vec::new(),
            dirty: VecDeque::new(),
            open: VecDeque::new(),
            open_count: 0,
            spare: Vec::new(),
            pending: 0,
            bytes: 0,
            now: Timestamp::MIN,
            finished: VecDeque::new(),
            forgotten: VecDeque::new(),
            changed: Vec::new(),
            gone: Vec::new(),
            names: names::NewNames::default(),
            counters: Counters::default(),
        })
    }

    /// Accepts one packet of a call.
    ///
    /// # Errors
    /// Retryable ones ([`RecordError::is_retryable`]): the packet was not accepted, everything before it was; try it
    /// again. [`RecordError::Oversize`]: never accepted.
    pub fn write(&mut self, call: &Parties<'_>, part: Part, pkt: &Packet<'_>) -> Result<Written, RecordError> {
        if pkt.data.len() > MAX_CAPTURED {
            return Err(RecordError::Oversize { len: pkt.data.len(), max: MAX_CAPTURED });
        }
        let sip = part == Part::Sip;
        let part = if self.cfg.layout == Layout::Merged { Part::Merged } else { part };
        let no = match self.ids.get(call.call_id) {
            Some(no) => *no,
            None => self.begin(call, pkt)?,
        };
        let format = self.cfg.pattern.format();
        loop {
            let Some(c) = self.calls.get_mut(&no) else { return Ok(Written::Continued) };
            let track = c.tracks.iter_mut().enumerate().find(|(_, t)| t.takes(part, pkt.link, format));
            let Some((at, track)) = track else {
                self.add_track(no, part, pkt.link)?;
                continue;
            };
            let (size, block) = (track.file.size_of(pkt)?, track.file.block());
            if track.file.packets() > 0 && block.len().saturating_add(size as u64) > self.cfg.max_file_bytes {
                self.rotate(no, at)?;
                continue;
            }
            if block.is_due(size) {
                self.flush(no, at)?;
                continue;
            }
            if self.pending.saturating_add(size) > self.cfg.max_pending_bytes && self.pending > 0 {
                self.counters.forced = self.counters.forced.saturating_add(1);
                self.commit()?;
                continue;
            }
            return Ok(self.accept(no, at, sip, pkt));
        }
    }

    /// The last step of [`Self::write`]: nothing can fail any more.
    fn accept(&mut self, no: CallNo, at: usize, sip: bool, pkt: &Packet<'_>) -> Written {
        let Some(c) = self.calls.get_mut(&no) else { return Written::Continued };
        let Some(track) = c.tracks.get_mut(at) else { return Written::Continued };
        if track.file.block().pending() == 0
            && let Some(spare) = self.spare.pop()
        {
            *track.file.pending_mut() = spare;
        }
        let before = track.file.block().pending();
        let noted = track.file.push(pkt);
        self.pending = self.pending.saturating_add(track.file.block().pending().saturating_sub(before));
        let grown = track.note_origin(pkt.origin.hunter, sip);
        track.mark(&mut self.dirty, no, at, self.now);
        self.counters.packets = self.counters.packets.saturating_add(1);
        self.counters.clamped = self.counters.clamped.saturating_add(u64::from(noted.clamped));
        self.counters.shared_interface = self.counters.shared_interface.saturating_add(u64::from(noted.shared_interface));
        c.packets = c.packets.saturating_add(1);
        c.grow(grown, &mut self.bytes, &mut self.shares);
        c.last = self.now;
        if self.dir.is_watched() {
            c.note_change(no, &mut self.changed);
        }
        if c.closed_at.take().is_some() {
            self.reopened.push(no);
            self.counters.late_calls = self.counters.late_calls.saturating_add(1);
            return Written::Reopened;
        }
        if c.packets == 1 { Written::New } else { Written::Continued }
    }

    /// Hands everything accepted to `write(2)`: after this a batch may be acknowledged.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn commit(&mut self) -> Result<(), RecordError> {
        self.write_dirty(|_| true)?;
        debug_assert_eq!(self.pending, 0, "everything pending is listed as dirty");
        self.pending = 0;
        Ok(())
    }

    /// Says what time it is: writes what has waited too long, closes reopened calls that fell silent, forgets calls
    /// closed long ago. Time never goes back.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), RecordError> {
        self.now = self.now.max(now);
        let (now, wait) = (self.now, self.cfg.max_wait);
        self.write_dirty(|d| now.since(d.since) >= wait)?;
        let mut at = 0;
        while let Some(no) = self.reopened.get(at).copied() {
            let silent = |c: &Call| c.closed_at.is_none() && now.since(c.last) >= self.cfg.close_again_after;
            if self.calls.get(&no).is_some_and(|c| c.closed_at.is_none() && !silent(c)) {
                at = at.saturating_add(1);
                continue;
            }
            if self.calls.get(&no).is_some_and(silent) {
                let call = self.close_no(no)?;
                self.finished.extend(call);
            }
            self.reopened.swap_remove(at);
        }
        for (no, at) in self.shares.take_closed(now, self.cfg.reopen_for) {
            if self.calls.get(&no).is_some_and(|c| c.closed_at == Some(at)) {
                self.forget(no);
            }
        }
        Ok(())
    }

    /// Closes a call: everything written, descriptors given back, sums made. `None` when there is no such call; closing
    /// twice gives the same answer.
    ///
    /// # Errors
    /// Retryable; the call stays open.
    pub fn close(&mut self, call_id: &[u8]) -> Result<Option<ClosedCall>, RecordError> {
        self.ids.get(call_id).copied().map_or(Ok(None), |no| self.close_no(no))
    }

    /// The next call that was closed by itself: fallen silent after late packets, or evicted.
    pub fn poll_closed(&mut self) -> Option<ClosedCall> {
        self.finished.pop_front()
    }

    /// The next call that was closed before and is forgotten since others needed its room.
    pub fn poll_forgotten(&mut self) -> Option<Arc<[u8]>> {
        self.forgotten.pop_front()
    }

    /// The common beginning of a call's file names, once it has a packet.
    pub fn stem(&self, call_id: &[u8]) -> Option<&str> {
        self.call(call_id).map(|c| &*c.stem)
    }

    /// The call's files as they are, without sums for the ones still written.
    pub fn files(&self, call_id: &[u8]) -> Vec<FileFact> {
        self.call(call_id).map_or_else(Vec::new, |c| c.tracks.iter().flat_map(|t| t.facts(None)).collect())
    }

    /// Calls that are not closed.
    pub fn open_calls(&self) -> impl Iterator<Item = &[u8]> {
        self.calls.values().filter(|c| c.closed_at.is_none()).map(|c| &*c.id)
    }

    /// Bytes accepted and not yet handed to the kernel.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// About what is known here of calls, beyond what every call takes: names, finished files, whose packets they hold.
    pub const fn known_bytes(&self) -> usize {
        self.bytes
    }

    /// Descriptors in use.
    pub fn open_files(&self) -> usize {
        self.open_count
    }

    /// Where the files are; JSON records go there too.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn call(&self, call_id: &[u8]) -> Option<&Call> {
        self.ids.get(call_id).and_then(|no| self.calls.get(no))
    }
}

impl Track {
    fn takes(&self, part: Part, link: LinkType, format: Format) -> bool {
        self.part == part && (format == Format::PcapNg || self.link == link)
    }

    /// Lists it as having something to write.
    fn mark(&mut self, dirty: &mut VecDeque<Dirty>, call: CallNo, track: usize, since: Timestamp) {
        if !self.dirty {
            self.dirty = true;
            dirty.push_back(Dirty { call, track, turn: self.turn, since });
        }
    }

    /// Remembers whose packet came; how many bytes more that is.
    fn note_origin(&mut self, hunter: &str, sip: bool) -> usize {
        let full = self.runs.len() >= MAX_RUNS;
        if let Some(run) = self.runs.last_mut().filter(|r| full || (r.sip == sip && *r.hunter == *hunter)) {
            run.packets = run.packets.saturating_add(1);
            return 0;
        }
        let known = self.runs.iter().rev().take(4).find(|r| *r.hunter == *hunter).map(|r| Arc::clone(&r.hunter));
        let name = if known.is_some() { 0 } else { hunter.len() };
        self.runs.push(Run { hunter: known.unwrap_or_else(|| Arc::from(hunter)), sip, packets: 1 });
        RUN.saturating_add(name)
    }

    /// The finished files and the current one, whose sum is `sha256`.
    fn facts(&self, sha256: Option<String>) -> impl Iterator<Item = FileFact> {
        let now =
            FileFact { name: self.file.name().into(), bytes: self.file.block().len(), packets: self.file.packets(), sha256 };
        self.done.iter().cloned().chain([now])
    }
}
