use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::net::check::{Verdict, check};

fn order(role: Role, id: &str) -> Order {
    Order { role, id: id.to_owned(), dns: Vec::new(), ips: Vec::new(), days: LEAF_DAYS }
}

fn with_ca() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), "test CA", CA_DAYS).unwrap();
    dir
}

#[test]
fn every_role_is_issued_a_certificate_that_passes_its_check() {
    let dir = with_ca();

    for role in Role::ALL {
        let issued = issue(dir.path(), &order(role, "n-1")).unwrap();

        let facts = &issued.facts;
        assert_eq!(facts.identity, Some(PeerIdentity { role, id: "n-1".into() }));
        assert_eq!((facts.common_name.as_str(), facts.issuer.as_str(), facts.is_ca), ("n-1", "test CA", false));
        assert_eq!((facts.for_servers, facts.for_clients), (role == Role::Processor, true));
        assert_eq!(facts.not_after - facts.not_before, 90 * 86_400 + 3600);
        assert_eq!(show(&issued.cert).unwrap(), std::slice::from_ref(facts));
        let report = check(&issued.cert, Some(&issued.key), &dir.path().join(CA_CERT), None, None).unwrap();
        assert!(report.findings.iter().all(|f| f.verdict == Verdict::Good), "{report:?}");
    }
    assert_eq!(list(dir.path()).unwrap().len(), 5);
}

#[test]
fn files_are_their_owners_and_never_written_over() {
    let dir = with_ca();
    let issued = issue(dir.path(), &order(Role::Hunter, "edge")).unwrap();
    let before = fs::read(&issued.key).unwrap();

    let again = issue(dir.path(), &order(Role::Hunter, "edge")).unwrap_err();
    let ca_again = init(dir.path(), "other", 1).unwrap_err();

    assert!(matches!(&again, CertsError::Exists { .. }) && again.to_string().contains("choose another directory"));
    assert!(matches!(ca_again, CertsError::Exists { path } if path.ends_with(CA_CERT)));
    assert_eq!(fs::read(&issued.key).unwrap(), before);
    for file in [CA_CERT, CA_KEY, CA_CRL, "hunter-edge.crt", "hunter-edge.key"] {
        assert_eq!(fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_processor_without_names_is_for_this_machine_and_says_so() {
    let dir = with_ca();

    let local = issue(dir.path(), &order(Role::Processor, "a")).unwrap();
    let named = Order { dns: vec!["mid.example".into(), "*.mid.example".into()], ..order(Role::Processor, "b") };
    let named = issue(dir.path(), &Order { ips: vec!["2001:db8::1".parse().unwrap()], ..named }).unwrap();

    assert_eq!(local.facts.dns[0], "localhost");
    assert_eq!(local.facts.ips, [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    assert!(local.notes[0].starts_with("no name was given"), "{:?}", local.notes);
    assert_eq!((named.facts.dns.len(), named.facts.ips.len(), named.notes.len()), (2, 1, 0));
}

#[test]
fn what_cannot_stand_in_a_certificate_is_refused_and_nothing_written() {
    let dir = with_ca();
    let long = "x".repeat(65);

    for id in ["", "../x", "a/b", "-a", ".a", "a:b", "a b", "ä", long.as_str()] {
        assert!(matches!(issue(dir.path(), &order(Role::Hunter, id)), Err(CertsError::BadId { .. })), "{id}");
    }
    for name in ["", "192.0.2.1", "a b", "x..y"] {
        let order = Order { dns: vec![name.to_owned()], ..order(Role::Processor, "p") };
        assert!(matches!(issue(dir.path(), &order), Err(CertsError::BadDns { .. })), "{name}");
    }
    let many = Order { dns: vec!["a".into(); 101], ..order(Role::Processor, "p") };
    assert!(matches!(issue(dir.path(), &many), Err(CertsError::TooManyNames { count: 101 })));
    for days in [0, u32::MAX] {
        let order = Order { days, ..order(Role::Hunter, "a") };
        let issued = issue(dir.path(), &order);
        // A far end is cut to the CA's.
        assert_eq!(issued.is_ok(), days != 0, "{issued:?}");
    }
    assert!(init(&dir.path().join("new"), "a\nb", 1).is_err() && init(&dir.path().join("new"), "a", u32::MAX).is_err());
    assert_eq!(list(dir.path()).unwrap().len(), 2);
}

#[test]
fn no_leaf_outlives_its_ca() {
    let dir = tempfile::tempdir().unwrap();
    let ca = init(dir.path(), "short", 5).unwrap();

    let issued = issue(dir.path(), &order(Role::Hunter, "edge")).unwrap();

    assert_eq!(issued.facts.not_after, ca.facts.not_after);
    assert!(issued.notes[0].contains("when the CA ends"), "{:?}", issued.notes);
    let report = check(&issued.cert, None, &ca.cert, None, None).unwrap();
    assert!(report.is_good() && report.findings[0].verdict == Verdict::Warn, "{report:?}");
    assert!(report.findings[0].text.contains("expires in "), "{report:?}");
}

#[test]
fn only_a_ca_signs() {
    let (dir, empty) = (with_ca(), tempfile::tempdir().unwrap());
    let leaf = issue(dir.path(), &order(Role::Hunter, "a")).unwrap();
    fs::copy(&leaf.cert, empty.path().join(CA_CERT)).unwrap();
    fs::copy(&leaf.key, empty.path().join(CA_KEY)).unwrap();

    let by_leaf = issue(empty.path(), &order(Role::Hunter, "b"));
    let by_nobody = issue(&empty.path().join("none"), &order(Role::Hunter, "b")).unwrap_err();

    assert!(matches!(by_leaf, Err(CertsError::NotACa { .. })), "{by_leaf:?}");
    assert!(by_nobody.is_not_found() && by_nobody.to_string().contains("lc certs init"));
}

#[test]
fn a_check_names_every_point_that_is_bad() {
    let (dir, other) = (with_ca(), with_ca());
    let mine = issue(dir.path(), &order(Role::Processor, "p")).unwrap();
    let theirs = issue(other.path(), &order(Role::Processor, "p")).unwrap();
    fs::set_permissions(&theirs.key, fs::Permissions::from_mode(0o644)).unwrap();

    let report = check(&mine.cert, Some(&theirs.key), &other.path().join(CA_CERT), None, Some("elsewhere.example")).unwrap();

    let of = |verdict| report.findings.iter().filter(move |f| f.verdict == verdict).map(|f| f.text.as_str());
    let bad: Vec<&str> = of(Verdict::Bad).collect();
    assert_eq!(bad.len(), 3, "{report:?}");
    for (found, part) in bad.iter().zip(["not signed by the CA", "does not belong to", "not for `elsewhere.example` but for"]) {
        assert!(found.contains(part), "{found}");
    }
    assert!(of(Verdict::Warn).eq(of(Verdict::Warn).filter(|text| text.contains("chmod 600"))));
    assert_eq!((report.count(Verdict::Warn), report.is_good()), (1, false));
    // A CA is no node.
    let ca = check(&dir.path().join(CA_CERT), None, &dir.path().join(CA_CERT), None, None).unwrap();
    assert!(!ca.is_good(), "{ca:?}");
}

#[test]
fn openssl_agrees() {
    let run = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
    if run(&["version"]).is_err() {
        crate::not_run::say_unless_it_must("openssl_agrees", "there is no openssl");
        return;
    }
    let dir = with_ca();
    issue(dir.path(), &Order { dns: vec!["mid.example".into()], ..order(Role::Processor, "mid") }).unwrap();
    issue(dir.path(), &order(Role::Hunter, "edge-1")).unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let ca = path(CA_CERT);
    let verify = |purpose: &str, file: &str| {
        let run = run(&["verify", "-x509_strict", "-CAfile", &ca, "-purpose", purpose, &path(file)]);
        run.unwrap().status.success()
    };
    let text = |file: &str| String::from_utf8(run(&["x509", "-in", &path(file), "-noout", "-text"]).unwrap().stdout).unwrap();

    assert!(verify("sslserver", "processor-mid.crt") && verify("sslclient", "processor-mid.crt"));
    assert!(verify("sslclient", "hunter-edge-1.crt") && !verify("sslserver", "hunter-edge-1.crt"));
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1"] {
        assert!(text(CA_CERT).contains(part), "{part}");
    }
    for part in ["URI:lc:processor:mid", "DNS:mid.example", "TLS Web Server Authentication", "Digital Signature"] {
        assert!(text("processor-mid.crt").contains(part), "{part}");
    }
    let public = |arguments: &[&str]| run(arguments).unwrap().stdout;
    let (cert, key) = (path("hunter-edge-1.crt"), path("hunter-edge-1.key"));
    assert_eq!(public(&["x509", "-in", &cert, "-noout", "-pubkey"]), public(&["pkey", "-in", &key, "-pubout"]));
    let fingerprint = show(Path::new(&cert)).unwrap().remove(0).fingerprint;
    let theirs = String::from_utf8(public(&["x509", "-in", &cert, "-noout", "-fingerprint", "-sha256"])).unwrap();
    assert_eq!(theirs.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase(), fingerprint);
}
