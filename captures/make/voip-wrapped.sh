#!/usr/bin/env bash
# Makes from captures/voip/plain.pcap and tcp-long.pcap what other networks and taps would have seen, with wrap.py. Needs nothing else.
cd "$(dirname "$0")"
set -euo pipefail
out=$(realpath ../voip)
for kind in qinq mpls pppoe gre erspan2 vxlan geneve gtpu ipip; do python3 wrap.py $kind "$out/plain.pcap" "$out/tunnel-$kind.pcap"; done
for kind in sll sll2 raw null; do python3 wrap.py $kind "$out/plain.pcap" "$out/link-$kind.pcap"; done
python3 wrap.py doubled "$out/plain.pcap" "$out/doubled.pcap"
python3 wrap.py mid-call "$out/plain.pcap" "$out/mid-call.pcap"
python3 wrap.py short "$out/plain.pcap" "$out/short.pcap"
python3 wrap.py disorder "$out/tcp-long.pcap" "$out/tcp-disorder.pcap"
ls -l "$out"/tunnel-* "$out"/link-* "$out"/{doubled,mid-call,short,tcp-disorder}.pcap
