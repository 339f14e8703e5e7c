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

/// Where a peer stops in its first word, from nothing at all to all but its last byte.
const STOPS: [usize; 5] = [0, 1, 12, 24, FIRST_WORD.len() - 1];

/// Serves peers that stop there: how long until the last one was cut, and how many were counted as silent.
async fn serve_those_that_stop(tls: Option<&Site>) -> (Duration, u64) {
    let (mut acceptor, target) = acceptor(tls.map(|site| site.server(false)), AcceptLimits::default());
    let counters = acceptor.counters();
    let (mut peers, mut served) = (Vec::new(), tokio::task::JoinSet::new());
    for stop in STOPS {
        let dial = async {
            match tls {
                None => Io::Plain(raw(&target).await),
                Some(site) => dialer(site.anonymous()).dial(&target).await.unwrap(),
            }
        };
        let (mut peer, connection) = serve_one(&mut acceptor, dial).await;
        peer.write_all(&FIRST_WORD[..stop]).await.unwrap();
        peers.push(peer);
        served.spawn(accept::http2::serve(connection, WhoAmI, std::future::pending()));
    }
    // no earlier: the handshakes take a time of their own
    tokio::time::pause();
    let began = Instant::now();
    assert!(served.join_all().await.iter().all(Result::is_err));
    (began.elapsed(), counters.read().silent)
}

#[tokio::test]
async fn peers_that_stop_in_their_first_word_are_cut_in_time_and_counted() {
    let (time, counted) = serve_those_that_stop(None).await;

    assert!(time.as_secs() <= accept::FIRST_WORD.as_secs(), "{time:?}");
    assert_eq!(counted, STOPS.len() as u64);
}

#[tokio::test]
async fn so_are_those_that_have_shaken_hands() {
    let (time, counted) = serve_those_that_stop(Some(&Site::new())).await;

    assert!(time.as_secs() <= accept::FIRST_WORD.as_secs(), "{time:?}");
    assert_eq!(counted, STOPS.len() as u64);
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
