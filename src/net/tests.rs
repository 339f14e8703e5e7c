//! Both ends over loopback: who meets whom how, certificates that change, bounds.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt};

use super::certs::{self, Order};
use super::tls::{certificates, private_key, roots, server_name};
use super::*;

/// An empty SETTINGS frame: the first bytes of a server (RFC 9113 §3.4).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The first word of a client: its preface and SETTINGS.
const FIRST_WORD: &[u8; 33] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const H2: &[&[u8]] = &[b"h2"];

/// A CA with a processor `mid` (localhost) and a hunter `edge`.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        certs::init(site.0.path(), "test CA", 30).unwrap();
        site.issue(Role::Processor, "mid");
        site.issue(Role::Hunter, "edge");
        site
    }

    fn issue(&self, role: Role, id: &str) {
        let order = Order { role, id: id.into(), dns: vec![], ips: vec![], days: 10 };
        certs::issue(self.0.path(), &order).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn server(&self, mutual: bool) -> ServerTls {
        ServerTls {
            cert: self.path("processor-mid.crt"),
            key: self.path("processor-mid.key"),
            client_ca: mutual.then(|| self.path("ca.crt")),
            require_client: mutual,
            crl: None,
        }
    }

    fn hunter(&self) -> ClientTls {
        ClientTls { cert: Some(self.path("hunter-edge.crt")), key: Some(self.path("hunter-edge.key")), ..self.anonymous() }
    }

    fn anonymous(&self) -> ClientTls {
        ClientTls { ca: Some(self.path("ca.crt")), ..ClientTls::default() }
    }

    /// A certificate of this CA for localhost that ended in 2021, and its key.
    fn write_expired(&self) -> (PathBuf, PathBuf) {
        self.write("old", Some("lc:hunter:old"), 2021)
    }

    /// One that is good, and names nobody.
    fn write_nameless(&self) -> (PathBuf, PathBuf) {
        self.write("nameless", None, 2099)
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let pem = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        Issuer::from_ca_cert_pem(&pem("ca.crt"), KeyPair::from_pem(&pem("ca.key")).unwrap()).unwrap()
    }

    /// A revocation list of this CA that names one certificate, and ends with the year before this one.
    fn write_list(&self, serial: &str, until: i32) {
        let digits: Vec<u8> = serial.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        let serial_number = SerialNumber::from(digits.chunks(2).map(byte).collect::<Vec<u8>>());
        let revocation_time = date_time_ymd(2020, 2, 1);
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(9),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams { serial_number, revocation_time, reason_code: None, invalidity_date: None }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.path("ca.crl"), list.signed_by(&self.issuer()).unwrap().pem().unwrap()).unwrap();
    }

    fn write(&self, name: &str, uri: Option<&str>, until: i32) -> (PathBuf, PathBuf) {
        let issuer = self.issuer();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let (cert_path, key_path) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        std::fs::write(&cert_path, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }
}

/// How a peer shows itself whose set-up our own code would refuse or cannot have.
struct Odd {
    cert: Option<(PathBuf, PathBuf)>,
    tls13: bool,
    alpn: &'static [&'static [u8]],
}

impl Odd {
    fn versions(&self) -> [&'static rustls::SupportedProtocolVersion; 1] {
        [if self.tls13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 }]
    }

    fn pair(cert: &Path, key: &Path) -> (Vec<rustls::pki_types::CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (certificates("certificate", cert).unwrap(), private_key(key).unwrap().der().clone_key())
    }

    fn client(&self, ca: &Path) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions())
            .unwrap()
            .with_root_certificates(roots(ca).unwrap());
        let mut config = match &self.cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let (chain, key) = Self::pair(cert, key);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let (cert, key) = self.cert.as_ref().unwrap();
        let (chain, key) = Self::pair(cert, key);
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions())
            .unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }
}

fn acceptor(tls: Option<ServerTls>, limits: AcceptLimits) -> (Acceptor, Target) {
    let tls = tls.map(|tls| Arc::new(Reloading::new(tls).unwrap()));
    let acceptor = Acceptor::bind(&[LOCAL], tls, limits).unwrap();
    let target = target(&acceptor);
    (acceptor, target)
}

fn target(acceptor: &Acceptor) -> Target {
    Target { host: "localhost".into(), port: acceptor.addresses()[0].port() }
}

fn dialer(tls: ClientTls) -> Dialer {
    Dialer::tls(Arc::new(Reloading::new(tls).unwrap()))
}

/// Serves, as an HTTP/2 server begins, until `client` is done and no handshake is pending.
async fn meet<T>(acceptor: &mut Acceptor, client: impl Future<Output = T>) -> (T, Vec<Connection>) {
    let mut kept: Vec<Connection> = Vec::new();
    let mut client = pin!(client);
    let out = loop {
        tokio::select! {
            out = &mut client => break out,
            Some(Ok(mut connection)) = acceptor.next() => {
                // The client may be gone again.
                let _sent = connection.write_all(&SETTINGS).await;
                kept.push(connection);
            }
        }
    };
    let counters = acceptor.counters();
    let settled = poll_fn(|cx| {
        while let Poll::Ready(next) = Pin::new(&mut *acceptor).poll_next(cx) {
            kept.extend(next.into_iter().flatten());
        }
        if counters.read().open == kept.len() as u64 { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(Duration::from_secs(20), settled).await.unwrap();
    (out, kept)
}

/// One sentence: what, why, what to try.
fn assert_sentence(text: &str) {
    assert!(!text.contains('\n') && !text.contains(". ") && text.len() < 260, "{text}");
    assert!(text.contains(';'), "nothing to try in: {text}");
}

async fn raw(target: &Target) -> TcpStream {
    TcpStream::connect(("127.0.0.1", target.port)).await.unwrap()
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Plain,
    Tls,
    Mutual,
}

#[tokio::test]
async fn every_client_meets_every_server_with_the_expected_verdict() {
    let (site, other) = (Site::new(), Site::new());
    let expired = site.write_expired();
    let hunter_pair = || Some((site.path("hunter-edge.crt"), site.path("hunter-edge.key")));
    let no_tls = "does not speak TLS; if it runs with --insecure";

    for mode in [Mode::Plain, Mode::Tls, Mode::Mutual] {
        // What our own dialler makes of it: nothing wrong, or words that must be in the error.
        let (plain, tls, mutual) = (mode == Mode::Plain, mode == Mode::Tls, mode == Mode::Mutual);
        let over_tls = |otherwise: Option<&'static str>| if plain { Some(no_tls) } else { otherwise };
        let if_mutual = |words: &'static str| over_tls(mutual.then_some(words));
        let ca_of = |ca: &Site| ClientTls { ca: Some(ca.path("ca.crt")), ..site.hunter() };
        let cases = [
            ("plain", Dialer::insecure(), (!plain).then_some("leave out --insecure")),
            ("good", dialer(site.hunter()), over_tls(None)),
            ("no client cert", dialer(site.anonymous()), if_mutual("demands a certificate of this side")),
            (
                "client cert of another CA",
                dialer(ClientTls { ca: site.anonymous().ca, ..other.hunter() }),
                if_mutual("does not trust the CA"),
            ),
            ("wrong CA", dialer(ca_of(&other)), over_tls(Some("not signed by the CA given here"))),
            (
                "wrong name",
                dialer(ClientTls { server_name: Some("elsewhere".into()), ..site.hunter() }),
                over_tls(Some("is not for `elsewhere` but for")),
            ),
            // the name that is set is of the operator's own
            ("a peer", dialer(ClientTls { server_name: Some("elsewhere".into()), ..site.hunter() }).as_dialled(), over_tls(None)),
        ];
        for (name, dialer, wrong) in cases {
            let (mut acceptor, target) = acceptor((!plain).then(|| site.server(mutual)), AcceptLimits::default());

            let (dialled, connections) = meet(&mut acceptor, dialer.dial(&target)).await;

            let counts = acceptor.counters().read();
            match wrong {
                None => {
                    let io = dialled.unwrap_or_else(|e| panic!("{mode:?}, {name}: {e}"));
                    let [connection] = connections.as_slice() else { panic!("{mode:?}, {name}: {counts:?}") };
                    let peer = connection.peer();
                    assert_eq!((peer.tls, matches!(io, Io::Tls(_))), (!plain, !plain), "{name}");
                    assert_eq!(io.addresses(), Some((peer.remote, peer.local)));
                    let who = PeerIdentity { role: Role::Hunter, id: "edge".into() };
                    assert_eq!(peer.identity, mutual.then_some(who), "{mode:?}, {name}");
                    assert_eq!((counts.accepted, counts.handshakes_failed), (1, 0));
                }
                Some(words) => {
                    let error = dialled.err().unwrap_or_else(|| panic!("{mode:?}, {name}: no error"));
                    let text = error.to_string();
                    assert!(text.contains(words) && text.starts_with(&target.to_string()), "{mode:?}, {name}: {text}");
                    assert_sentence(&text);
                    assert_eq!(error.is_settled(), name != "plain", "{mode:?}, {name}: {text}");
                    if !plain && name != "plain" {
                        assert_eq!((counts.accepted, counts.handshakes_failed), (0, 1), "{mode:?}, {name}");
                    }
                }
            }
        }

        // Clients that our own set-up refuses to be.
        let odd = [
            ("expired", Odd { cert: Some(expired.clone()), tls13: true, alpn: H2 }, if_mutual("not valid at this time")),
            ("TLS 1.2 only", Odd { cert: hunter_pair(), tls13: false, alpn: H2 }, over_tls(Some("no version of TLS in common"))),
            ("no ALPN", Odd { cert: hunter_pair(), tls13: true, alpn: &[] }, over_tls(Some("did not agree on HTTP/2"))),
            ("HTTP/1.1", Odd { cert: hunter_pair(), tls13: true, alpn: &[b"http/1.1"] }, over_tls(Some("does not speak HTTP/2"))),
        ];
        for (name, odd, wrong) in odd {
            let (mut acceptor, target) = acceptor((!plain).then(|| site.server(mutual)), AcceptLimits::default());
            let (socket, config) = (raw(&target).await, odd.client(&site.path("ca.crt")));

            let shaken = dial::shake_hands(socket, &target, server_name("localhost").unwrap(), config);
            let (shaken, _connections) = meet(&mut acceptor, shaken).await;

            let counts = acceptor.counters().read();
            match wrong {
                None => assert!(shaken.is_ok() && counts.accepted == 1, "{mode:?}, {name}: {shaken:?}"),
                Some(words) => {
                    let text = shaken.err().unwrap_or_else(|| panic!("{mode:?}, {name}: no error")).to_string();
                    assert!(text.contains(words), "{mode:?}, {name}: {text}");
                    assert_sentence(&text);
                    let refused = counts.handshakes_failed + counts.not_http2;
                    assert_eq!((counts.accepted, refused), if plain { (1, 0) } else { (0, 1) }, "{mode:?}, {name}");
                }
            }
            assert!(!tls || name != "no ALPN" || counts.not_http2 == 1);
        }
    }
}

#[tokio::test]
async fn servers_that_are_no_processors_are_refused_in_words() {
    let site = Site::new();
    let good = Some((site.path("processor-mid.crt"), site.path("processor-mid.key")));
    let hunter = Some((site.path("hunter-edge.crt"), site.path("hunter-edge.key")));
    let cases = [
        ("expired", Odd { cert: Some(site.write_expired()), tls13: true, alpn: H2 }, "expired"),
        ("TLS 1.2 only", Odd { cert: good.clone(), tls13: false, alpn: H2 }, "TLS 1.3 is required"),
        ("no ALPN", Odd { cert: good.clone(), tls13: true, alpn: &[] }, "did not agree on HTTP/2"),
        ("HTTP/1.1", Odd { cert: good, tls13: true, alpn: &[b"http/1.1"] }, "does not speak HTTP/2"),
        ("a hunter", Odd { cert: hunter, tls13: true, alpn: H2 }, "issued for another role"),
    ];
    for (name, odd, words) in cases {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let target = Target { host: "localhost".into(), port: listener.local_addr().unwrap().port() };
        let dialer = dialer(ClientTls { server_name: Some("localhost".into()), ..site.hunter() });
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            // Refused is what is expected.
            let _shaken = TlsAcceptor::from(odd.server()).accept(socket).await;
        };

        let (dialled, ()) = tokio::join!(dialer.dial(&target), serve);

        let error = dialled.err().unwrap_or_else(|| panic!("{name}: no error"));
        assert!(error.to_string().contains(words) && error.is_settled(), "{name}: {error}");
        assert_sentence(&error.to_string());
    }
}

#[test]
fn only_certificates_that_are_looked_at_show_anything() {
    let site = Site::new();
    let unverified = ClientTls { skip_verify: true, ..site.hunter() };

    assert_eq!([Dialer::insecure(), dialer(unverified), dialer(site.hunter())].map(|d| d.verifies()), [false, false, true]);
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let port = TcpListener::bind(LOCAL).await.unwrap().local_addr().unwrap().port();
    let target = Target { host: "127.0.0.1".into(), port };

    let error = Dialer::insecure().dial(&target).await.unwrap_err();

    assert!(matches!(error, DialError::Connect { .. }) && error.to_string().contains(&target.to_string()), "{error}");
    assert!(!error.is_settled());
    assert_sentence(&error.to_string());
}

#[test]
fn a_set_up_that_cannot_work_is_refused_at_start() {
    let (site, other) = (Site::new(), Site::new());
    let (old_cert, old_key) = site.write_expired();
    let junk = site.path("junk");
    std::fs::write(&junk, "hello").unwrap();
    let server = |cert: &Path, key: &Path| ServerTls { cert: cert.into(), key: key.into(), ..site.server(false) }.load();
    let good = site.server(true);

    let errors = [
        (server(&old_cert, &old_key).unwrap_err(), "expired"),
        (server(&good.cert, &other.server(true).key).unwrap_err(), "does not belong to"),
        (server(&site.path("none"), &good.key).unwrap_err(), "none"),
        (server(&junk, &good.key).unwrap_err(), "no PEM block `CERTIFICATE`"),
        (server(&good.cert, &junk).unwrap_err(), "no PEM block `PRIVATE KEY`"),
        (ServerTls { client_ca: None, ..good }.load().unwrap_err(), "--tls-ca"),
        (ClientTls::default().load().unwrap_err(), "--tls-ca"),
        (ClientTls { key: None, ..site.hunter() }.load().unwrap_err(), "give both or neither"),
    ];

    // Without a list of usages every usage is meant (RFC 5280 §4.2.1.12).
    let old = certs::show(&old_cert).unwrap().remove(0);
    assert!(old.for_servers && old.for_clients && !old.is_ca);
    for (error, words) in errors {
        assert!(error.to_string().contains(words), "{error}");
        assert_sentence(&error.to_string());
    }
}

fn shown_by_server(io: &Io) -> CertFacts {
    let Io::Tls(stream) = io else { panic!("plain") };
    CertFacts::read(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_served_and_old_connections_live_on() {
    let site = Site::new();
    let tls = Arc::new(Reloading::new(site.server(true)).unwrap());
    let mut acceptor = Acceptor::bind(&[LOCAL], Some(Arc::clone(&tls)), AcceptLimits::default()).unwrap();
    let (target, dialer) = (target(&acceptor), dialer(site.hunter()));
    let (first, mut server) = serve_one(&mut acceptor, dialer.dial(&target)).await;
    let mut first = first.unwrap();

    assert!(!tls.reload().unwrap(), "nothing changed");
    // Half of a change: the old pair stays in force, and the next attempt looks again.
    std::fs::remove_file(site.path("processor-mid.key")).unwrap();
    std::fs::rename(site.path("processor-mid.crt"), site.path("was.crt")).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Read { .. })));
    let (meanwhile, _kept) = serve_one(&mut acceptor, dialer.dial(&target)).await;
    site.issue(Role::Processor, "mid");
    assert!(tls.reload().unwrap());
    let (second, _kept) = serve_one(&mut acceptor, dialer.dial(&target)).await;

    let of = |name: &str| certs::show(&site.path(name)).unwrap().remove(0).fingerprint;
    assert_eq!(shown_by_server(&meanwhile.unwrap()).fingerprint, of("was.crt"));
    assert_eq!(shown_by_server(&second.unwrap()).fingerprint, of("processor-mid.crt"));
    let mut word = [0; 9];
    first.write_all(b"ping").await.unwrap();
    first.flush().await.unwrap();
    first.read_exact(&mut word).await.unwrap();
    assert_eq!(word, SETTINGS);
    server.read_exact(&mut word[..4]).await.unwrap();
    assert_eq!(&word[..4], b"ping");
}

#[tokio::test]
async fn connections_above_the_bounds_are_closed_and_counted() {
    let least = accept::http2::bytes_of(accept::http2::WINDOW_LEAST);
    for (limits, refusals) in [
        (AcceptLimits { connections: 2, ..AcceptLimits::default() }, [1, 0, 0]),
        (AcceptLimits { per_address: 2, ..AcceptLimits::default() }, [0, 1, 0]),
        (AcceptLimits { memory: 3 * least - 1, ..AcceptLimits::default() }, [0, 0, 1]),
    ] {
        let (mut acceptor, target) = acceptor(None, limits);
        let counters = acceptor.counters();
        let dialer = Dialer::insecure();
        let first = serve_one(&mut acceptor, dialer.dial(&target)).await;
        let second = serve_one(&mut acceptor, dialer.dial(&target)).await;

        let mut refused = raw(&target).await;
        assert!(timeout(Duration::from_millis(50), acceptor.next()).await.is_err());
        assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
        let counts = counters.read();
        assert_eq!([counts.refused_full, counts.refused_address, counts.refused_memory], refusals);
        assert_eq!((counts.accepted, counts.open), (2, 2));

        drop(second);
        let third = serve_one(&mut acceptor, dialer.dial(&target)).await;
        assert!(first.0.is_ok() && third.0.is_ok());
    }
}

#[tokio::test]
async fn a_window_is_a_share_of_the_memory_that_is_left_and_given_back() {
    use accept::http2::{WINDOW_LEAST, WINDOW_MOST, bytes_of};
    let memory = 32 << 20;
    let (mut acceptor, target) = acceptor(None, AcceptLimits { memory, ..AcceptLimits::default() });
    let counters = acceptor.counters();
    let dialer = Dialer::insecure();
    let (mut kept, mut windows) = (Vec::new(), Vec::new());

    for _ in 0..200 {
        let (client, connection) = serve_one(&mut acceptor, dialer.dial(&target)).await;
        windows.push(connection.peer().window);
        kept.push((client.unwrap(), connection));
    }

    assert_eq!(u64::from(windows[0]), (memory / 2 - bytes_of(WINDOW_LEAST)) / 16);
    assert!(windows.is_sorted_by(|a, b| a >= b) && windows.last() == Some(&WINDOW_LEAST), "{windows:?}");
    let held = counters.read().window_bytes;
    assert_eq!(held, windows.iter().map(|w| bytes_of(*w)).sum::<u64>());
    assert!(held <= memory && *windows.iter().max().unwrap() < WINDOW_MOST);
    drop(kept);
    assert_eq!(counters.read().window_bytes, 0);
}

/// [`meet`] while other connections may be open.
async fn serve_one<T>(acceptor: &mut Acceptor, client: impl Future<Output = T>) -> (T, Connection) {
    let serve = async {
        let Some(Ok(mut connection)) = acceptor.next().await else { panic!("ended") };
        connection.write_all(&SETTINGS).await.unwrap();
        connection
    };
    tokio::join!(client, serve)
}

#[tokio::test]
async fn addresses_that_cannot_be_listened_on_are_refused_in_words() {
    let (acceptor, _) = acceptor(None, AcceptLimits::default());
    let taken = acceptor.addresses()[0];
    let bind = |address: SocketAddr| Acceptor::bind(&[address], None, AcceptLimits::default()).unwrap_err();

    let in_use = bind(taken);
    let not_here = bind("192.0.2.1:0".parse().unwrap());
    let nowhere = Acceptor::bind(&[], None, AcceptLimits::default()).unwrap_err();
    let unknown = listen_addresses(Some("no-such-host.invalid"), 1).await.unwrap_err();

    assert!(matches!(in_use, ListenError::InUse { address } if address == taken), "{in_use}");
    assert!(matches!(not_here, ListenError::NotHere { .. }), "{not_here}");
    for error in [in_use, not_here, nowhere, unknown] {
        assert_sentence(&error.to_string());
    }
}

#[tokio::test]
async fn without_a_host_every_address_is_listened_on_and_ipv4_stays_ipv4() {
    let everywhere = listen_addresses(None, 0).await.unwrap();
    let mut acceptor = Acceptor::bind(&everywhere, None, AcceptLimits::default()).unwrap();
    let target = Target { host: "127.0.0.1".into(), port: target(&acceptor).port };

    let (client, connections) = meet(&mut acceptor, Dialer::insecure().dial(&target)).await;

    let (ours, theirs) = client.unwrap().addresses().unwrap();
    let peer = connections[0].peer();
    assert!(peer.remote.is_ipv4() && peer.local.is_ipv4(), "{peer:?}");
    assert_eq!((peer.remote, peer.local), (ours, theirs));
    assert!(connections[0].io().socket().unwrap().nodelay().unwrap());
}

#[tokio::test]
async fn several_addresses_take_turns() {
    let mut acceptor = Acceptor::bind(&[LOCAL, LOCAL], None, AcceptLimits::default()).unwrap();
    let addresses = acceptor.addresses();
    let mut clients = Vec::new();
    for address in [addresses[0], addresses[0], addresses[1], addresses[1]] {
        clients.push(TcpStream::connect(address).await.unwrap());
    }

    let mut reached = Vec::new();
    for _ in 0..4 {
        let Some(Ok(connection)) = acceptor.next().await else { panic!("ended") };
        reached.push(connection.peer().local);
    }

    assert_eq!(reached[0], reached[2]);
    assert_ne!(reached[0], reached[1]);
}

mod ends;
mod handshakes;
mod matrix;
mod served;
