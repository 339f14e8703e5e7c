//! Certificates that no longer count: what revocation lists (RFC 5280 §5) name, and whether they are those of our CAs.
//!
//! Promises: a list that is taken is signed by the CA whose certificates it is about; handshakes look at that only when somebody comes, and would
//! refuse everybody. A list past its end (`nextUpdate`) counts on, with a warning: one that was not fetched again must not stop anything.

use std::collections::HashSet;
use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::tls::{TlsError, certificates, damaged, read, span};
use crate::telemetry::OPERATOR;

/// What one list is called in messages.
pub(super) const WHAT: &str = "revocation list";

/// A certificate by its issuer and serial number, both as encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertId {
    issuer: Vec<u8>,
    serial: Vec<u8>,
}

impl CertId {
    /// That of a DER certificate; `None` when it is not one.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        Some(Self { issuer: cert.issuer().as_raw().to_vec(), serial: cert.raw_serial().to_vec() })
    }

    /// Whether the holder of this name, as encoded, issued it.
    pub(super) fn is_by(&self, name: &[u8]) -> bool {
        self.issuer == name
    }

    /// The serial number, as encoded.
    pub(super) fn into_serial(self) -> Vec<u8> {
        self.serial
    }
}

/// The name of a certificate's holder, as encoded.
pub(super) fn subject(der: &[u8]) -> Option<Vec<u8>> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    Some(cert.subject().as_raw().to_vec())
}

/// The certificates that some lists name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(HashSet<CertId>);

impl Revoked {
    /// Whether this one is revoked.
    pub fn has(&self, certificate: &CertId) -> bool {
        self.0.contains(certificate)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A file of lists: for the verifier, and what they name.
pub(super) struct Lists {
    pub(super) ders: Vec<CertificateRevocationListDer<'static>>,
    pub(super) revoked: Revoked,
    /// Who issued each, as encoded.
    pub(super) issuers: Vec<Vec<u8>>,
    /// Serial numbers, as encoded, and when they were revoked, in seconds since 1970.
    pub(super) entries: Vec<(Vec<u8>, i64)>,
    /// Highest number among them.
    pub(super) number: u64,
    /// When the first of them ends, in seconds since 1970.
    next_update: i64,
}

impl Lists {
    /// Every list of a PEM file, each signed by its CA in `ca`.
    pub(super) fn by(path: &Path, ca: &Path) -> Result<Self, TlsError> {
        let lists = Self::read(path)?;
        let cas = certificates("CA file", ca)?;
        lists.ders.iter().try_for_each(|der| is_by_one_of(der, &cas, path, ca))?;
        Ok(lists)
    }

    /// How long ago the first of them ended, in words.
    pub(super) fn ended(&self) -> Option<String> {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        (now >= self.next_update).then(|| span(now.saturating_sub(self.next_update)))
    }

    /// Says it when one of them has ended: it counts on.
    pub(super) fn tell_whether_ended(&self, path: &Path) {
        if let Some(ago) = self.ended() {
            let list = path.display();
            tracing::warn!(
                name: OPERATOR,
                %list,
                "the revocation list ended {ago} ago, and what was revoked since is not on it; it counts on, give a newer one"
            );
        }
    }

    /// Every list of a PEM file; at least one.
    pub(super) fn read(path: &Path) -> Result<Self, TlsError> {
        let pem = read(WHAT, path)?;
        let ders: Result<Vec<CertificateRevocationListDer<'static>>, _> =
            CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let ders = ders.map_err(|e| TlsError::Damaged { what: WHAT, path: path.into(), why: e.to_string() })?;
        if ders.is_empty() {
            return Err(TlsError::Missing { what: WHAT, path: path.into(), label: "X509 CRL" });
        }
        let (mut revoked, mut issuers, mut entries, mut number) = (HashSet::new(), Vec::new(), Vec::new(), 0);
        let mut next_update = i64::MAX;
        for der in &ders {
            let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| damaged(WHAT, path))?;
            let issuer = list.issuer().as_raw().to_vec();
            for entry in list.iter_revoked_certificates() {
                revoked.insert(CertId { issuer: issuer.clone(), serial: entry.raw_serial().to_vec() });
                entries.push((entry.raw_serial().to_vec(), entry.revocation_date.timestamp()));
            }
            let digits = list.crl_number().map(x509_parser::num_bigint::BigUint::to_u64_digits).unwrap_or_default();
            number = digits.first().copied().unwrap_or(0).max(number);
            next_update = list.next_update().map_or(next_update, |at| at.timestamp().min(next_update));
            issuers.push(issuer);
        }
        Ok(Self { ders, revoked: Revoked(revoked), issuers, entries, number, next_update })
    }
}

/// Whether every CA that has the name of the list's issuer signed it, and there is one: handshakes know lists by names alone.
fn is_by_one_of(list: &[u8], cas: &[CertificateDer<'_>], path: &Path, ca: &Path) -> Result<(), TlsError> {
    let (_, list) = CertificateRevocationList::from_der(list).map_err(|_| damaged(WHAT, path))?;
    let cas = cas.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    let mut signed =
        cas.filter(|(_, ca)| ca.subject().as_raw() == list.issuer().as_raw()).map(|(_, ca)| is_signed_by(&list, &ca));
    let Some(first) = signed.next() else {
        return Err(TlsError::ForeignList { path: path.into(), ca: ca.into() });
    };
    match (first, signed.all(|signed| signed == first)) {
        (true, true) => Ok(()),
        (false, true) => Err(TlsError::UnsignedList { path: path.into(), ca: ca.into() }),
        (_, false) => Err(TlsError::Namesakes { path: path.into(), ca: ca.into() }),
    }
}

/// Whether this CA signed it, in any way that handshakes take.
fn is_signed_by(list: &CertificateRevocationList<'_>, ca: &X509Certificate<'_>) -> bool {
    let (key, text, signature) = (&ca.public_key().subject_public_key, list.tbs_cert_list.as_ref(), &list.signature_value);
    let ways = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    ways.iter().any(|way| way.verify_signature(&key.data, text, &signature.data).is_ok())
}
