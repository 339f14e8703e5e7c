//! The filters in force and how hunters learn of them: each subscription compares what its hunter holds with what it should hold.
//!
//! There is no queue of updates that could overflow: a slow hunter finds, whenever it reads on, the difference to the newest set.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use crate::filter::{self, Change, Filter, FilterKind, MediaPolicy, Store, Update};
use crate::wire::management::{self as wire, FilterUpdate, FilterUpdateType};

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
    filter::file::parse(&text).map_err(|e| FilterFileError::Wrong(e.in_file(&path.display().to_string())))
}

/// The versioned set and everybody who follows it.
#[derive(Debug)]
pub struct Distribution {
    store: RwLock<Store>,
    version: watch::Sender<u64>,
    /// What each hunter was given when it registered, until it subscribes.
    given: Mutex<HashMap<String, Vec<Filter>>>,
}

impl Distribution {
    /// Counting versions from `version`.
    pub fn new(version: u64) -> Self {
        Self { store: RwLock::new(Store::new(version)), version: watch::Sender::new(version), given: Mutex::default() }
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
                added = change.added.join(","),
                modified = change.modified.join(","),
                removed = change.removed.join(","),
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
    pub fn all(&self) -> Vec<Filter> {
        self.store.read().iter().cloned().collect()
    }

    /// What a hunter is to hold.
    pub fn for_hunter(&self, id: &str, capabilities: &[String]) -> (u64, Vec<Filter>) {
        let store = self.store.read();
        (store.version(), store.for_hunter(id, capabilities))
    }

    /// What a hunter is to hold, remembered as given: its subscription starts from there.
    pub fn give(&self, id: &str, capabilities: &[String]) -> (u64, Vec<Filter>) {
        let (version, filters) = self.for_hunter(id, capabilities);
        self.given.lock().insert(id.to_owned(), filters.clone());
        (version, filters)
    }

    /// Follows the set for one hunter.
    pub fn follow(self: &Arc<Self>, id: String, capabilities: Vec<String>, extended: bool) -> Following {
        let given = self.given.lock().remove(&id).unwrap_or_default();
        // an old hunter expects the current set first, and finds repetitions harmless
        let held = if extended { given } else { Vec::new() };
        Following {
            changes: WatchStream::new(self.version.subscribe()),
            set: Arc::clone(self),
            id,
            capabilities,
            held,
            queue: VecDeque::new(),
        }
    }
}

/// One hunter's subscription.
pub struct Following {
    changes: WatchStream<u64>,
    set: Arc<Distribution>,
    id: String,
    capabilities: Vec<String>,
    held: Vec<Filter>,
    queue: VecDeque<FilterUpdate>,
}

impl Stream for Following {
    type Item = Result<FilterUpdate, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(update)));
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
        let (version, wanted) = self.set.for_hunter(&self.id, &self.capabilities);
        let updates = filter::diff(&self.held, &wanted);
        let last = updates.len();
        for (n, update) in updates.into_iter().enumerate() {
            let (kind, filter) = match update {
                Update::Add(f) => (FilterUpdateType::UpdateAdd, f),
                Update::Modify(f) => (FilterUpdateType::UpdateModify, f),
                Update::Delete(f) => (FilterUpdateType::UpdateDelete, f),
            };
            let more = n.saturating_add(1) < last;
            self.queue.push_back(FilterUpdate { update_type: kind.into(), filter: Some(to_wire(&filter)), version, more });
        }
        self.held = wanted;
    }
}

/// A filter for the wire.
pub fn to_wire(f: &Filter) -> wire::Filter {
    wire::Filter {
        id: f.id.clone(),
        r#type: FilterKind::wire(f.kind),
        pattern: f.pattern.clone(),
        target_hunters: f.target_hunters.clone(),
        enabled: f.enabled,
        description: f.description.clone(),
        media: if f.media == MediaPolicy::Full { String::new() } else { f.media.name().to_owned() },
    }
}
