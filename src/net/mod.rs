//! Endpoints: TLS from files, certificates (issue, show, check, reload), API keys, dialling, accepting, back-off, pages for machines.
//!
//! Promises: TLS 1.3 only, HTTP/2 agreed by ALPN, never a silent fall-back to plain text; every refusal is one sentence that
//! says what, where, why and what to try; a connection whose certificate is revoked is cut; no session is resumed, so each connection shows its certificate. Refuses:
//! handshakes above 5 s, more pending handshakes or connections than the bounds of [`AcceptLimits`].

pub mod accept;
pub mod backoff;
pub mod certs;
pub mod check;
pub mod dial;
pub mod facts;
pub mod grants;
pub mod keys;
pub mod pages;
pub mod reload;
pub mod revoke;
pub mod revoked;
mod secret;
pub mod tls;
pub mod transport;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

pub use self::accept::{
    AcceptCounters, AcceptCounts, AcceptLimits, Acceptor, Connection, ListenError, PeerInfo, listen_addresses,
};
pub use self::backoff::Backoff;
pub use self::dial::{DialError, Dialer, Road, Target};
pub use self::facts::{CertFacts, PeerIdentity, Role};
pub use self::grants::{Grant, GrantList, Grants, Sight};
pub use self::keys::{ApiKey, KeyInUse, Keys};
pub use self::pages::{Health, Page, PageKind, PageListener, Pages};
pub use self::reload::Reloading;
pub use self::revoked::{CertId, Revoked};
pub use self::tls::{ClientTls, ServerSetup, ServerTls, TlsError};
pub use self::transport::Transport;

/// A connection, encrypted or not.
#[derive(Debug)]
pub enum Io {
    /// Plain text, for `--insecure`.
    Plain(TcpStream),
    /// TLS 1.3.
    Tls(Box<TlsStream<TcpStream>>),
    /// Not of this machine's network: made by a [`dial::Road`].
    Other(Box<dyn Pipe>),
}

/// Bytes both ways, in order.
pub trait Pipe: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin> Pipe for T {}

impl Io {
    /// The socket below, where there is one.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(s) => Some(s),
            Self::Tls(s) => Some(s.get_ref().0),
            Self::Other(_) => None,
        }
    }

    /// Both ends, where the socket still knows them.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.socket()?.local_addr().ok()?, self.socket()?.peer_addr().ok()?))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf).map_err(tls::in_words),
            Self::Other(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
            Self::Other(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Self::Other(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Self::Other(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Tls(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
            Self::Other(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(s) => s.is_write_vectored(),
            Self::Tls(s) => s.is_write_vectored(),
            Self::Other(s) => s.is_write_vectored(),
        }
    }
}

/// No delay for small writes; a dead peer is noticed by the kernel after 10 s idle and three probes of 5 s.
fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests;
