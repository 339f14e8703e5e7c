//! Turmoil's network as the product's roads and connections. A host's name stands for the certificate it would show.
//!
//! What the way costs is added here, where a stream is read, since turmoil loses a segment for good: nothing is sent again, and a stream that
//! has lost one never goes on. What a program sees of loss below TCP is time: a lost segment comes after 200 ms, 400 more when it is lost
//! again, and so on, and everything behind it waits. Each stream has dice of its own: in which order several are written to says nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf, join};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use super::Dice;
use crate::net::dial::{Connecting, Road};
use crate::net::{PeerIdentity, PeerInfo, Role, Target};

pub(super) const PORT: u16 = 55_555;
/// A segment.
const SEGMENT: usize = 1460;
/// Bytes that are under way on one stream in one direction at most.
const WINDOW: usize = 64 << 10;
/// A segment that was lost is sent again after this, and after twice as long each time.
const AGAIN: Duration = Duration::from_millis(200);

/// What every way costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// At most; a fifth of it as a rule.
    pub(super) latency: Duration,
    /// Segments of a hundred that are lost.
    pub(super) loss: u64,
    pub(super) seed: u64,
}

/// What is read of a stream comes late.
#[derive(Debug)]
pub(super) struct Late {
    stream: OwnedReadHalf,
    cost: Cost,
    dice: Dice,
    coming: VecDeque<(Instant, Vec<u8>)>,
    under_way: usize,
    over: bool,
    wake: Pin<Box<Sleep>>,
}

/// A stream whose bytes come late.
type LateStream = Join<Late, OwnedWriteHalf>;

fn late(stream: TcpStream, cost: Cost) -> LateStream {
    let mut way = DefaultHasher::new();
    (cost.seed, stream.local_addr().ok(), stream.peer_addr().ok()).hash(&mut way);
    let dice = Dice(way.finish());
    let wake = Box::pin(sleep(Duration::ZERO));
    let (stream, write) = stream.into_split();
    join(Late { stream, cost, dice, coming: VecDeque::new(), under_way: 0, over: false, wake }, write)
}

impl Late {
    /// When a segment that was just sent is here.
    fn due(&mut self) -> Instant {
        let share = u32::try_from(self.dice.roll(1000)).unwrap();
        let mut takes = (0..3).fold(self.cost.latency * share / 1000, |takes, _| takes * share / 1000);
        let mut again = AGAIN;
        while self.dice.roll(100) < self.cost.loss {
            takes += again;
            again *= 2;
        }
        let due = Instant::now() + takes;
        self.coming.back().map_or(due, |(before, _)| due.max(*before))
    }
}

impl AsyncRead for Late {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        while !this.over && this.under_way < WINDOW {
            let mut segment = [0; SEGMENT];
            let mut into = ReadBuf::new(&mut segment);
            match Pin::new(&mut this.stream).poll_read(cx, &mut into) {
                Poll::Ready(read) => read?,
                Poll::Pending => break,
            }
            this.over = into.filled().is_empty();
            if !this.over {
                this.under_way += into.filled().len();
                let due = this.due();
                this.coming.push_back((due, into.filled().to_vec()));
            }
        }
        let Some((due, bytes)) = this.coming.front_mut() else {
            return if this.over { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if Instant::now() < *due {
            this.wake.as_mut().reset(*due);
            std::task::ready!(this.wake.as_mut().poll(cx));
        }
        let fits = buf.remaining().min(bytes.len());
        buf.put_slice(&bytes[..fits]);
        bytes.drain(..fits);
        this.under_way -= fits;
        if bytes.is_empty() {
            this.coming.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

/// The way from one host to another.
#[derive(Debug)]
pub(super) struct SimRoad(pub(super) Cost);

impl Road for SimRoad {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            Ok(Box::new(late(stream, self.0)) as Box<_>)
        })
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: LateStream,
    peer: PeerInfo,
}

impl Connected for Wire {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// Listens on this host; connections that grow old are rolled after `age`.
pub(super) async fn listen(
    age: Option<Duration>,
    cost: Cost,
) -> turmoil::Result<impl Stream<Item = Result<Wire, Infallible>> + Send> {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    let (give, incoming) = mpsc::channel(16);
    tokio::task::spawn_local(async move {
        while let Ok((stream, remote)) = listener.accept().await {
            let local = stream.local_addr().unwrap_or(remote);
            let id = turmoil::reverse_lookup(remote.ip()).unwrap_or_default();
            let role = match id.chars().next() {
                Some('p') => Role::Processor,
                Some('s') => Role::Subscriber,
                _ => Role::Hunter,
            };
            let identity = PeerIdentity { role, id };
            let rolls = age.and_then(|age| Instant::now().checked_add(age));
            let peer = PeerInfo { rolls, ..PeerInfo::new(remote, local, Some(identity), true) };
            let stream = late(stream, cost);
            if give.send(Ok(Wire { stream, peer })).await.is_err() {
                break;
            }
        }
    });
    Ok(ReceiverStream::new(incoming))
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
