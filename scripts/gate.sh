#!/usr/bin/env bash
# The whole gate: `make test`. Each step can be run alone by the command it prints.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

scripts/deps.sh test
step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
step cargo test --locked
step env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
if command -v cargo-deny >/dev/null; then
    step cargo deny --locked check
else
    echo "cargo-deny is not installed: tests/it/dependencies.rs has checked bans, licences and sources"
fi
step scripts/systemd-score.sh
printf '\ngate: passed\n'
