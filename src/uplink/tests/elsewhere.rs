//! Where a hunter goes that its processor does not take.

use tokio::net::TcpStream;

use super::*;
use crate::net::dial::{Connecting, Road as Way};

/// Roads on this machine that vouch for whoever they lead to, as certificates do.
#[derive(Debug)]
struct Loopback;

impl Way for Loopback {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect((&*target.host, target.port)).await?) as Box<_>) })
    }
}

fn verified(config: UplinkConfig) -> UplinkConfig {
    UplinkConfig { dialer: Dialer::over(Arc::new(Loopback)), ..config }
}

fn peer(named: &[&Target]) -> Peer {
    let peers = Mutex::new(named.iter().map(ToString::to_string).collect());
    Peer::start(State { extended: true, peers, ..State::default() })
}

fn hunt(targets: &[&Target]) -> Hunter {
    Hunter::with(targets, verified, BacklogConfig::default())
}

/// Where it was connected, in turn.
fn connected(hunter: &Hunter) -> Vec<String> {
    let links = hunter.control.links.lock();
    let up = |state: &LinkState| match state {
        LinkState::Up { target, .. } => Some(target.clone()),
        LinkState::Down => None,
    };
    links.iter().filter_map(up).collect()
}

#[tokio::test]
async fn a_processor_without_room_sends_a_hunter_to_its_peers() {
    let (other, own) = (peer(&[]), peer(&[]));
    *own.state.peers.lock() = vec!["no address".to_owned(), other.target.to_string()];
    own.state.full.store(true, Ordering::Relaxed);
    let hunter = hunt(&[&own.target]);
    hunter.offer(&sealed(A, 3));

    hunter.stop(Ending::Drain).await.unwrap();

    assert_eq!((own.state.batches.lock().len(), other.state.batches.lock().len()), (0, 3));
    assert_eq!(connected(&hunter), [other.target.to_string()]);
    let roads = hunter.control.roads.lock();
    assert!(roads.contains(&vec![BreakerState::Open, BreakerState::Closed]), "{roads:?}");
}

#[tokio::test]
async fn what_a_processor_acknowledged_is_not_sent_to_the_peer_that_takes_the_rest_and_the_peers_filters_replace_its_own() {
    let other = peer(&[]);
    let mut own = peer(&[&other.target]);
    let named = |id: &str| vec![Filter { id: id.into(), pattern: "alice".into(), enabled: true, ..Filter::default() }];
    (*own.state.filters.lock(), *other.state.filters.lock()) = (named("own"), named("other"));
    let hunter = hunt(&[&own.target]);
    hunter.offer(&sealed(A, 20));
    until(|| hunter.backlog.snapshot().acked_batches == 20).await;

    own.kill();
    hunter.offer(&sealed_from(A, 21, 10));
    hunter.stop(Ending::Drain).await.unwrap();

    let seqs = |p: &Peer| p.state.batches.lock().iter().map(|b| b.sequence).collect::<Vec<_>>();
    assert_eq!((seqs(&own), seqs(&other)), ((1..=20).collect(), (21..=30).collect()));
    let changes = hunter.control.changes.lock();
    let of = |c: &FilterChange| match c {
        FilterChange::Replace { filters, .. } => filters[0].id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(changes.iter().map(of).collect::<Vec<_>>(), ["own", "other"]);
}

#[tokio::test]
async fn a_reader_of_files_goes_on_with_a_peer_and_gives_up_only_when_none_is_there() {
    let mut other = peer(&[]);
    let mut own = peer(&[&other.target]);
    let patience = |c| UplinkConfig { connect_timeout: Some(Duration::from_secs(4)), ..verified(c) };
    let hunter = Hunter::with(&[&own.target], patience, BacklogConfig::default());
    hunter.offer(&sealed(A, 3));
    until(|| hunter.backlog.snapshot().acked_batches == 3).await;

    own.kill();
    hunter.offer(&sealed_from(A, 4, 3));
    until(|| hunter.backlog.snapshot().acked_batches == 6).await;
    other.kill();

    assert!(hunter.ended().await.is_err());
    assert_eq!(connected(&hunter), [own.target.to_string(), other.target.to_string()]);
}

#[tokio::test]
async fn a_list_counts_only_from_a_processor_that_the_operator_named_and_that_has_shown_who_it_is() {
    let third = peer(&[]);
    let other = peer(&[&third.target]);
    let own = peer(&[&other.target]);
    let unverified = Hunter::start(&[&own.target]);
    unverified.offer(&sealed(A, 1));
    unverified.stop(Ending::Drain).await.unwrap();
    own.state.full.store(true, Ordering::Relaxed);
    let hunter = hunt(&[&own.target]);
    hunter.offer(&sealed(B, 1));
    hunter.stop(Ending::Drain).await.unwrap();

    let known = |hunter: &Hunter| hunter.control.roads.lock().iter().map(Vec::len).max();
    assert_eq!((known(&unverified), known(&hunter)), (Some(1), Some(2)));
    assert_eq!(connected(&hunter), [other.target.to_string()]);
}
