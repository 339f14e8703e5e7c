//! What an earlier process left, and how its files become what was stored.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::entry::{Entry, Extent, Place};
use super::log::{self, Log};
use super::{Again, Commit, CommitError, Durability};
use crate::processor::losses::Losses;
use crate::record::dir::{Access, Dir, MinFree, PART, sync_data};
use crate::record::losses::{HunterLosses, RunWord};
use crate::record::state::{self, Acked, Places, State};
use crate::record::unified::Length;
use crate::record::{RecordError, fault};
use crate::spool::{self, Disk, Item, SpoolError};

/// What a processor goes on with.
#[derive(Debug)]
pub struct Recovered {
    /// The checkpoint, with what was stored since.
    pub state: State,
    /// For the record branch.
    pub commit: Commit,
}

/// What the log says.
#[derive(Debug, Default)]
struct Found {
    /// Files that were made or may have been since the checkpoint.
    made: BTreeSet<(Place, String)>,
    extents: BTreeMap<(Place, String), u64>,
    /// What is stored of each hunter and epoch, those of the checkpoint among them.
    marks: BTreeMap<(String, u64), Acked>,
    /// The last commit, and the last entry.
    committed: u64,
    last: u64,
    /// Batches to be read again.
    batches: u64,
    since_commit: u64,
    /// Damaged entries, in packets.
    lost: u64,
    /// What hunters said of their runs.
    words: Vec<RunWord>,
}

impl Found {
    fn take(&mut self, seq: u64, entry: Entry) {
        self.last = seq;
        match entry {
            Entry::Batch(_) => self.since_commit = self.since_commit.saturating_add(1),
            Entry::Gone(_) => {}
            Entry::Word(word) => self.words.push(word),
            Entry::Start => self.since_commit = 0,
            Entry::Names { place, names } => {
                for name in names {
                    let key = (place, String::from(name));
                    self.extents.remove(&key);
                    self.made.insert(key);
                }
            }
            Entry::Disowned { place, name } => {
                self.made.remove(&(place, name));
            }
            Entry::Commit { marks, extents } => {
                self.committed = seq;
                self.batches = self.batches.saturating_add(std::mem::take(&mut self.since_commit));
                self.extents.extend(extents.into_iter().map(|Extent { place, name, bytes }| ((place, name), bytes)));
                for m in marks {
                    self.mark(m);
                }
            }
        }
    }

    fn mark(&mut self, m: Acked) {
        match self.marks.entry((m.hunter.clone(), m.epoch)) {
            Slot::Occupied(mut known) => known.get_mut().join(&m),
            Slot::Vacant(slot) => drop(slot.insert(m)),
        }
    }
}

/// Opens the state directory for this process alone, and makes the files in `places` what was stored.
///
/// # Errors
/// [`CommitError`], [`Stopped`](CommitError::Stopped) among them once `stopping` says so; then no file was changed, or what was changed is
/// as the next attempt wants it.
pub fn recover(
    dir: &Dir,
    durability: Durability,
    min_free: MinFree,
    places: Places,
    stopping: &AtomicBool,
) -> Result<Recovered, CommitError> {
    let root = dir.path();
    log::confirm(root, durability)?;
    // first of all, so that nobody else reads or changes what is there
    let mut log = Log::open(root, durability, min_free, 0)?;
    let known = State::load(dir)?;
    let had_state = known.is_some();
    let mut state = known.unwrap_or_default();
    let clean_before = state.clean || !had_state;
    let mut found = Found { committed: state.log, last: state.log, ..Found::default() };
    for m in std::mem::take(&mut state.acked) {
        found.mark(m);
    }
    let of = |place, lengths: &[Length]| lengths.iter().map(move |l| ((place, l.name.clone()), l.bytes)).collect::<Vec<_>>();
    found.extents.extend(of(Place::Unified, &state.unified));
    found.extents.extend(of(Place::Rotating, &state.rotating));
    let mut empty = true;
    found.lost = entries(root, state.log, &mut |seq, entry, _| {
        empty = false;
        found.take(seq, entry);
        go_on(stopping)
    })?;
    let nothing = empty && found.lost == 0;
    if !(had_state || nothing) {
        return Err(CommitError::NoState { path: log::path(root), state: dir.join(state::FILE_NAME) });
    }
    if !had_state {
        // a log may begin once there is something that it goes on from
        State { clean: true, ..State::default() }.save(dir, durability == Durability::Disk)?;
    }
    let wanted = state.places.calls.clone().filter(|_| found.batches > 0 && state.places.calls != places.calls);
    if let Some(wanted) = wanted {
        return Err(CommitError::Elsewhere { path: log::path(root), wanted, batches: found.batches });
    }
    if found.lost > 0 {
        tracing::error!(
            packets = found.lost,
            "the commit log is damaged; call packets in it are lost, and capture files may hold some packets twice"
        );
    }
    // where nothing was written after the checkpoint, what is longer was made so by somebody else
    if !(clean_before && empty) {
        restore_files(&state, &found, durability, stopping)?;
    }

    state.losses = heard_again(state.losses, &found.words);
    state.acked = std::mem::take(&mut found.marks).into_values().collect();
    let lengths = |wanted: Place| {
        let of = found.extents.iter().filter(move |((place, _), _)| *place == wanted);
        of.map(|((_, name), bytes)| Length { name: name.clone(), bytes: *bytes }).collect()
    };
    state.unified = if state.places.unified == places.unified { lengths(Place::Unified) } else { Vec::new() };
    log.set_last(found.last);
    let again = Again { state: root.into(), range: (found.committed > state.log).then_some((state.log, found.committed)) };
    if !(clean_before && empty) {
        tracing::info!(batches = found.batches, "the last process did not stop gracefully; going on from its commit log");
    }
    let commit = Commit { log, durability, places, again, tail: found.last > found.committed, state: root.into() };
    Ok(Recovered { state, commit })
}

/// What hunters had said by then: before anybody else may say more.
fn heard_again(known: Vec<HunterLosses>, words: &[RunWord]) -> Vec<HunterLosses> {
    let mut losses = Losses::default();
    losses.restore(known);
    for word in words {
        losses.take_again(word);
    }
    losses.snapshot()
}

fn go_on(stopping: &AtomicBool) -> Result<(), CommitError> {
    if stopping.load(Ordering::Acquire) { Err(CommitError::Stopped) } else { Ok(()) }
}

/// Every entry after `after`, in order, until `each` says no; how many packets of damaged ones are missing.
pub(super) fn entries(
    state: &Path,
    after: u64,
    each: &mut dyn FnMut(u64, Entry, Bytes) -> Result<(), CommitError>,
) -> Result<u64, CommitError> {
    let path = log::path(state);
    let at = path.clone();
    let disk = Disk::look(&path).map_err(|e| CommitError::spool(&path, e))?;
    let mut last = after;
    let read = |item: Item| -> Result<(), Either> {
        if item.seq.0 <= last {
            return Ok(());
        }
        last = item.seq.0;
        let (entry, body) = Entry::read(&item).map_err(Either::Commit)?;
        each(item.seq.0, entry, body).map_err(Either::Commit)
    };
    let listed = spool::list(&disk, true, read).map_err(|e| match e {
        Either::Spool(e) => CommitError::spool(&at, e),
        Either::Commit(e) => e,
    })?;
    let holes = listed.iter().flat_map(|l| &l.lost).filter(|l| l.range.to.0 > after);
    Ok(holes.map(|l| l.range.packets).fold(0, u64::saturating_add))
}

/// What ends a reading.
enum Either {
    Spool(SpoolError),
    Commit(CommitError),
}

impl From<SpoolError> for Either {
    fn from(e: SpoolError) -> Self {
        Self::Spool(e)
    }
}

/// Cuts files to what was stored and removes those of which nothing was.
fn restore_files(state: &State, found: &Found, durability: Durability, stopping: &AtomicBool) -> Result<(), CommitError> {
    let p = &state.places;
    for (place, path, access) in [
        (Place::Unified, &p.unified, Access::Sticky),
        (Place::Calls, &p.calls, Access::Private),
        (Place::Rotating, &p.rotating, Access::Private),
    ] {
        let Some(path) = path.as_ref().filter(|p| p.is_dir()) else { continue };
        let dir = Dir::open(path, access, MinFree::NONE)?;
        let mut removed = false;
        for (_, name) in found.made.iter().filter(|key| key.0 == place && !found.extents.contains_key(*key)) {
            removed = true;
            dir.remove(name)?;
            if place == Place::Calls {
                // a record that was about to be written
                dir.remove(&format!("{name}{PART}"))?;
            }
        }
        // the log may forget them once they cannot come back; an earlier start may have removed them and not come so far
        if removed && durability == Durability::Disk {
            dir.sync()?;
        }
        if place == Place::Calls {
            for track in state.calls.iter().flat_map(|c| &c.tracks) {
                go_on(stopping)?;
                cut(&dir, &track.current.name, track.current.bytes)?;
            }
        } else if found.lost == 0 {
            // a damaged log may have lost a length: what is there stays
            for ((_, name), bytes) in found.extents.iter().filter(|((at, _), _)| *at == place) {
                go_on(stopping)?;
                cut(&dir, name, *bytes)?;
            }
        }
    }
    Ok(())
}

/// Cuts a file back. One that is gone has got its name, or was removed by somebody.
fn cut(dir: &Dir, name: &str, bytes: u64) -> Result<(), RecordError> {
    let Some(file) = dir.open_existing(name)? else { return Ok(()) };
    let io = |doing| move |e| RecordError::io(doing, dir.join(name), e);
    let len = file.metadata().map_err(io("inspect"))?.len();
    if len < bytes {
        tracing::error!(file = %dir.join(name).display(), missing = bytes - len, "a file is shorter than what was acknowledged");
    }
    if len > bytes {
        fault::step();
        file.set_len(bytes).map_err(io("cut"))?;
        fault::cut(&file, bytes);
        if let Err(e) = sync_data(&file) {
            // who tries again finds it too long again
            let _longer = file.set_len(bytes.saturating_add(1));
            return Err(io("sync")(e));
        }
    }
    Ok(())
}
