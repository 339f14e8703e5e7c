//! The data stream, on its own body under the ordinary gRPC method: messages are taken from the HTTP/2 frames without another copy.
//!
//! ```text
//! request body ─▶ Deframer ─▶ BatchView ─▶ Ingest (new? duplicate?) ─▶ queue to the record thread (full: the stream is not read on)
//!                                                                            │ stored
//! response body ◀─ Acks ◀────────────────────────────────────────────────────┘
//! ```
//! Everything else of the service answers UNIMPLEMENTED.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use prost::Message;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::ingest::Arrival;
use super::shared::{Incoming, Job, Shared};
use crate::batch::{BatchSeq, BatchView, Epoch, ViewLimits, grpc_prefix};
use crate::net::PeerInfo;
use crate::telemetry::clock;
use crate::wire::data::{FlowControl, StreamControl};
use crate::wire::frame::{Deframer, FrameError};

/// Largest message of a hunter (what old ones send).
const MESSAGE_MAX: usize = 10 << 20;
/// Batches a hunter may have unacknowledged.
const CREDIT_BATCHES: u32 = 256;
/// And bytes.
const CREDIT_BYTES: u64 = 16 << 20;

/// Acknowledgements on their way back; shared by the record thread and the response body.
#[derive(Debug, Default)]
pub struct Acks {
    state: Mutex<AckState>,
}

#[derive(Debug, Default)]
struct AckState {
    queue: VecDeque<StreamControl>,
    /// Batches handed to the record thread and not answered yet.
    outstanding: u64,
    waker: Option<Waker>,
}

impl Acks {
    fn expect(&self) {
        let mut s = self.state.lock();
        s.outstanding = s.outstanding.saturating_add(1);
    }

    /// A batch has been dealt with; `control` says so to the hunter. Several for one epoch waiting are told as one.
    pub fn answer(&self, control: StreamControl) {
        let mut s = self.state.lock();
        s.outstanding = s.outstanding.saturating_sub(1);
        match s.queue.back_mut() {
            Some(last) if last.epoch == control.epoch && control.epoch != 0 && last.flow_control == control.flow_control => {
                *last = control;
            }
            _ => s.queue.push_back(control),
        }
        if let Some(w) = s.waker.take() {
            w.wake();
        }
    }

    /// Tells something that answers no batch: a change of flow control.
    pub fn tell(&self, control: StreamControl) {
        let mut s = self.state.lock();
        s.queue.push_back(control);
        if let Some(w) = s.waker.take() {
            w.wake();
        }
    }
}

/// What an acknowledgement says.
pub fn ack(epoch: Option<Epoch>, seq: BatchSeq, flow: FlowControl) -> StreamControl {
    StreamControl {
        ack_sequence: seq.0,
        flow_control: flow.into(),
        error: String::new(),
        epoch: epoch.map_or(0, |e| e.0),
        durable: false,
        credit_batches: if epoch.is_some() { CREDIT_BATCHES } else { 0 },
        credit_bytes: if epoch.is_some() { CREDIT_BYTES } else { 0 },
    }
}

/// The service.
#[derive(Clone)]
pub struct DataService {
    shared: Arc<Shared>,
}

impl DataService {
    /// On the processor's shared state.
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl NamedService for DataService {
    const NAME: &'static str = "lippycat.data.DataService";
}

impl Service<Request<Body>> for DataService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = match accept(&request) {
            Ok(()) => {
                let peer = request.extensions().get::<PeerInfo>().cloned();
                let acks = Arc::new(Acks::default());
                let work = Box::pin(read(Arc::clone(&self.shared), peer, request.into_body(), Arc::clone(&acks)));
                let body = AckBody { work: Some(work), end: None, acks };
                let mut response = Response::new(Body::new(body));
                response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
                response
            }
            Err(status) => status.into_http(),
        };
        std::future::ready(Ok(answer))
    }
}

fn accept(request: &Request<Body>) -> Result<(), Status> {
    let path = request.uri().path();
    if path != "/lippycat.data.DataService/StreamPackets" {
        return Err(Status::unimplemented(format!("{path} is not served by this processor")));
    }
    let encoding = request.headers().get("grpc-encoding").map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|e| e != b"identity") {
        return Err(Status::unimplemented("compressed batches are not accepted; send them uncompressed"));
    }
    Ok(())
}

type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The response: acknowledgements as they come, then the status.
struct AckBody {
    work: Option<Work>,
    end: Option<Status>,
    acks: Arc<Acks>,
}

impl HttpBody for AckBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // register first, so that an answer between the look and the return is not missed
        this.acks.state.lock().waker = Some(cx.waker().clone());
        if let Some(work) = &mut this.work
            && let Poll::Ready(result) = work.as_mut().poll(cx)
        {
            this.work = None;
            this.end = Some(result.err().unwrap_or_else(|| Status::new(Code::Ok, "")));
        }
        let mut s = this.acks.state.lock();
        if let Some(control) = s.queue.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(encode(&control)))));
        }
        let settled = this.work.is_none() && (s.outstanding == 0 || this.end.as_ref().is_some_and(|e| e.code() != Code::Ok));
        drop(s);
        if !settled {
            return Poll::Pending;
        }
        let Some(status) = this.end.take() else { return Poll::Ready(None) };
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(e) => Poll::Ready(Some(Err(e))),
        }
    }
}

fn encode(control: &StreamControl) -> Bytes {
    let len = control.encoded_len();
    let mut out = BytesMut::with_capacity(len.saturating_add(5));
    out.put_slice(&grpc_prefix(len));
    // a BytesMut grows: encoding into it does not fail
    let _infallible = control.encode(&mut out);
    out.freeze()
}

/// Who a stream belongs to, once its first batch has said so.
struct Stream {
    hunter: Arc<str>,
    interfaces: Arc<[String]>,
    /// For a peer without epochs: one of ours.
    own_epoch: Epoch,
}

/// Takes batches until the hunter ends the stream.
async fn read(shared: Arc<Shared>, peer: Option<PeerInfo>, body: Body, acks: Arc<Acks>) -> Result<(), Status> {
    let mut body = std::pin::pin!(body);
    let mut frames = Deframer::new(MESSAGE_MAX);
    let mut stream: Option<Stream> = None;
    let mut ended_well = false;
    let mut ending = shared.ending.subscribe();
    let result = loop {
        let next = tokio::select! {
            next = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)) => next,
            // what was handed in is acknowledged, then the stream ends: the hunter goes on with our successor
            _ = ending.wait_for(|e| *e) => break Ok(()),
        };
        match next {
            None => {
                ended_well = true;
                break frames.finish().map_err(refused);
            }
            Some(Err(status)) => break Err(status),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                frames.push(data);
                if let Err(status) = take_all(&shared, peer.as_ref(), &mut frames, &mut stream, &acks).await {
                    break Err(status);
                }
            }
        }
    };
    if let Some(s) = stream {
        shared.roster.lock().stream(&s.hunter, false);
        let done = Job::StreamEnded { hunter: Arc::clone(&s.hunter), well: ended_well && result.is_ok() };
        // the record thread is only gone when the processor stops
        let _sent = shared.jobs.send(done).await;
    }
    if let Err(status) = &result {
        shared.counters.rejected(status.code());
        tracing::debug!(code = ?status.code(), message = status.message(), "data stream ended");
    }
    result
}

async fn take_all(
    shared: &Arc<Shared>,
    peer: Option<&PeerInfo>,
    frames: &mut Deframer,
    stream: &mut Option<Stream>,
    acks: &Arc<Acks>,
) -> Result<(), Status> {
    while let Some(message) = frames.next().map_err(refused)? {
        let view = BatchView::parse(message, &ViewLimits::default())
            .map_err(|e| Status::invalid_argument(format!("not a packet batch: {e}")))?;
        let s = match stream {
            Some(s) if *s.hunter == *view.hunter_id() => s,
            Some(s) => {
                return Err(Status::permission_denied(format!(
                    "this stream is hunter '{}'s, not '{}'s",
                    s.hunter,
                    view.hunter_id()
                )));
            }
            None => {
                let opened = open(shared, peer, &view)?;
                shared.add_stream(acks);
                stream.insert(opened)
            }
        };
        take(shared, s, view, acks).await?;
    }
    Ok(())
}

/// The first batch says whose stream it is; it must be a registered hunter's, and the certificate's.
fn open(shared: &Arc<Shared>, peer: Option<&PeerInfo>, view: &BatchView) -> Result<Stream, Status> {
    let id = view.hunter_id();
    shared.check_identity(peer, id)?;
    let mut roster = shared.roster.lock();
    let Some(hunter) = roster.get(id) else {
        return Err(Status::failed_precondition(format!("hunter '{id}' is not registered; call RegisterHunter first")));
    };
    let interfaces: Arc<[String]> = hunter.registration.interfaces.clone().into();
    roster.stream(id, true);
    let ms = u64::try_from(clock::wall().as_nanos() / 1_000_000).unwrap_or(0);
    let random = ahash::RandomState::new().hash_one(id);
    let own_epoch = Epoch::new(ms, u32::try_from(random & 0xf_ffff).unwrap_or(0));
    Ok(Stream { hunter: Arc::from(id), interfaces, own_epoch })
}

async fn take(shared: &Arc<Shared>, s: &Stream, view: BatchView, acks: &Arc<Acks>) -> Result<(), Status> {
    let now = clock::wall();
    let packets = view.len() as u64;
    shared.roster.lock().heard(&s.hunter, now);
    shared.counters.received(packets);
    let announced = view.epoch();
    let (epoch, seq) = (announced.unwrap_or(s.own_epoch), view.sequence());
    // Room first: a batch that is known to have come is on its way to the record thread, whatever becomes of this stream while it waits.
    let room = shared.jobs.reserve().await.map_err(|_| Status::unavailable("the processor is stopping"))?;
    let hand_over = || {
        acks.expect();
        room.send(Job::Batch(Box::new(Incoming {
            hunter: Arc::clone(&s.hunter),
            interfaces: Arc::clone(&s.interfaces),
            view,
            epoch,
            announced,
            seq,
            acks: Arc::clone(acks),
            received: now,
        })));
    };
    if shared.ingest.arrive(&s.hunter, epoch, seq, hand_over) == Arrival::Duplicate {
        shared.counters.duplicate(packets);
        acks.tell(ack(announced, shared.ingest.stored(&s.hunter, epoch), shared.flow()));
    }
    Ok(())
}

fn refused(e: FrameError) -> Status {
    match e {
        FrameError::TooLarge { .. } => Status::resource_exhausted(e.to_string()),
        FrameError::Compressed => Status::unimplemented(e.to_string()),
        FrameError::Truncated => Status::invalid_argument(e.to_string()),
    }
}

/// Remote address of a request, where the transport knows it.
pub fn remote_of<T>(request: &tonic::Request<T>) -> (Option<SocketAddr>, Option<PeerInfo>) {
    let peer = request.extensions().get::<PeerInfo>().cloned();
    (peer.as_ref().map(|p| p.remote), peer)
}
