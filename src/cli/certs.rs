//! `lc certs init`, `issue`, `renew`, `revoke`, `show`, `check`.
//!
//! Exit codes: 0 done, or every point of a check is good (warnings included); 1 a check found something bad, or files cannot be
//! written; 2 a name or id that cannot stand in a certificate; 4 no CA or no such file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::exit::{Exit, Outcome, Stop};
use super::output;
use super::start;
use crate::net::certs::{self, CertsError, Issued, Order};
use crate::net::check::{self, Report, Verdict};
use crate::net::facts::date;
use crate::net::revoke::{self, Revocation, Which};
use crate::net::{CertFacts, Role};

/// What is asked of the certificate room.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    /// A new CA.
    Init {
        /// Where it is written; must not hold one already.
        dir: PathBuf,
        /// Common name.
        name: String,
        /// Days it is valid.
        days: u32,
    },
    /// A certificate for a node, signed by the CA in `dir`.
    Issue {
        /// Where the CA is, and where the certificate is written.
        dir: PathBuf,
        /// hunter, processor, admin or subscriber.
        role: String,
        /// Name of the node.
        id: String,
        /// DNS names.
        dns: Vec<String>,
        /// Addresses.
        ips: Vec<IpAddr>,
        /// Days it is valid.
        days: u32,
    },
    /// The same again, with a new key, in the place of the old files.
    Renew {
        /// Where the CA and the certificate are.
        dir: PathBuf,
        /// Role of the node.
        role: String,
        /// Name of the node.
        id: String,
        /// Days it is valid.
        days: u32,
    },
    /// A certificate that no longer counts.
    Revoke {
        /// Where the CA and its list are.
        dir: PathBuf,
        /// Role and name of a node.
        node: Option<(String, String)>,
        /// Serial number, without a node.
        serial: Option<String>,
    },
    /// What certificates say.
    Show {
        /// Without a file, those in `dir`.
        dir: PathBuf,
        /// PEM files.
        files: Vec<PathBuf>,
    },
    /// Whether a certificate, its key and its CA belong together and are valid now.
    Check {
        /// Certificate (PEM).
        cert: PathBuf,
        /// Private key (PEM).
        key: Option<PathBuf>,
        /// CA (PEM).
        ca: PathBuf,
        /// Revocation list (PEM).
        crl: Option<PathBuf>,
        /// Name it must be valid for.
        server_name: Option<String>,
    },
}

pub(super) fn run(matches: &ArgMatches) -> Result<Outcome, Stop> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Stop::usage("certs what? see 'lc certs --help'"));
    };
    let started = start::start(matches)?;
    let dir = started.merged.settings()?.certs.dir;
    let answer = answer(&request(name, dir, matches)?)?;
    output::print(&answer.text)?;
    match answer.failed {
        None => Ok(Outcome::Done),
        Some(why) => Err(anyhow::Error::msg(why).into()),
    }
}

fn request(name: &str, dir: PathBuf, matches: &ArgMatches) -> Result<Request, Stop> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let days = || matches.get_one::<u32>("days").copied().unwrap_or(90);
    Ok(match name {
        "init" => Request::Init { dir, name: text("name").unwrap_or_default(), days: days() },
        "issue" => Request::Issue {
            dir,
            role: text("role").unwrap_or_default(),
            id: text("id").unwrap_or_default(),
            dns: matches.get_many::<String>("dns").into_iter().flatten().cloned().collect(),
            ips: matches.get_many::<IpAddr>("ip").into_iter().flatten().copied().collect(),
            days: days(),
        },
        "renew" => {
            Request::Renew { dir, role: text("role").unwrap_or_default(), id: text("id").unwrap_or_default(), days: days() }
        }
        "revoke" => Request::Revoke { dir, node: text("role").zip(text("id")), serial: text("serial") },
        "show" => Request::Show { dir, files: matches.get_many::<PathBuf>("files").into_iter().flatten().cloned().collect() },
        "check" => {
            let ca = path("tls-ca").unwrap_or_else(|| dir.join(certs::CA_CERT));
            let beside = Some(ca.with_file_name(revoke::CA_CRL)).filter(|list| list.exists());
            Request::Check {
                cert: path("tls-cert").unwrap_or_default(),
                key: path("tls-key"),
                crl: path("tls-crl").or(beside),
                ca,
                server_name: text("tls-server-name"),
            }
        }
        _ => return Err(Stop::usage("certs what? see 'lc certs --help'")),
    })
}

/// What goes to stdout, and what went wrong beside it.
#[derive(Debug)]
struct Answer {
    text: String,
    failed: Option<String>,
}

/// Does what is asked and says so in lines for stdout: the files written, or what was found.
fn answer(request: &Request) -> Result<Answer, Stop> {
    match request {
        Request::Init { dir, name, days } => Ok(issued(&certs::init(dir, name, *days)?)),
        Request::Issue { dir, role, id, dns, ips, days } => {
            let order = Order { role: by_name(role)?, id: id.clone(), dns: dns.clone(), ips: ips.clone(), days: *days };
            Ok(issued(&certs::issue(dir, &order)?))
        }
        Request::Renew { dir, role, id, days } => Ok(issued(&revoke::renew(dir, by_name(role)?, id, *days)?)),
        Request::Revoke { dir, node, serial } => {
            let which = match (node, serial) {
                (Some((role, id)), _) => Which::Node { role: by_name(role)?, id: id.clone() },
                (None, Some(serial)) => Which::Serial(serial.clone()),
                (None, None) => return Err(Stop::usage("revoke what? give ROLE and ID of a node, or --serial HEX")),
            };
            Ok(revoked(&revoke::revoke(dir, &which)?))
        }
        Request::Show { dir, files } => show(dir, files),
        Request::Check { cert, key, ca, crl, server_name } => {
            let report = check::check(cert, key.as_deref(), ca, crl.as_deref(), server_name.as_deref())?;
            Ok(checked(cert, &report))
        }
    }
}

fn by_name(role: &str) -> Result<Role, Stop> {
    Role::by_name(role).ok_or_else(|| Stop::usage(format!("`{role}` is not a role")))
}

fn revoked(revocation: &Revocation) -> Answer {
    let mut text = String::new();
    line(&mut text, "revoked", &revocation.serial);
    line(&mut text, "list", &format!("{} ({} certificates)", revocation.list.display(), revocation.total));
    let note = if revocation.already {
        "it stood there already"
    } else {
        "processors that were given this list (--tls-crl) cut its connections within a second; copy it to those elsewhere"
    };
    line(&mut text, "note", note);
    Answer { text, failed: None }
}

fn issued(issued: &Issued) -> Answer {
    let mut text = String::new();
    line(&mut text, "certificate", &issued.cert.display().to_string());
    line(&mut text, "key", &issued.key.display().to_string());
    facts(&mut text, &issued.facts);
    for note in &issued.notes {
        line(&mut text, "note", note);
    }
    Answer { text, failed: None }
}

fn show(dir: &Path, files: &[PathBuf]) -> Result<Answer, Stop> {
    let listed = if files.is_empty() { certs::list(dir)? } else { files.to_vec() };
    if listed.is_empty() {
        let why = anyhow::anyhow!("there are no certificates in {}", dir.display());
        return Err(Stop::new(Exit::NotFound, why).hint("make some with 'lc certs init' and 'lc certs issue'"));
    }
    let mut text = String::new();
    let list = Some(dir.join(revoke::CA_CRL)).filter(|list| files.is_empty() && list.exists());
    for file in &listed {
        for of_file in certs::show(file)? {
            if !text.is_empty() {
                text.push('\n');
            }
            line(&mut text, "file", &file.display().to_string());
            facts(&mut text, &of_file);
            if let Some(list) = &list
                && revoke::is_on(list, &of_file)?
            {
                line(&mut text, "REVOKED", &format!("says {}", list.display()));
            }
        }
    }
    Ok(Answer { text, failed: None })
}

fn checked(cert: &Path, report: &Report) -> Answer {
    let mut text = String::new();
    line(&mut text, "file", &cert.display().to_string());
    for finding in &report.findings {
        let head = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warn => "warning",
            Verdict::Bad => "BAD",
        };
        line(&mut text, head, &finding.text);
    }
    let bad: Vec<&str> =
        report.findings.iter().filter(|f| f.verdict == Verdict::Bad).map(|finding| finding.text.as_str()).collect();
    let failed = (!bad.is_empty()).then(|| format!("the certificate {} will be refused: {}", cert.display(), bad.join("; ")));
    Answer { text, failed }
}

fn facts(text: &mut String, facts: &CertFacts) {
    line(text, "subject", &facts.common_name);
    if let Some(who) = &facts.identity {
        line(text, "identity", &format!("{} {}", who.role, who.id));
    }
    let may = [(facts.is_ca, "sign certificates"), (facts.for_servers, "be a server"), (facts.for_clients, "be a client")];
    let may: Vec<&str> = may.into_iter().filter_map(|(may, what)| may.then_some(what)).collect();
    line(text, "may", &may.join(", "));
    for name in &facts.dns {
        line(text, "dns", name);
    }
    for ip in &facts.ips {
        line(text, "ip", &ip.to_string());
    }
    for uri in &facts.uris {
        line(text, "uri", uri);
    }
    line(text, "issuer", &facts.issuer);
    line(text, "valid from", &date(facts.not_before));
    line(text, "valid until", &date(facts.not_after));
    line(text, "serial", &facts.serial);
    line(text, "sha256", &facts.fingerprint);
}

fn line(text: &mut String, head: &str, tail: &str) {
    text.push_str(format!("{head:<12}  {}", output::printable(tail)).trim_end());
    text.push('\n');
}

impl From<CertsError> for Stop {
    fn from(error: CertsError) -> Self {
        let exit = if error.is_not_found() {
            Exit::NotFound
        } else if error.is_usage() {
            Exit::Usage
        } else {
            Exit::Failure
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::command;
    use super::*;

    fn parse(arguments: &[&str]) -> Request {
        let matches = command().try_get_matches_from(["lc", "certs"].iter().chain(arguments)).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let (name, matches) = matches.subcommand().unwrap();
        request(name, PathBuf::from("d"), matches).unwrap()
    }

    #[test]
    fn names_and_addresses_may_be_repeated_or_separated_by_commas() {
        let request = parse(&["issue", "processor", "mid", "--dns", "a,b", "--dns", "c", "--ip", "192.0.2.1,::1"]);

        let Request::Issue { dns, ips, days, .. } = request else { panic!("{request:?}") };
        assert_eq!((dns.join(" "), ips.len(), days), ("a b c".to_owned(), 2, 90));
    }

    #[test]
    fn checks_against_the_ca_of_the_directory() {
        let request = parse(&["check", "--tls-cert", "x.pem"]);

        assert!(matches!(request, Request::Check { ca, .. } if ca == *"d/ca.crt"));
    }

    #[test]
    fn a_ca_and_a_node_are_made_shown_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new");
        let path = |name: &str| dir.join(name);

        answer(&Request::Init { dir: dir.clone(), name: "test CA".into(), days: 3650 }).unwrap();
        let issued = answer(&issue(&dir, "processor", "mid")).unwrap();
        let shown = answer(&Request::Show { dir: dir.clone(), files: Vec::new() }).unwrap();
        let checked = answer(&Request::Check {
            cert: path("processor-mid.crt"),
            key: Some(path("processor-mid.key")),
            ca: path("ca.crt"),
            crl: Some(path("ca.crl")),
            server_name: Some("localhost".into()),
        });

        assert!(issued.text.contains("note          no name was given"), "{}", issued.text);
        assert!(shown.text.contains("identity      processor mid") && shown.text.contains("subject       test CA"));
        assert!(shown.text.contains("may           be a server, be a client"), "{}", shown.text);
        let checked = checked.unwrap();
        assert!(checked.failed.is_none() && !checked.text.contains("warning"), "{}", checked.text);
    }

    #[test]
    fn failures_end_in_their_exit_codes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_path_buf();
        let exit = |request: &Request| answer(request).unwrap_err().exit();
        let init = Request::Init { dir: dir.clone(), name: "x".into(), days: 1 };

        assert_eq!(exit(&Request::Show { dir: dir.clone(), files: Vec::new() }), Exit::NotFound);
        assert_eq!(exit(&issue(&dir, "hunter", "a")), Exit::NotFound);
        answer(&init).unwrap();
        assert_eq!(exit(&init), Exit::Failure);
        assert_eq!(exit(&issue(&dir, "hunter", "../a")), Exit::Usage);
        assert_eq!(exit(&Request::Show { dir: dir.clone(), files: vec![dir.join("none.crt")] }), Exit::NotFound);

        // Another CA did not sign it: found, said, and a failure.
        let other = dir.join("other");
        answer(&Request::Init { dir: other.clone(), name: "x".into(), days: 30 }).unwrap();
        answer(&issue(&other, "hunter", "a")).unwrap();
        let cert = other.join("hunter-a.crt");
        let found = answer(&Request::Check { cert, key: None, ca: dir.join("ca.crt"), crl: None, server_name: None }).unwrap();
        assert!(found.failed.unwrap().contains("not signed by the CA"));
        assert!(found.text.contains("BAD"), "{}", found.text);
    }

    fn issue(dir: &Path, role: &str, id: &str) -> Request {
        Request::Issue { dir: dir.into(), role: role.into(), id: id.into(), dns: vec![], ips: vec![], days: 90 }
    }
}
