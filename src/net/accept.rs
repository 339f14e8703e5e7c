//! Accepts connections: sockets, handshakes, who the peer is.
//!
//! ```text
//! listen sockets ─▶ room for one more? ─▶ plain ─────────────────────────────────────▶ Connection { Io, PeerInfo }
//!   (in turn)        no: closed, counted └▶ TLS handshake, ≤ 64 at once, ≤ 5 s each ─▶
//! ```
//!
//! Promises: a slow or silent peer delays nobody else; a connection that comes out has finished its handshake and agreed on
//! HTTP/2; nothing is spawned, all work happens in [`Stream::poll_next`]. Refuses and counts ([`AcceptCounters`]): connections
//! above [`AcceptLimits`], handshakes that fail or take too long, peers that do not speak HTTP/2, silent ones, revoked ones.
//! A connection whose certificate is revoked while it is open is cut within a second; one that is old is rolled. While the most handshakes
//! are pending, in all or of an address, further peers wait, accepted and counted among the connections, nothing read of them.

mod connection;
mod counts;
mod error;
pub mod http2;
mod open;
mod pending;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tracing::{debug, info, warn};

pub use self::connection::{Connection, Gate, PeerInfo};
use self::counts::count;
pub use self::counts::{AcceptCounters, AcceptCounts};
pub use self::error::ListenError;
use self::open::{Open, Slot};
use self::pending::Pending;
use super::facts::CertFacts;
use super::reload::Reloading;
use super::revoked::CertId;
use super::tls::{ALPN, ServerSetup, ServerTls, explain};
use super::{Io, tune};

/// A peer has begun HTTP/2 within this time, its preface and the header of its SETTINGS; a round trip, most of the time.
pub const FIRST_WORD: Duration = Duration::from_secs(10);
/// Endless calls have this long to end by themselves on a connection that is old; then it is cut.
pub const ROLL_GRACE: Duration = Duration::from_secs(30);

/// Certificates and revocation lists are looked at this often while nobody connects.
const LOOK: Duration = Duration::from_secs(1);
/// Connections the kernel keeps for us while they are not accepted.
const BACKLOG: i32 = 1024;
/// Pause after the process ran out of descriptors or memory: trying at once would spin.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// How much an [`Acceptor`] takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Connections open at once, handshakes included: 1024.
    pub connections: usize,
    /// Bytes that they may hold, all together, of what was sent to us and is not read. Each has a share of what is left when it comes, between
    /// [`http2::WINDOW_LEAST`] and [`http2::WINDOW_MOST`].
    pub memory: u64,
    /// Of these, from one address: 256, so that one machine cannot take all; a whole site may stand behind one address.
    pub per_address: usize,
    /// Of these, in one name: 4. A hunter has two, and two more while it makes others in their place.
    pub per_identity: usize,
    /// Connections older than this are rolled: endless calls end, and the peer connects again. One hour, give or take a tenth, so that
    /// not all do so at once; zero: never.
    pub age: Duration,
    /// Handshakes pending at once: 64, some tens of KiB each; at least 1. Three quarters of them may be of one address.
    pub pending: usize,
    /// Longest handshake: 5 s, several round trips around the world.
    pub handshake: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            memory: u64::MAX,
            per_address: 256,
            per_identity: 4,
            age: Duration::from_hours(1),
            pending: 64,
            handshake: Duration::from_secs(5),
        }
    }
}

/// The addresses meant by a host to listen on: without one every address of this machine, IPv6 and IPv4.
///
/// # Errors
/// [`ListenError::Resolve`].
pub async fn listen_addresses(host: Option<&str>, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    let Some(host) = host else {
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok();
        let every = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        return Ok(vec![SocketAddr::new(every, port)]);
    };
    match lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(cause) => Err(ListenError::Resolve { host: host.to_owned(), cause }),
    }
}

/// How a handshake ended.
enum Ended {
    Good(Box<Shaken>),
    Late(SocketAddr),
    Failed(SocketAddr, io::Error),
    NotHttp2(SocketAddr),
}

/// A peer after its handshake.
struct Shaken {
    io: Io,
    peer: PeerInfo,
    certificate: Option<CertId>,
    slot: Slot,
}

/// A peer before its handshake.
struct Met {
    socket: TcpStream,
    peer: PeerInfo,
    slot: Slot,
    config: Arc<ServerConfig>,
}

/// Listens on some addresses and yields [`Connection`]s; never ends and never fails by itself, dropping it closes the sockets.
pub struct Acceptor {
    listeners: Vec<TcpListener>,
    /// Whose turn it is, so that a busy address does not starve another.
    turn: usize,
    tls: Option<Arc<Reloading<ServerTls>>>,
    limits: AcceptLimits,
    handshakes: Pending<Met, Ended>,
    pause: Option<Pin<Box<Sleep>>>,
    looks: Interval,
    in_force: Option<Arc<ServerSetup>>,
    open: Arc<Open>,
}

impl Acceptor {
    /// Listens on `addresses`, with TLS by `tls` as it stands when a connection comes, or in plain text.
    ///
    /// An IPv6 wildcard takes IPv4 too, unless the IPv4 wildcard is given as well.
    ///
    /// # Errors
    /// [`ListenError`] for the first address that cannot be listened on.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind(
        addresses: &[SocketAddr],
        tls: Option<Arc<Reloading<ServerTls>>>,
        limits: AcceptLimits,
    ) -> Result<Self, ListenError> {
        if addresses.is_empty() {
            return Err(ListenError::Nowhere);
        }
        let mut listeners = Vec::with_capacity(addresses.len());
        for &address in addresses {
            let only_v6 = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
            listeners.push(listen(address, only_v6).map_err(|e| ListenError::new(address, e))?);
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            looks,
            in_force: tls.as_ref().map(|tls| tls.current()),
            listeners,
            turn: 0,
            tls,
            limits,
            handshakes: Pending::new(limits.pending),
            pause: None,
            open: Arc::new(Open::default()),
        })
    }

    /// Where it listens, ports chosen by the kernel included.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Its counts; they stay readable after it is gone.
    pub fn counters(&self) -> Arc<AcceptCounters> {
        Arc::clone(&self.open.counters)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.poll_listeners(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(accepted)) => return Poll::Ready(accepted),
                Poll::Ready(Err(e)) => {
                    count(&self.open.counters.errors);
                    if is_of_connection(&e) {
                        continue;
                    }
                    warn!(error = %e, "cannot accept connections; raise the limit of open files (LimitNOFILE)");
                    self.pause = Some(Box::pin(sleep(OUT_OF_RESOURCES)));
                }
            }
        }
    }

    fn poll_listeners(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (before, from) = self.listeners.split_at(self.turn.min(self.listeners.len()));
        for (n, listener) in from.iter().chain(before).enumerate() {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                let after = self.turn.saturating_add(n).saturating_add(1);
                self.turn = after.checked_rem(self.listeners.len()).unwrap_or(0);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    /// Takes a plain connection as it is, or lets an encrypted one wait for its handshake.
    fn admit(&mut self, socket: TcpStream, remote: SocketAddr) -> Option<Connection> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let mut slot = match Slot::take(&self.open, remote.ip(), &self.limits) {
            Ok(slot) => slot,
            Err(counter) => {
                count(counter);
                refused(
                    remote,
                    "too many connections are open, in all, from this address or for --memory-limit; see why its peers do not close them",
                );
                return None;
            }
        };
        let local = match tune(&socket).and_then(|()| socket.local_addr()) {
            Ok(local) => SocketAddr::new(local.ip().to_canonical(), local.port()),
            Err(error) => {
                // The peer is gone already.
                count(&self.open.counters.errors);
                debug!(%remote, %error, "connection lost");
                return None;
            }
        };
        let peer = PeerInfo { rolls: self.rolls(remote), ..PeerInfo::new(remote, local, None, self.tls.is_some()) };
        let Some(tls) = &self.tls else {
            count(&self.open.counters.accepted);
            let peer = PeerInfo { window: slot.widen(&self.limits), ..peer };
            return Some(Connection::new(Io::Plain(socket), peer, slot));
        };
        let config = Arc::clone(&tls.fresh().config);
        self.handshakes.wait(remote.ip(), Met { socket, peer, slot, config });
        None
    }

    /// When a connection that begins now is to be rolled.
    fn rolls(&self, remote: SocketAddr) -> Option<Instant> {
        let tenth = self.limits.age.checked_div(10).filter(|tenth| !tenth.is_zero())?;
        let spread = ahash::RandomState::new().hash_one(remote) % 21;
        // nine tenths, and up to two more
        let age = tenth.saturating_mul(9).saturating_add(tenth.saturating_mul(u32::try_from(spread).unwrap_or(0)) / 10);
        Instant::now().checked_add(age)
    }

    /// Takes the connection of a peer that has shown who it is.
    fn welcome(&self, shaken: Shaken) -> Option<Connection> {
        let Shaken { io, peer, certificate, mut slot } = shaken;
        let counters = &self.open.counters;
        if !slot.name(peer.identity.as_ref(), &self.limits) {
            count(&counters.refused_identity);
            refused(peer.remote, "too many connections are open in the name of this certificate; is it used twice?");
            return None;
        }
        if let Some(certificate) = certificate {
            // the handshake may have begun before the list changed
            if self.tls.as_ref().is_some_and(|tls| tls.current().revoked.has(&certificate)) {
                count(&counters.revoked);
                refused(peer.remote, "the peer's certificate was revoked");
                return None;
            }
            slot.certify(certificate, Arc::clone(&peer.gate));
        }
        count(&counters.accepted);
        let peer = PeerInfo { window: slot.widen(&self.limits), ..peer };
        Some(Connection::new(io, peer, slot))
    }

    /// Looks for changed files, and cuts connections of certificates that were revoked.
    fn look(&mut self) {
        let Some(tls) = &self.tls else { return };
        let fresh = tls.fresh();
        if self.in_force.as_ref().is_some_and(|before| Arc::ptr_eq(before, &fresh)) {
            return;
        }
        let cut = self.open.cut(&fresh.revoked);
        if cut > 0 {
            info!(target: "audit", connections = cut, "connections cut: their certificates were revoked");
        }
        self.in_force = Some(fresh);
    }

    fn end(&self, ended: Ended) -> Option<Connection> {
        let counters = &self.open.counters;
        match ended {
            Ended::Good(shaken) => return self.welcome(*shaken),
            Ended::Late(remote) => {
                count(&counters.handshakes_late);
                refused(remote, &format!("the TLS handshake was not finished within {:?}", self.limits.handshake));
            }
            Ended::Failed(remote, e) => {
                count(&counters.handshakes_failed);
                refused(remote, &explain(&e));
            }
            Ended::NotHttp2(remote) => {
                count(&counters.not_http2);
                refused(remote, "the peer did not ask for HTTP/2, so it is not an lc node; check what connects here");
            }
        }
        None
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("listeners", &self.listeners)
            .field("limits", &self.limits)
            .field("handshakes", &self.handshakes.len())
            .finish_non_exhaustive()
    }
}

impl Stream for Acceptor {
    type Item = Result<Connection, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while this.looks.poll_tick(cx).is_ready() {
            this.look();
        }
        loop {
            let limit = this.limits.handshake;
            if let Poll::Ready(ended) = this.handshakes.poll_ended(cx, |met| shake_hands(met, limit)) {
                match this.end(ended) {
                    Some(connection) => return Poll::Ready(Some(Ok(connection))),
                    None => continue,
                }
            }
            let (socket, remote) = ready!(this.poll_accept(cx));
            if let Some(connection) = this.admit(socket, remote) {
                return Poll::Ready(Some(Ok(connection)));
            }
        }
    }
}

pub(super) fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A restart must not wait for the connections of the run before (TIME-WAIT).
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Errors of the one connection that was about to be accepted (accept(2)); the next may be fine.
fn is_of_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

async fn shake_hands(met: Met, limit: Duration) -> Ended {
    let Met { socket, peer, slot, config } = met;
    let stream = match timeout(limit, TlsAcceptor::from(config).accept(socket)).await {
        Err(_) => return Ended::Late(peer.remote),
        Ok(Err(e)) => return Ended::Failed(peer.remote, e),
        Ok(Ok(stream)) => stream,
    };
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN) {
        return Ended::NotHttp2(peer.remote);
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let certificate = leaf.is_some();
    let identity = leaf.and_then(|leaf| CertFacts::read(leaf)).and_then(|facts| facts.identity);
    let peer = PeerInfo { identity, certificate, ..peer };
    let certificate = leaf.and_then(|leaf| CertId::read(leaf));
    Ended::Good(Box::new(Shaken { io: Io::Tls(Box::new(stream.into())), peer, certificate, slot }))
}

/// Who it was is for DEBUG: addresses are not logged above it.
fn refused(remote: SocketAddr, why: &str) {
    debug!(%remote, why, "connection refused");
    warn!(why, "connection refused; -v names the peer");
}
