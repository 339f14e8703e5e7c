//! Tests of the whole: structure, and the real binary.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test helpers")]

mod access;
mod bad_input;
mod canaries;
mod chaos;
mod command_line;
mod corpora;
mod dependencies;
mod file_modes;
mod flood;
mod full_disk;
mod fuzz_corpora;
mod golden;
mod hostile;
mod hostile_all;
mod hostile_control;
mod hostile_hunter;
mod hostile_packets;
mod hostile_unread;
mod hostile_wire;
mod hostile_words;
mod interfaces;
mod layering;
mod live;
mod log_flood;
mod many_calls;
mod metrics;
mod monitors;
mod not_run;
mod numbered;
mod numbered_file;
mod peers;
mod pipes;
mod privacy;
mod privileges;
mod rust_text;
mod secrets;
mod spool;
mod started;
mod targets;
mod upstream;
mod upstream_drain;
mod whole;
