#!/usr/bin/env bash
# Scores the systemd units with `systemd-analyze security`; more than 2.0 (0 is locked up, 10 is wide open) fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v systemd-analyze >/dev/null; then
    [ -z "${LC_MUST_RUN-}" ] || { echo "systemd-analyze must be here" >&2; exit 1; }
    echo "NOT RUN: exposure of the systemd units: no systemd-analyze here" | tee -a "${LC_NOT_RUN:-/dev/null}"
    exit 0
fi
for unit in contrib/systemd/*.service; do
    score=$(systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" 2>&1) || { echo "$score"; exit 1; }
    grep 'Overall exposure' <<<"$score"
done
