//! Capture files of numbered packets.

use super::numbered::frame;

/// The file header of a capture of such packets: nanoseconds, Ethernet.
pub(crate) fn header() -> Vec<u8> {
    let mut out = Vec::new();
    for field in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        out.extend(field.to_le_bytes());
    }
    out
}

/// A packet of some length, ten thousand of them a second, as a record of that file.
pub(crate) fn record(number: u64) -> Vec<u8> {
    let data = sized(number);
    let micros = number * 100;
    let mut out = Vec::new();
    for field in [1_700_000_000 + micros / 1_000_000, micros % 1_000_000 * 1000, data.len() as u64, data.len() as u64] {
        out.extend(u32::try_from(field).unwrap().to_le_bytes());
    }
    out.extend(data);
    out
}

/// A packet whose length its number says.
pub(crate) fn sized(number: u64) -> Vec<u8> {
    frame(number, 200 + usize::try_from(number % 700).unwrap())
}
