//! New files of calls, where somebody is told of their names before they are made: a file begins in memory and is made once
//! its name is remembered, with the others of its group or, where it cannot wait, at once.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use super::{CallFiles, CallNo};
use crate::record::RecordError;
use crate::record::dir::{Entries, Names};

/// Names that are chosen and not used yet.
#[derive(Debug, Default)]
pub(super) struct NewNames {
    /// Of files that are not made.
    chosen: HashSet<Box<str>>,
    /// Those nobody has been told of.
    untold: Vec<Box<str>>,
    /// Files that wait, with the group they were told with; without one, they are untold.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    group: Option<u64>,
    call: CallNo,
    track: usize,
}

impl NewNames {
    /// The name of a record; its stem is kept free by its call's first file.
    pub(super) fn add_record(&mut self, name: String) {
        self.untold.push(name.into());
    }

    /// The file of this name is made, or will not be.
    pub(super) fn settle(&mut self, name: &str) {
        self.chosen.remove(name);
    }

    /// Whether a file will have this name.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.chosen.is_empty() && self.chosen.contains(name)
    }
}

impl CallFiles {
    /// From here on `names` is told of files before they are made, and [`Self::durable`] says when that is remembered.
    pub fn watch(&mut self, names: Arc<dyn Names>) {
        self.dir.watch(names);
    }

    /// A file is to be made once its name is remembered.
    pub(super) fn expect_name(&mut self, no: CallNo, at: usize) {
        let Some(track) = self.calls.get_mut(&no).and_then(|c| c.tracks.get_mut(at)) else { return };
        track.unannounced = true;
        let name: Box<str> = track.file.name().into();
        self.names.chosen.insert(name.clone());
        self.names.untold.push(name);
        self.names.waiting.push_back(Waiting { group: None, call: no, track: at });
    }

    /// Names to be remembered with the group of this number.
    pub fn take_names(&mut self, group: u64) -> Vec<Box<str>> {
        let names = std::mem::take(&mut self.names.untold);
        if !names.is_empty() {
            self.names.waiting.iter_mut().rev().take_while(|w| w.group.is_none()).for_each(|w| w.group = Some(group));
        }
        names
    }

    /// The groups up to this one are durable: their new files are made.
    ///
    /// # Errors
    /// Retryable; nothing accepted is lost.
    pub fn durable(&mut self, group: u64) -> Result<(), RecordError> {
        while let Some(w) = self.names.waiting.front().filter(|w| w.group.is_some_and(|g| g <= group)) {
            let (call, track) = (w.call, w.track);
            self.allow(call, track);
            self.flush(call, track)?;
            self.names.waiting.pop_front();
        }
        Ok(())
    }

    fn allow(&mut self, call: CallNo, track: usize) {
        if let Some(t) = self.calls.get_mut(&call).and_then(|c| c.tracks.get_mut(track)) {
            t.unannounced = false;
        }
    }

    /// Has every chosen name remembered now: one file cannot wait.
    pub(super) fn announce(&mut self) -> Result<(), RecordError> {
        self.dir.announce(&self.names.untold)?;
        self.names.untold.clear();
        for w in std::mem::take(&mut self.names.waiting) {
            self.allow(w.call, w.track);
        }
        Ok(())
    }

    /// Whether the record of a call may be written: its name is remembered.
    pub fn may_save(&self, call_id: &[u8]) -> bool {
        self.call(call_id).is_none_or(|c| c.tracks.iter().all(|t| !t.unannounced))
    }

    /// Files written to since the last call, and the directory if any were created.
    ///
    /// # Errors
    /// [`RecordError::Io`]; ask again.
    pub fn take_written(&mut self) -> Result<(BTreeSet<Box<str>>, Option<Entries>), RecordError> {
        let created = self.dir.take_created()?;
        Ok((self.dir.take_written(), created))
    }
}
