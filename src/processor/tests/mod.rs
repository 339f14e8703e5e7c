//! The processor's parts against hunters made of bytes: no socket, no certificate.

mod below;
mod climb;
mod crash;
mod durable;
mod flow;
mod grants;
mod losses;
mod monitors;
mod record;
mod simulation;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame as BodyFrame};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status};
use tower::Service;

use super::commit::Durability;
use super::data::DataService;
use super::ingest::Ingest;
use super::shared::{Job, Shared};
use crate::batch::{BatchStats, Context as CallContext, ContextKey, Encoder, EncoderConfig, Epoch, Limits, Pushed, SealedBatch};
use crate::net::PeerInfo;
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};
use crate::wire::data::StreamControl;
use crate::wire::frame::Deframer;
use crate::wire::management::HunterRegistration;

/// Far above what anything here takes.
const LONG: Duration = Duration::from_mins(1);
/// Long enough for what does not happen.
const SHORT: Duration = Duration::from_millis(100);

/// A processor without files: what is handed to the record thread can be looked at.
fn processor(room: usize) -> (Arc<Shared>, mpsc::Receiver<Job>) {
    let (jobs, queue) = mpsc::channel(room);
    let shared = Arc::new(Shared::new("mid".into(), false, 10, Ingest::default(), 1, Durability::Disk, jobs));
    (shared, queue)
}

fn register(shared: &Shared, id: &str) {
    let r = HunterRegistration { hunter_id: id.into(), durable_acks: true, ..HunterRegistration::default() };
    shared.roster.lock().register(r, None, crate::telemetry::clock::wall()).unwrap();
}

/// A hunter's end of a data stream.
struct Stream {
    send: Option<mpsc::Sender<Bytes>>,
    answers: tonic::body::Body,
    frames: Deframer,
}

/// What the hunter reads next.
#[derive(Debug, PartialEq)]
enum Answer {
    Control(StreamControl),
    End(Code, String),
    Silence,
}

impl Stream {
    fn open(shared: &Arc<Shared>) -> Self {
        Self::by(shared, http::Request::post("/lippycat.data.DataService/StreamPackets"))
    }

    /// As a peer whose name is known.
    fn open_as(shared: &Arc<Shared>, peer: PeerInfo) -> Self {
        Self::by(shared, http::Request::post("/lippycat.data.DataService/StreamPackets").extension(peer))
    }

    fn by(shared: &Arc<Shared>, request: http::request::Builder) -> Self {
        let (send, receive) = mpsc::channel(1024);
        let request = request.body(tonic::body::Body::new(Upload(receive))).unwrap();
        let response = DataService::new(Arc::clone(shared)).call(request).into_inner().unwrap();
        Self { send: Some(send), answers: response.into_body(), frames: Deframer::new(1 << 20) }
    }

    fn send(&self, bytes: Bytes) {
        self.send.as_ref().unwrap().try_send(bytes).unwrap();
    }

    /// Ends the stream as gRPC ends it.
    fn finish(&mut self) {
        self.send = None;
    }

    /// The next answer; silence when there is none for a while.
    async fn answer(&mut self) -> Answer {
        let next = async {
            loop {
                if let Some(message) = self.frames.next().unwrap() {
                    return Answer::Control(StreamControl::decode(message).unwrap());
                }
                let answers = &mut self.answers;
                match std::future::poll_fn(|cx| Pin::new(&mut *answers).poll_frame(cx)).await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.frames.push(data),
                        Err(frame) => {
                            let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
                            return Answer::End(status.code(), status.message().to_owned());
                        }
                    },
                    Some(Err(status)) => return Answer::End(status.code(), status.message().to_owned()),
                    None => return Answer::End(Code::Unknown, "no trailers".into()),
                }
            }
        };
        timeout(SHORT, next).await.unwrap_or(Answer::Silence)
    }
}

struct Upload(mpsc::Receiver<Bytes>);

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, Status>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|p| Ok(BodyFrame::data(p))))
    }
}

/// The next batch handed to the record thread.
async fn handed(queue: &mut mpsc::Receiver<Job>) -> (u64, u64) {
    match timeout(LONG, queue.recv()).await.unwrap().unwrap() {
        Job::Batch(mut b) => {
            written(&mut b);
            (b.epoch.0, b.seq.0)
        }
        Job::Stopping { .. } => (0, 0),
    }
}

/// A batch is in its files, though nobody is told.
fn written(batch: &mut crate::processor::shared::Incoming) {
    batch.queued.commit(0, [0, 0]);
    batch.acks.expect_no_more(batch.view.message().len());
}

/// The first `n` batches of an epoch, three packets each.
fn sealed(hunter: &str, epoch: u64, n: usize) -> Vec<SealedBatch> {
    sealed_of(3, hunter, epoch, n)
}

/// The first `n` batches of an epoch.
fn sealed_of(packets: usize, hunter: &str, epoch: u64, n: usize) -> Vec<SealedBatch> {
    let call = CallContext { call_id: "call@host".into(), filter_ids: [Arc::from("f1")].into(), ..CallContext::default() };
    let mut encoder = Encoder::new(EncoderConfig { hunter_id: hunter.into(), epoch: Epoch(epoch), limits: Limits::default() });
    let batch = |i| {
        for _ in 0..packets {
            let frame = Frame {
                ts: Timestamp::from_nanos(i),
                wire_len: 200,
                link: LinkType::ETHERNET,
                interface: InterfaceId(0),
                data: &[0x55; 200],
            };
            assert_eq!(encoder.push(&frame, Some((ContextKey(1), &call)), &[], false), Pushed::Stored);
        }
        encoder.seal(5, 1, &BatchStats::default()).unwrap()
    };
    (0..).take(n).map(batch).collect()
}
