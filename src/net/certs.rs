//! A private CA and the certificates of nodes: `lc certs init`, `issue`, `show`; `check` is in [`super::check`], `renew` and `revoke`
//! are in [`super::revoke`].
//!
//! | file | holds |
//! |---|---|
//! | `ca.crt`, `ca.key` | the CA: ECDSA P-256, signs leaves only (path length 0) |
//! | `ca.crl` | its revocation list |
//! | `ROLE-ID.crt`, `ROLE-ID.key` | a node: its names, and the URI `lc:ROLE:ID` that says who it is |
//!
//! Promises: every file is new (`O_EXCL`) and readable by its owner alone; either both files of a pair are written or none; a
//! certificate serves only what its role needs: processors servers and clients, everybody else clients. Refuses: to
//! overwrite, ids that would not be safe as a file name or inside a URI, and a CA that has expired or is none.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{DnsName, UnixTime};
use thiserror::Error;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::facts::{CertFacts, PeerIdentity, Role};
use super::revoke::{CA_CRL, write_empty};
use super::tls::{self, TlsError, certificates};

/// Days a CA is valid unless said otherwise: ten years.
pub const CA_DAYS: u32 = 3650;
/// Days a node's certificate is valid unless said otherwise.
pub const LEAF_DAYS: u32 = 90;
/// File name of the CA's certificate.
pub const CA_CERT: &str = "ca.crt";
/// File name of the CA's key.
pub const CA_KEY: &str = "ca.key";

/// Certificates start an hour before they are made, for clocks that are behind.
pub(super) const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// Longest id: a common name has room for 64 characters (RFC 5280 appendix A.1, ub-common-name).
const ID_MAX: usize = 64;
/// Names and addresses in one certificate; it must stay small enough for a handshake.
const NAMES_MAX: usize = 100;
const DAY: u64 = 86_400;

/// Why no certificate was made.
#[derive(Debug, Error)]
pub enum CertsError {
    /// There is one already.
    #[error("{} exists already; choose another directory with --dir, or move it away first", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {cause}; check the directory and its permissions, or choose another with --dir", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The directory holds no CA.
    #[error("there is no CA in {}; make one with `lc certs init`, or say where it is with --dir", dir.display())]
    NoCa {
        /// Where.
        dir: PathBuf,
    },
    /// Its certificate is not that of a CA.
    #[error("{} is not the certificate of a CA, so it cannot sign others; use one made by `lc certs init`", path.display())]
    NotACa {
        /// Where.
        path: PathBuf,
    },
    /// Not usable as an id.
    #[error("`{id}` cannot be the id of a node: use 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first")]
    BadId {
        /// What was given.
        id: String,
    },
    /// Not usable as the name of a CA.
    #[error("`{name}` cannot be the name of a CA: use 1 to 64 printable characters")]
    BadName {
        /// What was given.
        name: String,
    },
    /// Not a DNS name.
    #[error("`{name}` is not a DNS name; addresses go into --ip")]
    BadDns {
        /// What was given.
        name: String,
    },
    /// Not usable as a serial number.
    #[error("`{serial}` is not a serial number; `lc certs show` prints them in hexadecimal")]
    BadSerial {
        /// What was given.
        serial: String,
    },
    /// Another CA signed it.
    #[error("{} was not issued by the CA in {}; only its own CA can revoke a certificate", path.display(), dir.display())]
    NotOurs {
        /// The certificate.
        path: PathBuf,
        /// Where the CA is.
        dir: PathBuf,
    },
    /// Too many names.
    #[error("{count} names and addresses are too many for one certificate; give at most {NAMES_MAX}")]
    TooManyNames {
        /// How many were given.
        count: usize,
    },
    /// The end of validity is beyond what a certificate can say.
    #[error("{days} days is not a time a certificate can be valid for; give 1 to 36500")]
    BadDays {
        /// What was given.
        days: u32,
    },
    /// A certificate or key cannot be read or does not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Making the certificate failed.
    #[error("cannot make the certificate for {path}: {cause}; check the CA's files", path = path.display())]
    Make {
        /// What was to be written.
        path: PathBuf,
        /// Why.
        cause: rcgen::Error,
    },
}

impl CertsError {
    /// Whether a file that was named does not exist.
    pub fn is_not_found(&self) -> bool {
        if let Self::Tls(TlsError::Read { cause, .. }) = self {
            return cause.kind() == io::ErrorKind::NotFound;
        }
        matches!(self, Self::NoCa { .. })
    }

    /// Whether what was asked for cannot be in a certificate.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadId { .. }
                | Self::BadName { .. }
                | Self::BadDns { .. }
                | Self::BadSerial { .. }
                | Self::TooManyNames { .. }
                | Self::BadDays { .. }
                | Self::Tls(TlsError::BadName { .. })
        )
    }
}

/// A certificate and its key, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Where the certificate is.
    pub cert: PathBuf,
    /// Where its key is.
    pub key: PathBuf,
    /// What the certificate says.
    pub facts: CertFacts,
    /// What was decided without being asked for: names that were added, a validity cut to the CA's.
    pub notes: Vec<String>,
}

/// What a node's certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What the node may do.
    pub role: Role,
    /// Its name.
    pub id: String,
    /// DNS names it is reached by.
    pub dns: Vec<String>,
    /// Addresses it is reached by.
    pub ips: Vec<IpAddr>,
    /// Days it is valid, at most as long as the CA.
    pub days: u32,
}

/// Makes a CA in `dir` (made if missing, for its owner alone), valid for `days`.
///
/// # Errors
/// [`CertsError`]; nothing was written then.
pub fn init(dir: &Path, name: &str, days: u32) -> Result<Issued, CertsError> {
    if name.is_empty() || name.chars().count() > ID_MAX || name.chars().any(char::is_control) {
        return Err(CertsError::BadName { name: name.to_owned() });
    }
    let pair = Pair { cert: dir.join(CA_CERT), key: dir.join(CA_KEY) };
    free(&[&pair.cert, &pair.key, &dir.join(CA_CRL)])?;
    let now = UnixTime::now().as_secs();
    let mut params = params(name, now, until(now, days)?, days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = pair.new_key()?;
    let cert = params.self_signed(&key).map_err(|e| pair.failed(e))?;
    let issued = pair.write(&cert, &key, Vec::new())?;
    write_empty(dir)?;
    Ok(issued)
}

/// Makes the certificate that `order` describes, signed by the CA in `dir`, and writes it there.
///
/// A processor without any name is given `localhost`, the loopback addresses and this machine's host name.
///
/// # Errors
/// [`CertsError`]; nothing was written then.
pub fn issue(dir: &Path, order: &Order) -> Result<Issued, CertsError> {
    check_id(&order.id)?;
    let pair = Pair::of(dir, order.role, &order.id);
    free(&[&pair.cert, &pair.key])?;
    let (cert, key, notes) = sign(dir, order, &pair)?;
    pair.write(&cert, &key, notes)
}

/// The certificate that `order` describes and its key, for the files of `pair`, and what was decided without being asked for.
pub(super) fn sign(dir: &Path, order: &Order, pair: &Pair) -> Result<(rcgen::Certificate, KeyPair, Vec<String>), CertsError> {
    let mut notes = Vec::new();
    let (dns, ips) = names(order, &mut notes)?;
    let ca = Ca::read(dir)?;

    let now = UnixTime::now().as_secs();
    let mut not_after = until(now, order.days)?;
    if not_after > ca.not_after {
        not_after = ca.not_after;
        notes.push(format!("valid only until {}, when the CA ends", super::facts::date(ca.not_after)));
    }
    let mut params = params(&order.id, now, not_after, order.days)?;
    let identity = PeerIdentity { role: order.role, id: order.id.clone() };
    params.subject_alt_names.push(SanType::URI(identity.uri().try_into().map_err(|e| pair.failed(e))?));
    for name in dns {
        params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(|e| pair.failed(e))?));
    }
    params.subject_alt_names.extend(ips.into_iter().map(SanType::IpAddress));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match order.role {
        Role::Processor => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Hunter | Role::Admin | Role::Subscriber => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    let key = pair.new_key()?;
    let cert = params.signed_by(&key, &ca.issuer).map_err(|e| pair.failed(e))?;
    Ok((cert, key, notes))
}

/// What the certificates of a PEM file say, in their order.
///
/// # Errors
/// [`CertsError::Tls`].
pub fn show(file: &Path) -> Result<Vec<CertFacts>, CertsError> {
    let what = "certificate";
    let certs = certificates(what, file)?;
    let facts = certs.iter().map(|der| CertFacts::read(der).ok_or_else(|| tls::damaged(what, file)));
    Ok(facts.collect::<Result<Vec<_>, _>>()?)
}

/// The certificates in a directory, by name: every file that ends in `.crt` or `.pem`.
///
/// # Errors
/// [`CertsError::Tls`] when the directory cannot be read.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let unreadable = |cause| TlsError::Read { what: "directory of certificates", path: dir.into(), cause };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "crt" || end == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A CA, read and found fit to sign.
pub(super) struct Ca {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) not_after: i64,
}

impl Ca {
    pub(super) fn read(dir: &Path) -> Result<Self, CertsError> {
        let (cert, key) = (dir.join(CA_CERT), dir.join(CA_KEY));
        if !cert.exists() {
            return Err(CertsError::NoCa { dir: dir.into() });
        }
        let (pair, key_der) = tls::pair(&cert, &key)?;
        let der = pair.cert.first().ok_or_else(|| tls::damaged("certificate", &cert))?;
        let facts = CertFacts::read(der).ok_or_else(|| tls::damaged("certificate", &cert))?;
        if !facts.is_ca {
            return Err(CertsError::NotACa { path: cert });
        }
        let failed = |cause| CertsError::Make { path: cert.clone(), cause };
        let key = KeyPair::try_from(key_der.der()).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(failed)?;
        Ok(Self { issuer, not_after: facts.not_after })
    }
}

/// Refuses early what `O_EXCL` would refuse late.
fn free(paths: &[&PathBuf]) -> Result<(), CertsError> {
    // a dangling link is in the way too
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertsError::Exists { path: (*path).clone() }),
        None => Ok(()),
    }
}

/// The two files of a certificate.
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    /// Those of a node, in the CA's directory.
    pub(super) fn of(dir: &Path, role: Role, id: &str) -> Self {
        Self { cert: dir.join(format!("{role}-{id}.crt")), key: dir.join(format!("{role}-{id}.key")) }
    }

    fn failed(&self, cause: rcgen::Error) -> CertsError {
        CertsError::Make { path: self.cert.clone(), cause }
    }

    fn new_key(&self) -> Result<KeyPair, CertsError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| self.failed(e))
    }

    fn write(self, cert: &rcgen::Certificate, key: &KeyPair, notes: Vec<String>) -> Result<Issued, CertsError> {
        let facts = CertFacts::read(cert.der()).ok_or_else(|| tls::damaged("certificate", &self.cert))?;
        if let Some(dir) = self.cert.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|cause| CertsError::Write { path: dir.into(), cause })?;
        }
        write_new(&self.key, Zeroizing::new(key.serialize_pem()).as_bytes())?;
        if let Err(e) = write_new(&self.cert, cert.pem().as_bytes()) {
            // A key without its certificate would only be in the way of the next attempt; if it stays, that says so.
            let _removed = fs::remove_file(&self.key);
            return Err(e);
        }
        Ok(Issued { cert: self.cert, key: self.key, facts, notes })
    }
}

pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), CertsError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let failed = |cause| CertsError::Write { path: path.into(), cause };
    let mut file = match opened {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(CertsError::Exists { path: path.into() }),
        opened => opened.map_err(failed)?,
    };
    if let Err(e) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        // The file is ours and holds half of what it should.
        let _removed = fs::remove_file(path);
        return Err(failed(e));
    }
    Ok(())
}

pub(super) fn check_id(id: &str) -> Result<(), CertsError> {
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && id.len() <= ID_MAX { Ok(()) } else { Err(CertsError::BadId { id: id.to_owned() }) }
}

fn names(order: &Order, notes: &mut Vec<String>) -> Result<(Vec<String>, Vec<IpAddr>), CertsError> {
    let count = order.dns.len().saturating_add(order.ips.len());
    if count > NAMES_MAX {
        return Err(CertsError::TooManyNames { count });
    }
    for name in &order.dns {
        if !is_dns(name.strip_prefix("*.").unwrap_or(name)) {
            return Err(CertsError::BadDns { name: name.clone() });
        }
    }
    if count > 0 || order.role != Role::Processor {
        return Ok((order.dns.clone(), order.ips.clone()));
    }
    let mut dns = vec!["localhost".to_owned()];
    dns.extend(host_name().filter(|name| is_dns(name) && name != "localhost"));
    let ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    notes.push(format!(
        "no name was given, so it is for {}, 127.0.0.1 and ::1; hunters elsewhere need --dns or --ip with what they dial",
        dns.join(", ")
    ));
    Ok((dns, ips))
}

/// Whether certificates can name it so: a DNS name, and not an address in disguise.
fn is_dns(name: &str) -> bool {
    DnsName::try_from(name).is_ok() && name.parse::<IpAddr>().is_err()
}

/// The host name the kernel knows (hostname(7)).
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Seconds since 1970 after which a certificate of `days` made at `now` has ended.
fn until(now: u64, days: u32) -> Result<i64, CertsError> {
    let end = now.saturating_add(u64::from(days).saturating_mul(DAY));
    match i64::try_from(end) {
        Ok(end) if days > 0 => Ok(end),
        _ => Err(CertsError::BadDays { days }),
    }
}

fn params(common_name: &str, now: u64, not_after: i64, days: u32) -> Result<CertificateParams, CertsError> {
    let bad = || CertsError::BadDays { days };
    let not_before = i64::try_from(now.saturating_sub(CLOCK_SKEW.as_secs())).map_err(|_| bad())?;
    let mut params = CertificateParams::default();
    params.not_before = ASN1Time::from_timestamp(not_before).map_err(|_| bad())?.to_datetime();
    params.not_after = ASN1Time::from_timestamp(not_after).map_err(|_| bad())?.to_datetime();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

#[cfg(test)]
mod tests;
