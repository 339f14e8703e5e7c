#!/usr/bin/env python3
"""Turns a flow (flows/*.flow: who sends what, in order) into the two sipp scenarios that play it, and says what a listener must see.

usage: flows.py write FLOW DIR     DIR/A.xml (caller), DIR/B.xml (callee), DIR/args (shell variables)
       flows.py truth CAPTURE FLOW…  rows of expected.tsv

A flow is one step per line; A is the caller, B the callee:

  users alice bob        From and To of the first request        state ENDED      what the call must end as
  shown anonymous bob    the same, where from= says otherwise
  option ipv6|tcp        port A 5060 / port B 5060               claims WORD      what the evidence of a claim or stream must say
  A INVITE sdp=6000      a request, with SDP for audio on port 6000
  B 200 sdp=6100 tag=x   an answer to the other side's last request (for=METHOD names another)
  A wait 300             milliseconds
  A talk 1.0 …           RTP to where the other side's SDP says (keys of rtp.py; from=PORT, to=PORT or to=IP,PORT)
  A udptl 5              T.38-like datagrams

keys of messages: sdp=PORT dir=sendonly c=ADDRESS pt=8,101 video=PORT image=PORT rtcp=PORT mux ptime h="Header: value" (again and again)
uri=… from=… to=… pad=BYTES body="…" type=… multipart repeat=N early (the other side does not wait for it) tag=… cseq=N
"""
import re, shlex, subprocess, sys, os

HERE = os.path.dirname(os.path.abspath(__file__))
ADDRESS = {"A": ("10.60.0.2", "fd60::2"), "B": ("10.60.0.3", "fd60::3")}
CODECS = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "18": "G729/8000", "101": "telephone-event/8000", "111": "opus/48000/2"}


class Flow:
    def __init__(self, path):
        self.name = re.sub(r"\.flow$", "", os.path.basename(path))
        self.users, self.state, self.options = ("alice", "bob"), "ENDED", set()
        self.shown = None
        self.port, self.claims = {"A": 5060, "B": 5060}, ""
        self.xml = {"A": [], "B": []}
        self.messages = self.media = 0
        self.cseq = {"A": 0, "B": 0}
        self.pending = {}
        self.last = {}
        self.dialog = None
        self.final_tag = None
        self.transaction = 0
        self.at = {}
        for line in open(path, encoding="utf-8"):
            words = shlex.split(line, comments=True)
            if words:
                self.step(words)

    def step(self, words):
        match words:
            case ["users", a, b]: self.users = (a, b)
            case ["shown", a, b]: self.shown = (a, b)
            case ["state", s]: self.state = s
            case ["claims", n]: self.claims = n
            case ["option", *o]: self.options |= set(o)
            case ["port", side, n]: self.port[side] = int(n)
            case [side, "wait", ms]: self.xml[side].append(f'<pause milliseconds="{ms}"/>')
            case [side, "talk", seconds, *keys]: self.talk(side, float(seconds), keys)
            case [side, "udptl", n, *keys]: self.udptl(side, int(n), keys)
            case [side, what, *keys] if side in "AB": self.message(side, what, keys)
            case _: raise SystemExit(f"{self.name}: {words}")

    def ip(self, side):
        return ADDRESS[side]["ipv6" in self.options]

    def host(self, side, writer):
        """An address inside a SIP header: sipp reads '[' as its own, so it must write IPv6 addresses itself."""
        if "ipv6" not in self.options:
            return self.ip(side)
        return "[local_ip]" if side == writer else "[remote_ip]"

    def talk(self, side, seconds, keys):
        given = dict((k + "=").split("=")[:2] for k in keys)
        source = self.endpoint(given.pop("from", None), side)
        target = self.endpoint(given.pop("to", None), "B" if side == "A" else "A")
        rest = " ".join(f"{k}={v}" if v else k for k, v in given.items())
        self.run(side, f"/usr/bin/python3 {HERE}/rtp.py send {source} {target} {seconds} {rest}")
        sys.path.insert(0, HERE)
        import rtp
        self.media += rtp.count(seconds, given)

    def udptl(self, side, n, keys):
        other = "B" if side == "A" else "A"
        self.run(side, f"/usr/bin/python3 {HERE}/udptl.py {self.endpoint(None, side)} {self.endpoint(None, other)} {n}")
        self.media += n

    def run(self, side, command):
        self.xml[side].append(f'<nop><action><exec command="{command}"/></action></nop>')

    def endpoint(self, given, side):
        ip, port = self.at.get(side, (self.ip(side), 0))
        if given:
            ip, port = given.rsplit(",", 1) if "," in given else (self.ip(side), given)
        return f"{ip},{port}"

    def message(self, side, what, words):
        other = "B" if side == "A" else "A"
        keys, headers = {}, []
        for w in words:
            k, _, v = w.partition("=")
            headers.append(v) if k == "h" else keys.__setitem__(k, v)
        tag = keys.get("tag", "b" if side == "B" else "")
        if what.isdigit():
            method = keys.get("for", self.last.get(other))
            cseq, branch, first = self.pending[other, method]
            start = f"SIP/2.0 {what} {keys.get('reason', 'Said')}"
            frm, to = (self.users if other == "A" else self.users[::-1])
            from_tag, to_tag = self.tags(other)
            if other == "A" and what != "100":
                to_tag = f"{self.name}-{tag}"
                if method in ("INVITE", "SUBSCRIBE") and int(what) < 300:
                    self.dialog = to_tag
                if int(what) >= 300 and method == "INVITE":
                    self.final_tag = to_tag
                    if first:
                        self.dialog = None
            if first and what == "100":
                to_tag = None
            via_side = other
        else:
            method = what
            via_side = side
            first = not self.dialog
            start = f"{what} {self.uri(side, other, keys)} SIP/2.0"
            if what in ("ACK", "CANCEL"):
                cseq, branch, _ = self.pending[side, "INVITE"]
                if what == "CANCEL":
                    self.last[side] = what
                elif not self.final_tag:
                    branch = self.branch()
            else:
                self.cseq[side] += 1
                cseq, branch = int(keys.get("cseq", self.cseq[side])), self.branch()
                self.cseq[side] = cseq
                self.last[side] = what
            if what != "ACK":
                self.pending[side, what] = (cseq, branch, first)
            frm, to = self.users if side == "A" else self.users[::-1]
            from_tag, to_tag = self.tags(side)
            if what == "CANCEL":
                to_tag = None
            if what == "ACK" and self.final_tag:
                to_tag, self.final_tag = self.final_tag, None
        transport = "TCP" if "tcp" in self.options else "UDP"
        lines = [start]
        lines.append(f"Via: SIP/2.0/{transport} {self.host(via_side, side)}:{self.port[via_side]};branch={branch}")
        frm_text = keys.get("from", f'"{frm}" <sip:{frm}@example.org>')
        to_text = keys.get("to", f"<sip:{to}@example.org>")
        lines.append(f"From: {frm_text};tag={from_tag}")
        lines.append(f"To: {to_text}" + (f";tag={to_tag}" if to_tag else ""))
        lines.append("Call-ID: [call_id]")
        lines.append(f"CSeq: {cseq} {method}")
        if what not in ("ACK", "CANCEL", "100"):
            user = self.users[0] if side == "A" else self.users[1]
            lines.append(f"Contact: <sip:{user}@{self.host(side, side)}:{self.port[side]};transport={transport.lower()}>")
        if not what.isdigit():
            lines.append("Max-Forwards: 70")
        lines += [h.replace("{A}", self.host("A", side)).replace("{B}", self.host("B", side)) for h in headers]
        if "pad" in keys:
            lines += [f"X-Pad-{n}: " + ("padding " * 12).strip() for n in range(int(keys["pad"]) // 105)]
        body, kind = self.body(side, keys)
        if body:
            lines.append(f"Content-Type: {kind}")
        lines.append("Content-Length: [len]" if body else "Content-Length: 0")
        text = "\n".join(lines + [""] + body)
        send = f"<send><![CDATA[\n{text}\n]]></send>"
        repeat = int(keys.get("repeat", 1))
        for n in range(repeat):
            self.xml[side].append(send)
            if n + 1 < repeat:
                self.xml[side].append('<pause milliseconds="500"/>')
        self.messages += repeat
        optional = ' optional="true"' if "early" in keys else ""
        for _ in range(repeat):
            kind = "response" if what.isdigit() else "request"
            self.xml[other].append(f'<recv {kind}="{what}"{optional}/>')

    def branch(self):
        self.transaction += 1
        return f"z9hG4bK-{self.name}-{self.transaction}"

    def tags(self, requester):
        """From and To tag of a request by this side."""
        a, b = f"{self.name}-a", self.dialog
        return (a, b) if requester == "A" else (b or f"{self.name}-b", a if b else None)

    def uri(self, side, other, keys):
        user = self.users[1] if side == "A" else self.users[0]
        return keys.get("uri", f"sip:{user}@{self.host(other, side)}:{self.port[other]}")

    def body(self, side, keys):
        if "body" in keys:
            return keys["body"].split("\\n"), keys.get("type", "text/plain")
        if not ("sdp" in keys or "image" in keys):
            return [], ""
        ip = keys.get("c", self.ip(side))
        version = "6" if ":" in ip else "4"
        sdp = ["v=0", f"o=- 1 1 IN IP{version} {self.ip(side)}", "s=-", f"c=IN IP{version} {ip}", "t=0 0"]
        if "sdp" in keys:
            formats = keys.get("pt", "8").split(",")
            sdp.append(f"m=audio {keys['sdp']} RTP/AVP {' '.join(formats)}")
            sdp += [f"a=rtpmap:{f} {CODECS[f]}" for f in formats]
            if "101" in formats:
                sdp.append("a=fmtp:101 0-15")
            if "rtcp" in keys:
                sdp.append(f"a=rtcp:{keys['rtcp']}")
            if "mux" in keys:
                sdp.append("a=rtcp-mux")
            if "dir" in keys:
                sdp.append(f"a={keys['dir']}")
            if keys["sdp"] != "0":
                self.at[side] = (self.ip(side), keys["sdp"])
        if "video" in keys:
            sdp += [f"m=video {keys['video']} RTP/AVP 96", "a=rtpmap:96 H264/90000"]
        if "image" in keys:
            sdp += [f"m=image {keys['image']} udptl t38", "a=T38FaxVersion:0"]
            self.at[side] = (self.ip(side), keys["image"])
        if "multipart" not in keys:
            return sdp, "application/sdp"
        parts = ["--part", "Content-Type: application/sdp", "", *sdp, "--part", "Content-Type: application/isup;version=x", "", "0102", "--part--"]
        return parts, 'multipart/mixed;boundary="part"'


def main():
    match sys.argv[1:]:
        case ["write", path, out]:
            flow = Flow(path)
            for side, steps in flow.xml.items():
                with open(f"{out}/{side}.xml", "w", encoding="utf-8") as f:
                    f.write('<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="%s %s">\n' % (flow.name, side))
                    f.write("\n".join(steps) + "\n</scenario>\n")
            with open(f"{out}/args", "w", encoding="utf-8") as f:
                f.write(f"A_IP={flow.ip('A')} B_IP={flow.ip('B')} A_PORT={flow.port['A']} B_PORT={flow.port['B']}\n")
                f.write(f"TRANSPORT={'t1' if 'tcp' in flow.options else 'u1'}\n")
        case ["truth", capture, *paths]:
            for path in paths:
                f = Flow(path)
                print(capture, *(f.shown or f.users), f.state, f.messages, f.media, f.claims or "-", sep="\t")
        case _:
            raise SystemExit(__doc__)


main()
