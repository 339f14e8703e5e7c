#!/usr/bin/env bash
# Fuzzes every target with coverage: `scripts/fuzz.sh [TARGET…]`, each for LC_FUZZ_SECONDS (60). What is found stays in $LC_FUZZ_CORPUS
# (target/fuzz/corpus) for the next time; an input that fails is kept in target/fuzz and named. No nightly compiler is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh build

out=${CARGO_TARGET_DIR:-target}/fuzz
corpus=${LC_FUZZ_CORPUS:-$out/corpus}
host=$(rustc -vV | sed -n 's/^host: //p')
# with --target, the flags are not for build scripts
RUSTC_WRAPPER=$PWD/scripts/fuzz-rustc.sh RUSTFLAGS="--cfg fuzzing" cargo build --quiet --release \
    --manifest-path tests/fuzz/Cargo.toml --target "$host" --target-dir "$out"

[ $# -gt 0 ] || set -- $(cd tests/fuzz/fuzz_targets && ls *.rs | sed 's/\.rs$//')
printf '%-10s %14s %8s %8s %8s\n' target executions edges corpus failed
all=0 bad=0
for target; do
    mkdir -p "$corpus/$target"
    log=$out/$target.log failed=0
    "$out/$host/release/$target" -max_total_time="${LC_FUZZ_SECONDS:-60}" -print_final_stats=1 -rss_limit_mb=1024 -timeout=10 \
        -artifact_prefix="$out/$target-" "$corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1 || failed=1
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
    printf '%-10s %14s %8s %8s %8s\n' "$target" "${runs:-0}" "${edges:-0}" "$(ls "$corpus/$target" | wc -l)" "$failed"
    [ $failed -eq 0 ] || { bad=1; tail -n 20 "$log"; }
    all=$((all + ${runs:-0}))
done
printf '%-10s %14s\n' all "$all"
exit $bad
