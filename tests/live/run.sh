#!/usr/bin/env bash
# Live calls between namespaces, a hunter on the bridge between them, a processor behind TLS in a namespace of its own.
#
# usage: run.sh LC SCENARIO…        needs root, sipp, tcpdump, tshark, python3
#   plain     50 calls, five subscribers targeted
#   cut       the same, the hunter's connection cut for 10 s in mid-call
#   restart   the same, the processor gracefully restarted in mid-call
#   swap      the same, 1000 filters swapped in and out during the calls
#   traffic   the same, with 200 MB of unrelated UDP and TCP beside them
#   hunters   three bridges with 50 calls each, a hunter on each
#
# Prints what compare.py says of each; exit 0 only when nothing is missing, extra or twice.
set -euo pipefail
if [ $# -gt 2 ]; then
    for scenario in "${@:2}"; do
        printf '%s: ' "$scenario"
        "$0" "$1" "$scenario" | tail -n 1
    done
    exit 0
fi
lc=$(realpath "$1") scenario=$2
here=$(realpath "$(dirname "$0")")
make=$here/../../captures/make
work=$(mktemp -d)
cd "$work"
tag=l$$
sites=1
[ "$scenario" != hunters ] || sites=3
hosts=(net mid)
for site in $(seq $sites); do hosts+=("caller$site" "callee$site"); done
finish() {
    for n in "${hosts[@]}"; do
        ip netns pids "$tag-$n" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del "$tag-$n" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

ip netns add "$tag-net"
ip -n "$tag-net" link set lo up
for site in $(seq $sites); do
    ip -n "$tag-net" link add "br$site" type bridge
    ip -n "$tag-net" link set "br$site" up
    n=2
    for host in caller callee; do
        ip netns add "$tag-$host$site"
        ip -n "$tag-net" link add "v-$host$site" type veth peer name eth0 netns "$tag-$host$site"
        ip -n "$tag-net" link set "v-$host$site" master "br$site" up
        ip -n "$tag-$host$site" addr add "10.61.$site.$n/24" dev eth0
        ip -n "$tag-$host$site" link set eth0 up
        ip -n "$tag-$host$site" link set lo up
        n=$((n + 1))
    done
done
ip netns add "$tag-mid"
ip -n "$tag-net" link add up0 type veth peer name eth0 netns "$tag-mid"
ip -n "$tag-net" addr add 10.62.0.1/24 dev up0
ip -n "$tag-net" link set up0 up
ip -n "$tag-mid" addr add 10.62.0.2/24 dev eth0
ip -n "$tag-mid" link set eth0 up
ip -n "$tag-mid" link set lo up

export HOME=$work
"$lc" certs init --dir c -q >/dev/null
"$lc" certs issue processor mid --ip 10.62.0.2 --dir c -q >/dev/null
users="u01 u11 u21 u31 u41"
{
    echo "filters:"
    for u in $users; do echo "  - {id: $u, type: sip_user, pattern: $u}"; done
} > f.yaml
processor() {
    ip netns exec "$tag-mid" "$lc" process --listen 10.62.0.2:55555 --id mid --filter-file f.yaml --per-call-pcap --per-call-pcap-dir calls \
        --state-dir state --tls-cert c/processor-mid.crt --tls-key c/processor-mid.key --tls-ca c/ca.crt --tls-client-auth \
        2>>processor.log &
    processor=$!
}
processor
hunters=() referees=() references=()
for site in $(seq $sites); do
    # the referee looks at calls alone; what the noise is made of stays on ports of its own
    ip netns exec "$tag-net" tcpdump -i "br$site" --time-stamp-precision=nano -B 65536 -s 0 -U -w "reference$site.pcap" \
        'udp and not portrange 40000-65535' 2>"referee$site.log" &
    referees+=($!) references+=("reference$site.pcap")
done
sleep 1
for site in $(seq $sites); do
    "$lc" certs issue hunter "edge-$site" --dir c -q >/dev/null
    ip netns exec "$tag-net" "$lc" hunt voip -P 10.62.0.2:55555 --id "edge-$site" -i "br$site" --promisc --pcap-buffer-size 64M \
        --tls-cert "c/hunter-edge-$site.crt" --tls-key "c/hunter-edge-$site.key" --tls-ca c/ca.crt 2>"hunter$site.log" &
    hunters+=($!)
done
sleep 2

python3 "$make/rtp.py" file talk.pcap 6 >/dev/null
sed 's/milliseconds="1500"/milliseconds="7000"/' "$make/sipp/uac.xml" > uac.xml
cp "$make/sipp/uas.xml" .
{
    echo SEQUENTIAL
    for i in $(seq -w 1 50); do echo "u$i;v$i"; done
} > users.csv
callers=()
for site in $(seq $sites); do
    a=10.61.$site.2 b=10.61.$site.3
    ip netns exec "$tag-callee$site" sipp -nostdin -sf uas.xml -i $b -mi $b -p 5060 -m 50 >/dev/null 2>&1 &
    ip netns exec "$tag-caller$site" sipp -nostdin -sf uac.xml -inf users.csv -i $a -mi $a -p 5060 -m 50 -r 25 $b:5060 >/dev/null 2>&1 &
    callers+=($!)
done
[ "$scenario" = traffic ] || sleep 4
case $scenario in
    plain | hunters) ;;
    cut) ip -n "$tag-net" link set up0 down; sleep 10; ip -n "$tag-net" link set up0 up ;;
    restart)
        kill -TERM "$processor"; wait "$processor"
        # its hunters are told, so that nothing has to be cut and they look for its successor at once
        if grep "cutting them" processor.log >&2; then exit 1; fi
        sleep 1; processor ;;
    swap)
        for round in 1 2 3; do
            { cat f.yaml; for i in $(seq 1000); do echo "  - {id: x$round-$i, type: sip_user, pattern: nobody-$round-$i}"; done; } > g.yaml
            cp f.yaml base.yaml; mv g.yaml f.yaml; sleep 0.6; mv base.yaml f.yaml; sleep 0.6
        done ;;
    traffic)
        ip netns exec "$tag-callee1" python3 "$here/noise.py" serve 10.61.1.3 &
        disown # it is killed at the end, which is nothing to tell
        sleep 0.3
        ip netns exec "$tag-caller1" python3 "$here/noise.py" send 10.61.1.3 200 8 ;;
    *) echo "no scenario $scenario" >&2; exit 2 ;;
esac
for caller in "${callers[@]}"; do wait "$caller" || true; done
sleep 2
for hunter in "${hunters[@]}"; do kill -TERM "$hunter"; done
for hunter in "${hunters[@]}"; do
    code=0; wait "$hunter" || code=$?
    [ "$code" -eq 0 ] || { cat hunter*.log >&2; echo "hunter: exit $code" >&2; exit 1; }
done
for referee in "${referees[@]}"; do kill -INT "$referee"; wait "$referee" || true; done
grep -q '^0 packets dropped by kernel' referee1.log || { cat referee*.log >&2; echo "the referee lost packets: nothing can be said" >&2; exit 1; }
sleep 1
kill -TERM "$processor"; wait "$processor" || { cat processor.log >&2; exit 1; }
tail -qn 1 hunter*.log
# shellcheck disable=SC2086
python3 "$here/compare.py" "$(IFS=,; echo "${references[*]}")" calls $users || { tail -n 20 hunter*.log processor.log >&2; exit 1; }
