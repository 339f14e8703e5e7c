//! The filters of a processor: one versioned set, and what each hunter is to hold of it.
//!
//! Promises: the version grows by one with every change and with nothing else; a change is whole or not at all; what a
//! hunter gets is exactly what is meant for it and what it announced to understand.
//!
//! Disabled filters are kept but never handed out: older hunters match them regardless of the flag.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::{BadFilter, Filter, FilterKind, MAX_BPF_FILTERS, MAX_FILTERS};

/// Why a change was refused; the store is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Not well formed.
    #[error("filter {id:?}: {reason}")]
    Bad {
        /// Which filter.
        id: String,
        /// What is wrong with it.
        #[source]
        reason: BadFilter,
    },
    /// Two filters under one id.
    #[error("filter {0:?} is given twice")]
    Duplicate(String),
    /// Over [`MAX_FILTERS`].
    #[error("{0} filters, the limit is {MAX_FILTERS}")]
    TooMany(usize),
    /// Over [`MAX_BPF_FILTERS`].
    #[error("{0} bpf filters, the limit is {MAX_BPF_FILTERS}")]
    TooManyBpf(usize),
    /// Nothing has this id.
    #[error("no filter {0:?}")]
    Unknown(String),
}

/// What a change did; ids in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The version after it; that before it, if nothing changed.
    pub version: u64,
    /// Ids that are new.
    pub added: Vec<String>,
    /// Ids whose filter is another.
    pub modified: Vec<String>,
    /// Ids that are gone.
    pub removed: Vec<String>,
}

impl Change {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// The versioned set.
#[derive(Clone, Debug, Default)]
pub struct Store {
    version: u64,
    /// Shared with whoever was handed one: a hundred thousand filters for a hundred hunters are held once.
    filters: BTreeMap<String, Arc<Filter>>,
}

impl Store {
    /// No filters. `version` is where counting starts: a restarted processor starts above what its hunters may hold.
    pub fn new(version: u64) -> Self {
        Self { version, filters: BTreeMap::new() }
    }

    /// The version of the set.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Every filter, disabled ones too, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.filters.values()
    }

    /// How many filters there are, disabled ones too.
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Makes `filters` the set.
    ///
    /// # Errors
    /// [`StoreError`] for the first filter that cannot stand; nothing changes then.
    pub fn replace_all(&mut self, filters: Vec<Filter>) -> Result<Change, StoreError> {
        let mut next = BTreeMap::new();
        for filter in filters {
            check(&filter)?;
            if let Some(twice) = next.insert(filter.id.clone(), Arc::new(filter)) {
                return Err(StoreError::Duplicate(twice.id.clone()));
            }
        }
        self.swap(next)
    }

    /// Adds a filter or puts it in the place of the one with its id.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot stand; nothing changes then.
    pub fn upsert(&mut self, filter: Filter) -> Result<Change, StoreError> {
        check(&filter)?;
        let before = self.filters.get(&filter.id);
        let mut change = Change { version: self.version, ..Change::default() };
        match before {
            Some(before) if **before == filter => return Ok(change),
            Some(_) => change.modified.push(filter.id.clone()),
            None => change.added.push(filter.id.clone()),
        }
        let total = self.filters.len().saturating_add(usize::from(before.is_none()));
        let bpf = self.filters.values().filter(|f| f.kind == FilterKind::Bpf && f.id != filter.id).count();
        check_totals(total, bpf.saturating_add(usize::from(filter.kind == FilterKind::Bpf)))?;
        self.filters.insert(filter.id.clone(), Arc::new(filter));
        self.version = self.version.saturating_add(1);
        change.version = self.version;
        Ok(change)
    }

    /// Takes a filter out.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if there is none with this id.
    pub fn delete(&mut self, id: &str) -> Result<Change, StoreError> {
        let gone = self.filters.remove(id).ok_or_else(|| StoreError::Unknown(id.to_owned()))?;
        self.version = self.version.saturating_add(1);
        Ok(Change { version: self.version, removed: vec![gone.id.clone()], ..Change::default() })
    }

    /// What a hunter is to hold, by id: enabled, meant for it, and of a kind it announced. A hunter that announced nothing
    /// understands `bpf` and `ip_address`.
    pub fn for_hunter<'s>(&'s self, id: &'s str, capabilities: &[String]) -> impl Iterator<Item = &'s Arc<Filter>> + 's {
        let announced: Vec<FilterKind> = if capabilities.is_empty() {
            vec![FilterKind::Bpf, FilterKind::IpAddress]
        } else {
            capabilities.iter().filter_map(|name| FilterKind::parse(name)).collect()
        };
        self.iter().filter(move |f| f.enabled && announced.contains(&f.kind) && f.targets(id))
    }

    fn swap(&mut self, mut next: BTreeMap<String, Arc<Filter>>) -> Result<Change, StoreError> {
        check_totals(next.len(), next.values().filter(|f| f.kind == FilterKind::Bpf).count())?;
        let mut change = Change::default();
        for (id, filter) in &mut next {
            match self.filters.get(id) {
                None => change.added.push(id.clone()),
                Some(before) if before != filter => change.modified.push(id.clone()),
                // whoever holds it goes on holding the same
                Some(before) => *filter = Arc::clone(before),
            }
        }
        change.removed = self.filters.keys().filter(|id| !next.contains_key(*id)).cloned().collect();
        if !change.is_empty() {
            self.filters = next;
            self.version = self.version.saturating_add(1);
        }
        change.version = self.version;
        Ok(change)
    }
}

fn check(filter: &Filter) -> Result<(), StoreError> {
    filter.validate().map_err(|reason| StoreError::Bad { id: filter.id.clone(), reason })
}

fn check_totals(filters: usize, bpf: usize) -> Result<(), StoreError> {
    if filters > MAX_FILTERS {
        Err(StoreError::TooMany(filters))
    } else if bpf > MAX_BPF_FILTERS {
        Err(StoreError::TooManyBpf(bpf))
    } else {
        Ok(())
    }
}

/// One step from what a hunter holds to what it is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// New for this hunter.
    Add(Arc<Filter>),
    /// Another filter under an id it holds.
    Modify(Arc<Filter>),
    /// No longer for this hunter; the filter as it held it.
    Delete(Arc<Filter>),
}

/// The steps from `old` to `new`, both by id: deletions last, so that a hunter that applies them one by one never stands without
/// filters in between.
pub fn diff(old: &[Arc<Filter>], new: &[Arc<Filter>]) -> Vec<Update> {
    let (mut updates, mut gone) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.id.cmp(&after.id),
        };
        let before = if order == Ordering::Greater { None } else { old.next() };
        let after = if order == Ordering::Less { None } else { new.next() };
        match (before, after) {
            (Some(before), None) => gone.push(Update::Delete(Arc::clone(before))),
            (None, Some(after)) => updates.push(Update::Add(Arc::clone(after))),
            (Some(before), Some(after)) if !Arc::ptr_eq(before, after) && before != after => {
                updates.push(Update::Modify(Arc::clone(after)));
            }
            (Some(_) | None, Some(_) | None) => {}
        }
    }
    updates.append(&mut gone);
    updates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, pattern: &str) -> Filter {
        Filter::new(id, FilterKind::SipUser, pattern)
    }

    fn for_one(id: &str, hunter: &str) -> Filter {
        Filter { target_hunters: vec![hunter.into()], ..user(id, "alice") }
    }

    fn ids<'f>(filters: impl Iterator<Item = &'f Arc<Filter>>) -> Vec<&'f str> {
        filters.map(|f| f.id.as_str()).collect()
    }

    fn list(filters: Vec<Filter>) -> Vec<Arc<Filter>> {
        filters.into_iter().map(Arc::new).collect()
    }

    fn voip() -> Vec<String> {
        super::super::capabilities(super::super::Mode::Voip).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_version_grows_with_every_change_and_only_then() {
        let mut store = Store::new(7);

        assert_eq!(store.replace_all(vec![user("a", "x"), user("b", "y")]).unwrap().version, 8);
        let change = store.replace_all(vec![user("b", "z"), user("c", "y")]).unwrap();
        assert_eq!(change, Change { version: 9, added: vec!["c".into()], modified: vec!["b".into()], removed: vec!["a".into()] });
        assert_eq!(store.replace_all(vec![user("c", "y"), user("b", "z")]).unwrap(), Change { version: 9, ..Change::default() });
        assert!(store.upsert(user("b", "z")).unwrap().is_empty());
        assert_eq!(store.upsert(user("b", "w")).unwrap().modified, ["b"]);
        assert_eq!(store.delete("b").unwrap().version, 11);
        assert_eq!(store.delete("b"), Err(StoreError::Unknown("b".into())));
        assert_eq!(store.version(), 11);
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let mut store = Store::new(0);
        store.upsert(user("a", "x")).unwrap();

        assert!(store.replace_all(vec![user("b", "y"), user("c", "")]).is_err());
        assert_eq!(store.replace_all(vec![user("b", "y"), user("b", "z")]), Err(StoreError::Duplicate("b".into())));
        assert!(store.upsert(user("", "y")).is_err());
        let bpf = (0..257).map(|n| Filter::new(n.to_string(), FilterKind::Bpf, "udp")).collect();
        assert_eq!(store.replace_all(bpf), Err(StoreError::TooManyBpf(257)));

        assert_eq!((store.version(), store.len()), (1, 1));
    }

    #[test]
    fn a_hunter_gets_what_is_meant_for_it_and_what_it_understands() {
        let mut store = Store::new(0);
        let off = Filter { enabled: false, ..user("off", "x") };
        let url = Filter::new("url", FilterKind::HttpUrl, "/login*");
        let net = Filter::new("net", FilterKind::IpAddress, "192.0.2.0/24");
        store.replace_all(vec![user("all", "x"), for_one("mine", "h1"), for_one("yours", "h2"), off, url, net]).unwrap();

        assert_eq!(ids(store.for_hunter("h1", &voip())), ["all", "mine", "net"]);
        assert_eq!(ids(store.for_hunter("h1", &[])), ["net"]);
        assert_eq!(ids(store.for_hunter("h1", &["http_path".into()])), ["url"]);
        assert_eq!(ids(store.for_hunter("h1", &["no_such_kind".into()])), Vec::<&str>::new());
    }

    #[test]
    fn a_hunter_no_longer_targeted_gets_a_deletion() {
        let mut store = Store::new(0);
        store.replace_all(vec![user("f", "x"), user("g", "x")]).unwrap();
        let before: Vec<_> = store.for_hunter("h2", &voip()).cloned().collect();

        store.upsert(Filter { target_hunters: vec!["h1".into()], ..user("f", "x") }).unwrap();

        let after: Vec<_> = store.for_hunter("h2", &voip()).cloned().collect();
        assert_eq!(diff(&before, &after), [Update::Delete(user("f", "x").into())]);
    }

    #[test]
    fn a_difference_leads_from_one_list_to_the_other_with_deletions_last() {
        let old = list(vec![user("a", "1"), user("b", "2"), user("c", "3")]);
        let new = list(vec![user("b", "2"), user("c", "4"), user("d", "5")]);

        let updates = diff(&old, &new);

        let [modify, add, delete] = [user("c", "4"), user("d", "5"), user("a", "1")].map(Arc::new);
        assert_eq!(updates, [Update::Modify(modify), Update::Add(add), Update::Delete(delete)]);
    }
}
