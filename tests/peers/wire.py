"""What both peers share: the generated messages, and JSON lines to and from the test."""

import json
import sys
import threading

sys.path.insert(0, sys.argv[1])

import data_pb2  # noqa: E402
import data_pb2_grpc  # noqa: E402
import grpc  # noqa: E402
import management_pb2  # noqa: E402
import management_pb2_grpc  # noqa: E402
from google.protobuf.json_format import MessageToDict, ParseDict  # noqa: E402
from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: E402

SERVICES = {
    "DataService": (data_pb2, data_pb2_grpc),
    "ManagementService": (management_pb2, management_pb2_grpc),
}


def method(name):
    """The service a method belongs to, and its descriptor."""
    for service, (messages, _) in SERVICES.items():
        found = messages.DESCRIPTOR.services_by_name[service].methods_by_name.get(name)
        if found:
            return service, found
    raise KeyError(name)


def read(name, value):
    """A message of that name, of either file."""
    for messages, _ in SERVICES.values():
        if hasattr(messages, name):
            return ParseDict(value, getattr(messages, name)())
    raise KeyError(name)


def show(message):
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def unknown(message):
    """Numbers of fields an old node does not know."""
    return [field.field_number for field in UnknownFieldSet(message)]


SAYING = threading.Lock()


def say(value):
    with SAYING:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


def commands():
    for line in sys.stdin:
        yield json.loads(line)
