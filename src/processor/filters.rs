//! The filters in force and how hunters learn of them: each subscription compares what its hunter holds with what it should hold.
//!
//! There is no queue of updates that could overflow: a slow hunter finds, whenever it reads on, the difference to the newest set.

use std::collections::{HashMap, VecDeque};
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

/// Filters a hunter holds, by id.
type Held = Vec<Arc<Filter>>;

/// What a hunter holds.
#[derive(Debug)]
struct Remembered {
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
    version: watch::Sender<u64>,
    /// What each hunter holds while it is not subscribed.
    held: Mutex<HashMap<String, Remembered>>,
    turn: AtomicU64,
}

impl Distribution {
    /// Counting versions from `version`.
    pub fn new(version: u64) -> Self {
        Self {
            store: RwLock::new(Store::new(version)),
            version: watch::Sender::new(version),
            held: Mutex::default(),
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
        (store.version(), store.for_hunter(&s.id, &s.capabilities).cloned().collect())
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
        let (version, mut wanted) = self.wanted(s);
        let mut room = if s.extended { GIVEN_MAX } else { GIVEN_MAX_LEGACY };
        let mut told = Vec::with_capacity(wanted.len());
        for f in &wanted {
            let (f, _) = s.tell(f);
            let Some(left) = room.checked_sub(f.encoded_len().saturating_add(PREFIX_MAX)) else { break };
            room = left;
            told.push(f);
        }
        wanted.truncate(told.len());
        let given = Remembered { turn: self.turn(), given: true, filters: wanted };
        self.held.lock().insert(s.id.clone(), given);
        (version, told)
    }

    /// Follows the set for one hunter.
    pub fn follow(self: &Arc<Self>, s: Subscriber) -> Following {
        let remembered = self.held.lock().remove(&s.id);
        // an old hunter expects the current set first, and finds repetitions harmless
        let repeat = !s.extended || !remembered.as_ref().is_some_and(|r| r.given);
        Following {
            changes: WatchStream::new(self.version.subscribe()),
            set: Arc::clone(self),
            s,
            held: remembered.map(|r| r.filters).unwrap_or_default(),
            repeat,
            queue: VecDeque::new(),
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
    set: Arc<Distribution>,
    s: Subscriber,
    held: Held,
    /// The first answer is the whole set.
    repeat: bool,
    queue: VecDeque<(Update, bool)>,
    version: u64,
    turn: u64,
}

impl Stream for Following {
    type Item = Result<FilterUpdate, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some((update, more)) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(self.tell(update, more))));
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
        let mut updates = filter::diff(&self.held, &wanted);
        if std::mem::take(&mut self.repeat) {
            updates.retain(|u| matches!(u, Update::Delete(_)));
            updates.splice(..0, wanted.iter().map(|f| Update::Add(Arc::clone(f))));
        }
        let new = updates.iter().filter_map(|u| match u {
            Update::Add(f) | Update::Modify(f) => Some(f),
            Update::Delete(_) => None,
        });
        let inexact = new.filter(|f| !self.s.tell(f).1).count();
        if inexact > 0 {
            tracing::warn!(hunter = %self.s.id, filters = inexact, "an old hunter cannot apply these filters exactly; it selects more");
        }
        let last = updates.len();
        self.queue = (1..).map(|n: usize| n < last).zip(updates).map(|(more, update)| (update, more)).collect();
        self.version = version;
        self.held = wanted;
    }

    fn tell(&self, update: Update, more: bool) -> FilterUpdate {
        let (kind, filter) = match update {
            Update::Add(f) => (FilterUpdateType::UpdateAdd, f),
            Update::Modify(f) => (FilterUpdateType::UpdateModify, f),
            Update::Delete(f) => (FilterUpdateType::UpdateDelete, f),
        };
        FilterUpdate { update_type: kind.into(), filter: Some(self.s.tell(&filter).0), version: self.version, more }
    }
}

impl Drop for Following {
    /// A hunter that subscribes again without registering is told the whole set, and what went while it was away.
    fn drop(&mut self) {
        let mut filters = std::mem::take(&mut self.held);
        filters.extend(self.queue.drain(..).filter_map(|(update, _)| match update {
            Update::Delete(f) => Some(f),
            Update::Add(_) | Update::Modify(_) => None,
        }));
        filters.sort_by(|a, b| a.id.cmp(&b.id));
        let mut held = self.set.held.lock();
        if held.get(&self.s.id).is_none_or(|later| later.turn < self.turn) {
            held.insert(self.s.id.clone(), Remembered { turn: self.turn, given: false, filters });
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
}
