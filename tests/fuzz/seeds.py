#!/usr/bin/env python3
"""Makes tests/fuzz/corpus/NAME/seed-* from captures/: what each entry of src/entry.rs begins with. Findings beside them are left alone.

usage: seeds.py
"""
import glob, os, random, struct

HERE = os.path.dirname(os.path.abspath(__file__))
VOIP = os.path.join(HERE, "..", "..", "captures", "voip")
LINKS = [1, 0, 101, 108, 113, 276, 228, 229]


def frames(name):
    """(link type, frame) of a little-endian pcap with nanoseconds."""
    data = open(os.path.join(VOIP, name), "rb").read()
    magic, link = struct.unpack("<I", data[:4])[0], struct.unpack("<I", data[20:24])[0]
    assert magic == 0xA1B23C4D, name
    at, found = 24, []
    while at < len(data):
        size = struct.unpack("<I", data[at + 8:at + 12])[0]
        found.append((link, data[at + 16:at + 16 + size]))
        at += 16 + size
    return found


def payload(frame):
    """(protocol, ports, payload) of Ethernet with IPv4 or IPv6 without options."""
    ether, ip = frame[12:14], frame[14:]
    if ether == b"\x08\0":
        if struct.unpack(">H", ip[6:8])[0] & 0x3FFF:
            return None, None, b""
        proto, body = ip[9], ip[20:struct.unpack(">H", ip[2:4])[0]]
    elif ether == b"\x86\xdd":
        proto, body = ip[6], ip[40:]
    else:
        return None, None, b""
    ports = body[:4]
    return proto, ports, body[8:] if proto == 17 else body[(body[12] >> 4) * 4:] if proto == 6 else b""


def head(name, count):
    """The first packets of a capture file, as it is."""
    data = open(os.path.join(VOIP, name), "rb").read()
    order = "<" if data[:1] in (b"\x4d", b"\xd4") else ">"
    at = 24
    for _ in range(count):
        if at >= len(data):
            break
        at += 16 + struct.unpack(order + "I", data[at + 8:at + 12])[0]
    return data[:at]


def field(number, value):
    """One protobuf field: an integer, bytes, or text."""
    def varint(n):
        out = b""
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n])
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def batches():
    plain = [f for _, f in frames("plain.pcap")]
    times = range(1_700_000_000_000_000_000, 1_700_000_000_100_000_000, 20_000_000)
    ours = b"".join(field(4, field(1, f) + field(2, t) + field(3, len(f)) + field(4, len(f)) + field(6, 1) + field(200, 1) + field(201, 2))
                    for f, t in zip(plain, times))
    ours += field(1, "edge-1") + field(2, 7) + field(3, times[0]) + field(5, field(1, 100) + field(2, 5) + field(4, 3))
    ours += b"\xc1\x0c" + struct.pack("<Q", 0x123456789ABCDEF) + field(201, 600) + field(203, 4)
    ours += field(202, field(1, 3) + field(2, 4) + field(3, 900) + field(4, "mem_full"))
    ours += field(204, field(1, "1-24511@10.60.0.2") + field(2, "case-1") + field(2, "case-2") + field(3, "sip"))
    ours += field(204, field(1, "1-24511@10.60.0.2") + field(2, "case-1") + field(3, "media") + field(4, "sdp message 1"))
    sip = field(1, "INVITE") + field(2, "1-24511@10.60.0.2") + field(3, "alice") + field(4, "bob") + field(5, 0) + field(13, "INVITE")
    about = field(1, "SIP") + field(2, "10.60.0.2") + field(3, "10.60.0.3") + field(4, 5060) + field(5, 5060) + field(6, "UDP") + field(7, sip)
    old = field(1, "go-hunter") + field(2, 1) + field(3, times[0])
    old += b"".join(field(4, field(1, f) + field(2, t) + field(3, len(f)) + field(4, len(f)) + field(7, about) + field(8, "eth0") + field(9, "f1"))
                    for f, t in zip(plain[:3], times))
    yield ours
    yield old
    yield b"\0" + struct.pack(">I", len(ours)) + ours + b"\0" + struct.pack(">I", len(old)) + old


FILTERS = ["""filters:
  - id: case-1
    type: sip_user
    pattern: "alice"
    description: the subscriber
    media: headers
    targets: [edge-1, edge-2]
  - {id: b, type: phone_number, pattern: "*5550100", enabled: false}
""", """filters:
  - {id: uri, type: sip_uri, pattern: "*@example.org"}
  - {id: call, type: call_id, pattern: 'a\\*b*'}
  - {id: codec, type: codec, pattern: PCMA}
  - {id: net4, type: ip_address, pattern: 10.60.0.0/24}
  - {id: net6, type: ip, pattern: "fd60::/64"}
  - {id: imsi, type: imsi, pattern: "262011234567890"}
  - {id: imei, type: imei, pattern: "490154203237518"}
  - {id: bpf, type: bpf, pattern: "udp port 5060 and not host 192.0.2.1"}
""", "filters: []\n"]

YAML = """# a hunter and a processor
hunter:
  processor_addr: [mid-a.example, "mid-b.example:55556"]
  interfaces: [eth0, eth1]
  batch_size: 512
  batch_timeout: 50ms
  tls: {cert_file: /etc/lippycat/hunter.crt, key_file: /etc/lippycat/hunter.key, ca_file: /etc/lippycat/ca.crt}
processor:
  listen: "[::]:55555"
voip:
  phone_country: "49"
  lookback: 30s
log: {level: debug}
"""
TOML = """[hunter]
processor_addr = ["mid-a.example", "mid-b.example:55556"]
batch_size = 512
batch_timeout = "50ms"
tls = { cert_file = "/etc/lippycat/hunter.crt", key_file = "/etc/lippycat/hunter.key" }

[voip]
phone_country = "49"
lookback = "30s"
"""


def seeds():
    """(entry, bytes), in the same order every time."""
    names = sorted(os.path.basename(p) for p in glob.glob(f"{VOIP}/*.pcap"))
    names = [n for n in names if not n.startswith("format-")]
    # packet: the first frame of each carrier; of the others one of each kind
    for name in names:
        if name.startswith(("tunnel-", "link-")):
            for link, frame in (frames(name)[0], frames(name)[10]):
                yield "packet", bytes([LINKS.index(link)]) + frame
    for name, n in (("plain.pcap", 0), ("plain.pcap", 10), ("ipv6.pcap", 0), ("tcp-long.pcap", 0), ("tcp6.pcap", 3), ("fragments.pcap", 0),
                    ("fragments.pcap", 1), ("fragments6.pcap", 0), ("fragments6.pcap", 2)):
        yield "packet", b"\0" + frames(name)[n][1]
    yield "packet", bytes([6]) + frames("plain.pcap")[0][1][14:]
    yield "packet", bytes([7]) + frames("ipv6.pcap")[0][1][14:]

    for name in ("fragments.pcap", "fragments6.pcap"):
        pieces = [f for _, f in frames(name)][:8]
        yield "defrag", b"".join(struct.pack(">HB", len(f), 5) + f for f in pieces)
        yield "defrag", b"".join(struct.pack(">HB", len(f), 5) + f for f in [*reversed(pieces), *pieces[:2]])

    rng = random.Random(1)
    for isn in (0, 0xFFFFFF00, 1_234_567):
        steps, at = [bytes([0x10, 0, 0, 0])], 1
        for _ in range(40):
            size = rng.choice([1, 40, 200, 255])
            jump = rng.choice([0, 0, 0, 0, 300, -100])
            steps.append(struct.pack(">BHB", rng.choice([0, 0, 0, 0x40, 4, 5]), max(0, at + jump) & 0xFFFF, size))
            at += size
        steps.append(struct.pack(">BHB", 0x20, at & 0xFFFF, 3))
        yield "tcp", struct.pack(">I", isn) + b"".join(steps)

    seen, streams = set(), {}
    for name in names:
        for link, frame in frames(name):
            if link != 1 or name.startswith(("tunnel-", "doubled", "short", "tcp-disorder")):
                continue
            proto, ports, data = payload(frame)
            if proto == 6 and data:
                streams[name, ports] = streams.get((name, ports), b"") + data
            if proto == 17 and b"SIP/2.0" in data[:200]:
                # one of each kind of message of the plain calls, every odd one
                kind = data.split(b" ")[:2]
                kind = (kind[1] if kind[0] == b"SIP/2.0" else kind[0], b"sdp" in data, "baresip" in name)
                if "odd" in name or kind not in seen:
                    seen.add(kind)
                    yield "sip", data
                    if b"\r\n\r\nv=" in data:
                        yield "sdp", data.split(b"\r\n\r\n", 1)[1]
    for (name, _), data in sorted(streams.items()):
        if name == "odd-ws.pcap":
            yield "ws", data
        elif name in ("odd-tcp.pcap", "tcp-long.pcap"):
            yield "sip", data
    for name in ("media-lines.pcap", "t38.pcap", "baresip-ice.pcap", "dtmf.pcap"):
        for _, frame in frames(name):
            data = payload(frame)[2]
            if b"m=" in data:
                yield "sdp", data[data.index(b"v=0"):]
                break

    for name, count in (("plain.pcap", 12), ("dtmf.pcap", 50), ("loss.pcap", 100), ("baresip-ice.pcap", 60), ("baresip-udp.pcap", 60)):
        out, n = b"", 0
        for _, frame in frames(name):
            proto, _, data = payload(frame)
            if proto == 17 and data and b"SIP/2.0" not in data and len(data) < 256 and n < count:
                # long audio says no more than its first bytes
                data = data if data[1] & 0x7F in (72, 73, 74, 101) or data[0] < 0x80 else data[:20]
                out, n = out + bytes([len(data)]) + data, n + 1
        yield "rtp", out

    for name in ("format-us-le.pcap", "format-us-be.pcap", "format-ns-be.pcap", "plain.pcap", "link-sll2.pcap", "short.pcap"):
        yield "pcap", head(name, 8)
    yield "pcap", open(os.path.join(VOIP, "format-pcapng.pcapng"), "rb").read()[:4096]

    for data in batches():
        yield "batch", b"\x40" + data
    for text in FILTERS:
        yield "filters", text.encode()
    for text in ("udp port 5060 or tcp portrange 5060-5062", "host 192.0.2.1 and not net 10.0.0.0/8", "ip6 host 2001:db8::1 || vlan 5 && mpls",
                 "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "ip[2:2] * 3 / (ip[8] - 17) << ip[9] >> 2 != 5 or len > 40", "port sip and ip proto \\udp",
                 "ether host 02:00:00:00:00:01 and ip6 protochain 17 and greater 60"):
        yield "bpf", text.encode()
    yield "spool", bytes([20, 0, *range(8)])
    yield "spool", bytes([31, 9, *[255, 1] * 4]) + bytes.fromhex("000401 004020 010080 0fff01")
    yield "spool", bytes([3, 70, *[40] * 8])
    yield "config", b"\0" + YAML.encode()
    yield "config", b"\1" + TOML.encode()

    for name, count in (("cancelled.pcap", 99), ("refused.pcap", 99), ("message.pcap", 99), ("register.pcap", 99), ("short.pcap", 99), ("odd-ws.pcap", 99),
                        ("odd-tcp.pcap", 99), ("odd-syntax.pcap", 40), ("fragments.pcap", 20), ("fragments6.pcap", 20), ("plain.pcap", 20),
                        ("rtp-first.pcap", 30), ("tunnel-vxlan.pcap", 15), ("hold.pcap", 30), ("tcp-disorder.pcap", 20), ("nat.pcap", 20)):
        yield "engine", head(name, count)


def main():
    for old in glob.glob(f"{HERE}/corpus/*/seed-*"):
        os.remove(old)
    number, total = {}, 0
    for entry, data in seeds():
        n = number[entry] = number.get(entry, 0) + 1
        os.makedirs(f"{HERE}/corpus/{entry}", exist_ok=True)
        with open(f"{HERE}/corpus/{entry}/seed-{n:02}", "wb") as f:
            f.write(data)
        total += len(data)
    print(number, total, "bytes")


main()
