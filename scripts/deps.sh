#!/usr/bin/env bash
# Installs what is missing on a Debian machine: `scripts/deps.sh build|demo|test|captures`. The only list of packages.
#
# Without root it says what to install, and goes on: a build that can do without will, one that cannot fails with its own
# message.
set -euo pipefail

BUILD=(build-essential libpcap-dev)
DEMO=("${BUILD[@]}" jq tcpdump bsdextrautils)
TEST=("${DEMO[@]}" tshark nftables iproute2 sip-tester python3 python3-venv openssl curl procps systemd faketime e2fsprogs)
CAPTURES=("${TEST[@]}" baresip-core kamailio ethtool)

case "${1:-}" in
    build) packages=("${BUILD[@]}") ;;
    demo) packages=("${DEMO[@]}") ;;
    test) packages=("${TEST[@]}") ;;
    captures) packages=("${CAPTURES[@]}") ;;
    *) echo "usage: $0 build|demo|test|captures" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "deps: not a Debian machine; needed here: ${packages[*]}" >&2
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "deps: missing ${missing[*]}; as root: apt-get install ${missing[*]}" >&2
    exit 0
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
