#!/usr/bin/env bash
# Makes captures/voip/calls.pcap: ten calls of five subscribers with media both ways (sipp, its PCAP play), and tcp.pcap: four calls over one
# TCP connection. Needs root, sipp, tcpdump, ethtool.
cd "$(dirname "$0")" && . ./net.sh
out=$(realpath ../voip)
work=$(mktemp -d)
trap 'net_down; rm -rf "$work"' EXIT
rtp=$PWD/rtp.py
mkdir "$work/a" "$work/b"
cp sipp/uac.xml "$work/a"
cp sipp/uas.xml "$work/b"
cat > "$work/a/users.csv" <<'CSV'
SEQUENTIAL
alice;bob
carol;dave
erin;alice
bob;carol
dave;erin
CSV
cd "$work"

calls() { # NAME TRANSPORT CALLS SECONDS
    python3 "$rtp" file a/talk.pcap "$4" ssrc=a11ce000
    python3 "$rtp" file b/talk.pcap "$4" ssrc=b0b00000
    net_capture "$work/$1.pcap"
    (cd b && at callee timeout 60 sipp -sf uas.xml -i 10.60.0.3 -mi 10.60.0.3 -p 5060 -t "$2" -m "$3" -nr -nostdin -trace_err >out 2>&1) &
    local callee=$!
    sleep 0.4
    (cd a && at caller timeout 60 sipp -sf uac.xml -inf users.csv -i 10.60.0.2 -mi 10.60.0.2 -p 5060 -t "$2" -m "$3" -r 5 -nr -nostdin \
        -trace_err 10.60.0.3:5060 >out 2>&1) || { cat a/*errors.log; exit 1; }
    wait "$callee"
    net_capture_stop
    install -m 644 "$work/$1.pcap" "$out/$1.pcap"
    ls -l "$out/$1.pcap"
}

net_up
calls calls u1 10 1
calls tcp t1 4 0.4
