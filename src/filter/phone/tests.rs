use proptest::prelude::*;

use super::super::FilterIndex;
use super::*;

fn set(plan: &PhonePlan, patterns: &[&str]) -> PhoneSet {
    let mut builder = PhoneSetBuilder::new(plan.clone());
    for (id, pattern) in (0..).zip(patterns) {
        builder.add(pattern, PatternId(id)).unwrap();
    }
    let (set, refused) = builder.build();
    assert_eq!(refused, []);
    set
}

fn found(set: &PhoneSet, text: &str) -> Vec<u32> {
    let mut hits = Hits::new();
    set.find(text.as_bytes(), &mut hits);
    hits.as_slice().iter().map(|FilterIndex(i)| *i).collect()
}

fn one(plan: &PhonePlan, pattern: &str, text: &str) -> bool {
    !found(&set(plan, &[pattern]), text).is_empty()
}

fn germany() -> PhonePlan {
    PhonePlan::new("49", None, None).unwrap()
}

#[test]
fn with_a_plan_every_spelling_is_the_same_number() {
    for pattern in ["+49301234567", "0301234567", "0049301234567", "tel:+49-30-1234567", "(030) 123.4567"] {
        for text in ["+49301234567", "0301234567", "0049301234567", "+49-30-123-4567", "49301234567"] {
            assert!(one(&germany(), pattern, text), "{pattern} {text}");
        }
        assert!(!one(&germany(), pattern, "+43301234567"), "{pattern}");
        assert!(!one(&germany(), pattern, "0401234567"), "{pattern}");
    }
}

#[test]
fn without_a_plan_e164_compares_exactly_and_anything_else_by_suffix() {
    let none = PhonePlan::none();

    assert!(one(&none, "+49301234567", "+49301234567"));
    assert!(!one(&none, "+49301234567", "+1301234567"));
    assert!(!one(&none, "+301234567", "+49301234567"), "a suffix of an E.164 number is another number");
    assert!(one(&none, "+49301234567", "0301234567"));
    assert!(one(&none, "0301234567", "+49301234567"));
    assert!(one(&none, "1234567", "+49301234567"));
    assert!(one(&none, "+49301234567", "0049301234567"));
    assert!(one(&none, "+49301234567", "01149301234567"));
    assert!(!one(&none, "+49301234567", "234567"), "six digits are not enough");
}

#[test]
fn a_bug_of_the_predecessor_short_phone_patterns_are_dead_is_not_ours() {
    let none = PhonePlan::none();

    assert!(one(&none, "110", "110"));
    assert!(!one(&none, "110", "49110"));
    assert!(!one(&none, "110", "1101"));
    assert!(one(&none, "204", "204"));
    assert!(one(&none, "12345678", "012345678"), "eight digits");
    assert!(one(&germany(), "110", "110"));
}

#[test]
fn stars_work_on_digits() {
    let none = PhonePlan::none();

    assert!(one(&none, "+4930*", "+49301234567"));
    assert!(one(&none, "+4930*", "0049301234567"));
    assert!(!one(&none, "+4930*", "+49401234567"));
    assert!(one(&none, "*4567", "+49301234567"));
    assert!(one(&none, "*12-34*", "+49301234567"));
    assert!(one(&none, "+49*67", "+49301234567"));
    assert!(one(&none, "030*", "0301234567"));
    assert!(!one(&none, "030*", "+49301234567"), "without a plan nobody knows the country");
    assert!(one(&germany(), "030*", "+49301234567"));
    assert!(one(&germany(), "030*67", "0049301234567"));
    assert!(one(&none, "*", "1"));
    assert!(!one(&none, "*", "alice"));
}

#[test]
fn parameters_and_routing_prefixes_do_not_hide_a_number() {
    let none = PhonePlan::none();

    assert!(one(&none, "+49301234567", "+49301234567;npdi;rn=+4930"));
    assert!(one(&none, "+49301234567", "9999#49301234567"));
    assert!(one(&none, "+49301234567", "777749301234567"));
    assert!(one(&none, "+49301234567", "1111111111111149301234567"));
    assert!(!one(&none, "+49301234567", "alice49301234567"));
}

#[test]
fn what_is_no_number_is_refused_with_a_reason() {
    for bad in ["alice", "+", "++49", "49+30", "*+49", "+49*+30", "0x301234567", "#31#"] {
        assert_eq!(validate(bad, Dialect::Native), Err(BadPattern::Phone), "{bad}");
    }
    assert_eq!(validate("12345678901234567890", Dialect::Native), Err(BadPattern::PhoneTooLong(20)));
    assert!(matches!(validate("1*2*3", Dialect::Native), Err(BadPattern::Syntax(_))));
    assert!(matches!(validate("", Dialect::Native), Err(BadPattern::Syntax(_))));
}

#[test]
fn plans_are_checked() {
    assert!(PhonePlan::new("+49", Some("00"), Some("0")).is_ok());
    assert_eq!(PhonePlan::new("049", None, None), Err(BadPlan::Country));
    assert_eq!(PhonePlan::new("", None, None), Err(BadPlan::Country));
    assert_eq!(PhonePlan::new("49", Some("x"), None), Err(BadPlan::Prefix));
    assert_eq!(PhonePlan::new("49", Some(""), None), Err(BadPlan::Prefix));
}

#[test]
fn a_country_without_national_prefix_leaves_local_numbers_to_the_suffix_rule() {
    let spain = PhonePlan::new("34", None, Some("")).unwrap();

    assert!(one(&spain, "+34912345678", "912345678"));
    assert!(one(&spain, "+34912345678", "0034912345678"));
}

#[test]
fn north_america_dials_differently() {
    let us = PhonePlan::new("1", None, None).unwrap();

    assert!(one(&us, "+15551234567", "15551234567"));
    assert!(one(&us, "+15551234567", "5551234567"));
    assert!(one(&us, "+49301234567", "01149301234567"));
}

#[test]
fn numbers_that_share_an_ending_are_kept_apart_and_bounded() {
    let patterns: Vec<String> = (10..60).map(|n| format!("+{n}301234567")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    assert_eq!(found(&set(&PhonePlan::none(), &patterns), "+59301234567"), [49]);

    let mut builder = PhoneSetBuilder::new(PhonePlan::none());
    let refused = (1000..3000).filter(|n| builder.add(&format!("+{n}1234567"), PatternId(*n)).is_err()).count();
    assert_eq!(refused, 2000 - MAX_SAME_ENDING);
}

#[test]
fn the_same_number_keeps_all_its_ids() {
    assert_eq!(found(&set(&germany(), &["+49301234567", "0301234567", "+49*"]), "+49301234567"), [0, 1, 2]);
}

proptest! {
    #[test]
    fn no_valid_pattern_is_dead(pattern in "\\+?[0-9]{1,19}") {
        let text = pattern.clone();
        prop_assert!(one(&PhonePlan::none(), &pattern, &text));
        prop_assert!(one(&germany(), &pattern, &text));
    }

    #[test]
    fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..64), pattern in "[-+*0-9 ;#@]{0,24}") {
        let mut builder = PhoneSetBuilder::new(germany());
        // Refusals are fine here.
        drop(builder.add(&pattern, PatternId(0)));
        let mut hits = Hits::new();
        builder.build().0.find(&text, &mut hits);
    }
}
