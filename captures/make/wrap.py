#!/usr/bin/env python3
"""Rewrites a capture (pcap, nanoseconds, Ethernet) as another network would have carried or another tap would have seen it.

usage: wrap.py KIND IN.pcap OUT.pcap

tunnels: vlan qinq mpls pppoe gre nvgre erspan1 erspan2 erspan3 vxlan geneve gtpu ipip 6in4 esp (NULL cipher, 12 bytes of integrity value)
link types: sll sll2 raw null
formats: us-le us-be ns-be (pcap); pcapng (three interfaces: nanoseconds, microseconds, 2^-30 s with an offset)
doubled   every packet again after 0.4 ms, one router later (TTL − 1, other MAC addresses)
mid-call  without the packets before the first RTP packet
disorder  the first four TCP data segments in the order 2 1 4 3, the third of them once more at the end
short     cut: RTP behind its header, RTCP in the middle of a report, everything else behind 460 bytes
"""
import hashlib, struct, sys

TAP, MONITOR = bytes([10, 60, 9, 1]), bytes([10, 60, 9, 2])
MACS = bytes.fromhex("020000000902" "020000000901")


def read(path):
    data = open(path, "rb").read()
    magic, _, _, _, _, _, link = struct.unpack("<IHHiIII", data[:24])
    assert (magic, link) == (0xA1B23C4D, 1), path
    at, out = 24, []
    while at < len(data):
        sec, nano, size, wire = struct.unpack("<IIII", data[at:at + 16])
        out.append((sec * 10**9 + nano, data[at + 16:at + 16 + size], wire))
        at += 16 + size
    return out


def write(path, frames, link=1):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link))
        for ts, frame, *wire in frames:
            f.write(struct.pack("<IIII", ts // 10**9, ts % 10**9, len(frame), wire[0] if wire else len(frame)) + frame)


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(proto, payload, ident):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident & 0xFFFF, 0, 64, proto, 0, TAP, MONITOR)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(port, payload, ident):
    return ipv4(17, struct.pack(">HHHH", 49152 + ident % 1000, port, 8 + len(payload), 0) + payload, ident)


def outer(packet):
    return MACS + b"\x08\0" + packet


def wrap(kind, n, frame):
    macs, ether, ip = frame[:12], frame[12:14], frame[14:]
    match kind:
        case "vlan": return macs + bytes.fromhex("8100e064") + ether + ip
        case "qinq": return macs + bytes.fromhex("88a80064" "810000c8") + ether + ip
        case "mpls": return macs + bytes.fromhex("8847" "00010040" "00011140") + ip
        case "pppoe": return macs + bytes.fromhex("8864" "11000007") + struct.pack(">H", len(ip) + 2) + bytes.fromhex("0021") + ip
        case "gre": return outer(ipv4(47, b"\0\0" + ether + ip, n))
        case "nvgre": return outer(ipv4(47, struct.pack(">HHI", 0x2000, 0x6558, 4242 << 8) + frame, n))
        case "erspan1": return outer(ipv4(47, struct.pack(">HH", 0, 0x88BE) + frame, n))
        case "erspan3": return outer(ipv4(47, struct.pack(">HHI", 0x1000, 0x22EB, n) + struct.pack(">HHIHH", 0x2064, 1, n, 0, 0) + frame, n))
        case "erspan2": return outer(ipv4(47, struct.pack(">HHI", 0x1000, 0x88BE, n) + struct.pack(">HHI", 0x1064, 0x0001, 0) + frame, n))
        case "vxlan": return outer(udp(4789, struct.pack(">II", 0x08000000, 4242 << 8) + frame, n))
        case "geneve": return outer(udp(6081, struct.pack(">BBHI", 2, 0, 0x6558, 99 << 8) + struct.pack(">HBBI", 0x0102, 1, 1, n) + frame, n))
        case "gtpu": return outer(udp(2152, struct.pack(">BBHI", 0x30, 255, len(ip), 0x1234) + ip, n))
        case "ipip": return outer(ipv4(4, ip, n))
        case "6in4": return outer(ipv4(41, ip, n))
        case "esp": return macs + ether + esp(n, ip)
        case "sll": return struct.pack(">HHH", 0, 1, 6) + macs[6:12] + b"\0\0" + ether + ip
        case "sll2": return ether + struct.pack(">HIHBB", 0, 2, 1, 0, 6) + macs[6:12] + b"\0\0" + ip
        case "raw": return ip
        case "null": return struct.pack("<I", 2) + ip


def esp(n, ip):
    """The datagram's content behind an ESP header, in transport mode (RFC 4303 §3.1.1, RFC 2410)."""
    content = ip[20:struct.unpack(">H", ip[2:4])[0]]
    padding = bytes(range(1, 1 + -(len(content) + 2) % 4))
    body = struct.pack(">II", 0x5EC, n + 1) + content + padding + bytes([len(padding), ip[9]]) + hashlib.sha256(content).digest()[:12]
    head = ip[:2] + struct.pack(">H", 20 + len(body)) + ip[4:9] + b"\x32\0\0" + ip[12:20]
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def write_classic(path, frames, order, fraction):
    """pcap in either byte order, with micro- or nanoseconds."""
    with open(path, "wb") as f:
        f.write(struct.pack(f"{order}IHHiIII", 0xA1B2C3D4 if fraction == 10**6 else 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for ts, frame, wire in frames:
            f.write(struct.pack(f"{order}IIII", ts // 10**9, ts % 10**9 * fraction // 10**9, len(frame), wire) + frame)


def write_pcapng(path, frames):
    """SIP on the first interface, the caller's media on the second, the callee's, without Ethernet, on the third."""
    resolutions = [(10**9, 0), (10**6, 0), (2**30, 1_700_000_000)]

    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))

    def option(code, value):
        return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)

    with open(path, "wb") as f:
        f.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
        f.write(block(1, struct.pack("<HHI", 1, 0, 0) + option(2, b"sip0") + option(9, b"\x09") + option(0, b"")))
        f.write(block(1, struct.pack("<HHI", 1, 0, 0) + option(2, b"rtp0")))
        f.write(block(1, struct.pack("<HHI", 101, 0, 0) + option(2, b"tun0") + option(9, b"\x9e")
                      + option(14, struct.pack("<q", resolutions[2][1])) + option(0, b"")))
        for ts, frame, wire in frames:
            interface = 0 if frame[42] != 0x80 and frame[43] not in (200, 202) else 1 if frame[29] == 2 else 2
            if interface == 2:
                frame, wire = frame[14:], wire - 14
            per_second, offset = resolutions[interface]
            ticks = -(-(ts - offset * 10**9) * per_second // 10**9) if per_second == 2**30 else ts * per_second // 10**9
            f.write(block(6, struct.pack("<IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire) + frame))


LINKS = {"sll": 113, "sll2": 276, "raw": 101, "null": 0}


def one_hop_later(frame):
    head = bytearray(frame[14:34])
    head[8] -= 1
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack(">H", checksum(bytes(head)))
    return MACS + frame[12:14] + bytes(head) + frame[34:]


def is_rtp(frame):
    return frame[23] == 17 and frame[42] == 0x80 and frame[43] & 0x7F < 72


def has_tcp_data(frame):
    return frame[23] == 6 and struct.unpack(">H", frame[16:18])[0] > 20 + (frame[46] >> 4) * 4


def disorder(frames):
    data = [n for n, (_, frame, _) in enumerate(frames) if has_tcp_data(frame)][:4]
    out = [list(f) for f in frames]
    for a, b in zip(data[::2], data[1::2]):
        # only segments of one direction change places: nobody answers what has not arrived
        if frames[a][1][26:34] == frames[b][1][26:34]:
            out[a][1:], out[b][1:] = frames[b][1:], frames[a][1:]
    again = list(frames[data[2]])
    again[0] += 3 * 10**8
    return sorted(out + [again], key=lambda f: f[0])


def main():
    kind, source, target = sys.argv[1:]
    frames = read(source)
    if kind == "doubled":
        twice = [(ts + later, one_hop_later(f) if later else f) for ts, f, _ in frames for later in (0, 400_000)]
        write(target, sorted(twice, key=lambda x: x[0]))
    elif kind == "mid-call":
        first = next(n for n, (_, f, _) in enumerate(frames) if is_rtp(f))
        write(target, frames[first:])
    elif kind == "disorder":
        write(target, disorder(frames))
    elif kind == "short":
        write(target, [(ts, f[:54 if f[42] == 0x80 else 460], len(f)) for ts, f, _ in frames])
    elif kind in ("us-le", "us-be", "ns-be"):
        write_classic(target, frames, ">" if kind.endswith("be") else "<", 10**6 if kind.startswith("us") else 10**9)
    elif kind == "pcapng":
        write_pcapng(target, frames)
    else:
        write(target, [(ts, wrap(kind, n, f)) for n, (ts, f, _) in enumerate(frames)], LINKS.get(kind, 1))


main()
