//! All segments of one directory as one queue.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::time::Duration;

use super::fs::{Fs, Space};
use super::record::{FOOTER, MAX_PAYLOAD};
use super::segment::{Key, SEGMENT_HEADER, Segment, Step, hunter_mark};
use super::{Item, Lost, Now, Refused, SpoolConfig, SpoolError, SpoolFull, Tally, ack, is_full, recover};
use crate::batch::{BatchSeq, DroppedRange, Epoch};
use crate::reason::DropReason;

/// A segment is sealed at this age.
const SEGMENT_AGE: Duration = Duration::from_mins(1);
/// Segments at most: processes that end again and again leave small ones.
const SEGMENTS: usize = 4096;
/// A segment is not made smaller than this, however small the file system.
const SMALL_SEGMENT: u64 = 1 << 20;
/// Damaged segments kept.
const QUARANTINED: usize = 8;
/// How much may be written before free space is looked at again.
const GRANT: u64 = 16 << 20;
/// The hint is written this often at most.
const HINT_EVERY: Duration = Duration::from_secs(1);
/// What a segment costs beside its records.
const FRAME: u64 = (SEGMENT_HEADER + FOOTER) as u64;

/// The figures of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk, everything included.
    pub bytes: u64,
    /// What was appended or recovered and not read, acknowledged or lost.
    pub unread: Tally,
    /// Segments.
    pub segments: usize,
    /// Creation of the oldest segment, ns since 1970; 0 without one.
    pub oldest_ns: i64,
    /// Errors of the file system.
    pub io_errors: u64,
}

/// The queue; one thread owns it.
#[derive(Debug)]
pub struct Queue<S: Fs> {
    fs: S,
    config: SpoolConfig,
    segments: BTreeMap<Key, Segment<S::File>>,
    /// Where the next batch comes from.
    current: Option<Key>,
    acked: ack::Acked,
    hint_due: bool,
    hint_at: Duration,
    quarantined: VecDeque<(String, u64)>,
    granted: u64,
    lost: Vec<Lost>,
    given_way: Vec<(Epoch, BatchSeq)>,
    io_errors: u64,
}

impl<S: Fs> Queue<S> {
    /// Opens a directory with what an earlier process left in it.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing was changed.
    pub fn open(fs: S, mut config: SpoolConfig) -> Result<Self, SpoolError> {
        let loaded = recover::load(&fs, Some(&config.hunter_id))?;
        let hint = fs.read_small(ack::NAME).ok().flatten();
        let acked = hint.and_then(|bytes| ack::decode(&bytes)).unwrap_or_default();
        let quarantined = fs.quarantined().unwrap_or_default().into();
        // on a small file system there is little room: what is dropped for more must be a part of what is kept
        if let Ok(Space { total, .. }) = fs.space() {
            config.segment_bytes = config.segment_bytes.min((total / 8).max(SMALL_SEGMENT));
        }
        let mut this = Self {
            fs,
            config,
            segments: loaded.segments.into_iter().map(|s| (s.key, s)).collect(),
            current: None,
            acked: ack::Acked::new(),
            hint_due: false,
            hint_at: Duration::ZERO,
            quarantined,
            granted: 0,
            lost: Vec::new(),
            given_way: Vec::new(),
            io_errors: 0,
        };
        for name in loaded.empty {
            this.remove_file(&name);
        }
        for (epoch, seq) in acked {
            this.ack(epoch, seq);
        }
        this.lost.clear();
        Ok(this)
    }

    /// The directory.
    pub const fn fs(&self) -> &S {
        &self.fs
    }

    /// Puts a batch behind all others of its epoch. `read` says that the reader has it already and all before it.
    ///
    /// # Errors
    /// [`Refused`]; the queue goes on, and later batches may be taken.
    pub fn append(&mut self, item: Item, read: bool, now: Now) -> Result<(), Refused> {
        let payload = item.payload().len();
        let record = item.record_bytes();
        let need = record.saturating_add(FRAME);
        if payload == 0 || payload > MAX_PAYLOAD || need > self.config.max_bytes {
            return Err(Refused::TooLarge(payload));
        }
        self.make_room(need)?;
        match self.append_once(item.clone(), record, read, now) {
            Err(Refused::Full) if self.config.when_full == SpoolFull::DropOldest && self.drop_oldest() => {}
            // the file may be at fault: one more try, in another
            Err(Refused::Io(_)) => self.roll(item.epoch, now),
            other => return other,
        }
        self.append_once(item, record, read, now)
    }

    /// Puts batches of one epoch, in order, behind the others of it by one write, and returns how many of them it took. It takes none
    /// where they are a reason for a new segment or for giving one up, and not all after an error: [`Self::append`] the next then.
    pub fn append_together(&mut self, items: &[Item], read: bool, now: Now) -> usize {
        let need = items.iter().fold(0_u64, |sum, item| sum.saturating_add(item.record_bytes()));
        let in_order = items.is_sorted_by(|a, b| a.epoch == b.epoch && a.seq < b.seq);
        let sound = items.iter().all(|item| (1..=MAX_PAYLOAD).contains(&item.payload().len()));
        let limit = self.config.segment_bytes.min(self.config.max_bytes / 8);
        let has_room = self.taken().saturating_add(need) <= self.config.max_bytes && self.granted >= need;
        let Some(first) = items.first().filter(|_| in_order && sound && has_room) else { return 0 };
        let fits = |s: &Segment<S::File>| s.takes(first.seq, need, limit) && s.total.batches > 0;
        let Some(key) = self.newest(first.epoch) else { return 0 };
        if !self.segments.get(&key).is_some_and(fits) {
            return 0;
        }
        self.granted = self.granted.saturating_sub(need);
        self.put(key, items, read, now).0
    }

    /// Writes to this segment, which takes them; how many it has then.
    fn put(&mut self, key: Key, items: &[Item], read: bool, now: Now) -> (usize, io::Result<()>) {
        let Some(segment) = self.segments.get_mut(&key) else {
            return (0, Err(io::Error::other("there is no such segment")));
        };
        let at_end = !segment.has_unread();
        let (taken, written) = segment.append(items, now.mono);
        self.io_errors = self.io_errors.saturating_add(u64::from(written.is_err()));
        if taken > 0 && read && at_end {
            segment.consume();
        }
        if taken > 0 && segment.unsynced_bytes() >= self.config.sync_bytes {
            // what could not be made durable is still in the queue; the error is counted
            let _unconfirmed = self.sync_one(key, now, false);
        }
        (taken, written)
    }

    fn append_once(&mut self, item: Item, record: u64, read: bool, now: Now) -> Result<(), Refused> {
        let key = self.writable(&item, record, now)?;
        self.put(key, &[item], read, now).1.map_err(Refused::io)
    }

    /// The segment this batch goes to: the newest of its epoch, or one behind it. Ranges of segments never overlap.
    fn writable(&mut self, item: &Item, record: u64, now: Now) -> Result<Key, Refused> {
        let newest = self.newest(item.epoch);
        let limit = self.config.segment_bytes.min(self.config.max_bytes / 8);
        if let Some(key) = newest
            && self.segments.get(&key).is_some_and(|s| s.takes(item.seq, record, limit))
        {
            return Ok(key);
        }
        let overlaps = |s: &Segment<S::File>| s.key.epoch == item.epoch && s.key.first <= item.seq && item.seq <= s.last;
        if self.segments.values().any(overlaps) {
            return Err(Refused::Order(item.seq));
        }
        self.roll(item.epoch, now);
        let key = Key { epoch: item.epoch, first: item.seq, copy: 0 };
        self.create(key, now).map_err(Refused::io)
    }

    fn create(&mut self, key: Key, now: Now) -> io::Result<Key> {
        let hunter = hunter_mark(&self.config.hunter_id);
        let made = Segment::create(&self.fs, key, now.wall_ns, hunter, now.mono);
        match made {
            Ok(segment) => {
                self.segments.insert(key, segment);
                Ok(key)
            }
            Err(e) => {
                self.io_errors = self.io_errors.saturating_add(1);
                Err(e)
            }
        }
    }

    fn newest(&self, epoch: Epoch) -> Option<Key> {
        let above = Key { epoch: Epoch(epoch.0.saturating_add(1)), first: BatchSeq(0), copy: 0 };
        let (key, _) = self.segments.range(..above).next_back()?;
        (key.epoch == epoch).then_some(*key)
    }

    /// Seals the open segment of an epoch: what belongs between it and what comes next may then follow later.
    pub fn roll(&mut self, epoch: Epoch, now: Now) {
        let open = self.segments.values().find(|s| s.key.epoch == epoch && s.is_open()).map(|s| s.key);
        if let Some(key) = open {
            self.seal(key, now);
        }
    }

    /// Appends no more to a segment; one that holds nothing goes.
    fn seal(&mut self, key: Key, now: Now) {
        if self.segments.get(&key).is_some_and(|s| s.total.batches == 0) {
            return self.forget(key);
        }
        // counted: an error strands what it concerns, and the batches stay in the queue
        let _unconfirmed = self.sync_one(key, now, true);
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What could not be made durable is still in the queue, and can be read; a crash may lose it.
    pub fn sync(&mut self, now: Now) -> io::Result<()> {
        let open: Vec<Key> = self.segments.values().filter(|s| s.unsynced_since().is_some()).map(|s| s.key).collect();
        for key in open {
            self.sync_one(key, now, false)?;
        }
        self.check_stranded()
    }

    fn check_stranded(&self) -> io::Result<()> {
        if self.segments.values().any(|s| s.stranded) {
            return Err(io::Error::other("the disk did not confirm some batches, and they could not be written elsewhere"));
        }
        Ok(())
    }

    fn sync_one(&mut self, key: Key, now: Now, seal: bool) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(&key) else { return Ok(()) };
        let done = if seal { segment.seal() } else { segment.sync() };
        let Err(first) = done else { return Ok(()) };
        self.io_errors = self.io_errors.saturating_add(1);
        tracing::warn!(error = %first, "the spool's disk reports an error; writing again what it did not confirm");
        self.rescue(key, now)
    }

    /// After an error of `fsync`: what it did not confirm goes to a new file.
    fn rescue(&mut self, key: Key, now: Now) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(&key) else { return Ok(()) };
        let Some(synced) = segment.synced() else { return Ok(()) };
        let unconfirmed = segment.stop_writing();
        let Some(first) = unconfirmed.front().map(|item| item.seq) else { return Ok(()) };
        let copy = if first == key.first { key.copy.saturating_add(1) } else { 0 };
        let again = Key { epoch: key.epoch, first, copy };
        let unread = segment.next_unread();
        let rewritten = self.rewrite(again, &unconfirmed, unread, now);
        if let Err(e) = rewritten {
            self.io_errors = self.io_errors.saturating_add(1);
            if let Some(segment) = self.segments.get_mut(&key) {
                segment.stranded = true;
            }
            self.segments.remove(&again);
            self.remove_file(&again.to_string());
            return Err(e);
        }
        let Some(segment) = self.segments.get_mut(&key) else { return Ok(()) };
        segment.retreat(&self.fs, synced);
        if segment.total.batches == 0 {
            self.forget(key);
        }
        self.current = None;
        Ok(())
    }

    /// Writes these batches to a new file; of those before `unread` the reader knows already.
    fn rewrite(&mut self, key: Key, items: &VecDeque<Item>, unread: BatchSeq, now: Now) -> io::Result<()> {
        self.create(key, now)?;
        let Some(segment) = self.segments.get_mut(&key) else { return Ok(()) };
        for item in items {
            segment.append(std::slice::from_ref(item), now.mono).1?;
            if item.seq < unread {
                segment.consume();
            }
        }
        segment.sync()
    }

    /// The next batch; `None` when everything was read. Look at [`Self::take_lost`] afterwards.
    pub fn read(&mut self) -> Option<Item> {
        loop {
            let key = self.head()?;
            let segment = self.segments.get_mut(&key)?;
            match segment.next(&self.fs) {
                Step::Batch(item) => return Some(item),
                Step::Hole(range) => self.lost.push(Lost { epoch: key.epoch, range }),
                Step::End => self.current = None,
            }
            self.settle(key);
        }
    }

    /// The segment to read from: of the oldest segments of each epoch, the one created first.
    fn head(&mut self) -> Option<Key> {
        if let Some(key) = self.current
            && self.segments.get(&key).is_some_and(Segment::has_unread)
        {
            return Some(key);
        }
        let mut heads: Vec<(i64, Key)> = Vec::new();
        for segment in self.segments.values().filter(|s| s.has_unread()) {
            if heads.last().is_none_or(|(_, key)| key.epoch != segment.key.epoch) {
                heads.push((segment.created_ns, segment.key));
            }
        }
        self.current = heads.into_iter().min().map(|(_, key)| key);
        self.current
    }

    /// Everything of `epoch` up to `seq` is stored elsewhere; returns how much of it had not been read.
    pub fn ack(&mut self, epoch: Epoch, seq: BatchSeq) -> Tally {
        let from = Key { epoch, first: BatchSeq(0), copy: 0 };
        let to = Key { epoch, first: seq, copy: u8::MAX };
        let keys: Vec<Key> = self.segments.range((Bound::Included(from), Bound::Included(to))).map(|(key, _)| *key).collect();
        let mut skipped = Tally::default();
        if keys.is_empty() && !self.acked.contains_key(&epoch) {
            // nothing of it was ever here
            return skipped;
        }
        let known = self.acked.entry(epoch).or_default();
        if seq > *known {
            *known = seq;
            self.hint_due = true;
        }
        for key in keys {
            let Some(segment) = self.segments.get_mut(&key) else { continue };
            let (tally, holes) = segment.skip(&self.fs, seq);
            skipped = skipped.plus(tally);
            self.lost.extend(holes.into_iter().map(|range| Lost { epoch, range }));
            self.settle(key);
        }
        while self.acked.len() > ack::EPOCHS {
            self.acked.pop_first();
        }
        skipped
    }

    /// Lets go of a segment that was read, acknowledged and sealed.
    fn settle(&mut self, key: Key) {
        let through = self.acked.get(&key.epoch).copied().unwrap_or_default();
        let Some(segment) = self.segments.get(&key) else { return };
        if segment.is_open() || segment.has_unread() || segment.last > through {
            return;
        }
        if !segment.damaged {
            self.forget(key);
            return;
        }
        let bytes = segment.disk_bytes;
        self.segments.remove(&key);
        let name = key.to_string();
        match self.fs.quarantine(&name) {
            Ok(()) => {
                tracing::warn!(file = %name, "a damaged segment of the spool was put into quarantine");
                self.quarantined.push_back((name, bytes));
            }
            Err(_) => self.remove_file(&name),
        }
        while self.quarantined.len() > QUARANTINED {
            self.drop_quarantined();
        }
    }

    fn forget(&mut self, key: Key) {
        self.segments.remove(&key);
        self.current = self.current.filter(|current| *current != key);
        self.remove_file(&key.to_string());
    }

    fn remove_file(&mut self, name: &str) {
        // what stays is found by the next start, and was acknowledged or counted
        if self.fs.remove(name).is_err() {
            self.io_errors = self.io_errors.saturating_add(1);
        }
    }

    fn drop_quarantined(&mut self) -> bool {
        let Some((name, _)) = self.quarantined.pop_front() else { return false };
        if self.fs.remove_quarantined(&name).is_err() {
            self.io_errors = self.io_errors.saturating_add(1);
        }
        true
    }

    /// Room for `need` bytes, within our bound and beside the reserve of the file system.
    fn make_room(&mut self, need: u64) -> Result<(), Refused> {
        loop {
            if self.taken().saturating_add(need) > self.config.max_bytes || self.segments.len() >= SEGMENTS {
                self.give_way(None)?;
                continue;
            }
            if let Some(left) = self.granted.checked_sub(need) {
                self.granted = left;
                return Ok(());
            }
            let Space { free, total } = self.fs.space().map_err(Refused::Io)?;
            let wanted = self.config.min_free.of(total).saturating_add(need);
            match free.checked_sub(wanted) {
                Some(left) => self.granted = need.saturating_add(left.min(GRANT)),
                None => self.give_way(Some(wanted.saturating_sub(free)))?,
            }
        }
    }

    /// Removes the oldest file, where that is allowed and helps: it must not cost everything and still not be enough.
    fn give_way(&mut self, short: Option<u64>) -> Result<(), Refused> {
        let helps = short.is_none_or(|short| short <= self.bytes());
        if helps && (self.drop_quarantined() || (self.config.when_full == SpoolFull::DropOldest && self.drop_oldest())) {
            return Ok(());
        }
        Err(Refused::Full)
    }

    /// Gives up the oldest segment; false when there is none.
    fn drop_oldest(&mut self) -> bool {
        let mut heads: Vec<(i64, Key)> = Vec::new();
        for segment in self.segments.values() {
            if heads.last().is_none_or(|(_, key)| key.epoch != segment.key.epoch) {
                heads.push((segment.created_ns, segment.key));
            }
        }
        let Some(segment) = heads.into_iter().min().and_then(|(_, key)| self.segments.get(&key)) else { return false };
        let (key, packets, from, to) = (segment.key, segment.unread().packets, segment.next_unread(), segment.last);
        if packets > 0 {
            let range = DroppedRange { from, to, packets, reason: DropReason::SpoolFull };
            self.lost.push(Lost { epoch: key.epoch, range });
        }
        self.granted = 0;
        self.given_way.push((key.epoch, to));
        self.forget(key);
        // it is said to be lost from here on: it must not be there again after a loss of power
        if self.fs.sync().is_err() {
            self.io_errors = self.io_errors.saturating_add(1);
        }
        true
    }

    /// What a timer does: group commit, age of segments, the hint.
    pub fn tick(&mut self, now: Now) {
        let (sync_after, mut due, mut old) = (self.config.sync_after, Vec::new(), Vec::new());
        for segment in self.segments.values().filter(|s| s.is_open()) {
            if segment.age(now.mono) >= SEGMENT_AGE && segment.total.batches > 0 {
                old.push(segment.key);
            } else if segment.unsynced_since().is_some_and(|since| now.mono.saturating_sub(since) >= sync_after) {
                due.push(segment.key);
            }
        }
        for (keys, seal) in [(old, true), (due, false)] {
            for key in keys {
                // counted; the batches stay in the queue
                let _unconfirmed = self.sync_one(key, now, seal);
                self.settle(key);
            }
        }
        if self.hint_due && now.mono.saturating_sub(self.hint_at) >= HINT_EVERY {
            self.write_hint(now);
        }
    }

    /// When [`Self::tick`] has something to do, on the clock of [`Now::mono`].
    pub fn due(&self) -> Option<Duration> {
        let syncs =
            self.segments.values().filter_map(Segment::unsynced_since).map(|since| since.saturating_add(self.config.sync_after));
        let hint = self.hint_due.then(|| self.hint_at.saturating_add(HINT_EVERY));
        syncs.chain(hint).min()
    }

    fn write_hint(&mut self, now: Now) {
        self.hint_at = now.mono;
        self.hint_due = false;
        if let Err(e) = self.fs.replace(ack::NAME, &ack::encode(&self.acked))
            && !is_full(&e)
        {
            self.io_errors = self.io_errors.saturating_add(1);
        }
    }

    /// Seals every segment, removes those that are done, and writes the hint.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn close(&mut self, now: Now) -> io::Result<()> {
        let open: Vec<Key> = self.segments.values().filter(|s| s.is_open()).map(|s| s.key).collect();
        for key in open {
            self.seal(key, now);
            self.settle(key);
        }
        self.write_hint(now);
        self.check_stranded()
    }

    /// Batches that were lost since the last call.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Segments that were given up for want of room since the last call: everything of an epoch up to a batch, what had been read of it too.
    pub fn take_given_way(&mut self) -> Vec<(Epoch, BatchSeq)> {
        std::mem::take(&mut self.given_way)
    }

    /// Packets on disk in batches of `epoch` behind `seq`, read or not. Reads a segment through, where `seq` is in the middle of it.
    pub fn packets_after(&self, epoch: Epoch, seq: BatchSeq) -> u64 {
        let of_it = self.segments.values().filter(|s| s.key.epoch == epoch && s.last > seq);
        of_it.map(|s| s.packets_after(&self.fs, seq)).fold(0, u64::saturating_add)
    }

    /// Whether a segment holds this batch's place.
    pub fn covers(&self, epoch: Epoch, seq: BatchSeq) -> bool {
        self.segments.values().any(|s| s.key.epoch == epoch && s.key.first <= seq && seq <= s.last)
    }

    /// Epochs of which something is not read.
    pub fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.segments.values().filter(|s| s.has_unread()).map(|s| s.key.epoch).collect();
        epochs.dedup();
        epochs
    }

    /// Bytes on disk, with the footers that open segments will have.
    fn taken(&self) -> u64 {
        let open = self.segments.values().filter(|s| s.is_open()).count() as u64;
        self.bytes().saturating_add(open.saturating_mul(FOOTER as u64))
    }

    fn bytes(&self) -> u64 {
        let segments = self.segments.values().map(|s| s.disk_bytes);
        segments.chain(self.quarantined.iter().map(|(_, bytes)| *bytes)).sum()
    }

    /// The figures now.
    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.bytes(),
            unread: self.segments.values().fold(Tally::default(), |sum, s| sum.plus(s.unread())),
            segments: self.segments.len(),
            oldest_ns: self.segments.values().map(|s| s.created_ns).min().unwrap_or(0),
            io_errors: self.io_errors,
        }
    }
}
