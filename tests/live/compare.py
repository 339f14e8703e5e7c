#!/usr/bin/env python3
"""Compares what a processor filed with what a tcpdump beside the hunter saw, by tshark.

usage: compare.py REFERENCE.pcap[,REFERENCE.pcap…] CALLS_DIR USER [USER…]

A packet is its capture time, its length and the MD5 of its bytes. Truth comes from tshark alone: the Call-IDs whose INVITE names a user, and the
RTP and RTCP between the ports their SDP names. Exit 1 unless every packet of those calls is filed once, and nothing else.
"""
import collections, glob, subprocess, sys

PACKET = ["frame.time_epoch", "frame.len", "frame.md5_hash"]


def tshark(path, fields, display=None):
    command = ["tshark", "-n", "-o", "frame.generate_md5_hash:TRUE", "-r", path, "-T", "fields", "-E", "separator=\t", "-E", "occurrence=a"]
    for f in fields:
        command += ["-e", f]
    if display:
        command += ["-Y", display]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def truth_of(reference, users):
    """Call-IDs of the users' calls, and every packet of them."""
    wanted, ports = set(), set()
    for call, from_user, to_user in tshark(reference, ["sip.Call-ID", "sip.from.user", "sip.to.user"], 'sip.Method == "INVITE"'):
        if {from_user, to_user} & users:
            wanted.add(call)
    for call, address, port in tshark(reference, ["sip.Call-ID", "sdp.connection_info.address", "sdp.media.port"], "sdp"):
        if call in wanted:
            for p in port.split(","):
                ports.add((address, int(p)))
                ports.add((address, int(p) + 1))
    truth = collections.Counter()
    for time, length, digest, call, src, sport, dst, dport in tshark(reference, PACKET + ["sip.Call-ID", "ip.src", "udp.srcport", "ip.dst", "udp.dstport"], "udp"):
        media = not call and ((src, int(sport)) in ports or (dst, int(dport)) in ports)
        if call in wanted or media:
            truth[(time, length, digest)] += 1
    return wanted, truth


def main():
    references, calls, users = sys.argv[1].split(","), sys.argv[2], set(sys.argv[3:])
    wanted, truth = set(), collections.Counter()
    for reference in references:
        more, packets = truth_of(reference, users)
        wanted |= more
        truth += packets
    filed = collections.Counter()
    for path in glob.glob(calls + "/*.pcap"):
        for packet in tshark(path, PACKET):
            filed[tuple(packet)] += 1
    missing, extra = truth - filed, filed - truth
    twice = sum(1 for n in filed.values() if n > 1)
    print(f"calls {len(wanted)} packets {sum(truth.values())} filed {sum(filed.values())} "
          f"missing {sum(missing.values())} extra {sum(extra.values())} twice {twice}")
    for name, some in (("missing", missing), ("extra", extra)):
        for packet in list(some)[:5]:
            print(f"  {name}: {packet}")
    sys.exit(0 if truth and not missing and not extra and not twice else 1)


main()
