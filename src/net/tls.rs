//! rustls configurations from files, and its errors in words.
//!
//! Promises: TLS 1.3, ALPN `h2`, a certificate that belongs to its key and is valid now. Refuses at start what could only
//! fail later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, ServerConfig,
    SignatureScheme,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::facts::CertFacts;
use super::revoked::{Lists, Revoked};
use super::secret::{self, Key};

/// HTTP/2, as RFC 9113 §3.3 names it.
pub(super) const ALPN: &[u8] = b"h2";
/// Largest certificate or key file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}: {cause}; check the path and its permissions", path.display())]
    Read {
        /// Which.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("the {what} {} holds no PEM block `{label}`; give a file that has one", path.display())]
    Missing {
        /// Which.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What was looked for.
        label: &'static str,
    },
    /// A file is not PEM, or what is in it is damaged.
    #[error("the {what} {} cannot be read as PEM: {why}; export it again", path.display())]
    Damaged {
        /// Which.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Key and certificate are not a pair.
    #[error("the key {} does not belong to the certificate {}; give the key it was issued with", key.display(), cert.display())]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        cert: PathBuf,
    },
    /// Past its end.
    #[error("the certificate {} expired {ago} ago; issue a new one (`lc certs issue`)", path.display())]
    Expired {
        /// Where.
        path: PathBuf,
        /// How long ago.
        ago: String,
    },
    /// Before its start.
    #[error("the certificate {} becomes valid only in {wait}; check this machine's clock", path.display())]
    NotYetValid {
        /// Where.
        path: PathBuf,
        /// How long until then.
        wait: String,
    },
    /// Others may read a secret.
    #[error("others may read the {what} {} (mode {mode:04o}); `chmod 600` keeps it to its owner", path.display())]
    Exposed {
        /// Which.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line of a file is not understood.
    #[error("{}, line {line}: {why}", path.display())]
    BadLine {
        /// Where.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        why: String,
    },
    /// A revocation list of somebody else.
    #[error("the revocation list {} is not by the CA in {}; give the list that `lc certs revoke` wrote beside that CA", path.display(), ca.display())]
    ForeignList {
        /// The list.
        path: PathBuf,
        /// The CA.
        ca: PathBuf,
    },
    /// A revocation list that bears the CA's name, and is another's.
    #[error(
        "the revocation list {} bears the name of the CA in {} but is not signed by it, so it is another CA's of the same name; give the list \
         that `lc certs revoke` wrote beside that CA",
        path.display(),
        ca.display()
    )]
    UnsignedList {
        /// The list.
        path: PathBuf,
        /// The CA.
        ca: PathBuf,
    },
    /// Two CAs with one name, of which one signed the list.
    #[error(
        "two CAs in {} have one name, and the revocation list {} is signed by one of them: clients of the other would be refused; give only one, \
         or issue from a CA with a name of its own (`lc certs init --name`)",
        ca.display(),
        path.display()
    )]
    Namesakes {
        /// The list.
        path: PathBuf,
        /// The CAs.
        ca: PathBuf,
    },
    /// No certificate authority to check the processor with.
    #[error("no CA to check the processor's certificate with; give --tls-ca FILE, or --insecure for plain text")]
    NoCa,
    /// Certificate without key or the reverse.
    #[error("a client certificate needs its key and the key its certificate; give both or neither")]
    HalfPair,
    /// Client certificates are demanded, but by whom they must be signed is not said.
    #[error("client certificates are required but no CA is given to check them with; give --tls-ca FILE")]
    NoClientCa,
    /// Not a host name or address.
    #[error("`{name}` is not a host name or address a certificate can be checked against")]
    BadName {
        /// What was given.
        name: String,
    },
    /// Anything else rustls refuses.
    #[error("the TLS set-up from {} is refused: {why}", path.display())]
    Refused {
        /// The file it came from.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// What a client shows and trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Signs the servers' certificates.
    pub ca: Option<PathBuf>,
    /// Our certificate, leaf first, where the server asks for one.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name the server's certificate must have, when it is not the host dialled.
    pub server_name: Option<String>,
    /// Certificates of servers that no longer count.
    pub crl: Option<PathBuf>,
    /// Whoever answers is taken for the server: encrypted, but to anybody.
    pub skip_verify: bool,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], always a mistake in the set-up here.
    pub fn load(&self) -> Result<ClientConfig, TlsError> {
        if let Some(name) = &self.server_name {
            server_name(name)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(self.ca.as_deref().unwrap_or(Path::new("-")), &e))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let ca = self.ca.as_deref().ok_or(TlsError::NoCa)?;
            match &self.crl {
                None => builder.with_root_certificates(roots(ca)?),
                Some(path) => {
                    let lists = Lists::by(path, ca)?;
                    lists.tell_whether_ended(path);
                    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), Arc::clone(&provider))
                        .with_crls(lists.ders)
                        .only_check_end_entity_revocation()
                        .build()
                        .map_err(|e| TlsError::Refused { path: path.clone(), why: e.to_string() })?;
                    builder.with_webpki_verifier(verifier)
                }
            }
        };
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair(cert, key)?.0))),
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(TlsError::HalfPair),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Every file this is made of.
    pub fn files(&self) -> Vec<&Path> {
        [&self.ca, &self.cert, &self.key, &self.crl].into_iter().filter_map(|p| p.as_deref()).collect()
    }
}

/// Takes every certificate for the server's; that the peer has the key of what it shows is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a server shows and trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// Our certificate, leaf first.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Signs the clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must show one; without, it may.
    pub require_client: bool,
    /// Certificates of clients that no longer count.
    pub crl: Option<PathBuf>,
}

/// What a server's files came to.
#[derive(Clone, Debug)]
pub struct ServerSetup {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// For connections that are open already.
    pub revoked: Revoked,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], always a mistake in the set-up here.
    pub fn load(&self) -> Result<ServerSetup, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut revoked = Revoked::default();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(&self.cert, &e))?;
        let (pair, _) = pair(&self.cert, &self.key)?;
        let builder = match &self.client_ca {
            None if self.require_client || self.crl.is_some() => return Err(TlsError::NoClientCa),
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider);
                if !self.require_client {
                    verifier = verifier.allow_unauthenticated();
                }
                if let Some(path) = &self.crl {
                    let lists = Lists::by(path, ca)?;
                    lists.tell_whether_ended(path);
                    revoked = lists.revoked;
                    verifier = verifier.with_crls(lists.ders).only_check_end_entity_revocation();
                }
                let verifier = verifier.build().map_err(|e| TlsError::Refused { path: ca.clone(), why: e.to_string() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Connections are few and long; a resumed session would skip the look at a certificate that may have ended since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(ServerSetup { config: Arc::new(config), revoked })
    }

    /// Every file this is made of.
    pub fn files(&self) -> Vec<&Path> {
        let ca = self.client_ca.as_deref();
        [Some(self.cert.as_path()), Some(self.key.as_path()), ca, self.crl.as_deref()].into_iter().flatten().collect()
    }
}

/// A name a certificate can be checked against.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName { name: name.to_owned() })
}

/// A CA file as trust anchors.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates("CA file", path)? {
        roots.add(cert).map_err(|e| refused(path, &e))?;
    }
    Ok(roots)
}

/// A certificate chain with what signs for it, and its key; checked to be a pair that is valid now.
pub(super) fn pair(cert: &Path, key: &Path) -> Result<(CertifiedKey, Key), TlsError> {
    let chain = certificates("certificate", cert)?;
    let key_der = private_key(key)?;
    if let Some(facts) = chain.first().and_then(|leaf| CertFacts::read(leaf)) {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        if now > facts.not_after {
            return Err(TlsError::Expired { path: cert.into(), ago: span(now.saturating_sub(facts.not_after)) });
        }
        if now < facts.not_before {
            return Err(TlsError::NotYetValid { path: cert.into(), wait: span(facts.not_before.saturating_sub(now)) });
        }
    }
    Ok((belong_together(cert, chain, key, &key_der)?, key_der))
}

/// The two as one, where the key is that of the first certificate.
pub(super) fn belong_together(
    cert: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: &Path,
    key_der: &Key,
) -> Result<CertifiedKey, TlsError> {
    let pair = CertifiedKey::new(chain, key_der.signer().map_err(|e| refused(key, &e))?);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch { key: key.into(), cert: cert.into() }),
        Err(e) => Err(refused(key, &e)),
    }
}

/// Every certificate of a PEM file; at least one.
pub(super) fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, path)?;
    let certs = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| TlsError::Damaged {
        what,
        path: path.into(),
        why: e.to_string(),
    })?;
    if certs.is_empty() {
        return Err(TlsError::Missing { what, path: path.into(), label: "CERTIFICATE" });
    }
    Ok(certs)
}

/// The private key of a PEM file.
pub(super) fn private_key(path: &Path) -> Result<Key, TlsError> {
    let what = "key";
    match Key::from_pem(&read(what, path)?) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(TlsError::Missing { what, path: path.into(), label: "PRIVATE KEY" }),
        Err(why) => Err(TlsError::Damaged { what, path: path.into(), why: why.into() }),
    }
}

/// A file, wiped from memory when it is dropped: it may be a key.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    secret::read(path, FILE_MAX).map_err(|cause| {
        let large = cause.kind() == io::ErrorKind::FileTooLarge;
        let cause = if large { io::Error::other("it is larger than 1 MiB, so it is not a PEM file") } else { cause };
        TlsError::Read { what, path: path.into(), cause }
    })
}

/// PEM around something that is not what it should be.
pub(super) fn damaged(what: &'static str, path: &Path) -> TlsError {
    TlsError::Damaged { what, path: path.into(), why: "what is in the PEM block is not a certificate".into() }
}

fn refused(path: &Path, e: &rustls::Error) -> TlsError {
    TlsError::Refused { path: path.into(), why: e.to_string() }
}

/// An error of rustls as one sentence: HTTP/2 keeps nothing but the text of what its connection met.
pub(super) fn in_words(e: io::Error) -> io::Error {
    if e.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some()) {
        io::Error::new(e.kind(), explain(&e))
    } else {
        e
    }
}

/// What went wrong in a handshake, and what to try: one sentence.
pub fn explain(e: &io::Error) -> String {
    let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => explain_certificate(why),
        Some(rustls::Error::AlertReceived(alert)) => explain_alert(*alert),
        Some(rustls::Error::NoCertificatesPresented) => {
            "the peer showed no certificate; it must be issued one by the common CA (`lc certs issue`)".into()
        }
        Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }) => {
            "the peer does not speak TLS; if it runs with --insecure, this side needs it too".into()
        }
        Some(rustls::Error::PeerIncompatible(_)) => "the peer does not speak TLS 1.3, which is required; update it, or check host and port".into(),
        Some(rustls::Error::NoApplicationProtocol) => "the peer does not speak HTTP/2, so it is not an lc node; check what connects here".into(),
        Some(other) => format!("TLS failed: {other}"),
        None if e.kind() == io::ErrorKind::UnexpectedEof || e.kind() == io::ErrorKind::ConnectionReset => {
            "the peer closed the connection during the TLS handshake; it may run with --insecure, or refuse this side's certificate".into()
        }
        None => e.to_string(),
    }
}

/// What the peer says is wrong with this side (RFC 8446 §6.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "of some twenty alerts these concern the set-up")]
fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the peer demands a certificate of this side; give one that its CA issued (--tls-cert, --tls-key)".into()
        }
        AlertDescription::CertificateExpired => {
            "the peer says that this side's certificate is not valid at this time; see `lc certs check`, and check the clocks"
                .into()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the peer does not trust the CA of this side's certificate; both sides need the same CA (--tls-ca)".into()
        }
        AlertDescription::CertificateRevoked => "the peer says that this side's certificate was revoked; issue a new one".into(),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => {
            format!(
                "the peer refuses this side's certificate ({alert:?}); see `lc certs check`, and whether the role is the right one"
            )
        }
        AlertDescription::ProtocolVersion => {
            "the peer and this side have no version of TLS in common; TLS 1.3 is required".into()
        }
        AlertDescription::NoApplicationProtocol => {
            "the peer does not speak HTTP/2, so it is not a processor; check host and port".into()
        }
        other => format!("the peer refused the handshake ({other:?}); its log says why"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds causes; those without words of ours are told in its own")]
pub(super) fn explain_certificate(why: &CertificateError) -> String {
    let now = UnixTime::now().as_secs();
    match why {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the peer's certificate expired {} ago; issue a new one (`lc certs issue`)",
            span(i64::try_from(now.saturating_sub(not_after.as_secs())).unwrap_or(i64::MAX))
        ),
        CertificateError::Expired => "the peer's certificate has expired; issue a new one (`lc certs issue`)".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet; check the clocks of both machines".into()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the peer's certificate is not signed by the CA given here; give the CA that issued it (--tls-ca)".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the peer's certificate is not for `{}` but for {}; dial one of these names or set the expected one (--tls-server-name)",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::NotValidForName => {
            "the peer's certificate is not for this host name; set the expected one (--tls-server-name)".into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the peer's certificate was issued for another role; issue one for this role (`lc certs issue`)".into()
        }
        CertificateError::Revoked => "the peer's certificate was revoked; issue a new one (`lc certs renew`)".into(),
        CertificateError::UnknownRevocationStatus => {
            "no revocation list covers the peer's certificate; give the list of its CA (--tls-crl)".into()
        }
        other => format!("the peer's certificate is refused: {other}"),
    }
}

/// Names of a certificate as rustls spells them, `DnsName("mid")` or `IpAddress(192.0.2.1)`, as people do; at most five.
fn names(presented: &[String]) -> String {
    let plain = |name: &str| -> Option<String> {
        let (kind, rest) = name.split_once('(')?;
        let name = rest.trim_end_matches(')').trim_matches('"');
        matches!(kind, "DnsName" | "IpAddress").then(|| name.escape_debug().to_string())
    };
    let names: Vec<String> = presented.iter().filter_map(|name| plain(name)).take(5).collect();
    if names.is_empty() { "no host at all".into() } else { names.join(", ") }
}

/// A stretch of time in the largest unit that gives at least two of it.
pub(super) fn span(secs: i64) -> String {
    let (n, unit) = match secs {
        172_800.. => (secs / 86_400, "days"),
        7_200.. => (secs / 3_600, "hours"),
        120.. => (secs / 60, "minutes"),
        _ => (secs, "seconds"),
    };
    format!("{n} {unit}")
}
