#!/usr/bin/env bash
# Makes from captures/voip/plain.pcap, ipv6.pcap and tcp-long.pcap what other networks and taps would have seen, with wrap.py. Needs nothing else.
cd "$(dirname "$0")"
set -euo pipefail
out=$(realpath ../voip)
for kind in vlan qinq mpls pppoe gre nvgre erspan1 erspan2 erspan3 vxlan geneve gtpu ipip esp; do python3 wrap.py $kind "$out/plain.pcap" "$out/tunnel-$kind.pcap"; done
for kind in sll sll2 raw null; do python3 wrap.py $kind "$out/plain.pcap" "$out/link-$kind.pcap"; done
for kind in us-le us-be ns-be; do python3 wrap.py $kind "$out/plain.pcap" "$out/format-$kind.pcap"; done
python3 wrap.py pcapng "$out/plain.pcap" "$out/format-pcapng.pcapng"
python3 wrap.py 6in4 "$out/ipv6.pcap" "$out/tunnel-6in4.pcap"
python3 wrap.py doubled "$out/plain.pcap" "$out/doubled.pcap"
python3 wrap.py mid-call "$out/plain.pcap" "$out/mid-call.pcap"
python3 wrap.py short "$out/plain.pcap" "$out/short.pcap"
python3 wrap.py disorder "$out/tcp-long.pcap" "$out/tcp-disorder.pcap"
ls -l "$out"/tunnel-* "$out"/link-* "$out"/format-* "$out"/{doubled,mid-call,short,tcp-disorder}.pcap
