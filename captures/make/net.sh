# Sourced: a small network of namespaces on this machine.
#
#   caller 10.60.0.2, fd60::2 ─┐
#   callee 10.60.0.3, fd60::3 ─┼─ bridge br0 (where tcpdump listens)
#   proxy  10.60.0.4, fd60::4 ─┘
#
# net_up; net_capture FILE.pcap; …; net_capture_stop; net_down. `at caller COMMAND…` runs a command on a host.
set -euo pipefail

NS=${LC_NET:-lcmake$$}

net_up() {
    net_down
    ip netns add "$NS-net"
    ip -n "$NS-net" link add br0 type bridge
    ip -n "$NS-net" link set br0 up
    ip -n "$NS-net" link set lo up
    local n=2
    for host in caller callee proxy; do
        ip netns add "$NS-$host"
        ip -n "$NS-net" link add "v-$host" type veth peer name eth0 netns "$NS-$host"
        ip -n "$NS-net" link set "v-$host" master br0 up
        ip -n "$NS-$host" addr add "10.60.0.$n/24" dev eth0
        ip -n "$NS-$host" addr add "fd60::$n/64" dev eth0 nodad
        ip -n "$NS-$host" link set eth0 up
        ip -n "$NS-$host" link set lo up
        # frames as they would be on a wire: whole checksums, no segments larger than the MTU
        ip netns exec "$NS-$host" ethtool -K eth0 tx off tso off gso off gro off >/dev/null 2>&1 || true
        ip netns exec "$NS-net" ethtool -K "v-$host" tx off tso off gso off gro off >/dev/null 2>&1 || true
        n=$((n + 1))
    done
    sleep 0.5
}

net_down() {
    for host in net caller callee proxy; do
        ip netns pids "$NS-$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns del "$NS-$host" 2>/dev/null || true
    done
}

net_capture() {
    ip netns exec "$NS-net" tcpdump -i br0 --immediate-mode --time-stamp-precision=nano -s 0 -U -w "$1" 'not icmp and not icmp6 and not arp and not igmp and not ip6[6] = 0' 2>/dev/null &
    CAPTURE=$!
    until [ -s "$1" ]; do sleep 0.1; done
    sleep 0.3
}

net_capture_stop() {
    sleep 0.7
    kill -INT "$CAPTURE"
    wait "$CAPTURE" || true
}

at() { local host=$1; shift; ip netns exec "$NS-$host" "$@"; }
