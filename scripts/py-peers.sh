#!/usr/bin/env bash
# Makes the peers that tests/it/peers.rs plays with: gRPC of another implementation (grpcio, from PyPI), in Python, with messages generated from
# our proto files without the fields we have added, as an old node has them. Everything lies below target/peers; a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

GRPCIO=1.71.2
here=${CARGO_TARGET_DIR:-target}/peers
mkdir -p "$here"
stamp="$GRPCIO $(cat proto/*.proto "$0" | sha256sum)"
[ "$(cat "$here/made" 2>/dev/null)" != "$stamp" ] || exit 0

if ! "$here/venv/bin/python" -c "import grpc, grpc_tools; assert grpc.__version__ == '$GRPCIO'" 2>/dev/null; then
    rm -rf "$here/venv"
    python3 -m venv "$here/venv"
    timeout 300 "$here/venv/bin/pip" install --quiet --disable-pip-version-check "grpcio==$GRPCIO" "grpcio-tools==$GRPCIO"
fi
rm -rf "$here/old" "$here/proto"
mkdir -p "$here/old" "$here/proto"
for file in proto/*.proto; do
    grep -vE '= 2[0-9]{2};' "$file" > "$here/proto/$(basename "$file")"
done
"$here/venv/bin/python" -m grpc_tools.protoc -I "$here/proto" --python_out="$here/old" --grpc_python_out="$here/old" "$here"/proto/*.proto
echo "$stamp" > "$here/made"
