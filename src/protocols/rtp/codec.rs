//! Payload types and clocks.

/// A codec as RTP sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Encoding name as registered (RFC 3551 §6; compared without regard to case).
    pub name: &'static str,
    /// RTP clock; for G.722 this is 8000 although it samples at 16 kHz (RFC 3551 §4.5.2).
    pub clock_hz: u32,
    /// Channels.
    pub channels: u8,
}

const fn codec(name: &'static str, clock_hz: u32, channels: u8) -> Codec {
    Codec { name, clock_hz, channels }
}

/// The codec of a static payload type (RFC 3551 §6, tables 4 and 5); `None` for dynamic, reserved and unassigned ones.
pub const fn static_payload(payload_type: u8) -> Option<Codec> {
    Some(match payload_type {
        0 => codec("PCMU", 8000, 1),
        3 => codec("GSM", 8000, 1),
        4 => codec("G723", 8000, 1),
        5 => codec("DVI4", 8000, 1),
        6 => codec("DVI4", 16_000, 1),
        7 => codec("LPC", 8000, 1),
        8 => codec("PCMA", 8000, 1),
        9 => codec("G722", 8000, 1),
        10 => codec("L16", 44_100, 2),
        11 => codec("L16", 44_100, 1),
        12 => codec("QCELP", 8000, 1),
        13 => codec("CN", 8000, 1),
        14 => codec("MPA", 90_000, 1),
        15 => codec("G728", 8000, 1),
        16 => codec("DVI4", 11_025, 1),
        17 => codec("DVI4", 22_050, 1),
        18 => codec("G729", 8000, 1),
        25 => codec("CelB", 90_000, 1),
        26 => codec("JPEG", 90_000, 1),
        28 => codec("nv", 90_000, 1),
        31 => codec("H261", 90_000, 1),
        32 => codec("MPV", 90_000, 1),
        33 => codec("MP2T", 90_000, 1),
        34 => codec("H263", 90_000, 1),
        _ => return None,
    })
}

/// The RTP clock of an encoding name, for an `a=rtpmap` that is missing or cannot be read; the rate in an `a=rtpmap` wins,
/// except where the registration fixes another. `None` when the name alone does not say.
pub fn clock_for(name: &str) -> Option<u32> {
    /// Each with the document that fixes its clock.
    const CLOCKS: [(&str, u32); 30] = [
        ("PCMU", 8000),
        ("PCMA", 8000),
        ("GSM", 8000),
        ("GSM-EFR", 8000),
        ("GSM-HR-08", 8000),
        ("G722", 8000),
        ("G723", 8000),
        ("G728", 8000),
        ("G729", 8000),
        ("G729D", 8000),
        ("G729E", 8000),
        ("G726-16", 8000),
        ("G726-24", 8000),
        ("G726-32", 8000),
        ("G726-40", 8000),
        ("CN", 8000),
        ("telephone-event", 8000), // RFC 4733 §7.1.1, when nothing else is said
        ("iLBC", 8000),            // RFC 3952 §5
        ("AMR", 8000),             // RFC 4867 §8.1
        ("AMR-WB", 16_000),        // RFC 4867 §8.2
        ("G7221", 16_000),         // RFC 5577 §3, the mandatory rate
        ("G7291", 16_000),         // RFC 4749 §4
        ("EVS", 16_000),           // 3GPP TS 26.445 annex A
        ("EVRC", 8000),            // RFC 3558 §12
        ("opus", 48_000),          // RFC 7587 §4.1: always
        ("BV16", 8000),            // RFC 4298 §3
        ("BV32", 16_000),          // RFC 4298 §4
        ("H264", 90_000),
        ("H265", 90_000),
        ("VP8", 90_000),
    ];
    CLOCKS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, clock)| clock)
}

/// The clock to measure with: what the registration fixes, else what signalling said, else the name's or the static
/// type's. `None` when nothing says; jitter then stays unknown.
pub fn measuring_clock(payload_type: u8, signalled: Option<(&str, u32)>) -> Option<u32> {
    match signalled {
        // Both are often signalled wrongly, as 16000 and as the sampling rate.
        Some((name, _)) if name.eq_ignore_ascii_case("G722") || name.eq_ignore_ascii_case("opus") => clock_for(name),
        Some((_, rate)) if rate > 0 => Some(rate),
        Some((name, _)) => clock_for(name),
        None => static_payload(payload_type).map(|c| c.clock_hz),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_types_have_the_clocks_of_the_profile() {
        assert_eq!(static_payload(0), Some(codec("PCMU", 8000, 1)));
        assert_eq!(static_payload(9).map(|c| c.clock_hz), Some(8000), "not its sampling rate");
        assert_eq!(static_payload(10).map(|c| (c.clock_hz, c.channels)), Some((44_100, 2)));
        assert!([1, 2, 19, 20, 24, 27, 30, 35, 72, 96, 127, 255].iter().all(|&pt| static_payload(pt).is_none()));
    }

    #[test]
    fn the_clock_is_what_the_registration_fixes_then_what_was_signalled() {
        assert_eq!(measuring_clock(111, Some(("OPUS", 16_000))), Some(48_000));
        assert_eq!(measuring_clock(9, Some(("G722", 16_000))), Some(8000));
        assert_eq!(measuring_clock(97, Some(("speex", 16_000))), Some(16_000));
        assert_eq!(measuring_clock(97, Some(("AMR-WB", 0))), Some(16_000));
        assert_eq!(measuring_clock(8, None), Some(8000));
        assert_eq!(measuring_clock(97, None), None);
    }
}
