//! The hunter's side of the control plane: filters in, facts out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::capture::Libpcap;
use crate::filter::{self, CompileOptions, Dialect, Filter, FilterKind, FilterSet, MediaPolicy};
use crate::packet::{Endpoint, FiveTuple, IpProto};
use crate::telemetry::{ProcessSampler, Said};
use crate::uplink::{Control, FilterChange, Health, HeartbeatFacts, LinkState, RegistrationFacts, Road, WireFilter};

use super::inspect::Shared;

/// What never changes while the hunter runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Host name or address shown by monitors.
    pub hostname: String,
    /// Interfaces or files.
    pub interfaces: Vec<String>,
    /// Which kinds of filters can be applied.
    pub mode: filter::Mode,
    /// Bytes of batches that fit into memory.
    pub max_memory: u64,
    /// What the whole process may take.
    pub memory_limit: u64,
    /// Unique for this process start.
    pub instance: u64,
    /// Epochs of the capture threads.
    pub epochs: Vec<crate::batch::Epoch>,
    /// What earlier runs lost before their inspection.
    pub earlier: Vec<crate::spool::RunRecord>,
}

/// The hunter as the uplink sees it.
pub struct Plane {
    facts: Facts,
    shared: Arc<Shared>,
    options: CompileOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Filters named on this machine: always there.
    local: Vec<Filter>,
    /// The processor's filters, by id.
    remote: BTreeMap<String, Filter>,
    /// What could not be applied.
    errors: Vec<(String, String)>,
    version: u64,
    sampler: ProcessSampler,
}

impl Plane {
    /// With the filters named on this machine; they are in force at once, the processor's join them.
    pub fn new(facts: Facts, shared: Arc<Shared>, options: CompileOptions, local: Vec<Filter>) -> Self {
        let plane = Self { facts, shared, options, state: Mutex::default() };
        if !local.is_empty() {
            plane.set_local(local);
        }
        plane
    }

    /// Puts other filters named on this machine in force, beside the processor's.
    pub fn set_local(&self, local: Vec<Filter>) {
        let mut state = self.state.lock();
        state.local = local;
        self.compile(&mut state);
    }

    /// Compiles what is there and puts it in force, whole.
    fn compile(&self, state: &mut State) {
        let mut all: Vec<Filter> = state.local.clone();
        all.extend(state.remote.values().cloned());
        let options = CompileOptions { version: state.version, ..self.options.clone() };
        let (mut set, mut errors) = FilterSet::compile(&all, &options);
        // here, since a capture thread that compiles does not capture
        errors.extend(set.compile_bpf(&Libpcap));
        state.errors.retain(|(id, _)| id.is_empty());
        for e in &errors {
            tracing::warn!(filter = %Said(&e.id), reason = %Said(&e.reason), "filter cannot be applied");
        }
        state.errors = errors.into_iter().map(|e| (e.id, e.reason)).collect();
        let filters = set.len();
        self.shared.filters.swap(Arc::new(set));
        tracing::info!(filters, refused = state.errors.len(), version = state.version, "filters applied");
    }
}

impl Control for Plane {
    fn registration(&self) -> RegistrationFacts {
        RegistrationFacts {
            hostname: self.facts.hostname.clone(),
            interfaces: self.facts.interfaces.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            filter_types: filter::capabilities(self.facts.mode).into_iter().map(str::to_owned).collect(),
            max_buffer_bytes: self.facts.max_memory,
            instance: self.facts.instance,
            epochs: self.facts.epochs.clone(),
            earlier: self.facts.earlier.clone(),
            ..RegistrationFacts::default()
        }
    }

    fn apply(&self, change: FilterChange) {
        let mut state = self.state.lock();
        let more = match change {
            FilterChange::Replace { filters, version, legacy } => {
                state.remote.clear();
                filters.into_iter().filter_map(|f| read(f, legacy)).for_each(|f| keep(&mut state.remote, f));
                state.version = version;
                false
            }
            FilterChange::Put { filter, version, more, legacy } => {
                if let Some(f) = read(filter, legacy) {
                    keep(&mut state.remote, f);
                }
                state.version = version.max(state.version);
                more
            }
            FilterChange::Remove { id, version, more } => {
                state.remote.remove(&id);
                state.version = version.max(state.version);
                more
            }
        };
        // a group is swapped when its last member has come
        if !more {
            self.compile(&mut state);
        }
    }

    fn heartbeat(&self) -> HeartbeatFacts {
        let total = self.shared.report();
        let (backlog, drops) = (&total.backlog, total.drops);
        let mut state = self.state.lock();
        let process = state.sampler.sample();
        let set = self.shared.filters.current();
        HeartbeatFacts {
            health: if total.degraded { Health::Warning } else { Health::Healthy },
            captured: total.engine.captured,
            matched: total.engine.forwarded,
            forwarded: backlog.acked_packets,
            drops,
            buffer_bytes: backlog.in_memory_bytes,
            active_filters: u32::try_from(set.len()).unwrap_or(u32::MAX),
            cpu_percent: process.cpu_percent,
            rss_bytes: process.rss_bytes,
            memory_limit: self.facts.memory_limit,
            kernel_received: total.kernel.received,
            kernel_dropped: total.kernel.kernel_dropped,
            interface_dropped: total.kernel.interface_dropped,
            in_ring: total.kernel.in_ring,
            held: total.engine.held,
            spool_bytes: backlog.spool_bytes,
            spool_batches: backlog.on_disk_batches,
            filter_version: set.version(),
            filter_errors: state.errors.clone(),
        }
    }

    fn urgent(&self) -> u64 {
        let r = self.shared.report();
        let lost = r.kernel.kernel_dropped.saturating_add(r.kernel.interface_dropped);
        lost.wrapping_mul(2).wrapping_add(u64::from(r.degraded))
    }

    fn link(&self, link: LinkState) {
        let mut to = self.shared.link.lock();
        let own = match link {
            LinkState::Up { target, sockets, .. } => {
                to.last = Some(target.clone());
                to.processor = Some(target);
                sockets.into_iter().map(own_tuple).collect()
            }
            LinkState::Down => {
                to.processor = None;
                Vec::new()
            }
        };
        drop(to);
        self.shared.set_own(own);
    }

    fn roads(&self, roads: Vec<Road>) {
        self.shared.link.lock().roads = roads;
    }
}

fn own_tuple((local, remote): (SocketAddr, SocketAddr)) -> FiveTuple {
    let end = |a: SocketAddr| Endpoint { ip: a.ip().to_canonical().into(), port: a.port() };
    FiveTuple { src: end(local), dst: end(remote), proto: IpProto::TCP }
}

/// A filter from the wire; an unknown kind is said and left out, since a newer processor may know more than we do.
/// Remembers a filter of the processor: as many as may be in force, and one more, which is told as one that cannot be.
fn keep(remote: &mut BTreeMap<String, Filter>, f: Filter) {
    if remote.len() <= filter::MAX_FILTERS || remote.contains_key(&f.id) {
        remote.insert(f.id.clone(), f);
    }
}

fn read(f: WireFilter, legacy: bool) -> Option<Filter> {
    let Some(kind) = FilterKind::from_wire(f.kind) else {
        tracing::warn!(filter = %Said(&f.id), kind = f.kind, "filter of a kind unknown here; left out");
        return None;
    };
    Some(Filter {
        id: f.id,
        kind,
        pattern: f.pattern,
        target_hunters: f.target_hunters,
        enabled: f.enabled,
        description: f.description,
        media: MediaPolicy::parse(&f.media).unwrap_or_default(),
        dialect: if legacy { Dialect::Legacy } else { Dialect::Native },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_sends_filters_without_end_fills_no_memory() {
        let mut remote = BTreeMap::new();

        for n in 0..filter::MAX_FILTERS + 5000 {
            keep(&mut remote, Filter::new(n.to_string(), FilterKind::SipUser, "x"));
        }
        keep(&mut remote, Filter::new("7", FilterKind::SipUser, "y"));

        assert_eq!((remote.len(), remote["7"].pattern.as_str()), (filter::MAX_FILTERS + 1, "y"));
    }
}
