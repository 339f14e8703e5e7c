//! When packets of each hunter were lost, or have not come yet: any call alive then may miss some. Kept by time, since a hunter's word of a loss
//! may come before the packets of the calls it touched, or after their files were closed.
//!
//! | reason | is | ends when |
//! |---|---|---|
//! | `kernel_dropped`, `interface_dropped` | what a run of the hunter counts more than it said before | |
//! | `hunter_down` | from the last word of one run on: the next does not know the calls that began before it | the call ends |
//! | a drop reason | batches that were given up, as declared | |
//! | `elsewhere` | batches that another processor took over before its hunter came (back) here | |
//! | `pending` | packets that did not come in their turn and may come by another processor below this one | they have come |
//! | `undeclared` | the same where there is no other way, or where too many are missing to be told apart | they have come, where they are told apart |

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::batch::{BatchSeq, Epoch};
use crate::packet::Timestamp;
use crate::record::json::{self, Hole};
use crate::record::losses::{Gap, HunterLosses, LossWindow, RunLosses, RunWord};

/// Windows remembered per hunter; of more, the two that are closest become one.
const WINDOWS: usize = 64;
/// Hunters remembered; the one silent for longest goes.
const HUNTERS: usize = 10_000;
/// Runs, epochs and declarations remembered per hunter.
const RUNS: usize = 16;
const EPOCHS: usize = 16;
const DECLARED: usize = 64;
/// Records of closed calls that a window may still change; of more, those of calls that are still known.
const RECORDS: usize = 1000;
/// Longest reason that a hunter may give; those of ours are much shorter.
const REASON: usize = 64;
/// Changes that nobody has looked at; of more, the calls they touched say so when their records are next written.
const NEWS: usize = 1024;
/// Words of runs that are remembered for a restart: those that wait for the log, and the last ones before.
const WORDS: usize = 1024;
const LATELY: usize = 64;
/// A call whose first packet comes this long after a loss may have begun in it: a request is sent again after half a second, one and two.
const BEGAN_BEFORE: Duration = Duration::from_secs(2);

/// Nobody captured.
pub(super) const DOWN: &str = "hunter_down";
/// Batches that did not come in their turn, and why that may be.
pub(super) const UNDECLARED: &str = "undeclared";
/// The same while they may come by another way.
pub(super) const PENDING: &str = "pending";

const fn ts(ns: i64) -> Timestamp {
    Timestamp::from_nanos(ns)
}

impl LossWindow {
    /// Whether it can touch what was alive from `first` to `last`.
    fn meets(&self, first: Timestamp, last: Timestamp) -> bool {
        // a run sees every call that begins while it captures
        let slack = if self.reason == DOWN { Duration::ZERO } else { BEGAN_BEFORE };
        first <= ts(self.until).saturating_add(slack) && self.from.is_none_or(|from| ts(from) <= last)
    }

    fn hole(&self, hunter: &str) -> Hole {
        Hole {
            reason: self.reason.clone(),
            from: self.from.map(|from| json::time(ts(from))),
            until: Some(json::time(ts(self.until))).filter(|_| self.reason != DOWN),
            packets: Some(self.packets).filter(|n| *n > 0),
            hunter: hunter.to_owned(),
        }
    }

    /// Takes in a later one of the same reason. Which of them come after all is not told any more.
    fn join(&mut self, later: &Self) {
        self.until = self.until.max(later.until);
        self.packets = self.packets.saturating_add(later.packets);
        if self.gap.take().is_some() {
            UNDECLARED.clone_into(&mut self.reason);
        }
    }

    /// Of one kind: what may still come is told apart for as long as there is room.
    fn is_like(&self, other: &Self) -> bool {
        let lost = |w: &Self| w.gap.is_some() || w.reason == UNDECLARED;
        self.reason == other.reason || (lost(self) && lost(other))
    }

    fn follows(&self, earlier: &Self) -> bool {
        let touch = self.from.is_some_and(|from| from <= earlier.until) && earlier.from.is_none_or(|from| from <= self.until);
        self.gap.is_none() && earlier.gap.is_none() && touch
    }
}

/// A time in which the losses of a hunter changed, for whoever keeps records of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) hunter: Arc<str>,
    /// As it is now; of one that is no loss any more, as it was.
    window: LossWindow,
    /// All of it has come.
    came: bool,
}

impl News {
    /// Whether it is about a call that was alive from `first` to `last`.
    pub(super) fn meets(&self, first: Timestamp, last: Timestamp) -> bool {
        self.window.meets(first, last)
    }

    /// Records of closed calls, and the hole that is none any more.
    pub(super) fn filled(&self) -> Option<(&[String], Hole)> {
        self.came.then(|| (&*self.window.records, self.window.hole(&self.hunter)))
    }
}

/// The losses of all hunters.
#[derive(Debug, Default)]
pub(super) struct Losses {
    by_hunter: HashMap<Arc<str>, HunterLosses, RandomState>,
    news: Vec<News>,
    /// What runs said and no log has yet: what is new, and by run what only says that it is still alive.
    words: Vec<RunWord>,
    signs: BTreeMap<(Arc<str>, u64), RunWord>,
    /// The last words, logged or not.
    lately: VecDeque<RunWord>,
}

/// The last time anything was heard of a hunter, by its clock.
fn heard(h: &HunterLosses) -> Option<i64> {
    let windows = h.windows.iter().map(|w| w.until);
    windows.chain(h.runs.iter().map(|r| r.at)).chain(h.last.iter().map(|(_, at)| *at)).max()
}

impl Losses {
    fn of(&mut self, hunter: &Arc<str>) -> &mut HunterLosses {
        if !self.by_hunter.contains_key(hunter) && self.by_hunter.len() >= HUNTERS {
            let idle = self.by_hunter.iter().min_by_key(|(_, h)| heard(h)).map(|(id, _)| Arc::clone(id));
            idle.and_then(|id| self.by_hunter.remove(&id));
        }
        self.by_hunter.entry(Arc::clone(hunter)).or_default()
    }

    /// Notes one; those of a hunter come in order.
    pub(super) fn note(&mut self, hunter: &Arc<str>, window: LossWindow) {
        self.tell(hunter, &window, false);
        let all = &mut self.of(hunter).windows;
        match all.iter_mut().rev().find(|w| w.reason == window.reason) {
            Some(earlier) if window.follows(earlier) => earlier.join(&window),
            _ => all.push(window),
        }
        if all.len() > WINDOWS {
            merge_closest(all);
        }
    }

    fn tell(&mut self, hunter: &Arc<str>, window: &LossWindow, came: bool) {
        if self.news.len() < NEWS {
            self.news.push(News { hunter: Arc::clone(hunter), window: window.clone(), came });
        }
    }

    /// What changed since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// A run of a hunter says how much its kernel and its interfaces have lost since it `began`, if anybody knows when that was. What it said
    /// before is no news.
    pub(super) fn hear(&mut self, hunter: &Arc<str>, began: Option<Timestamp>, said: RunLosses) {
        let word = RunWord { hunter: Arc::clone(hunter), said, began: began.map(Timestamp::as_nanos), begins: false };
        self.write_down(word, self.is_new(hunter, &said));
        self.learn(hunter, began, said);
    }

    /// Whether a run says more than that it is alive.
    fn is_new(&self, hunter: &str, said: &RunLosses) -> bool {
        let runs = self.by_hunter.get(hunter).into_iter().flat_map(|h| &h.runs);
        let same = |r: &RunLosses| {
            (r.run, r.kernel, r.interface, r.stopped || !said.stopped) == (said.run, said.kernel, said.interface, true)
        };
        !runs.into_iter().any(same)
    }

    fn write_down(&mut self, word: RunWord, new: bool) {
        if self.lately.len() >= LATELY {
            self.lately.pop_front();
        }
        self.lately.push_back(word.clone());
        if new && self.words.len() < WORDS {
            self.words.push(word);
        } else if !new && self.signs.len() < WORDS {
            self.signs.insert((Arc::clone(&word.hunter), word.said.run), word);
        }
    }

    /// What runs have said since the last call, for the log, in an order in which it can be taken again. Signs of life wait for something
    /// else to be logged, as the caller has it if `all` is to be taken.
    pub(super) fn take_words(&mut self, all: bool) -> Vec<RunWord> {
        let mut words = std::mem::take(&mut self.words);
        if all || !words.is_empty() {
            words.extend(std::mem::take(&mut self.signs).into_values());
        }
        words
    }

    /// Takes a word again that was written down; nothing where that or a later one of the run is known.
    pub(super) fn take_again(&mut self, word: &RunWord) {
        let runs = self.by_hunter.get(&word.hunter).into_iter().flat_map(|h| &h.runs);
        let known = runs.into_iter().any(|r| r.run == word.said.run && r.at >= word.said.at && (r.stopped || !word.said.stopped));
        if word.begins {
            self.meet(&word.hunter, word.said.run, word.said.at);
        } else if !known {
            self.learn(&word.hunter, word.began.map(ts), word.said);
        }
    }

    fn learn(&mut self, hunter: &Arc<str>, began: Option<Timestamp>, said: RunLosses) {
        let runs = &mut self.of(hunter).runs;
        let known = runs.iter_mut().find(|r| r.run == said.run);
        // one that counts from 0 again is another
        let goes_on = known.as_ref().is_some_and(|r| r.kernel <= said.kernel && r.interface <= said.interface);
        let before =
            known.map(|r| std::mem::replace(r, RunLosses { at: said.at.max(r.at), stopped: said.stopped || r.stopped, ..said }));
        if before.is_none() {
            if runs.len() >= RUNS {
                let oldest = runs.iter().enumerate().min_by_key(|(_, r)| r.at).map(|(n, _)| n);
                oldest.map(|n| runs.swap_remove(n));
            }
            runs.push(said);
        }
        let before = before.filter(|_| goes_on);
        let from = before.map_or(began.map(Timestamp::as_nanos), |r| Some(r.at)).map(|from| from.min(said.at));
        let before = before.unwrap_or_default();
        for (reason, now, then) in
            [("kernel_dropped", said.kernel, before.kernel), ("interface_dropped", said.interface, before.interface)]
        {
            let packets = now.saturating_sub(then);
            if packets > 0 {
                let window = LossWindow { reason: reason.to_owned(), from, until: said.at, packets, ..LossWindow::default() };
                self.note(hunter, window);
            }
        }
    }

    /// A run of a hunter begins. Since the run before it was last heard of, nobody captured; where that said that it stops, its calls are said to be
    /// unfinished.
    pub(super) fn begin(&mut self, hunter: &Arc<str>, run: u64, began: Timestamp) {
        let said = RunLosses { run, at: began.as_nanos(), ..RunLosses::default() };
        if !self.of(hunter).runs.iter().any(|r| r.run == run) {
            self.write_down(RunWord { hunter: Arc::clone(hunter), said, began: None, begins: true }, true);
            self.meet(hunter, run, said.at);
        }
    }

    fn meet(&mut self, hunter: &Arc<str>, run: u64, began: i64) {
        let runs = &mut self.of(hunter).runs;
        if runs.iter().any(|r| r.run == run) {
            return;
        }
        let before = runs.iter().filter(|r| r.at < began).max_by_key(|r| r.at).filter(|r| !r.stopped).map(|r| r.at);
        self.learn(hunter, None, RunLosses { run, at: began, ..RunLosses::default() });
        if let Some(from) = before {
            let window = LossWindow { reason: DOWN.to_owned(), from: Some(from), until: began, ..LossWindow::default() };
            self.note(hunter, window);
        }
    }

    /// Packets of an epoch did not come before one of the time `until`; `gap` says which, if they may still.
    pub(super) fn missing(
        &mut self,
        hunter: &Arc<str>,
        epoch: Epoch,
        reason: &str,
        packets: u64,
        until: Timestamp,
        gap: Option<Gap>,
    ) {
        let last = &self.of(hunter).last;
        let of_it = last.iter().find(|(e, _)| *e == epoch.0).map(|(_, at)| *at);
        let from = of_it.or_else(|| last.iter().map(|(_, at)| *at).max()).map(|from| from.min(until.as_nanos()));
        let reason = reason.chars().take(REASON).collect();
        let window = LossWindow { reason, from, until: until.as_nanos(), packets, gap, ..LossWindow::default() };
        self.note(hunter, window);
    }

    /// Whether these batches are said to be given up for the first time: every way that a hunter tries is told.
    pub(super) fn is_declared_first(&mut self, hunter: &Arc<str>, epoch: Epoch, (from, to): (BatchSeq, BatchSeq)) -> bool {
        let declared = &mut self.of(hunter).declared;
        let range = (epoch.0, from.0, to.0);
        if declared.contains(&range) {
            return false;
        }
        if declared.len() >= DECLARED {
            declared.remove(0);
        }
        declared.push(range);
        true
    }

    /// A batch of an epoch came, the last packet of which is of the time `last`, and whose packets are `packets` from index `first` on. Whether
    /// any of them had been missing.
    pub(super) fn came(&mut self, hunter: &Arc<str>, epoch: Epoch, last: Timestamp, first: u64, packets: u64) -> bool {
        let h = self.of(hunter);
        if let Some((_, at)) = h.last.iter_mut().find(|(e, _)| *e == epoch.0) {
            *at = last.as_nanos().max(*at);
        } else {
            if h.last.len() >= EPOCHS {
                h.last.remove(0);
            }
            h.last.push((epoch.0, last.as_nanos()));
        }
        let in_gap = |w: &LossWindow| w.gap.is_some_and(|g| g.epoch == epoch.0 && (g.first..g.end).contains(&first));
        let Some(at) = h.windows.iter().position(in_gap) else { return false };
        let Some(window) = h.windows.get_mut(at) else { return false };
        if window.packets > packets {
            window.packets = window.packets.saturating_sub(packets);
        } else {
            let window = h.windows.remove(at);
            self.tell(hunter, &window, true);
        }
        true
    }

    /// Whether anything of this hunter is missing.
    pub(super) fn has(&self, hunter: &str) -> bool {
        self.by_hunter.get(hunter).is_some_and(|h| !h.windows.is_empty())
    }

    /// What a call of this hunter may miss that was alive from `first` to `last`.
    pub(super) fn holes(&self, hunter: &str, first: Timestamp, last: Timestamp) -> impl Iterator<Item = Hole> {
        let all = self.by_hunter.get(hunter).into_iter().flat_map(|h| &h.windows);
        all.filter(move |w| w.meets(first, last)).map(move |w| w.hole(hunter))
    }

    /// The call of a record whose files are closed was alive from `first` to `last`: what it waits for may still come.
    pub(super) fn remember_record(&mut self, hunter: &str, first: Timestamp, last: Timestamp, stem: &str) {
        let all = self.by_hunter.get_mut(hunter).into_iter().flat_map(|h| &mut h.windows);
        for w in all.filter(|w| w.gap.is_some() && w.records.len() < RECORDS && w.meets(first, last)) {
            if w.records.iter().all(|known| known != stem) {
                w.records.push(stem.to_owned());
            }
        }
    }

    /// All of it, for a restart.
    pub(super) fn snapshot(&self) -> Vec<HunterLosses> {
        let by_id: BTreeMap<&Arc<str>, &HunterLosses> = self.by_hunter.iter().collect();
        by_id.into_iter().map(|(id, h)| HunterLosses { hunter: id.to_string(), ..h.clone() }).collect()
    }

    /// As it was at the checkpoint from which everything since is taken again; what was heard meanwhile stands.
    pub(super) fn restore(&mut self, all: Vec<HunterLosses>) {
        self.by_hunter = all.into_iter().map(|h| (Arc::from(h.hunter.as_str()), h)).collect();
        for word in self.lately.clone() {
            self.take_again(&word);
        }
    }

    /// When this hunter said that it stops, if that was between the two.
    pub(super) fn stopped(&self, hunter: &str, after: Timestamp, before: Timestamp) -> Option<Timestamp> {
        let runs = self.by_hunter.get(hunter).into_iter().flat_map(|h| &h.runs);
        runs.filter(|r| r.stopped).map(|r| ts(r.at)).filter(|at| (after..before).contains(at)).max()
    }
}

/// Makes one of the two windows of one kind that lie closest together.
fn merge_closest(all: &mut Vec<LossWindow>) {
    let gap = |a: &LossWindow, b: &LossWindow| b.from.map_or(Duration::ZERO, |from| ts(from).since(ts(a.until)));
    let next_of = |n: usize, a: &LossWindow| all.iter().enumerate().skip(n.saturating_add(1)).find(|(_, b)| b.is_like(a));
    let pairs = all.iter().enumerate().filter_map(|(n, a)| next_of(n, a).map(|(m, b)| (gap(a, b), n, m)));
    let Some((_, n, m)) = pairs.min() else { return };
    let later = all.remove(m);
    all.get_mut(n).into_iter().for_each(|a| a.join(&later));
}

#[cfg(test)]
mod tests;
