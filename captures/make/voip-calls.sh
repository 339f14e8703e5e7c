#!/usr/bin/env bash
# Makes captures/voip/calls.pcap: ten calls of five subscribers with media both ways (sipp, its PCAP play), tcp.pcap: four calls over one
# TCP connection, calls6.pcap: four calls over IPv6, and rtp-echo.pcap: three calls, one after another, to a callee that sends back what it hears
# (sipp, its RTP echo). Needs root, sipp, tcpdump, ethtool.
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

calls() { # NAME TRANSPORT CALLS SECONDS CALLER CALLEE [OPTION OF THE CALLEE…]
    local name=$1 transport=$2 count=$3 caller_ip=$5 callee_ip=$6
    local to=$callee_ip together=5
    [[ $to != *:* ]] || to="[$to]"
    python3 "$rtp" file a/talk.pcap "$4" ssrc=a11ce000
    python3 "$rtp" file b/talk.pcap "$4" ssrc=b0b00000
    shift 6
    # an echo has one port for all calls
    [ $# -eq 0 ] || together=1
    net_capture "$work/$name.pcap"
    (cd b && at callee timeout 60 sipp -sf uas.xml -i "$callee_ip" -mi "$callee_ip" -p 5060 -t "$transport" -m "$count" -nr -nostdin -trace_err "$@" >out 2>&1) &
    local callee=$!
    sleep 0.4
    (cd a && at caller timeout 60 sipp -sf uac.xml -inf users.csv -i "$caller_ip" -mi "$caller_ip" -p 5060 -t "$transport" -m "$count" -r 5 -l "$together" \
        -nr -nostdin -trace_err "$to:5060" >out 2>&1) || { cat a/*errors.log; exit 1; }
    wait "$callee"
    net_capture_stop
    install -m 644 "$work/$name.pcap" "$out/$name.pcap"
    ls -l "$out/$name.pcap"
}

all=(calls tcp calls6 rtp-echo)
[ $# -eq 0 ] || all=("$@")
net_up
for name in "${all[@]}"; do
    case $name in
        calls) calls calls u1 10 1 10.60.0.2 10.60.0.3 ;;
        tcp) calls tcp t1 4 0.4 10.60.0.2 10.60.0.3 ;;
        calls6) calls calls6 u1 4 0.4 fd60::2 fd60::3 ;;
        rtp-echo)
            # no media of its own, and one port that it listens on
            sed -i -e '/play_pcap_audio/d' -e 's/auto_media_port/media_port/' b/uas.xml
            calls rtp-echo u1 3 1 10.60.0.2 10.60.0.3 -mp 7000 -rtp_echo ;;
    esac
done
