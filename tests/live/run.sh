#!/usr/bin/env bash
# Live calls between namespaces, a hunter on the bridge between them, a processor behind TLS in a namespace of its own.
#
# usage: run.sh LC SCENARIO        needs root, sipp, tcpdump, tshark
#   plain     50 calls, five subscribers targeted
#   cut       the same, the hunter's connection cut for 10 s in mid-call
#   restart   the same, the processor gracefully restarted in mid-call
#   swap      the same, 1000 filters swapped in and out during the calls
#
# Prints what compare.py says; exit 0 only when nothing is missing, extra or twice.
set -euo pipefail
lc=$(realpath "$1") scenario=$2
here=$(realpath "$(dirname "$0")")
make=$here/../../captures/make
work=$(mktemp -d)
cd "$work"
tag=l$$
finish() {
    for n in net caller callee mid; do
        ip netns pids "$tag-$n" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del "$tag-$n" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

ip netns add "$tag-net"
ip -n "$tag-net" link add br0 type bridge
ip -n "$tag-net" link set br0 up
ip -n "$tag-net" link set lo up
n=2
for host in caller callee; do
    ip netns add "$tag-$host"
    ip -n "$tag-net" link add "v-$host" type veth peer name eth0 netns "$tag-$host"
    ip -n "$tag-net" link set "v-$host" master br0 up
    ip -n "$tag-$host" addr add "10.61.0.$n/24" dev eth0
    ip -n "$tag-$host" link set eth0 up
    ip -n "$tag-$host" link set lo up
    n=$((n + 1))
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
"$lc" certs issue hunter edge-1 --dir c -q >/dev/null
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
ip netns exec "$tag-net" tcpdump -i br0 --time-stamp-precision=nano -B 65536 -s 0 -U -w reference.pcap udp 2>/dev/null &
reference=$!
sleep 1
ip netns exec "$tag-net" "$lc" hunt voip -P 10.62.0.2:55555 --id edge-1 -i br0 \
    --tls-cert c/hunter-edge-1.crt --tls-key c/hunter-edge-1.key --tls-ca c/ca.crt 2>hunter.log &
hunter=$!
sleep 2

python3 "$make/rtp.py" file talk.pcap 6 >/dev/null
sed 's/milliseconds="1500"/milliseconds="7000"/' "$make/sipp/uac.xml" > uac.xml
cp "$make/sipp/uas.xml" .
{
    echo SEQUENTIAL
    for i in $(seq -w 1 50); do echo "u$i;v$i"; done
} > users.csv
ip netns exec "$tag-callee" sipp -nostdin -sf uas.xml -i 10.61.0.3 -mi 10.61.0.3 -p 5060 -m 50 >/dev/null 2>&1 &
ip netns exec "$tag-caller" sipp -nostdin -sf uac.xml -inf users.csv -i 10.61.0.2 -mi 10.61.0.2 -p 5060 -m 50 -r 25 10.61.0.3:5060 >/dev/null 2>&1 &
caller=$!
sleep 4
case $scenario in
    plain) ;;
    cut) ip -n "$tag-net" link set up0 down; sleep 10; ip -n "$tag-net" link set up0 up ;;
    restart) kill -TERM "$processor"; wait "$processor"; sleep 1; processor ;;
    swap)
        for round in 1 2 3; do
            { cat f.yaml; for i in $(seq 1000); do echo "  - {id: x$round-$i, type: sip_user, pattern: nobody-$round-$i}"; done; } > g.yaml
            cp f.yaml base.yaml; mv g.yaml f.yaml; sleep 0.6; mv base.yaml f.yaml; sleep 0.6
        done ;;
    *) echo "no scenario $scenario" >&2; exit 2 ;;
esac
wait "$caller" || true
sleep 2
kill -TERM "$hunter"
code=0; wait "$hunter" || code=$?
kill -INT "$reference"; wait "$reference" || true
sleep 1
kill -TERM "$processor"; wait "$processor" || { cat processor.log >&2; exit 1; }
[ "$code" -eq 0 ] || { cat hunter.log >&2; echo "hunter: exit $code" >&2; exit 1; }
tail -n 1 hunter.log
# shellcheck disable=SC2086
python3 "$here/compare.py" reference.pcap calls $users || { tail -n 20 hunter.log processor.log >&2; exit 1; }
