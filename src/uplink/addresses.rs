//! Where an uplink may go, and where it goes next. Pure: time and randomness are arguments.
//!
//! ```text
//!   own   a ─ b        in turn, while the breaker of any lets attempts through
//!   peers   c ─ d ─ e  in turn, while no own one does
//! ```
//! The operator's own processors come first. Peers are those that one of them named last, as it took us or had no room: at most 16, each with
//! a breaker, too. What peers name is not followed: the operator's processors decide where their hunters go. After a session that was one, the
//! choice begins with the first again. One that has no room is left alone as if it had failed again and again.
//!
//! When all are left alone the hunter waits for the first that may be tried; who cannot wait (its patience is bounded, or it is told to stop)
//! tries all in turn.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, BreakerState};
use crate::net::Target;
use crate::wire::PEERS_MAX;

/// A processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) target: Target,
    /// Another processor named it.
    pub(super) peer: bool,
}

#[derive(Clone, Debug)]
struct Known {
    address: Address,
    breaker: Breaker,
    /// An attempt was made since the last session.
    tried: bool,
    /// It failed in a way that waiting cannot help.
    settled: bool,
}

impl Known {
    fn new(target: Target, peer: bool) -> Self {
        Self { address: Address { target, peer }, breaker: Breaker::default(), tried: false, settled: false }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Try this one.
    Try(Address),
    /// Wait until then.
    Wait(Instant),
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// There is no room: no use to ask again soon.
    pub(super) full: bool,
    /// Waiting cannot help.
    pub(super) settled: bool,
}

/// What a list of peers came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Those that may be gone to are others than before.
    pub(super) changed: bool,
    /// How many were left out: no addresses, or too many.
    pub(super) left_out: usize,
    /// The first of them.
    pub(super) first: String,
}

/// All of them, the operator's own first.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    all: Vec<Known>,
    /// Where the next choice begins.
    next: usize,
    /// There is no later to wait for.
    hurried: bool,
    /// The last list of peers, as it came.
    heard: u64,
}

impl Addresses {
    pub(super) fn new(own: &[Target], hurried: bool) -> Self {
        let all = own.iter().map(|target| Known::new(target.clone(), false)).collect();
        Self { all, next: 0, hurried, heard: hash(&[]) }
    }

    /// From here on there is no later to wait for.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// The next that may be tried.
    pub(super) fn choose(&mut self, now: Instant) -> Choice {
        let (own, all) = (self.own(), self.all.len());
        let ready = |known: &Known| known.breaker.ready_at(now).is_none();
        let next = self.in_turn(0..own, ready).or_else(|| self.in_turn(own..all, ready));
        if let Some(address) = next.or_else(|| self.hurried.then(|| self.in_turn(0..all, |_| true)).flatten()) {
            return Choice::Try(address);
        }
        Choice::Wait(self.all.iter().filter_map(|known| known.breaker.ready_at(now)).min().unwrap_or(now))
    }

    /// What becomes of one whose breaker has just opened, for people; none: whoever cannot wait has no other, and tries it again.
    pub(super) fn left_alone(&self, now: Instant) -> Option<&'static str> {
        let others = || self.all.iter().any(|known| known.breaker.ready_at(now).is_none());
        if !self.hurried {
            return Some("left alone for 30 s");
        }
        others().then_some("left alone while others may be tried")
    }

    fn own(&self) -> usize {
        self.all.iter().take_while(|known| !known.address.peer).count()
    }

    fn in_turn(&mut self, group: Range<usize>, may: impl Fn(&Known) -> bool) -> Option<Address> {
        let start = self.next.clamp(group.start, group.end);
        let mut turn = (start..group.end).chain(group.start..start);
        let n = turn.find(|n| self.all.get(*n).is_some_and(&may))?;
        self.next = n.saturating_add(1);
        self.all.get(n).map(|known| known.address.clone())
    }

    /// The operator's own that may be tried.
    pub(super) fn own_ready(&self, now: Instant) -> Vec<Address> {
        let own = self.all.iter().filter(|known| !known.address.peer && known.breaker.ready_at(now).is_none());
        own.map(|known| known.address.clone()).collect()
    }

    fn known(&mut self, target: &Target) -> Option<&mut Known> {
        self.all.iter_mut().find(|known| known.address.target == *target)
    }

    /// An attempt is made; true when the state of its breaker changes.
    pub(super) fn attempt(&mut self, target: &Target) -> bool {
        self.known(target).is_some_and(|known| {
            known.tried = true;
            known.breaker.attempt()
        })
    }

    /// It failed; true when its breaker opens.
    pub(super) fn failed(&mut self, target: &Target, failure: Failure, now: Instant, random: u64) -> bool {
        let others = self.all.len() > 1;
        self.known(target).is_some_and(|known| {
            known.settled = failure.settled;
            if failure.full && others { known.breaker.open(now, random) } else { known.breaker.failed(now, random) }
        })
    }

    /// It succeeded; true when its breaker closes.
    pub(super) fn succeeded(&mut self, target: &Target) -> bool {
        self.known(target).is_some_and(|known| known.breaker.succeeded())
    }

    /// A session has ended that was one.
    pub(super) fn begin_anew(&mut self) {
        self.next = 0;
        for known in &mut self.all {
            (known.tried, known.settled) = (false, false);
        }
    }

    /// How much of the patience that is left an attempt may take: the others that have not been tried get as much.
    pub(super) fn share(&self, target: &Target, left: Duration) -> Duration {
        let untried = self.all.iter().filter(|known| !known.tried && known.address.target != *target).count();
        left / u32::try_from(untried.saturating_add(1)).unwrap_or(u32::MAX)
    }

    /// Waiting helps with none of them.
    pub(super) fn are_settled(&self) -> bool {
        self.all.iter().all(|known| known.settled)
    }

    /// One of the operator's own names others; breakers of those that it names again stay as they are.
    pub(super) fn hear(&mut self, named: &[String]) -> Heard {
        let mut heard = Heard::default();
        if hash(named) == self.heard {
            return heard;
        }
        self.heard = hash(named);
        let own = self.own();
        let before = self.all.split_off(own);
        for text in named {
            let room = self.all.len() < own.saturating_add(PEERS_MAX);
            let Some(target) = Target::named(text).ok().filter(|_| room) else {
                if heard.left_out == 0 {
                    heard.first.clone_from(text);
                }
                heard.left_out = heard.left_out.saturating_add(1);
                continue;
            };
            if self.known(&target).is_none() {
                let known = before.iter().find(|known| known.address.target == target).cloned();
                self.all.push(known.unwrap_or_else(|| Known::new(target, true)));
            }
        }
        let addresses = |all: &[Known]| all.iter().map(|known| known.address.clone()).collect::<Vec<_>>();
        heard.changed = addresses(self.all.get(own..).unwrap_or_default()) != addresses(&before);
        heard
    }

    /// Each with the state of its breaker.
    pub(super) fn states(&self) -> impl Iterator<Item = (&Address, BreakerState)> {
        self.all.iter().map(|known| (&known.address, known.breaker.state()))
    }
}

fn hash(named: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    named.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Failure = Failure { full: true, settled: false };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn at(host: &str) -> Target {
        host.parse().unwrap()
    }

    fn known(own: &[&str], peers: &[&str]) -> Addresses {
        let own: Vec<Target> = own.iter().map(|host| at(host)).collect();
        let mut addresses = Addresses::new(&own, false);
        hear(&mut addresses, peers);
        addresses
    }

    fn hear(addresses: &mut Addresses, peers: &[&str]) -> Heard {
        addresses.hear(&peers.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    fn fail(addresses: &mut Addresses, hosts: &[&str], now: Instant) {
        for host in hosts {
            (0..5).for_each(|_| _ = addresses.failed(&at(host), Failure::default(), now, 0));
        }
    }

    /// Who is tried in so many attempts of which nothing becomes.
    fn tried(addresses: &mut Addresses, n: usize, now: Instant) -> String {
        let one = |addresses: &mut Addresses| match addresses.choose(now) {
            Choice::Try(address) => address.target.host,
            Choice::Wait(until) => format!("{}s", (until - now).as_secs()),
        };
        (0..n).map(|_| one(addresses)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_others_are_tried_while_one_is_left_alone_and_when_all_are_it_waits_for_the_first() {
        let start = Instant::now();
        let mut a = known(&["a", "b", "c"], &[]);
        fail(&mut a, &["b"], start);

        assert_eq!(tried(&mut a, 4, start), "a c a c");
        fail(&mut a, &["a"], start + secs(1));
        fail(&mut a, &["c"], start + secs(2));
        assert_eq!(tried(&mut a, 1, start + secs(3)), "27s");
        assert_eq!(tried(&mut a, 1, start + secs(30)), "b");
        assert!(a.states().all(|(_, state)| state == BreakerState::Open), "until the attempt");
    }

    #[test]
    fn peers_are_tried_in_order_once_all_own_ones_are_left_alone_and_no_longer_than_that() {
        let start = Instant::now();
        let mut a = known(&["a", "b"], &["c", "d"]);

        assert_eq!(tried(&mut a, 3, start), "a b a");
        fail(&mut a, &["a"], start);
        assert_eq!(tried(&mut a, 2, start), "b b");
        fail(&mut a, &["b"], start + secs(1));
        assert_eq!(tried(&mut a, 3, start + secs(1)), "c d c");
        fail(&mut a, &["d"], start + secs(1));
        assert_eq!(tried(&mut a, 2, start + secs(1)), "c c");
        assert_eq!(tried(&mut a, 2, start + secs(30)), "a a", "it may be tried again");
    }

    #[test]
    fn who_has_no_room_is_left_alone_at_once_where_there_are_others() {
        let now = Instant::now();
        let (mut alone, mut a) = (known(&["a"], &[]), known(&["a"], &["c"]));

        assert!(!alone.failed(&at("a"), FULL, now, 0) && a.failed(&at("a"), FULL, now, 0));
        assert_eq!((tried(&mut alone, 1, now), tried(&mut a, 1, now)), ("a".to_owned(), "c".to_owned()));
        assert!(a.failed(&at("c"), FULL, now + secs(2), 0));
        assert_eq!(tried(&mut a, 1, now + secs(3)), "27s");
    }

    #[test]
    fn after_a_session_the_first_is_tried_first() {
        let now = Instant::now();
        let mut a = known(&["a", "b"], &["c", "d"]);

        assert_eq!(tried(&mut a, 1, now), "a");
        a.begin_anew();
        assert_eq!(tried(&mut a, 1, now), "a");
        fail(&mut a, &["a", "b"], now);
        assert_eq!(tried(&mut a, 1, now), "c");
        a.begin_anew();
        assert_eq!(tried(&mut a, 1, now), "c");
        assert_eq!(a.own_ready(now + secs(29)), []);
        assert_eq!(a.own_ready(now + secs(30)).len(), 2);
    }

    #[test]
    fn who_cannot_wait_tries_all_in_turn() {
        let now = Instant::now();
        let mut a = known(&["a"], &["c"]);
        a.hurry();

        assert_eq!(tried(&mut a, 2, now), "a a");
        fail(&mut a, &["a"], now);
        assert_eq!(tried(&mut a, 2, now), "c c");
        fail(&mut a, &["c"], now);
        assert_eq!(tried(&mut a, 3, now), "a c a");
    }

    #[test]
    fn who_cannot_wait_leaves_one_alone_for_as_long_as_there_are_others() {
        let now = Instant::now();
        let mut a = known(&["a", "b"], &[]);
        fail(&mut a, &["a", "b"], now);
        assert_eq!(a.left_alone(now), Some("left alone for 30 s"), "it waits");

        a.hurry();
        assert_eq!((a.left_alone(now), tried(&mut a, 2, now)), (None, "a b".to_owned()));
        a.succeeded(&at("b"));
        assert_eq!((a.left_alone(now), tried(&mut a, 2, now)), (Some("left alone while others may be tried"), "b b".to_owned()));
    }

    #[test]
    fn patience_is_shared_with_those_not_tried_yet_and_no_address_ends_it_alone() {
        let now = Instant::now();
        let mut a = known(&["a"], &["c", "d"]);
        let settled = Failure { full: false, settled: true };

        assert_eq!(a.share(&at("a"), secs(30)), secs(10));
        a.attempt(&at("a"));
        assert_eq!(a.share(&at("c"), secs(20)), secs(10));
        a.attempt(&at("c"));
        assert_eq!(a.share(&at("a"), secs(10)), secs(5));
        a.failed(&at("c"), settled, now, 0);
        a.failed(&at("a"), settled, now, 0);
        assert!(!a.are_settled());
        assert_eq!(a.share(&at("d"), secs(5)), secs(5));
        a.attempt(&at("d"));
        a.failed(&at("d"), settled, now, 0);
        assert!(a.share(&at("a"), secs(30)) == secs(30) && a.are_settled());
        a.begin_anew();
        assert!(a.share(&at("a"), secs(30)) == secs(10) && !a.are_settled());
    }

    #[test]
    fn of_what_is_named_only_addresses_are_known_each_once_and_no_more_than_sixteen() {
        let mut a = known(&["a"], &[]);
        let many: Vec<String> = (0..20).map(|n| format!("p{n}:1")).collect();

        let named = ["c:1", "a", "c:1", "x\u{1b}[31m:1", "", "[::1]:2"];
        assert_eq!(hear(&mut a, &named), Heard { changed: true, left_out: 2, first: named[3].to_owned() });
        assert_eq!(a.states().map(|(known, _)| known.target.to_string()).collect::<Vec<_>>(), ["a:55555", "c:1", "[::1]:2"]);
        assert_eq!(hear(&mut a, &named), Heard::default(), "said once");
        assert_eq!(hear(&mut a, &["c:1", "[::1]:2"]), Heard::default());
        let heard = a.hear(&many);
        assert_eq!((heard.changed, heard.left_out, &*heard.first), (true, 4, "p16:1"));
        assert_eq!(a.states().count(), 17);
    }

    #[test]
    fn a_list_takes_the_place_of_the_one_before_and_breakers_of_those_in_both_stay() {
        let now = Instant::now();
        let mut a = known(&["a"], &["c", "d"]);
        fail(&mut a, &["a", "c"], now);

        assert!(hear(&mut a, &["e", "c"]).changed);
        assert_eq!(tried(&mut a, 3, now), "e e e");
        assert!(!a.attempt(&at("d")), "it is unknown");
        assert!(hear(&mut a, &[]).changed);
        assert_eq!(tried(&mut a, 1, now), "30s");
    }
}
