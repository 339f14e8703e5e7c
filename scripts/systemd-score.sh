#!/usr/bin/env bash
# Scores the systemd units with `systemd-analyze security`; more than 2.0 (0 is locked up, 10 is wide open) fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v systemd-analyze >/dev/null; then
    echo "not run: no systemd-analyze here"
    exit 0
fi
for unit in contrib/systemd/*.service; do
    if ! systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" >/tmp/lc-score.$$ 2>&1; then
        cat /tmp/lc-score.$$; rm -f /tmp/lc-score.$$
        exit 1
    fi
    grep 'Overall exposure' /tmp/lc-score.$$ || cat /tmp/lc-score.$$
    rm -f /tmp/lc-score.$$
done
