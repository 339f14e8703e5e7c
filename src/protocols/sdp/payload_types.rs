//! The static payload types (RFC 3551 §6, tables 4 and 5): what a number means without `a=rtpmap`.

use super::media::Format;
use crate::protocols::text::Short;

/// Payload type, encoding name, clock rate, channels. G.722 has a clock of 8000 though it samples at 16 000 (RFC 3551 §4.5.2).
const STATIC: &[(u8, &str, u32, u8)] = &[
    (0, "PCMU", 8000, 1),
    (3, "GSM", 8000, 1),
    (4, "G723", 8000, 1),
    (5, "DVI4", 8000, 1),
    (6, "DVI4", 16000, 1),
    (7, "LPC", 8000, 1),
    (8, "PCMA", 8000, 1),
    (9, "G722", 8000, 1),
    (10, "L16", 44100, 2),
    (11, "L16", 44100, 1),
    (12, "QCELP", 8000, 1),
    (13, "CN", 8000, 1),
    (14, "MPA", 90000, 1),
    (15, "G728", 8000, 1),
    (16, "DVI4", 11025, 1),
    (17, "DVI4", 22050, 1),
    (18, "G729", 8000, 1),
    (25, "CelB", 90000, 1),
    (26, "JPEG", 90000, 1),
    (28, "nv", 90000, 1),
    (31, "H261", 90000, 1),
    (32, "MPV", 90000, 1),
    (33, "MP2T", 90000, 1),
    (34, "H263", 90000, 1),
];

/// The format of a payload type nobody has described yet.
pub(super) fn assumed(payload_type: u8) -> Format {
    match STATIC.iter().find(|(number, ..)| *number == payload_type) {
        Some((_, codec, clock_hz, channels)) => {
            Format { payload_type, codec: Short::cut(codec.as_bytes()), clock_hz: *clock_hz, channels: *channels }
        }
        None => Format { payload_type, codec: Short::EMPTY, clock_hz: 0, channels: 1 },
    }
}
