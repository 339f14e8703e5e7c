//! Certificates that no longer count: what a revocation list (RFC 5280 §5) names, for connections that are open already.

use std::collections::HashSet;
use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::tls::{TlsError, damaged, read};

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
}

impl Lists {
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
        for der in &ders {
            let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| damaged(WHAT, path))?;
            let issuer = list.issuer().as_raw().to_vec();
            for entry in list.iter_revoked_certificates() {
                revoked.insert(CertId { issuer: issuer.clone(), serial: entry.raw_serial().to_vec() });
                entries.push((entry.raw_serial().to_vec(), entry.revocation_date.timestamp()));
            }
            let digits = list.crl_number().map(x509_parser::num_bigint::BigUint::to_u64_digits).unwrap_or_default();
            number = digits.first().copied().unwrap_or(0).max(number);
            issuers.push(issuer);
        }
        Ok(Self { ders, revoked: Revoked(revoked), issuers, entries, number })
    }
}
