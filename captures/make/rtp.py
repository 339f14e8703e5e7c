#!/usr/bin/env python3
"""RTP (RFC 3550) with a tone in it, from a socket or as a capture file for sipp's play_pcap_audio.

usage: rtp.py file OUT.pcap SECONDS [KEY=VALUE…]
       rtp.py send FROM_IP,PORT TO_IP,PORT SECONDS [KEY=VALUE…]
       rtp.py count SECONDS [KEY=VALUE…]        print how many packets that is

keys: ssrc=HEX  pt=N (default 8)  seq=N  dtmf=DIGITS (RFC 4733, payload type 101, sent after the tone)  rtcp (two sender reports to the next
port, rtcp=mux to the same)  lose=N,N (positions not sent)  late=N (that packet is sent after its successor)
"""
import math, socket, struct, sys, time, zlib

SAMPLES = {0: 160, 8: 160, 9: 160, 18: 160, 111: 960}
DIGITS = "0123456789*#ABCD"


def alaw(sample):
    sign = 0x80 if sample >= 0 else 0
    s = min(abs(sample), 32635)
    if s >= 256:
        exp = 7
        while exp > 1 and not s & (0x80 << exp):
            exp -= 1
        value = (exp << 4) | ((s >> (exp + 3)) & 0x0F)
    else:
        value = s >> 4
    return (sign | value) ^ 0x55


def audio(pt, n):
    if pt in (8, 0):
        return bytes(alaw(int(8000 * math.sin(2 * math.pi * 440 * (n * 160 + i) / 8000))) for i in range(160))
    return bytes((n + i) & 0xFF for i in range({9: 160, 18: 20}.get(pt, 80)))


def packets(seconds, keys):
    """Yields (time slot of 20 ms, packet)."""
    pt, ssrc, seq = int(keys.get("pt", 8)), int(keys["ssrc"], 16), int(keys.get("seq", 1000))
    lose = {int(n) for n in keys.get("lose", "").split(",") if n}
    late = int(keys["late"]) if "late" in keys else None
    stamp, slot, held = 160000 + ((seq - 1000) & 0xFFFF) * SAMPLES[pt], 0, None
    for n in range(int(seconds * 50)):
        packet = struct.pack(">BBHII", 0x80, pt | (0x80 if n == 0 else 0), (seq + n) & 0xFFFF, stamp, ssrc) + audio(pt, n)
        if n == late:
            held = packet
        elif n not in lose:
            yield slot, packet
            if held:
                yield slot, held
                held = None
        stamp, slot = stamp + SAMPLES[pt], slot + 1
    seq += int(seconds * 50)
    for digit in keys.get("dtmf", ""):
        for n in range(8):
            end, length = (0x80, 800) if n >= 5 else (0, 160 * (n + 1))
            event = struct.pack(">BBH", DIGITS.index(digit), end | 10, length)
            yield slot, struct.pack(">BBHII", 0x80, 101 | (0x80 if n == 0 else 0), seq & 0xFFFF, stamp, ssrc) + event
            seq, slot = seq + 1, slot + (1 if n < 5 else 0)
        stamp, slot = stamp + 1600, slot + 5


def report(ssrc, sent, stamp):
    now = time.time() + 2208988800
    sr = struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, int(now), int(now % 1 * 2**32), stamp, sent, sent * 160)
    cname = b"\x01\x10media@example.org"
    sdes = struct.pack(">BBHI", 0x81, 202, 0, ssrc) + cname + b"\0" * (4 - len(cname) % 4)
    return sr + sdes[:2] + struct.pack(">H", len(sdes) // 4 - 1) + sdes[4:]


def count(seconds, keys):
    return sum(1 for _ in packets(seconds, {"ssrc": "0", **keys})) + (2 if "rtcp" in keys else 0)


def endpoint(text):
    ip, port = text.rsplit(",", 1)
    return ip, int(port)


def send(source, target, seconds, keys):
    keys = {"ssrc": "%08x" % zlib.crc32(source.encode()), **keys}
    src, dst = endpoint(source), endpoint(target)
    family = socket.AF_INET6 if ":" in src[0] else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(src)
    control, control_to = s, dst
    if keys.get("rtcp") == "":
        control = socket.socket(family, socket.SOCK_DGRAM)
        control.bind((src[0], src[1] + 1))
        control_to = (dst[0], dst[1] + 1)
    start, sent = time.monotonic(), 0
    for slot, packet in packets(seconds, keys):
        time.sleep(max(0, start + slot * 0.02 - time.monotonic()))
        s.sendto(packet, dst)
        sent += 1
        if "rtcp" in keys and sent == 10:
            control.sendto(report(int(keys["ssrc"], 16), sent, 160000 + sent * 160), control_to)
    if "rtcp" in keys:
        control.sendto(report(int(keys["ssrc"], 16), sent, 160000 + sent * 160), control_to)


def file(out, seconds, keys):
    with open(out, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for slot, rtp in packets(seconds, {"ssrc": "1cecafe0", **keys}):
            udp = struct.pack(">HHHH", 6000, 6000, 8 + len(rtp), 0) + rtp
            home = bytes([127, 0, 0, 1])
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), slot, 0, 64, 17, 0, home, home) + udp
            frame = b"\0" * 12 + b"\x08\0" + ip
            f.write(struct.pack("<IIII", slot // 50, slot % 50 * 20000, len(frame), len(frame)) + frame)


def main():
    words = [a for a in sys.argv[1:] if "=" not in a and a != "rtcp"]
    keys = dict((a + "=").split("=")[:2] for a in sys.argv[1:] if "=" in a or a == "rtcp")
    if words[0] == "file":
        file(words[1], float(words[2]), keys)
    elif words[0] == "send":
        send(words[1], words[2], float(words[3]), keys)
    else:
        print(count(float(words[1]), keys))


if __name__ == "__main__":
    main()
