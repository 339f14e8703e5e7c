//! Session secrets of TLS beside packets: whoever has them reads what others said in confidence, so nobody is given any.
//!
//! The protocol has a place for them (`CapturedPacket.tls_keys`), and no role may send them. The batch stays what it is but for that field: its packets,
//! their order and everything else travel byte by byte.

use bytes::{Bytes, BytesMut};

use super::BatchError;
use super::protobuf::{Cursor, Out, Span, batch, packet};

/// The batch (without gRPC prefix) without the session secrets of its packets. It is no longer than it was.
///
/// # Errors
/// [`BatchError`], where it is none.
pub fn without_tls_keys(message: &[u8]) -> Result<Bytes, BatchError> {
    let mut out = BytesMut::with_capacity(message.len());
    let mut at = Cursor::new(message);
    // what nothing was taken out of is copied with what stands beside it
    let mut copied = 0;
    while !at.at_end() {
        let start = at.position();
        let (field, wire) = at.key()?;
        if field != batch::PACKETS {
            at.skip(wire)?;
            continue;
        }
        let span = at.span(wire)?;
        let mut len = 0_usize;
        rest(message, span, |piece| len = len.saturating_add(piece.len()))?;
        if len == span.of(message).len() {
            continue;
        }
        out.put(message.get(copied..start).unwrap_or_default());
        out.open(batch::PACKETS, len);
        rest(message, span, |piece| out.put(piece))?;
        copied = at.position();
    }
    out.put(message.get(copied..).unwrap_or_default());
    Ok(out.freeze())
}

/// Every field of the packet at `span` but its secrets.
fn rest<'a>(message: &'a [u8], span: Span, mut each: impl FnMut(&'a [u8])) -> Result<(), BatchError> {
    let mut at = Cursor::within(message, span);
    while !at.at_end() {
        let start = at.position();
        let (field, wire) = at.key()?;
        at.skip(wire)?;
        if field != packet::TLS_KEYS {
            each(message.get(start..at.position()).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::batch::{BatchView, ViewLimits};
    use crate::wire::data::{CapturedPacket, PacketBatch, PacketContext, TlsSessionKeys};

    fn batch(secrets: &[(usize, bool)]) -> PacketBatch {
        let packet = |(n, (len, secret)): (i64, &(usize, bool))| CapturedPacket {
            data: vec![7; *len].into(),
            timestamp_ns: n,
            context: 1,
            matched_filter_ids: vec!["f".into()],
            tls_keys: secret.then(|| TlsSessionKeys { pre_master_secret: vec![9; 48], ..TlsSessionKeys::default() }),
            ..CapturedPacket::default()
        };
        PacketBatch {
            hunter_id: "edge".into(),
            sequence: 3,
            epoch: 9,
            packets: (0..).zip(secrets).map(packet).collect(),
            contexts: vec![PacketContext { call_id: "a@b".into(), ..PacketContext::default() }],
            ..PacketBatch::default()
        }
    }

    fn parse(message: &[u8]) -> BatchView {
        BatchView::parse(message.to_vec().into(), &ViewLimits::default()).unwrap()
    }

    proptest! {
        #[test]
        fn nothing_but_the_secrets_is_taken_out(secrets in prop::collection::vec((0_usize..300, any::<bool>()), 0..20)) {
            let mut whole = batch(&secrets);
            let message = whole.encode_to_vec();
            let carried = secrets.iter().filter(|(_, secret)| *secret).count();
            prop_assert_eq!(parse(&message).tls_keys(), carried as u64);

            let left = without_tls_keys(&message).unwrap();

            whole.packets.iter_mut().for_each(|p| p.tls_keys = None);
            prop_assert_eq!(&left[..], &whole.encode_to_vec()[..]);
            prop_assert_eq!(parse(&left).tls_keys(), 0);
        }
    }

    #[test]
    fn secrets_are_found_wherever_they_stand_and_however_often_or_long_their_key_is_written() {
        let secret = [0x52, 3, 1, 2, 3];
        let long_key = [0xd2, 0x80, 0, 1, 9];
        let packet = [&secret[..], &[0x0a, 2, 5, 5], &long_key, &[0x10, 8], &secret].concat();
        let message = [&[0x10, 4, 0x22, u8::try_from(packet.len()).unwrap()][..], &packet, &[0x0a, 1, b'h']].concat();
        assert_eq!(parse(&message).tls_keys(), 3);

        let left = without_tls_keys(&message).unwrap();

        assert_eq!(left[..], [0x10, 4, 0x22, 6, 0x0a, 2, 5, 5, 0x10, 8, 0x0a, 1, b'h']);
        assert!(without_tls_keys(&message[..message.len() - 1]).is_err());
    }
}
