"""Sources made up for tests of the scheduler: declared in a line, run, and what they sent."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from catchment.messages import ClientDone, Insert, TableError
from catchment.plugin import SyncRequest
from catchment.schema import types
from catchment.schema.select import Selection
from catchment.sdk import Source, Spec

EVERYTHING = Selection(("*",), (), False)
ROW = pa.schema([("id", pa.int64()), ("name", pa.utf8())])


@dataclass(frozen=True)
class Client:
    """One account of the source."""

    id: str = ""


def regions(*names):
    return lambda client: [Client(name) for name in names]


def make_source(**options):
    return Source("made", spec=Spec, client=options.pop("client", lambda spec: Client()))


def add(source, name, read, schema=ROW, primary_key=("id",), **options):
    """Declare `read` as the table `name`."""

    def function(ctx):
        return read(ctx)

    function.__name__ = name
    return source.table(schema, primary_key=primary_key, **options)(function)


def run(source, **options):
    """Every message of one sync."""
    host = source.as_plugin()
    host.init({})
    try:
        return list(host.sync(SyncRequest(options.pop("selection", EVERYTHING), **options)))
    finally:
        host.close()


def of(messages, kind):
    return [message for message in messages if isinstance(message, kind)]


def rows(messages, table=None):
    """Rows as dicts by table, or those of one."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in of(messages, Insert):
        columns = {
            name: types.to_storage(message.batch.column(name)).to_pylist() for name in message.batch.schema.names
        }
        found[message.table.name] += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return found[table] if table else found


def errors(messages):
    return [(message.table_name, message.client, message.message) for message in of(messages, TableError)]


def done(messages):
    return {(message.table_name, message.client) for message in of(messages, ClientDone)}


def counted(count=3, start=0):
    return lambda ctx: [{"id": number, "name": f"{ctx.client.id}{number}"} for number in range(start, start + count)]


def failing(error, after=0):
    def read(ctx):
        if after:
            yield [{"id": number} for number in range(after)]
        raise error

    return read


def noting(seen, pause_s=0.0):
    """A table function without rows that adds each context it is given to `seen`."""

    def read(ctx):
        seen.append(ctx)
        time.sleep(pause_s)
        return []

    return read
