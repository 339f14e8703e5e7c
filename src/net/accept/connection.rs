//! An accepted connection: who is at its other end, and what ends it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::Connected;

use super::super::Io;
use super::super::facts::PeerIdentity;
use super::super::keys::KeyInUse;
use super::counts::count;
use super::http2::WINDOW_MOST;
use super::open::Slot;
use super::{FIRST_WORD, ROLL_GRACE};

/// After so many bytes whoever takes them out of HTTP/2 has its turn: what one connection has read and nobody taken stays as small as this.
const TURN: usize = 64 << 10;

/// The first word of a client: the preface and the header of its SETTINGS (RFC 9113 §3.4). From there on HTTP/2 itself asks whether it is there.
const FIRST_WORD_BYTES: usize = 24 + 9;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where the peer is; IPv4 as IPv4, also on a socket for both.
    pub remote: SocketAddr,
    /// The address of ours it reached.
    pub local: SocketAddr,
    /// What its certificate or key says it is; nothing without one, or without an `lc:` URI in it.
    pub identity: Option<PeerIdentity>,
    /// Whether it showed a certificate, with a name or without.
    pub certificate: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// When endless calls on it shall end, so that the peer makes another connection.
    pub rolls: Option<Instant>,
    /// The key that this call is made with; such calls end when it is taken out.
    pub key: Option<KeyInUse>,
    /// Bytes it may send on its connection before they are read.
    pub window: u32,
    /// Its connection ends when this is shut.
    pub gate: Arc<Gate>,
}

impl PeerInfo {
    /// Somebody at `remote`, without a certificate unless `identity` names one.
    #[must_use]
    pub fn new(remote: SocketAddr, local: SocketAddr, identity: Option<PeerIdentity>, tls: bool) -> Self {
        let (certificate, rolls, key, gate) = (identity.is_some(), None, None, Arc::default());
        Self { remote, local, identity, certificate, tls, rolls, key, window: WINDOW_MOST, gate }
    }

    /// Cuts the connection; false when it was cut before.
    pub fn cut(&self) -> bool {
        self.gate.shut()
    }

    /// Returns when endless calls of this peer shall end: its connection is old, or its key was taken out; never, for one of which neither may be.
    pub async fn rolled(peer: Option<Self>) {
        let (rolls, key) = peer.map_or((None, None), |p| (p.rolls, p.key));
        let old = async {
            match rolls {
                Some(when) => sleep_until(when).await,
                None => std::future::pending().await,
            }
        };
        let gone = async {
            match key {
                Some(key) => key.gone().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = old => {}
            () = gone => {}
        }
    }
}

/// Shut from outside; the connection behind it ends.
#[derive(Debug, Default)]
pub struct Gate {
    shut: AtomicBool,
    reader: AtomicWaker,
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Gate {}

impl Gate {
    /// False when it was shut before.
    pub(super) fn shut(&self) -> bool {
        let first = !self.shut.swap(true, Ordering::AcqRel);
        self.reader.wake();
        first
    }

    fn pass(&self) -> io::Result<()> {
        if self.shut.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut"));
        }
        Ok(())
    }
}

/// An accepted connection; while it lives it counts against [`super::AcceptLimits`]. tonic puts its [`PeerInfo`] into the extensions
/// of each request.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: PeerInfo,
    /// When it is cut: without a whole first word soon, later when it is old.
    until: Pin<Box<Sleep>>,
    /// Bytes of the first word that have not come.
    unheard: usize,
    /// Bytes read since others had their turn.
    turn: usize,
    slot: Slot,
}

impl Connection {
    pub(super) fn new(io: Io, peer: PeerInfo, slot: Slot) -> Self {
        let until = Box::pin(sleep_until(Instant::now() + FIRST_WORD));
        Self { io, peer, until, unheard: FIRST_WORD_BYTES, turn: 0, slot }
    }

    /// Who is at the other end.
    pub const fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The bytes, as they are read and written.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Whether its time is over.
    fn poll_until(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let heard = self.unheard == 0;
        if (!heard || self.peer.rolls.is_some()) && self.until.as_mut().poll(cx).is_ready() {
            let counters = self.slot.counters();
            count(if heard { &counters.aged } else { &counters.silent });
            let why = if heard { "the connection is too old" } else { "the peer does not begin HTTP/2" };
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // registered before the look, so that a gate shut in between wakes
        this.peer.gate.reader.register(cx.waker());
        this.peer.gate.pass()?;
        this.poll_until(cx)?;
        if this.turn >= TURN {
            this.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) else {
            this.turn = 0;
            return Poll::Pending;
        };
        read?;
        let came = buf.filled().len().saturating_sub(before);
        this.turn = this.turn.saturating_add(came);
        if this.unheard > 0 {
            this.unheard = this.unheard.saturating_sub(came);
            if let (0, Some(rolls)) = (this.unheard, this.peer.rolls) {
                this.until.as_mut().reset(rolls + ROLL_GRACE);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.peer.gate.pass()?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.peer.gate.pass()?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
