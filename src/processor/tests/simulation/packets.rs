//! Numbered packets, and where they are found again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Context as CallContext, ContextKey, Encoder, Pushed};
use crate::capture::{FileSource, Progress as Read, Source};
use crate::packet::{Frame, InterfaceId, LinkType, Timestamp};

/// Packets of one hunter are numbered from its own multiple of this.
pub(super) const PER_HUNTER: u32 = 1_000_000;

/// The call a packet belongs to, and whether it is signalling.
pub(super) fn owner(number: u32) -> Option<(&'static str, bool)> {
    // calls come and go, and have packets of several hunters
    let n = number % PER_HUNTER;
    match n % 7 {
        0 | 1 => None,
        2 => Some((["a@x", "b@x", "c@x"][n as usize / 100 % 3], true)),
        3 => Some((["d/x", "e@x", "f@x", "g@x"][n as usize / 50 % 4], false)),
        _ => Some(("long@x", n.is_multiple_of(2))),
    }
}

/// Puts a packet of this number into the batch at hand.
pub(super) fn push(encoder: &mut Encoder, number: u32) {
    let mut payload = format!("number {number:08} ").into_bytes();
    payload.resize(60 + (number % 50) as usize, b'.');
    let len = u16::try_from(payload.len()).unwrap();
    let mut data = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    data.extend((28 + len).to_be_bytes());
    data.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x75, 0x30, 0x75, 0x31]);
    data.extend((8 + len).to_be_bytes());
    data.extend([0, 0]);
    data.extend(payload);
    let wire_len = u32::try_from(data.len()).unwrap();
    let ts = Timestamp::from_nanos(i64::from(number) * 1_000_000);
    let frame = Frame { ts, wire_len, link: LinkType::ETHERNET, interface: InterfaceId(0), data: &data };
    let context = owner(number).map(|(call, sip)| {
        let claim = if sip { "" } else { "sdp" };
        let c = CallContext {
            call_id: call.into(),
            claim: claim.into(),
            filter_ids: [Arc::from("f")].into(),
            ..CallContext::default()
        };
        (ContextKey(call.bytes().fold(u64::from(sip), |k, b| k * 31 + u64::from(b) * 2)), c)
    });
    assert_eq!(encoder.push(&frame, context.as_ref().map(|(k, c)| (*k, c)), &[], false), Pushed::Stored);
}

/// How often each number is in these files.
pub(super) fn numbers(paths: impl Iterator<Item = PathBuf>) -> BTreeMap<u32, usize> {
    let mut seen = BTreeMap::new();
    for path in paths {
        let mut source = FileSource::open(&[&path]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut note = |f: Frame<'_>| {
            let digits = f.data.get(42 + 7..42 + 15).and_then(|d| std::str::from_utf8(d).ok()?.parse().ok());
            *seen.entry(digits.unwrap_or(u32::MAX)).or_default() += 1;
        };
        while source.poll(&mut note).unwrap() != Read::End {}
    }
    seen
}

/// The files of a directory, by name.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(dir) else { return Vec::new() };
    let mut all: Vec<PathBuf> = list.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}
