//! Every state of a processor's TLS with every state of a hunter's: who meets whom, and nobody without both sides' consent.

use super::super::revoke::{Which, revoke};
use super::*;

/// The state of one side.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Side {
    Plain,
    /// Only the processor shows a certificate.
    Tls,
    /// Both do.
    Mutual,
    Expired,
    WrongCa,
    /// A processor's certificate is for another host, a hunter's names nobody.
    WrongSan,
    Revoked,
    Tls12,
    NoAlpn,
}

const ALL: [Side; 9] = [
    Side::Plain,
    Side::Tls,
    Side::Mutual,
    Side::Expired,
    Side::WrongCa,
    Side::WrongSan,
    Side::Revoked,
    Side::Tls12,
    Side::NoAlpn,
];

/// By processor and hunter, in the order of [`ALL`]: `+` they meet, and the processor knows who it is where it asks; `?` they meet, and it knows
/// nobody; `.` they do not.
const VERDICTS: [&str; 9] = [
    "?........",
    ".??????..", // no certificate is asked for, so none is looked at
    "..+..?...",
    ".........",
    ".........",
    ".........",
    ".........",
    ".......?.", // two strangers: neither is of ours
    ".........",
];

/// Both sides' files: a CA, another, and certificates of each state.
struct Files {
    site: Site,
    other: Site,
    expired: (PathBuf, PathBuf),
    nameless: (PathBuf, PathBuf),
}

impl Files {
    fn new() -> Self {
        let (site, other) = (Site::new(), Site::new());
        let order = |role, id: &str, dns: &[&str]| Order {
            role,
            id: id.into(),
            dns: dns.iter().map(|d| (*d).to_owned()).collect(),
            ips: vec![],
            days: 10,
        };
        certs::issue(site.0.path(), &order(Role::Processor, "away", &["elsewhere"])).unwrap();
        for (role, id) in [(Role::Processor, "gone"), (Role::Hunter, "gone")] {
            site.issue(role, id);
            revoke(site.0.path(), &Which::Node { role, id: id.into() }).unwrap();
        }
        let (expired, nameless) = (site.write_expired(), site.write_nameless());
        Self { site, other, expired, nameless }
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.site.path(&format!("{name}.crt")), self.site.path(&format!("{name}.key")))
    }

    /// What our own processor is set up with; `None` where it would refuse to start.
    fn server(&self, side: Side) -> Option<ServerTls> {
        let of = |(cert, key)| ServerTls { cert, key, crl: Some(self.site.path("ca.crl")), ..self.site.server(true) };
        match side {
            Side::Tls => Some(self.site.server(false)),
            Side::Mutual => Some(of(self.pair("processor-mid"))),
            Side::WrongCa => Some(ServerTls { client_ca: Some(self.site.path("ca.crt")), ..self.other.server(true) }),
            Side::WrongSan => Some(of(self.pair("processor-away"))),
            Side::Revoked => Some(of(self.pair("processor-gone"))),
            Side::Plain | Side::Expired | Side::Tls12 | Side::NoAlpn => None,
        }
    }

    /// A processor that ours refuses to be.
    fn strange_server(&self, side: Side) -> Odd {
        let cert = if side == Side::Expired { self.expired.clone() } else { self.pair("processor-mid") };
        Odd { cert: Some(cert), tls13: side != Side::Tls12, alpn: if side == Side::NoAlpn { &[] } else { H2 } }
    }

    async fn dial(&self, side: Side, target: &Target) -> Result<Io, DialError> {
        let strange = match side {
            Side::Expired => Odd { cert: Some(self.expired.clone()), tls13: true, alpn: H2 },
            Side::Tls12 => Odd { cert: Some(self.pair("hunter-edge")), tls13: false, alpn: H2 },
            Side::NoAlpn => Odd { cert: Some(self.pair("hunter-edge")), tls13: true, alpn: &[] },
            Side::Plain => return Dialer::insecure().dial(target).await,
            Side::Tls | Side::Mutual | Side::WrongCa | Side::WrongSan | Side::Revoked => {
                let of = |(cert, key)| ClientTls { cert: Some(cert), key: Some(key), ..self.site.anonymous() };
                let tls = match side {
                    Side::WrongCa => ClientTls { ca: self.site.anonymous().ca, ..self.other.hunter() },
                    Side::WrongSan => of(self.nameless.clone()),
                    Side::Revoked => of(self.pair("hunter-gone")),
                    Side::Tls => self.site.anonymous(),
                    Side::Plain | Side::Mutual | Side::Expired | Side::Tls12 | Side::NoAlpn => self.site.hunter(),
                };
                return dialer(ClientTls { crl: Some(self.site.path("ca.crl")), ..tls }).dial(target).await;
            }
        };
        let config = strange.client(&self.site.path("ca.crt"));
        dial::shake_hands(raw(target).await, target, server_name("localhost").unwrap(), config).await
    }
}

/// How one meeting ended, and what it was called where it did not come about.
async fn verdict(files: &Files, server: Side, client: Side) -> (char, String) {
    if server != Side::Plain && files.server(server).is_none() {
        return strange_verdict(files, server, client).await;
    }
    let (mut acceptor, target) = acceptor(files.server(server), AcceptLimits::default());

    let (met, connections) = meet(&mut acceptor, files.dial(client, &target)).await;

    match met {
        Err(e) => ('.', e.to_string()),
        Ok(_) => match connections.first() {
            Some(c) if c.peer().identity.is_some() => ('+', String::new()),
            Some(_) => ('?', String::new()),
            None => ('!', "the processor did not accept it".into()),
        },
    }
}

async fn strange_verdict(files: &Files, server: Side, client: Side) -> (char, String) {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let target = Target { host: "localhost".into(), port: listener.local_addr().unwrap().port() };
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut socket = TlsAcceptor::from(files.strange_server(server).server()).accept(socket).await?;
        socket.write_all(&SETTINGS).await?;
        io::Result::Ok(socket)
    };

    let (met, _served) = tokio::join!(files.dial(client, &target), serve);

    met.map_or_else(|e| ('.', e.to_string()), |_| ('?', String::new()))
}

#[tokio::test]
async fn of_81_pairs_of_processor_and_hunter_those_meet_that_should() {
    let files = &Files::new();
    let pairs = ALL.into_iter().zip(VERDICTS).flat_map(|(server, row)| {
        ALL.into_iter()
            .zip(row.chars())
            .map(move |(client, expected)| async move { (server, client, expected, verdict(files, server, client).await) })
    });

    // at once, since some wait for a first word that nobody says
    let seen = futures_util::future::join_all(pairs).await;

    assert_eq!(seen.len(), 81);
    for (server, client, expected, (verdict, why)) in seen {
        assert_eq!(verdict, expected, "a {client:?} hunter at a {server:?} processor: {why}");
        if verdict == '.' {
            assert_sentence(&why[why.find(": ").map_or(0, |at| at + 2)..]);
        }
    }
}
