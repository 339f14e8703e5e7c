//! How well one stream arrived: one SSRC in one direction.
//!
//! Rules, so that the numbers can be compared:
//!
//! - **Loss** (RFC 3550 A.3): expected − received, where a packet that comes late, but within 100 numbers, was received. A
//!   duplicate is neither. Silence suppression and the marker change nothing: only sequence numbers count.
//! - **Restart** (A.1): a jump of the sequence number is believed when the next number follows it; what was expected before
//!   stays in the sum. Unlike A.1 the packets that establish a sequence are counted too, so that the sum is what the
//!   capture holds; only a lone packet before a jump is left out, as `discarded`.
//! - **Jitter** (A.8): in order of arrival, every packet except duplicates and telephone events, whose timestamp stands
//!   still while they last (RFC 4733 §2.2). tshark leaves reordered packets out, so its figure differs where there are any.
//! - A step of the timestamp against arrival of more than 3 s, or 200 ms together with the marker, is a new time base of the
//!   sender, not jitter; it is counted.
//!
//! Promises: about 200 bytes per stream, no allocation, constant work per packet.

use std::time::Duration;

use super::header::Header;
use crate::packet::Timestamp;

/// RFC 3550 A.1: numbers a stream may skip before it counts as a jump.
const MAX_DROPOUT: u16 = 3000;
/// RFC 3550 A.1: numbers a packet may be late before it counts as a jump.
const MAX_MISORDER: u16 = 100;
/// Numbers remembered one by one; more than [`MAX_MISORDER`].
const WINDOW: u64 = 128;
/// A step of the time base, in seconds; nothing plays out that late.
const STEP_SECS: f64 = 3.0;
/// The same at the beginning of a talk spurt, where some senders start a new one.
const STEP_AT_MARKER_SECS: f64 = 0.2;

/// What a packet was to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Update {
    /// The next one, perhaps after others that are missing so far.
    New,
    /// One that was missing.
    Late,
    /// Seen before.
    Duplicate,
    /// Too far from the others; counted once the next one confirms it.
    Suspect,
    /// Confirms a jump: the sequence goes on from here.
    Restarted,
    /// Not of this stream; nothing was counted.
    OtherSsrc,
}

/// The state of one stream; see the module.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    clock_hz: u32,
    ssrc: u32,
    started: bool,
    /// Two consecutive numbers were seen (RFC 3550 A.1, probation).
    validated: bool,
    /// A time reference for jitter is set.
    timed: bool,
    /// The number that would confirm a jump.
    suspect: Option<u16>,
    /// Extended sequence numbers, from 2¹⁶ up.
    base: u64,
    highest: u64,
    /// Bit n: number `highest − n` was received.
    window: u128,
    received: u64,
    /// Expected in the sequences before a restart.
    expected_before: u64,
    octets: u64,
    /// Losses that have left the window.
    lost: u64,
    loss_runs: u32,
    loss_run: u32,
    longest_loss_run: u32,
    duplicates: u32,
    late: u32,
    restarts: u32,
    discarded: u32,
    time_steps: u32,
    events: u32,
    last_timestamp: u32,
    last_arrival: Timestamp,
    first: Timestamp,
    last: Timestamp,
    longest_pause_nanos: u64,
    /// RFC 3550 §6.4.1, in clock units.
    jitter: f64,
    jitter_max: f64,
    jitter_sum: f64,
    jitter_count: u64,
}

/// What a stream came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Whose.
    pub ssrc: u32,
    /// The clock it was measured with; 0 when unknown.
    pub clock_hz: u32,
    /// Two consecutive numbers were seen: it is RTP.
    pub validated: bool,
    /// Packets received, duplicates left out.
    pub received: u64,
    /// Packets the sequence numbers call for.
    pub expected: u64,
    /// Packets that never came.
    pub lost: u64,
    /// 0–100.
    pub lost_percent: f64,
    /// Runs of consecutive losses.
    pub loss_runs: u32,
    /// The longest, in packets.
    pub longest_loss_run: u32,
    /// `BurstR` of G.107: mean length of the runs over what random loss would give; 1 when nothing or everything was lost.
    pub burst_ratio: f64,
    /// Packets seen before.
    pub duplicates: u32,
    /// Packets that came after one with a higher number.
    pub late: u32,
    /// Jumps of the sequence number that were confirmed.
    pub restarts: u32,
    /// Packets of no sequence.
    pub discarded: u32,
    /// New time bases of the sender.
    pub time_steps: u32,
    /// Telephone-event packets.
    pub events: u32,
    /// Payload octets.
    pub octets: u64,
    /// Interarrival jitter at the end, in clock units (what an RTCP report would carry).
    pub jitter_units: f64,
    /// The same in milliseconds; `None` when the clock is unknown or fewer than two packets could be compared.
    pub jitter_last_ms: Option<f64>,
    /// Its mean over all packets.
    pub jitter_mean_ms: Option<f64>,
    /// Its maximum.
    pub jitter_max_ms: Option<f64>,
    /// Arrival of the first packet.
    pub first: Timestamp,
    /// Arrival of the last.
    pub last: Timestamp,
    /// Longest time between two arrivals.
    pub longest_pause: Duration,
}

impl Stream {
    /// A stream measured with this clock; 0 when it is unknown, then jitter is not measured.
    pub const fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz,
            ssrc: 0,
            started: false,
            validated: false,
            timed: false,
            suspect: None,
            base: 0,
            highest: 0,
            window: 0,
            received: 0,
            expected_before: 0,
            octets: 0,
            lost: 0,
            loss_runs: 0,
            loss_run: 0,
            longest_loss_run: 0,
            duplicates: 0,
            late: 0,
            restarts: 0,
            discarded: 0,
            time_steps: 0,
            events: 0,
            last_timestamp: 0,
            last_arrival: Timestamp::MIN,
            first: Timestamp::MIN,
            last: Timestamp::MIN,
            longest_pause_nanos: 0,
            jitter: 0.0,
            jitter_max: 0.0,
            jitter_sum: 0.0,
            jitter_count: 0,
        }
    }

    /// The codec has changed its clock in mid-stream: what was measured keeps its length in time.
    pub fn set_clock(&mut self, clock_hz: u32) {
        if clock_hz != self.clock_hz {
            let scale = if self.clock_hz == 0 { 0.0 } else { f64::from(clock_hz) / f64::from(self.clock_hz) };
            self.jitter *= scale;
            self.jitter_max *= scale;
            self.jitter_sum *= scale;
            self.clock_hz = clock_hz;
            self.timed = false;
        }
    }

    /// Takes one packet. `telephone_event`: its payload type is that of RFC 4733 events in this session.
    pub fn update(&mut self, header: &Header, arrival: Timestamp, telephone_event: bool) -> Update {
        let update = self.sequence(header, arrival);
        match update {
            Update::Duplicate | Update::Suspect | Update::OtherSsrc => return update,
            Update::Restarted => self.timed = false,
            Update::New | Update::Late => {}
        }
        self.octets = self.octets.saturating_add(u64::try_from(header.payload.len()).unwrap_or(0));
        let pause = u64::try_from(arrival.since(self.last).as_nanos()).unwrap_or(u64::MAX);
        if self.last != Timestamp::MIN {
            self.longest_pause_nanos = self.longest_pause_nanos.max(pause);
        }
        self.last = self.last.max(arrival);
        if telephone_event {
            self.events = self.events.saturating_add(1);
        } else {
            self.time(header, arrival);
        }
        update
    }

    /// RFC 3550 A.1.
    fn sequence(&mut self, header: &Header, arrival: Timestamp) -> Update {
        let sequence = header.sequence;
        if !self.started {
            self.ssrc = header.ssrc;
            self.begin(sequence, arrival);
            return Update::New;
        }
        if header.ssrc != self.ssrc {
            return Update::OtherSsrc;
        }
        let ahead = sequence.wrapping_sub(low(self.highest));
        let behind = low(self.highest).wrapping_sub(sequence);
        if ahead == 0 {
            self.duplicates = self.duplicates.saturating_add(1);
            Update::Duplicate
        } else if ahead < MAX_DROPOUT {
            self.validated |= ahead == 1;
            self.suspect = None;
            self.advance(u64::from(ahead));
            self.received = self.received.saturating_add(1);
            Update::New
        } else if behind <= MAX_MISORDER {
            self.fill_in(u32::from(behind))
        } else if self.suspect == Some(sequence) {
            self.restart(sequence.wrapping_sub(1));
            self.advance(1);
            self.validated = true;
            self.received = self.received.saturating_add(2);
            self.restarts = self.restarts.saturating_add(1);
            Update::Restarted
        } else if self.validated {
            self.suspect = Some(sequence.wrapping_add(1));
            self.discarded = self.discarded.saturating_add(1);
            Update::Suspect
        } else {
            // Nothing before made a sequence.
            self.discarded = self.discarded.saturating_add(u32::try_from(self.received).unwrap_or(u32::MAX));
            (self.received, self.lost, self.loss_runs, self.loss_run, self.longest_loss_run) = (0, 0, 0, 0, 0);
            (self.octets, self.late, self.events, self.timed) = (0, 0, 0, false);
            self.begin(sequence, arrival);
            Update::New
        }
    }

    fn begin(&mut self, sequence: u16, arrival: Timestamp) {
        self.started = true;
        self.first = arrival;
        self.last = Timestamp::MIN;
        self.longest_pause_nanos = 0;
        self.received = 1;
        self.anchor(sequence);
    }

    /// A sequence of one number, far enough up for late packets to lie before it.
    fn anchor(&mut self, sequence: u16) {
        self.highest = 0x1_0000 | u64::from(sequence);
        self.base = self.highest;
        self.window = 1;
    }

    /// Closes the sequence so far and begins another with `sequence`, which was the suspect.
    fn restart(&mut self, sequence: u16) {
        self.expected_before = self.expected();
        self.settle_window();
        self.anchor(sequence);
        self.suspect = None;
        self.discarded = self.discarded.saturating_sub(1);
    }

    fn expected(&self) -> u64 {
        let run = if self.started { self.highest.saturating_sub(self.base).saturating_add(1) } else { 0 };
        self.expected_before.saturating_add(run)
    }

    /// A number below the highest.
    fn fill_in(&mut self, behind: u32) -> Update {
        let bit = 1u128.checked_shl(behind).unwrap_or(0);
        if self.window & bit != 0 {
            self.duplicates = self.duplicates.saturating_add(1);
            return Update::Duplicate;
        }
        self.window |= bit;
        self.base = self.base.min(self.highest.saturating_sub(u64::from(behind)));
        self.received = self.received.saturating_add(1);
        self.late = self.late.saturating_add(1);
        Update::Late
    }

    /// Moves the window on by `by` numbers; what leaves it unreceived is lost.
    fn advance(&mut self, by: u64) {
        for step in 0..by.min(WINDOW) {
            let shift = u32::try_from(WINDOW.saturating_sub(1).saturating_sub(step)).unwrap_or(0);
            let there = self.window.checked_shr(shift).unwrap_or(0) & 1 == 1;
            self.leave(self.highest.saturating_sub(u64::from(shift)), there);
        }
        let beyond = u32::try_from(by.saturating_sub(WINDOW)).unwrap_or(u32::MAX);
        self.lost = self.lost.saturating_add(u64::from(beyond));
        self.loss_run = self.loss_run.saturating_add(beyond);
        self.window = self.window.checked_shl(u32::try_from(by).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
        self.highest = self.highest.saturating_add(by);
    }

    /// A number will not come any more.
    fn leave(&mut self, number: u64, received: bool) {
        if !self.started || number < self.base {
            return;
        }
        if !received {
            self.lost = self.lost.saturating_add(1);
            self.loss_run = self.loss_run.saturating_add(1);
        } else if self.loss_run > 0 {
            self.loss_runs = self.loss_runs.saturating_add(1);
            self.longest_loss_run = self.longest_loss_run.max(self.loss_run);
            self.loss_run = 0;
        }
    }

    fn settle_window(&mut self) {
        for behind in (0..u32::try_from(WINDOW).unwrap_or(0)).rev() {
            let there = self.window.checked_shr(behind).unwrap_or(0) & 1 == 1;
            self.leave(self.highest.saturating_sub(u64::from(behind)), there);
        }
    }

    /// RFC 3550 A.8, with real numbers: J += (|D| − J) / 16.
    fn time(&mut self, header: &Header, arrival: Timestamp) {
        if self.timed && self.clock_hz > 0 {
            let clock = f64::from(self.clock_hz);
            let elapsed = arrival.as_nanos().saturating_sub(self.last_arrival.as_nanos());
            let played = header.timestamp.wrapping_sub(self.last_timestamp).cast_signed();
            let transit = (real(elapsed) * clock / 1e9 - f64::from(played)).abs();
            let step = if header.marker { STEP_AT_MARKER_SECS } else { STEP_SECS };
            if transit > step * clock {
                self.time_steps = self.time_steps.saturating_add(1);
            } else {
                self.jitter += (transit - self.jitter) / 16.0;
                self.jitter_max = self.jitter_max.max(self.jitter);
                self.jitter_sum += self.jitter;
                self.jitter_count = self.jitter_count.saturating_add(1);
            }
        }
        self.timed = true;
        self.last_timestamp = header.timestamp;
        self.last_arrival = arrival;
    }

    /// What it came to so far; what has not come counts as lost.
    pub fn summary(&self) -> Summary {
        let mut end = *self;
        end.settle_window();
        let expected = end.expected();
        let lost = expected.saturating_sub(end.received);
        let share = if expected == 0 { 0.0 } else { ratio(lost, expected) };
        let burst_ratio = if lost == 0 || lost >= expected || end.loss_runs == 0 {
            1.0
        } else {
            (ratio(lost, u64::from(end.loss_runs)) * (1.0 - share)).max(1.0)
        };
        let measured = end.clock_hz > 0 && end.jitter_count > 0;
        let millis = |units: f64| measured.then(|| units * 1000.0 / f64::from(end.clock_hz));
        Summary {
            ssrc: end.ssrc,
            clock_hz: end.clock_hz,
            validated: end.validated,
            received: end.received,
            expected,
            lost,
            lost_percent: share * 100.0,
            loss_runs: end.loss_runs,
            longest_loss_run: end.longest_loss_run,
            burst_ratio,
            duplicates: end.duplicates,
            late: end.late,
            restarts: end.restarts,
            discarded: end.discarded,
            time_steps: end.time_steps,
            events: end.events,
            octets: end.octets,
            jitter_units: end.jitter,
            jitter_last_ms: millis(end.jitter),
            jitter_mean_ms: millis(if end.jitter_count == 0 { 0.0 } else { end.jitter_sum / count(end.jitter_count) }),
            jitter_max_ms: millis(end.jitter_max),
            first: end.first,
            last: end.last,
            longest_pause: Duration::from_nanos(end.longest_pause_nanos),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the wire carries the low 16 bits only")]
const fn low(extended: u64) -> u16 {
    extended as u16
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53: 104 days in nanoseconds")]
const fn real(nanos: i64) -> f64 {
    nanos as f64
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 packets")]
const fn count(n: u64) -> f64 {
    n as f64
}

fn ratio(a: u64, b: u64) -> f64 {
    count(a) / count(b)
}

#[cfg(test)]
mod tests;
