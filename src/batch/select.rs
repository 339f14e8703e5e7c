//! What of a batch a monitor is sent: some of its packets, in messages that it can receive, and what it missed before them.
//!
//! A batch that goes whole is not copied; what is missed stands behind it, since the last of several counts in protobuf: a hunter cannot say it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::BatchError;
use super::protobuf::{Cursor, Out, WireType, batch, key};

/// Some packets of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Messages without gRPC prefix, and how many packets are in each; none of them is empty.
    pub messages: Vec<(Bytes, u64)>,
    /// Packets that fit into no message.
    pub too_large: u64,
}

/// The packets of a batch (without gRPC prefix) that `keep` wants, by their place in it, in messages of at most `max` bytes. The other fields
/// of the batch are in each of them: contexts keep their numbers.
///
/// # Errors
/// [`BatchError`], where it is none.
pub fn selected(message: &[u8], max: usize, mut keep: impl FnMut(usize) -> bool) -> Result<Selected, BatchError> {
    let (packets, others) = fields(message)?;
    let rest: usize = others.iter().map(ExactSizeIterator::len).sum();
    let mut out = Selected::default();
    let mut part: Vec<Range<usize>> = Vec::new();
    let mut room = max.saturating_sub(rest);
    for (_, packet) in packets.into_iter().enumerate().filter(|(n, _)| keep(*n)) {
        if packet.len().saturating_add(rest) > max {
            out.too_large = out.too_large.saturating_add(1);
            continue;
        }
        if packet.len() > room {
            out.messages.extend(together(message, &part, &others));
            part.clear();
            room = max.saturating_sub(rest);
        }
        room = room.saturating_sub(packet.len());
        part.push(packet);
    }
    out.messages.extend(together(message, &part, &others));
    Ok(out)
}

type Places = Vec<Range<usize>>;

/// Where the fields of a batch are: each packet, and what is between them.
fn fields(message: &[u8]) -> Result<(Places, Places), BatchError> {
    let (mut packets, mut others) = (Places::new(), Places::new());
    let mut at = Cursor::new(message);
    while !at.at_end() {
        let start = at.position();
        let (field, wire) = at.key()?;
        at.skip(wire)?;
        let range = start..at.position();
        match others.last_mut() {
            _ if field == batch::PACKETS => packets.push(range),
            Some(last) if last.end == range.start => last.end = range.end,
            _ => others.push(range),
        }
    }
    Ok((packets, others))
}

fn together(message: &[u8], packets: &[Range<usize>], others: &[Range<usize>]) -> Option<(Bytes, u64)> {
    if packets.is_empty() {
        return None;
    }
    let all = || packets.iter().chain(others);
    let mut out = BytesMut::with_capacity(all().map(ExactSizeIterator::len).sum());
    for range in all() {
        out.put(message.get(range.clone()).unwrap_or_default());
    }
    Some((out.freeze(), packets.len() as u64))
}

/// What is put behind a message for a monitor that missed so many packets since the one before; also behind nothing at all. At most 12 bytes.
#[must_use]
pub fn skipped(packets: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(12);
    // also when there are none: what the hunter says there does not count
    out.varint(key(batch::SKIPPED_PACKETS, WireType::Varint));
    out.varint(packets);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::data::{CapturedPacket, PacketBatch, PacketContext};

    fn batch(sizes: &[usize]) -> PacketBatch {
        let packet = |(n, size): (u32, &usize)| CapturedPacket {
            data: vec![7; *size].into(),
            original_length: n,
            context: 1,
            ..CapturedPacket::default()
        };
        PacketBatch {
            hunter_id: "edge".into(),
            sequence: 3,
            packets: (0..).zip(sizes).map(packet).collect(),
            epoch: 9,
            contexts: vec![PacketContext { call_id: "a@b".into(), ..PacketContext::default() }],
            skipped_packets: 77,
            ..PacketBatch::default()
        }
    }

    fn read(selected: &Selected) -> Vec<PacketBatch> {
        let read = |(message, packets): &(Bytes, u64)| {
            let batch = PacketBatch::decode(message.clone()).unwrap();
            assert_eq!(batch.packets.len() as u64, *packets);
            batch
        };
        selected.messages.iter().map(read).collect()
    }

    fn numbers(batch: &PacketBatch) -> Vec<u32> {
        batch.packets.iter().map(|p| p.original_length).collect()
    }

    #[test]
    fn what_is_wanted_is_in_order_with_everything_else_of_the_batch() {
        let whole = batch(&[10; 6]);
        let part = selected(&whole.encode_to_vec(), 1 << 20, |n| n % 2 == 1).unwrap();

        let [got] = &read(&part)[..] else { panic!("{part:?}") };

        assert_eq!(numbers(got), [1, 3, 5]);
        assert_eq!(PacketBatch { packets: whole.packets.clone(), ..got.clone() }, whole);
        assert_eq!(selected(&whole.encode_to_vec(), 1 << 20, |_| false).unwrap(), Selected::default());
    }

    #[test]
    fn no_message_is_larger_than_it_may_be_and_what_fits_into_none_is_counted() {
        let whole = batch(&[400, 400, 900, 2000, 400, 10, 10]);
        let part = selected(&whole.encode_to_vec(), 1000, |_| true).unwrap();

        assert!(part.messages.iter().all(|(m, _)| m.len() <= 1000), "{part:?}");
        assert_eq!(read(&part).iter().map(numbers).collect::<Vec<_>>(), [vec![0, 1], vec![2], vec![4, 5, 6]]);
        assert_eq!(part.too_large, 1);
    }

    #[test]
    fn fields_may_stand_anywhere_and_what_is_no_batch_is_an_error() {
        let [one, two] = [batch(&[5]), batch(&[5])].map(|b| b.encode_to_vec());
        let mixed = [one, two].concat();

        let got = &read(&selected(&mixed, 1 << 20, |n| n == 1).unwrap())[0];

        assert_eq!((got.packets.len(), got.contexts.len()), (1, 2));
        assert!(selected(&mixed[..mixed.len() - 1], 1 << 20, |_| true).is_err());
    }

    #[test]
    fn what_a_hunter_says_was_missed_does_not_count() {
        let message = [&batch(&[1]).encode_to_vec()[..], &skipped(0)[..]].concat();

        assert_eq!(PacketBatch::decode(&message[..]).unwrap().skipped_packets, 0);
        assert_eq!(PacketBatch::decode(skipped(u64::MAX)).unwrap().skipped_packets, u64::MAX);
        assert!(skipped(u64::MAX).len() <= 12);
    }
}
