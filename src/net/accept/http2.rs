//! HTTP/2 on one accepted connection, within bounds.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{Service, ServiceExt};

use super::PeerInfo;

/// Largest HTTP/2 frame we receive: 256 KiB, so that a batch of 64 KiB is one frame (measured: 1.5 to 1.7 times the default's speed).
pub const FRAME_MAX: u32 = 256 * 1024;
/// What a peer may send on one connection before it is read, where there is memory for it: 4 MiB. Measured on loopback: 64 KiB carry 1 GB/s,
/// 256 KiB 2 GB/s, from 512 KiB on nothing is gained, and 8 MiB is a tenth slower, since it no longer fits into the cache. What is more is for long
/// ways: a window a round trip, 20 MB/s where that takes 100 ms. One stream may have half of it, so that one that is full does not stop the others.
pub const WINDOW_MOST: u32 = 4 * 1024 * 1024;
/// The same where memory is short: no connection begins with less (RFC 9113 §6.9.2).
pub const WINDOW_LEAST: u32 = 65_535;
/// Most streams open at once on one connection; HTTP/2 alone has no limit. A limit on calls at work (tower's `concurrency_limit`) would add
/// nothing: a call at work has a stream open.
pub const STREAMS_MAX: u32 = 64;
/// Largest header list, in octets as RFC 9113 §10.5.1 counts them.
pub const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Most streams reset by the peer that are not yet dealt with ("rapid reset", CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;
/// What may wait to be sent on one stream, beside one message, while the peer takes nothing.
pub const SEND_MAX: usize = 16 * 1024;
/// A peer that says nothing is asked whether it is there this often, and has this long to answer.
const ASK: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);

/// Bytes that a connection with such a window may hold: what is not read, as much again in half for what HTTP/2 remembers of small frames.
pub(in crate::net) const fn bytes_of(window: u32) -> u64 {
    window as u64 + window as u64 / 2
}

/// Answers every request on `io` by `service`, which finds the peer's [`PeerInfo`] in its extensions, until the peer leaves, or, from when `stop`
/// ends, until what is open has ended.
///
/// # Errors
/// The connection broke, or the peer broke a rule of HTTP/2.
pub async fn serve<I, S>(io: I, service: S, stop: impl Future<Output = ()>) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Connected<ConnectInfo = PeerInfo> + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let peer = io.connect_info();
    let mut http2 = Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_frame_size(FRAME_MAX)
        .initial_connection_window_size(peer.window)
        .initial_stream_window_size((peer.window / 2).max(WINDOW_LEAST))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_send_buf_size(SEND_MAX)
        .keep_alive_interval(ASK)
        .keep_alive_timeout(ANSWER);
    let service = service.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request
    });
    let mut connection = pin!(http2.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)));
    tokio::select! {
        ended = &mut connection => return ended,
        () = stop => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
