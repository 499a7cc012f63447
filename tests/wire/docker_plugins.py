"""Plugins for containers: a destination that tells what it got when it is closed, a source that hides an error."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from pydantic import Field

from catchment.sdk import Capabilities, Context, Destination, Rows, Source, Spec, Table

log = logging.getLogger("catchment.keeper")


class KeeperSpec(Spec):
    """What is there at the beginning."""

    rows: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)


class Keeper(Destination[KeeperSpec]):
    """Keeps rows in memory."""

    name = "keeper"
    capabilities = Capabilities(safe_changes=frozenset({"add_column"}), writers=1)

    def open(self) -> None:
        self.rows = {name: list(rows) for name, rows in self.spec.rows.items()}

    def close(self) -> None:
        log.info("kept %s", json.dumps(self.rows, default=str))

    def migrate(self, table: Table, *, force: bool) -> None:
        self.rows.setdefault(table.name, [])

    def write(self, table: Table, rows: pa.Table) -> None:
        # Python has no time zones in a container without their files.
        times = [field.name for field in rows.schema if pa.types.is_timestamp(field.type)]
        self.rows[table.name] += rows.drop_columns(times).to_pylist()

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        return 0

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist(self.rows.get(table.name, []), schema=table.arrow_schema)


class HiderSpec(Spec):
    """What is printed."""

    lines: int = 0
    level: str = "error"
    pause_s: float = 0.0


hider = Source("hider", spec=HiderSpec, client=lambda spec: spec)


@hider.table(pa.schema([("id", pa.int64())]), primary_key=["id"])
def numbers(ctx: Context[HiderSpec]) -> Rows:
    """Says in its log alone that rows are missing, and only at its very end, behind many other lines."""
    yield [{"id": 1}]
    time.sleep(ctx.client.pause_s)
    for number in range(ctx.client.lines):
        print(json.dumps({"level": "debug", "message": f"line {number}", "table": "numbers"}))
    print(json.dumps({"level": ctx.client.level, "message": "one is missing", "table": "numbers"}), flush=True)


@hider.table(pa.schema([("name", pa.utf8()), ("value", pa.utf8())]))
def variables(ctx: Context[HiderSpec]) -> Rows:
    """What is in its environment."""
    yield [{"name": name, "value": value} for name, value in os.environ.items()]
