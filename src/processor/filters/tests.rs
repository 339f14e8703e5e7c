use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::filter::Dialect;

fn user(id: &str, pattern: &str) -> Filter {
    Filter::new(id, FilterKind::SipUser, pattern)
}

fn hunter(id: &str, extended: bool) -> Subscriber {
    Subscriber { id: id.into(), capabilities: vec!["sip_user".into(), "sip_uri".into()], extended }
}

fn set(filters: Vec<Filter>) -> Arc<Distribution> {
    let set = Arc::new(Distribution::new(7));
    set.replace(filters, "test").unwrap();
    set
}

/// Everything the subscription has to say now: `+id`, `~id` or `-id`, and a bar at the end of each group.
fn said(f: &mut Following) -> String {
    let mut out = String::new();
    while let Some(Some(Ok(u))) = f.next().now_or_never() {
        out.push(match u.update_type() {
            FilterUpdateType::UpdateAdd => '+',
            FilterUpdateType::UpdateModify => '~',
            FilterUpdateType::UpdateDelete => '-',
        });
        out.push_str(&u.filter.unwrap().id);
        if !u.more {
            out.push('|');
        }
    }
    out
}

#[test]
fn a_subscription_goes_on_from_what_the_registration_gave() {
    let set = set(vec![user("a", "x"), user("b", "x")]);
    let h = hunter("h", true);
    assert_eq!(set.give(&h).unwrap().0, 8);
    set.replace(vec![user("b", "y"), user("c", "x")], "test").unwrap();

    let mut f = set.follow(h);

    assert_eq!(said(&mut f), "~b+c-a|");
    set.replace(vec![Filter { target_hunters: vec!["other".into()], ..user("b", "y") }, user("c", "x")], "test").unwrap();
    assert_eq!(said(&mut f), "-b|");
    set.replace(vec![user("c", "x")], "test").unwrap();
    assert_eq!(said(&mut f), "", "what was not for this hunter is no concern of it");
}

#[test]
fn an_old_hunter_gets_the_whole_set_first_and_what_went_since() {
    let set = set(vec![user("a", "x"), user("b", "x")]);
    let h = hunter("h", false);
    drop(set.give(&h));
    set.replace(vec![user("b", "x")], "test").unwrap();

    assert_eq!(said(&mut set.follow(h)), "+b-a|");
}

#[test]
fn what_went_while_a_hunter_was_away_without_registering_again_is_gone_when_it_is_back() {
    for extended in [true, false] {
        let set = set(vec![user("a", "x"), user("b", "x")]);
        let h = hunter("h", extended);
        drop(set.give(&h));
        drop(said(&mut set.follow(h.clone())));
        set.replace(vec![user("b", "x")], "test").unwrap();

        assert_eq!(said(&mut set.follow(h)), "+b-a|");
    }
}

#[test]
fn a_subscription_that_ends_late_does_not_hide_a_later_registration() {
    let set = set(vec![user("a", "x")]);
    let h = hunter("h", true);
    let old = set.follow(h.clone());
    set.replace(vec![user("b", "x")], "test").unwrap();
    drop(set.give(&h));

    drop(old);

    assert_eq!(said(&mut set.follow(h)), "");
}

#[test]
fn old_hunters_are_told_in_their_words_and_monitors_in_ours() {
    let set = set(vec![user("a", "alice"), Filter { dialect: Dialect::Legacy, ..user("l", "lic") }]);
    let words = |list: Result<List, Status>| {
        let answer = wire::FilterResponse::decode(list.unwrap().bytes).unwrap();
        answer.filters.into_iter().map(|f| (f.r#type, f.pattern)).collect::<Vec<_>>()
    };

    assert_eq!(words(set.for_hunter(&hunter("h", false))), [(6, "alice@*".into()), (0, "lic".into())]);
    assert_eq!(words(set.for_hunter(&hunter("h", true))), [(0, "alice".into()), (0, "*lic*".into())]);
    assert_eq!(words(set.all()), [(0, "alice".into()), (0, "*lic*".into())]);
}

#[test]
fn what_does_not_fit_into_the_answer_to_a_registration_comes_with_the_subscription() {
    let text = "x".repeat(4000);
    let filter = |n: i32| Filter { description: text.clone(), ..user(&n.to_string(), "x") };
    let set = set((0..4000).map(filter).collect());
    let h = hunter("h", false);

    let given = set.give(&h).unwrap().1.filters;

    assert!(given > 2000 && given < 2100, "{given}");
    let rest = said(&mut set.follow(hunter("h", true)));
    assert_eq!(rest.matches('+').count(), 4000 - given);
}

#[test]
fn monitors_see_as_much_as_fits() {
    let set = set((0..10).map(|n| user(&n.to_string(), "x")).collect());
    let mut room = 20;

    let (shown, all) = set.shown(&hunter("h", true), 5, &mut room, |_| true);

    assert_eq!((all, shown.len() < 5, room < 10), (10, true, true));
}

#[test]
fn what_many_hunters_hold_and_are_to_be_told_is_in_memory_once() {
    let set = set((0..100).map(|n| user(&format!("{n:03}"), "x")).collect());
    let h = |n: usize| hunter(&format!("h{n}"), true);
    let mut all: Vec<Following> = (0..50)
        .map(|n| {
            drop(set.give(&h(n)));
            set.follow(h(n))
        })
        .collect();
    set.replace((0..100).map(|n| user(&format!("{n:03}"), "y")).collect(), "test").unwrap();

    for f in &mut all {
        assert!(f.next().now_or_never().is_some());
    }

    let one = all[0].steps.as_ptr();
    assert_eq!(all[0].steps.len(), 100);
    assert!(all.iter().all(|f| f.steps.as_ptr() == one && f.held.as_ptr() == all[0].held.as_ptr()));
    drop(all);
    let held: Vec<_> = set.held.lock().values().map(|r| r.filters.as_ptr()).collect();
    assert_eq!((held.len(), held.iter().all(|p| *p == held[0])), (50, true));
}

#[test]
fn a_list_is_encoded_once_for_all_who_are_told_it_and_refused_beyond_the_bound() {
    let filters = |pattern: &str| (0..100).map(|n| user(&format!("{n:03}"), pattern)).collect::<Vec<_>>();
    let mut set = Distribution::new(7);
    set.told_max = 5000;
    set.replace(filters("x"), "test").unwrap();

    let told: Vec<_> = (0..50).map(|n| set.give(&hunter(&format!("h{n}"), true)).unwrap().1.bytes).collect();

    assert!(told[0].len() > 1000 && told.iter().all(|list| list.as_ptr() == told[0].as_ptr()));
    set.replace(filters(&"y".repeat(100)), "test").unwrap();
    let refused = set.give(&hunter("late", true)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    drop(told);
    assert!(set.give(&hunter("late", true)).is_ok());
    assert_eq!(set.shared.lock().told_bytes(), 0);
}

#[test]
fn a_hunter_has_one_subscription_and_the_one_before_ends() {
    let set = set(vec![user("a", "x")]);
    let h = hunter("h", true);
    drop(set.give(&h));
    let mut first = set.follow(h.clone());
    assert_eq!(said(&mut first), "");

    let mut second = set.follow(h);

    assert_eq!(first.next().now_or_never().map(|end| end.is_none()), Some(true), "it ends");
    assert_eq!(said(&mut second), "+a|");
    drop(first);
    set.replace(vec![user("b", "x")], "test").unwrap();
    assert_eq!(said(&mut second), "+b-a|");
}

#[test]
fn nothing_is_remembered_of_a_hunter_that_is_gone() {
    let set = set(vec![user("a", "x")]);
    let mut all = Vec::new();
    for n in 0..100 {
        let h = hunter(&format!("h{n}"), true);
        drop(set.give(&h));
        all.push(set.follow(h));
    }
    (0..100).for_each(|n| set.forget(&format!("h{n}")));

    drop(all);

    assert_eq!(set.held.lock().len(), 0);
}
