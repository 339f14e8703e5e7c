//! Accepts connections: sockets, handshakes, who the peer is.
//!
//! ```text
//! listen sockets ─▶ room for one more? ─▶ plain ─────────────────────────────────────▶ Connection { Io, PeerInfo }
//!   (in turn)        no: closed, counted └▶ TLS handshake, ≤ 64 at once, ≤ 5 s each ─▶
//! ```
//!
//! Promises: a slow or silent peer delays nobody else; a connection that comes out has finished its handshake and agreed on
//! HTTP/2; nothing is spawned, all work happens in [`Stream::poll_next`]. Refuses and counts ([`AcceptCounters`]): connections
//! above [`AcceptLimits`], handshakes that fail or take too long, peers that do not speak HTTP/2. While the most handshakes
//! are pending, further peers wait in the kernel's queue.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, Server};
use tracing::{debug, warn};

use super::facts::{CertFacts, PeerIdentity};
use super::reload::Reloading;
use super::tls::{ALPN, ServerTls, explain};
use super::{Io, tune};
use crate::telemetry::Every;

/// Largest HTTP/2 frame we receive: 256 KiB, so that a batch of 64 KiB is one frame (measured: 1.5 to 1.7 times the default's speed).
pub const FRAME_MAX: u32 = 256 * 1024;
/// What a peer may send on one stream before it is read: 4 MiB, the largest batch.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// What a peer may send on one connection before it is read: 16 MiB, so that one full stream does not stop the others.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Most streams open at once on one connection; tonic's default is no limit.
pub const STREAMS_MAX: u32 = 64;
/// Largest header list, in octets as RFC 9113 §10.5.1 counts them.
pub const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Most streams reset by the peer that are not yet dealt with ("rapid reset", CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;

/// Connections the kernel keeps for us while they are not accepted.
const BACKLOG: i32 = 1024;
/// Pause after the process ran out of descriptors or memory: trying at once would spin.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);
/// Lines per second about peers that were refused.
static REFUSED: Every = Every::second(10);

/// The bounds above, applied to tonic's server.
#[must_use]
pub fn http2(server: Server) -> Server {
    server
        .max_frame_size(FRAME_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
}

/// How much an [`Acceptor`] takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Connections open at once, handshakes included: 1024, each may hold [`CONNECTION_WINDOW`].
    pub connections: usize,
    /// Of these, from one address: 256, so that one machine cannot take all; a whole site may stand behind one address.
    pub per_address: usize,
    /// Handshakes pending at once: 64, some tens of KiB each; at least 1.
    pub pending: usize,
    /// Longest handshake: 5 s, several round trips around the world.
    pub handshake: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { connections: 1024, per_address: 256, pending: 64, handshake: Duration::from_secs(5) }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another socket has it.
    #[error("cannot listen on {address}: another program has this address; stop it (`ss -ltnp` shows it) or choose another port")]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Not allowed.
    #[error("cannot listen on {address}: permission denied; choose a port above 1023 or grant CAP_NET_BIND_SERVICE")]
    Denied {
        /// Where.
        address: SocketAddr,
    },
    /// No interface has it.
    #[error("cannot listen on {address}: no interface of this machine has this address; see `ip address`, or listen on every address with `:{}`", address.port())]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {cause}; check the address")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The name has no address.
    #[error("cannot listen on `{host}`: the name does not resolve ({cause}); give an address of this machine")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// Nothing to listen on was given.
    #[error("there is no address to listen on; give one with --listen")]
    Nowhere,
}

impl ListenError {
    fn new(address: SocketAddr, cause: io::Error) -> Self {
        let kind = cause.kind();
        if kind == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { address }
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Self::NotHere { address }
        } else {
            Self::Other { address, cause }
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

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where the peer is; IPv4 as IPv4, also on a socket for both.
    pub remote: SocketAddr,
    /// The address of ours it reached.
    pub local: SocketAddr,
    /// What its certificate says it is; nothing without one, or without an `lc:` URI in it.
    pub identity: Option<PeerIdentity>,
    /// Whether it showed a certificate, with a name or without.
    pub certificate: bool,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl PeerInfo {
    /// Somebody at `remote`, without a certificate unless `identity` names one.
    #[must_use]
    pub const fn new(remote: SocketAddr, local: SocketAddr, identity: Option<PeerIdentity>, tls: bool) -> Self {
        Self { remote, local, certificate: identity.is_some(), identity, tls }
    }
}

/// An accepted connection; while it lives it counts against [`AcceptLimits`]. tonic puts its [`PeerInfo`] into the extensions
/// of each request.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: PeerInfo,
    _slot: Slot,
}

impl Connection {
    /// Who is at the other end.
    pub const fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The bytes, as they are read and written.
    pub const fn io(&self) -> &Io {
        &self.io
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
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// What an [`Acceptor`] did so far; `accepted` and the refusals together are all connections that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptCounts {
    /// Connections handed out.
    pub accepted: u64,
    /// Refused because [`AcceptLimits::connections`] were open.
    pub refused_full: u64,
    /// Refused because [`AcceptLimits::per_address`] were open from there.
    pub refused_address: u64,
    /// Handshakes cut after [`AcceptLimits::handshake`].
    pub handshakes_late: u64,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
    /// Peers that did not agree on HTTP/2.
    pub not_http2: u64,
    /// Connections lost before they could be used, and times the process had no descriptors or memory for one.
    pub errors: u64,
    /// Open at this moment, pending handshakes included.
    pub open: u64,
}

/// Counts of an [`Acceptor`], readable from anywhere while it runs.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    accepted: AtomicU64,
    refused_full: AtomicU64,
    refused_address: AtomicU64,
    handshakes_late: AtomicU64,
    handshakes_failed: AtomicU64,
    not_http2: AtomicU64,
    errors: AtomicU64,
    open: AtomicU64,
}

impl AcceptCounters {
    /// The counts of this moment.
    pub fn read(&self) -> AcceptCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AcceptCounts {
            accepted: of(&self.accepted),
            refused_full: of(&self.refused_full),
            refused_address: of(&self.refused_address),
            handshakes_late: of(&self.handshakes_late),
            handshakes_failed: of(&self.handshakes_failed),
            not_http2: of(&self.not_http2),
            errors: of(&self.errors),
            open: of(&self.open),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How many connections are open, by address. Bounded by [`AcceptLimits::connections`].
#[derive(Debug, Default)]
struct Open {
    by_address: Mutex<HashMap<IpAddr, usize>>,
    counters: Arc<AcceptCounters>,
}

/// A connection's place in [`Open`]; given back on drop.
#[derive(Debug)]
struct Slot {
    open: Arc<Open>,
    address: IpAddr,
}

impl Slot {
    /// A place, or the counter of what stands against it.
    fn take<'a>(open: &'a Arc<Open>, address: IpAddr, limits: &AcceptLimits) -> Result<Self, &'a AtomicU64> {
        let mut by_address = open.by_address.lock();
        if open.counters.open.load(Ordering::Relaxed) >= limits.connections as u64 {
            return Err(&open.counters.refused_full);
        }
        let of_address = by_address.get(&address).copied().unwrap_or(0);
        if of_address >= limits.per_address {
            return Err(&open.counters.refused_address);
        }
        by_address.insert(address, of_address.saturating_add(1));
        count(&open.counters.open);
        Ok(Self { open: Arc::clone(open), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.open.by_address.lock();
        if let Some(n) = by_address.get_mut(&self.address) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                by_address.remove(&self.address);
            }
        }
        self.open.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a handshake ended.
enum Ended {
    Good(Connection),
    Late(SocketAddr),
    Failed(SocketAddr, io::Error),
    NotHttp2(SocketAddr),
}

type Handshake = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Listens on some addresses and yields [`Connection`]s; never ends and never fails by itself, dropping it closes the sockets.
pub struct Acceptor {
    listeners: Vec<TcpListener>,
    /// Whose turn it is, so that a busy address does not starve another.
    turn: usize,
    tls: Option<Arc<Reloading<ServerTls>>>,
    limits: AcceptLimits,
    handshakes: FuturesUnordered<Handshake>,
    pause: Option<Pin<Box<Sleep>>>,
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
        let limits = AcceptLimits { pending: limits.pending.max(1), ..limits };
        Ok(Self {
            listeners,
            turn: 0,
            tls,
            limits,
            handshakes: FuturesUnordered::new(),
            pause: None,
            open: Arc::new(Open::default()),
        })
    }

    /// Where it listens, ports chosen by the kernel included.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
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
                    if let Some(suppressed) = REFUSED.pass() {
                        warn!(error = %e, suppressed, "cannot accept connections; raise the limit of open files (LimitNOFILE)");
                    }
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

    /// Takes a plain connection as it is, or begins the handshake of an encrypted one.
    fn admit(&self, socket: TcpStream, remote: SocketAddr) -> Option<Connection> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let slot = match Slot::take(&self.open, remote.ip(), &self.limits) {
            Ok(slot) => slot,
            Err(counter) => {
                count(counter);
                refused(
                    remote,
                    "too many connections are open, in all or from this address; see why its peers do not close them",
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
        let peer = PeerInfo::new(remote, local, None, self.tls.is_some());
        let Some(tls) = &self.tls else {
            count(&self.open.counters.accepted);
            return Some(Connection { io: Io::Plain(socket), peer, _slot: slot });
        };
        self.handshakes.push(Box::pin(shake_hands(socket, peer, slot, tls.fresh(), self.limits.handshake)));
        None
    }

    fn end(&self, ended: Ended) -> Option<Connection> {
        let counters = &self.open.counters;
        match ended {
            Ended::Good(connection) => {
                count(&counters.accepted);
                return Some(connection);
            }
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
        loop {
            if let Poll::Ready(Some(ended)) = Pin::new(&mut this.handshakes).poll_next(cx) {
                match this.end(ended) {
                    Some(connection) => return Poll::Ready(Some(Ok(connection))),
                    None => continue,
                }
            }
            if this.handshakes.len() >= this.limits.pending {
                // The next handshake that ends wakes us.
                return Poll::Pending;
            }
            let (socket, remote) = ready!(this.poll_accept(cx));
            if let Some(connection) = this.admit(socket, remote) {
                return Poll::Ready(Some(Ok(connection)));
            }
        }
    }
}

fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
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

async fn shake_hands(socket: TcpStream, peer: PeerInfo, slot: Slot, config: Arc<ServerConfig>, limit: Duration) -> Ended {
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
    Ended::Good(Connection { io: Io::Tls(Box::new(stream.into())), peer, _slot: slot })
}

/// Who it was is for DEBUG: addresses are not logged above it.
fn refused(remote: SocketAddr, why: &str) {
    debug!(%remote, why, "connection refused");
    if let Some(suppressed) = REFUSED.pass() {
        warn!(why, suppressed, "connection refused; -v names the peer");
    }
}
