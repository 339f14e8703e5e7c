use crate::packet::LinkType;
use proptest::prelude::*;

use super::*;
use crate::filter::PacketTest;

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().in_file("f.yaml").lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_read_with_its_defaults() {
    let filters = parse(
        "# targets\nfilters:\n  - id: alice\n    type: sipuser\n    pattern: \"alice*\"\n  - id: number\n    type: FILTER_PHONE_NUMBER\n    \
         pattern: +493012345678\n    target_hunters: [h1, h2]\n    enabled: false\n    description: \"x: y\"\n    media: headers\n    dialect: legacy\n",
    )
    .unwrap();

    assert_eq!(filters[0], Filter::new("alice", FilterKind::SipUser, "alice*"));
    let number = Filter {
        target_hunters: vec!["h1".into(), "h2".into()],
        enabled: false,
        description: "x: y".into(),
        media: MediaPolicy::Headers,
        dialect: Dialect::Legacy,
        ..Filter::new("number", FilterKind::PhoneNumber, "+493012345678")
    };
    assert_eq!(filters[1], number);
}

#[test]
fn a_bug_of_the_predecessor_missing_enabled_means_false_is_not_ours() {
    let filters = parse("filters:\n  - {id: a, type: sip_user, pattern: alice}\n").unwrap();

    assert!(filters[0].enabled);
}

#[test]
fn numbers_without_quotes_keep_zeros_and_plus() {
    let filters = parse("filters:\n  - {id: 007, type: phone_number, pattern: 030123456}\n").unwrap();

    assert_eq!((filters[0].id.as_str(), filters[0].pattern.as_str()), ("007", "030123456"));
}

#[test]
fn every_problem_is_named_with_its_place_and_the_nearest_word() {
    let text = "filters:\n  - id: a\n    type: sip_usr\n    patern: alice\n    enabled: yes\n    media: all\n  - id: b\n    type: sip_user\n    pattern: \
                alice@example.com\n  - just text\n";

    assert_eq!(
        problems(text),
        [
            "f.yaml:2:5: the filter has no pattern",
            "f.yaml:3:11: unknown filter type \"sip_usr\"; did you mean \"sip_user\"?",
            "f.yaml:4:5: unknown key \"patern\"; did you mean \"pattern\"?",
            "f.yaml:5:14: enabled takes true or false, found a text",
            "f.yaml:6:12: unknown media policy \"all\"; known: full, headers, none",
            "f.yaml:9:14: sip_user \"alice@example.com\": a user has no '@': use type sip_uri for user@host",
            "f.yaml:10:5: expected a filter with id, type and pattern, found a text",
        ]
    );
}

#[test]
fn an_id_used_twice_is_an_error() {
    let text = "filters:\n  - {id: a, type: sip_user, pattern: x}\n  - {id: a, type: sip_user, pattern: y}\n";

    assert_eq!(problems(text), ["f.yaml:3:10: the id \"a\" is used in line 2 already"]);
}

#[test]
fn a_file_that_is_no_filter_file_says_so() {
    assert_eq!(problems(""), ["f.yaml:1:1: the file is empty; write 'filters: []' for no filters"]);
    assert_eq!(problems("- id: a\n"), ["f.yaml:1:1: expected 'filters:' and a list, found a list"]);
    assert_eq!(problems("filter: []\n"), ["f.yaml:1:1: unknown key \"filter\"; did you mean \"filters\"?"]);
    assert_eq!(problems("filters: x\n"), ["f.yaml:1:10: expected a list of filters, found a text"]);
    assert_eq!(problems("{}\n"), ["f.yaml:1:1: the key 'filters' is missing"]);
    assert_eq!(parse("filters: []\n"), Ok(vec![]));
}

/// Knows one expression, for one link type.
struct OnlyUdpOnCooked;

impl BpfCompiler for OnlyUdpOnCooked {
    fn compile(&self, link: LinkType, expr: &str) -> Result<Box<dyn PacketTest>, String> {
        if (link, expr) == (LinkType::LINUX_SLL, "udp") { Ok(Box::new(Nothing)) } else { Err(format!("{expr} is odd")) }
    }
}

struct Nothing;

impl PacketTest for Nothing {
    fn test(&self, _: &[u8]) -> bool {
        false
    }
}

#[test]
fn an_expression_that_means_nothing_anywhere_is_a_problem_with_its_line() {
    let text = "filters:\n  - id: a\n    type: bpf\n    pattern: udp\n  - id: b\n    type: bpf\n    pattern: udp prot\n";

    let error = parse_with(text, &OnlyUdpOnCooked).unwrap_err().in_file("f.yaml");

    assert_eq!(error.trim_end(), "f.yaml:7:14: udp prot is odd");
    assert_eq!(parse(text).unwrap().len(), 2);
}

#[test]
fn an_unquoted_star_gets_a_hint() {
    let problem = problems("filters:\n  - id: a\n    type: sip_user\n    pattern: *alice\n").remove(0);

    assert!(problem.starts_with("f.yaml:4:14: ") && problem.contains("needs quotes"), "{problem}");
}

#[test]
fn the_number_of_filters_and_of_problems_is_bounded() {
    let entries = |n: u32, rest: &str| (0..n).map(|n| format!("  - {{id: a{n}, {rest}}}")).collect::<Vec<_>>().join("\n");
    let bad = entries(100, "type: nonsense, pattern: x");
    let error = parse(&format!("filters:\n{bad}")).unwrap_err();
    assert_eq!((error.errors.len(), error.more), (50, 50));

    let bpf = entries(300, "type: bpf, pattern: udp");
    assert_eq!(problems(&format!("filters:\n{bpf}")), ["f.yaml:258:5: more than 256 bpf filters"]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_the_same(
        ids in proptest::collection::btree_set("\\PC{1,20}", 0..6),
        description in any::<String>(),
        targets in proptest::collection::vec("\\PC{0,10}", 0..3),
        enabled in any::<bool>(),
        media in 0_usize..3,
        dialect in 0_usize..2,
        kind in 0_i32..18,
    ) {
        let kind = FilterKind::from_wire(kind).unwrap();
        let pattern = ["12345678901234", "00112233445566778899aabbccddeeff", "t13d1516h2_8daaf6152771_e5627efa2ab1", "192.0.2.1", "*@x\\*\"'"]
            .into_iter()
            .find(|pattern| (kind.row().validate)(pattern, Dialect::Native).is_ok())
            .unwrap();
        let filters: Vec<Filter> = ids
            .into_iter()
            .map(|id| Filter {
                target_hunters: targets.clone(),
                enabled,
                description: description.clone(),
                media: MediaPolicy::ALL[media],
                dialect: Dialect::ALL[dialect],
                ..Filter::new(id, kind, pattern)
            })
            .collect();

        prop_assert_eq!(parse(&to_yaml(&filters)), Ok(filters));
    }
}
