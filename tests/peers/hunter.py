"""A hunter or monitor of the predecessor, as far as the wire shows one: grpcio of PyPI, messages without our extensions.

Takes commands as JSON lines and answers each with one. A stream is opened once; what it has received is asked for by number.
"""

import threading

import wire
from wire import grpc

PATIENCE = 20


class Stream:
    """A call that goes on: what was sent, what came."""

    def __init__(self, stub, name, request):
        self.outgoing, self.came, self.ended = [], [], None
        self.changed = threading.Condition()
        self.closed = False
        first = self.requests() if request is None else request
        self.call = getattr(stub, name)(first)
        threading.Thread(target=self.receive, daemon=True).start()

    def requests(self):
        sent = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or len(self.outgoing) > sent)
                if len(self.outgoing) <= sent:
                    return
                message = self.outgoing[sent]
            sent += 1
            yield message

    def receive(self):
        try:
            for message in self.call:
                with self.changed:
                    self.came.append(wire.show(message))
                    self.changed.notify_all()
            ended = "OK"
        except grpc.RpcError as e:
            ended = f"{e.code().name}: {e.details()}"
        with self.changed:
            self.ended = ended
            self.changed.notify_all()

    def read(self, count):
        with self.changed:
            self.changed.wait_for(lambda: self.ended or len(self.came) >= count, PATIENCE)
            return {"messages": list(self.came), "ended": self.ended}


class Hunter:
    def __init__(self):
        self.channels, self.streams = {}, {}

    def stub(self, name, on):
        service, descriptor = wire.method(name)
        module = wire.SERVICES[service][1]
        return getattr(module, service + "Stub")(self.channels[on]), descriptor

    def connect(self, c):
        options = [tuple(o) for o in c.get("options", [])]
        if "ca" in c:
            pem = {k: open(c[k], "rb").read() for k in ("ca", "key", "cert") if k in c}
            credentials = grpc.ssl_channel_credentials(pem["ca"], pem.get("key"), pem.get("cert"))
            channel = grpc.secure_channel(c["connect"], credentials, options)
        else:
            channel = grpc.insecure_channel(c["connect"], options)
        seen = []
        channel.subscribe(lambda state: seen.append(state.name))
        grpc.channel_ready_future(channel).result(PATIENCE)
        self.channels[c["on"]] = channel
        self.seen = seen
        return {}

    def states(self, _):
        """Every state the newest channel went through."""
        return {"states": self.seen}

    def call(self, c):
        stub, descriptor = self.stub(c["call"], c["on"])
        request = wire.read(descriptor.input_type.name, c.get("message", {}))
        try:
            if descriptor.name.startswith("Subscribe"):
                return {"answer": [wire.show(m) for m in getattr(stub, c["call"])(request, timeout=PATIENCE)]}
            return {"answer": wire.show(getattr(stub, c["call"])(request, timeout=PATIENCE))}
        except grpc.RpcError as e:
            return {"code": e.code().name, "message": e.details()}

    def open(self, c):
        stub, descriptor = self.stub(c["open"], c["on"])
        request = wire.read(descriptor.input_type.name, c["message"]) if "message" in c else None
        self.streams[c["open"]] = Stream(stub, c["open"], request)
        return {}

    def send(self, c):
        stream = self.streams[c["send"]]
        message = wire.read(wire.method(c["send"])[1].input_type.name, c["message"])
        with stream.changed:
            stream.outgoing.append(message)
            stream.changed.notify_all()
        return {}

    def read(self, c):
        return self.streams[c["read"]].read(c["count"])

    def close(self, c):
        stream = self.streams[c["close"]]
        with stream.changed:
            stream.closed = True
            stream.changed.notify_all()
        return stream.read(1 << 30)

    def leave(self, c):
        self.channels.pop(c["leave"]).close()
        return {}


def main():
    hunter = Hunter()
    for command in wire.commands():
        do = {"connect": hunter.connect, "call": hunter.call, "open": hunter.open, "send": hunter.send, "read": hunter.read}
        do |= {"close": hunter.close, "leave": hunter.leave, "states": hunter.states}
        run = next(do[key] for key in command if key in do)
        wire.say(run(command))


main()
