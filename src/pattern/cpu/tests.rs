use proptest::prelude::*;

use super::super::Bare;
use super::*;

fn set(patterns: &[&str]) -> PatternSet {
    let mut builder = PatternSetBuilder::ignoring_case();
    for (id, text) in (0..).zip(patterns) {
        builder.add(&Pattern::parse(text, Bare::Exact).unwrap(), PatternId(id)).unwrap();
    }
    let (set, refused) = builder.build();
    assert_eq!(refused, []);
    set
}

fn hits(set: &PatternSet, text: &str) -> Vec<u32> {
    let mut hits = Vec::new();
    let whole = set.find(text.as_bytes(), |id| {
        hits.push(id.0);
        ControlFlow::Continue(())
    });
    assert!(whole.is_continue());
    hits.sort_unstable();
    hits.dedup();
    hits
}

#[test]
fn every_form_is_found_whatever_the_case() {
    let set = set(&["Alice", "al*", "*CE", "*lic*", "a*e", "*", "bob"]);

    assert_eq!(hits(&set, "aLICe"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(hits(&set, "bob"), [5, 6]);
    assert_eq!(hits(&set, ""), [5]);
}

#[test]
fn the_same_pattern_keeps_all_its_ids() {
    let set = set(&["alice", "ALICE", "al*", "AL*"]);

    assert_eq!(hits(&set, "alice"), [0, 1, 2, 3]);
}

#[test]
fn a_case_sensitive_set_keeps_case_apart() {
    let mut builder = PatternSetBuilder::new();
    builder.add(&Pattern::parse("aBc", Bare::Exact).unwrap(), PatternId(0)).unwrap();
    let (set, _) = builder.build();

    assert_eq!(hits(&set, "aBc"), [0]);
    assert_eq!(hits(&set, "abc"), Vec::<u32>::new());
}

#[test]
fn look_up_cost_does_not_grow_with_the_number_of_patterns() {
    let of = |n: u32| {
        let mut builder = PatternSetBuilder::ignoring_case();
        for id in 0..n {
            let text = match id % 3 {
                0 => format!("user{id:07}"),
                1 => format!("+49{id:07}*"),
                _ => format!("*{id:07}"),
            };
            builder.add(&Pattern::parse(&text, Bare::Exact).unwrap(), PatternId(id)).unwrap();
        }
        builder.build().0
    };
    let (few, many) = (of(10), of(100_000));

    assert_eq!(many.len(), 100_000);
    assert_eq!(few.probes(), many.probes());
    assert!(!many.has_automaton());
    assert_eq!(hits(&many, "user0099999"), [99_999]);
}

#[test]
fn the_automaton_exists_only_for_substrings() {
    assert!(!set(&["a", "b*", "*c", "d*e"]).has_automaton());
    assert!(set(&["*x*"]).has_automaton());
}

#[test]
fn too_many_different_lengths_are_refused_by_name() {
    let mut builder = PatternSetBuilder::new();
    for n in 1..=MAX_AFFIX_SHAPES {
        builder.add(&Pattern::Prefix(vec![b'x'; n].into()), PatternId(0)).unwrap();
    }

    let more = builder.add(&Pattern::Suffix(b"y".as_slice().into()), PatternId(1));

    assert_eq!(more, Err(SetError::TooManyShapes));
}

#[test]
fn one_pattern_above_a_hundred_thousand_is_refused_and_the_others_stay() {
    let mut builder = PatternSetBuilder::new();
    for n in 0..100_000_u32 {
        builder.add(&Pattern::Exact(n.to_be_bytes().into()), PatternId(n)).unwrap();
    }

    assert_eq!(builder.add(&Pattern::Exact(b"x".as_slice().into()), PatternId(100_000)), Err(SetError::TooMany));
    let set = builder.build().0;
    assert_eq!((set.len(), set.has_automaton()), (100_000, false));
}

#[test]
fn too_many_substring_bytes_are_refused_by_name() {
    let mut builder = PatternSetBuilder::new();
    let mut refused = 0;
    for n in 0..6000_u32 {
        let mut text = vec![b'x'; 1000];
        text.extend_from_slice(&n.to_be_bytes());
        refused += usize::from(builder.add(&Pattern::Contains(text.into()), PatternId(n)).is_err());
    }

    assert!(builder.contains_bytes <= MAX_CONTAINS_BYTES);
    assert_eq!(refused, 6000 - MAX_CONTAINS_BYTES / 1004);
}

#[test]
fn nested_substrings_over_a_long_text_stay_bounded() {
    let mut builder = PatternSetBuilder::new();
    for n in 1..=1000_u32 {
        builder.add(&Pattern::Contains(vec![b'a'; n as usize].into()), PatternId(n)).unwrap();
    }
    let (set, _) = builder.build();
    let mut steps = 0;

    let whole = set.find(&vec![b'a'; 64 * 1024], |_| {
        steps += 1;
        ControlFlow::Continue(())
    });

    assert_eq!(steps, MAX_CONTAINS_STEPS);
    assert!(whole.is_break(), "the cut is told");
}

#[test]
fn a_burst_finds_what_single_look_ups_find() {
    let set = set(&["a*", "*b"]);
    let mut found = Vec::new();

    let whole = set.find_burst(&[b"ax", b"none", b"ab"], &mut found);

    assert!(whole.is_continue());
    assert_eq!(found, [(0, PatternId(0)), (2, PatternId(0)), (2, PatternId(1))]);
}

proptest! {
    #[test]
    fn agrees_with_the_plain_meaning_of_each_pattern(
        patterns in proptest::collection::vec("[abAB*]{1,5}", 1..30),
        texts in proptest::collection::vec("[abAB]{0,8}", 1..30),
    ) {
        let patterns: Vec<Pattern> = patterns.iter().filter_map(|p| Pattern::parse(p, Bare::Exact).ok()).collect();
        let mut builder = PatternSetBuilder::ignoring_case();
        for (id, pattern) in (0..).zip(&patterns) {
            builder.add(pattern, PatternId(id)).unwrap();
        }
        let (set, _) = builder.build();
        for text in &texts {
            let low = text.to_ascii_lowercase();
            let plain: Vec<u32> = (0..).zip(&patterns).filter(|(_, p)| p.folded().matches(low.as_bytes())).map(|(id, _)| id).collect();
            prop_assert_eq!(hits(&set, text), plain);
        }
    }
}

#[test]
fn an_automaton_above_its_cap_is_refused_and_one_at_it_is_not() {
    let patterns: Table =
        (0..100_u32).map(|n| (format!("part{n}").into_bytes().into(), Ids::from_slice(&[PatternId(n)]))).collect();
    let bytes = automaton(&patterns, usize::MAX).unwrap().unwrap().automaton.memory_usage();

    assert!(bytes > 100 && automaton(&patterns, bytes).is_ok_and(|built| built.is_some()), "{bytes}");
    assert_eq!(automaton(&patterns, bytes - 1).unwrap_err(), SetError::AutomatonTooLarge);
}
