#!/usr/bin/env bash
# Makes captures/voip/odd-{syntax,tcp,ws}.pcap and rtp-only.pcap with odd.py. Needs root, tcpdump, ethtool.
cd "$(dirname "$0")" && . ./net.sh
out=$(realpath ../voip)
work=$(mktemp -d)
trap 'net_down; rm -rf "$work"' EXIT
net_up
for what in syntax tcp ws rtp-only; do
    [ $what = rtp-only ] && name=rtp-only || name=odd-$what
    net_capture "$work/$name.pcap"
    LC_NET=$NS /usr/bin/python3 odd.py $what
    net_capture_stop
    install -m 644 "$work/$name.pcap" "$out/$name.pcap"
    ls -l "$out/$name.pcap"
done
