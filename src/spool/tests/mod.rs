//! The spool against a model of itself, on a file system that fails.

mod known_errors;
mod model;
mod model_fs;

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use self::model_fs::ModelFs;
use super::*;
use crate::batch::grpc_prefix;

const HUNTER: &str = "edge-1";

fn config(max_bytes: u64, when_full: SpoolFull) -> SpoolConfig {
    SpoolConfig {
        hunter_id: HUNTER.into(),
        max_bytes,
        min_free: MinFree::NONE,
        when_full,
        segment_bytes: 700,
        sync_after: Duration::from_millis(50),
        sync_bytes: 600,
    }
}

/// A batch whose bytes follow from its name.
fn item(epoch: Epoch, seq: u64, packets: u32, len: usize) -> Item {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&grpc_prefix(len));
    let word = epoch.0.wrapping_mul(0x9e37_79b9).wrapping_add(seq).to_le_bytes();
    for i in 0..len {
        bytes.put_u8(word[i % 8] ^ u8::try_from(i / 8 % 256).unwrap());
    }
    Item { epoch, seq: BatchSeq(seq), packets, bytes: bytes.freeze() }
}

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall_ns: 1_700_000_000_000_000_000 + i64::try_from(ms).unwrap() * 1_000_000 }
}

fn open(fs: &ModelFs, config: &SpoolConfig) -> Queue<ModelFs> {
    Queue::open(fs.clone(), config.clone()).unwrap()
}

/// Reads everything: sequences by epoch.
fn drain(queue: &mut Queue<ModelFs>) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| queue.read()).map(|item| (item.epoch.0, item.seq.0)).collect()
}
