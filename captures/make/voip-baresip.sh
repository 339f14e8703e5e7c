#!/usr/bin/env bash
# Makes captures/voip/baresip-{udp,tcp}.pcap: registrations and a call with real audio between two baresip through kamailio, which asks both
# for their password; baresip-ice.pcap: the same without the proxy, with ICE candidates and RTCP on the RTP port.
# Needs root, baresip, kamailio, tcpdump, ethtool.
cd "$(dirname "$0")" && . ./net.sh
out=$(realpath ../voip)
here=$PWD
work=$(mktemp -d)
trap 'net_down; rm -rf "$work"' EXIT

phone() { # DIR ADDRESS ACCOUNT
    mkdir -p "$1"
    cat > "$1/config" <<CONF
sip_listen $2:5060
rtp_ports 6000-6099
module_path /usr/lib/baresip/modules
module aufile.so
module g711.so
module ice.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
audio_source aufile,$work/talk.wav
audio_player aufile,$1/heard.wav
audio_alert aufile,$1/ring.wav
rtcp_mux ${MUX:-no}
CONF
    echo "$3" > "$1/accounts"
    touch "$1/contacts"
}

record() { # NAME SECONDS DIAL
    net_capture "$work/$1.pcap"
    if [ "$1" != baresip-ice ]; then
        at proxy kamailio -DD -E -f "$here/baresip/kamailio.cfg" -l udp:10.60.0.4:5060 -l tcp:10.60.0.4:5060 -Y "$work" -w "$work" >"$work/kamailio.log" 2>&1 &
        sleep 1.5
    fi
    # -t: hang up, give back the registration and leave after so many seconds
    at callee baresip -f "$work/$1-bob" -t $(($2 + 4)) >"$work/bob.log" 2>&1 </dev/null &
    local bob=$!
    sleep 1
    at caller baresip -f "$work/$1-alice" -t "$2" -e "/dial $3" >"$work/alice.log" 2>&1 </dev/null || true
    wait $bob || true
    ip netns pids "$NS-proxy" | xargs -r kill 2>/dev/null || true
    net_capture_stop
    [ "${DEBUG-}" ] && cat "$work"/*.log
    install -m 644 "$work/$1.pcap" "$out/$1.pcap"
    ls -l "$out/$1.pcap"
}

python3 - "$work/talk.wav" <<'PY'
import math, struct, sys, wave
with wave.open(sys.argv[1], "wb") as w:
    w.setparams((1, 2, 8000, 0, "NONE", ""))
    w.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 8000 * 2 * math.pi * (300 + n // 8000 * 50)))) for n in range(80000)))
PY
net_up
for t in udp tcp; do
    MUX=no
    for who in alice bob; do
        [ $who = alice ] && ip=10.60.0.2 mode=manual || ip=10.60.0.3 mode=auto
        phone "$work/baresip-$t-$who" $ip \
            "<sip:$who@example.org;transport=$t>;auth_user=$who;auth_pass=secret;outbound=\"sip:10.60.0.4;transport=$t\";regint=600;answermode=$mode;audio_codecs=pcma"
    done
    record baresip-$t 3 "sip:bob@example.org"
done
MUX=yes
phone "$work/baresip-ice-alice" 10.60.0.2 "<sip:alice@10.60.0.2>;regint=0;medianat=ice;audio_codecs=pcmu"
phone "$work/baresip-ice-bob" 10.60.0.3 "<sip:bob@10.60.0.3>;regint=0;medianat=ice;answermode=auto;audio_codecs=pcmu"
record baresip-ice 3 "sip:bob@10.60.0.3"
