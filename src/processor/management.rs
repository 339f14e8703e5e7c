//! The management service: registration, heartbeats, filters, status. The rest answers UNIMPLEMENTED.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::data::remote_of;
use super::filters::Subscriber;
use super::pressure::Level;
use super::roster::{Hunter, Refusal, Roster};
use super::shared::{Job, Shared};
use super::upstream::UpstreamFigures;
use crate::net::{Grant, PeerInfo, Role, Sight};
use crate::packet::Timestamp;
use crate::record::losses::RunLosses;
use crate::telemetry::{Escaped, Said, clock};
use crate::wire::PEERS;
use crate::wire::management::{self as wire, management_service_server::ManagementService};
use crate::wire::management::{
    AuthTokenRequest, AuthorizationToken, AvailableHunter, ConnectedHunter, FilterDeleteRequest, FilterError, FilterRequest,
    FilterResponse, FilterUpdate, FilterUpdateResult, HunterHeartbeat, HunterRegistration, HunterStatus, ListHuntersRequest,
    ListHuntersResponse, ProcessorConfig, ProcessorFilterDeleteRequest, ProcessorFilterQuery, ProcessorFilterRequest,
    ProcessorHeartbeat, ProcessorRegistration, ProcessorRegistrationResponse, ProcessorStats, ProcessorStatus,
    RegistrationResponse, ResumePoint, StatusRequest, StatusResponse, TopologyRequest, TopologyResponse,
    TopologySubscribeRequest, TopologyUpdate,
};

/// Filters shown per hunter in a status.
const FILTERS_SHOWN: usize = 100;
/// Bytes of them over all hunters: the answer stays below what old monitors receive (4 MiB).
const FILTER_BYTES_SHOWN: usize = 2 << 20;
/// Filters a hunter could not apply that are said in the log, of one heartbeat.
const ERRORS_SAID: usize = 10;
/// Earlier runs whose losses a registration may tell.
const EARLIER: usize = 8;

/// At a stop, how often it is looked whether everything received is stored, and how many times at most.
const ACKS_LOOK: Duration = Duration::from_millis(10);
const ACKS_WAIT: u32 = 200;

/// The service on the processor's shared state.
pub struct Management {
    shared: Arc<Shared>,
}

impl Management {
    /// On the processor's shared state.
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The processor stops, or the peer's connection is old: an endless answer ends then, or it would keep its connection open until that
    /// is cut.
    fn stop(&self, peer: Option<PeerInfo>) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            tokio::select! {
                biased;
                () = shared.ending.wait() => {}
                () = PeerInfo::rolled(peer) => {}
            }
            // a hunter gives its connection up with the first of its streams that ends: acknowledgements on their way come before
            for _ in 0..ACKS_WAIT {
                if shared.counters.counts().in_queue == 0 {
                    break;
                }
                tokio::time::sleep(ACKS_LOOK).await;
            }
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ManagementService for Management {
    type HeartbeatStream = Answers<ProcessorHeartbeat>;
    type SubscribeFiltersStream = Answers<FilterUpdate>;
    type SubscribeTopologyStream = Answers<TopologyUpdate>;

    async fn register_hunter(&self, request: Request<HunterRegistration>) -> Result<Response<RegistrationResponse>, Status> {
        let (remote, peer) = remote_of(&request);
        let r = request.into_inner();
        self.shared.check_identity(peer.as_ref(), &r.hunter_id)?;
        let (id, epochs, instance, earlier) = (r.hunter_id.clone(), r.epochs.clone(), r.instance, r.earlier.clone());
        let registered = self.shared.roster.lock().register(r, remote, self.shared.clock.now());
        let subscriber = registered.map_err(|e| {
            tracing::warn!(hunter = %Escaped(id.as_bytes()), why = e.name(), "registration refused");
            match e {
                Refusal::Full(_) | Refusal::Crowded(_) => elsewhere(&e, self.shared.peers()),
                Refusal::Taken { .. } => Status::already_exists(e.to_string()),
                Refusal::BadId | Refusal::TooLarge(_) => Status::invalid_argument(e.to_string()),
            }
        })?;
        if instance != 0 {
            self.shared.note_run(&id, instance, &earlier);
        }
        let extended = subscriber.extended;
        let (filter_version, list) = self.shared.filters.give(&subscriber)?;
        let acked = self.shared.ingest.resume_points(&id, &epochs);
        tracing::info!(hunter = %id, extended, filters = list.filters, version = filter_version, "hunter registered");
        let mut answer = Response::new(RegistrationResponse {
            accepted: true,
            error: String::new(),
            assigned_id: id,
            // behind it
            filters: Vec::new(),
            config: Some(ProcessorConfig {
                batch_size: 64,
                batch_timeout_ms: 100,
                reconnect_interval_sec: 5,
                max_reconnect_attempts: 0,
                processor_id: self.shared.id.clone(),
            }),
            durable_acks: true,
            acked: acked.into_iter().map(|(e, s)| ResumePoint { epoch: e.0, ack_sequence: s.0 }).collect(),
            peers: self.shared.peers().to_vec(),
            filter_version,
        });
        answer.extensions_mut().insert(list);
        Ok(answer)
    }

    async fn heartbeat(&self, request: Request<Streaming<HunterHeartbeat>>) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (_, peer) = remote_of(&request);
        let (shared, stop) = (Arc::clone(&self.shared), self.stop(peer.clone()));
        let answers = request.into_inner().then(move |beat| {
            let (shared, peer) = (Arc::clone(&shared), peer.clone());
            async move {
                let beat = beat?;
                shared.check_identity(peer.as_ref(), &beat.hunter_id)?;
                let hunter: Arc<str> = Arc::from(beat.hunter_id.as_str());
                if shared.note_heartbeat(beat) {
                    let _sent = shared.jobs.send(Job::Stopping { hunter }).await;
                }
                Ok(ProcessorHeartbeat {
                    timestamp_ns: clock::wall().as_nanos(),
                    status: shared.status().into(),
                    hunters_connected: u32::try_from(shared.roster.lock().len()).unwrap_or(u32::MAX),
                    processor_id: shared.id.clone(),
                })
            }
        });
        Ok(Response::new(Box::pin(answers.take_until(stop))))
    }

    async fn get_filters(&self, request: Request<FilterRequest>) -> Result<Response<FilterResponse>, Status> {
        let (_, peer) = remote_of(&request);
        let id = request.into_inner().hunter_id;
        if peer.as_ref().and_then(|p| p.identity.as_ref()).is_some_and(|who| who.role == Role::Hunter) {
            self.shared.check_identity(peer.as_ref(), &id)?;
        }
        let hunter = self.shared.roster.lock().get(&id).map(Hunter::subscriber);
        if let Some(grant) = self.shared.grant(peer.as_ref(), "GetFilters")? {
            return self.granted_filters(&grant, &id, hunter.as_ref());
        }
        let mut answer = Response::new(FilterResponse { filters: Vec::new() });
        if id.is_empty() {
            answer.extensions_mut().insert(self.shared.filters.all()?);
        } else if let Some(hunter) = hunter {
            answer.extensions_mut().insert(self.shared.filters.for_hunter(&hunter)?);
        }
        Ok(answer)
    }

    async fn subscribe_filters(&self, request: Request<FilterRequest>) -> Result<Response<Self::SubscribeFiltersStream>, Status> {
        let (_, peer) = remote_of(&request);
        let id = request.into_inner().hunter_id;
        self.shared.check_identity(peer.as_ref(), &id)?;
        let Some(hunter) = self.shared.roster.lock().get(&id).map(Hunter::subscriber) else {
            return Err(Status::failed_precondition(format!("hunter '{id}' is not registered; call RegisterHunter first")));
        };
        Ok(Response::new(Box::pin(self.shared.filters.follow(hunter).take_until(self.stop(peer)))))
    }

    async fn get_hunter_status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (_, peer) = remote_of(&request);
        let wanted = request.into_inner().hunter_id;
        let grant = self.shared.grant(peer.as_ref(), "GetHunterStatus")?;
        let seen = |id: &str| grant.as_ref().is_none_or(|grant| grant.names(id));
        if !wanted.is_empty() && !seen(&wanted) {
            return Err(self.not_granted("GetHunterStatus", &wanted));
        }
        let now = self.shared.clock.now();
        let mut room = FILTER_BYTES_SHOWN;
        let roster = self.shared.roster.lock();
        let hunters: Vec<ConnectedHunter> = roster
            .iter()
            .filter(|(id, _)| seen(id) && (wanted.is_empty() || **id == wanted))
            .map(|(id, h)| {
                let sight = grant.as_ref().map_or(Sight::All, |grant| grant.of(id));
                let granted = |filter: &str| sight.has_filter(filter);
                let (filters, meant) = self.shared.filters.shown(&h.subscriber(), FILTERS_SHOWN, &mut room, granted);
                let errors = h.filter_errors.iter().filter(|(filter, _)| granted(filter));
                ConnectedHunter {
                    hunter_id: id.clone(),
                    hostname: h.registration.hostname.clone(),
                    remote_addr: h.remote.map(|r| r.to_string()).unwrap_or_default(),
                    status: Roster::status(h, now).into(),
                    connected_duration_sec: now.since(h.since).as_secs(),
                    last_heartbeat_ns: self.shared.clock.on_the_wall(h.heard).as_nanos(),
                    stats: Some(h.stats.clone()),
                    filters,
                    interfaces: h.registration.interfaces.clone(),
                    capabilities: h.registration.capabilities.clone(),
                    filter_version: h.filter_version,
                    filter_errors: errors.take(FILTERS_SHOWN).map(shown_error).collect(),
                    filters_meant: u32::try_from(meant).unwrap_or(u32::MAX),
                }
            })
            .collect();
        let count = |s: HunterStatus| {
            u32::try_from(roster.iter().filter(|(id, h)| seen(id) && Roster::status(h, now) == s).count()).unwrap_or(0)
        };
        let counts = self.shared.counters.counts();
        let above = self.shared.above();
        let below = self.shared.below.lock().iter().map(|(id, _)| id.clone()).collect();
        let processors = if grant.is_none() { below } else { Vec::new() };
        let processor_stats = ProcessorStats {
            total_hunters: u32::try_from(roster.iter().filter(|(id, _)| seen(id)).count()).unwrap_or(u32::MAX),
            healthy_hunters: count(HunterStatus::StatusHealthy),
            warning_hunters: count(HunterStatus::StatusWarning),
            error_hunters: count(HunterStatus::StatusError),
            total_packets_received: counts.received,
            total_packets_forwarded: above.as_ref().map_or(0, |a| a.backlog.acked_packets),
            total_filters: u32::try_from(self.shared.filters.len()).unwrap_or(u32::MAX),
            processor_id: self.shared.id.clone(),
            status: self.shared.status().into(),
            upstream_processor: above.as_ref().map(told_above).unwrap_or_default(),
            duplicates: counts.duplicate,
            committed: counts.committed,
            subscriber_skipped: self.shared.monitors.figures().skipped,
            upstream_backlog: above.as_ref().map_or(0, UpstreamFigures::waiting),
            filter_version: self.shared.filters.version(),
            upstream_offered: above.as_ref().map_or(0, |a| a.backlog.offered_packets),
            upstream_recovered: above.as_ref().map_or(0, |a| a.backlog.recovered_packets),
            upstream_dropped: above.as_ref().map_or(0, |a| a.backlog.dropped()),
            upstream_connected: above.as_ref().is_some_and(|a| a.link.connected.is_some()),
            processors,
            subscribers: u32::try_from(self.shared.monitors.len()).unwrap_or(u32::MAX),
        };
        Ok(Response::new(StatusResponse { hunters, processor_stats: Some(processor_stats) }))
    }

    async fn list_available_hunters(
        &self,
        request: Request<ListHuntersRequest>,
    ) -> Result<Response<ListHuntersResponse>, Status> {
        let (_, peer) = remote_of(&request);
        let grant = self.shared.grant(peer.as_ref(), "ListAvailableHunters")?;
        let now = self.shared.clock.now();
        let roster = self.shared.roster.lock();
        let hunters = roster
            .iter()
            .filter(|(id, _)| grant.as_ref().is_none_or(|grant| grant.names(id)))
            .map(|(id, h)| AvailableHunter {
                hunter_id: id.clone(),
                hostname: h.registration.hostname.clone(),
                interfaces: h.registration.interfaces.clone(),
                status: Roster::status(h, now).into(),
                remote_addr: h.remote.map(|r| r.to_string()).unwrap_or_default(),
                connected_duration_sec: now.since(h.since).as_secs(),
                capabilities: h.registration.capabilities.clone(),
            })
            .collect();
        Ok(Response::new(ListHuntersResponse { hunters }))
    }

    async fn register_processor(
        &self,
        request: Request<ProcessorRegistration>,
    ) -> Result<Response<ProcessorRegistrationResponse>, Status> {
        let (remote, peer) = remote_of(&request);
        let r = request.into_inner();
        self.shared.check_processor(peer.as_ref(), &r.processor_id)?;
        let (id, extended) = (r.processor_id.clone(), r.durable_acks);
        let registered = self.shared.below.lock().register(&self.shared.id, r, remote, self.shared.clock.now());
        let error = match registered {
            Ok(new) => {
                if new {
                    tracing::info!(processor = %id, extended, "processor registered below this one");
                }
                String::new()
            }
            Err(e) => {
                tracing::warn!(processor = %Escaped(id.as_bytes()), error = %Escaped(e.to_string().as_bytes()), "processor refused");
                e.to_string()
            }
        };
        Ok(Response::new(ProcessorRegistrationResponse {
            accepted: error.is_empty(),
            error,
            upstream_processor_id: self.shared.id.clone(),
            durable_acks: true,
        }))
    }

    async fn update_filter(&self, _: Request<crate::wire::management::Filter>) -> Result<Response<FilterUpdateResult>, Status> {
        Err(not_yet("UpdateFilter"))
    }

    async fn delete_filter(&self, _: Request<FilterDeleteRequest>) -> Result<Response<FilterUpdateResult>, Status> {
        Err(not_yet("DeleteFilter"))
    }

    async fn get_topology(&self, _: Request<TopologyRequest>) -> Result<Response<TopologyResponse>, Status> {
        Err(not_yet("GetTopology"))
    }

    async fn subscribe_topology(
        &self,
        _: Request<TopologySubscribeRequest>,
    ) -> Result<Response<Self::SubscribeTopologyStream>, Status> {
        Err(not_yet("SubscribeTopology"))
    }

    async fn update_filter_on_processor(
        &self,
        _: Request<ProcessorFilterRequest>,
    ) -> Result<Response<FilterUpdateResult>, Status> {
        Err(not_yet("UpdateFilterOnProcessor"))
    }

    async fn delete_filter_on_processor(
        &self,
        _: Request<ProcessorFilterDeleteRequest>,
    ) -> Result<Response<FilterUpdateResult>, Status> {
        Err(not_yet("DeleteFilterOnProcessor"))
    }

    async fn get_filters_from_processor(&self, _: Request<ProcessorFilterQuery>) -> Result<Response<FilterResponse>, Status> {
        Err(not_yet("GetFiltersFromProcessor"))
    }

    async fn request_auth_token(&self, _: Request<AuthTokenRequest>) -> Result<Response<AuthorizationToken>, Status> {
        Err(not_yet("RequestAuthToken"))
    }
}

impl Management {
    /// Of all filters, or of one hunter's, those that a subscriber may see.
    fn granted_filters(&self, grant: &Grant, id: &str, hunter: Option<&Subscriber>) -> Result<Response<FilterResponse>, Status> {
        let sight = grant.of(id);
        let filters = match hunter {
            None if id.is_empty() => self.shared.filters.granted(None, |f| grant.shows(&f.id, &f.target_hunters))?,
            _ if sight == Sight::Nothing => return Err(self.not_granted("GetFilters", id)),
            None => Vec::new(),
            Some(_) => self.shared.filters.granted(hunter, |f| sight.has_filter(&f.id))?,
        };
        Ok(Response::new(FilterResponse { filters }))
    }

    fn not_granted(&self, method: &str, hunter: &str) -> Status {
        self.shared.not_granted(method, &format!("hunter '{}' is not granted", Said(hunter)))
    }
}

/// Where the processor above is, connected or not.
fn told_above(above: &UpstreamFigures) -> String {
    let first = || above.link.roads.first().map(|road| road.target.clone());
    above.link.connected.clone().or_else(first).unwrap_or_default()
}

fn shown_error((id, reason): &(String, String)) -> FilterError {
    FilterError { id: id.clone(), reason: reason.clone() }
}

/// A hunter that finds no room is told where there may be some: in words, and in a header for those that go there.
fn elsewhere(refusal: &Refusal, peers: &[String]) -> Status {
    if peers.is_empty() {
        return Status::resource_exhausted(refusal.to_string());
    }
    let mut status = Status::resource_exhausted(format!("{refusal}; or go to {}", peers.join(", ")));
    if let Ok(peers) = peers.join(",").parse() {
        status.metadata_mut().insert(PEERS, peers);
    }
    status
}

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served by this version"))
}

impl Shared {
    /// A run of a hunter registers, and says what those before it lost.
    pub(super) fn note_run(&self, id: &str, instance: u64, earlier: &[wire::RunLosses]) {
        let Some(began) = self.roster.lock().get(id).and_then(Hunter::began) else { return };
        let (hunter, mut losses) = (Arc::from(id), self.losses.lock());
        for e in earlier.iter().take(EARLIER) {
            let (run, at, kernel, interface) = (e.instance, e.until_ns, e.kernel_dropped, e.interface_dropped);
            losses.hear(
                &hunter,
                Some(Timestamp::from_nanos(e.began_ns)),
                RunLosses { run, at, kernel, interface, stopped: false },
            );
        }
        losses.begin(&hunter, instance, began);
    }

    /// Takes what a hunter says of itself, and what it has lost since it last did; true when it says that it stops.
    pub(super) fn note_heartbeat(&self, mut beat: HunterHeartbeat) -> bool {
        let (versions, status) = (self.filters.versions(), beat.status());
        let mut roster = self.roster.lock();
        if let Some((h, stats)) = roster.get(&beat.hunter_id).zip(beat.stats.as_ref()) {
            let (run, at, kernel, interface) =
                (h.registration.instance, beat.timestamp_ns, stats.kernel_dropped, stats.interface_dropped);
            let hunter = Arc::from(beat.hunter_id.as_str());
            let stopped = status == HunterStatus::StatusStopping;
            self.losses.lock().hear(&hunter, h.began(), RunLosses { run, at, kernel, interface, stopped });
        }
        let Some(noted) = roster.beat(&mut beat, self.clock.now(), clock::wall()) else { return false };
        // a line for each version there is, whatever a hunter says and however often it registers
        if roster.applies(&beat.hunter_id, beat.filter_version, &versions) {
            tracing::info!(target: "audit", hunter = %beat.hunter_id, version = beat.filter_version, "filters applied by hunter");
        }
        let errors = roster.get(&beat.hunter_id).map(|h| h.filter_errors.as_slice()).filter(|_| noted.errors).unwrap_or_default();
        for (id, reason) in errors.iter().take(ERRORS_SAID) {
            let (id, reason) = (Escaped(id.as_bytes()), Escaped(reason.as_bytes()));
            tracing::warn!(hunter = %beat.hunter_id, filter = %id, %reason, "hunter cannot apply a filter");
        }
        if let Some(more) = errors.len().checked_sub(ERRORS_SAID).filter(|n| *n > 0) {
            tracing::warn!(hunter = %beat.hunter_id, more, "hunter cannot apply further filters");
        }
        noted.stops
    }

    /// How this processor is: what its hunters and monitors are told.
    fn status(&self) -> ProcessorStatus {
        if self.gauge().is_disk_full() {
            ProcessorStatus::ProcessorError
        } else if self.level() > Level::Continue {
            ProcessorStatus::ProcessorWarning
        } else {
            ProcessorStatus::ProcessorHealthy
        }
    }
}
