//! The data stream, on its own body under the ordinary gRPC method: messages are taken from the HTTP/2 frames without another copy.
//!
//! ```text
//! request body ─▶ Deframer ─▶ BatchView ─▶ Ingest (new? duplicate?) ─▶ queue to the record thread (full: the stream is not read on)
//!                                                                            │ stored
//! response body ◀─ Acks ◀────────────────────────────────────────────────────┘
//! ```
//! Monitors are answered by [`super::monitors`]; everything else of the service answers UNIMPLEMENTED.

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

use super::counts::Refused;
use super::feed::{Feed, MESSAGE_MAX, Whose};
use super::ingest::{Arrival, LEAP, Span};
use super::monitors::{Offered, Watch};
use super::shared::{Incoming, Job, Shared};
use crate::batch::{BatchError, BatchSeq, BatchView, ELSEWHERE, Epoch, ViewLimits, grpc_prefix, without_tls_keys};
use crate::net::PeerInfo;
use crate::packet::Timestamp;
use crate::telemetry::{Escaped, Said, clock};
use crate::wire::data::{FlowControl, StreamControl};
use crate::wire::frame::{Deframer, FrameError};

/// Batches a hunter may have unacknowledged.
const CREDIT_BATCHES: u32 = 256;
/// And bytes.
const CREDIT_BYTES: u64 = 16 << 20;

/// What a stream may have brought and is to be told of once it is stored: as much as its sender may have in flight; of a hunter, one per epoch.
const AWAITED: usize = CREDIT_BATCHES as usize;

/// Acknowledgements on their way back; shared by the record thread and the response body.
#[derive(Debug, Default)]
pub struct Acks {
    state: Mutex<AckState>,
}

#[derive(Debug, Default)]
struct AckState {
    queue: VecDeque<StreamControl>,
    /// Batches handed to the record thread and not answered yet, and their bytes.
    outstanding: u64,
    bytes: u64,
    /// The last acknowledgement.
    last: Option<StreamControl>,
    awaited: Vec<Awaited>,
    waker: Option<Waker>,
}

impl AckState {
    fn settle(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// A batch that came while it, or on a hunter's own stream something below it, was on its way into the files.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) hunter: Arc<str>,
    pub(super) epoch: Epoch,
    pub(super) seq: BatchSeq,
    pub(super) passed_on: bool,
}

impl Acks {
    fn expect(&self, bytes: usize) {
        let mut s = self.state.lock();
        s.outstanding = s.outstanding.saturating_add(1);
        s.bytes = s.bytes.saturating_add(bytes as u64);
    }

    /// There will be no answer to a batch.
    pub(super) fn expect_no_more(&self, bytes: usize) {
        self.state.lock().settle(bytes);
    }

    /// Returns once the sender has less in flight than it may: whoever does not look at its credit is not read from. Whoever answers wakes it,
    /// since the stream is read where the answers are asked for.
    async fn credit(&self) {
        std::future::poll_fn(|_| {
            let s = self.state.lock();
            if s.outstanding < u64::from(CREDIT_BATCHES) && s.bytes < CREDIT_BYTES { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// A batch of so many bytes has been dealt with; `control` says so to the hunter. Several for one epoch waiting are told as one.
    pub fn answer(&self, bytes: usize, control: StreamControl) {
        let mut s = self.state.lock();
        s.settle(bytes);
        s.last = Some(control.clone());
        match s.queue.back_mut() {
            Some(last) if says_all_of(&control, last) => *last = control,
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

impl Acks {
    /// This is told here, too, once it is stored: the batch came again, and the first of it is answered on the stream it came by; or its own answer
    /// could not say so yet.
    pub(super) fn await_stored(&self, awaited: Awaited) {
        let mut s = self.state.lock();
        let same = |a: &Awaited| a.epoch == awaited.epoch && a.hunter == awaited.hunter;
        if let Some(known) = s.awaited.iter_mut().find(|a| !a.passed_on && same(a)) {
            known.seq = known.seq.max(awaited.seq);
            return;
        }
        if s.awaited.len() >= AWAITED {
            s.awaited.remove(0);
        }
        s.awaited.push(awaited);
    }

    /// Tells what is stored by now of what came again.
    pub(super) fn tell_stored(&self, shared: &Shared, flow: FlowControl) {
        let mut s = self.state.lock();
        let mut said: Vec<StreamControl> = Vec::new();
        s.awaited.retain(|a| {
            let told = shared.ingest.told(&a.hunter, a.epoch, a.seq, a.passed_on);
            let stored = told.through >= a.seq.0;
            if stored {
                let control = shared.say(&a.hunter, Some(a.epoch), told, a.passed_on, flow);
                said.extend((said.last() != Some(&control)).then_some(control));
            }
            !stored
        });
        if said.is_empty() {
            return;
        }
        s.queue.extend(said);
        if let Some(w) = s.waker.take() {
            w.wake();
        }
    }

    /// Tells again what was acknowledged last and what is asked, if the hunter waits for something: batches that are not answered, or the end of
    /// what is in force.
    pub fn remind(&self, flow: FlowControl) {
        let mut s = self.state.lock();
        if !s.queue.is_empty() || (s.outstanding == 0 && flow == FlowControl::FlowContinue) {
            return;
        }
        let mut control = s.last.clone().unwrap_or_default();
        control.set_flow_control(flow);
        s.queue.push_back(control);
        if let Some(w) = s.waker.take() {
            w.wake();
        }
    }
}

/// Whether whoever reads the one needs not read the other, which was said before it.
fn says_all_of(control: &StreamControl, before: &StreamControl) -> bool {
    control.epoch != 0
        && control.epoch == before.epoch
        && control.hunter_id == before.hunter_id
        && control.flow_control == before.flow_control
        && control.ack_from <= before.ack_from
        && control.ack_sequence >= before.ack_sequence
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
        hunter_id: String::new(),
        ack_from: 0,
    }
}

/// An acknowledgement says whose epoch it means where the stream is not its hunter's own.
pub(super) fn of_hunter(control: StreamControl, hunter: &str, passed_on: bool) -> StreamControl {
    if passed_on { StreamControl { hunter_id: hunter.to_owned(), ..control } } else { control }
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
        let peer = request.extensions().get::<PeerInfo>().cloned();
        let body = accept(&request).map(|call| match call {
            Call::Stream => {
                let acks = Arc::new(Acks::default());
                let work = Box::pin(read(Arc::clone(&self.shared), peer, request.into_body(), Arc::clone(&acks)));
                Body::new(AckBody { work: Some(work), end: None, acks })
            }
            Call::Subscribe => Body::new(Watch::answer(&self.shared, peer, request.into_body())),
        });
        let answer = body.map_or_else(Status::into_http, |body| {
            let mut response = Response::new(body);
            response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
            response
        });
        std::future::ready(Ok(answer))
    }
}

/// What is served.
enum Call {
    Stream,
    Subscribe,
}

fn accept(request: &Request<Body>) -> Result<Call, Status> {
    let path = request.uri().path();
    let call = match path.strip_prefix("/lippycat.data.DataService/") {
        Some("StreamPackets") => Call::Stream,
        Some("SubscribePackets") => Call::Subscribe,
        _ => return Err(Status::unimplemented(format!("{path} is not served by this processor"))),
    };
    let encoding = request.headers().get("grpc-encoding").map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|e| e != b"identity") {
        return Err(Status::unimplemented("compressed messages are not accepted; send them uncompressed"));
    }
    Ok(call)
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

/// Why a stream ends, and what it is told.
struct Refusal {
    why: Refused,
    /// Packets of the refused batch.
    packets: u64,
    status: Status,
}

/// What comes next on a stream.
enum Next {
    Message(Bytes),
    Frame(Option<Result<Frame<Bytes>, Status>>),
    Wrong(FrameError),
}

/// Takes batches until the hunter ends the stream.
async fn read(shared: Arc<Shared>, peer: Option<PeerInfo>, body: Body, acks: Arc<Acks>) -> Result<(), Status> {
    let mut body = std::pin::pin!(body);
    let mut frames = Deframer::new(MESSAGE_MAX);
    let mut stream: Option<Feed> = None;
    let mut rolled = std::pin::pin!(PeerInfo::rolled(peer.clone()));
    let result = loop {
        let next = async {
            acks.credit().await;
            if let Some(stream) = &stream {
                stream.paced().await;
            }
            match frames.next() {
                Ok(Some(message)) => Next::Message(message),
                Ok(None) => Next::Frame(std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await),
                Err(e) => Next::Wrong(e),
            }
        };
        let next = tokio::select! {
            // a hunter that sends and sends does not keep its stream open
            biased;
            // what was handed in is acknowledged, then the stream ends: the hunter goes on with our successor
            () = shared.ending.wait() => break Ok(()),
            // so it does when its connection is old: the hunter makes another and resumes there
            () = &mut rolled => break Ok(()),
            next = next => next,
        };
        match next {
            Next::Message(message) => {
                if let Err(refusal) = take_message(&shared, peer.as_ref(), message, &mut stream, &acks).await {
                    break Err(refusal);
                }
            }
            Next::Frame(None) => break frames.finish().map_err(refused),
            Next::Frame(Some(Err(status))) => break Err(Refusal { why: ended_by(&status), packets: 0, status }),
            Next::Frame(Some(Ok(frame))) => frame.into_data().into_iter().for_each(|data| frames.push(data)),
            Next::Wrong(e) => break Err(refused(e)),
        }
    };
    result.map_err(|Refusal { why, packets, status }| {
        shared.counters.rejected(why, packets);
        if why != Refused::Broken {
            let peer = stream.as_ref().map_or("", Feed::id);
            tracing::warn!(peer, reason = why.name(), said = %Said(status.message()), "data stream refused");
        }
        status
    })
}

async fn take_message(
    shared: &Arc<Shared>,
    peer: Option<&PeerInfo>,
    message: Bytes,
    stream: &mut Option<Feed>,
    acks: &Arc<Acks>,
) -> Result<(), Refusal> {
    let bytes = message.len();
    let mut view = BatchView::parse(message, &ViewLimits::default()).map_err(malformed)?;
    let packets = view.len() as u64;
    shared.counters.received(packets);
    let refuse = |(why, status)| Refusal { why, packets, status };
    let s = if let Some(s) = stream {
        s
    } else {
        let opened = Feed::open(shared, peer, &view).map_err(refuse)?;
        shared.add_stream(acks);
        let opened = stream.insert(opened);
        // its hunter may owe from another stream
        tokio::select! { () = opened.paced() => {}, () = shared.ending.wait() => {} }
        opened
    };
    let now = clock::wall();
    let whose = s.whose(&view).map_err(refuse)?;
    if bytes > s.message_max {
        let text = format!("batch of {bytes} bytes is larger than {}", s.message_max);
        return Err(refuse((Refused::TooLarge, Status::resource_exhausted(text))));
    }
    s.spend(bytes);
    if view.tls_keys() > 0 {
        shared.counters.tls_keys(view.tls_keys());
        tracing::warn!(hunter = %Escaped(whose.hunter.as_bytes()), "session secrets of TLS came with packets; they are taken out: nobody may send them");
        let rest = without_tls_keys(view.message()).and_then(|rest| BatchView::parse(rest, &ViewLimits::default()));
        view = rest.map_err(|e| Refusal { packets, ..malformed(e) })?;
    }
    take(shared, whose, view, acks, now).await
}

fn malformed(e: BatchError) -> Refusal {
    let status = Status::invalid_argument(format!("not a packet batch: {e}"));
    Refusal { why: Refused::Malformed, packets: 0, status }
}

async fn take(shared: &Arc<Shared>, whose: Whose, view: BatchView, acks: &Arc<Acks>, now: Timestamp) -> Result<(), Refusal> {
    let (packets, size) = (view.len() as u64, view.message().len());
    let mut waiting = Waiting { shared, packets };
    let Whose { hunter, interfaces, epoch, announced, seq } = whose;
    let passed_on = view.is_passed_on();
    // Room first: a batch that is known to have come is on its way to the record thread, whatever becomes of this stream while it waits.
    let kib = u32::try_from(view.bytes().div_ceil(1024).clamp(1, shared.queue_kib)).unwrap_or(1);
    let bytes = Arc::clone(&shared.queue).acquire_many_owned(kib).await;
    let room = shared.jobs.reserve().await;
    waiting.packets = 0;
    let (Ok(bytes), Ok(room)) = (bytes, room) else {
        let status = Status::unavailable("the processor is stopping");
        return Err(Refusal { why: Refused::Stopping, packets, status });
    };
    // nothing is copied, and nothing is done where nobody watches
    let offered = shared.monitors.is_watched().then(|| Offered::of(&view, &hunter, &interfaces));
    let span = Span { first: view.first_packet_index(), packets };
    let declared = view.dropped_ranges().map(|r| r.packets).fold(0, u64::saturating_add);
    if declared > LEAP && !passed_on {
        return Err(leap(packets));
    }
    let declared = if declared > LEAP { 0 } else { declared };
    // one that comes by way of others below is told as what may still come
    let elsewhere = !passed_on && view.dropped_ranges().any(|r| r.reason == ELSEWHERE);
    let hand_over = |missing| {
        let queued = shared.counters.unique(packets, missing, declared, elsewhere);
        room.send(Job::Batch(Box::new(Incoming {
            hunter: Arc::clone(&hunter),
            interfaces,
            view,
            epoch,
            announced,
            seq,
            acks: Arc::clone(acks),
            received: now,
            missing,
            queued,
            room: Some(bytes),
        })));
    };
    // not when it is handed over: who tells what is stored has locked the answers, and asks the ingest
    acks.expect(size);
    match shared.ingest.arrive(&hunter, epoch, seq, span, passed_on, hand_over) {
        arrived @ (Arrival::New | Arrival::Late) => {
            if arrived == Arrival::Late {
                shared.counters.late(packets);
            }
            if let Some(batch) = offered {
                shared.monitors.offer(batch);
            }
        }
        Arrival::Duplicate => {
            acks.expect_no_more(size);
            shared.counters.duplicate(packets);
            came_again(shared, acks, announced, Awaited { hunter, epoch, seq, passed_on });
        }
        Arrival::Leap => {
            acks.expect_no_more(size);
            return Err(leap(packets));
        }
    }
    Ok(())
}

/// A batch that leaves out more than its hunter can have sent.
fn leap(packets: u64) -> Refusal {
    let text = format!("a batch leaves out more than the {LEAP} batches or packets that a hunter may");
    Refusal { why: Refused::Leap, packets, status: Status::invalid_argument(text) }
}

/// A batch that is here already: what is stored of its epoch is told now, and once more when it is.
fn came_again(shared: &Shared, acks: &Acks, announced: Option<Epoch>, batch: Awaited) {
    let Awaited { hunter, epoch, seq, passed_on } = &batch;
    let told = shared.ingest.told(hunter, *epoch, *seq, *passed_on);
    acks.tell(shared.say(hunter, announced, told, *passed_on, shared.flow()));
    if told.through < seq.0 {
        acks.await_stored(batch);
        // it may have been stored before anybody waited for that
        acks.tell_stored(shared, shared.flow());
    }
}

/// Packets that wait for room in the record queue: refused if their connection breaks meanwhile.
struct Waiting<'a> {
    shared: &'a Shared,
    packets: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.packets > 0 {
            self.shared.counters.rejected(Refused::Broken, self.packets);
        }
    }
}

/// Why a body ends in an error: a bound of [`super::intake`], or its connection broke.
fn ended_by(status: &Status) -> Refused {
    if status.code() == Code::ResourceExhausted {
        Refused::Crowded
    } else if status.code() == Code::DeadlineExceeded {
        Refused::Slow
    } else {
        Refused::Broken
    }
}

fn refused(e: FrameError) -> Refusal {
    let (why, status) = match e {
        FrameError::TooLarge { .. } => (Refused::TooLarge, Status::resource_exhausted(e.to_string())),
        FrameError::Compressed => (Refused::Compressed, Status::unimplemented(e.to_string())),
        FrameError::Truncated => (Refused::Malformed, Status::invalid_argument(e.to_string())),
    };
    Refusal { why, packets: 0, status }
}

/// Remote address of a request, where the transport knows it.
pub fn remote_of<T>(request: &tonic::Request<T>) -> (Option<SocketAddr>, Option<PeerInfo>) {
    let peer = request.extensions().get::<PeerInfo>().cloned();
    (peer.as_ref().map(|p| p.remote), peer)
}
