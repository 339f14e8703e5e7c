#!/usr/bin/env bash
# The quick part of the gate: formatting, lints, structure, tests without the slow ones (live calls).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --locked --all-targets -- -D warnings
cargo test --locked --lib --test it -- --skip live::
