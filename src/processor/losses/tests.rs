use super::*;

const EPOCH: Epoch = Epoch(7);

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn run(run: u64, secs: i64, kernel: u64, interface: u64) -> RunLosses {
    RunLosses { run, at: at(secs).as_nanos(), kernel, interface, stopped: false }
}

fn loss(from: i64, until: i64, packets: u64) -> LossWindow {
    let (from, until) = (Some(at(from).as_nanos()), at(until).as_nanos());
    LossWindow { reason: "kernel_dropped".to_owned(), from, until, packets, ..LossWindow::default() }
}

fn seen(losses: &Losses, first: i64, last: i64) -> Vec<u64> {
    losses.holes("edge", at(first), at(last)).map(|h| h.packets.unwrap()).collect()
}

/// Reason, seconds from and until, packets.
fn told(losses: &Losses) -> Vec<(String, Option<i64>, i64, u64)> {
    let windows = losses.snapshot().into_iter().flat_map(|h| h.windows);
    let secs = |ns: i64| ns / 1_000_000_000;
    windows.map(|w| (w.reason, w.from.map(secs), secs(w.until), w.packets)).collect()
}

#[test]
fn a_loss_touches_what_was_alive_in_it_or_began_right_after() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    losses.note(&edge, loss(100, 101, 7));

    assert_eq!([seen(&losses, 0, 99), seen(&losses, 104, 200)], [[0; 0]; 2], "over before, begun later");
    for (first, last) in [(0, 100), (0, 1000), (100, 101), (101, 110), (103, 110)] {
        assert_eq!(seen(&losses, first, last), [7], "{first} to {last}");
    }
    assert_eq!(losses.holes("other", at(0), at(1000)).count(), 0);
}

#[test]
fn what_a_run_says_is_told_once_since_it_last_spoke_and_another_run_begins_anew() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    for said in [run(1, 100, 0, 0), run(1, 101, 7, 2), run(1, 102, 8, 2), run(1, 110, 11, 2), run(1, 111, 11, 2)] {
        losses.hear(&edge, None, said);
    }
    losses.hear(&edge, Some(at(200)), run(2, 205, 3, 0));
    // its last words, which were written down: they say more than was heard
    losses.hear(&edge, Some(at(50)), run(1, 112, 12, 2));
    losses.hear(&edge, Some(at(50)), run(1, 112, 12, 2));

    let kernel = |from, until, packets| ("kernel_dropped".to_owned(), Some(from), until, packets);
    let interface = ("interface_dropped".to_owned(), Some(100), 101, 2);
    // losses without a pause are one, and another reason is another
    let expected = [kernel(100, 110, 11), interface, kernel(200, 205, 3), kernel(111, 112, 1)];
    assert_eq!(told(&losses), expected);
}

#[test]
fn nobody_captured_between_a_run_that_did_not_say_that_it_stops_and_the_next() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    losses.begin(&edge, 1, at(90));
    losses.hear(&edge, None, run(1, 100, 0, 0));
    for _ in 0..2 {
        // its last record is younger than its last heartbeat; it registers again and again
        losses.hear(&edge, Some(at(90)), run(1, 103, 4, 0));
        losses.begin(&edge, 2, at(110));
    }
    losses.hear(&edge, None, RunLosses { stopped: true, ..run(2, 120, 0, 0) });
    losses.hear(&edge, None, run(2, 120, 0, 0));
    losses.begin(&edge, 3, at(130));

    let expected = [("kernel_dropped".to_owned(), Some(100), 103, 4), ("hunter_down".to_owned(), Some(103), 110, 0)];
    assert_eq!(told(&losses), expected);
    assert_eq!(losses.holes("edge", at(0), at(200)).map(|h| h.packets).collect::<Vec<_>>(), [Some(4), None]);
    assert_eq!(losses.holes("edge", at(111), at(200)).count(), 0, "a call that the next run saw from its beginning");
}

#[test]
fn a_restart_goes_on_from_what_was_told_before() {
    let edge: Arc<str> = "edge".into();
    let mut before = Losses::default();
    before.hear(&edge, None, run(1, 100, 5, 0));
    let mut after = Losses::default();
    after.restore(before.snapshot());

    after.hear(&edge, None, run(1, 160, 9, 0));

    assert_eq!(told(&before), [("kernel_dropped".to_owned(), None, 100, 5)]);
    assert_eq!(told(&after), [("kernel_dropped".to_owned(), None, 160, 9)]);
}

#[test]
fn what_runs_said_is_taken_again_from_what_was_written_down() {
    let edge: Arc<str> = "edge".into();
    let mut heard = Losses::default();
    let mut written = Vec::new();
    heard.begin(&edge, 1, at(90));
    heard.hear(&edge, Some(at(90)), run(1, 100, 0, 0));
    written.extend(heard.take_words(false));
    heard.hear(&edge, Some(at(90)), run(1, 105, 0, 0));
    assert_eq!(heard.take_words(false), [], "that it is alive can wait");
    written.extend(heard.take_words(true));
    heard.hear(&edge, Some(at(90)), run(1, 110, 4, 0));
    heard.begin(&edge, 2, at(120));
    for n in 0..10 {
        heard.hear(&edge, Some(at(120)), run(2, 121 + n, 0, 0));
    }
    heard.hear(&edge, Some(at(120)), RunLosses { stopped: true, ..run(2, 140, 0, 0) });
    written.extend(heard.take_words(true));

    let mut again = Losses::default();
    for _ in 0..2 {
        for word in &written {
            again.take_again(word);
        }
    }

    assert_eq!(again.snapshot(), heard.snapshot());
    assert_eq!(again.stopped("edge", at(130), at(150)), Some(at(140)));
    assert_eq!((again.stopped("edge", at(141), at(150)), again.stopped("edge", at(130), at(140))), (None, None));
    assert!(written.len() < 9, "{}", written.len());
}

#[test]
fn what_was_heard_while_a_checkpoint_was_read_stands_beside_it() {
    let edge: Arc<str> = "edge".into();
    let mut earlier = Losses::default();
    earlier.begin(&edge, 1, at(90));
    let mut now = Losses::default();
    now.begin(&edge, 2, at(110));

    now.restore(earlier.snapshot());

    assert_eq!(told(&now), [("hunter_down".to_owned(), Some(90), 110, 0)]);
}

#[test]
fn packets_that_come_after_all_are_missing_no_more() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    assert!(!losses.came(&edge, EPOCH, at(100), 0, 10));
    assert!(!losses.came(&edge, Epoch(8), at(150), 0, 10));
    losses.missing(&edge, EPOCH, PENDING, 20, at(110), Some(Gap { epoch: 7, first: 10, end: 30 }));
    losses.missing(&edge, Epoch(8), PENDING, 5, at(160), Some(Gap { epoch: 8, first: 10, end: 15 }));
    losses.remember_record("edge", at(90), at(105), "stem");
    losses.take_news();

    assert!(losses.came(&edge, EPOCH, at(108), 20, 10));
    let pending = |from, until, packets| ("pending".to_owned(), Some(from), until, packets);
    assert_eq!(told(&losses), [pending(100, 110, 10), pending(150, 160, 5)]);
    assert!(!losses.came(&edge, EPOCH, at(120), 30, 10), "in its turn");
    assert!(losses.came(&edge, EPOCH, at(104), 10, 10));

    assert_eq!(told(&losses), [pending(150, 160, 5)]);
    let news = losses.take_news();
    let (records, hole) = news[0].filled().unwrap();
    assert_eq!(
        (news.len(), records, &*hole.reason, hole.until),
        (1, &["stem".to_owned()][..], "pending", Some(json::time(at(110))))
    );
    assert!(news[0].meets(at(0), at(101)) && !news[0].meets(at(0), at(99)));
}

#[test]
fn a_declaration_that_comes_by_two_ways_counts_once() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    let range = (BatchSeq(3), BatchSeq(4));

    assert!(losses.is_declared_first(&edge, EPOCH, range));
    assert!(!losses.is_declared_first(&edge, EPOCH, range));
    assert!(losses.is_declared_first(&edge, Epoch(8), range));
}

#[test]
fn many_losses_lose_precision_and_no_packet() {
    let mut losses = Losses::default();
    let edge: Arc<str> = "edge".into();
    for n in 0..1000 {
        losses.note(&edge, loss(n * 10, n * 10 + 1, 1));
        losses.came(&edge, EPOCH, at(n * 10), 0, 1);
        losses.missing(&edge, EPOCH, PENDING, 1, at(n * 10 + 1), Some(Gap { epoch: 7, first: 5, end: 9 }));
    }

    let all = seen(&losses, 0, 99_999);
    assert_eq!((all.len(), all.iter().sum::<u64>()), (WINDOWS, 2000));
    for n in 0..HUNTERS {
        losses.note(&Arc::from(format!("h{n}")), loss(20_000, 20_001, 1));
    }
    assert_eq!(losses.by_hunter.len(), HUNTERS);
    assert!(seen(&losses, 0, 99_999).is_empty(), "the one silent for longest went");
}
