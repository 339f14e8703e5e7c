#!/usr/bin/env python3
"""What each capture must show, from the scenarios, and whether tshark agrees.

usage: expect.py write    ../voip/expected.tsv: file, From user, To user, state, SIP messages, media packets, evidence; one row per call
       expect.py check    sums per file against tshark's own count of messages and media packets
"""
import collections, glob, os, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
VOIP = os.path.join(HERE, "..", "voip")

# Where tshark's count differs from the truth, and why
TSHARK = {
    "doubled.pcap": "counts both copies",
    "rtp-first.pcap": "does not go back to the packets before the SDP",
    "odd-tcp.pcap": "misses a message behind CRLFCRLF in one segment and reads no 'CONTENT-LENGTH :'",
    "baresip-ice.pcap": "knows one of the two directions",
    "short.pcap": "knows no port from an SDP that is cut",
    "tcp-disorder.pcap": "may read a message again when its segment comes again",
}

# Media that no SDP announces
UNSIGNALLED = {"mid-call.pcap", "rtp-only.pcap"}


def flows():
    for path in sorted(glob.glob(f"{HERE}/flows/*.flow")):
        name = os.path.basename(path)[:-5]
        if name[-2:-1] != ".":
            parts = [path, *sorted(glob.glob(f"{HERE}/flows/{name}.[0-9].flow"))]
            text = subprocess.run([sys.executable, f"{HERE}/flows.py", "truth", f"{name}.pcap", *parts], capture_output=True, text=True, check=True)
            yield from (line.split("\t") for line in text.stdout.splitlines())


def others():
    for line in open(f"{HERE}/scenarios.tsv", encoding="utf-8"):
        if not line.startswith("#"):
            yield line.rstrip("\n").split("\t")


def fields(path, only, *names):
    # without signalling tshark looks for RTP only when told to, and finds the same
    guess = ["--enable-heuristic", "rtp_udp"] if os.path.basename(path) in UNSIGNALLED else []
    args = ["tshark", "-n", *guess, "-r", path, "-Y", only, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|"]
    for n in names:
        args += ["-e", n]
    text = subprocess.run(args, capture_output=True, text=True, check=False).stdout
    return [line.split("\t") for line in text.splitlines()]


def tshark(path):
    """(SIP messages, RTP and RTCP packets) of a file, as tshark reads it."""
    messages = sum(len(row[0].split("|")) for row in fields(path, "sip", "sip.CSeq.method"))
    return messages, len(fields(path, "rtp or rtcp or t38 or stun", "frame.number"))


def counted(path, row):
    """What tshark counts for a call of phones: its messages, and the datagrams from or to a port that its SDP names, or the one above. With
    ICE there are ports that no SDP names; all UDP that is no SIP is then the only call's."""
    ids = {r[0].split("|")[0] for r in fields(path, f'sip.Method == "INVITE" && sip.from.user == "{row[1]}" && sip.to.user == "{row[2]}"', "sip.Call-ID")}
    assert len(ids) == 1, (path, ids)
    (call,) = ids
    row[4] = str(sum(r[0].split("|").count(call) for r in fields(path, "sip", "sip.Call-ID")))
    ports = {int(p) for r in fields(path, f'sdp && sip.Call-ID == "{call}"', "sdp.media.port") for p in r[0].split("|")}
    ports |= {p + 1 for p in ports}
    media = fields(path, "udp and not sip", "udp.srcport", "udp.dstport")
    row[5] = str(sum(1 for r in media if row[6] == "ice" or {int(r[0]), int(r[1])} & ports))


def write():
    rows = [*flows(), *others()]
    for row in rows:
        if "?" in row:
            counted(f"{VOIP}/{row[0]}", row)
    with open(f"{VOIP}/expected.tsv", "w", encoding="utf-8") as f:
        f.write("# Made by captures/make/expect.py from the scenarios. One row per call: file, From user, To user, state, SIP messages, media packets,\n")
        f.write("# a word the evidence of one of its streams or claims must have.\n")
        f.writelines("\t".join(row) + "\n" for row in rows)


def check():
    sums = collections.defaultdict(lambda: [0, 0])
    for line in open(f"{VOIP}/expected.tsv", encoding="utf-8"):
        if not line.startswith("#"):
            row = line.rstrip("\n").split("\t")
            sums[row[0]][0] += int(row[4])
            sums[row[0]][1] += int(row[5])
    wrong = 0
    for path in sorted(glob.glob(f"{VOIP}/*.pcap*")):
        name = os.path.basename(path)
        got, want = tshark(path), tuple(sums[name])
        note = "ok" if got == want else TSHARK.get(name, "WRONG")
        wrong += note == "WRONG"
        size = os.path.getsize(path)
        wrong += size > 1 << 20
        print(f"{name:24} messages {want[0]:3} media {want[1]:4}   tshark {got[0]:3} {got[1]:4}   {size:7} bytes   {note}")
    total = sum(os.path.getsize(p) for p in glob.glob(f"{VOIP}/*"))
    print(f"{total} bytes in all")
    sys.exit(wrong > 0 or total > 10 << 20)


{"write": write, "check": check}[sys.argv[1]]()
