//! One HTTP/2 connection to a processor.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use super::run::SessionError;
use crate::net::{ApiKey, Dialer, Target};

/// HTTP/2 pings, and how long their answers may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// HTTP/2 windows: what a fast network has under way; larger ones brought nothing.
const WINDOW: u32 = 4 << 20;

/// The header of the key (reference name).
const API_KEY: &str = "x-api-key";

/// A connection whose calls carry our API key, where there is one.
#[derive(Clone, Debug)]
pub(super) struct Link {
    channel: Channel,
    key: Option<ApiKey>,
}

impl Service<http::Request<Body>> for Link {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(key) = &self.key {
            request.headers_mut().insert(API_KEY, key.header().clone());
        }
        self.channel.call(request)
    }
}

/// One HTTP/2 connection, over the dialer's socket; `sockets` learns both ends.
pub(super) async fn connect(
    dialer: &Dialer,
    target: &Target,
    sockets: &mut Vec<(SocketAddr, SocketAddr)>,
) -> Result<Link, SessionError> {
    let key = dialer.key()?;
    let io = dialer.dial(target).await?;
    sockets.extend(io.addresses());
    let mut io = Some(io);
    // the scheme only tells tonic not to bring TLS of its own: the socket has it already
    let endpoint = Endpoint::from(Uri::from_static("http://processor"))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_: Uri| {
        let io = io.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection is gone"));
        std::future::ready(io)
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|e| SessionError::Transport { target: target.to_string(), why: causes(&e) })?;
    Ok(Link { channel, key })
}

/// An error with everything behind it.
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        text = format!("{text}: {e}");
        next = e.source();
    }
    text
}
