//! A monitor's stream: the response body of `SubscribePackets`.
//!
//! It is asked for more only while the monitor's connection takes more (HTTP/2 flow control), so what a monitor does not read stays in its ring.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use super::granted::{Granted, Part};
use super::offered::Offered;
use super::ring::{Figures, Next, Ring};
use super::wish::Wish;
use crate::batch::{BatchError, grpc_prefix, selected, skipped};
use crate::net::PeerInfo;
use crate::processor::intake::CALL_MAX;
use crate::processor::shared::Shared;
use crate::telemetry::Said;
use crate::wire::data::SubscribeRequest;
use crate::wire::frame::Deframer;

/// Largest message, what is said behind it included: monitors of the predecessor receive less than 4 MiB (the library's default).
const MESSAGE_MAX: usize = (4 << 20) - 1;
/// Room for what is said behind it.
const TAIL_MAX: usize = 12;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The stream.
pub(in crate::processor) struct Watch {
    stage: Stage,
    /// The processor stops, or the connection is old; or nothing is granted any more, and this is said. Gone once that is so.
    over: Option<Later<Option<Status>>>,
    /// What is to be handed on next.
    pieces: VecDeque<Bytes>,
}

enum Stage {
    /// The request is read and checked.
    Opening(Later<Result<Seat, Status>>),
    Watching(Seat),
    /// What the monitor is told at the end, once.
    Ended(Option<Status>),
}

impl Watch {
    /// Answers this call.
    pub(in crate::processor) fn answer(shared: &Arc<Shared>, peer: Option<PeerInfo>, request: Body) -> Self {
        let granted = match Granted::to(shared, peer.as_ref()) {
            Ok(granted) => Arc::new(granted),
            Err(status) => return Self { stage: Stage::Ended(Some(status)), over: None, pieces: VecDeque::new() },
        };
        let (of, whose, theirs) = (Arc::clone(shared), peer.clone(), Arc::clone(&granted));
        let over = async move {
            tokio::select! {
                biased;
                () = of.ending.wait() => None,
                () = PeerInfo::rolled(whose.clone()) => None,
                status = theirs.gone(&of, whose) => Some(status),
            }
        };
        let opening = Seat::take(Arc::clone(shared), peer, granted, request);
        Self { stage: Stage::Opening(Box::pin(opening)), over: Some(Box::pin(over)), pieces: VecDeque::new() }
    }

    /// Whether the stream is to end.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(Poll::Ready(told)) = self.over.as_mut().map(|over| over.as_mut().poll(cx)) {
            self.over = None;
            if told.is_some() {
                // what waits is not granted
                self.stage = Stage::Ended(told);
            }
        }
        self.over.is_none()
    }

    /// One step on: a batch at most, so that no monitor takes a thread for long.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.is_over(cx);
        match &mut self.stage {
            Stage::Opening(_) if over => {
                let text = "the processor is stopping, or this connection is old; connect again";
                self.stage = Stage::Ended(Some(Status::unavailable(text)));
            }
            Stage::Opening(opening) => {
                self.stage = match ready!(opening.as_mut().poll(cx)) {
                    Ok(seat) => Stage::Watching(seat),
                    Err(status) => Stage::Ended(Some(status)),
                };
            }
            Stage::Watching(seat) => {
                if over {
                    // what waits is sent, and no more
                    seat.shared.monitors.close(&seat.ring);
                }
                match seat.poll_next(cx) {
                    Poll::Ready(pieces) => self.pieces.extend(pieces),
                    Poll::Pending if over => self.stage = Stage::Ended(Some(Status::new(Code::Ok, ""))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Stage::Ended(_) => {}
        }
        Poll::Ready(())
    }
}

impl HttpBody for Watch {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.pieces.is_empty() {
            ready!(this.poll_step(cx));
        }
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Stage::Ended(status) = &mut this.stage else {
            // others first
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let Some(status) = status.take() else { return Poll::Ready(None) };
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

/// A monitor's place; it is free again however its stream ends.
struct Seat {
    shared: Arc<Shared>,
    ring: Arc<Ring>,
    /// Packets skipped that it is to be told of.
    owed: u64,
    who: String,
    peer: String,
}

impl Seat {
    async fn take(shared: Arc<Shared>, peer: Option<PeerInfo>, granted: Arc<Granted>, request: Body) -> Result<Self, Status> {
        let wish = Wish::of(read(request).await?, &shared.monitors).await?;
        if let Some(hunter) = wish.beyond(|hunter| granted.sees(hunter)) {
            return Err(Granted::refuse(&shared, hunter));
        }
        let ring = shared.monitors.join(wish, granted).await?;
        let identity = peer.as_ref().and_then(|p| p.identity.as_ref());
        let who = identity.map_or_else(|| "nobody".to_owned(), |i| format!("{} {}", i.role, i.id));
        let seat = Self { shared, ring, owed: 0, who, peer: peer.map(|p| p.remote.to_string()).unwrap_or_default() };
        let (wish, hunters) = (&seat.ring.wish, seat.ring.wish.hunters());
        tracing::info!(
            target: "audit",
            subscription = seat.ring.number,
            who = %Said(&seat.who),
            peer = seat.peer,
            client = %Said(&wish.client),
            filter = %Said(&wish.expression),
            hunters = %Said(&hunters),
            grant = %Said(&seat.ring.granted.said()),
            "subscription began"
        );
        Ok(seat)
    }

    /// What is sent next; nothing, where a filter lets nothing of a batch through.
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Vec<Bytes>> {
        let messages = match self.shared.monitors.next(&self.ring, cx) {
            Next::Batch(gap, batch) => {
                let (messages, figures) = messages(&batch, &self.ring.wish, &self.ring.granted);
                self.ring.settle(figures);
                self.owed = self.owed.saturating_add(gap).saturating_add(figures.skipped);
                messages
            }
            Next::Gap(gap) => {
                self.owed = self.owed.saturating_add(gap);
                Vec::new()
            }
            // what nothing follows is told as well
            Next::Nothing if self.owed > 0 => vec![Bytes::new()],
            Next::Nothing => return Poll::Pending,
        };
        let frame = |message: Bytes| {
            let tail = skipped(std::mem::take(&mut self.owed));
            let prefix = grpc_prefix(message.len().saturating_add(tail.len()));
            [Bytes::copy_from_slice(&prefix), message, tail]
        };
        Poll::Ready(messages.into_iter().flat_map(frame).filter(|piece| !piece.is_empty()).collect())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let of = self.shared.monitors.leave(&self.ring);
        let (wish, hunters) = (&self.ring.wish, self.ring.wish.hunters());
        tracing::info!(
            target: "audit",
            subscription = self.ring.number,
            who = %Said(&self.who),
            peer = self.peer,
            client = %Said(&wish.client),
            filter = %Said(&wish.expression),
            hunters = %Said(&hunters),
            grant = %Said(&self.ring.granted.said()),
            offered = of.offered,
            delivered = of.delivered,
            bytes = of.bytes,
            filtered = of.filtered,
            skipped = of.skipped,
            "subscription ended"
        );
    }
}

/// The messages that a monitor is sent of a batch, and what became of its packets.
fn messages(batch: &Offered, wish: &Wish, granted: &Granted) -> (Vec<Bytes>, Figures) {
    let part = match granted.part(batch) {
        Part::Whole => None,
        Part::Of(part) => Some(part),
        Part::Nothing => return (Vec::new(), Figures { filtered: batch.packets, ..Figures::default() }),
    };
    let seen = part.as_deref().unwrap_or(batch);
    let chosen = choose(seen, wish).unwrap_or_else(|e| {
        debug_assert!(false, "a batch that was taken cannot be read: {e}");
        (Vec::new(), Figures { skipped: seen.packets, ..Figures::default() })
    });
    let (messages, mut figures) = chosen;
    figures.filtered = figures.filtered.saturating_add(batch.packets.saturating_sub(seen.packets));
    let bytes = messages.iter().map(|(m, _)| m.len() as u64).sum();
    let delivered = messages.iter().map(|(_, packets)| *packets).sum();
    figures = Figures { delivered, bytes, ..figures };
    (messages.into_iter().map(|(m, _)| m).collect(), figures)
}

type Chosen = (Vec<(Bytes, u64)>, Figures);

fn choose(batch: &Offered, wish: &Wish) -> Result<Chosen, BatchError> {
    let room = MESSAGE_MAX.saturating_sub(TAIL_MAX);
    let wanted: Option<Vec<bool>> =
        if wish.is_open() { None } else { Some(batch.view()?.packets().map(|p| wish.passes(&p)).collect()) };
    let passing = wanted.as_ref().map_or(batch.packets, |all| all.iter().filter(|wanted| **wanted).count() as u64);
    let filtered = batch.packets.saturating_sub(passing);
    if passing == 0 {
        return Ok((Vec::new(), Figures { filtered, ..Figures::default() }));
    }
    let message = batch.form(wish.contexts);
    if filtered == 0 && message.len() <= room {
        return Ok((vec![(message, passing)], Figures::default()));
    }
    let part = selected(&message, room, |n| wanted.as_ref().is_none_or(|all| all.get(n) == Some(&true)))?;
    Ok((part.messages, Figures { skipped: part.too_large, filtered, ..Figures::default() }))
}

/// The one message of a call.
async fn read(body: Body) -> Result<SubscribeRequest, Status> {
    let mut body = std::pin::pin!(body);
    let mut frames = Deframer::new(CALL_MAX);
    let wrong = |e: &dyn std::fmt::Display| Status::invalid_argument(format!("not a subscription: {e}"));
    loop {
        if let Some(message) = frames.next().map_err(|e| wrong(&e))? {
            return SubscribeRequest::decode(message).map_err(|e| wrong(&e));
        }
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return Err(wrong(&"the call ends before its message does")),
            Some(Err(status)) => return Err(status),
            Some(Ok(frame)) => frame.into_data().into_iter().for_each(|data| frames.push(data)),
        }
    }
}
