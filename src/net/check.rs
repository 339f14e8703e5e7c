//! `lc certs check`: whether a certificate, its key and its CA belong together and are valid now, point by point.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

use super::certs::CertsError;
use super::facts::{CertFacts, Role, date};
use super::revoked::{CertId, Lists};
use super::tls::{self, TlsError, certificates, explain_certificate, private_key, roots, span};

/// A certificate that ends sooner is warned about.
const SOON_SECS: i64 = 7 * 86_400;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// How a point was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not for long or not for everything.
    Warn,
    /// It will be refused.
    Bad,
}

/// One point that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it was answered.
    pub verdict: Verdict,
    /// What was found, and what to try when it is not good.
    pub text: String,
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the certificate says.
    pub facts: CertFacts,
    /// The points, in the order they were checked.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is bad.
    pub fn is_good(&self) -> bool {
        self.count(Verdict::Bad) == 0
    }

    /// How many points were answered so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|f| f.verdict == verdict).count()
    }

    fn say(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.findings.push(Finding { verdict, text: text.into() });
    }
}

/// Checks validity, signature, usage and names of the first certificate in `cert`, that `crl` does not revoke it, that `key` belongs to it
/// and is kept to its owner, and that it is for `server_name`; `crl`, `key` and `server_name` may be left out.
///
/// # Errors
/// [`CertsError::Tls`] when a file cannot be read at all; everything else is in the [`Report`].
pub fn check(
    cert: &Path,
    key: Option<&Path>,
    ca: &Path,
    crl: Option<&Path>,
    server_name: Option<&str>,
) -> Result<Report, CertsError> {
    let what = "certificate";
    let chain = certificates(what, cert)?;
    let leaf = chain.first().ok_or_else(|| tls::damaged(what, cert))?;
    let facts = CertFacts::read(leaf).ok_or_else(|| tls::damaged(what, cert))?;
    let server_name = server_name.map(tls::server_name).transpose()?;
    let mut report = Report { facts, findings: Vec::new() };

    let now = UnixTime::now();
    validity(&mut report, now);
    signature(&mut report, &chain, ca, now)?;
    if let Some(crl) = crl {
        revocation(&mut report, leaf, crl, ca)?;
    }
    if let Some(key) = key {
        key_fits(&mut report, &chain, cert, key)?;
    }
    role(&mut report);
    if let Some(name) = server_name {
        let parsed = ParsedCertificate::try_from(leaf);
        match parsed.and_then(|parsed| verify_server_name(&parsed, &name)) {
            Ok(()) => report.say(Verdict::Good, format!("it is for `{}`", name.to_str())),
            Err(e) => report.say(Verdict::Bad, words(&e)),
        }
    }
    Ok(report)
}

fn validity(report: &mut Report, now: UnixTime) {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (from, until) = (report.facts.not_before, report.facts.not_after);
    let left = until.saturating_sub(now);
    if now < from {
        let wait = span(from.saturating_sub(now));
        report.say(Verdict::Bad, format!("it becomes valid only in {wait}; check this machine's clock"));
    } else if left < 0 {
        let ago = span(left.saturating_neg());
        report.say(Verdict::Bad, format!("it expired {ago} ago, on {}; issue a new one (`lc certs renew`)", date(until)));
    } else if left < SOON_SECS {
        let text = format!("it expires in {}, on {}; issue a new one (`lc certs renew`) soon", span(left), date(until));
        report.say(Verdict::Warn, text);
    } else {
        report.say(Verdict::Good, format!("it is valid until {}, {} from now", date(until), span(left)));
    }
}

fn signature(report: &mut Report, chain: &[CertificateDer<'static>], ca: &Path, now: UnixTime) -> Result<(), CertsError> {
    let anchors = roots(ca)?;
    let cas = certificates("CA file", ca)?;
    let Some((leaf, intermediates)) = chain.split_first() else { return Ok(()) };

    // Whether it has expired is a point of its own: the signature is looked at within the validity.
    let within = i64::try_from(now.as_secs()).unwrap_or(i64::MAX).min(report.facts.not_after).max(report.facts.not_before);
    let within = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(within).unwrap_or(0)));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verified = if report.facts.for_servers {
        let algorithms = provider.signature_verification_algorithms.all;
        ParsedCertificate::try_from(leaf)
            .and_then(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &anchors, intermediates, within, algorithms))
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider).build();
        let verifier = verifier.map_err(|e| TlsError::Refused { path: ca.into(), why: e.to_string() })?;
        verifier.verify_client_cert(leaf, intermediates, within).map(|_| ())
    };
    match verified {
        Ok(()) => report.say(Verdict::Good, format!("it is signed by the CA in {}", ca.display())),
        Err(e) => report.say(Verdict::Bad, words(&e)),
    }

    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    for der in &cas {
        let facts = CertFacts::read(der).ok_or_else(|| tls::damaged("CA file", ca))?;
        if facts.not_after < now {
            let ago = span(now.saturating_sub(facts.not_after));
            let text =
                format!("the CA `{}` expired {ago} ago; make a new one (`lc certs init`) and issue again", facts.common_name);
            report.say(Verdict::Bad, text);
        } else if !facts.is_ca {
            let text =
                format!("`{}` in {} is not the certificate of a CA; give --tls-ca the CA's", facts.common_name, ca.display());
            report.say(Verdict::Bad, text);
        }
    }
    Ok(())
}

fn revocation(report: &mut Report, leaf: &CertificateDer<'static>, crl: &Path, ca: &Path) -> Result<(), CertsError> {
    let lists = Lists::read(crl)?;
    match Lists::by(crl, ca) {
        Err(e @ (TlsError::UnsignedList { .. } | TlsError::Namesakes { .. })) => {
            report.say(Verdict::Bad, e.to_string());
            return Ok(());
        }
        // whose list it is comes below
        Err(TlsError::ForeignList { .. }) | Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    if let Some(ago) = lists.ended() {
        let text = format!("{} ended {ago} ago, and what was revoked since is not on it; give a newer one", crl.display());
        report.say(Verdict::Warn, text);
    }
    let Some(id) = CertId::read(leaf) else { return Ok(()) };
    if lists.revoked.has(&id) {
        report.say(Verdict::Bad, format!("it was revoked, says {}; issue a new one (`lc certs renew`)", crl.display()));
    } else if lists.issuers.iter().any(|issuer| id.is_by(issuer)) {
        report.say(Verdict::Good, format!("it is not among the {} that {} revokes", lists.revoked.len(), crl.display()));
    } else {
        report.say(Verdict::Warn, format!("{} is a list of another CA and says nothing of it; give its own CA's", crl.display()));
    }
    Ok(())
}

fn key_fits(report: &mut Report, chain: &[CertificateDer<'static>], cert: &Path, key: &Path) -> Result<(), CertsError> {
    match tls::belong_together(cert, chain.to_vec(), key, &private_key(key)?) {
        Ok(_) => report.say(Verdict::Good, format!("the key {} belongs to it", key.display())),
        Err(e) => report.say(Verdict::Bad, e.to_string()),
    }
    let mode = std::fs::metadata(key).map(|meta| meta.permissions().mode());
    if mode.is_ok_and(|mode| mode & OTHERS != 0) {
        let text = format!("others may use the key {}; `chmod 600` keeps it to its owner", key.display());
        report.say(Verdict::Warn, text);
    }
    Ok(())
}

fn role(report: &mut Report) {
    let facts = &report.facts;
    if facts.is_ca {
        report.say(Verdict::Bad, "it is the certificate of a CA, which must not stand for a node; issue one (`lc certs issue`)");
        return;
    }
    let nameless = facts.dns.is_empty() && facts.ips.is_empty();
    let (verdict, text) = match &facts.identity {
        None => (
            Verdict::Warn,
            "it names no role (no URI `lc:ROLE:ID`), so processors cannot tell whose it is; issue one (`lc certs issue`)"
                .to_owned(),
        ),
        Some(who) if who.role == Role::Processor && !facts.for_servers => {
            (Verdict::Bad, "it is of a processor, but may not be shown by a server; issue it again (`lc certs issue`)".to_owned())
        }
        Some(who) if who.role != Role::Processor && !facts.for_clients => (
            Verdict::Bad,
            format!("it is of a {}, but may not be shown by a client; issue it again (`lc certs issue`)", who.role),
        ),
        Some(who) if who.role == Role::Processor && nameless => (
            Verdict::Bad,
            "it is of a processor, but has neither DNS name nor address; issue it with what hunters dial (--dns, --ip)"
                .to_owned(),
        ),
        Some(who) => (Verdict::Good, format!("it stands for the {} `{}`", who.role, who.id)),
    };
    report.say(verdict, text);
}

/// A verifier's answer about the certificate checked here.
fn words(e: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(why) = e else { return e.to_string() };
    explain_certificate(why).replace("the peer's certificate", "it")
}
