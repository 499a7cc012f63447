"""Plugins that do not keep to the protocol: `python plugins.py MISTAKE serve …`, with the vendor's code."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pyarrow as pa
from cloudquery.discovery_v1 import discovery_pb2, discovery_pb2_grpc
from cloudquery.plugin_v3 import plugin_pb2 as pb
from cloudquery.plugin_v3 import plugin_pb2_grpc

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.utf8())], metadata={"cq:table_name": "t"})


def schema_bytes(schema=SCHEMA):
    return schema.serialize().to_pybytes() + b"\xff\xff\xff\xff\0\0\0\0"


def record(schema=SCHEMA, rows=3):
    arrays = [pa.array([1] * rows if pa.types.is_integer(kind) else ["x"] * rows, kind) for kind in schema.types]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


def migrate(schema=SCHEMA):
    return pb.Sync.Response(migrate_table=pb.Sync.MessageMigrateTable(table=schema_bytes(schema)))


def insert(data=None):
    return pb.Sync.Response(insert=pb.Sync.MessageInsert(record=record() if data is None else data))


SCHEMAS = {
    # As upstream's generator writes a number that may be left out, and a spec that must not have more.
    "schema": {
        "$defs": {
            "Spec": {
                "properties": {
                    "rows": {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
                    "env": {"type": "array", "items": {"type": "string", "pattern": "^\\w+=\\w*$"}},
                    "address": {"type": "string"},
                },
                "additionalProperties": False,
                "type": "object",
                "required": ["address"],
            }
        },
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/Spec",
    },
    "far-schema": {"$ref": "https://127.0.0.1:1/schema.json"},
    "wrong-schema-type": {"type": "no such type"},
    "wrong-schema-pattern": {"properties": {"rows": {"pattern": "("}}},
}
"""What some plugins say that their spec is."""


def log(text):
    os.write(1, text.encode() + b"\n")


def field(number, data):
    """A text, bytes or message as protobuf writes it."""
    size, length = len(data), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def metrics(name, table, client, count):
    """A request of OpenTelemetry's as the vendor's Go plugins send it, written by hand."""
    pairs = {"sync.table.name": table, "sync.client.id": client}
    point = b"".join(field(7, field(1, k.encode()) + field(2, field(1, v.encode()))) for k, v in pairs.items())
    point += bytes([6 << 3 | 1]) + count.to_bytes(8, "little")
    sums = field(1, point) + bytes([2 << 3, 2])
    return field(1, field(2, field(2, field(1, name.encode()) + field(7, sums))))


def send_metrics(mistake):
    endpoint = sys.argv[sys.argv.index("--otel-endpoint") + 1]
    assert "--otel-endpoint-insecure" in sys.argv
    table = "elsewhere" if mistake == "counts-elsewhere" else "t"
    bodies = [metrics("sync.table.errors", table, "eu", 1), metrics("sync.table.resources", table, "eu", 9)]
    if mistake == "counts":
        # Sums are told again and again, and of each client.
        bodies += [metrics("sync.table.errors", table, "eu", 2), metrics("sync.table.panics", table, "us", 1)]
        bodies += [b"garbage"]
    for body in bodies:
        connection = http.client.HTTPConnection(endpoint, timeout=5)
        packed = {"Content-Encoding": "gzip"}
        connection.request("POST", "/v1/metrics", gzip.compress(body), packed)
        log(json.dumps({"level": "debug", "message": f"told {connection.getresponse().status}"}))


def stop(mistake):
    if mistake.startswith("counts"):
        send_metrics(mistake)
    os._exit(0)


class Plugin(plugin_pb2_grpc.PluginServicer):
    def __init__(self, mistake):
        self.mistake = mistake

    def at(self, stage):
        if self.mistake == f"exit-{stage}":
            log('{"level":"error","message":"I am about to die"}')
            os._exit(7)
        if self.mistake == f"kill-{stage}":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mistake == f"hang-{stage}":
            time.sleep(1000)

    def GetName(self, request, context):
        return pb.GetName.Response(name="bad")

    def GetSpecSchema(self, request, context):
        self.at("schema")
        if self.mistake not in SCHEMAS:
            return super().GetSpecSchema(request, context)
        return pb.GetSpecSchema.Response(json_schema=json.dumps(SCHEMAS[self.mistake]))

    def Init(self, request, context):
        self.at("init")
        if self.mistake == "refuse-init":
            context.abort(grpc.StatusCode.INTERNAL, "failed to init plugin: no such account")
        return pb.Init.Response()

    def GetTables(self, request, context):
        return pb.GetTables.Response(tables=[schema_bytes()])

    def Sync(self, request, context):
        self.at("sync")
        yield migrate()
        yield insert()
        self.at("rows")
        wrong = pa.schema([("id", pa.utf8()), ("name", pa.utf8())], metadata=SCHEMA.metadata)
        match self.mistake:
            case "garbage":
                yield insert(b"\xff\xff\xff\xff" + os.urandom(500))
            case "half-record":
                yield insert(record()[:-70])
            case "wrong-schema":
                yield insert(record(wrong))
            case "unknown-table":
                yield insert(record(SCHEMA.with_metadata({"cq:table_name": "never_announced"})))
            case "no-table-name":
                yield insert(record(SCHEMA.with_metadata(None)))
            case "nothing-set":
                yield pb.Sync.Response()
            case "table-twice":
                yield migrate(wrong)
            case "flood":
                for number in range(200_000):
                    log(f'{{"level":"info","message":"line {number}","filler":"{"x" * 100}"}}')
                log('{"level":"error","message":"at the end of it","table":"t"}')
            case "long-line":
                log('{"level":"error","message":"' + "y" * (5 << 20) + '"}')
                log('{"level":"error","table":"t","message":"and ' + "z" * (2 << 20) + '"}')
            case "hidden":
                log('{"level":"error","message":"a column failed","table":"t","client":"eu","error":"no rights"}')
            case "nameless":
                log('{"level":"error","message":"panic somewhere"}')
            case "odd-lines":
                log("not json")
                log("[1, 2]")
                log('{"message":"no level"}')
                log('{"level":"critical","message":"from a vendor","name":"x","args":1,"msg":"y"}')
            case "status":
                context.abort(grpc.StatusCode.UNKNOWN, "failed to sync records: the account is gone")
        yield insert()

    def Write(self, requests, context):
        self.at("write")
        for number, _ in enumerate(requests):
            if number == 1:
                self.at("write-rows")
                if self.mistake == "refuse-write":
                    context.abort(grpc.StatusCode.CANCELLED, "plugin returned error: disk full")
                if self.mistake == "end-early":
                    return pb.Write.Response()
        self.at("write-end")
        if self.mistake == "fail-at-end":
            context.abort(grpc.StatusCode.INTERNAL, "write failed: constraint violated")
        return pb.Write.Response()

    def TransformSchema(self, request, context):
        self.at("transform-schema")
        return pb.TransformSchema.Response(schema=request.schema)

    def Transform(self, requests, context):
        self.at("transform")
        held = []
        for request in requests:
            self.at("transform-rows")
            if self.mistake == "transform-garbage":
                yield pb.Transform.Response(record=b"garbage")
            if self.mistake == "transform-holds":
                held.append(request.record)
            else:
                yield pb.Transform.Response(record=request.record)
        time.sleep(1.5 if held else 0)
        for each in held:
            yield pb.Transform.Response(record=each)

    def Close(self, request, context):
        self.at("close")
        return pb.Close.Response()


class Discovery(discovery_pb2_grpc.DiscoveryServicer):
    def __init__(self, mistake):
        self.mistake = mistake

    def GetVersions(self, request, context):
        return discovery_pb2.GetVersions.Response(versions=[2] if self.mistake == "old" else [3])


def main():
    mistake = os.path.basename(sys.argv[0]).removeprefix("bad-")
    arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=False))
    address = arguments["--address"]
    if mistake == "half-a-server":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            while True:
                peer, _ = listener.accept()
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                peer.close()
    if mistake in ("ignores-signals", "hang-rows"):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    server = grpc.server(ThreadPoolExecutor(8))
    plugin_pb2_grpc.add_PluginServicer_to_server(Plugin(mistake), server)
    discovery_pb2_grpc.add_DiscoveryServicer_to_server(Discovery(mistake), server)
    server.add_insecure_port(f"unix:{address}")
    server.start()
    log('{"level":"info","message":"listening"}')
    if mistake == "ignores-signals" or mistake == "hang-rows":
        while True:
            time.sleep(1)
    signal.signal(signal.SIGINT, lambda *_: stop(mistake))
    threading.Event().wait()


if __name__ == "__main__":
    main()
