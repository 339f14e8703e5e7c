//! The slow steps: beginning and closing calls, creating, flushing, rotating and parking their files.

use std::sync::Arc;

use smallvec::SmallVec;

use super::shares::Full;
use super::{Call, CallFiles, CallNo, ClosedCall, Dirty, Hand, Part, RUN, Track, weight_of};
use crate::packet::{LinkType, Timestamp};
use crate::record::file::{CaptureFile, Shape};
use crate::record::name::{Parties, file_name};
use crate::record::{FileFact, Format, MAX_LINKS, Packet, RecordError, json};

/// Emptied blocks kept for the next file.
const MAX_SPARE: usize = 64;

impl CallFiles {
    /// Makes a call known and chooses its stem, one that no file has.
    pub(super) fn begin(&mut self, parties: &Parties<'_>, first: &Packet<'_>) -> Result<CallNo, RecordError> {
        let hunter = first.origin.hunter;
        // one for its room; one more, where an earlier process knew more
        for _ in 0..2 {
            if self.calls.len() < self.cfg.max_calls.max(1) || !self.evict(Full::Calls, hunter)? {
                break;
            }
        }
        let wanted = self.cfg.pattern.stem(first.ts, parties);
        let mut stem = wanted.clone();
        for n in 2_u32.. {
            if !self.is_taken(&stem)? {
                break;
            }
            stem = format!("{wanted}-{n}");
            self.counters.renamed = self.counters.renamed.saturating_add(u64::from(n == 2));
        }
        if self.dir.is_watched() {
            self.names.add_record(json::name(&stem));
        }
        let (no, id) = (self.next_no, Arc::<[u8]>::from(parties.call_id));
        self.next_no = no.saturating_add(1);
        self.know(
            no,
            Call {
                id,
                stem: stem.into(),
                tracks: SmallVec::new(),
                packets: 0,
                last: self.now,
                closed_at: None,
                hunter: hunter.into(),
                bytes: 0,
                elsewhere: 0,
                changed: false,
            },
        );
        self.counters.calls = self.counters.calls.saturating_add(1);
        Ok(no)
    }

    pub(super) fn know(&mut self, no: CallNo, mut call: Call) {
        let done = call.tracks.iter().flat_map(|t| &t.done).map(weight_of);
        let runs = call.tracks.iter().map(|t| t.runs.len().saturating_mul(RUN));
        let names = [call.id.len(), call.stem.len()];
        call.bytes = names.into_iter().chain(done).chain(runs).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_add(call.bytes);
        self.ids.insert(call.id.clone(), no);
        let last = call.last;
        call.hunter = self.shares.add(&call.hunter, call.bytes);
        let hunter = Arc::clone(&call.hunter);
        self.calls.insert(no, call);
        let Some(share) = self.shares.get_mut(&hunter) else { return };
        share.begun.push_back((no, last));
        if share.is_littered() {
            share.begun.retain(|(no, _)| self.calls.contains_key(no));
        }
    }

    fn is_taken(&self, stem: &str) -> Result<bool, RecordError> {
        let format = self.cfg.pattern.format();
        for part in [Part::Sip, Part::Rtp, Part::Merged] {
            let name = file_name(stem, part.tag(), None, 0, format);
            if self.names.has(&name) || self.dir.exists(&name)? {
                return Ok(true);
            }
        }
        self.dir.exists(&json::name(stem))
    }

    /// So many bytes are known of calls elsewhere: where that, with what is known here, is too much, one is forgotten as if there were too many. False when it is not, or when there
    /// is none; else take note ([`Self::poll_closed`]) and ask again.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn evict_for(&mut self, known_bytes: usize) -> Result<bool, RecordError> {
        Ok(known_bytes.saturating_add(self.bytes) > self.cfg.max_known_bytes && self.evict(Full::Bytes, "")?)
    }

    /// Where more calls are known than may be, as after a start with fewer, one goes as above. False when it does not, or when there is none.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn evict_beyond(&mut self) -> Result<bool, RecordError> {
        Ok(self.calls.len() > self.cfg.max_calls.max(1) && self.evict(Full::Calls, "")?)
    }

    /// So many bytes are known elsewhere of this call.
    pub fn note_known(&mut self, call_id: &[u8], bytes: usize) {
        let Some(call) = self.ids.get(call_id).and_then(|no| self.calls.get_mut(no)) else { return };
        let before = std::mem::replace(&mut call.elsewhere, bytes);
        self.shares.weigh(&call.hunter, before, bytes);
    }

    /// Of the hunter that has most of what is full, or of the one that `wants` room where it has as much: forgets the call that was closed first;
    /// where none is closed, closes and forgets the one that has been silent for longest. False when there is none.
    fn evict(&mut self, full: Full, wants: &str) -> Result<bool, RecordError> {
        let Some(hunter) = self.shares.who_goes(full, wants) else { return Ok(false) };
        while let Some((no, at)) = self.shares.get_mut(&hunter).and_then(|s| s.closed.pop_front()) {
            if let Some(call) = self.calls.get(&no).filter(|c| c.closed_at == Some(at)) {
                self.forgotten.push_back(Arc::clone(&call.id));
                self.forget(no);
                self.counters.evicted_closed = self.counters.evicted_closed.saturating_add(1);
                return Ok(true);
            }
        }
        while let Some((no, since)) = self.shares.get_mut(&hunter).and_then(|s| s.begun.pop_front()) {
            let Some(call) = self.calls.get(&no) else { continue };
            if call.last > since {
                // it has had packets since it was put here: once more round for each such time, at most
                let again = (no, call.last);
                if let Some(share) = self.shares.get_mut(&hunter) {
                    share.begun.push_back(again);
                }
                continue;
            }
            match self.close_no(no) {
                Ok(closed) => {
                    let history = self.calls.get(&no).map_or_else(Vec::new, |call| self.history_of(call));
                    self.finished.extend(closed.map(|c| ClosedCall { history, ..c }));
                }
                Err(e) => {
                    if let Some(share) = self.shares.get_mut(&hunter) {
                        share.begun.push_front((no, since));
                    }
                    return Err(e);
                }
            }
            self.forget(no);
            self.counters.evicted = self.counters.evicted.saturating_add(1);
            return Ok(true);
        }
        Ok(false)
    }

    /// More is known of a call.
    fn grow(&mut self, no: CallNo, bytes: usize) {
        if let Some(call) = self.calls.get_mut(&no) {
            call.grow(bytes, &mut self.bytes, &mut self.shares);
        }
    }

    pub(super) fn forget(&mut self, no: CallNo) {
        if let Some(call) = self.calls.remove(&no) {
            self.bytes = self.bytes.saturating_sub(call.bytes);
            self.shares.remove(&call.hunter, call.bytes.saturating_add(call.elsewhere));
            self.ids.remove(&call.id);
            if self.dir.is_watched() {
                self.gone.push((&*call.id).into());
            }
        }
    }

    /// Begins the first file of a part (and, for pcap, link type) of a call.
    pub(super) fn add_track(&mut self, no: CallNo, part: Part, link: LinkType) -> Result<(), RecordError> {
        let Some(call) = self.calls.get(&no) else { return Ok(()) };
        let sibling = call.tracks.iter().any(|t| t.part == part);
        if call.tracks.iter().filter(|t| t.part == part).count() >= MAX_LINKS {
            return Err(RecordError::LinkTypes { path: self.dir.said(&call.stem), max: MAX_LINKS });
        }
        let (file, index) = self.create(no, part, sibling.then_some(link), link, 0)?;
        let Some(call) = self.calls.get_mut(&no) else { return Ok(()) };
        let at = call.tracks.len();
        call.tracks.push(Track {
            part,
            link,
            sibling,
            index,
            file,
            done: Vec::new(),
            runs: Vec::new(),
            dirty: false,
            turn: 0,
            hand: Hand::Unlisted,
            unannounced: false,
        });
        self.counters.siblings = self.counters.siblings.saturating_add(u64::from(sibling));
        self.fresh(no, at);
        Ok(())
    }

    /// Creates the file with the first free index from `index` on.
    fn create(
        &mut self,
        no: CallNo,
        part: Part,
        in_name: Option<LinkType>,
        link: LinkType,
        index: u32,
    ) -> Result<(CaptureFile, u32), RecordError> {
        self.make_room();
        let Some(call) = self.calls.get(&no) else {
            return Err(RecordError::Unsafe { path: self.dir.path().into(), reason: "its call is not known" });
        };
        let format = self.cfg.pattern.format();
        let comment = match format {
            Format::Pcap => String::new(),
            Format::PcapNg => format!("Call-ID: {}", String::from_utf8_lossy(&call.id).escape_debug()),
        };
        let shape = Shape { format, link, block: self.cfg.block_bytes, hash: true, comment: &comment };
        for index in index.. {
            let name = file_name(&call.stem, part.tag(), in_name, index, format);
            if self.dir.is_watched() {
                if self.names.has(&name) || self.dir.exists(&name)? {
                    continue;
                }
                self.counters.files = self.counters.files.saturating_add(1);
                return Ok((CaptureFile::named(&name, shape), index));
            }
            if let Some(file) = CaptureFile::create(&self.dir, &name, shape)? {
                self.counters.files = self.counters.files.saturating_add(1);
                return Ok((file, index));
            }
        }
        Err(RecordError::Unsafe { path: self.dir.said(&call.stem), reason: "every name for its next file is taken" })
    }

    /// Accounts for a file just created: its descriptor and its header.
    fn fresh(&mut self, no: CallNo, at: usize) {
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return };
        self.pending = self.pending.saturating_add(track.file.block().pending());
        track.mark(&mut self.dirty, no, at, self.now);
        if track.file.is_fresh() {
            self.expect_name(no, at);
        } else {
            self.opened(no, at);
        }
    }

    fn opened(&mut self, no: CallNo, at: usize) {
        self.open_count = self.open_count.saturating_add(1);
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return };
        if std::mem::replace(&mut track.hand, Hand::Hot) == Hand::Unlisted {
            self.open.push_back((no, at));
        }
        if self.open.len() > self.open_count.saturating_mul(2).saturating_add(64) {
            let calls = &mut self.calls;
            self.open.retain(|(no, at)| {
                let Some(track) = calls.get_mut(no).and_then(|c| c.tracks.get_mut(*at)) else { return false };
                if !track.file.is_open() {
                    track.hand = Hand::Unlisted;
                }
                track.file.is_open()
            });
        }
    }

    /// Closes descriptors until one more fits: second chance, which needs no bookkeeping per packet. What a parked file
    /// has pending stays in memory until it is due.
    fn make_room(&mut self) {
        while self.open_count >= self.cfg.max_open_files.max(1) {
            let Some((no, at)) = self.open.pop_front() else { break };
            let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { continue };
            if track.file.is_open() && track.hand == Hand::Hot {
                track.hand = Hand::Cold;
                self.open.push_back((no, at));
                continue;
            }
            track.hand = Hand::Unlisted;
            if track.file.is_open() {
                track.file.park();
                self.open_count = self.open_count.saturating_sub(1);
            }
        }
    }

    /// Writes what one file has pending.
    pub(super) fn flush(&mut self, no: CallNo, at: usize) -> Result<(), RecordError> {
        let Some(track) = self.calls.get(&no).and_then(|c| c.tracks.get(at)) else { return Ok(()) };
        let (was_open, was_fresh) = (track.file.is_open(), track.file.is_fresh());
        if track.unannounced {
            self.announce()?;
        }
        if !was_open {
            self.make_room();
        }
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return Ok(()) };
        let pending = track.file.block().pending();
        let new_name: Option<Box<str>> = was_fresh.then(|| track.file.name().into());
        let done = track.file.flush(&self.dir);
        if let Some(name) = new_name.filter(|_| !track.file.is_fresh() || matches!(done, Ok(false))) {
            self.names.settle(&name);
        }
        let opened = !was_open && track.file.is_open();
        if opened {
            self.counters.reopened = self.counters.reopened.saturating_add(u64::from(!was_fresh));
            self.opened(no, at);
        }
        if !done? {
            self.displace(no, at)?;
            return self.flush(no, at);
        }
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return Ok(()) };
        if track.hand == Hand::Cold {
            track.hand = Hand::Hot;
        }
        track.dirty = false;
        track.turn = track.turn.wrapping_add(1);
        self.pending = self.pending.saturating_sub(pending);
        let empty = std::mem::take(track.file.pending_mut());
        if self.spare.len() < MAX_SPARE && empty.capacity() > 0 && empty.capacity() <= self.cfg.block_bytes.saturating_mul(2) {
            self.spare.push(empty);
        }
        Ok(())
    }

    /// Goes on in the next file because the current one vanished or changed under us.
    fn displace(&mut self, no: CallNo, at: usize) -> Result<(), RecordError> {
        let Some(track) = self.calls.get(&no).and_then(|c| c.tracks.get(at)) else { return Ok(()) };
        let (part, link, sibling) = (track.part, track.link, track.sibling);
        let (bytes, packets, name) = (track.file.block().written(), track.file.packets_written(), track.file.name().to_owned());
        let (file, index) = self.create(no, part, sibling.then_some(link), link, track.index.saturating_add(1))?;
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return Ok(()) };
        let before = track.file.block().pending();
        track.file.rehome(file);
        track.index = index;
        self.pending = self.pending.saturating_add(track.file.block().pending()).saturating_sub(before);
        if bytes > 0 {
            let done = FileFact { name, bytes, packets, sha256: None };
            let weight = weight_of(&done);
            track.done.push(done);
            self.grow(no, weight);
        }
        self.counters.displaced = self.counters.displaced.saturating_add(1);
        if self.dir.is_watched() {
            self.expect_name(no, at);
        } else {
            self.opened(no, at);
        }
        Ok(())
    }

    /// Finishes a full file and begins the next.
    pub(super) fn rotate(&mut self, no: CallNo, at: usize) -> Result<(), RecordError> {
        self.flush(no, at)?;
        let Some(track) = self.calls.get(&no).and_then(|c| c.tracks.get(at)) else { return Ok(()) };
        let sha256 = track.file.sha256(&self.dir)?;
        let fact = track.facts(sha256).last();
        let (part, link, in_name) = (track.part, track.link, track.sibling.then_some(track.link));
        let (file, index) = self.create(no, part, in_name, link, track.index.saturating_add(1))?;
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return Ok(()) };
        if track.file.is_open() {
            self.open_count = self.open_count.saturating_sub(1);
        }
        (track.file, track.index) = (file, index);
        let weight = fact.as_ref().map_or(0, weight_of);
        track.done.extend(fact);
        self.grow(no, weight);
        self.counters.rotated = self.counters.rotated.saturating_add(1);
        self.fresh(no, at);
        Ok(())
    }

    /// Writes the oldest pending files while `due`.
    pub(super) fn write_dirty(&mut self, due: impl Fn(&Dirty) -> bool) -> Result<(), RecordError> {
        while let Some(d) = self.dirty.front().copied() {
            let track = self.calls.get(&d.call).and_then(|c| c.tracks.get(d.track));
            if track.is_some_and(|t| t.dirty && t.turn == d.turn) {
                if !due(&d) {
                    break;
                }
                self.flush(d.call, d.track)?;
            }
            self.dirty.pop_front();
        }
        Ok(())
    }

    pub(super) fn close_no(&mut self, no: CallNo) -> Result<Option<ClosedCall>, RecordError> {
        let tracks = self.calls.get(&no).map_or(0, |c| c.tracks.len());
        for at in 0..tracks {
            self.flush(no, at)?;
        }
        let Some(call) = self.calls.get_mut(&no) else { return Ok(None) };
        let (call_id, stem) = (call.id.clone(), call.stem.to_string());
        let mut files = Vec::with_capacity(tracks);
        for track in &call.tracks {
            files.extend(track.facts(track.file.sha256(&self.dir)?));
        }
        for track in call.tracks.iter_mut().filter(|t| t.file.is_open()) {
            track.file.park();
            self.open_count = self.open_count.saturating_sub(1);
        }
        if call.closed_at.is_none() {
            if self.dir.is_watched() {
                call.note_change(no, &mut self.changed);
            }
            call.closed_at = Some(self.now);
            self.note_closed(no, self.now);
        }
        Ok(Some(ClosedCall { call_id, stem, files, history: Vec::new() }))
    }

    pub(super) fn note_closed(&mut self, no: CallNo, at: Timestamp) {
        if let Some(share) = self.calls.get(&no).and_then(|call| self.shares.get_mut(&call.hunter)) {
            share.closed.push_back((no, at));
        }
    }
}
