//! Tests of the whole: structure, and the real binary.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test helpers")]
#![expect(clippy::print_stderr, reason = "a test that cannot run says so")]

mod command_line;
mod corpora;
mod dependencies;
mod golden;
mod layering;
mod live;
mod rust_text;
mod targets;
mod whole;
