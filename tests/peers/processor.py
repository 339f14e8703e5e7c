"""A processor of the predecessor, as far as the wire shows one: grpcio of PyPI, messages without our extensions.

Says everything that reaches it as JSON lines, and does what JSON lines tell it to. Like the Go node it acknowledges each batch, sends the
filters of a hunter as additions and echoes heartbeats.
"""

import queue
import threading
import time
from concurrent import futures

import wire
from wire import data_pb2, data_pb2_grpc, grpc, management_pb2, management_pb2_grpc


class Processor:
    def __init__(self):
        self.filters, self.updates = [], []
        self.refuse, self.hold, self.terse = None, False, False
        self.controls = queue.Queue()
        self.changed = threading.Condition()

    def note(self, call, context, **more):
        wire.say({"call": call, "peer": context.peer(), "now_ns": time.time_ns(), **more})


class Data(data_pb2_grpc.DataServiceServicer):
    def __init__(self, node):
        self.node = node

    def StreamPackets(self, batches, context):
        node, node.controls = self.node, queue.Queue()
        node.note("StreamPackets", context)
        out, over = node.controls, threading.Event()

        def receive():
            try:
                for batch in batches:
                    # what comes on a stream that was ended here is of no account
                    if over.is_set():
                        break
                    unknown = wire.unknown(batch) + [n for p in batch.packets for n in wire.unknown(p)]
                    size = batch.ByteSize()
                    if node.terse:
                        for packet in batch.packets:
                            packet.data = b""
                    node.note("batch", context, size=size, unknown=unknown, batch=wire.show(batch))
                    if not node.hold:
                        out.put(data_pb2.StreamControl(ack_sequence=batch.sequence))
            except grpc.RpcError:
                pass
            node.note("stream over", context)
            out.put(None)

        threading.Thread(target=receive, daemon=True).start()
        while (control := out.get()) is not None:
            yield control
        over.set()


class Management(management_pb2_grpc.ManagementServiceServicer):
    def __init__(self, node):
        self.node = node

    def RegisterHunter(self, request, context):
        self.node.note("RegisterHunter", context, message=wire.show(request))
        if self.node.refuse:
            context.abort(grpc.StatusCode[self.node.refuse], "maximum number of hunters reached")
        config = management_pb2.ProcessorConfig(
            batch_size=64, batch_timeout_ms=100, reconnect_interval_sec=5, processor_id="old-mid"
        )
        return management_pb2.RegistrationResponse(
            accepted=True, assigned_id=request.hunter_id, filters=self.node.filters, config=config
        )

    def SubscribeFilters(self, request, context):
        node = self.node
        node.note("SubscribeFilters", context, message=wire.show(request))
        for known in node.filters:
            yield management_pb2.FilterUpdate(update_type=management_pb2.UPDATE_ADD, filter=known)
        sent = 0
        while context.is_active():
            with node.changed:
                if not node.changed.wait_for(lambda: len(node.updates) > sent, 0.2):
                    continue
                update = node.updates[sent]
            sent += 1
            yield update

    def Heartbeat(self, beats, context):
        for beat in beats:
            self.node.note("Heartbeat", context, message=wire.show(beat))
            yield management_pb2.ProcessorHeartbeat(timestamp_ns=time.time_ns(), hunters_connected=1, processor_id="old-mid")


def main():
    node = Processor()
    limits = [("grpc.max_receive_message_length", 10 << 20), ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000)]
    server = grpc.server(futures.ThreadPoolExecutor(64), options=limits)
    data_pb2_grpc.add_DataServiceServicer_to_server(Data(node), server)
    management_pb2_grpc.add_ManagementServiceServicer_to_server(Management(node), server)
    wire.say({"listening": server.add_insecure_port("127.0.0.1:0")})
    server.start()
    for command in wire.commands():
        for key, value in command.items():
            if key == "filters":
                node.filters = [wire.read("Filter", f) for f in value]
            elif key == "update":
                with node.changed:
                    node.updates.append(wire.read("FilterUpdate", value))
                    node.changed.notify_all()
            elif key == "end":
                node.controls.put(None)
            elif key == "control":
                node.controls.put(wire.read("StreamControl", value))
            else:
                setattr(node, key, value)
        wire.say({"done": True})


main()
