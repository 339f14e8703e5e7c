#!/usr/bin/env bash
# The demonstration: a processor and a VoIP hunter with TLS, a capture of real calls, one subscriber targeted.
#
# Prints the calls found and the files written, checks that nothing was lost, and stops. Leaves nothing running; with
# DEMO_KEEP=1 it leaves its directory.
#
#   DEMO_CAPTURE  capture file to replay (captures/voip/calls.pcap: ten calls of five subscribers)
#   DEMO_USER     subscriber to target (alice)
set -euo pipefail
cd "$(dirname "$0")/.."

capture=$(realpath "${DEMO_CAPTURE:-captures/voip/calls.pcap}")
user=${DEMO_USER:-alice}
port=$(shuf -i 20000-29999 -n 1)
dir=$(mktemp -d "${TMPDIR:-/tmp}/lc-demo.XXXXXX")
processor=

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

finish() {
    if [ -n "$processor" ] && kill -0 "$processor" 2>/dev/null; then
        kill -TERM "$processor" 2>/dev/null || true
        wait "$processor" 2>/dev/null || true
    fi
    if [ "${DEMO_KEEP:-0}" = 1 ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap finish EXIT

say "building lc"
scripts/deps.sh demo
cargo build --locked --release
lc=$PWD/target/release/lc
# Nothing of this machine's configuration may change the demonstration.
export HOME=$dir
cd "$dir"

say "a private CA, a certificate for the processor, one for the hunter"
"$lc" certs init --dir "$dir/certs" -q
"$lc" certs issue processor mid --dns localhost --ip 127.0.0.1 --dir "$dir/certs" -q
"$lc" certs issue hunter edge-1 --dir "$dir/certs" -q

cat > "$dir/filters.yaml" <<YAML
filters:
  - id: demo-$user
    type: sip_user
    pattern: "$user"
    description: the subscriber of the demonstration
YAML

say "processor on 127.0.0.1:$port, mutual TLS, one capture per call"
"$lc" process --listen "127.0.0.1:$port" --id mid --filter-file "$dir/filters.yaml" \
    --tls-cert "$dir/certs/processor-mid.crt" --tls-key "$dir/certs/processor-mid.key" --tls-ca "$dir/certs/ca.crt" --tls-client-auth \
    --per-call-pcap --per-call-pcap-dir "$dir/calls" --state-dir "$dir/state" --log-format text \
    2>"$dir/processor.log" &
processor=$!
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    kill -0 "$processor" 2>/dev/null || { cat "$dir/processor.log" >&2; fail "the processor did not start"; }
    sleep 0.1
done

say "hunter on $(basename "$capture") ($(tcpdump -r "$capture" --count 2>/dev/null | grep -o '^[0-9]*') packets), target: $user"
code=0
"$lc" hunt voip --processor "localhost:$port" --id edge-1 --read "$capture" --log-format text \
    --tls-cert "$dir/certs/hunter-edge-1.crt" --tls-key "$dir/certs/hunter-edge-1.key" --tls-ca "$dir/certs/ca.crt" || code=$?
[ "$code" -ne 5 ] || fail "the hunter says that packets were lost"
[ "$code" -eq 0 ] || { cat "$dir/processor.log" >&2; fail "the hunter ended with exit code $code"; }

say "stopping the processor"
kill -TERM "$processor"
code=0
wait "$processor" || code=$?
processor=
[ "$code" -eq 0 ] || { cat "$dir/processor.log" >&2; fail "the processor ended with exit code $code"; }

shopt -s nullglob
records=("$dir"/calls/*.json)
files=("$dir"/calls/*.pcap)
[ ${#records[@]} -gt 0 ] || { cat "$dir/processor.log" >&2; fail "no call was found"; }

say "calls of $user"
jq -r '[.first_packet, .from.user, .to.user, .state, "\(.packets.sip) SIP, \(.packets.rtp) RTP", .call_id] | @tsv' "${records[@]}" |
    sort | column -t -s "$(printf '\t')"
say "files"
(cd "$dir/calls" && ls -l)

say "counting"
recorded=$(jq -s 'map(.packets.sip + .packets.rtp + .packets.rtcp) | add' "${records[@]}")
written=0
for file in "${files[@]}"; do
    written=$((written + $(tcpdump -r "$file" --count 2>/dev/null | grep -o '^[0-9]*')))
done
others=$(jq -r --arg user "$user" 'select(.from.user != $user and .to.user != $user) | .call_id' "${records[@]}" | wc -l)
holes=$(jq '.holes | length' "${records[@]}" | paste -sd+ | sed 's/^$/0/')
[ "$recorded" -eq "$written" ] || fail "the records name $recorded packets, the files hold $written"
[ "$others" -eq 0 ] || fail "$others calls of somebody else were written"
[ $((holes)) -eq 0 ] || fail "calls have holes"
echo "${#records[@]} calls, ${#files[@]} capture files, $written packets: as many as the records name; nothing lost"
