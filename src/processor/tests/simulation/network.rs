//! Turmoil's network as the product's roads and connections. A host's name stands for the certificate it would show.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::net::dial::{Connecting, Road};
use crate::net::{PeerIdentity, PeerInfo, Role, Target};

pub(super) const PORT: u16 = 55_555;

/// The way from one host to another.
#[derive(Debug)]
pub(super) struct SimRoad;

impl Road for SimRoad {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            Ok(Box::new(stream) as Box<_>)
        })
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    peer: PeerInfo,
}

impl Connected for Wire {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// Listens on this host; connections that grow old are rolled after `age`.
pub(super) async fn listen(age: Option<Duration>) -> turmoil::Result<impl Stream<Item = Result<Wire, Infallible>> + Send> {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    let (give, incoming) = mpsc::channel(16);
    tokio::task::spawn_local(async move {
        while let Ok((stream, remote)) = listener.accept().await {
            let local = stream.local_addr().unwrap_or(remote);
            let id = turmoil::reverse_lookup(remote.ip()).unwrap_or_default();
            let role = if id.starts_with('p') { Role::Processor } else { Role::Hunter };
            let identity = PeerIdentity { role, id };
            let rolls = age.and_then(|age| Instant::now().checked_add(age));
            let peer = PeerInfo { rolls, ..PeerInfo::new(remote, local, Some(identity), true) };
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
