//! Reaches a processor: name, socket, TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::keys::ApiKey;
use super::reload::Reloading;
use super::tls::{ALPN, ClientTls, TlsError, explain, server_name};
use super::{Io, Pipe, tune};

/// The port processors listen on.
pub const DEFAULT_PORT: u16 = 55_555;
/// Patience for one address, and for a handshake.
const STEP_MAX: Duration = Duration::from_secs(5);
/// Patience for the first bytes of HTTP/2, or for a refusal of our certificate in their place: a round trip, most of the time.
const FIRST_WORD_MAX: Duration = Duration::from_secs(2);

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Not a target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not an address; write HOST, HOST:PORT or [IPV6]:PORT")]
pub struct BadTarget(String);

/// Longest address that one processor may name to hunters: a name of 253 octets (RFC 1035 §2.3.4), brackets, a colon and a port.
const NAMED_MAX: usize = 261;

impl Target {
    /// An address that another machine names: of bounded length, and of the letters that names and addresses have, since it ends up in logs.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn named(text: &str) -> Result<Self, BadTarget> {
        let target: Self = text.parse()?;
        let may = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if text.len() <= NAMED_MAX && target.host.chars().all(may) { Ok(target) } else { Err(BadTarget(text.to_owned())) }
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(s: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(s.to_owned());
        let (host, port) = match s.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
            }
            // More than one colon without brackets is an IPv6 address.
            None if s.matches(':').count() > 1 => (s, None),
            None => s.split_once(':').map_or((s, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |p| p.parse().map_err(|_| bad()))?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a target was not reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("cannot resolve `{host}`: {cause}; check the name")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot reach {target}: {cause}; check that a processor listens there and nothing blocks the way")]
    Connect {
        /// Where.
        target: Target,
        /// Why.
        cause: io::Error,
    },
    /// The API key cannot be read.
    #[error(transparent)]
    Key(#[from] TlsError),
    /// Somebody answers, but not as it should.
    #[error("{target}: {why}")]
    Tls {
        /// Where.
        target: Target,
        /// Why and what to try.
        why: String,
        /// Whether trying again cannot help while both sides stay as they are.
        settled: bool,
    },
}

impl DialError {
    /// Whether trying again cannot help while both sides stay as they are: a wrong CA, name or role.
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Tls { settled: true, .. })
    }
}

/// A way to processors other than this machine's network.
pub trait Road: fmt::Debug + Send + Sync {
    /// A connection to `target`.
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a>;
}

/// A connection about to be made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Pipe>>> + Send + 'a>>;

/// Makes connections, all alike.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Option<Arc<Reloading<ClientTls>>>,
    key: Option<PathBuf>,
    road: Option<Arc<dyn Road>>,
    /// Whatever name is set, the one dialled counts.
    as_dialled: bool,
}

impl Dialer {
    /// Plain text, for `--insecure`.
    #[must_use]
    pub const fn insecure() -> Self {
        Self { tls: None, key: None, road: None, as_dialled: false }
    }

    /// TLS 1.3 by `tls`, as it stands when a connection is made.
    #[must_use]
    pub const fn tls(tls: Arc<Reloading<ClientTls>>) -> Self {
        Self { tls: Some(tls), key: None, road: None, as_dialled: false }
    }

    /// Plain text over `road`, which vouches for whoever it leads to.
    #[must_use]
    pub fn over(road: Arc<dyn Road>) -> Self {
        Self { road: Some(road), ..Self::insecure() }
    }

    /// Calls carry the API key in this file; over TLS alone.
    #[must_use]
    pub fn with_key(self, file: Option<PathBuf>) -> Self {
        Self { key: file, ..self }
    }

    /// For processors that another one named: each must show a certificate for the very name it is dialled by, also where
    /// [`ClientTls::server_name`] says another.
    #[must_use]
    pub fn as_dialled(self) -> Self {
        Self { as_dialled: true, ..self }
    }

    /// Whether who answers has shown that it is a processor of our CA.
    pub fn verifies(&self) -> bool {
        self.road.is_some() || self.tls.as_ref().is_some_and(|tls| !tls.source().skip_verify)
    }

    /// The key as it stands in its file now, if calls carry one.
    ///
    /// # Errors
    /// [`DialError::Key`].
    pub fn key(&self) -> Result<Option<ApiKey>, DialError> {
        let file = self.key.as_deref().filter(|_| self.tls.is_some());
        Ok(file.map(ApiKey::read).transpose()?)
    }

    /// Connects, and waits up to 2 s for the first bytes of HTTP/2; every address of the name is tried in turn, each for at
    /// most 5 s.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, target: &Target) -> Result<Io, DialError> {
        if let Some(road) = &self.road {
            return over(&**road, target).await;
        }
        let socket = connect(target).await?;
        let Some(tls) = &self.tls else {
            return greeted(socket, target).await;
        };
        let set = tls.source().server_name.as_deref().filter(|_| !self.as_dialled);
        let name = server_name(set.unwrap_or(&target.host)).map_err(|e| DialError::Tls {
            target: target.clone(),
            why: e.to_string(),
            settled: true,
        })?;
        shake_hands(socket, target, name, tls.fresh()).await
    }
}

async fn over(road: &dyn Road, target: &Target) -> Result<Io, DialError> {
    let made = timeout(STEP_MAX, road.connect(target)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    made.map(Io::Other).map_err(|cause| DialError::Connect { target: target.clone(), cause })
}

/// A plain connection whose other end begins HTTP/2 (RFC 9113 §3.4); one that expects TLS says nothing until it is spoken to.
async fn greeted(socket: TcpStream, target: &Target) -> Result<Io, DialError> {
    let why = match timeout(FIRST_WORD_MAX, socket.peek(&mut [0])).await {
        Ok(Ok(1..)) => return Ok(Io::Plain(socket)),
        Ok(Ok(0)) => "the peer closed the connection at once; it may have too many, its log says why".to_owned(),
        Ok(Err(e)) => format!("the connection was lost at once ({e}); the log of the peer may say why"),
        Err(_) => "the peer does not begin HTTP/2 in plain text; if it runs with TLS, leave out --insecure; else it is no processor: check host and port".to_owned(),
    };
    Err(DialError::Tls { target: target.clone(), why, settled: false })
}

/// TLS by `config` with a peer that must be `name`.
pub(super) async fn shake_hands(
    socket: TcpStream,
    target: &Target,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<Io, DialError> {
    let fail = |why: String, settled| DialError::Tls { target: target.clone(), why, settled };
    let mut stream = match timeout(STEP_MAX, TlsConnector::from(config).connect(name, socket)).await {
        Err(_) => return Err(fail("no answer to the TLS handshake within 5 s; does a processor listen there?".into(), false)),
        Ok(Err(e)) => return Err(fail(explain(&e), is_settled(&e))),
        Ok(Ok(stream)) => stream,
    };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(fail("the peer did not agree on HTTP/2, so it is not a processor; check host and port".into(), true));
    }
    // In TLS 1.3 the server looks at our certificate after our handshake is done (RFC 8446 §2): its refusal comes in place of
    // the SETTINGS that begin HTTP/2. A server that is slow to send those is not refused for it.
    match timeout(FIRST_WORD_MAX, stream.fill_buf()).await {
        Ok(Err(e)) => return Err(fail(explain(&e), is_settled(&e))),
        Ok(Ok([])) => return Err(fail(explain(&io::ErrorKind::UnexpectedEof.into()), false)),
        Ok(Ok(_)) | Err(_) => {}
    }
    Ok(Io::Tls(Box::new(stream.into())))
}

/// Whether the error is one of certificates or protocols, which the next attempt will meet again.
fn is_settled(e: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::AlertReceived(alert)) = inner {
        return matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::DecryptError
                | Alert::ProtocolVersion
                | Alert::NoApplicationProtocol
        );
    }
    matches!(
        inner,
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::InvalidMessage(_)
                | rustls::Error::PeerIncompatible(_)
                | rustls::Error::NoApplicationProtocol
        )
    )
}

async fn connect(target: &Target) -> Result<TcpStream, DialError> {
    let addresses = match timeout(STEP_MAX, lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(cause)) => return Err(DialError::Resolve { host: target.host.clone(), cause }),
        Err(_) => return Err(DialError::Resolve { host: target.host.clone(), cause: io::ErrorKind::TimedOut.into() }),
    };
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match timeout(STEP_MAX, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => match tune(&socket) {
                Ok(()) => return Ok(socket),
                Err(e) => last = e,
            },
            Ok(Err(e)) => last = e,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Connect { target: target.clone(), cause: last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_with_or_without_a_port() {
        for (text, host, port) in [
            ("mid", "mid", 55_555),
            ("mid:1", "mid", 1),
            ("192.0.2.1:2", "192.0.2.1", 2),
            ("[2001:db8::1]:3", "2001:db8::1", 3),
            ("2001:db8::1", "2001:db8::1", 55_555),
            ("[::1]", "::1", 55_555),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn an_address_named_by_another_machine_is_short_and_of_plain_letters() {
        let long = format!("{}:55555", "a".repeat(256));
        for text in ["a\u{1b}[31m:1", "m\u{fc}nchen:1", "a,b:1", "a\0:1", "a;b", "\"a\"", long.as_str(), "", "a:0x1"] {
            assert!(Target::named(text).is_err(), "{text:?}");
        }
        for text in ["west:55555", "192.0.2.1:2", "[2001:db8::1]:3", "fe80::1%eth0", "a_b.example", &long[5..]] {
            assert_eq!(Target::named(text), text.parse(), "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", ":1", "mid:", "mid:x", "mid:70000", "[::1", "[::1]x", "http://mid", "a b", "me@mid"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
