//! A processor made of the generated stubs: what it received stays when it is killed and started again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::net::Target;
use crate::wire::data::data_service_server::{DataService, DataServiceServer};
use crate::wire::data::{CorrelatedCallUpdate, PacketBatch, StreamControl, SubscribeRequest};
use crate::wire::management::management_service_server::{ManagementService, ManagementServiceServer};
use crate::wire::management::*;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What survives the peer's process.
#[derive(Default)]
pub(super) struct State {
    /// Speaks our extensions.
    pub(super) extended: bool,
    /// Keeps batches but acknowledges nothing.
    pub(super) silent: AtomicBool,
    /// Ends every data stream at once.
    pub(super) refuses_streams: AtomicBool,
    /// Acknowledges only after this many batches more; a slow disk.
    pub(super) ack_lag: AtomicU64,
    /// The `FlowControl` it answers with.
    pub(super) flow: AtomicI32,
    pub(super) batches: Mutex<Vec<PacketBatch>>,
    /// By epoch, the last batch it has acknowledged.
    pub(super) acked: Mutex<BTreeMap<u64, u64>>,
    pub(super) registrations: Mutex<Vec<HunterRegistration>>,
    pub(super) processors: Mutex<Vec<ProcessorRegistration>>,
    /// Why it does not take processors; empty: it does.
    pub(super) no_processors: Mutex<String>,
    /// Other processors that it names.
    pub(super) peers: Mutex<Vec<String>>,
    /// It has no room for hunters.
    pub(super) full: AtomicBool,
    pub(super) beats: Mutex<Vec<HunterHeartbeat>>,
    pub(super) filters: Mutex<Vec<Filter>>,
    pub(super) updates: Mutex<Vec<FilterUpdate>>,
    /// Data streams the hunter ended as gRPC ends them.
    pub(super) clean_ends: AtomicUsize,
    /// Data streams that broke.
    pub(super) broken: AtomicUsize,
}

/// A running peer.
pub(super) struct Peer {
    pub(super) state: Arc<State>,
    pub(super) target: Target,
    runtime: Option<Runtime>,
}

impl Peer {
    pub(super) fn start(state: State) -> Self {
        let mut peer =
            Self { state: Arc::new(state), target: Target { host: Ipv4Addr::LOCALHOST.to_string(), port: 0 }, runtime: None };
        peer.restart();
        peer
    }

    /// Starts it (again), on the port it had.
    pub(super) fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.target.port));
        let (bound, port) = std::sync::mpsc::sync_channel(1);
        let state = Arc::clone(&self.state);
        runtime.spawn(async move {
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    // The old process may still be closing its sockets.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            bound.send(listener.local_addr().unwrap().port()).unwrap();
            tonic::transport::Server::builder()
                .add_service(DataServiceServer::new(Stub(Arc::clone(&state))).max_decoding_message_size(10 << 20))
                .add_service(ManagementServiceServer::new(Stub(state)))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
        });
        self.target.port = port.recv().unwrap();
        self.runtime = Some(runtime);
    }

    /// Everything it was doing ends where it stands.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped elsewhere: waiting for its threads is not for a task, and nothing of it may still run afterwards.
            std::thread::spawn(move || drop(runtime)).join().unwrap();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Stub(Arc<State>);

#[tonic::async_trait]
impl DataService for Stub {
    type StreamPacketsStream = Answers<StreamControl>;
    type SubscribePacketsStream = Answers<PacketBatch>;
    type SubscribeCorrelatedCallsStream = Answers<CorrelatedCallUpdate>;

    async fn stream_packets(&self, request: Request<Streaming<PacketBatch>>) -> Answer<Self::StreamPacketsStream> {
        let state = Arc::clone(&self.0);
        if state.refuses_streams.load(Ordering::Relaxed) {
            return Err(Status::unavailable("no"));
        }
        let mut batches = request.into_inner();
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            loop {
                let mut idle = false;
                let received = tokio::time::timeout(Duration::from_millis(30), batches.message()).await;
                match received {
                    Err(_) => idle = true,
                    Ok(Ok(Some(batch))) => {
                        let whose = if batch.relay.is_some() { batch.hunter_id.clone() } else { String::new() };
                        waiting.push((batch.epoch, batch.sequence, whose));
                        state.batches.lock().push(batch);
                    }
                    Ok(Ok(None)) => {
                        state.clean_ends.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    Ok(Err(_)) => {
                        state.broken.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
                let lag = if idle { 0 } else { state.ack_lag.load(Ordering::Relaxed) };
                let due = waiting.len().saturating_sub(usize::try_from(lag).unwrap());
                let mut controls: Vec<_> = waiting.drain(..due).collect();
                if state.silent.load(Ordering::Relaxed) {
                    controls.clear();
                }
                if controls.is_empty() && idle {
                    // Unasked, so that a pause is lifted without a batch.
                    controls.push((0, 0, String::new()));
                }
                for (epoch, ack_sequence, hunter_id) in controls {
                    if state.extended && epoch != 0 {
                        state.acked.lock().insert(epoch, ack_sequence);
                    }
                    let flow_control = state.flow.load(Ordering::Relaxed);
                    let control = StreamControl { ack_sequence, flow_control, epoch, hunter_id, ..StreamControl::default() };
                    if answers.send(Ok(control)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn subscribe_packets(&self, _: Request<SubscribeRequest>) -> Answer<Self::SubscribePacketsStream> {
        Err(Status::unimplemented(""))
    }

    async fn subscribe_correlated_calls(&self, _: Request<SubscribeRequest>) -> Answer<Self::SubscribeCorrelatedCallsStream> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl ManagementService for Stub {
    type HeartbeatStream = Answers<ProcessorHeartbeat>;
    type SubscribeFiltersStream = Answers<FilterUpdate>;
    type SubscribeTopologyStream = Answers<TopologyUpdate>;

    async fn register_hunter(&self, request: Request<HunterRegistration>) -> Answer<RegistrationResponse> {
        let request = request.into_inner();
        let peers = self.0.peers.lock().clone();
        if self.0.full.load(Ordering::Relaxed) {
            let mut status = Status::resource_exhausted("full");
            status.metadata_mut().insert(crate::wire::PEERS, peers.join(",").parse().unwrap());
            return Err(status);
        }
        let mut answer = RegistrationResponse {
            peers,
            accepted: true,
            assigned_id: request.hunter_id.clone(),
            filters: self.0.filters.lock().clone(),
            ..RegistrationResponse::default()
        };
        if self.0.extended {
            answer.durable_acks = true;
            answer.filter_version = 1;
            let acked = self.0.acked.lock();
            answer.acked = request
                .epochs
                .iter()
                .filter_map(|epoch| acked.get(epoch).map(|seq| ResumePoint { epoch: *epoch, ack_sequence: *seq }))
                .collect();
        }
        self.0.registrations.lock().push(request);
        Ok(Response::new(answer))
    }

    async fn heartbeat(&self, request: Request<Streaming<HunterHeartbeat>>) -> Answer<Self::HeartbeatStream> {
        let state = Arc::clone(&self.0);
        let mut beats = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(beat)) = beats.message().await {
                state.beats.lock().push(beat);
                let _gone = answers.send(Ok(ProcessorHeartbeat::default())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn subscribe_filters(&self, _: Request<FilterRequest>) -> Answer<Self::SubscribeFiltersStream> {
        let updates = self.0.updates.lock().clone();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            for update in updates {
                let _gone = answers.send(Ok(update)).await;
            }
            answers.closed().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn subscribe_topology(&self, _: Request<TopologySubscribeRequest>) -> Answer<Self::SubscribeTopologyStream> {
        Err(Status::unimplemented(""))
    }

    async fn register_processor(&self, request: Request<ProcessorRegistration>) -> Answer<ProcessorRegistrationResponse> {
        self.0.processors.lock().push(request.into_inner());
        let error = self.0.no_processors.lock().clone();
        let upstream_processor_id = "top".to_owned();
        let answer = ProcessorRegistrationResponse {
            accepted: error.is_empty(),
            error,
            upstream_processor_id,
            durable_acks: self.0.extended,
        };
        Ok(Response::new(answer))
    }

    async fn get_filters(&self, _: Request<FilterRequest>) -> Answer<FilterResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_hunter_status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_filter(&self, _: Request<Filter>) -> Answer<FilterUpdateResult> {
        Err(Status::unimplemented(""))
    }

    async fn delete_filter(&self, _: Request<FilterDeleteRequest>) -> Answer<FilterUpdateResult> {
        Err(Status::unimplemented(""))
    }

    async fn list_available_hunters(&self, _: Request<ListHuntersRequest>) -> Answer<ListHuntersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_topology(&self, _: Request<TopologyRequest>) -> Answer<TopologyResponse> {
        Err(Status::unimplemented(""))
    }

    async fn update_filter_on_processor(&self, _: Request<ProcessorFilterRequest>) -> Answer<FilterUpdateResult> {
        Err(Status::unimplemented(""))
    }

    async fn delete_filter_on_processor(&self, _: Request<ProcessorFilterDeleteRequest>) -> Answer<FilterUpdateResult> {
        Err(Status::unimplemented(""))
    }

    async fn get_filters_from_processor(&self, _: Request<ProcessorFilterQuery>) -> Answer<FilterResponse> {
        Err(Status::unimplemented(""))
    }

    async fn request_auth_token(&self, _: Request<AuthTokenRequest>) -> Answer<AuthorizationToken> {
        Err(Status::unimplemented(""))
    }
}
