#!/usr/bin/env bash
# Makes every capture again and counts them with tshark. Needs root, network namespaces, sipp, baresip, kamailio, tcpdump, ethtool, tshark.
cd "$(dirname "$0")"
set -euo pipefail
./voip-flows.sh
./voip-calls.sh
./voip-baresip.sh
./voip-odd.sh
./voip-wrapped.sh
python3 expect.py write
python3 expect.py check
