//! Handshakes that take long, or never end: how many there may be, and who waits for them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_cut_after_5_s_and_counted() {
    let site = Site::new();
    let limits = AcceptLimits { pending: 1, ..AcceptLimits::default() };
    let (mut acceptor, target) = acceptor(Some(site.server(false)), limits);
    let mut silent = raw(&target).await;
    let began = Instant::now();
    let counters = acceptor.counters();

    // Nothing ever comes out of it.
    let next = timeout(Duration::from_secs(6), acceptor.next()).await;

    assert!(next.is_err());
    assert_eq!((counters.read().handshakes_late, counters.read().open), (1, 0));
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0, "closed");
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn handshakes_above_the_bound_wait_until_a_place_is_free() {
    let site = Site::new();
    let limits = AcceptLimits { pending: 2, ..AcceptLimits::default() };
    let (mut acceptor, target) = acceptor(Some(site.server(false)), limits);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(raw(&target).await);
    }
    let counters = acceptor.counters();

    let mut late = Vec::new();
    for _ in 0..3 {
        assert!(timeout(Duration::from_millis(5100), acceptor.next()).await.is_err());
        late.push(counters.read().handshakes_late);
    }

    assert_eq!(late, [2, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn sixty_four_handshakes_are_pending_at_once_forty_eight_of_one_address() {
    let site = Site::new();
    for (addresses, pending) in [(1, 48), (3, 64)] {
        let (mut acceptor, target) = acceptor(Some(site.server(false)), AcceptLimits::default());
        let mut silent = Vec::new();
        for n in 0..100 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 2 + n % addresses], 0).into()).unwrap();
            silent.push(socket.connect(([127, 0, 0, 1], target.port).into()).await.unwrap());
        }

        // the first of them, and not those that waited
        assert!(timeout(Duration::from_millis(5100), acceptor.next()).await.is_err());

        let counts = acceptor.counters().read();
        assert_eq!((counts.handshakes_late, counts.open), (pending, 100 - pending));
    }
}

#[tokio::test]
async fn silent_peers_of_one_address_keep_no_other_from_shaking_hands() {
    let site = Site::new();
    let limits = AcceptLimits { pending: 4, handshake: Duration::from_mins(1), ..AcceptLimits::default() };
    let (mut acceptor, target) = acceptor(Some(site.server(false)), limits);
    let mut silent = Vec::new();
    for _ in 0..20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(([127, 0, 0, 1], target.port).into()).await.unwrap());
    }

    let good = dialer(site.hunter());
    let met = timeout(Duration::from_secs(20), serve_one(&mut acceptor, good.dial(&target))).await;

    assert!(met.is_ok_and(|(dialled, _)| dialled.is_ok()), "before any of them is cut");
    assert_eq!((acceptor.counters().read().handshakes_late, acceptor.counters().read().open), (0, 20), "all of them are held");
}
