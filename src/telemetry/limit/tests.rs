use tracing::subscriber::Interest;

use super::super::log::tests::logged;
use super::*;

fn flood(n: u32) {
    for i in 0..n {
        tracing::warn!(i, "hostile");
    }
}

/// Somewhere in the code.
struct Site(u32);

impl tracing::Callsite for Site {
    fn set_interest(&self, _: Interest) {}
    fn metadata(&self) -> &Metadata<'_> {
        unreachable!("nobody asks place {}", self.0)
    }
}

/// A place that writes at this level, in line `line`.
fn place(line: u32, level: Level, target: &'static str, name: &'static str) -> &'static Metadata<'static> {
    let fields = tracing::field::FieldSet::new(&[], Identifier(Box::leak(Box::new(Site(line)))));
    let kind = tracing::metadata::Kind::EVENT;
    Box::leak(Box::new(Metadata::new(name, target, level, Some("src/a.rs"), Some(line), None, fields, kind)))
}

fn warns(n: u32) -> Vec<&'static Metadata<'static>> {
    (0..n).map(|line| place(line, Level::WARN, "lc", "event")).collect()
}

/// What each place writes and what it is told to have not written, over ten seconds in which every place tries its best two
/// hundred times a second; checks that no second has more lines than it may.
fn play(sites: &[&'static Metadata<'static>]) -> HashMap<u32, (u64, u64, u64)> {
    let (mut places, start) = (Places::default(), Instant::now());
    let mut by_line: HashMap<u32, (u64, u64, u64)> = HashMap::new();
    let (mut written, mut numbers) = (Vec::new(), Vec::new());
    for milli in (0..10_000).step_by(5) {
        let now = start + Duration::from_millis(milli);
        for site in sites {
            for told in places.owed(now) {
                by_line.entry(told.line).or_default().2 += told.suppressed;
                numbers.push(milli);
            }
            let of = by_line.entry(site.line().unwrap()).or_default();
            of.0 += 1;
            if places.pass(site, now) {
                of.1 += 1;
                written.push(milli);
            }
        }
    }
    for told in places.tell(usize::MAX) {
        by_line.entry(told.line).or_default().2 += told.suppressed;
    }
    let worst = |lines: &[u64]| {
        lines.iter().enumerate().map(|(n, from)| lines[n..].iter().take_while(|at| **at < from + 1000).count()).max()
    };
    assert!(
        worst(&written) <= Some(CAUSED_MAX) && worst(&numbers) <= Some(TOLD_MAX),
        "{:?} {:?}",
        worst(&written),
        worst(&numbers)
    );
    by_line
}

#[tokio::test(start_paused = true)]
async fn a_million_lines_of_one_place_are_ten_and_then_a_number() {
    for json in [false, true] {
        let text = logged(json, || {
            flood(1_000_000);
            tracing::warn!("another place is not held back");
        });
        assert_eq!(text.matches("hostile").count(), 10, "{text}");
        assert_eq!(text.lines().count(), 11);
    }
}

#[test]
fn what_was_not_written_is_told_by_whichever_line_comes_next() {
    let (mut places, start, site) = (Places::default(), Instant::now(), warns(1)[0]);
    let passed = (0..25).filter(|_| places.pass(site, start)).count();

    assert_eq!((passed, places.owed(start).len()), (10, 0), "the second is not over");
    let later = places.owed(start + SECOND);
    assert_eq!((later[0].suppressed, later[0].level), (15, Level::WARN));
    assert!(places.owed(start + SECOND).is_empty() && places.pass(site, start + SECOND));
}

#[test]
fn places_that_flood_together_write_twenty_lines_in_a_second_and_each_has_its_share_and_its_number() {
    for n in [1, 3, 5, 15, 20] {
        for (line, (tried, written, suppressed)) in play(&warns(n)) {
            assert_eq!(tried, written + suppressed, "place {line} of {n}");
            assert!(written >= 10, "place {line} of {n}: {written} in ten seconds");
        }
    }
}

#[test]
fn a_place_that_was_silent_writes_its_first_line_while_others_flood() {
    let (mut places, start) = (Places::default(), Instant::now());
    for site in warns(5) {
        assert!((0..1000).filter(|_| places.pass(site, start)).count() <= PLACE_MAX);
    }

    let firsts = warns(6).into_iter().filter(|site| places.pass(site, start)).count();

    assert_eq!(firsts, 6);
}

#[test]
fn what_was_lost_what_an_operator_does_and_audit_of_what_was_done_is_written_in_any_flood() {
    let (mut places, start) = (Places::default(), Instant::now());
    for site in warns(60) {
        assert!((0..1000).filter(|_| places.pass(site, start)).count() <= PLACE_MAX);
    }
    let mut passed = |site| (0..100).filter(|_| places.pass(site, start)).count();

    assert_eq!(passed(place(1, Level::WARN, "audit", "event")), 0, "denied");
    assert_eq!(passed(place(2, Level::INFO, "audit", "event")), 100);
    assert_eq!(passed(place(3, Level::WARN, "lc", OPERATOR)), 100);
    assert_eq!(passed(place(4, Level::DEBUG, "lc", "event")), 100);
    assert_eq!(passed(place(5, Level::ERROR, "lc", "event")), PLACE_MAX);
}

#[test]
fn an_operators_line_bears_its_name_and_looks_like_any_other() {
    for json in [false, true] {
        let text = logged(json, || {
            for i in 0..50 {
                tracing::info!(target: "audit", i, "who did what");
                tracing::info!(name: OPERATOR, i, "stopping");
            }
        });

        assert_eq!(text.lines().count(), 100);
        assert!(!text.contains(OPERATOR), "{text}");
    }
}

#[test]
fn the_number_is_a_line_of_its_own_in_the_form_of_the_others() {
    for json in [false, true] {
        let told = Told { level: Level::WARN, file: "src/a.rs", line: 7, suppressed: 15 };
        let mut text = String::new();
        told.write(json, &mut Writer::new(&mut text)).unwrap();

        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        if json {
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&line["suppressed"], &line["place"]), (&15.into(), &"src/a.rs:7".into()));
        } else {
            assert!(text.contains("suppressed=15 place=src/a.rs:7"), "{text}");
        }
    }
}
