#!/usr/bin/env bash
# Makes captures/voip/NAME.pcap from flows/NAME.flow (and NAME.2.flow … played beside it), by two sipp. Needs root, sipp, tcpdump, ethtool.
# usage: voip-flows.sh [NAME…]
cd "$(dirname "$0")" && . ./net.sh
out=$(realpath ../voip)
work=$(mktemp -d)
trap 'net_down; rm -rf "$work"' EXIT

play() { # FLOW DIR
    mkdir -p "$2"
    python3 flows.py write "$1" "$2"
    ( . "$2/args"
      cd "$2"
      # sipp wants a terminal or -bg for its screen; errors go to files
      at callee timeout 30 sipp -sf B.xml -i "$B_IP" -p "$B_PORT" -t "$TRANSPORT" -m 1 -nr -trace_err -mp $((20000 + 4 * B_PORT)) -nostdin >B.out 2>&1 &
      sleep 0.4
      [ "$A_IP" = fd60::2 ] && to="[$B_IP]:$B_PORT" || to="$B_IP:$B_PORT"
      at caller timeout 30 sipp -sf A.xml -i "$A_IP" -p "$A_PORT" -t "$TRANSPORT" -m 1 -nr -trace_err -mp $((20000 + 4 * A_PORT)) -nostdin "$to" >A.out 2>&1 || failed=A
      wait $! || failed=${failed-}B
      [ -z "${failed-}" ] || { echo "$1: sipp failed ($failed)"; cat ./*errors.log 2>/dev/null | head -40; exit 1; } )
}

names=("$@")
if [ ${#names[@]} = 0 ]; then
    for f in flows/*.flow; do f=$(basename "$f" .flow); [ "${f%.[0-9]}" = "$f" ] && names+=("$f"); done
fi
net_up
for name in "${names[@]}"; do
    net_capture "$work/$name.pcap"
    pids=()
    for flow in "flows/$name.flow" "flows/$name".[0-9].flow; do
        [ -e "$flow" ] || continue
        play "$flow" "$work/$(basename "$flow" .flow)" & pids+=($!)
    done
    for p in "${pids[@]}"; do wait "$p"; done
    net_capture_stop
    install -m 644 "$work/$name.pcap" "$out/$name.pcap"
    ls -l "$out/$name.pcap"
done
