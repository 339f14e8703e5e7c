#!/bin/sh
# rustc as `scripts/fuzz.sh` calls it: the code of this repository, and no other, tells the fuzzer where it has been.
case " $* " in
    *" --crate-name lippycat "* | *" --crate-name lippycat_fuzz "*)
        exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    *) exec "$@" ;;
esac
