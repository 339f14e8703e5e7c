#!/usr/bin/env bash
# The whole gate: `make test`. Each step can be run alone by the command it prints.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

scripts/deps.sh test
# Tests that cannot run here say so in this file; where everything must run, LC_MUST_RUN=1 makes them fail.
LC_NOT_RUN=$(mktemp)
export LC_NOT_RUN
trap 'rm -f "$LC_NOT_RUN"' EXIT
step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
step scripts/py-peers.sh
# what cannot run here is a failure here
export LC_REQUIRE_PEERS=1
# fewer by default, for the quick part
export LC_SIM_SEEDS=${LC_SIM_SEEDS:-200}
step cargo test --locked
step env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
if command -v cargo-deny >/dev/null; then
    step cargo deny --locked check
else
    echo "cargo-deny is not installed: tests/it/dependencies.rs has checked bans, licences and sources"
fi
step scripts/systemd-score.sh
if [ -s "$LC_NOT_RUN" ]; then
    printf '\ngate: passed, without these:\n'
    sort -u "$LC_NOT_RUN"
else
    printf '\ngate: passed\n'
fi
