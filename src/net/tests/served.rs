//! HTTP/2 on an accepted connection: what a service sees of its peer.

use std::convert::Infallible;

use hyper_util::rt::TokioIo;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::*;

/// Answers every call with "not found" and the identity of the caller.
#[derive(Clone)]
struct WhoAmI;

impl NamedService for WhoAmI {
    const NAME: &'static str = "lippycat.test.WhoAmI";
}

impl tower::Service<http::Request<Body>> for WhoAmI {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>();
        let who = peer.and_then(|peer| peer.identity.as_ref()).map_or_else(|| "nobody".to_owned(), PeerIdentity::uri);
        std::future::ready(Ok(tonic::Status::not_found(who).into_http()))
    }
}

#[tokio::test]
async fn a_service_sees_who_calls() {
    let site = Site::new();
    let (mut acceptor, target) = acceptor(Some(site.server(true)), AcceptLimits::default());
    let counters = acceptor.counters();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let Some(Ok(connection)) = acceptor.next().await else { panic!("ended") };
        // dropped is asked for, too
        accept::http2::serve(connection, WhoAmI, async { drop(stopped.await) }).await
    });
    let dialer = dialer(site.hunter());
    let endpoint = Endpoint::from_static("http://processor");
    let channel = endpoint.connect_with_connector(service_fn(move |_| {
        let (dialer, target) = (dialer.clone(), target.clone());
        async move { dialer.dial(&target).await.map(TokioIo::new) }
    }));

    let mut client = tonic::client::Grpc::new(channel.await.unwrap());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/lippycat.test.WhoAmI/Ask");
    let answer = client.unary(tonic::Request::new(()), path, ProstCodec::<(), ()>::default()).await;

    assert_eq!(answer.unwrap_err().message(), "lc:hunter:edge");
    assert_eq!(counters.read().accepted, 1);
    drop((client, stop));
    // the client may be gone before it is told that this is the end
    let _broken = server.await.unwrap();
}
