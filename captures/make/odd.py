#!/usr/bin/env python3
"""Plays SIP that no well-behaved client writes, with real sockets on the hosts of net.sh.

usage: LC_NET=PREFIX odd.py syntax|tcp|ws|rtp-only
"""
import base64, hashlib, os, struct, subprocess, sys
from hosts import IP, at, pause, read, tcp, udp

A, B = IP["caller"][0], IP["callee"][0]


def sdp(ip, port):
    return f"v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"


def crlf(text):
    return text.replace("\n", "\r\n").encode()


def message(start, call, cseq, body="", tag=True, via="UDP", length="Content-Length: {n}", **names):
    """A plain message; `names` writes header names otherwise (via=, frm=, …)."""
    h = {"v": "Via", "f": "From", "t": "To", "i": "Call-ID", "s": "CSeq", "m": "Contact", "c": "Content-Type", **names}
    users = call.split("-")
    head = [start, f"{h['v']}: SIP/2.0/{via} {A}:5060;branch=z9hG4bK-{call}-{cseq.replace(' ', '')}",
            f"{h['f']}: <sip:{users[0]}@example.org>;tag=a-{call}",
            f"{h['t']}: <sip:{users[1]}@example.org>" + (f";tag=b-{call}" if tag else ""),
            f"{h['i']}: {call}@example.org", f"{h['s']}: {cseq}"]
    if not cseq.endswith(("ACK", "BYE")):
        head.append(f"{h['m']}: <sip:{users[0]}@{A}:5060>")
    if body:
        head.append(f"{h['c']}: application/sdp")
    if length:
        head.append(length.format(n=len(body)))
    return crlf("\n".join(head) + "\n\n") + body.encode()


def whole_call(call, ports=(6000, 6100), **k):
    """The five messages of a call, with who sends them."""
    user = call.split("-")[1]
    return [
        ("A", message(f"INVITE sip:{user}@{B}:5060 SIP/2.0", call, "1 INVITE", sdp(A, ports[0]), tag=False, **k)),
        ("B", message("SIP/2.0 200 OK", call, "1 INVITE", sdp(B, ports[1]), **k)),
        ("A", message(f"ACK sip:{user}@{B}:5060 SIP/2.0", call, "1 ACK", **k)),
        ("A", message(f"BYE sip:{user}@{B}:5060 SIP/2.0", call, "2 BYE", **k)),
        ("B", message("SIP/2.0 200 OK", call, "2 BYE", **k)),
    ]


def media(n, ports, ssrc):
    a, b = udp("caller", ports[0]), udp("callee", ports[1])
    for k in range(n):
        rtp = struct.pack(">BBHII", 0x80, 8, k, k * 160, ssrc) + b"\xd5" * 160
        a.sendto(rtp, (B, ports[1]))
        b.sendto(rtp, (A, ports[0]))
        pause()
    a.close(), b.close()


def syntax():
    a, b = udp("caller", 5060), udp("callee", 5060)

    def play(messages, talk=None):
        for n, (side, data) in enumerate(messages):
            (a if side == "A" else b).sendto(data, (B if side == "A" else A, 5060))
            pause(0.01)
            if n == 2 and talk:
                media(5, talk, 0x0DD)

    # lines that end in LF alone, also in the SDP
    play([(s, m.replace(b"\r\n", b"\n")) for s, m in whole_call("lf-only", length=None)], (6000, 6100))
    # compact forms (RFC 3261 §7.3.3 and later ones)
    compact = dict(v="v", f="f", t="t", i="i", m="m", c="c", length="l: {n}")
    play(whole_call("compact-forms", (6002, 6102), **compact), (6002, 6102))
    # space before the colon, names in another case, folded lines with space and tab
    folded = [(s, m.replace(b"From:", b"FROM :").replace(b";tag=a-", b"\r\n ;tag=a-").replace(b"Call-ID: ", b"call-id\t:\r\n\t")
               .replace(b"CSeq:", b"cSeQ  :")) for s, m in whole_call("folded-lines", (6004, 6104))]
    play(folded, (6004, 6104))
    # display names that look like URIs, tel URIs, escapes, parameters in the user part, several Contacts in one line and in two
    names = []
    for s, m in whole_call("names-escaped", (6006, 6106)):
        m = m.replace(b"<sip:names@example.org>", b'"sip:mallory@evil.invalid, \\"quoted\\"" <tel:+49-30-555-0100;phone-context=+49>')
        m = m.replace(b"<sip:escaped@example.org>", b"<sip:%65scaped;x=y%40z@EXAMPLE.org:5060;user=phone>")
        names.append((s, m.replace(b"Contact:", b"Contact: <sip:one@example.org>, \"b, c\" <sip:two@example.org>\r\nContact:")))
    play(names, (6006, 6106))
    # no such method; lower-case method; a request to a port that is not SIP's, from one that is not either
    play([("A", message(f"FROBNICATE sip:odd@{B} SIP/2.0", "method-unknown", "7 FROBNICATE", tag=False)),
          ("B", message("SIP/2.0 501 Not Implemented", "method-unknown", "7 FROBNICATE"))])
    c, d = udp("caller", 34567), udp("callee", 45678)
    c.sendto(message(f"OPTIONS sip:odd@{B}:45678 SIP/2.0", "port-other", "1 OPTIONS", tag=False), (B, 45678))
    d.sendto(message("SIP/2.0 200 OK", "port-other", "1 OPTIONS"), (A, 34567))
    pause()
    # what is wrong: length beyond the datagram; CSeq of another method; no CSeq; no To; bytes that are no UTF-8; a body after the end
    play([("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "length-beyond", "1 OPTIONS", tag=False, length="Content-Length: 9999")),
          ("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "cseq-mismatch", "1 INVITE", tag=False)),
          ("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "cseq-missing", "1 OPTIONS", tag=False).replace(b"CSeq: 1 OPTIONS\r\n", b"")),
          ("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "to-missing", "1 OPTIONS", tag=False).replace(b"To: <sip:missing@example.org>\r\n", b"")),
          ("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "bytes-high", "1 OPTIONS", tag=False).replace(b"<sip:bytes@", b'"\xff\xfe" <sip:by\xfftes@')),
          ("A", message(f"OPTIONS sip:odd@{B} SIP/2.0", "body-after", "1 OPTIONS", tag=False) + sdp(A, 6990).encode())])
    # keep-alives (RFC 5626), and text that only looks like SIP
    for junk in (b"\r\n\r\n", b"\0\0\0\0", b"SIP/2.0 is a protocol", b"INVITE your friends"):
        a.sendto(junk, (B, 5060))
    pause()


def over_tcp():
    c, s = tcp("caller", "callee", 5060)

    def send(end, *pieces):
        for p in pieces:
            end.sendall(p)
            read(s if end is c else c, len(p))
            pause(0.01)

    one = [m for _, m in whole_call("split-segments", (6010, 6110), via="TCP")]
    # the INVITE in five pieces: inside the start line, a header, the blank line and the body
    blank = one[0].index(b"\r\n\r\n")
    cuts = [0, 4, 90, blank + 2, blank + 30, len(one[0])]
    send(c, *[one[0][x:y] for x, y in zip(cuts, cuts[1:])])
    send(s, one[1])
    # two messages and a keep-alive in one segment, and a keep-alive in a segment with the next message behind it
    two = [m for _, m in whole_call("joined-segments", (6012, 6112), via="TCP", length="l: {n}")]
    send(c, one[2] + b"\r\n\r\n" + two[0], b"\r\n\r\n")
    send(s, b"\r\n" + two[1])
    send(c, two[2])
    media(5, (6010, 6110), 0x7C1)
    media(5, (6012, 6112), 0x7C2)
    # every way to spell the length
    for n, spelling in enumerate(["CONTENT-LENGTH : {n}", "Content-Length:\r\n {n}", "content-length:{n}   ", "L:\t{n}", "Content-Length: 000{n}"]):
        body = "hello"
        send(c, message(f"MESSAGE sip:length@{B} SIP/2.0", f"spelling-{n}", "1 MESSAGE", tag=False, via="TCP", length=None)[:-2]
             + (spelling.format(n=len(body)) + "\r\n\r\n" + body).encode() + b"" )
    # a message whose length is no number costs itself, not the connection
    send(c, message(f"MESSAGE sip:length@{B} SIP/2.0", "length-wrong", "1 MESSAGE", tag=False, via="TCP", length="Content-Length: five"))
    send(c, one[3] + two[3])
    send(s, one[4], two[4])
    c.close(), s.close()


def frame(data, opcode=1, fin=True, mask=None):
    """A WebSocket frame (RFC 6455 §5.2)."""
    n = len(data)
    head = bytes([opcode | (0x80 if fin else 0)])
    bit = 0x80 if mask else 0
    head += bytes([bit | n]) if n < 126 else bytes([bit | 126]) + struct.pack(">H", n)
    if mask:
        head += mask
        data = bytes(x ^ mask[i % 4] for i, x in enumerate(data))
    return head + data


def web_socket():
    """A browser's call (RFC 7118): handshake, masked text frames one way, unmasked the other; a message in three fragments with a ping inside."""
    c, s = tcp("caller", "callee", 8080)
    key = base64.b64encode(b"0123456789abcdef").decode()
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()

    def say(end, data):
        end.sendall(data)
        read(s if end is c else c, len(data))
        pause(0.01)

    say(c, crlf(f"GET / HTTP/1.1\nHost: {B}:8080\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: {key}\n"
                "Sec-WebSocket-Protocol: sip\nSec-WebSocket-Version: 13\nOrigin: http://example.org\n\n"))
    say(s, crlf(f"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: {accept}\n"
                "Sec-WebSocket-Protocol: sip\n\n"))
    masks = iter(hashlib.sha256(bytes([n])).digest()[:4] for n in range(99))
    call = [m for _, m in whole_call("browser-phone", (6020, 6120), via="WS", length=None)]
    invite = call[0]
    say(c, frame(invite[:100], 1, False, next(masks)) + frame(b"are you there", 9, True, next(masks)))
    say(s, frame(b"are you there", 10))
    say(c, frame(invite[100:300], 0, False, next(masks)))
    say(c, frame(invite[300:], 0, True, next(masks)))
    # an answer with the other data opcode (binary), in two segments
    answer = frame(call[1], 2)
    say(s, answer[:50])
    say(s, answer[50:])
    say(c, frame(call[2], 1, True, next(masks)))
    media(10, (6020, 6120), 0x3E6)
    # a MESSAGE and the BYE in one segment
    text = message(f"MESSAGE sip:phone@{B} SIP/2.0", "browser-text", "1 MESSAGE", tag=False, via="WS", length=None)
    say(c, frame(text, 1, True, next(masks)) + frame(call[3], 1, True, next(masks)))
    say(s, frame(message("SIP/2.0 200 OK", "browser-text", "1 MESSAGE", via="WS", length=None)) + frame(call[4]))
    say(c, frame(struct.pack(">H", 1000), 8, True, next(masks)))
    say(s, frame(struct.pack(">H", 1000), 8))
    c.close(), s.close()


def rtp_only():
    media(30, (6030, 6130), 0x0117)


{"syntax": syntax, "tcp": over_tcp, "ws": web_socket, "rtp-only": rtp_only}[sys.argv[1]]()
