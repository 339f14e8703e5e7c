//! What time it is, by the packets that come by.
//!
//! Timers run on the newest time seen. One packet with a time far ahead of all others (a damaged record, a clock that was wrong for a moment)
//! would end everything that waits: its word is taken only when the next time seen confirms it.

use std::time::Duration;

use crate::packet::Timestamp;

/// How far one packet alone may move the time.
pub const JUMP: Duration = Duration::from_mins(1);

/// The newest time that can be believed.
#[derive(Clone, Copy, Debug)]
pub struct PacketTime {
    newest: Timestamp,
    /// Ahead of it by more than [`JUMP`], and waiting for a second one.
    ahead: Option<Timestamp>,
    doubted: u64,
}

impl Default for PacketTime {
    fn default() -> Self {
        Self { newest: Timestamp::MIN, ahead: None, doubted: 0 }
    }
}

impl PacketTime {
    /// A packet of this time has come.
    pub fn note(&mut self, ts: Timestamp) {
        if self.newest == Timestamp::MIN || ts.since(self.newest) <= JUMP {
            self.newest = self.newest.max(ts);
            self.ahead = None;
        } else if self.ahead.is_some_and(|ahead| ts.since(ahead) <= JUMP && ahead.since(ts) <= JUMP) {
            self.newest = ts;
            self.ahead = None;
        } else {
            self.ahead = Some(ts);
            self.doubted = self.doubted.saturating_add(1);
        }
    }

    /// Time goes on without packets.
    pub fn advance(&mut self, now: Timestamp) {
        self.newest = self.newest.max(now);
    }

    /// The time; [`Timestamp::MIN`] before the first packet.
    pub const fn now(&self) -> Timestamp {
        self.newest
    }

    /// Times that jumped ahead, confirmed or not.
    pub const fn doubted(&self) -> u64 {
        self.doubted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(secs: &[i64]) -> (i64, u64) {
        let mut time = PacketTime::default();
        for s in secs {
            time.note(Timestamp::from_secs_nanos(*s, 0));
        }
        (time.now().as_nanos() / 1_000_000_000, time.doubted())
    }

    #[test]
    fn one_packet_from_the_future_does_not_move_the_time_and_two_do() {
        assert_eq!(after(&[1000, 1001, 9000, 1002]), (1002, 1));
        assert_eq!(after(&[1000, 1001, 9000, 9001, 9002]), (9002, 1));
        assert_eq!(after(&[1000, 9000, 1001, 9000, 1002]), (1002, 2));
        assert_eq!(after(&[1000, 1060, 1120]), (1120, 0));
        assert_eq!(after(&[1000, 900, 1001]), (1001, 0));
    }

    #[test]
    fn silence_moves_it_as_far_as_it_lasts() {
        let mut time = PacketTime::default();
        time.note(Timestamp::from_secs_nanos(1000, 0));
        time.advance(Timestamp::from_secs_nanos(5000, 0));

        assert_eq!(time.now(), Timestamp::from_secs_nanos(5000, 0));
    }
}
