//! Certificates that change after they were issued: `lc certs renew` and `lc certs revoke`.
//!
//! Promises: a renewed pair takes the place of the old one file by file, each whole; the old certificate stays valid until it ends or is
//! revoked. The revocation list (RFC 5280 §5) is replaced whole, keeps every entry it had, and is valid as long as the CA: a list that
//! is not fetched again must not stop anything. One revocation at a time (`flock` on the directory).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::UnixTime;
use x509_parser::time::ASN1Time;

use super::certs::{self, CA_CERT, CLOCK_SKEW, Ca, CertsError, Issued, Order, Pair, write_new};
use super::facts::{CertFacts, Role};
use super::revoked::{CertId, Lists, subject};
use super::tls::{self, certificates};

/// File name of the CA's revocation list.
pub const CA_CRL: &str = "ca.crl";
/// Longest serial number, in octets (RFC 5280 §4.1.2.2).
const SERIAL_MAX: usize = 20;

/// What is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The certificate of a node, in the CA's directory.
    Node {
        /// Its role.
        role: Role,
        /// Its id.
        id: String,
    },
    /// Any, by its serial number in hexadecimal.
    Serial(String),
}

/// What was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The list.
    pub list: PathBuf,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// It stood there before.
    pub already: bool,
    /// Certificates on the list.
    pub total: usize,
}

/// Issues the certificate of a node again: the same names, a new key, `days` from now. The files take the place of the old ones.
///
/// # Errors
/// [`CertsError`]; the old pair is as it was then.
pub fn renew(dir: &Path, role: Role, id: &str, days: u32) -> Result<Issued, CertsError> {
    certs::check_id(id)?;
    let pair = Pair::of(dir, role, id);
    let old = certs::show(&pair.cert)?;
    let old = old.first().ok_or_else(|| tls::damaged("certificate", &pair.cert))?;
    let order = Order { role, id: id.to_owned(), dns: old.dns.clone(), ips: old.ips.clone(), days };
    let (cert, key, mut notes) = certs::sign(dir, &order, &pair)?;
    let facts = CertFacts::read(cert.der()).ok_or_else(|| tls::damaged("certificate", &pair.cert))?;
    // who reads between the two finds a pair that does not fit, keeps the one it has and looks again
    replace(&pair.key, key.serialize_pem().as_bytes())?;
    replace(&pair.cert, cert.pem().as_bytes())?;
    notes.push(format!(
        "the certificate before stays valid until {}; to end it now: lc certs revoke --serial {}",
        super::facts::date(old.not_after),
        old.serial
    ));
    Ok(Issued { cert: pair.cert, key: pair.key, facts, notes })
}

/// Puts a certificate on the revocation list of the CA in `dir`.
///
/// # Errors
/// [`CertsError`]; the list is as it was then.
pub fn revoke(dir: &Path, which: &Which) -> Result<Revocation, CertsError> {
    let ca = Ca::read(dir)?;
    let list = dir.join(CA_CRL);
    let failed = |cause| CertsError::Write { path: list.clone(), cause };
    let lock = File::open(dir).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;

    let serial = match which {
        Which::Serial(text) => serial(text).ok_or_else(|| CertsError::BadSerial { serial: text.clone() })?,
        Which::Node { role, id } => of_node(dir, *role, id)?,
    };
    let (mut entries, number) = if list.exists() {
        // what it says is signed again
        let lists = Lists::by(&list, &dir.join(CA_CERT))?;
        (lists.entries, lists.number)
    } else {
        (Vec::new(), 0)
    };
    let already = entries.iter().any(|(known, _)| *known == serial);
    if !already {
        entries.push((serial.clone(), i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)));
        replace(&list, pem(&ca, &entries, number.saturating_add(1), &list)?.as_bytes())?;
    }
    Ok(Revocation { list, serial: super::facts::hex(&serial), already, total: entries.len() })
}

/// Whether a certificate, by its serial number, is on this list.
///
/// # Errors
/// [`CertsError::Tls`] when the list cannot be read.
pub fn is_on(list: &Path, facts: &CertFacts) -> Result<bool, CertsError> {
    let lists = Lists::read(list)?;
    Ok(lists.entries.iter().any(|(serial, _)| super::facts::hex(serial) == facts.serial))
}

/// A list without entries, for a new CA.
pub(super) fn write_empty(dir: &Path) -> Result<(), CertsError> {
    let list = dir.join(CA_CRL);
    let text = pem(&Ca::read(dir)?, &[], 1, &list)?;
    write_new(&list, text.as_bytes())
}

fn of_node(dir: &Path, role: Role, id: &str) -> Result<Vec<u8>, CertsError> {
    certs::check_id(id)?;
    let path = Pair::of(dir, role, id).cert;
    let chain = certificates("certificate", &path)?;
    let damaged = || tls::damaged("certificate", &path);
    let leaf = chain.first().and_then(|der| CertId::read(der)).ok_or_else(damaged)?;
    let cas = certificates("certificate", &dir.join(CA_CERT))?;
    if !cas.iter().filter_map(|der| subject(der)).any(|name| leaf.is_by(&name)) {
        return Err(CertsError::NotOurs { path, dir: dir.into() });
    }
    Ok(leaf.into_serial())
}

fn pem(ca: &Ca, entries: &[(Vec<u8>, i64)], number: u64, list: &Path) -> Result<String, CertsError> {
    let failed = |cause| CertsError::Make { path: list.into(), cause };
    let at = |secs: i64| ASN1Time::from_timestamp(secs).map(|t| t.to_datetime()).map_err(|_| CertsError::BadDays { days: 0 });
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or(0);
    let mut revoked_certs = Vec::with_capacity(entries.len());
    for (serial, since) in entries {
        revoked_certs.push(RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(*since)?,
            reason_code: None,
            invalidity_date: None,
        });
    }
    let params = CertificateRevocationListParams {
        this_update: at(now.saturating_sub(skew))?,
        next_update: at(ca.not_after)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).and_then(|list| list.pem()).map_err(failed)
}

/// A serial number as certificates encode it: no zeros before it but the one that keeps it positive.
fn serial(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = if digits.len().is_multiple_of(2) { digits.to_owned() } else { format!("0{digits}") };
    let mut out = Vec::new();
    for at in (0..digits.len()).step_by(2) {
        out.push(u8::from_str_radix(digits.get(at..at.saturating_add(2))?, 16).ok()?);
    }
    if out.len() > SERIAL_MAX {
        return None;
    }
    if out.first().is_some_and(|b| b & 0x80 != 0) {
        out.insert(0, 0);
    }
    Some(out)
}

/// Puts a whole new file in the place of `path`.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CertsError> {
    let failed = |cause| CertsError::Write { path: path.into(), cause };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    // of an earlier attempt that was cut off
    let _none = fs::remove_file(&fresh);
    write_new(&fresh, bytes)?;
    fs::rename(&fresh, path).map_err(failed)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::net::check::check;

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        certs::init(dir.path(), "test CA", 100).unwrap();
        dir
    }

    fn hunter(dir: &Path, id: &str) -> Issued {
        let order = Order { role: Role::Hunter, id: id.into(), dns: vec![], ips: vec![], days: 9 };
        certs::issue(dir, &order).unwrap()
    }

    fn node(id: &str) -> Which {
        Which::Node { role: Role::Hunter, id: id.into() }
    }

    #[test]
    fn a_renewed_certificate_has_the_names_of_the_old_one_and_a_key_of_its_own() {
        let dir = site();
        let order = Order {
            role: Role::Processor,
            id: "mid".into(),
            dns: vec!["mid.example".into()],
            ips: vec!["192.0.2.1".parse().unwrap()],
            days: 9,
        };
        let old = certs::issue(dir.path(), &order).unwrap();
        let old_key = fs::read(&old.key).unwrap();

        let new = renew(dir.path(), Role::Processor, "mid", 30).unwrap();

        assert_eq!((&new.cert, &new.key), (&old.cert, &old.key));
        assert_eq!((&new.facts.dns, &new.facts.ips, &new.facts.identity), (&old.facts.dns, &old.facts.ips, &old.facts.identity));
        assert!(new.facts.not_after > old.facts.not_after && new.facts.serial != old.facts.serial);
        assert!(fs::read(&new.key).unwrap() != old_key);
        assert!(new.notes.iter().any(|n| n.contains(&old.facts.serial)), "{:?}", new.notes);
        assert_eq!(fs::metadata(&new.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(check(&new.cert, Some(&new.key), &dir.path().join(CA_CERT), None, None).unwrap().is_good());
        assert!(renew(dir.path(), Role::Processor, "none", 30).unwrap_err().is_not_found());
    }

    #[test]
    fn a_list_keeps_what_it_had_and_names_each_once() {
        let dir = site();
        let [a, b] = ["a", "b"].map(|id| hunter(dir.path(), id));

        let first = revoke(dir.path(), &node("a")).unwrap();
        let second = revoke(dir.path(), &Which::Serial(b.facts.serial)).unwrap();
        let again = revoke(dir.path(), &node("a")).unwrap();

        assert_eq!((first.already, first.total, &first.serial), (false, 1, &a.facts.serial));
        assert_eq!((second.already, second.total), (false, 2));
        assert_eq!((again.already, again.total), (true, 2));
        let lists = Lists::read(&first.list).unwrap();
        assert_eq!((lists.revoked.len(), lists.number), (2, 3), "init wrote the first");
    }

    #[test]
    fn what_is_not_of_this_ca_is_not_revoked() {
        let (dir, other) = (site(), tempfile::tempdir().unwrap());
        certs::init(other.path(), "another CA", 100).unwrap();
        let theirs = hunter(other.path(), "x");
        fs::copy(&theirs.cert, dir.path().join("hunter-x.crt")).unwrap();

        assert!(matches!(revoke(dir.path(), &node("x")), Err(CertsError::NotOurs { .. })));
        for bad in ["", "0", "xy", "1".repeat(41).as_str()] {
            assert!(matches!(revoke(dir.path(), &Which::Serial(bad.into())), Err(CertsError::BadSerial { .. })), "{bad}");
        }
        assert_eq!(serial("00:ff:01"), Some(vec![0, 255, 1]));
        assert_eq!(serial("fff"), Some(vec![15, 255]));
    }

    #[test]
    fn lists_that_openssl_signed_with_any_kind_of_key_are_taken() {
        let openssl = |dir: &Path, arguments: &str| Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
        if openssl(Path::new("/"), "version").is_err() {
            crate::not_run::say_unless_it_must("lists_that_openssl_signed_with_any_kind_of_key_are_taken", "there is no openssl");
            return;
        }
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=db\ncrlnumber=n\ndefault_md=sha384\ndefault_crl_days=9\n";
        for kind in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384", "ed25519"] {
            let dir = tempfile::tempdir().unwrap();
            let run = |arguments: &str| {
                let out = openssl(dir.path(), arguments).unwrap();
                assert!(out.status.success(), "{kind}: {arguments}: {}", String::from_utf8_lossy(&out.stderr));
            };
            for (name, text) in [("cnf", config), ("db", ""), ("n", "01")] {
                fs::write(dir.path().join(name), text).unwrap();
            }
            for name in ["ca", "other"] {
                run(&format!("req -x509 -newkey {kind} -nodes -keyout {name}.key -out {name}.crt -subj /CN=one"));
                run(&format!("ca -config cnf -gencrl -keyfile {name}.key -cert {name}.crt -out {name}.crl"));
            }
            let by = |list: &str| Lists::by(&dir.path().join(list), &dir.path().join("ca.crt"));

            assert!(by("ca.crl").is_ok_and(|lists| lists.ended().is_none()), "{kind}");
            assert!(matches!(by("other.crl"), Err(tls::TlsError::UnsignedList { .. })), "{kind}");
        }
    }

    #[test]
    fn openssl_refuses_what_was_revoked_and_nothing_else() {
        let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
        if openssl(&["version"]).is_err() {
            crate::not_run::say_unless_it_must("openssl_refuses_what_was_revoked", "there is no openssl");
            return;
        }
        let dir = site();
        for id in ["good", "bad"] {
            hunter(dir.path(), id);
        }
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let verify = |name: &str| {
            let (ca, list) = (path(CA_CERT), path(CA_CRL));
            let out = openssl(&["verify", "-x509_strict", "-crl_check", "-CAfile", &ca, "-CRLfile", &list, &path(name)]).unwrap();
            (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout))
        };
        assert!(verify("hunter-bad.crt").0, "{}", verify("hunter-bad.crt").1);

        revoke(dir.path(), &node("bad")).unwrap();
        let (good, bad) = (verify("hunter-good.crt"), verify("hunter-bad.crt"));
        renew(dir.path(), Role::Hunter, "bad", 9).unwrap();

        assert!(good.0, "{}", good.1);
        assert!(!bad.0 && bad.1.contains("certificate revoked"), "{}", bad.1);
        assert!(verify("hunter-bad.crt").0, "renewed: {}", verify("hunter-bad.crt").1);
        let signed = openssl(&["crl", "-in", &path(CA_CRL), "-CAfile", &path(CA_CERT), "-noout"]).unwrap();
        assert!(String::from_utf8_lossy(&signed.stderr).contains("verify OK"), "{signed:?}");
    }
}
