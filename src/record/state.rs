//! What a restart begins from: which batches are stored, and how far the files were.
//!
//! ```text
//! processor-state.json       everything, as of one entry of the commit log
//! processor-state-1.json …   what changed since the one before: calls that grew, began or are forgotten; the short lists whole
//! ```
//! Written now and then by a running processor and once more when it stops; what came since is in the commit log, from entry
//! [`State::log`] on. Calls that nothing happened to are not written again, until the changes are as long as all of it.
//!
//! Promises: whole or absent (written aside, synced, renamed); written in slices of bounded size, since a state of 100 000 calls has some 60 MiB
//! and acknowledgements wait meanwhile ([`Saving`]); read so, too, and never in memory as text. Refuses a version it does not know.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use super::calls::{CallKey, CallState};
use super::changes::Changed;
use super::dir::{Dir, PART, sync_data};
use super::json::Hole;
use super::losses::HunterLosses;
use super::unified::Length;
use super::{RecordError, fault};
use crate::batch::SeqRanges;
use crate::telemetry;

/// Its name in the state directory.
pub const FILE_NAME: &str = "processor-state.json";
/// Version of the layout below; raised when an older program could misread it.
pub const VERSION: u32 = 4;
/// Of programs without a commit log: left by a graceful stop only.
const VERSION_WITHOUT_LOG: u32 = 1;
/// A state of so many bytes is read back whatever `--memory-limit` is: 100 000 calls of two files, some 1 KiB each, and as much again. A longer
/// one may have as many as that limit: what is known of calls is bounded by it, and its text is no longer than that.
const ALWAYS_READ: u64 = 256 << 20;
/// Read at once.
const BUFFER: usize = 64 << 10;

/// Bytes of a slice: some ten milliseconds of encoding, writing and waiting for the disk.
const SLICE: usize = if cfg!(test) { 300 } else { 1 << 20 };

/// Everything a restart continues from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Which batches of which hunter are stored.
    pub acked: Vec<Acked>,
    /// Calls whose files are continued.
    pub calls: Vec<CallState>,
    /// The unified file and its siblings.
    pub unified: Vec<Length>,
    /// Of those calls, what their files do not say.
    #[serde(default)]
    pub memory: Vec<CallMemory>,
    /// Rotating files that have no name yet.
    #[serde(default)]
    pub rotating: Vec<Length>,
    /// Where all these files are.
    #[serde(default)]
    pub places: Places,
    /// What hunters lost, or have not sent yet.
    #[serde(default)]
    pub losses: Vec<HunterLosses>,
    /// The last entry of the commit log that is in it.
    #[serde(default)]
    pub log: u64,
    /// Nothing was written after it: the processor stopped gracefully.
    #[serde(default)]
    pub clean: bool,
    /// Of changes: [`State::log`] of what they are changes of.
    #[serde(default)]
    pub since: Option<u64>,
    /// Of changes: calls whose files are not continued any more; where one has begun again, it is among the calls.
    #[serde(default)]
    pub gone: Vec<CallKey>,
    /// Of changes: calls of which nothing is known any more; likewise.
    #[serde(default)]
    pub forgotten: Vec<String>,
}

/// Directories of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Places {
    /// Of the unified file.
    pub unified: Option<PathBuf>,
    /// Of the call files.
    pub calls: Option<PathBuf>,
    /// Of the rotating files.
    pub rotating: Option<PathBuf>,
}

/// What is known of a call beside its packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallMemory {
    /// Its Call-ID.
    pub call_id: String,
    /// Filters that chose it.
    pub filter_ids: Vec<String>,
    /// By which rule a phone number filter chose it.
    #[serde(default)]
    pub phone_rule: String,
    /// What each hunter says is missing, in its words.
    #[serde(default)]
    pub said_holes: BTreeMap<String, String>,
    /// Packets that came for another call before.
    #[serde(default)]
    pub shared: u64,
    /// What is missing of it, as programs wrote it that kept no [`State::losses`].
    #[serde(default)]
    pub holes: Vec<Hole>,
    /// Hunters of its that had stopped.
    pub gone: Vec<String>,
    /// Whether its last record is still to be written.
    pub open: bool,
}

/// How far one batcher of one hunter is stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Acked {
    /// Hunter id.
    pub hunter: String,
    /// Epoch: one batcher in one process start.
    pub epoch: u64,
    /// Of what the hunter has, every batch up to this sequence is stored.
    pub through: u64,
    /// Which are; none, as of programs that knew no order but one: all up to that sequence.
    #[serde(default)]
    pub stored: Option<SeqRanges>,
}

impl Acked {
    /// Which batches are stored.
    pub fn ranges(&self) -> Cow<'_, SeqRanges> {
        self.stored.as_ref().map_or_else(|| Cow::Owned(SeqRanges::through(self.through)), Cow::Borrowed)
    }

    /// Takes in what was stored later.
    pub fn join(&mut self, later: &Self) {
        let mut all = self.stored.take().unwrap_or_else(|| SeqRanges::through(self.through));
        later.ranges().iter().for_each(|(from, to)| all.insert(from, to));
        self.stored = Some(all);
        self.through = self.through.max(later.through);
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            acked: Vec::new(),
            calls: Vec::new(),
            unified: Vec::new(),
            memory: Vec::new(),
            rotating: Vec::new(),
            places: Places::default(),
            losses: Vec::new(),
            log: 0,
            clean: false,
            since: None,
            gone: Vec::new(),
            forgotten: Vec::new(),
        }
    }
}

impl State {
    /// Writes it, replacing an older one; with `durable`, waits until it is on the disk.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Full`]; an older state is still there then.
    pub fn save(&self, dir: &Dir, durable: bool) -> Result<(), RecordError> {
        self.save_changes(dir, durable, 0)
    }

    /// The same of changes, by their number since everything was written.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_changes(&self, dir: &Dir, durable: bool, number: u64) -> Result<(), RecordError> {
        let mut saving = Saving::begin(dir, durable, number)?;
        while !saving.step(self, dir)? {}
        Ok(())
    }

    /// Reads it, with all changes since; `None` when there is none.
    ///
    /// # Errors
    /// [`RecordError::Unreadable`] when it is damaged or of another version, or changes are missing; [`RecordError::TooLong`];
    /// [`RecordError::Io`].
    pub fn load(dir: &Dir) -> Result<Option<Self>, RecordError> {
        Self::load_within(dir, telemetry::memory::limit().max(ALWAYS_READ))
    }

    fn load_within(dir: &Dir, max: u64) -> Result<Option<Self>, RecordError> {
        let Some(state) = Self::read(dir, FILE_NAME, max)? else { return Ok(None) };
        let mut changed = Changed::of(state);
        for (_, name) in change_files(dir)? {
            let Some(change) = Self::read(dir, &name, max)? else { continue };
            if change.log <= changed.log() {
                // of before everything was last written
                continue;
            }
            if change.since != Some(changed.log()) {
                let reason = "the changes before it are missing".to_owned();
                return Err(RecordError::Unreadable { path: dir.join(&name), reason });
            }
            changed.take(change);
        }
        Ok(Some(changed.into_state()))
    }

    /// Where its files are; of all the rest nothing is kept, nor looked at.
    pub fn places(dir: &Dir) -> Option<Places> {
        #[derive(serde::Deserialize)]
        struct Where {
            #[serde(default)]
            places: Places,
        }
        let file = dir.open_existing(FILE_NAME).ok()??;
        let state: Where = serde_json::from_reader(BufReader::with_capacity(BUFFER, file)).ok()?;
        Some(state.places)
    }

    fn read(dir: &Dir, name: &str, max: u64) -> Result<Option<Self>, RecordError> {
        let Some(file) = dir.open_existing(name)? else { return Ok(None) };
        let path = || dir.join(name);
        let bytes = file.metadata().map_err(|e| RecordError::io("inspect", path(), e))?.len();
        if bytes > max {
            return Err(RecordError::TooLong { path: path(), bytes, max });
        }
        let unreadable = |reason: String| RecordError::Unreadable { path: path(), reason };
        let state: Self =
            serde_json::from_reader(BufReader::with_capacity(BUFFER, file)).map_err(|e| unreadable(e.to_string()))?;
        if !(VERSION_WITHOUT_LOG..=VERSION).contains(&state.version) {
            return Err(unreadable(format!("it is version {}, this program knows {VERSION}", state.version)));
        }
        let clean = state.clean || state.version == VERSION_WITHOUT_LOG;
        Ok(Some(Self { version: VERSION, clean, ..state }))
    }
}

/// The name of changes.
fn change_name(number: u64) -> String {
    format!("processor-state-{number}.json")
}

/// Files of changes, by number.
fn change_files(dir: &Dir) -> Result<Vec<(u64, String)>, RecordError> {
    let number = |name: &str| name.strip_prefix("processor-state-")?.strip_suffix(".json")?.parse::<u64>().ok();
    let files = dir.files(|name| number(name).is_some())?;
    let mut all: Vec<(u64, String)> = files.into_iter().filter_map(|(name, _)| Some((number(&name)?, name))).collect();
    all.sort_unstable();
    Ok(all)
}

/// A state that is being written, slice by slice, beside what is there.
#[derive(Debug)]
pub struct Saving {
    file: File,
    durable: bool,
    /// The number of the changes; 0 of everything.
    number: u64,
    /// Bytes written.
    bytes: u64,
    /// Encoded and not yet written.
    text: Vec<u8>,
    next: Next,
}

/// What is encoded next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Head,
    Call(usize),
    Memory(usize),
    Gone(usize),
    Forgotten(usize),
    Nothing,
}

/// Everything but the long lists.
#[derive(serde::Serialize)]
struct Short<'a> {
    version: u32,
    acked: &'a [Acked],
    unified: &'a [Length],
    rotating: &'a [Length],
    places: &'a Places,
    losses: &'a [HunterLosses],
    log: u64,
    clean: bool,
    since: Option<u64>,
}

impl Saving {
    /// Begins a file of all, or, with a number, of changes; one that was begun before and not finished goes.
    ///
    /// # Errors
    /// [`RecordError::Io`]; the state that is there is untouched.
    pub fn begin(dir: &Dir, durable: bool, number: u64) -> Result<Self, RecordError> {
        let part = part();
        dir.remove(&part)?;
        let Some(file) = dir.create_new(&part)? else {
            return Err(RecordError::Unsafe { path: dir.join(&part), reason: "somebody else creates files here" });
        };
        Ok(Self { file, durable, number, bytes: 0, text: Vec::with_capacity(SLICE), next: Next::Head })
    }

    /// Bytes written so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes one more slice of `state`, always the same one; true once it has taken its place: all of it that of the older state and its changes.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Full`]; the older state is still there, and this one is not written any further.
    pub fn step(&mut self, state: &State, dir: &Dir) -> Result<bool, RecordError> {
        let written = self.encode(state).map_err(io::Error::other).and_then(|()| self.write());
        if let Err(e) = written {
            dir.remove(&part())?;
            return Err(RecordError::io("write", dir.join(&part()), e));
        }
        if !matches!(self.next, Next::Nothing) {
            return Ok(false);
        }
        let name = if self.number == 0 { FILE_NAME.to_owned() } else { change_name(self.number) };
        dir.replace(&part(), &name)?;
        if self.durable {
            dir.sync()?;
        }
        if self.number == 0 {
            // of those that stay every one is known to be older
            for (_, name) in change_files(dir)? {
                dir.remove(&name)?;
            }
        }
        Ok(true)
    }

    fn encode(&mut self, state: &State) -> serde_json::Result<()> {
        while self.text.len() < SLICE && !matches!(self.next, Next::Nothing) {
            self.next = match self.next {
                Next::Head => {
                    let State { version, acked, unified, rotating, places, losses, log, clean, since, .. } = state;
                    let (version, log, clean, since) = (*version, *log, *clean, *since);
                    serde_json::to_writer(
                        &mut self.text,
                        &Short { version, acked, unified, rotating, places, losses, log, clean, since },
                    )?;
                    // the object goes on
                    self.text.pop();
                    self.text.extend_from_slice(b",\"calls\":[");
                    Next::Call(0)
                }
                Next::Call(n) => self.entry(&state.calls, n, Next::Call, ("],\"memory\":[", Next::Memory(0)))?,
                Next::Memory(n) => self.entry(&state.memory, n, Next::Memory, ("],\"gone\":[", Next::Gone(0)))?,
                Next::Gone(n) => self.entry(&state.gone, n, Next::Gone, ("],\"forgotten\":[", Next::Forgotten(0)))?,
                Next::Forgotten(n) => self.entry(&state.forgotten, n, Next::Forgotten, ("]}", Next::Nothing))?,
                Next::Nothing => Next::Nothing,
            };
        }
        Ok(())
    }

    /// The `n`th of a list; behind the last, what comes between it and what is next.
    fn entry<T: serde::Serialize>(
        &mut self,
        list: &[T],
        n: usize,
        of: fn(usize) -> Next,
        (end, then): (&str, Next),
    ) -> serde_json::Result<Next> {
        let Some(value) = list.get(n) else {
            self.text.extend_from_slice(end.as_bytes());
            return Ok(then);
        };
        if n > 0 {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, value)?;
        Ok(of(n.saturating_add(1)))
    }

    fn write(&mut self) -> io::Result<()> {
        if fault::is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(half) = fault::torn(self.text.len()) {
            let _gone = self.file.write_all(self.text.get(..half).unwrap_or_default());
            fault::die();
        }
        self.file.write_all(&self.text)?;
        self.bytes = self.bytes.saturating_add(self.text.len() as u64);
        self.text.clear();
        // slice by slice: one wait for all of it would be a long one
        if self.durable { sync_data(&self.file) } else { Ok(()) }
    }
}

fn part() -> String {
    format!("{FILE_NAME}{PART}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileFact;
    use crate::record::calls::Run;
    use crate::record::calls::{CallKey, Part, TrackState};
    use crate::record::dir::{Access, MinFree};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn dir() -> (tempfile::TempDir, Dir) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Dir::open(tmp.path(), Access::Private, MinFree::NONE).unwrap();
        (tmp, dir)
    }

    #[test]
    fn comes_back_as_it_was_saved() {
        let (_tmp, dir) = dir();
        let fact = FileFact { name: "s_sip.pcap".into(), bytes: 40, packets: 1, sha256: None };
        let track = TrackState {
            part: Part::Sip,
            link: 113,
            sibling: false,
            index: 1,
            current: fact.clone(),
            done: vec![fact],
            runs: vec![Run { hunter: "h".into(), sip: true, packets: 3 }],
        };
        let call = |id: &[u8]| CallState {
            call_id: id.into(),
            stem: "s".into(),
            packets: 2,
            closed_at: Some(-7),
            tracks: vec![track.clone()],
        };
        let state = State {
            acked: vec![Acked { hunter: "h".into(), epoch: u64::MAX, through: 9, stored: Some(SeqRanges::through(11)) }],
            calls: vec![call(b"a@b"), call(&[0xff, 0])],
            unified: vec![Length { name: "u.pcap".into(), bytes: 24 }],
            ..State::default()
        };

        state.save(&dir, true).unwrap();

        assert_eq!(State::load(&dir).unwrap().unwrap(), state);
        assert_eq!(state.calls[1].call_id, CallKey::Bytes(vec![0xff, 0]));
        assert_eq!(fs::metadata(dir.join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn until_its_last_slice_is_written_the_older_state_is_there() {
        let (_tmp, dir) = dir();
        let call = |n: u64| CallMemory { call_id: format!("{n:02}@b"), shared: n, ..CallMemory::default() };
        let older = State { log: 1, ..State::default() };
        let newer = State { log: 2, memory: (0..100).map(call).collect(), ..State::default() };
        older.save(&dir, true).unwrap();
        let mut abandoned = Saving::begin(&dir, true, 0).unwrap();
        assert!(!abandoned.step(&newer, &dir).unwrap());
        drop(abandoned);
        let (mut saving, mut slices) = (Saving::begin(&dir, true, 0).unwrap(), 1);

        while !saving.step(&newer, &dir).unwrap() {
            assert_eq!(State::load(&dir).unwrap().unwrap(), older);
            slices += 1;
        }

        assert!(slices > 20, "{slices}");
        assert_eq!(State::load(&dir).unwrap().unwrap(), newer);
        assert!(!fs::exists(dir.join(&part())).unwrap());
    }

    #[test]
    fn changes_are_read_on_top_of_what_they_change_and_go_when_all_is_written_again() {
        let (_tmp, dir) = dir();
        let call = |id: &str, packets| CallState {
            call_id: id.as_bytes().into(),
            stem: id.into(),
            packets,
            closed_at: None,
            tracks: Vec::new(),
        };
        let memory = |id: &str, shared| CallMemory { call_id: id.into(), shared, ..CallMemory::default() };
        let base = State {
            log: 5,
            calls: ["a", "b", "c"].map(|id| call(id, 1)).into(),
            memory: ["a", "b", "c"].map(|id| memory(id, 1)).into(),
            ..State::default()
        };
        let first = State {
            since: Some(5),
            log: 9,
            calls: vec![call("b", 2), call("c", 1), call("d", 1)],
            memory: vec![memory("c", 7), memory("d", 1)],
            gone: vec![b"a"[..].into(), b"c"[..].into()],
            forgotten: vec!["a".into(), "c".into()],
            ..State::default()
        };
        let second = State { since: Some(9), log: 12, clean: true, ..State::default() };
        let write = |state: &State, number| {
            state.save_changes(&dir, true, number).unwrap();
            State::load(&dir)
        };
        let save = |state: &State, number| write(state, number).unwrap().unwrap();

        save(&base, 0);
        let changed = save(&first, 1);
        let all = save(&second, 2);
        let expected = State {
            log: 12,
            clean: true,
            calls: vec![call("b", 2), call("c", 1), call("d", 1)],
            memory: vec![memory("b", 1), memory("c", 7), memory("d", 1)],
            ..State::default()
        };
        assert_eq!((changed.log, changed.clean, &changed.calls), (9, false, &expected.calls));
        assert_eq!(all, expected);
        // a crash before the older changes are removed
        let stale = dir.read_whole(&change_name(2), 1 << 20).unwrap().unwrap();
        assert_eq!(save(&State { log: 20, ..expected }, 0).log, 20);
        assert!(change_files(&dir).unwrap().is_empty());
        dir.write_whole(&change_name(2), &stale, false).unwrap();
        assert_eq!(save(&State { since: Some(20), log: 21, ..State::default() }, 1).log, 21);
        dir.remove(&change_name(1)).unwrap();
        let orphan = write(&State { since: Some(21), log: 22, ..State::default() }, 3);
        assert!(matches!(orphan, Err(RecordError::Unreadable { .. })));
    }

    #[test]
    fn a_state_longer_than_there_is_memory_for_is_refused_with_its_size_and_a_way_out() {
        let (_tmp, dir) = dir();
        let name = |n: u64| CallMemory { call_id: format!("{n:0>100}"), ..CallMemory::default() };
        State { log: 1, memory: (0..3).map(name).collect(), ..State::default() }.save(&dir, false).unwrap();
        let longer = State { since: Some(1), log: 2, memory: (3..9).map(name).collect(), ..State::default() };
        longer.save_changes(&dir, false, 1).unwrap();
        let len = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
        let (whole, change) = (len(FILE_NAME), len(&change_name(1)));

        assert_eq!(State::load_within(&dir, change).unwrap().unwrap().memory.len(), 9);
        for (max, bytes, name) in [(whole - 1, whole, FILE_NAME), (change - 1, change, &change_name(1))] {
            let said = State::load_within(&dir, max).unwrap_err().to_string();
            let expected =
                format!("{name}: its {bytes} bytes are more than the {max} of --memory-limit; start once with more memory");
            assert!(said.contains(&expected), "{said}");
        }
    }

    #[test]
    fn where_the_files_are_is_known_without_reading_what_they_are() {
        let (_tmp, dir) = dir();
        assert_eq!(State::places(&dir), None);
        let places = Places { calls: Some("/var/calls".into()), ..Places::default() };
        State { places: places.clone(), memory: vec![CallMemory::default(); 9], ..State::default() }.save(&dir, false).unwrap();
        assert_eq!(State::places(&dir), Some(places));
        dir.write_whole(FILE_NAME, b"{", false).unwrap();
        assert_eq!(State::places(&dir), None);
    }

    #[test]
    fn a_closed_call_whose_last_record_was_not_written_is_closed_again() {
        let (_tmp, dir) = dir();
        let call = |id: &str| CallState {
            call_id: id.as_bytes().into(),
            stem: id.into(),
            packets: 1,
            closed_at: Some(7),
            tracks: Vec::new(),
        };
        let memory = |id: &str, open| CallMemory { call_id: id.into(), open, ..CallMemory::default() };
        let (calls, memory) = (vec![call("a"), call("b")], vec![memory("a", true), memory("b", false)]);
        State { calls, memory, ..State::default() }.save(&dir, false).unwrap();

        let closed: Vec<_> = State::load(&dir).unwrap().unwrap().calls.iter().map(|c| c.closed_at).collect();

        assert_eq!(closed, [None, Some(7)]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let (_tmp, dir) = dir();
        for text in ["", "{", "[]", r#"{"version":5,"acked":[],"calls":[],"unified":[]}"#] {
            dir.write_whole(FILE_NAME, text.as_bytes(), false).unwrap();
            assert!(matches!(State::load(&dir), Err(RecordError::Unreadable { .. })), "{text}");
        }
    }
}
