//! How many packets a run that was killed may have lost without anybody knowing.
//!
//! ```text
//! at work     once a second, and when more came than the last record allows for:   Shared ──▶ StateFile
//! stopped     the record says so: everything was delivered, kept or counted
//! next start  at most = at risk in the record + rate × age − on disk and not in the record's account
//! ```
//! At risk is what was in memory alone: in batches, in the open one, held for a verdict, and what the kernel had taken and not handed over. What came
//! after the record is bounded by the rate of late and by the age of the record: a hunter at work writes one every second, and one more as soon as
//! it has taken more than that allows for (`promise`). [`UNSEEN`] is added, the open batch. So the figure is not less than what is missing of what was
//! chosen, however it comes, but for what comes while such a record is written. Of what the kernel has taken and of what is held for a verdict it knows what
//! was so at the last look. A run that is killed hands on what the one before it left, until one stops by itself.
//!
//! Promises: the capture waits for none of this, and no start fails for it. Refuses: to guess where the record cannot be read, or where the host
//! went down too: then nobody knows what its disk had taken, and that is said.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::inspect::{Shared, taken};
use crate::batch::{BatchSeq, Epoch};
use crate::capture::KernelStats;
use crate::spool::{LastRun, RunRecord, StateFile, StateRecord};
use crate::telemetry::clock::{self, Moment};

/// Packets that may come before anybody looks: the open batch.
pub const UNSEEN: u64 = 1024;
/// Runs before the last whose losses are handed on.
const RUNS: usize = 3;
/// A record is written this often.
const EVERY: Duration = Duration::from_secs(1);
/// Figures are looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// How old a record of a hunter at work is at least, what the kernel holds included, and at most: it was due, and the machine may have been busy.
const AGE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What a start found of the run before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Packets of which nothing is known, at most: of the last run.
    pub last_run: u64,
    /// The same of the runs before it, back to the last that stopped by itself.
    pub earlier: u64,
    /// There is a record, and it cannot be read.
    pub unreadable: bool,
    /// The host went down with the last run: its disk may have lost more.
    pub host_down: bool,
}

impl Before {
    /// Judges what the last run left; `found` counts packets on disk behind a batch, `booted_ns` is when the host started.
    pub fn of(last: &LastRun, found: impl Fn(Epoch, BatchSeq) -> u64, now_ns: i64, booted_ns: Option<i64>) -> Self {
        let records = match last {
            LastRun::Unknown | LastRun::Stopped => return Self::default(),
            LastRun::Unreadable => return Self { unreadable: true, ..Self::default() },
            LastRun::Crashed(records) => records,
        };
        let mut before = Self::default();
        let (mut at_risk, mut rate, mut written_ns, mut on_disk) = (0_u64, 0_u64, i64::MIN, 0_u64);
        for record in records {
            let Some(epoch) = record.batcher() else {
                before.earlier = before.earlier.saturating_add(record.at_risk);
                continue;
            };
            at_risk = at_risk.saturating_add(record.at_risk);
            rate = rate.saturating_add(record.rate);
            written_ns = written_ns.max(record.written_ns);
            on_disk = on_disk.saturating_add(found(epoch, record.seq));
        }
        before.host_down = booted_ns.is_some_and(|booted| written_ns < booted);
        let may_be = at_risk.saturating_add(since(rate, now_ns.saturating_sub(written_ns))).saturating_add(UNSEEN);
        before.last_run = may_be.saturating_sub(on_disk).max(UNSEEN);
        before
    }

    /// All of it.
    pub const fn at_most(&self) -> u64 {
        self.last_run.saturating_add(self.earlier)
    }

    /// Says it, if there is something to say.
    fn tell(&self) {
        if self.unreadable {
            tracing::warn!("what the last run wrote of itself cannot be read; how many packets were lost with it is not known");
        }
        if self.last_run > 0 {
            let (last_run, at_most, host_down) = (self.last_run, self.at_most(), self.host_down);
            tracing::warn!(
                last_run,
                at_most,
                host_down,
                "the last run did not stop by itself: nothing is known of so many of its packets, at most; at_most counts from the last stop on"
            );
        }
    }
}

/// When the host started, ns since 1970; `None` where that is not told (a service with `ProcSubset=pid` has no `/proc/uptime`).
pub fn booted_ns(now_ns: i64) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: i64 = text.split('.').next()?.parse().ok()?;
    now_ns.checked_sub(seconds.checked_add(1)?.checked_mul(1_000_000_000)?)
}

/// How many came since a record was written, at most.
pub(super) fn since(rate: u64, age_ns: i64) -> u64 {
    // a clock that was put back says nothing of the age
    let age = u64::try_from(age_ns).map_or(AGE.1, Duration::from_nanos).clamp(AGE.0, AGE.1);
    scaled(rate, age)
}

fn scaled(rate: u64, time: Duration) -> u64 {
    let packets = u128::from(rate).saturating_mul(time.as_nanos()).div_ceil(1_000_000_000);
    u64::try_from(packets).unwrap_or(u64::MAX)
}

/// The record of this run, and what was found of the last.
#[derive(Debug)]
pub struct Account {
    /// Where it is written.
    pub file: StateFile,
    /// What was found there.
    pub before: Before,
    /// What the kernels of earlier runs lost, the last run among them: no processor may have heard all of it.
    pub earlier: Vec<RunRecord>,
}

impl Account {
    /// What was found, as far as it is handed on.
    pub fn new(file: StateFile, before: Before, mut runs: Vec<RunRecord>) -> Self {
        let last = runs.pop();
        runs.retain(|r| r.kernel_dropped > 0 || r.interface_dropped > 0);
        let from = runs.len().saturating_sub(RUNS);
        let earlier = runs.into_iter().skip(from).chain(last).collect();
        Self { file, before, earlier }
    }
}

/// Writes the record.
pub(super) struct Recorder {
    file: StateFile,
    carried: u64,
    epochs: Vec<Epoch>,
    shared: Arc<Shared>,
    rate: Rate,
    written: Vec<StateRecord>,
    /// Those before this one, and this one.
    runs: Vec<RunRecord>,
    failing: bool,
}

impl Recorder {
    /// Says what was found, and writes the first record: from here on this run is accounted for.
    pub(super) fn new(account: Account, epochs: Vec<Epoch>, instance: u64, shared: Arc<Shared>) -> Self {
        let Account { file, before, earlier: mut runs } = account;
        runs.push(RunRecord { instance, began_ns: clock::wall().as_nanos(), ..RunRecord::default() });
        before.tell();
        *shared.before.lock() = before;
        shared.state_errors.fetch_add(u64::from(before.unreadable), Ordering::Relaxed);
        let (carried, rate) = (before.at_most(), Rate::new());
        let mut this = Self { file, carried, epochs, shared, rate, written: Vec::new(), runs, failing: false };
        this.write(false);
        this
    }

    /// Works until it is told whether the hunter has stopped by itself; who tells nothing has not.
    pub(super) fn run(mut self, end: &Receiver<bool>) {
        let stopped = loop {
            match end.try_recv() {
                Ok(stopped) => break stopped,
                Err(TryRecvError::Disconnected) => break false,
                Err(TryRecvError::Empty) => {}
            }
            if self.shared.promise.wait_asked(LOOK) || self.rate.is_due(self.shared.taken()) {
                self.write(false);
            }
        };
        if stopped {
            self.write(true);
        }
    }

    fn write(&mut self, stopped: bool) {
        let (mut records, taken, kernel) = self.shared.records(&self.epochs);
        let rate = self.rate.note(taken);
        let written_ns = clock::wall().as_nanos();
        records.first_mut().into_iter().for_each(|first| first.rate = rate);
        records.push(StateRecord { at_risk: self.carried, ..StateRecord::default() });
        let lost = self.runs.last_mut().is_some_and(|run| {
            let now = (kernel.kernel_dropped, kernel.interface_dropped);
            let before = (run.kernel_dropped, run.interface_dropped);
            (run.kernel_dropped, run.interface_dropped) = now;
            now != before
        });
        if records == self.written && !lost && !stopped {
            // nothing comes, nothing goes: what stands there is still so, whatever its age
            self.shared.promise.keep(taken, rate);
            return;
        }
        self.written.clone_from(&records);
        for record in &mut records {
            record.written_ns = written_ns;
        }
        self.runs.last_mut().into_iter().for_each(|run| run.written_ns = written_ns);
        let done = self.file.write(&records, &self.runs, stopped);
        if done.is_ok() {
            self.shared.promise.keep(taken, rate);
        }
        if let Err(e) = &done {
            self.shared.promise.give_up();
            self.shared.state_errors.fetch_add(1, Ordering::Relaxed);
            self.written.clear();
            if !self.failing {
                tracing::warn!(error = %e, "what this hunter knows of its packets cannot be written: should it be killed, what it loses is not known");
            }
        }
        self.failing = done.is_err();
    }
}

/// How many packets come.
struct Rate {
    at: Moment,
    taken: u64,
    /// A second; the most of late.
    peak: u64,
}

impl Rate {
    fn new() -> Self {
        Self { at: Moment::now(), taken: 0, peak: 0 }
    }

    /// Whether a record is due: by its age, or since half of what it allows for has come.
    fn is_due(&self, taken: u64) -> bool {
        let age = self.at.elapsed();
        let allowed = scaled(self.peak, age).saturating_add(UNSEEN / 2);
        age >= EVERY || taken.saturating_sub(self.taken) > allowed
    }

    /// A record is written now; the rate that stands in it.
    fn note(&mut self, taken: u64) -> u64 {
        let grown = u128::from(taken.saturating_sub(self.taken)).saturating_mul(1_000_000_000);
        let lately = u64::try_from(grown / self.at.elapsed().max(LOOK).as_nanos().max(1)).unwrap_or(u64::MAX);
        // a peak is remembered for some seconds
        self.peak = lately.max(self.peak.saturating_sub(self.peak.div_ceil(8)));
        (self.at, self.taken) = (Moment::now(), taken);
        self.peak
    }
}

impl Shared {
    /// Packets that were chosen or wait for a verdict.
    fn taken(&self) -> u64 {
        let of = |slot: &parking_lot::Mutex<super::inspect::Progressed>| taken(&slot.lock().engine);
        self.progress.iter().map(of).fold(0, u64::saturating_add)
    }

    /// A record of each capture thread, all of one instant, without rate and time; and what [`Self::taken`] and the kernel say then.
    fn records(&self, epochs: &[Epoch]) -> (Vec<StateRecord>, u64, KernelStats) {
        // no thread hands anything over while all of this is read
        let slots: Vec<_> = self.progress.iter().map(parking_lot::Mutex::lock).collect();
        let exposed = self.backlog.exposed();
        let (mut at_risk, mut taken) = (exposed.packets, 0_u64);
        let mut kernel = KernelStats::default();
        let mut records = Vec::with_capacity(slots.len().saturating_add(1));
        for (slot, epoch) in slots.iter().zip(epochs) {
            let e = &slot.engine;
            kernel = kernel.plus(slot.kernel);
            taken = taken.saturating_add(e.forwarded).saturating_add(e.held);
            at_risk = at_risk.saturating_add(slot.open).saturating_add(e.held).saturating_add(slot.kernel.in_ring);
            let seq = exposed.logged.get(epoch).copied().unwrap_or_default();
            let (captured, matched) = (e.captured, e.forwarded);
            records.push(StateRecord { epoch: epoch.0, captured, matched, seq, ..StateRecord::default() });
        }
        drop(slots);
        if let Some(first) = records.first_mut() {
            // the next start adds one thread's open batch
            let unseen = self.promise.unseen().saturating_sub(UNSEEN);
            (first.acked, first.at_risk) = (exposed.acked_packets, at_risk.saturating_add(unseen));
        }
        (records, taken, kernel)
    }
}

#[cfg(test)]
#[path = "unaccounted_tests.rs"]
mod tests;
