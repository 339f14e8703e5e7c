//! The filters in force and how hunters learn of them: each subscription compares what its hunter holds with what it should hold.
//!
//! There is no queue of updates that could overflow: a slow hunter finds, whenever it reads on, the difference to the newest set.
//!
//! Promises: what hunters hold, and the steps from there to what they are to hold, are in memory once for all hunters of which they are true;
//! a hunter has one subscription, an earlier one ends; of a hunter that is not registered nothing is remembered.

mod shared;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

pub use self::shared::List;
use self::shared::{Held, Shared, Steps, Words};
use crate::capture::Libpcap;
use crate::filter::{self, Change, Filter, FilterKind, MediaPolicy, Store, Update};
use crate::wire::management::{self as wire, FilterUpdate, FilterUpdateType};

/// Ids listed in one audit line.
const LISTED: usize = 100;
/// Bytes of filters in the answer to a registration; old hunters receive 10 MiB at most, ours 64.
const GIVEN_MAX: usize = 60 << 20;
const GIVEN_MAX_LEGACY: usize = 8 << 20;
/// Bytes around one filter in a message.
const PREFIX_MAX: usize = 8;
/// Number of the filters in the answer to a registration, and in the answer to whoever asks for them.
const IN_REGISTRATION: u32 = 4;
const IN_ANSWER: u32 = 1;

/// Bytes of the lists of filters that are told at once, where a process may take `limit` (0: nobody has said): a sixteenth of it.
fn told_max(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit / 16 }
}

/// Why a filter file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterFileError {
    /// Not readable.
    #[error("cannot read filter file {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Readable, but wrong: every mistake with its line.
    #[error("{0}")]
    Wrong(String),
}

/// Reads a filter file.
///
/// # Errors
/// [`FilterFileError`].
pub fn read_file(path: &Path) -> Result<Vec<Filter>, FilterFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FilterFileError::Read { path: path.to_owned(), source })?;
    filter::file::parse_with(&text, &Libpcap).map_err(|e| FilterFileError::Wrong(e.in_file(&path.display().to_string())))
}

/// A hunter as its filters see it: what it is to hold, and in whose words.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// Its id.
    pub id: String,
    /// The kinds it announced.
    pub capabilities: Vec<String>,
    /// It speaks our extensions.
    pub extended: bool,
}

impl Subscriber {
    fn knows_uri(&self) -> bool {
        self.capabilities.iter().any(|c| FilterKind::parse(c) == Some(FilterKind::SipUri))
    }

    /// What its words depend on.
    fn words(&self, field: u32) -> Words {
        Words { field, extended: self.extended, knows_uri: self.extended || self.knows_uri() }
    }

    /// A filter in words it understands, and whether it then selects what was asked for and nothing more.
    fn tell(&self, f: &Filter) -> (wire::Filter, bool) {
        if self.extended {
            return (to_wire(f), true);
        }
        let told = filter::to_legacy(f, self.knows_uri());
        (wire::Filter { r#type: told.kind.wire(), pattern: told.pattern, ..to_wire(f) }, told.exact)
    }
}

/// What a hunter holds.
#[derive(Debug)]
struct Remembered {
    /// Its subscription, while there is one, ends with this.
    follows: Option<watch::Sender<()>>,
    /// Tells the later from the earlier.
    turn: u64,
    /// From its registration, which it surely has; else from a subscription that ended, of which the last words may be lost.
    given: bool,
    filters: Held,
}

/// The versioned set and everybody who follows it.
#[derive(Debug)]
pub struct Distribution {
    store: RwLock<Store>,
    /// The version it began with.
    first: u64,
    version: watch::Sender<u64>,
    /// What each registered hunter holds while it is not subscribed.
    held: Mutex<HashMap<String, Remembered>>,
    shared: Mutex<Shared>,
    /// Bytes of lists that are told at once.
    told_max: u64,
    turn: AtomicU64,
}

impl Distribution {
    /// Counting versions from `version`.
    pub fn new(version: u64) -> Self {
        Self {
            store: RwLock::new(Store::new(version)),
            first: version,
            version: watch::Sender::new(version),
            held: Mutex::default(),
            shared: Mutex::default(),
            told_max: told_max(crate::telemetry::memory::read().limit),
            turn: AtomicU64::new(0),
        }
    }

    /// Makes `filters` the set; one audit line.
    ///
    /// # Errors
    /// Which filter cannot stand; nothing changes then.
    pub fn replace(&self, filters: Vec<Filter>, who: &str) -> Result<Change, FilterFileError> {
        let change = self.store.write().replace_all(filters).map_err(|e| FilterFileError::Wrong(e.to_string()))?;
        if !change.is_empty() {
            tracing::info!(
                target: "audit",
                who,
                version = change.version,
                added = listed(&change.added),
                modified = listed(&change.modified),
                removed = listed(&change.removed),
                "filters changed"
            );
            self.version.send_replace(change.version);
        }
        Ok(change)
    }

    /// The version in force.
    pub fn version(&self) -> u64 {
        self.store.read().version()
    }

    /// Every version there was, up to that in force.
    pub fn versions(&self) -> RangeInclusive<u64> {
        self.first..=self.version()
    }

    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.store.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.store.read().is_empty()
    }

    /// Every filter, for monitors.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: others are told too many other lists, or this one is longer than an answer may be.
    pub fn all(&self) -> Result<List, Status> {
        let all = self.shared.lock().held(self.store.read().iter().cloned().collect());
        let words = Words { field: IN_ANSWER, extended: true, knows_uri: true };
        whole(self.tell_list(&all, words, GIVEN_MAX, to_wire)?, &all)
    }

    /// A list as a field of an answer, as far as it fits into `room` bytes.
    fn tell_list(&self, of: &Held, words: Words, room: usize, tell: impl Fn(&Filter) -> wire::Filter) -> Result<List, Status> {
        let encode = || {
            let (mut bytes, mut filters) = (Vec::new(), 0_usize);
            for f in of.iter().map(|f| tell(f)) {
                if bytes.len().saturating_add(f.encoded_len()).saturating_add(PREFIX_MAX) > room {
                    break;
                }
                prost::encoding::message::encode(words.field, &f, &mut bytes);
                filters = filters.saturating_add(1);
            }
            bytes.shrink_to_fit();
            (bytes, filters)
        };
        let told = self.shared.lock().told(of, words, self.told_max, encode);
        told.ok_or_else(|| Status::resource_exhausted("too many other lists of filters are on their way to others; try again"))
    }

    fn wanted(&self, s: &Subscriber) -> (u64, Held) {
        let store = self.store.read();
        let wanted = store.for_hunter(&s.id, &s.capabilities).cloned().collect();
        (store.version(), self.shared.lock().held(wanted))
    }

    /// What an old hunter is to select, with the version, and whether it cannot say all of that and selects more.
    pub fn meant(&self, s: &Subscriber) -> (u64, Vec<Filter>, bool) {
        let (version, wanted) = self.wanted(s);
        let told: Vec<_> = wanted.iter().map(|f| (f, filter::to_legacy(f, s.knows_uri()))).collect();
        let narrows = told.iter().any(|(_, t)| !t.exact);
        (version, told.iter().map(|(f, t)| filter::meant_of_legacy(f, t)).collect(), narrows)
    }

    /// What a hunter is to hold, in its words.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn for_hunter(&self, s: &Subscriber) -> Result<List, Status> {
        let (_, wanted) = self.wanted(s);
        whole(self.tell_list(&wanted, s.words(IN_ANSWER), GIVEN_MAX, |f| s.tell(f).0)?, &wanted)
    }

    /// Of all filters, or of one hunter's, those that may be seen.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: they do not fit into one answer.
    pub fn granted(&self, hunter: Option<&Subscriber>, may: impl Fn(&Filter) -> bool) -> Result<Vec<wire::Filter>, Status> {
        let store = self.store.read();
        let told: Vec<wire::Filter> = match hunter {
            Some(s) => store.for_hunter(&s.id, &s.capabilities).filter(|f| may(f)).map(|f| s.tell(f).0).collect(),
            None => store.iter().filter(|f| may(f)).map(|f| to_wire(f)).collect(),
        };
        let bytes = told.iter().map(|f| f.encoded_len().saturating_add(PREFIX_MAX)).fold(0, usize::saturating_add);
        let text = || format!("{} filters do not fit into one answer", told.len());
        if bytes <= GIVEN_MAX { Ok(told) } else { Err(Status::resource_exhausted(text())) }
    }

    /// The first of a hunter's filters for monitors, as far as they fit into `room` bytes, and how many it has in all.
    pub fn shown(
        &self,
        s: &Subscriber,
        most: usize,
        room: &mut usize,
        granted: impl Fn(&str) -> bool,
    ) -> (Vec<wire::Filter>, usize) {
        let (mut shown, mut all) = (Vec::new(), 0_usize);
        for f in self.store.read().for_hunter(&s.id, &s.capabilities).filter(|f| granted(&f.id)) {
            all = all.saturating_add(1);
            if shown.len() < most {
                let f = to_wire(f);
                if let Some(left) = room.checked_sub(f.encoded_len()) {
                    *room = left;
                    shown.push(f);
                }
            }
        }
        (shown, all)
    }

    /// What a hunter is to hold, remembered as given: its subscription starts from there. What does not fit into one message
    /// comes with the subscription.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn give(&self, s: &Subscriber) -> Result<(u64, List), Status> {
        let (version, wanted) = self.wanted(s);
        let room = if s.extended { GIVEN_MAX } else { GIVEN_MAX_LEGACY };
        let list = self.tell_list(&wanted, s.words(IN_REGISTRATION), room, |f| s.tell(f).0)?;
        let filters = if list.filters == wanted.len() { wanted } else { wanted.iter().take(list.filters).cloned().collect() };
        let given = Remembered { follows: None, turn: self.turn(), given: true, filters };
        self.held.lock().insert(s.id.clone(), given);
        Ok((version, list))
    }

    /// Follows the set for one hunter, which was given something before and is not forgotten; its subscription from before ends.
    pub fn follow(self: &Arc<Self>, s: Subscriber) -> Following {
        let follows = watch::Sender::new(());
        let ended = WatchStream::from_changes(follows.subscribe());
        let mut held = self.held.lock();
        let remembered = held.get_mut(&s.id).map(|r| {
            r.follows = Some(follows);
            (std::mem::take(&mut r.given), std::mem::take(&mut r.filters))
        });
        drop(held);
        let (given, from) = remembered.unwrap_or_default();
        Following {
            changes: WatchStream::new(self.version.subscribe()),
            ended,
            // an old hunter expects the current set first, and finds repetitions harmless
            repeat: !s.extended || !given,
            set: Arc::clone(self),
            s,
            held: from,
            steps: Steps::default(),
            at: 0,
            version: 0,
            turn: self.turn(),
        }
    }

    /// A hunter is gone for good: what it holds is no longer of interest.
    pub fn forget(&self, id: &str) {
        self.held.lock().remove(id);
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// A list of which nothing is left out.
fn whole(list: List, of: &Held) -> Result<List, Status> {
    let missing = of.len().saturating_sub(list.filters);
    let text = || format!("{missing} of {} filters do not fit into one answer", of.len());
    if missing == 0 { Ok(list) } else { Err(Status::resource_exhausted(text())) }
}

/// Ids for an audit line, as many as a line can bear.
pub(super) fn listed(ids: &[String]) -> String {
    let shown = ids.get(..LISTED).unwrap_or(ids).join(",");
    match ids.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// One hunter's subscription.
pub struct Following {
    changes: WatchStream<u64>,
    /// The hunter has another.
    ended: WatchStream<()>,
    set: Arc<Distribution>,
    s: Subscriber,
    held: Held,
    /// The first answer is the whole set.
    repeat: bool,
    /// How it gets there, and how many of these steps were told.
    steps: Steps,
    at: usize,
    version: u64,
    turn: u64,
}

impl Stream for Following {
    type Item = Result<FilterUpdate, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if Pin::new(&mut self.ended).poll_next(cx).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            if let Some(told) = self.step() {
                return Poll::Ready(Some(Ok(told)));
            }
            match Pin::new(&mut self.changes).poll_next(cx) {
                Poll::Ready(Some(_)) => self.compare(),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Following {
    /// Queues the difference between what the hunter holds and what it should hold, as one group.
    fn compare(&mut self) {
        let (version, wanted) = self.set.wanted(&self.s);
        let repeat = std::mem::take(&mut self.repeat);
        let steps = self.set.shared.lock().steps(&self.held, &wanted, repeat);
        let new = steps.iter().filter_map(|u| match u {
            Update::Add(f) | Update::Modify(f) => Some(f),
            Update::Delete(_) => None,
        });
        let inexact = new.filter(|f| !self.s.tell(f).1).count();
        if inexact > 0 {
            tracing::warn!(hunter = %self.s.id, filters = inexact, "an old hunter cannot apply these filters exactly; it selects more");
        }
        (self.steps, self.at) = (steps, 0);
        self.version = version;
        self.held = wanted;
    }

    fn step(&mut self) -> Option<FilterUpdate> {
        let Some(update) = self.steps.get(self.at) else {
            self.steps = Steps::default();
            return None;
        };
        self.at = self.at.saturating_add(1);
        let more = self.at < self.steps.len();
        let (kind, filter) = match update {
            Update::Add(f) => (FilterUpdateType::UpdateAdd, f),
            Update::Modify(f) => (FilterUpdateType::UpdateModify, f),
            Update::Delete(f) => (FilterUpdateType::UpdateDelete, f),
        };
        Some(FilterUpdate { update_type: kind.into(), filter: Some(self.s.tell(filter).0), version: self.version, more })
    }
}

impl Drop for Following {
    /// A hunter that subscribes again without registering is told the whole set, and what went while it was away.
    fn drop(&mut self) {
        let rest = self.steps.get(self.at..).unwrap_or_default();
        let mut filters = std::mem::take(&mut self.held);
        if !rest.is_empty() {
            let untold = rest.iter().filter_map(|update| match update {
                Update::Delete(f) => Some(f),
                Update::Add(_) | Update::Modify(_) => None,
            });
            let mut all: Vec<Arc<Filter>> = filters.iter().chain(untold).cloned().collect();
            all.sort_by(|a, b| a.id.cmp(&b.id));
            filters = self.set.shared.lock().held(all);
        }
        let mut held = self.set.held.lock();
        // one that has gone for good is not remembered again
        if let Some(r) = held.get_mut(&self.s.id).filter(|r| r.turn < self.turn) {
            *r = Remembered { follows: r.follows.take(), turn: self.turn, given: false, filters };
        }
    }
}

/// A filter for the wire.
fn to_wire(f: &Filter) -> wire::Filter {
    wire::Filter {
        id: f.id.clone(),
        r#type: f.kind.wire(),
        pattern: filter::to_native(f).into_owned(),
        target_hunters: f.target_hunters.clone(),
        enabled: f.enabled,
        description: f.description.clone(),
        media: if f.media == MediaPolicy::Full { String::new() } else { f.media.name().to_owned() },
    }
}

#[cfg(test)]
mod tests;
