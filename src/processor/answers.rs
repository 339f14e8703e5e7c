//! Answers that peers asked for and have not taken: how much memory they may have, and how long.
//!
//! An answer is encoded at once and waits until its peer takes it, so whoever asks for much and takes nothing holds memory without ever being
//! wrong. Lists of filters, the longest there are, are in memory once for everybody who is told the same ([`super::filters`]); an answer has the
//! list behind its own bytes, which protobuf reads as one message.
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | answers of all peers that are not taken, their lists of filters aside | 64 MiB, a sixteenth of `--memory-limit` at most | `RESOURCE_EXHAUSTED` |
//! | of one peer: a name, or an address where nobody has one | half of that | the same |
//! | of a peer that has nothing else waiting | 16 KiB | nothing: an honest peer is not crowded out by others |
//! | time to take one | 30 s and a second per 32 KiB of it | the connection is cut |
//!
//! Answers without end (acknowledgements, changes of filters, packets for monitors) are not kept: they are made while their peer takes them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::filters::List;
use super::intake::{Peer, patience};
use crate::net::PeerInfo;

/// Bytes of all peers.
const ALL_MAX: u64 = 64 << 20;
/// An answer below this is given whatever others have, to a peer that waits for no other.
const SMALL: u64 = 16 << 10;
/// A list is handed on in pieces of this size.
const PIECE: usize = 64 << 10;
/// Flag and length before a message.
const PREFIX: usize = 5;

/// All answers that are not taken.
#[derive(Clone, Debug)]
pub struct Answers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: u64,
    table: Mutex<Table>,
    refused: AtomicU64,
    late: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    bytes: u64,
    peers: HashMap<Peer, u64>,
    /// When each is too late, and whose connection it is.
    waiting: HashMap<u64, (Option<Instant>, PeerInfo)>,
    next: u64,
}

/// Answers that ended at a bound, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    /// Bytes that wait now.
    pub bytes: u64,
    /// Not given, for want of room.
    pub refused: u64,
    /// Given and not taken in time: their connections were cut.
    pub late: u64,
}

impl Default for Answers {
    fn default() -> Self {
        Self::within(u64::MAX)
    }
}

impl Answers {
    /// A sixteenth of this much memory at most.
    #[must_use]
    pub fn within(limit: u64) -> Self {
        let (table, refused, late) = Default::default();
        Self(Arc::new(Inner { max: ALL_MAX.min(limit / 16), table, refused, late }))
    }

    /// The figures of this moment.
    pub fn counts(&self) -> AnswerCounts {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        AnswerCounts { bytes: self.0.table.lock().bytes, refused: of(&self.0.refused), late: of(&self.0.late) }
    }

    /// Cuts the connections of peers that take too long; once a second.
    pub(super) fn cut_late(&self) {
        let now = Instant::now();
        let mut table = self.0.table.lock();
        for (until, peer) in table.waiting.values_mut() {
            if until.take_if(|until| *until < now).is_some() {
                self.0.late.fetch_add(1, Ordering::Relaxed);
                peer.cut();
            }
        }
    }

    /// Counts an answer of one message until it is taken, and puts the list of filters behind it where it has one.
    pub(super) async fn give(&self, response: Response<Body>, peer: PeerInfo) -> Response<Body> {
        let (mut parts, mut rest) = response.into_parts();
        if rest.is_end_stream() {
            return Response::from_parts(parts, rest);
        }
        let list = parts.extensions.remove::<List>().map(|list| list.bytes).unwrap_or_default();
        let first = std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await;
        let message = match first {
            Some(Ok(frame)) => frame.into_data().map_err(|frame| frame.into_trailers().ok()),
            Some(Err(status)) => return status.into_http(),
            None => Err(None),
        };
        let message = match message {
            Ok(message) => lengthened(message, list.len()),
            Err(trailers) => {
                let status = trailers.and_then(|t| Status::from_header_map(&t));
                return status.unwrap_or_else(|| Status::internal("there is no answer")).into_http();
            }
        };
        let Some(owed) = self.owe(peer, message.len(), list.len()) else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return Status::resource_exhausted("too many answers wait to be taken; take one before asking for the next")
                .into_http();
        };
        let first = Some(keep(message, &owed));
        Response::from_parts(parts, Body::new(Given { first, list, rest, owed }))
    }

    /// Makes room for an answer.
    fn owe(&self, peer: PeerInfo, bytes: usize, list: usize) -> Option<Arc<Debt>> {
        let (whose, bytes) = (Peer::of(&peer), bytes as u64);
        let mut table = self.0.table.lock();
        let of_peer = table.peers.get(&whose).copied().unwrap_or(0);
        let (all, mine) = (table.bytes.saturating_add(bytes), of_peer.saturating_add(bytes));
        if mine > SMALL && (all > self.0.max || mine > self.0.max / 2) {
            return None;
        }
        table.bytes = all;
        table.peers.insert(whose.clone(), mine);
        let id = table.next;
        table.next = id.wrapping_add(1);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(list);
        table.waiting.insert(id, (Instant::now().checked_add(patience(length)), peer));
        Some(Arc::new(Debt { of: Arc::clone(&self.0), id, whose, bytes }))
    }
}

/// `message` as the beginning of one that has `more` bytes behind it.
fn lengthened(message: Bytes, more: usize) -> Bytes {
    let Some(([flag, ..], body)) = message.split_first_chunk::<PREFIX>().filter(|_| more > 0) else { return message };
    let length = u32::try_from(body.len().saturating_add(more)).unwrap_or(u32::MAX);
    [&[*flag][..], &length.to_be_bytes(), body].concat().into()
}

/// An answer's place among those that wait; given back when nothing of the answer is left.
#[derive(Debug)]
struct Debt {
    of: Arc<Inner>,
    id: u64,
    whose: Peer,
    bytes: u64,
}

/// `bytes`, for which room is owed as long as anybody has them.
fn keep(bytes: Bytes, owed: &Arc<Debt>) -> Bytes {
    Bytes::from_owner(Kept { bytes, _owed: Arc::clone(owed) })
}

impl Drop for Debt {
    fn drop(&mut self) {
        let mut table = self.of.table.lock();
        table.bytes = table.bytes.saturating_sub(self.bytes);
        table.waiting.remove(&self.id);
        if let Some(of_peer) = table.peers.get_mut(&self.whose) {
            *of_peer = of_peer.saturating_sub(self.bytes);
            if *of_peer == 0 {
                table.peers.remove(&self.whose);
            }
        }
    }
}

/// Bytes of an answer.
struct Kept {
    bytes: Bytes,
    _owed: Arc<Debt>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of an answer: its message, the list behind it, the status.
struct Given {
    first: Option<Bytes>,
    list: Bytes,
    rest: Body,
    owed: Arc<Debt>,
}

impl HttpBody for Given {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if !this.list.is_empty() {
            let piece = this.list.split_to(PIECE.min(this.list.len()));
            return Poll::Ready(Some(Ok(Frame::data(keep(piece, &this.owed)))));
        }
        Pin::new(&mut this.rest).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use http_body::Body as _;
    use prost::Message;

    use super::*;
    use crate::wire::management::{Filter, FilterResponse};

    /// From an address of its own.
    fn peer(n: u8) -> PeerInfo {
        PeerInfo::new(SocketAddr::from(([10, 0, 0, n], 1)), SocketAddr::from(([127, 0, 0, 1], 1)), None, true)
    }

    fn framed(message: &[u8]) -> Bytes {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat().into()
    }

    /// An answer of so many bytes, as a service gives it.
    fn answer(bytes: usize) -> Response<Body> {
        Response::new(Body::new(one_piece(framed(&vec![7; bytes]))))
    }

    /// A body of one piece.
    fn one_piece(bytes: Bytes) -> impl HttpBody<Data = Bytes, Error = Status> {
        struct One(Option<Bytes>);
        impl HttpBody for One {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
            }
        }
        One(Some(bytes))
    }

    fn is_refused(response: &Response<Body>) -> bool {
        response.headers().get("grpc-status").is_some_and(|status| status == "8")
    }

    async fn read(response: Response<Body>) -> Vec<u8> {
        let (mut body, mut all) = (response.into_body(), Vec::new());
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            all.extend(frame.unwrap().into_data().unwrap());
        }
        all
    }

    #[tokio::test]
    async fn answers_that_are_not_taken_have_a_bound_for_each_peer_and_one_for_all() {
        let answers = Answers::within(16 << 20);
        let mut kept = Vec::new();

        // half of 1 MiB, less what stands before each
        for _ in 0..6 {
            kept.push(answers.give(answer(100 << 10), peer(1)).await);
        }
        assert_eq!(kept.iter().filter(|a| is_refused(a)).count(), 1);
        for n in 2..8 {
            kept.push(answers.give(answer(100 << 10), peer(n)).await);
        }

        assert_eq!(kept.iter().filter(|a| is_refused(a)).count(), 2, "1 MiB of all");
        assert!(!is_refused(&answers.give(answer(10 << 10), peer(99)).await), "an honest one has room");
        assert_eq!(answers.counts().refused, 2);
        drop(kept);
        assert_eq!(answers.counts().bytes, 0);
        assert!(answers.0.table.lock().peers.is_empty() && answers.0.table.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_an_answer_in_time_is_cut() {
        let answers = Answers::default();
        let (slow, quick) = (peer(1), peer(2));
        let kept = answers.give(answer(1 << 20), slow.clone()).await;
        let mut taken = answers.give(answer(100), quick.clone()).await.into_body();
        let piece = std::future::poll_fn(|cx| Pin::new(&mut taken).poll_frame(cx)).await;
        drop((taken, piece));

        tokio::time::sleep(Duration::from_secs(61)).await;
        answers.cut_late();
        assert_eq!(answers.counts().late, 0, "30 s, and 32 for a megabyte");
        tokio::time::sleep(Duration::from_secs(2)).await;
        answers.cut_late();
        answers.cut_late();

        assert_eq!(answers.counts().late, 1);
        assert_eq!((slow.cut(), quick.cut()), (false, true), "cut already; not yet");
        drop(kept);
    }

    #[tokio::test]
    async fn a_list_behind_an_answer_is_part_of_its_message_and_of_no_bound() {
        let answers = Answers::within(1 << 20);
        let filter = |id: &str| Filter { id: id.into(), ..Filter::default() };
        let list = FilterResponse { filters: (0..20_000).map(|n| filter(&n.to_string())).collect() };
        let head = FilterResponse { filters: vec![filter("first")] };
        let mut response = Response::new(Body::new(one_piece(framed(&head.encode_to_vec()))));
        response.extensions_mut().insert(List { bytes: list.encode_to_vec().into(), filters: 20_000 });

        let given = answers.give(response, peer(1)).await;

        assert!(answers.counts().bytes < 100);
        let read = read(given).await;
        let length = u32::from_be_bytes(*read[1..].first_chunk().unwrap()) as usize;
        let told = FilterResponse::decode(&read[PREFIX..]).unwrap();
        assert_eq!((length, told.filters.len(), &*told.filters[0].id), (read.len() - PREFIX, 20_001, "first"));
    }
}
