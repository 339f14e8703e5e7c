#!/usr/bin/env bash
# Makes captures/voip/baresip-{udp,tcp}.pcap: registrations and a call with real audio between two baresip through kamailio, which asks both
# for their password; baresip-ice.pcap: the same without the proxy, with ICE candidates and RTCP on the RTP port; baresip-transfer.pcap: over IPv6,
# with a hold, digits, and a transfer to carol, whose phone stands on bob's host.
# Needs root, baresip, kamailio, tcpdump, ethtool.
cd "$(dirname "$0")" && . ./net.sh
out=$(realpath ../voip)
here=$PWD
work=$(mktemp -d)
trap 'net_down; rm -rf "$work"' EXIT

phone() { # DIR ADDRESS ACCOUNT [PORT FIRST_MEDIA_PORT]
    mkdir -p "$1"
    cat > "$1/config" <<CONF
sip_listen $2:${4:-5060}
rtp_ports ${5:-6000}-$((${5:-6000} + 99))
module_path /usr/lib/baresip/modules
module aufile.so
module g711.so
module ice.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:$((${4:-5060} - 600))
audio_source aufile,$work/talk.wav
audio_player aufile,$1/heard.wav
audio_alert aufile,$1/ring.wav
rtcp_mux ${MUX:-no}
CONF
    echo "$3" > "$1/accounts"
    touch "$1/contacts"
}

proxy() { # ADDRESS
    at proxy kamailio -DD -E -f "$here/baresip/kamailio.cfg" -l "udp:$1:5060" -l "tcp:$1:5060" -Y "$work" -w "$work" >"$work/kamailio.log" 2>&1 &
    sleep 1.5
}

record() { # NAME SECONDS DIAL
    net_capture "$work/$1.pcap"
    [ "$1" = baresip-ice ] || proxy 10.60.0.4
    # -t: hang up, give back the registration and leave after so many seconds
    at callee baresip -f "$work/$1-bob" -t $(($2 + 4)) >"$work/bob.log" 2>&1 </dev/null &
    local bob=$!
    sleep 1
    at caller baresip -f "$work/$1-alice" -t "$2" -e "/dial $3" >"$work/alice.log" 2>&1 </dev/null || true
    wait $bob || true
    keep "$1"
}

keep() { # NAME
    ip netns pids "$NS-proxy" | xargs -r kill 2>/dev/null || true
    net_capture_stop
    [ "${DEBUG-}" ] && cat "$work"/*.log
    install -m 644 "$work/$1.pcap" "$out/$1.pcap"
    ls -l "$out/$1.pcap"
}

transfer() {
    local pids=()
    phone "$work/t-alice" "[fd60::2]" "<sip:alice@example.org>;$(account alice manual)"
    phone "$work/t-bob" "[fd60::3]" "<sip:bob@example.org>;$(account bob auto)"
    phone "$work/t-carol" "[fd60::3]" "<sip:carol@example.org>;$(account carol auto)" 5070 6200
    net_capture "$work/baresip-transfer.pcap"
    proxy "[fd60::4]"
    at callee baresip -6 -f "$work/t-bob" -t 14 >"$work/bob.log" 2>&1 </dev/null & pids+=($!)
    at callee baresip -6 -f "$work/t-carol" -t 14 >"$work/carol.log" 2>&1 </dev/null & pids+=($!)
    at caller baresip -6 -f "$work/t-alice" -t 14 >"$work/alice.log" 2>&1 </dev/null & pids+=($!)
    sleep 1
    # what bob's hands do: alice's call is put on hold, taken back, and given to carol
    at caller python3 - 4460 "dial sip:bob@example.org" 2 "sndcode 42#" 1.5 <<<"$press"
    at callee python3 - 4460 hold 1 resume 1 "transfer sip:carol@example.org" 2 <<<"$press"
    at caller python3 - 4460 hangup 1 <<<"$press"
    for p in "${pids[@]}"; do wait "$p" || true; done
    keep baresip-transfer
}

account() { # USER ANSWER_MODE
    echo "auth_user=$1;auth_pass=secret;outbound=\"sip:[fd60::4]\";regint=600;answermode=$2;audio_codecs=pcma"
}

# usage: PORT (COMMAND | SECONDS)…: a baresip's commands, as netstrings of JSON (module ctrl_tcp)
press='
import json, socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for word in sys.argv[2:]:
    if word[0].isdigit():
        time.sleep(float(word))
    else:
        command, _, params = word.partition(" ")
        text = json.dumps({"command": command, "params": params}).encode()
        s.sendall(b"%d:%s," % (len(text), text))
'

python3 - "$work/talk.wav" <<'PY'
import math, struct, sys, wave
with wave.open(sys.argv[1], "wb") as w:
    w.setparams((1, 2, 8000, 0, "NONE", ""))
    w.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 8000 * 2 * math.pi * (300 + n // 8000 * 50)))) for n in range(80000)))
PY
net_up
[ $# -gt 0 ] || set -- udp tcp ice transfer
for name in "$@"; do
    MUX=no
    case $name in
        udp | tcp)
            for who in alice bob; do
                [ $who = alice ] && ip=10.60.0.2 mode=manual || ip=10.60.0.3 mode=auto
                phone "$work/baresip-$name-$who" $ip \
                    "<sip:$who@example.org;transport=$name>;auth_user=$who;auth_pass=secret;outbound=\"sip:10.60.0.4;transport=$name\";regint=600;answermode=$mode;audio_codecs=pcma"
            done
            record "baresip-$name" 3 "sip:bob@example.org" ;;
        ice)
            MUX=yes
            phone "$work/baresip-ice-alice" 10.60.0.2 "<sip:alice@10.60.0.2>;regint=0;medianat=ice;audio_codecs=pcmu"
            phone "$work/baresip-ice-bob" 10.60.0.3 "<sip:bob@10.60.0.3>;regint=0;medianat=ice;answermode=auto;audio_codecs=pcmu"
            record baresip-ice 3 "sip:bob@10.60.0.3" ;;
        transfer) transfer ;;
    esac
done
