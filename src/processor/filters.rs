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

use self::shared::{Held, Shared, Steps};
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
    pub fn all(&self) -> Vec<wire::Filter> {
        self.store.read().iter().map(|f| to_wire(f)).collect()
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
    pub fn for_hunter(&self, s: &Subscriber) -> Vec<wire::Filter> {
        self.wanted(s).1.iter().map(|f| s.tell(f).0).collect()
    }

    /// The first of a hunter's filters for monitors, as far as they fit into `room` bytes, and how many it has in all.
    pub fn shown(&self, s: &Subscriber, most: usize, room: &mut usize) -> (Vec<wire::Filter>, usize) {
        let (mut shown, mut all) = (Vec::new(), 0_usize);
        for f in self.store.read().for_hunter(&s.id, &s.capabilities) {
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
    pub fn give(&self, s: &Subscriber) -> (u64, Vec<wire::Filter>) {
        let (version, wanted) = self.wanted(s);
        let mut room = if s.extended { GIVEN_MAX } else { GIVEN_MAX_LEGACY };
        let mut told = Vec::with_capacity(wanted.len());
        for f in wanted.iter() {
            let (f, _) = s.tell(f);
            let Some(left) = room.checked_sub(f.encoded_len().saturating_add(PREFIX_MAX)) else { break };
            room = left;
            told.push(f);
        }
        let filters = if told.len() == wanted.len() { wanted } else { wanted.iter().take(told.len()).cloned().collect() };
        let given = Remembered { follows: None, turn: self.turn(), given: true, filters };
        self.held.lock().insert(s.id.clone(), given);
        (version, told)
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
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::filter::Dialect;

    fn user(id: &str, pattern: &str) -> Filter {
        Filter::new(id, FilterKind::SipUser, pattern)
    }

    fn hunter(id: &str, extended: bool) -> Subscriber {
        Subscriber { id: id.into(), capabilities: vec!["sip_user".into(), "sip_uri".into()], extended }
    }

    fn set(filters: Vec<Filter>) -> Arc<Distribution> {
        let set = Arc::new(Distribution::new(7));
        set.replace(filters, "test").unwrap();
        set
    }

    /// Everything the subscription has to say now: `+id`, `~id` or `-id`, and a bar at the end of each group.
    fn said(f: &mut Following) -> String {
        let mut out = String::new();
        while let Some(Some(Ok(u))) = f.next().now_or_never() {
            out.push(match u.update_type() {
                FilterUpdateType::UpdateAdd => '+',
                FilterUpdateType::UpdateModify => '~',
                FilterUpdateType::UpdateDelete => '-',
            });
            out.push_str(&u.filter.unwrap().id);
            if !u.more {
                out.push('|');
            }
        }
        out
    }

    #[test]
    fn a_subscription_goes_on_from_what_the_registration_gave() {
        let set = set(vec![user("a", "x"), user("b", "x")]);
        let h = hunter("h", true);
        assert_eq!(set.give(&h).0, 8);
        set.replace(vec![user("b", "y"), user("c", "x")], "test").unwrap();

        let mut f = set.follow(h);

        assert_eq!(said(&mut f), "~b+c-a|");
        set.replace(vec![Filter { target_hunters: vec!["other".into()], ..user("b", "y") }, user("c", "x")], "test").unwrap();
        assert_eq!(said(&mut f), "-b|");
        set.replace(vec![user("c", "x")], "test").unwrap();
        assert_eq!(said(&mut f), "", "what was not for this hunter is no concern of it");
    }

    #[test]
    fn an_old_hunter_gets_the_whole_set_first_and_what_went_since() {
        let set = set(vec![user("a", "x"), user("b", "x")]);
        let h = hunter("h", false);
        drop(set.give(&h));
        set.replace(vec![user("b", "x")], "test").unwrap();

        assert_eq!(said(&mut set.follow(h)), "+b-a|");
    }

    #[test]
    fn what_went_while_a_hunter_was_away_without_registering_again_is_gone_when_it_is_back() {
        for extended in [true, false] {
            let set = set(vec![user("a", "x"), user("b", "x")]);
            let h = hunter("h", extended);
            drop(set.give(&h));
            drop(said(&mut set.follow(h.clone())));
            set.replace(vec![user("b", "x")], "test").unwrap();

            assert_eq!(said(&mut set.follow(h)), "+b-a|");
        }
    }

    #[test]
    fn a_subscription_that_ends_late_does_not_hide_a_later_registration() {
        let set = set(vec![user("a", "x")]);
        let h = hunter("h", true);
        let old = set.follow(h.clone());
        set.replace(vec![user("b", "x")], "test").unwrap();
        drop(set.give(&h));

        drop(old);

        assert_eq!(said(&mut set.follow(h)), "");
    }

    #[test]
    fn old_hunters_are_told_in_their_words_and_monitors_in_ours() {
        let set = set(vec![user("a", "alice"), Filter { dialect: Dialect::Legacy, ..user("l", "lic") }]);
        let words = |f: Vec<wire::Filter>| f.into_iter().map(|f| (f.r#type, f.pattern)).collect::<Vec<_>>();

        assert_eq!(words(set.for_hunter(&hunter("h", false))), [(6, "alice@*".into()), (0, "lic".into())]);
        assert_eq!(words(set.for_hunter(&hunter("h", true))), [(0, "alice".into()), (0, "*lic*".into())]);
        assert_eq!(words(set.all()), [(0, "alice".into()), (0, "*lic*".into())]);
    }

    #[test]
    fn what_does_not_fit_into_the_answer_to_a_registration_comes_with_the_subscription() {
        let text = "x".repeat(4000);
        let filter = |n: i32| Filter { description: text.clone(), ..user(&n.to_string(), "x") };
        let set = set((0..4000).map(filter).collect());
        let h = hunter("h", false);

        let (_, given) = set.give(&h);

        assert!(given.len() > 2000 && given.len() < 2100, "{}", given.len());
        let rest = said(&mut set.follow(hunter("h", true)));
        assert_eq!(rest.matches('+').count(), 4000 - given.len());
    }

    #[test]
    fn monitors_see_as_much_as_fits() {
        let set = set((0..10).map(|n| user(&n.to_string(), "x")).collect());
        let mut room = 20;

        let (shown, all) = set.shown(&hunter("h", true), 5, &mut room);

        assert_eq!((all, shown.len() < 5, room < 10), (10, true, true));
    }

    #[test]
    fn what_many_hunters_hold_and_are_to_be_told_is_in_memory_once() {
        let set = set((0..100).map(|n| user(&format!("{n:03}"), "x")).collect());
        let h = |n: usize| hunter(&format!("h{n}"), true);
        let mut all: Vec<Following> = (0..50)
            .map(|n| {
                drop(set.give(&h(n)));
                set.follow(h(n))
            })
            .collect();
        set.replace((0..100).map(|n| user(&format!("{n:03}"), "y")).collect(), "test").unwrap();

        for f in &mut all {
            assert!(f.next().now_or_never().is_some());
        }

        let one = all[0].steps.as_ptr();
        assert_eq!(all[0].steps.len(), 100);
        assert!(all.iter().all(|f| f.steps.as_ptr() == one && f.held.as_ptr() == all[0].held.as_ptr()));
        drop(all);
        let held: Vec<_> = set.held.lock().values().map(|r| r.filters.as_ptr()).collect();
        assert_eq!((held.len(), held.iter().all(|p| *p == held[0])), (50, true));
    }

    #[test]
    fn a_hunter_has_one_subscription_and_the_one_before_ends() {
        let set = set(vec![user("a", "x")]);
        let h = hunter("h", true);
        drop(set.give(&h));
        let mut first = set.follow(h.clone());
        assert_eq!(said(&mut first), "");

        let mut second = set.follow(h);

        assert_eq!(first.next().now_or_never().map(|end| end.is_none()), Some(true), "it ends");
        assert_eq!(said(&mut second), "+a|");
        drop(first);
        set.replace(vec![user("b", "x")], "test").unwrap();
        assert_eq!(said(&mut second), "+b-a|");
    }

    #[test]
    fn nothing_is_remembered_of_a_hunter_that_is_gone() {
        let set = set(vec![user("a", "x")]);
        let mut all = Vec::new();
        for n in 0..100 {
            let h = hunter(&format!("h{n}"), true);
            drop(set.give(&h));
            all.push(set.follow(h));
        }
        (0..100).for_each(|n| set.forget(&format!("h{n}")));

        drop(all);

        assert_eq!(set.held.lock().len(), 0);
    }
}
