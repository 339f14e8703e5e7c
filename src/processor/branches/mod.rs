//! What becomes of a batch: one file per output.

pub(super) mod calls;
mod old;
pub(super) mod record;
mod replay;
mod story;
