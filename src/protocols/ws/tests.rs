//! What the decoder promises, on frames of our own making.

use proptest::prelude::*;

use super::{Counts, MAX_MESSAGE, Next, Ws};

const SIP: &[u8] = b"OPTIONS sip:b SIP/2.0\r\nCall-ID: 1\r\n\r\n";
const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n";

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        n @ 0..126 => out.push(bit | u8::try_from(n).unwrap()),
        n @ 126..0x1_0000 => {
            out.push(bit | 0x7e);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            out.push(bit | 0x7f);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask.iter().flatten());
    let key = mask.unwrap_or_default();
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    out
}

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 255]);

fn decode(ws: &mut Ws, stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for bytes in stream.chunks(piece) {
        buffer.extend_from_slice(bytes);
        loop {
            let consumed = match ws.next(&buffer) {
                Next::NeedMore => break,
                Next::Skip(n) => n,
                Next::Message { consumed, payload } => {
                    found.push(payload.to_vec());
                    consumed
                }
            };
            assert!(consumed > 0, "no progress");
            buffer.drain(..consumed);
        }
        assert!(buffer.len() <= MAX_MESSAGE + 14);
    }
    found
}

#[test]
fn messages_are_unmasked_and_put_together_around_control_frames() {
    let long = [SIP, &vec![b'x'; 300][..]].concat();
    let huge = [SIP, &vec![b'x'; 70_000][..]].concat();
    let stream = [
        HEAD.to_vec(),
        frame(0x81, MASK, SIP),
        frame(0x82, None, &long),
        frame(0x01, MASK, &SIP[..10]),
        frame(0x89, MASK, b"ping"),
        frame(0x00, None, &SIP[10..20]),
        frame(0x80, MASK, &SIP[20..]),
        frame(0x81, MASK, &huge),
        frame(0x88, MASK, b""),
    ]
    .concat();

    for piece in [1, 7, 1460, stream.len()] {
        let mut ws = Ws::new();
        let expected = [SIP.to_vec(), long.clone(), SIP.to_vec(), huge.clone()];
        assert_eq!(decode(&mut ws, &stream, piece), expected, "{piece}");
        assert_eq!(ws.counts(), Counts::default());
    }
}

#[test]
fn compressed_messages_are_counted_and_not_guessed() {
    let stream =
        [HEAD, &frame(0xc1, MASK, b"\x00\x01"), &frame(0x41, MASK, b"zz"), &frame(0x80, MASK, b"zz"), &frame(0x81, MASK, SIP)]
            .concat();
    let mut ws = Ws::new();

    assert_eq!(decode(&mut ws, &stream, 5), [SIP]);
    assert_eq!(ws.counts().compressed, 2);
}

#[test]
fn a_message_too_long_is_skipped_and_the_next_one_found() {
    let piece = vec![b'x'; 200_000];
    let stream = [
        HEAD,
        &frame(0x81, MASK, &vec![b'x'; MAX_MESSAGE + 1]),
        &frame(0x01, None, &piece),
        &frame(0x00, None, &piece),
        &frame(0x80, None, &piece),
        &frame(0x81, MASK, SIP),
    ]
    .concat();
    let mut ws = Ws::new();

    assert_eq!(decode(&mut ws, &stream, 1460), [SIP]);
    assert_eq!(ws.counts().too_long, 2);
}

#[test]
fn bad_frames_lose_framing_until_a_frame_begins_with_sip() {
    let mut ws = Ws::new();
    assert!(decode(&mut ws, &[HEAD, &[0xff, 0xff, 1, 2, 3]].concat(), 4096).is_empty());
    assert!(decode(&mut ws, &frame(0x81, MASK, b"not sip"), 4096).is_empty());
    assert_eq!(decode(&mut ws, &frame(0x81, MASK, SIP), 4096), [SIP]);

    ws.gap();
    assert!(decode(&mut ws, b"tail of something", 4096).is_empty());
    assert_eq!(decode(&mut ws, &frame(0x82, None, b"SIP/2.0 200 OK\r\n\r\n"), 4096).len(), 1);
    assert_eq!(ws.counts().errors, 2);
    assert_eq!(decode(&mut Ws::mid_stream(), &frame(0x81, MASK, SIP), 4096), [SIP]);
}

#[test]
fn misplaced_fragments_are_counted() {
    let stream = [HEAD, &frame(0x80, MASK, b"stray"), &frame(0x01, MASK, b"cut"), &frame(0x81, MASK, SIP)].concat();
    let mut ws = Ws::new();

    assert_eq!(decode(&mut ws, &stream, 3), [SIP]);
    assert_eq!(ws.counts().errors, 2);
}

#[test]
fn other_connections_are_foreign() {
    for head in [&b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"[..], b"POST / HTTP/1.1\r\n", b"\x16\x03\x01"] {
        let mut ws = Ws::new();
        assert!(decode(&mut ws, &[head, &frame(0x81, MASK, SIP)].concat(), 4096).is_empty());
        assert!(ws.is_foreign());
    }
    let mut granted = Ws::new();
    let stream = [&b"HTTP/1.1 101 ok\r\nUpgrade: websocket\r\n\r\n"[..], &frame(0x81, None, SIP)].concat();
    assert_eq!(decode(&mut granted, &stream, 4096), [SIP]);
}

proptest! {
    #[test]
    fn any_split_of_any_frames_gives_the_same_messages(
        frames in prop::collection::vec((any::<u8>(), any::<Option<[u8; 4]>>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
        piece in 1_usize..300,
    ) {
        // Framing that is lost comes back at a segment's front, so only frames that keep it are comparable.
        let stream: Vec<u8> = [HEAD.to_vec()]
            .into_iter()
            .chain(frames.iter().map(|(first, mask, payload)| {
                let opcode = [0, 1, 2, 9][usize::from(first & 3)];
                let control = opcode == 9;
                let first = if control { 0x89 } else { first & 0x80 | opcode };
                frame(first, *mask, if control { &payload[..payload.len().min(125)] } else { payload })
            }))
            .flatten()
            .collect();
        prop_assert_eq!(decode(&mut Ws::new(), &stream, piece), decode(&mut Ws::new(), &stream, stream.len()));
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
        let found = decode(&mut Ws::new(), &[HEAD, &bytes[..]].concat(), piece);
        prop_assert!(found.iter().map(Vec::len).sum::<usize>() <= bytes.len());
    }
}
