//! Sequence numbers: arithmetic modulo 2³² (RFC 9293 §3.4) and its unwrapping into 64-bit stream offsets.

/// Where a stream begins. Not 0, so that bytes found to precede the first segment seen still have an offset.
pub const FIRST_OFFSET: u64 = 1 << 32;

/// How far `to` lies after `from`; negative when before. Numbers exactly 2³¹ apart count as before.
#[inline]
pub const fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// The low 32 bits of an offset.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the wire carries the low 32 bits only")]
pub const fn low(offset: u64) -> u32 {
    offset as u32
}

/// Maps sequence numbers to stream offsets, choosing the offset nearest to a given one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// What to add to the low half of an offset to have its sequence number.
    shift: u32,
}

impl Anchor {
    /// `seq` is at `offset`.
    pub const fn new(seq: u32, offset: u64) -> Self {
        Self { shift: seq.wrapping_sub(low(offset)) }
    }

    /// The sequence number at an offset.
    pub const fn seq(self, offset: u64) -> u32 {
        low(offset).wrapping_add(self.shift)
    }

    /// The offset of `seq` that is nearest to `near`; saturates at the ends of the scale.
    #[inline]
    pub fn offset(self, seq: u32, near: u64) -> u64 {
        near.saturating_add_signed(i64::from(distance(self.seq(near), seq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compares_across_the_wrap() {
        assert_eq!(distance(0xffff_fffe, 3), 5);
        assert_eq!(distance(3, 0xffff_fffe), -5);
        assert_eq!(distance(0, 0x8000_0000), i32::MIN);
    }

    proptest! {
        #[test]
        fn unwrapping_inverts_wrapping(seq: u32, ahead in 0u64..1 << 40, step in -(1i64 << 31)..1i64 << 31) {
            let anchor = Anchor::new(seq, FIRST_OFFSET);
            prop_assert_eq!(anchor.offset(seq, FIRST_OFFSET), FIRST_OFFSET);
            let near = FIRST_OFFSET + ahead;
            let there = near.saturating_add_signed(step);
            prop_assert_eq!(anchor.offset(anchor.seq(there), near), there);
        }
    }
}
