use crate::numbered::Dice;
use std::net::IpAddr;

use super::super::{BpfCompiler, BpfGate, PacketTest};
use super::*;
use crate::packet::LinkType;

fn filter(id: &str, kind: FilterKind, pattern: &str) -> Filter {
    Filter::new(id, kind, pattern)
}

fn compile(filters: &[Filter]) -> FilterSet {
    let (set, errors) = FilterSet::compile(filters, &CompileOptions::default());
    assert_eq!(errors, []);
    set
}

fn errors(filters: &[Filter], mode: Mode) -> Vec<FilterError> {
    FilterSet::compile(filters, &CompileOptions { mode, ..CompileOptions::default() }).1
}

fn names(set: &FilterSet, hits: &Hits) -> Vec<String> {
    hits.as_slice().iter().map(|i| set.id(*i).unwrap().to_string()).collect()
}

fn identity(set: &FilterSet, field: Field, user: &str, host: &str, number: Option<&str>) -> Vec<String> {
    let mut hits = Hits::new();
    set.match_identity(field, user.as_bytes(), host.as_bytes(), number, &mut hits);
    names(set, &hits)
}

#[test]
fn identity_filters_are_ored_in_every_field() {
    let set = compile(&[
        filter("user", FilterKind::SipUser, "Alice"),
        filter("uri", FilterKind::SipUri, "*@example.com"),
        filter("phone", FilterKind::PhoneNumber, "+49301234567"),
    ]);

    for field in Field::ALL {
        assert_eq!(identity(&set, field, "alice", "Example.Com", None), ["user", "uri"], "{field:?}");
        assert_eq!(identity(&set, field, "+49301234567", "example.com", None), ["uri", "phone"], "{field:?}");
        assert!(identity(&set, field, "anonymous", "anonymous.invalid", None).is_empty(), "{field:?}");
    }
}

#[test]
fn a_bug_of_the_predecessor_enabled_false_is_ignored_is_not_ours() {
    for (kind, pattern) in [
        (FilterKind::SipUser, "alice"),
        (FilterKind::SipUri, "alice@example.com"),
        (FilterKind::PhoneNumber, "49301234567"),
        (FilterKind::IpAddress, "192.0.2.7"),
        (FilterKind::Imsi, "262011234567890"),
        (FilterKind::Imei, "35209900176148"),
        (FilterKind::CallId, "x@y"),
        (FilterKind::Codec, "PCMA"),
        (FilterKind::Bpf, "udp"),
    ] {
        let set = compile(&[Filter { enabled: false, ..filter("off", kind, pattern) }]);
        let mut hits = Hits::new();
        set.match_identity(Field::SipFrom, b"alice", b"example.com", Some("+49301234567"), &mut hits);
        set.match_identity(Field::SipFrom, b"+49301234567", b"example.com", None, &mut hits);
        set.match_ip(Ip::v4([192, 0, 2, 7]), &mut hits);
        set.match_imsi(b"262011234567890", &mut hits);
        set.match_imei(b"35209900176148", &mut hits);
        set.match_call_id(b"x@y", &mut hits);
        set.match_codec("PCMA", &mut hits);

        assert!(hits.is_empty() && set.is_empty() && set.bpf().is_empty(), "{}", kind.name());
    }
}

#[test]
fn a_bug_of_the_predecessor_tel_uris_never_match_is_not_ours() {
    let set = compile(&[
        filter("user", FilterKind::SipUser, "+49301234567"),
        filter("phone", FilterKind::PhoneNumber, "0301234567"),
        filter("uri", FilterKind::SipUri, "tel:+49301234567"),
    ]);

    assert_eq!(identity(&set, Field::SipRequestUri, "", "", Some("+49301234567")), ["user", "phone", "uri"]);
    assert_eq!(identity(&set, Field::SipPAssertedIdentity, "", "", Some("+49-30-1234567;ext=1")), ["phone"]);
}

#[test]
fn a_bug_of_the_predecessor_short_phone_patterns_never_match_is_not_ours() {
    let set = compile(&[filter("110", FilterKind::PhoneNumber, "110"), filter("nine", FilterKind::PhoneNumber, "301234567")]);

    assert_eq!(identity(&set, Field::SipTo, "110", "example.com", None), ["110"]);
    assert_eq!(identity(&set, Field::SipTo, "+49301234567", "example.com", None), ["nine"]);
}

#[test]
fn a_bug_of_the_predecessor_call_id_and_codec_never_match_is_not_ours() {
    let set = compile(&[
        filter("id", FilterKind::CallId, "aB1@example.com"),
        filter("tail", FilterKind::CallId, "*@example.com"),
        filter("codec", FilterKind::Codec, "g711a"),
        filter("amr", FilterKind::Codec, "AMR*"),
    ]);
    let mut hits = Hits::new();

    set.match_call_id(b"aB1@example.com", &mut hits);
    assert_eq!(names(&set, &hits), ["id", "tail"]);
    hits.clear();
    set.match_call_id(b"ab1@example.com", &mut hits);
    assert_eq!(names(&set, &hits), ["tail"], "a Call-ID is compared byte for byte");
    hits.clear();
    set.match_codec("pcma", &mut hits);
    set.match_codec("amr-wb", &mut hits);
    assert_eq!(names(&set, &hits), ["codec", "amr"]);
}

#[test]
fn a_bug_of_the_predecessor_only_bpf_denies_everything_is_not_ours() {
    let bpf = filter("bpf", FilterKind::Bpf, "udp");
    let only = compile(std::slice::from_ref(&bpf));
    assert!(only.only_bpf() && !only.is_empty());

    let both = compile(&[bpf.clone(), filter("user", FilterKind::SipUser, "alice")]);
    assert!(!both.only_bpf());

    let off = compile(&[bpf, Filter { enabled: false, ..filter("user", FilterKind::SipUser, "alice") }]);
    assert!(off.only_bpf());
}

#[test]
fn a_filter_that_failed_never_widens_what_is_selected() {
    let broken = filter("broken", FilterKind::HttpHost, "example.com");
    let options = CompileOptions::default();

    let (set, errors) = FilterSet::compile(&[filter("bpf", FilterKind::Bpf, "udp"), broken.clone()], &options);
    assert_eq!(errors.len(), 1);
    assert!(!set.only_bpf(), "or everything inside the bpf filter would be taken");

    let (set, _) = FilterSet::compile(&[broken], &options);
    assert!(!set.is_empty(), "or the policy 'allow' would take everything");
    assert_eq!(set.len(), 0);
}

#[test]
fn a_bug_of_the_predecessor_one_id_per_address_is_not_ours() {
    let set = compile(&[
        filter("a", FilterKind::IpAddress, "192.0.2.7"),
        filter("b", FilterKind::IpAddress, "192.0.2.7"),
        filter("net", FilterKind::IpAddress, "192.0.2.0/24"),
    ]);
    let mut hits = Hits::new();
    set.match_ip("192.0.2.7".parse::<IpAddr>().unwrap().into(), &mut hits);

    assert_eq!(names(&set, &hits), ["a", "b", "net"]);
}

#[test]
fn a_bug_of_the_predecessor_imei_padding_and_undistributed_imsi_is_not_ours() {
    let set = compile(&[
        filter("imei", FilterKind::Imei, "35-209900-176148-1"),
        filter("imsi", FilterKind::Imsi, "262011234567890"),
        filter("network", FilterKind::Imsi, "26201*"),
    ]);
    let mut hits = Hits::new();

    set.match_imei(b"\"<urn:gsma:imei:35209900-176148-0>\"", &mut hits);
    set.match_imsi(b"262011234567890@ims.mnc001.mcc262.3gppnetwork.org", &mut hits);

    assert_eq!(names(&set, &hits), ["imei", "imsi", "network"]);
    assert!(super::super::capabilities(Mode::Voip).contains(&"imsi"));
}

#[test]
fn what_a_mode_cannot_apply_is_reported_and_never_silently_dead() {
    let dns = filter("dns", FilterKind::DnsDomain, "example.com");
    let user = filter("user", FilterKind::SipUser, "alice");

    assert_eq!(
        errors(&[dns.clone(), user.clone()], Mode::Voip),
        [FilterError { id: "dns".into(), reason: "dns_domain filters do not apply in voip mode".into() }]
    );
    assert_eq!(
        errors(&[user], Mode::Generic),
        [FilterError { id: "user".into(), reason: "sip_user filters do not apply in generic mode".into() }]
    );
    assert_eq!(
        errors(&[dns], Mode::Dns),
        [FilterError { id: "dns".into(), reason: "this version cannot apply dns_domain filters".into() }]
    );
    assert_eq!(errors(&[filter("bad", FilterKind::IpAddress, "192.0.2")], Mode::Voip).len(), 1);
}

#[test]
fn the_same_filter_twice_is_harmless_and_another_one_under_its_id_is_reported() {
    let alice = filter("a", FilterKind::SipUser, "alice");
    let bob = filter("a", FilterKind::SipUser, "bob");
    let (set, errors) = FilterSet::compile(&[alice.clone(), alice, bob], &CompileOptions::default());

    assert_eq!(errors, [FilterError { id: "a".into(), reason: "another filter has this id".into() }]);
    assert_eq!(set.len(), 1);
    assert_eq!(identity(&set, Field::SipFrom, "alice", "", None), ["a"]);
}

#[test]
fn a_plain_peers_filter_keeps_its_meaning() {
    let legacy = |kind, pattern| Filter { dialect: Dialect::Legacy, ..filter("f", kind, pattern) };

    let part = compile(&[legacy(FilterKind::SipUser, "lic")]);
    assert_eq!(identity(&part, Field::SipFrom, "alice", "", None), ["f"]);
    let part = compile(&[legacy(FilterKind::SipUri, "example")]);
    assert_eq!(identity(&part, Field::SipFrom, "alice", "example.com", None), ["f"]);
    let exact = compile(&[filter("f", FilterKind::SipUser, "lic")]);
    assert!(identity(&exact, Field::SipFrom, "alice", "", None).is_empty());
}

#[test]
fn parameters_of_the_user_part_do_not_hide_it() {
    let set =
        compile(&[filter("user", FilterKind::SipUser, "+358555"), filter("whole", FilterKind::SipUser, "+358555;postd=pp22")]);

    assert_eq!(identity(&set, Field::SipTo, "+358555;postd=pp22", "foo.com", None), ["user", "whole"]);
}

#[test]
fn the_most_media_that_one_filter_asks_for_is_kept() {
    let with = |id: &str, media| Filter { media, ..filter(id, FilterKind::SipUser, "alice") };
    let set = compile(&[with("none", MediaPolicy::None), with("headers", MediaPolicy::Headers)]);
    let mut hits = Hits::new();
    set.match_identity(Field::SipFrom, b"alice", b"", None, &mut hits);

    assert_eq!(set.media(&hits), MediaPolicy::Headers);
    assert_eq!(set.media(&Hits::new()), MediaPolicy::Full);
}

#[test]
fn the_rule_used_is_told() {
    let options = CompileOptions { phone: PhonePlan::new("49", None, None).unwrap(), version: 9, ..CompileOptions::default() };
    let filters = [filter("p", FilterKind::PhoneNumber, "030 1234567"), filter("u", FilterKind::SipUser, "al*")];
    let (set, _) = FilterSet::compile(&filters, &options);

    assert_eq!(
        set.rule(FilterIndex(0)).unwrap(),
        "E.164; other spellings by suffix of at least 7 digits (country 49, international prefix 00, national prefix \"0\")"
    );
    assert_eq!(set.rule(FilterIndex(1)).unwrap(), "prefix");
    assert_eq!(set.version(), 9);
}

#[test]
fn look_ups_take_as_many_steps_with_100_000_filters_as_with_10() {
    let of = |n: u32| {
        let filters: Vec<Filter> = (0..n).map(mixed).collect();
        compile(&filters)
    };
    let (few, many) = (of(12), of(100_000));

    assert_eq!(many.len(), 100_000);
    assert_eq!(few.user.probes(), many.user.probes());
    assert_eq!(few.uri.probes(), many.uri.probes());
    assert!(!many.user.has_automaton());
}

#[test]
fn a_thousand_filters_for_one_number_are_found_and_cut() {
    let filters: Vec<Filter> = (0..1000).map(|i| filter(&i.to_string(), FilterKind::PhoneNumber, "+49301234567")).collect();
    let set = compile(&filters);
    let mut hits = Hits::new();
    set.match_identity(Field::SipFrom, b"+49301234567", b"", None, &mut hits);

    assert_eq!(hits.as_slice().len(), super::super::MAX_HITS);
    assert!(hits.is_cut());
}

struct Ports;
struct Port(u8);

impl BpfCompiler for Ports {
    fn compile(&self, _: LinkType, expr: &str) -> Result<Box<dyn PacketTest>, String> {
        expr.parse().map(|n| Box::new(Port(n)) as Box<dyn PacketTest>).map_err(|_| format!("no port: {expr}"))
    }
}

impl PacketTest for Port {
    fn test(&self, frame: &[u8]) -> bool {
        frame.first() == Some(&self.0)
    }
}

#[test]
fn bpf_filters_are_ored_and_a_broken_one_lets_nothing_through() {
    let gate = |patterns: &[&str]| {
        let filters: Vec<Filter> = patterns.iter().map(|p| filter(p, FilterKind::Bpf, p)).collect();
        BpfGate::compile(&compile(&filters), &Ports, LinkType::ETHERNET)
    };

    let (two, errors) = gate(&["1", "2"]);
    assert!(errors.is_empty() && two.passes(&[1]) && two.passes(&[2]) && !two.passes(&[3]));
    let mut hits = Hits::new();
    two.find(&[2], &mut hits);
    assert_eq!(hits.as_slice(), [FilterIndex(1)]);

    let (broken, errors) = gate(&["x"]);
    assert_eq!(errors, [FilterError { id: "x".into(), reason: "no port: x".into() }]);
    assert!(!broken.passes(&[1]) && !broken.is_open());

    let (none, _) = gate(&[]);
    assert!(none.is_open() && none.passes(&[1]));
}

#[test]
fn what_bpf_filters_mean_is_known_before_the_first_packet_and_one_that_means_nothing_anywhere_is_told() {
    /// As [`Ports`], but nothing on cooked frames.
    struct NotCooked;
    impl BpfCompiler for NotCooked {
        fn compile(&self, link: LinkType, expr: &str) -> Result<Box<dyn PacketTest>, String> {
            if link == LinkType::LINUX_SLL { Err("odd".into()) } else { Ports.compile(link, expr) }
        }
    }
    let (mut set, _) = FilterSet::compile(
        &[filter("one", FilterKind::Bpf, "1"), filter("bad", FilterKind::Bpf, "x")],
        &CompileOptions::default(),
    );

    let errors = set.compile_bpf(&NotCooked);

    assert_eq!(errors, [FilterError { id: "bad".into(), reason: "no port: x".into() }]);
    let passes = |link, byte| set.gate(link).map(|gate| gate.passes(&[byte]));
    assert_eq!((passes(LinkType::ETHERNET, 1), passes(LinkType::ETHERNET, 2)), (Some(true), Some(false)));
    assert_eq!((passes(LinkType::RAW, 1), passes(LinkType::LINUX_SLL, 1)), (Some(true), Some(false)));
    assert_eq!(passes(LinkType::NULL, 1), None, "unusual");
    assert!(compile(&[]).compile_bpf(&Ports).is_empty());
}

/// The same filters in every run.
struct Rng(Dice);

impl Rng {
    fn text(&mut self) -> String {
        const PIECES: [&str; 24] = [
            "*",
            "**",
            "\\*",
            "\\",
            "alice",
            "@",
            "example.org",
            "sip:",
            "tel:",
            "+49",
            "030",
            "192.0.2.7",
            "/24",
            "/129",
            "::",
            "fe80::1",
            "PCMA",
            "26201",
            " ",
            "\u{0}",
            "\u{202e}",
            "é",
            "7",
            "ffffffffffffffffffffffffffffffff",
        ];
        if self.0.pick(50) == 0 {
            return "x".repeat(self.0.pick(5000));
        }
        (0..self.0.pick(6)).map(|_| PIECES[self.0.pick(PIECES.len())]).collect()
    }

    fn filter(&mut self, n: usize) -> Filter {
        let kind = super::super::KINDS[self.0.pick(super::super::KINDS.len())].kind;
        // an id now and then twice, or none, or a bad one
        let id = match self.0.pick(6) {
            0 => format!("f{}", n / 2),
            1 => self.text(),
            _ => format!("f{n}"),
        };
        Filter {
            enabled: self.0.pick(10) > 0,
            dialect: Dialect::ALL[self.0.pick(2)],
            target_hunters: vec![self.text()],
            ..Filter::new(id, kind, self.text())
        }
    }
}

#[test]
fn of_a_hundred_thousand_filters_of_any_sort_each_is_in_force_or_named_with_what_is_wrong() {
    let mut rng = Rng(Dice(0x1ced_c0ff_ee00_0009));
    let (mut applied, mut refused) = (0, 0);
    for round in 0..100 {
        let filters: Vec<Filter> = (0..1000).map(|n| rng.filter(n)).collect();
        let mode = [Mode::Voip, Mode::Generic][round % 2];

        let (set, errors) = FilterSet::compile(&filters, &CompileOptions { mode, ..CompileOptions::default() });

        for f in filters.iter().filter(|f| f.enabled) {
            assert!(set.has_id(&f.id) || errors.iter().any(|e| e.id == f.id && !e.reason.is_empty()), "{f:?}");
        }
        assert!(!set.is_empty(), "what failed is still asked for");
        let mut hits = Hits::new();
        for _ in 0..20 {
            let (user, host) = (rng.text(), rng.text());
            set.match_identity(Field::SipFrom, user.as_bytes(), host.as_bytes(), Some(&user), &mut hits);
            set.match_call_id(user.as_bytes(), &mut hits);
            set.match_codec(&host, &mut hits);
        }
        assert!(hits.as_slice().iter().all(|i| set.filter(*i).is_some()));
        applied += set.len();
        refused += errors.len();
    }
    assert!(applied > 5000 && refused > 10_000, "{applied} applied, {refused} refused");
}

/// Exact users, prefixes, suffixes, numbers and URIs, as a mixed list has them.
fn mixed(i: u32) -> Filter {
    let (kind, pattern) = match i % 6 {
        0 | 1 => (FilterKind::SipUser, format!("user.{i:06}")),
        2 => (FilterKind::PhoneNumber, format!("+4930{i:07}")),
        3 => (FilterKind::SipUser, format!("+4930{i:07}*")),
        4 => (FilterKind::SipUser, format!("*.ext{i:06}")),
        _ => (FilterKind::SipUri, format!("user{i:06}@example.com")),
    };
    filter(&i.to_string(), kind, &pattern)
}

/// Prints what a look-up costs; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "prints times"]
#[expect(clippy::print_stdout, reason = "run by hand to be read")]
fn print_look_up_times() {
    for n in [10, 1000, 100_000] {
        let set = compile(&(0..n).map(mixed).collect::<Vec<_>>());
        let users: Vec<String> = (0..4096_u32)
            .map(|i| if i % 2 == 0 { format!("+4930{:07}", 5_000_000 + i * 7) } else { format!("someone.{i}") })
            .collect();
        let mut best = f64::MAX;
        let mut found = 0;
        for _ in 0..15 {
            let start = tests_clock::now();
            for chunk in users.chunks_exact(4) {
                let mut hits = Hits::new();
                for user in chunk {
                    set.match_identity(Field::SipFrom, user.as_bytes(), b"sip.example.net", None, &mut hits);
                }
                found += usize::from(!hits.is_empty());
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / 1024.0);
        }
        println!("{n:>7} filters: {best:.0} ns per message of 4 identities ({found} hits)");
    }
}

mod tests_clock {
    #[expect(clippy::disallowed_methods, reason = "measures real time")]
    pub(super) fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}
