//! What a processor adds to a batch that it passes on to another processor.
//!
//! The batch stays as its hunter sealed it: hunter id, epoch and sequence travel unchanged, so that whoever stores it recognises it. What
//! the next processor cannot know stands behind it: the way it came, and the names of its hunter's interfaces.

use bytes::{Bytes, BytesMut};

use super::protobuf::{Cursor, Out, WireType, batch, bytes_len, key, relay, varint_len};
use super::{BatchError, BatchSeq, BatchView, Epoch, GRPC_PREFIX, grpc_prefix};

/// Processors that one behind the other may pass a batch on.
pub const HOPS_MAX: usize = 10;
/// Bytes of interface names that are passed on; an index without a name is an interface without a name.
const NAMES_MAX: usize = 32 << 10;

/// Whose batch it is: what its acknowledgement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchKey {
    /// The hunter.
    pub hunter: Box<str>,
    /// Its epoch, or the one a processor gave to its stream.
    pub epoch: Epoch,
    /// Its number in that.
    pub seq: BatchSeq,
}

/// What is added.
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    /// Who passes it on.
    pub processor: &'a str,
    /// The names behind its interface indices; told by the first who passes it on.
    pub interfaces: &'a [String],
    /// An epoch for a hunter that has none, and the batch's number there; told by the first who passes it on.
    pub key: Option<(Epoch, BatchSeq)>,
}

/// The batch as a gRPC message for the next processor: a copy, and what is added behind it.
#[must_use]
pub fn relayed(view: &BatchView, add: &Relay<'_>) -> Bytes {
    let first = view.path().len() == 0;
    let mut names = NAMES_MAX;
    let fits = |name: &&String| match names.checked_sub(name.len()) {
        Some(left) => {
            names = left;
            true
        }
        None => false,
    };
    let interfaces: Vec<&String> = add.interfaces.iter().filter(|_| first).take_while(fits).collect();
    let key_fields = add.key.filter(|_| first).map(|(epoch, seq)| [(relay::EPOCH, epoch.0), (relay::SEQUENCE, seq.0)]);
    let names: usize = interfaces.iter().map(|name| bytes_len(relay::INTERFACES, name.len())).sum();
    let len = bytes_len(relay::PATH, add.processor.len()).saturating_add(names).saturating_add(
        key_fields.iter().flatten().map(|(field, _)| varint_len(key(*field, WireType::Fixed64)).saturating_add(8)).sum(),
    );
    let whole = view.message().len().saturating_add(bytes_len(batch::RELAY, len));
    let mut out = BytesMut::with_capacity(whole.saturating_add(GRPC_PREFIX));
    out.put(&grpc_prefix(whole));
    out.put(view.message());
    out.open(batch::RELAY, len);
    out.open(relay::PATH, add.processor.len());
    out.put(add.processor.as_bytes());
    for name in interfaces {
        out.open(relay::INTERFACES, name.len());
        out.put(name.as_bytes());
    }
    for (field, number) in key_fields.into_iter().flatten() {
        out.varint(key(field, WireType::Fixed64));
        out.put(&number.to_le_bytes());
    }
    out.freeze()
}

/// Whose a batch (without gRPC prefix) is; nothing else of it is looked at.
///
/// # Errors
/// [`BatchError`], where it is none.
pub fn key_of(message: &[u8]) -> Result<BatchKey, BatchError> {
    let mut at = Cursor::new(message);
    let (mut hunter, mut epoch, mut given, mut seq, mut given_seq) = ("", 0, 0, 0, 0);
    while !at.at_end() {
        let (field, wire) = at.key()?;
        match field {
            batch::HUNTER_ID => hunter = at.text(wire)?.text(message),
            batch::SEQUENCE => seq = at.number(wire)?,
            batch::EPOCH => epoch = at.fixed64(wire)?,
            batch::RELAY => {
                let span = at.span(wire)?;
                let mut inner = Cursor::within(message, span);
                while !inner.at_end() {
                    match inner.key()? {
                        (relay::EPOCH, wire) => given = inner.fixed64(wire)?,
                        (relay::SEQUENCE, wire) => given_seq = inner.fixed64(wire)?,
                        (_, wire) => inner.skip(wire)?,
                    }
                }
            }
            _ => at.skip(wire)?,
        }
    }
    let (epoch, seq) = super::view::key_by(epoch, seq, (given, given_seq)).unwrap_or((Epoch(0), BatchSeq(seq)));
    Ok(BatchKey { hunter: hunter.into(), epoch, seq })
}
