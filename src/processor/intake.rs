//! Messages that have begun and not ended: how much memory they may take, and how long.
//!
//! A message is kept until its last byte has come, so whoever begins many and ends none holds memory without ever being wrong. Every
//! request body passes a meter that knows where gRPC messages end:
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | one message, but for a hunter's batch | 1 MiB | the call ends before any of it is kept, `RESOURCE_EXHAUSTED` |
//! | unfinished messages of one peer: a name, or an address where nobody has one | 12 MiB | the call that asks for more ends, `RESOURCE_EXHAUSTED` |
//! | of all peers together | 16 MiB, an eighth of `--memory-limit` at most | the same |
//! | of one connection, whatever the two above say | 128 KiB | nothing: an honest hunter is not crowded out by others |
//! | time of one message | 30 s and a second per 32 KiB of it | the call ends, `DEADLINE_EXCEEDED` |
//! | data streams of one connection | 4 | a further one is refused |
//!
//! A call counts with what it announces, since room is made for that; a batch with what has come of it. Time in which nobody asks for bytes, since the record thread is busy, does not count.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use crate::net::{PeerIdentity, PeerInfo};

/// Largest message that is no batch: a registration with everything an old node may say of itself, many times over.
pub const CALL_MAX: usize = 1 << 20;
/// Unfinished messages of one peer: the largest batch of an old hunter, and something beside it.
const PEER_MAX: u64 = 12 << 20;
/// Of all peers.
const ALL_MAX: u64 = 16 << 20;
/// A connection below this is served whatever others have: the usual batch and as much again.
const SMALL: u64 = 128 << 10;
const _: () = assert!(crate::batch::LONG_BYTES as u64 + 4096 < SMALL, "a hunter that is slowed is not crowded out");
/// Data streams of one connection: one, and some that are about to end.
const DATA_STREAMS: usize = 4;
/// Patience for a message, and the least speed beyond that.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SEC: usize = 32 << 10;
/// Nobody asked for bytes for this long: the peer is not to blame for the time.
const AWAY: Duration = Duration::from_secs(5);
/// Flag and length before each message.
const PREFIX: usize = 5;

/// All unfinished messages.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    max: u64,
    used: AtomicU64,
    open: Mutex<Table>,
    large: AtomicU64,
    crowded: AtomicU64,
    slow: AtomicU64,
    streams: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<SocketAddr, Use>,
    peers: HashMap<Peer, Use>,
}

/// Who shares a bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    Named(PeerIdentity),
    At(IpAddr),
}

impl Peer {
    pub(super) fn of(peer: &PeerInfo) -> Self {
        peer.identity.clone().map_or_else(|| Self::At(peer.remote.ip()), Self::Named)
    }
}

/// How long the other side may take for so many bytes.
pub(super) fn patience(bytes: usize) -> Duration {
    PATIENCE.saturating_add(Duration::from_secs((bytes / BYTES_PER_SEC) as u64))
}

/// What one connection, or one peer, has open.
#[derive(Debug, Default)]
struct Use {
    bytes: Arc<AtomicU64>,
    calls: usize,
    data_streams: usize,
}

/// Calls that ended at a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    /// Bytes of unfinished messages now.
    pub bytes: u64,
    /// Announced more than a message may have.
    pub large: u64,
    /// Too many bytes of unfinished messages.
    pub crowded: u64,
    /// Too slow.
    pub slow: u64,
    /// Too many data streams of one connection.
    pub streams: u64,
}

impl IntakeCounts {
    /// All calls that ended at a bound.
    pub const fn refused(&self) -> u64 {
        self.large.saturating_add(self.crowded).saturating_add(self.slow).saturating_add(self.streams)
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self::within(u64::MAX)
    }
}

impl Intake {
    /// An eighth of this much memory at most.
    #[must_use]
    pub fn within(limit: u64) -> Self {
        Self(Arc::new(Inner { max: ALL_MAX.min(limit / 8), ..Inner::default() }))
    }

    /// The figures of this moment.
    pub fn counts(&self) -> IntakeCounts {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        IntakeCounts {
            bytes: of(&self.0.used),
            large: of(&self.0.large),
            crowded: of(&self.0.crowded),
            slow: of(&self.0.slow),
            streams: of(&self.0.streams),
        }
    }

    /// A call of this peer begins.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: a data stream too many.
    pub fn enter(&self, peer: &PeerInfo, data_stream: bool) -> Result<Ticket, Status> {
        let whose = Peer::of(peer);
        let mut open = self.0.open.lock();
        let of = open.connections.entry(peer.remote).or_default();
        if data_stream && of.data_streams >= DATA_STREAMS {
            self.0.streams.fetch_add(1, Ordering::Relaxed);
            let text = format!("this connection has {DATA_STREAMS} data streams already; a hunter needs one");
            return Err(Status::resource_exhausted(text));
        }
        of.calls = of.calls.saturating_add(1);
        of.data_streams = of.data_streams.saturating_add(usize::from(data_stream));
        let connection = Arc::clone(&of.bytes);
        let of = open.peers.entry(whose.clone()).or_default();
        of.calls = of.calls.saturating_add(1);
        let of_peer = Arc::clone(&of.bytes);
        Ok(Ticket { intake: self.clone(), remote: peer.remote, whose, data_stream, connection, of_peer, charged: 0 })
    }
}

/// One call's part.
#[derive(Debug)]
pub struct Ticket {
    intake: Intake,
    remote: SocketAddr,
    whose: Peer,
    data_stream: bool,
    connection: Arc<AtomicU64>,
    of_peer: Arc<AtomicU64>,
    charged: u64,
}

impl Ticket {
    /// The unfinished message of this call has so many bytes now; false: there is no room for them.
    fn charge(&mut self, bytes: u64) -> bool {
        let (more, less) = (bytes.saturating_sub(self.charged), self.charged.saturating_sub(bytes));
        self.charged = bytes;
        let now = |of: &AtomicU64| {
            of.fetch_sub(less, Ordering::Relaxed);
            of.fetch_add(more, Ordering::Relaxed).saturating_add(more)
        };
        let (connection, peer, all) = (now(&self.connection), now(&self.of_peer), now(&self.intake.0.used));
        more == 0 || connection <= SMALL || (peer <= PEER_MAX && all <= self.intake.0.max)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.charge(0);
        let mut open = self.intake.0.open.lock();
        if let Some(of) = open.connections.get_mut(&self.remote) {
            of.calls = of.calls.saturating_sub(1);
            of.data_streams = of.data_streams.saturating_sub(usize::from(self.data_stream));
            if of.calls == 0 {
                open.connections.remove(&self.remote);
            }
        }
        if let Some(of) = open.peers.get_mut(&self.whose) {
            of.calls = of.calls.saturating_sub(1);
            if of.calls == 0 {
                open.peers.remove(&self.whose);
            }
        }
    }
}

/// A request body whose unfinished message is counted.
pub struct Metered {
    inner: Body,
    ticket: Ticket,
    /// Bytes of the prefix that have come.
    prefix: [u8; PREFIX],
    have: usize,
    /// Bytes of the message that are missing.
    missing: usize,
    /// Bytes of it that are here.
    here: u64,
    until: Option<Pin<Box<Sleep>>>,
    /// When the last piece was handed on; nothing while the peer is waited for.
    handed: Option<Instant>,
}

impl Metered {
    /// `inner`, counted by `ticket`.
    pub fn new(inner: Body, ticket: Ticket) -> Self {
        Self { inner, ticket, prefix: [0; PREFIX], have: 0, missing: 0, here: 0, until: None, handed: None }
    }

    fn take(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.missing == 0 {
                let wanted = PREFIX.saturating_sub(self.have);
                let (now, rest) = data.split_at(wanted.min(data.len()));
                for byte in now {
                    if let Some(to) = self.prefix.get_mut(self.have) {
                        *to = *byte;
                    }
                    self.have = self.have.saturating_add(1);
                }
                data = rest;
                if self.have == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    // a stream of batches has a bound of its own, and says what is beyond it
                    if self.missing > CALL_MAX && !self.ticket.data_stream {
                        self.ticket.intake.0.large.fetch_add(1, Ordering::Relaxed);
                        let text = format!("message of {} bytes is larger than {CALL_MAX}", self.missing);
                        return Err(Status::resource_exhausted(text));
                    }
                    self.have = 0;
                    self.here = 0;
                }
            } else {
                let (now, rest) = data.split_at(self.missing.min(data.len()));
                self.missing = self.missing.saturating_sub(now.len());
                self.here = self.here.saturating_add(now.len() as u64);
                data = rest;
            }
        }
        let unfinished = match self.missing {
            0 => 0,
            // room for all of it is made at once
            missing if !self.ticket.data_stream => self.here.saturating_add(missing as u64),
            _ => self.here,
        };
        if !self.ticket.charge(unfinished) {
            self.ticket.intake.0.crowded.fetch_add(1, Ordering::Relaxed);
            return Err(Status::resource_exhausted("too many bytes of unfinished messages; finish one before the next"));
        }
        let under_way = self.missing > 0 || self.have > 0;
        if !under_way {
            self.until = None;
        } else if self.until.is_none() {
            self.until = Some(Box::pin(sleep(patience(self.missing))));
        }
        Ok(())
    }

    /// Whether the peer takes too long for its message.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> bool {
        let away = self.handed.take().is_some_and(|handed| handed.elapsed() > AWAY);
        if let Some(until) = self.until.as_mut().filter(|_| away) {
            until.as_mut().reset(Instant::now() + PATIENCE);
        }
        let late = self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready());
        if late {
            self.ticket.intake.0.slow.fetch_add(1, Ordering::Relaxed);
        }
        late
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(next) = Pin::new(&mut this.inner).poll_frame(cx) else {
            if this.poll_late(cx) {
                return Poll::Ready(Some(Err(Status::deadline_exceeded("the message does not come to its end; send it faster"))));
            }
            return Poll::Pending;
        };
        this.handed = Some(Instant::now());
        let Some(frame) = next.transpose()? else { return Poll::Ready(None) };
        if let Some(data) = frame.data_ref() {
            this.take(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection from an address of its own.
    fn peer(n: u16) -> PeerInfo {
        let [high, low] = n.to_be_bytes();
        PeerInfo::new(SocketAddr::from(([10, 0, high, low], n)), SocketAddr::from(([127, 0, 0, 1], 1)), None, true)
    }

    fn metered(intake: &Intake, n: u16) -> Metered {
        Metered::new(Body::empty(), intake.enter(&peer(n), true).unwrap())
    }

    fn message(announced: u32, here: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(announced.to_be_bytes());
        bytes.resize(PREFIX + here, 7);
        bytes
    }

    #[tokio::test]
    async fn only_what_is_unfinished_is_charged_however_it_is_cut() {
        let intake = Intake::default();
        let mut body = metered(&intake, 1);
        let mut bytes = message(1000, 1000);
        bytes.extend(message(0, 0));
        bytes.extend(message(1000, 400));

        for piece in bytes.chunks(7) {
            body.take(piece).unwrap();
        }

        assert_eq!(intake.counts().bytes, 400);
        body.take(&[7; 600]).unwrap();
        assert_eq!(intake.counts().bytes, 0);
        body.take(&message(1000, 999)).unwrap();
        drop(body);
        assert_eq!(intake.counts(), IntakeCounts::default());
        let open = intake.0.open.lock();
        assert!(open.connections.is_empty() && open.peers.is_empty());
    }

    #[tokio::test]
    async fn a_peer_has_its_bound_over_all_connections_and_all_together_have_one_that_spares_small_ones() {
        let intake = Intake::default();
        let mib = 1 << 20;
        let identity = PeerIdentity { role: crate::net::Role::Hunter, id: "edge".into() };
        let of_edge = |n| PeerInfo { identity: Some(identity.clone()), ..peer(n) };
        let mut greedy: Vec<Metered> =
            (0..13).map(|n| Metered::new(Body::empty(), intake.enter(&of_edge(n), true).unwrap())).collect();
        let refused = greedy.iter_mut().filter_map(|b| b.take(&message(2 << 20, mib)).err()).count();
        assert_eq!(refused, 1, "12 MiB of one name, whatever its addresses");

        let mut many: Vec<Metered> = (100..130).map(|n| metered(&intake, n)).collect();
        let refused = many.iter_mut().filter_map(|b| b.take(&message(8 << 20, mib)).err()).count();
        let mut honest = metered(&intake, 999);

        assert_eq!(refused, 30 + 13 - 16, "16 MiB of all");
        assert!(honest.take(&message(64 << 10, 60 << 10)).is_ok());
        assert_eq!(intake.counts().crowded, 1 + refused as u64);
    }

    #[tokio::test]
    async fn what_is_no_batch_counts_whole_from_its_first_byte() {
        let intake = Intake::default();
        let mut call = Metered::new(Body::empty(), intake.enter(&peer(1), false).unwrap());

        call.take(&message(1 << 20, 1)).unwrap();

        assert_eq!(intake.counts().bytes, 1 << 20);
        call.take(&vec![7; (1 << 20) - 1]).unwrap();
        assert_eq!(intake.counts().bytes, 0);
    }

    #[tokio::test]
    async fn what_is_no_batch_is_refused_by_the_length_it_announces() {
        let intake = Intake::default();
        let mut call = Metered::new(Body::empty(), intake.enter(&peer(1), false).unwrap());
        let largest = u32::try_from(CALL_MAX).unwrap();

        assert!(call.take(&message(largest, CALL_MAX)).is_ok());
        assert_eq!(call.take(&message(largest + 1, 0)).unwrap_err().code(), tonic::Code::ResourceExhausted);

        assert_eq!((intake.counts().large, intake.counts().bytes), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_ends_ends_its_call() {
        struct Silent;
        impl HttpBody for Silent {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                Poll::Pending
            }
        }
        let intake = Intake::default();
        let mut body = Metered::new(Body::new(Silent), intake.enter(&peer(1), true).unwrap());
        body.take(&message(320 << 10, 1)).unwrap();
        let began = Instant::now();

        let end = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap_err();

        assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
        assert_eq!((began.elapsed().as_secs(), intake.counts().slow), (39, 1));
        assert!((1..4).all(|_| intake.enter(&peer(1), true).map(std::mem::forget).is_ok()));
        assert_eq!(intake.enter(&peer(1), true).unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
