//! What becomes of a batch: one file per output.

pub(super) mod calls;
pub(super) mod record;
mod replay;
mod story;
