#!/usr/bin/env bash
# What the binary is made of: every crate linked into it, with version, licence and checksum, as CycloneDX 1.5 in target/lc.cdx.json.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools version=0.5.9
"$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -q "$version" ||
    cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" --version "$version" cargo-cyclonedx
# it writes beside the manifest
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps
mv lc_bin.cdx.json target/lc.cdx.json
echo target/lc.cdx.json
