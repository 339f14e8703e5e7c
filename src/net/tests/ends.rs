//! What ends a connection that is open: revocation, age, silence; and how many one name may have.

use super::super::certs::CertsError;
use super::super::revoke::{Which, revoke};
use super::*;
use crate::telemetry::RELOADS;

/// With a revocation list in force.
fn listed(site: &Site) -> ServerTls {
    ServerTls { crl: Some(site.path("ca.crl")), ..site.server(true) }
}

/// What a read on an open connection ends with.
async fn read_end(connection: &mut Connection) -> io::ErrorKind {
    match connection.read(&mut [0; 64]).await {
        Ok(0) => io::ErrorKind::UnexpectedEof,
        Ok(_) => panic!("nothing was sent"),
        Err(e) => e.kind(),
    }
}

/// Lets the acceptor work for this long; nobody may come.
async fn idle(acceptor: &mut Acceptor, time: Duration) {
    assert!(timeout(time, acceptor.next()).await.is_err(), "somebody came");
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connections_and_opens_none_while_others_stay() {
    let site = Site::new();
    site.issue(Role::Hunter, "good");
    let good = ClientTls { cert: Some(site.path("hunter-good.crt")), key: Some(site.path("hunter-good.key")), ..site.hunter() };
    let (mut acceptor, target) = acceptor(Some(listed(&site)), AcceptLimits::default());
    let counters = acceptor.counters();
    let (_edge, mut edges) = serve_one(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
    let (_good, mut goods) = serve_one(&mut acceptor, dialer(good.clone()).dial(&target)).await;

    revoke(site.0.path(), &Which::Node { role: Role::Hunter, id: "edge".into() }).unwrap();
    idle(&mut acceptor, Duration::from_millis(2500)).await;

    assert_eq!(read_end(&mut edges).await, io::ErrorKind::ConnectionAborted);
    assert!(timeout(Duration::from_millis(100), goods.read(&mut [0])).await.is_err(), "the other one is still open");
    assert_eq!(edges.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    let (again, kept) = meet_beside(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
    assert!(kept.is_none() && again.unwrap_err().to_string().contains("was revoked"));
    assert_eq!(counters.read().revoked, 1);
    let (third, _kept) = serve_one(&mut acceptor, dialer(good).dial(&target)).await;
    assert!(third.is_ok());
}

/// Serves while `client` tries; the connection, if one came of it.
async fn meet_beside<T>(acceptor: &mut Acceptor, client: impl Future<Output = T>) -> (T, Option<Connection>) {
    let mut client = pin!(client);
    let mut kept = None;
    loop {
        tokio::select! {
            out = &mut client => return (out, kept),
            Some(Ok(connection)) = acceptor.next() => kept = Some(connection),
        }
    }
}

#[tokio::test]
async fn a_client_does_not_take_a_revoked_processor() {
    let site = Site::new();
    let (mut acceptor, target) = acceptor(Some(site.server(false)), AcceptLimits::default());
    revoke(site.0.path(), &Which::Node { role: Role::Processor, id: "mid".into() }).unwrap();
    let hunter = ClientTls { crl: Some(site.path("ca.crl")), ..site.hunter() };

    let (told, _) = meet_beside(&mut acceptor, dialer(hunter).dial(&target)).await;

    let told = told.unwrap_err();
    assert!(told.is_settled() && told.to_string().contains("was revoked"), "{told}");
}

#[test]
fn lists_that_cannot_serve_are_told_at_the_start() {
    let (site, other) = (Site::new(), Site::new());
    certs::init(&other.path("sub"), "another name", 9).unwrap();
    let load = |crl: PathBuf| ServerTls { crl: Some(crl), ..site.server(true) }.load().unwrap_err().to_string();

    assert!(load(other.path("sub/ca.crl")).contains("is not by the CA in"));
    assert!(load(site.path("ca.crt")).contains("X509 CRL"));
    assert!(load(site.path("none")).contains("cannot read the revocation list"));
    let without = ServerTls { client_ca: None, require_client: false, ..listed(&site) };
    assert!(matches!(without.load(), Err(TlsError::NoClientCa)));
}

#[test]
fn a_list_of_another_ca_of_the_same_name_is_refused_and_the_one_in_force_stays() {
    let (site, other) = (Site::new(), Site::new());
    let refused = |e: &TlsError| {
        let text = e.to_string();
        assert!(text.contains("not signed by it") && text.contains("lc certs revoke"), "{text}");
    };
    refused(&ServerTls { crl: Some(other.path("ca.crl")), ..site.server(true) }.load().unwrap_err());
    refused(&ClientTls { crl: Some(other.path("ca.crl")), ..site.hunter() }.load().unwrap_err());

    let reloading = Reloading::new(listed(&site)).unwrap();
    let (before, counts) = (reloading.current(), RELOADS.counts());
    std::fs::copy(other.path("ca.crl"), site.path("ca.crl")).unwrap();
    refused(&reloading.reload().unwrap_err());
    refused(&reloading.reload().unwrap_err());

    assert!(Arc::ptr_eq(&before, &reloading.current()));
    assert!(RELOADS.counts()[1].1 >= counts[1].1 + 2);
    refused(&match revoke(site.0.path(), &Which::Node { role: Role::Hunter, id: "edge".into() }) {
        Err(CertsError::Tls(e)) => e,
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_list_that_only_one_of_two_cas_of_its_name_signed_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let ca = |site: &Site| std::fs::read_to_string(site.path("ca.crt")).unwrap();
    std::fs::write(site.path("ca.crt"), ca(&site) + &ca(&other)).unwrap();

    let told = listed(&site).load().unwrap_err().to_string();

    assert!(told.contains("have one name"), "{told}");
}

#[tokio::test]
async fn a_list_past_its_end_refuses_whom_it_names_and_nobody_else() {
    let site = Site::new();
    site.issue(Role::Hunter, "good");
    let facts = certs::show(&site.path("hunter-edge.crt")).unwrap();
    site.write_list(&facts[0].serial, 2021);
    let good = ClientTls { cert: Some(site.path("hunter-good.crt")), key: Some(site.path("hunter-good.key")), ..site.hunter() };
    let (mut acceptor, target) = acceptor(Some(listed(&site)), AcceptLimits::default());

    let (bad, kept) = meet_beside(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
    let (good, _good) = serve_one(&mut acceptor, dialer(good).dial(&target)).await;

    assert!(kept.is_none() && bad.unwrap_err().to_string().contains("was revoked"));
    assert!(good.is_ok());
    let report =
        check::check(&site.path("hunter-good.crt"), None, &site.path("ca.crt"), Some(&site.path("ca.crl")), None).unwrap();
    assert!(report.findings.iter().any(|f| f.text.contains("ended") && f.text.contains("days ago")), "{report:?}");
}

#[tokio::test]
async fn one_name_has_only_so_many_connections() {
    let site = Site::new();
    site.issue(Role::Hunter, "good");
    let good = ClientTls { cert: Some(site.path("hunter-good.crt")), key: Some(site.path("hunter-good.key")), ..site.hunter() };
    let limits = AcceptLimits { per_identity: 2, ..AcceptLimits::default() };
    let (mut acceptor, target) = acceptor(Some(site.server(true)), limits);
    let counters = acceptor.counters();
    let first = serve_one(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
    let second = serve_one(&mut acceptor, dialer(site.hunter()).dial(&target)).await;

    let (third, kept) = meet_beside(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
    let (other, _other) = serve_one(&mut acceptor, dialer(good).dial(&target)).await;
    drop((first, second));
    let (fourth, _fourth) = serve_one(&mut acceptor, dialer(site.hunter()).dial(&target)).await;

    assert!(third.is_err() && kept.is_none() && other.is_ok() && fourth.is_ok());
    assert_eq!(counters.read().refused_identity, 1);
}

#[tokio::test]
async fn one_name_has_four_connections() {
    let site = Site::new();
    let (mut acceptor, target) = acceptor(Some(site.server(true)), AcceptLimits::default());
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (dialled, connection) = serve_one(&mut acceptor, dialer(site.hunter()).dial(&target)).await;
        kept.push((dialled.unwrap(), connection));
    }

    let (fifth, _) = meet_beside(&mut acceptor, dialer(site.hunter()).dial(&target)).await;

    assert!(fifth.is_err());
    assert_eq!(acceptor.counters().read().refused_identity, 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_cut_and_one_that_spoke_is_not() {
    let (mut acceptor, target) = acceptor(None, AcceptLimits { age: Duration::ZERO, ..AcceptLimits::default() });
    let counters = acceptor.counters();
    let _silent = raw(&target).await;
    let Some(Ok(mut silent)) = acceptor.next().await else { panic!("ended") };
    let mut spoke = raw(&target).await;
    let Some(Ok(mut heard)) = acceptor.next().await else { panic!("ended") };
    spoke.write_all(FIRST_WORD).await.unwrap();
    heard.read_exact(&mut [0; FIRST_WORD.len()]).await.unwrap();

    assert_eq!(read_end(&mut silent).await, io::ErrorKind::TimedOut);
    assert!(timeout(Duration::from_hours(48), heard.read(&mut [0])).await.is_err());
    assert_eq!(counters.read().silent, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_rolled_at_its_age_and_cut_when_it_does_not_end() {
    let hour = Duration::from_hours(1);
    let (mut acceptor, target) = acceptor(None, AcceptLimits { age: hour, ..AcceptLimits::default() });
    let counters = acceptor.counters();
    let began = Instant::now();
    let mut spoke = raw(&target).await;
    let Some(Ok(mut old)) = acceptor.next().await else { panic!("ended") };
    spoke.write_all(FIRST_WORD).await.unwrap();
    old.read_exact(&mut [0; FIRST_WORD.len()]).await.unwrap();

    PeerInfo::rolled(Some(old.peer().clone())).await;
    let rolled = began.elapsed();
    let end = read_end(&mut old).await;
    let cut = began.elapsed();

    assert!(rolled >= hour * 9 / 10 && rolled <= hour * 11 / 10 + Duration::from_secs(2), "{rolled:?}");
    assert_eq!((end, cut.as_secs() - rolled.as_secs()), (io::ErrorKind::TimedOut, accept::ROLL_GRACE.as_secs()));
    assert_eq!(counters.read().aged, 1);
}
