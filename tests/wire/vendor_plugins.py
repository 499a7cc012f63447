"""Plugins made with the vendor's Python SDK: `python vendor_plugins.py source|destination serve …`."""

from __future__ import annotations

import json
import sys
import threading

import pyarrow as pa
from cloudquery.sdk import message, plugin, schema, serve
from cloudquery.sdk.types import JSONType, UUIDType

TABLES = schema.Table(
    name="people",
    columns=[
        schema.Column("id", pa.int64(), primary_key=True),
        schema.Column("name", pa.string()),
        schema.Column("uid", UUIDType()),
        schema.Column("extra", JSONType()),
        schema.Column("seen", pa.timestamp("us", "UTC")),
    ],
)


class Source(plugin.Plugin):
    def __init__(self):
        super().__init__("people", "v0.0.1", plugin.plugin.Options(team="vendor", kind="source"))
        self.count = 0

    def init(self, spec, no_connection=False):
        self.count = json.loads(spec or b"{}").get("count", 3) if spec != b"null" else 3

    def get_tables(self, options):
        return [TABLES]

    def sync(self, options):
        arrow = TABLES.to_arrow_schema()
        yield message.SyncMigrateTableMessage(table=arrow)
        for number in range(self.count):
            storage = [
                pa.array([number]),
                pa.array([f"name {number}"]),
                pa.ExtensionArray.from_storage(UUIDType(), pa.array([bytes([number % 256] * 16)], pa.binary(16))),
                pa.ExtensionArray.from_storage(JSONType(), pa.array([b'{"a":1}'], pa.binary())),
                pa.array([1_700_000_000_000_000 + number], pa.timestamp("us", "UTC")),
            ]
            yield message.SyncInsertMessage(pa.RecordBatch.from_arrays(storage, schema=arrow))

    def close(self): ...


class Destination(plugin.Plugin):
    def __init__(self):
        super().__init__("lines", "v0.0.1", plugin.plugin.Options(team="vendor", kind="destination"))
        self.path = ""
        self.lock = threading.Lock()

    def init(self, spec, no_connection=False):
        self.path = json.loads(spec)["path"]

    def write(self, writer):
        with self.lock, open(self.path, "a") as file:
            for each in writer:
                if isinstance(each, message.WriteMigrateTableMessage):
                    print(json.dumps({"migrate": each.table.name}), file=file)
                elif isinstance(each, message.WriteInsertMessage):
                    print(json.dumps({"rows": each.record.num_rows}), file=file)
                else:
                    print(json.dumps({"other": type(each).__name__}), file=file)

    def close(self): ...


if __name__ == "__main__":
    serve.PluginCommand(Source() if sys.argv[1] == "source" else Destination()).run(sys.argv[2:])
