//! What stands in the commit log, as the payload of a record of the spool.
//!
//! ```text
//!  0         1          5
//!  +---------+----------+--------------+-------------------------------+
//!  | version | head len | head (JSON)  | body: a batch as it came      |
//!  +---------+----------+--------------+-------------------------------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::CommitError;
use crate::batch::{BatchSeq, Epoch, GRPC_PREFIX, grpc_prefix};
use crate::record::losses::RunWord;
use crate::record::state::Acked;
use crate::spool::Item;

/// Version of an entry.
const VERSION: u8 = 1;
/// Every entry has it: the log is one sequence over all processes that write it.
pub(super) const EPOCH: Epoch = Epoch(1);

/// Which files a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// `-w`.
    Unified,
    /// Per call.
    Calls,
    /// Rotating.
    Rotating,
}

/// How far a file is durable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::processor) struct Extent {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// A batch with packets of calls, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::processor) struct BatchHead {
    pub(in crate::processor) hunter: String,
    pub(in crate::processor) interfaces: Vec<String>,
    pub(in crate::processor) epoch: u64,
    pub(in crate::processor) seq: u64,
    /// Nanoseconds since 1970.
    pub(in crate::processor) received: i64,
    pub(in crate::processor) missing: u64,
    /// Of a predecessor's hunter: how many bytes of each packet its call gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::processor) kept: Option<Vec<Option<usize>>>,
}

/// One entry's head.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::processor) enum Entry {
    /// The body is a batch.
    Batch(BatchHead),
    /// A hunter has stopped.
    Gone(String),
    /// Files of these names are about to be made.
    Names { place: Place, names: Vec<Box<str>> },
    /// A file of this name turned out to be somebody else's.
    Disowned { place: Place, name: String },
    /// What a hunter said of one of its runs: true whether anything before it was stored or not.
    Word(RunWord),
    /// A process begins: what stands behind the last commit was not stored.
    Start,
    /// Everything before it is stored.
    Commit { marks: Vec<Acked>, extents: Vec<Extent> },
}

impl Entry {
    /// As an item of the spool.
    pub(super) fn item(&self, seq: u64, body: &[u8], packets: u64) -> Result<Item, CommitError> {
        let head = serde_json::to_vec(self).map_err(|e| CommitError::Entry(e.to_string()))?;
        let len = head.len().saturating_add(body.len()).saturating_add(5);
        let mut bytes = BytesMut::with_capacity(len.saturating_add(GRPC_PREFIX));
        bytes.put_slice(&grpc_prefix(len));
        bytes.put_u8(VERSION);
        bytes.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
        bytes.put_slice(&head);
        bytes.put_slice(body);
        let packets = u32::try_from(packets).unwrap_or(u32::MAX).max(1);
        Ok(Item { epoch: EPOCH, seq: BatchSeq(seq), packets, bytes: bytes.freeze() })
    }

    /// From an item of the spool; the body is what is left.
    pub(super) fn read(item: &Item) -> Result<(Self, Bytes), CommitError> {
        let wrong = |what: &str| CommitError::Entry(format!("entry {}: {what}", item.seq));
        let payload = item.bytes.get(GRPC_PREFIX..).unwrap_or_default();
        let (version, rest) = payload.split_first().ok_or_else(|| wrong("it is empty"))?;
        if *version != VERSION {
            return Err(wrong(&format!("it has version {version}, and this program knows {VERSION}")));
        }
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| wrong("it is too short"))?;
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (head, body) = rest.split_at_checked(len).ok_or_else(|| wrong("it is too short"))?;
        let entry = serde_json::from_slice(head).map_err(|e| wrong(&e.to_string()))?;
        Ok((entry, item.bytes.slice_ref(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was_and_another_version_is_named() {
        let head = BatchHead {
            hunter: "h".into(),
            interfaces: vec!["eth0".into()],
            epoch: u64::MAX,
            seq: 7,
            received: -1,
            missing: 3,
            kept: Some(vec![None, Some(54)]),
        };
        let entry = Entry::Batch(head);
        let item = entry.item(9, b"body", 0).unwrap();

        assert_eq!(Entry::read(&item).unwrap(), (entry, Bytes::from_static(b"body")));
        assert_eq!((item.seq, item.packets), (BatchSeq(9), 1));
        let mut other = item.bytes.to_vec();
        other[GRPC_PREFIX] = 2;
        for len in 0..item.bytes.len() - 4 {
            assert!(Entry::read(&Item { bytes: item.bytes.slice(..len), ..item.clone() }).is_err(), "{len}");
        }
        let e = Entry::read(&Item { bytes: other.into(), ..item }).unwrap_err().to_string();
        assert!(e.contains("version 2"), "{e}");
    }
}
