use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use super::*;

const DATA: &str = include_str!("../../../proto/data.proto");
const MANAGEMENT: &str = include_str!("../../../proto/management.proto");

/// Every method of both services, by path.
fn methods() -> Vec<String> {
    let of = |service: &str, text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        lines.map(|line| format!("/{service}/{}", line.split(['(', ' ']).next().unwrap())).collect()
    };
    let mut all = of("lippycat.data.DataService", DATA);
    all.extend(of("lippycat.management.ManagementService", MANAGEMENT));
    all
}

fn peer(role: Option<Role>, tls: bool) -> PeerInfo {
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    let identity = role.map(|role| PeerIdentity { role, id: "x".into() });
    PeerInfo { certificate: identity.is_some(), ..PeerInfo::new(here, here, identity, tls) }
}

/// A column: who calls, and what the processor demands.
fn columns() -> Vec<(&'static str, Option<Role>, bool, Access)> {
    let mut all: Vec<_> = Role::ALL.iter().map(|r| (r.name(), Some(*r), true, Access::new(true, None))).collect();
    all.push(("nobody", None, true, Access::new(false, None)));
    all.push(("insecure", None, false, Access::new(false, None)));
    all.push(("unnamed", None, true, Access::new(true, None)));
    all
}

/// The same table again, for people: `+` may, `-` may not. Read it when it changes.
const EXPECTED: &str = "\
hunter processor admin subscriber nobody insecure unnamed
+ + - - + + - StreamPackets
- - + + - + - SubscribePackets
- - + + - + - SubscribeCorrelatedCalls
+ + - - + + - RegisterHunter
- + - - + + - RegisterProcessor
+ + - - + + - Heartbeat
+ + + + + + - GetFilters
+ + - - + + - SubscribeFilters
- + + + + + - GetHunterStatus
- - + - - + - UpdateFilter
- - + - - + - DeleteFilter
- + + + + + - ListAvailableHunters
- + + + + + - GetTopology
- + + + + + - SubscribeTopology
- + + - - + - UpdateFilterOnProcessor
- + + - - + - DeleteFilterOnProcessor
- + + + - + - GetFiltersFromProcessor
- - + - - + - RequestAuthToken
";

#[test]
fn every_method_is_allowed_to_exactly_those_the_table_says() {
    let columns = columns();
    let mut found = columns.iter().map(|c| c.0).collect::<Vec<_>>().join(" ") + "\n";
    for method in methods() {
        for (_, role, tls, access) in &columns {
            let may = access.decide(&method, Some(&peer(*role, *tls)), None).is_ok();
            found.push_str(if may { "+ " } else { "- " });
        }
        writeln!(found, "{}", method.rsplit('/').next().unwrap()).unwrap();
    }

    assert_eq!(found, EXPECTED);
}

#[test]
fn the_table_names_every_method_of_the_protocol_and_no_other() {
    let mut known: Vec<&str> = RULES.iter().map(|r| r.path).collect();
    let mut methods = methods();
    known.sort_unstable();
    methods.sort_unstable();

    assert_eq!(known, methods);
    assert_eq!(known.len(), 18);
}

#[test]
fn what_is_not_in_the_table_is_denied_to_everybody() {
    let unknown =
        ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/lippycat.data.DataService/Streampackets", "/", ""];
    for path in unknown {
        for (_, role, tls, access) in columns() {
            assert_eq!(access.decide(path, Some(&peer(role, tls)), None), Err(Denial::UnknownMethod), "{path}");
        }
    }
}

fn keys(text: &str) -> (tempfile::TempDir, Access) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let access = Access::new(false, Some(Arc::new(Reloading::new(Keys::at(path)).unwrap())));
    (dir, access)
}

fn line(role: &str, id: &str, key: &str) -> String {
    format!("{role} {id} sha256:{}\n", crate::net::keys::hash(key.as_bytes()))
}

#[test]
fn a_key_stands_for_its_role_and_id_and_a_wrong_one_for_nobody() {
    let (_dir, access) =
        keys(&(line("admin", "ops", "an admin's long secret") + &line("hunter", "edge", "a hunter's long secret")));
    let nobody = peer(None, true);
    let update = "/lippycat.management.ManagementService/UpdateFilter";
    let decide = |key: &str| access.decide(update, Some(&nobody), Some(key.as_bytes()));

    assert_eq!(decide("an admin's long secret").unwrap().unwrap(), PeerIdentity { role: Role::Admin, id: "ops".into() });
    assert!(matches!(decide("a hunter's long secret"), Err(Denial::WrongRole { who, .. }) if who.id == "edge"));
    assert_eq!(decide("an admin's long secre"), Err(Denial::WrongKey));
    assert_eq!(decide(""), Err(Denial::WrongKey));
    let none = access.decide(RULES[0].path, Some(&nobody), None);
    assert_eq!(none, Err(Denial::Nameless { certificate: false }), "with keys in use nobody is anonymous");
}

#[test]
fn denials_are_counted_and_say_what_to_do() {
    let access = Access::new(true, None);
    let decide = |path: &str, role| access.decide(path, Some(&peer(role, true)), None).unwrap_err();
    let said = |path: &str, role| access.refuse(&decide(path, role), path).message().to_owned();

    assert!(said(RULES[3].path, Some(Role::Subscriber)).contains("lc certs issue hunter"));
    assert!(said(RULES[9].path, Some(Role::Hunter)).contains("lc certs issue admin"));
    assert!(said(RULES[0].path, None).contains("--tls-cert"));
    assert!(said("/x", None).contains("unknown methods are denied"));

    let c = access.counts();
    assert_eq!((c.wrong_role, c.nameless, c.unknown_method, c.total()), (2, 1, 1, 4));
}
