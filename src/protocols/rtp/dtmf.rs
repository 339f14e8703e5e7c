//! Digits sent as telephone events (RFC 4733): each counted once, however often its packets come.

use std::time::Duration;

use super::header::Header;
use super::u16_at;
use crate::packet::Timestamp;

/// One key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit {
    /// `0`–`9`, `*`, `#`, `A`–`D`, or `!` for flash (RFC 4733 §3.2).
    pub symbol: char,
    /// When its first packet came.
    pub at: Timestamp,
    /// How long the key was down, by its last packet.
    pub duration: Duration,
    /// Whether its end was seen.
    pub ended: bool,
}

/// Reads the events of one SSRC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    current: Option<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    code: u8,
    /// RTP timestamp of the event's (last) segment.
    timestamp: u32,
    /// Duration of the segments before that one, in clock units.
    before: u64,
    duration: u16,
    at: Timestamp,
    /// Handed out; what still comes are repetitions.
    done: bool,
}

impl Events {
    /// Takes one telephone-event packet; hands out digits that are complete.
    ///
    /// A digit is complete with its first end packet, or when another event begins without it.
    pub fn update(&mut self, header: &Header, payload: &[u8], clock_hz: u32, arrival: Timestamp, mut digit: impl FnMut(Digit)) {
        // RFC 4733 §2.3: event, E·R·volume, duration.
        let (Some(&[code, flags]), Some(duration)) = (payload.first_chunk(), u16_at(payload, 2)) else { return };
        let end = flags & 0x80 != 0;
        let timestamp = header.timestamp;
        match &mut self.current {
            Some(event) if event.timestamp == timestamp && event.code == code => {
                event.duration = event.duration.max(duration);
            }
            Some(event) if event.timestamp.wrapping_sub(timestamp) < 1 << 31 => return, // late packet of an earlier event
            // §2.5.1.3: an event longer than 0xffff units goes on in a new segment that starts where the last one ended.
            Some(event) if !event.done && event.code == code && follows(event, timestamp, header.marker) => {
                event.before = event.before.saturating_add(u64::from(timestamp.wrapping_sub(event.timestamp)));
                (event.timestamp, event.duration) = (timestamp, duration);
            }
            _ => {
                self.finish(clock_hz, &mut digit);
                self.current = Some(Event { code, timestamp, before: 0, duration, at: arrival, done: false });
            }
        }
        if let Some(event) = self.current.as_mut().filter(|e| end && !e.done) {
            event.done = true;
            hand_out(event, clock_hz, true, &mut digit);
        }
    }

    /// At the end of the stream: a digit whose end was never seen.
    pub fn finish(&mut self, clock_hz: u32, mut digit: impl FnMut(Digit)) {
        if let Some(event) = self.current.take().filter(|e| !e.done) {
            hand_out(&event, clock_hz, false, &mut digit);
        }
    }
}

fn follows(event: &Event, timestamp: u32, marker: bool) -> bool {
    !marker && timestamp.wrapping_sub(event.timestamp) == 0xffff
}

fn hand_out(event: &Event, clock_hz: u32, ended: bool, digit: &mut impl FnMut(Digit)) {
    let symbol = match event.code {
        0..=9 => char::from(b'0'.saturating_add(event.code)),
        10 => '*',
        11 => '#',
        12..=15 => char::from(b'A'.saturating_add(event.code.saturating_sub(12))),
        16 => '!',
        _ => return, // tones of lines, trunks and modems (RFC 4733 §3.2, RFC 4734): no digits
    };
    let units = event.before.saturating_add(u64::from(event.duration));
    let nanos = units.saturating_mul(1_000_000_000).checked_div(u64::from(clock_hz)).unwrap_or(0);
    digit(Digit { symbol, at: event.at, duration: Duration::from_nanos(nanos), ended });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: i64 = 20_000_000;

    /// Feeds (marker, timestamp, event, end, duration), one packet every 20 ms; the digits.
    fn digits(packets: &[(bool, u32, u8, bool, u16)]) -> Vec<(char, i64, u128, bool)> {
        let mut events = Events::default();
        let mut out = Vec::new();
        let mut keep = |d: Digit| out.push((d.symbol, d.at.as_nanos() / TICK, d.duration.as_millis(), d.ended));
        for (i, &(marker, timestamp, code, end, duration)) in packets.iter().enumerate() {
            let header = Header {
                marker,
                payload_type: 101,
                sequence: 0,
                timestamp,
                ssrc: 1,
                csrc_count: 0,
                extension: None,
                padding: 0,
                payload: 12..16,
            };
            let [high, low] = duration.to_be_bytes();
            let payload = [code, u8::from(end) << 7 | 0x0a, high, low];
            let at = Timestamp::from_nanos(i64::try_from(i).unwrap() * TICK);
            events.update(&header, &payload, 8000, at, &mut keep);
        }
        events.finish(8000, &mut keep);
        out
    }

    #[test]
    fn a_digit_whose_end_comes_three_times_counts_once() {
        let got = digits(&[
            (true, 1000, 5, false, 160),
            (false, 1000, 5, false, 320),
            (false, 1000, 5, true, 480),
            (false, 1000, 5, true, 480),
            (false, 1000, 5, true, 480),
            (true, 3000, 11, true, 800),
        ]);
        assert_eq!(got, [('5', 0, 60, true), ('#', 5, 100, true)]);
    }

    #[test]
    fn a_lost_end_and_a_repeated_digit_are_two_digits() {
        let got = digits(&[(true, 1000, 1, false, 160), (true, 5000, 1, false, 160), (false, 1000, 1, true, 480)]);
        assert_eq!(got, [('1', 0, 20, false), ('1', 1, 20, false)]);
    }

    #[test]
    fn a_key_held_for_long_is_one_digit() {
        let got = digits(&[(true, 0, 13, false, 0xffff), (false, 0xffff, 13, false, 160), (false, 0xffff, 13, true, 8000)]);
        assert_eq!(got, [('B', 0, 9191, true)]);
    }

    #[test]
    fn tones_and_short_payloads_are_no_digits() {
        assert!(digits(&[(true, 0, 66, true, 100)]).is_empty());
        let header = Header::parse(&[0x80, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).unwrap();
        Events::default().update(&header, &[1, 0x80, 0], 8000, Timestamp::MIN, |_| panic!("three octets"));
    }
}
