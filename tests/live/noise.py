#!/usr/bin/env python3
"""Traffic that nobody asked for: datagrams of many flows, some of which look like RTP, and bulk TCP. Ports 40000 to 65535.

usage: noise.py serve ADDRESS          takes what comes, until it is killed
       noise.py send ADDRESS MB SECONDS
"""
import os, random, selectors, socket, sys, time

PORTS = range(40000, 40004)


def serve(address):
    waiting = selectors.DefaultSelector()
    for port in PORTS:
        tcp = socket.create_server((address, port))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, port))
        waiting.register(tcp, selectors.EVENT_READ, "accept")
        waiting.register(udp, selectors.EVENT_READ, "read")
    while True:
        for key, _ in waiting.select():
            if key.data == "accept":
                waiting.register(key.fileobj.accept()[0], selectors.EVENT_READ, "read")
            elif not key.fileobj.recv(1 << 18) and key.fileobj.type == socket.SOCK_STREAM:
                waiting.unregister(key.fileobj)


def send(address, megabytes, seconds):
    rng = random.Random(1)
    bulk = [socket.create_connection((address, port)) for port in PORTS]
    flows = []
    for port in range(50000, 50200):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("", port))
        flows.append(udp)
    junk = os.urandom(1 << 16)
    begin, sent, total = time.monotonic(), 0, megabytes * 1_000_000
    while sent < total:
        # half of it datagrams
        for _ in range(64):
            size, at = rng.choice([60, 172, 172, 700, 1400]), rng.randrange(1 << 15)
            data = (b"\x80\x08" if size == 172 else b"") + junk[at:at + size]
            rng.choice(flows).sendto(data, (address, rng.choice(PORTS)))
            sent += len(data)
        piece = junk[:32 << 10]
        rng.choice(bulk).sendall(piece)
        sent += len(piece)
        time.sleep(max(0, begin + seconds * sent / total - time.monotonic()))
    print(f"noise: {sent} bytes in {time.monotonic() - begin:.1f} s")


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
