"""Plugins for tests that look into databases: tables as the spec spells them, clients, children, pauses, and more."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa

from catchment.destinations.duckdb import DuckDB
from catchment.destinations.duckdb.destination import DuckDBSpec
from catchment.sdk import (
    BatchSpec,
    Capabilities,
    Column,
    Context,
    Discovered,
    PluginError,
    Published,
    Rows,
    Source,
    Spec,
    Swap,
    Table,
    Transformer,
)
from tests.engine.plugins import Recorder, SlowSpec

TYPES = {"int64": pa.int64(), "utf8": pa.utf8(), "bool": pa.bool_()}


class MadeTable(Spec):
    """A table in a config; a column is `name: type`, with `!` behind the type where it is not null."""

    columns: dict[str, str]
    primary_key: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    parent: str = ""


class MadeSpec(Spec):
    """The tables by name."""

    tables: dict[str, MadeTable]


made = Source("made", spec=MadeSpec, client=lambda spec: spec)


@made.discover
def _made_tables(spec: MadeSpec) -> Iterator[Discovered[MadeSpec]]:
    for name, table in spec.tables.items():
        columns = tuple(
            Column(
                column,
                TYPES[kind.rstrip("!")],
                primary_key=column in table.primary_key,
                not_null=kind.endswith("!") or column in table.primary_key,
            )
            for column, kind in table.columns.items()
        )
        yield Discovered(Table(name, columns, parent=table.parent), partial(_made_rows, table))


def _made_rows(table: MadeTable, ctx: Context[MadeSpec]) -> Rows:
    yield [dict(zip(table.columns, row, strict=True)) for row in table.rows]


class RegionsSpec(Spec):
    """Regions with the ids of their machines; regions that break off, and those whose machines' disks do."""

    regions: dict[str, tuple[int, ...]]
    fail: tuple[str, ...] = ()
    fail_disks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Region:
    spec: RegionsSpec
    id: str = ""


regions = Source("regions", spec=RegionsSpec, client=Region)


@regions.table(
    pa.schema([("id", pa.int64())]),
    primary_key=["id"],
    multiplex=lambda client: [Region(client.spec, name) for name in client.spec.regions],
)
def machines(ctx: Context[Region]) -> Rows:
    """Machines of each region."""
    yield [{"id": number} for number in ctx.client.spec.regions[ctx.client.id]]
    if ctx.client.id in ctx.client.spec.fail:
        raise PluginError(f"region {ctx.client.id} broke off")


@regions.table(pa.schema([("machine", pa.int64())]), primary_key=["machine"], parent=machines)
def disks(ctx: Context[Region]) -> Rows:
    """One disk in each machine."""
    if ctx.client.id in ctx.client.spec.fail_disks:
        raise PluginError(f"disks of {ctx.client.id} broke off")
    yield [{"machine": ctx.parent["id"]}]


class FeedSpec(Spec):
    """Which messages there are, and whether reading what hangs on them fails."""

    numbers: tuple[int, ...] = (1, 2, 3)
    fail_replies: bool = False
    pace: str = ""


feed = Source("feed", spec=FeedSpec, client=lambda spec: spec)
cursors: list[Any] = []
"""What `messages` was told to go on behind."""


@feed.table(pa.schema([("number", pa.int64())]), primary_key=["number"], incremental="number")
def messages(ctx: Context[FeedSpec]) -> Rows:
    """Messages behind the cursor."""
    cursors.append(ctx.cursor)
    after = ctx.cursor or 0
    yield [{"number": number} for number in ctx.client.numbers if number > after]


@feed.table(pa.schema([("to", pa.int64())]), primary_key=["to"], parent=messages)
def replies(ctx: Context[FeedSpec]) -> Rows:
    """A reply to each message."""
    if ctx.client.fail_replies:
        raise PluginError("replies broke off")
    yield [{"to": ctx.parent["number"]}]


class PausedSpec(Spec):
    """Which pause to make."""

    pause: str


class Pause:
    """A point that a source reaches, and waits at until the test lets it go on."""

    by_name: ClassVar[dict[str, Pause]] = {}

    def __init__(self, name: str) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()
        Pause.by_name[name] = self


paused = Source("paused", spec=PausedSpec, client=lambda spec: spec)


@paused.table(pa.schema([("id", pa.int64())]), primary_key=["id"])
def steps(ctx: Context[PausedSpec]) -> Rows:
    """Two rows, a pause, and two more."""
    pause = Pause.by_name[ctx.client.pause]
    yield [{"id": 1}, {"id": 2}]
    pause.reached.set()
    assert pause.over.wait(60)
    yield [{"id": 3}, {"id": 4}]


class BatchesSpec(BatchSpec, SlowSpec):
    """Limits of a batch, and what goes wrong."""


class Batches(Recorder):
    """Records the batches that it is given, and obeys `batch_size` and its like."""

    name = "batches"
    spec_type: ClassVar[type[Spec]] = BatchesSpec
    capabilities = Capabilities(safe_changes=frozenset({"add_column"}))


class Gathers(Recorder):
    """Makes rows durable in `flush`, which fails for the tables of `refuse`."""

    name = "gathers"

    def write(self, table: Table, rows: pa.Table) -> None:
        self.calls.append(("write", table.name, rows.num_rows))

    def flush(self, tables: Sequence[Table]) -> None:
        for table in tables:
            if table.name in self.spec.refuse:
                raise PluginError(f"{table.name} cannot be made durable")
            self.calls.append(("flush", table.name, 0))


class Faulty(Recorder):
    """Has a mistake in its code, in whichever method comes last."""

    name = "faulty"

    def delete_stale(self, *arguments: Any, **more: Any) -> int | None:
        raise AttributeError("no such thing")


class MortalSpec(DuckDBSpec):
    """Where the process is killed."""

    dies: Literal["after a batch", "before the publish", "after the publish", "before the cursor", "never"] = "never"


class Mortal(DuckDB):
    """Writes as DuckDB does, until the process is killed without a warning."""

    name = "mortal"
    spec_type: ClassVar[type[Spec]] = MortalSpec
    spec: MortalSpec

    def write(self, table: Table, rows: pa.Table) -> None:
        self._reach("before the cursor" if table.name == "state" else "")
        super().write(table, rows)
        self._reach("after a batch" if table.name != "state" else "")

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        self._reach("before the publish")
        done = super().publish(swaps)
        self._reach("after the publish")
        return done

    def _reach(self, point: str) -> None:
        if point == self.spec.dies:
            os.kill(os.getpid(), signal.SIGKILL)


class MarkSpec(Spec):
    """What is put behind each text, and behind the table's name."""

    text: str
    rename: bool = False


class Mark(Transformer[MarkSpec]):
    """Puts a text behind each value of the column `name`."""

    name = "mark"

    def transform_table(self, table: Table) -> Table:
        return table.renamed(table.name + self.spec.text) if self.spec.rename else table

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        place = batch.schema.get_field_index("name")
        marked = pa.array([value + self.spec.text for value in batch.column("name").to_pylist()], pa.utf8())
        yield batch.set_column(place, "name", marked)


class Broken(Transformer[Spec]):
    """Has a mistake in its code."""

    name = "broken"

    def transform_table(self, table: Table) -> Table:
        return table

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        if table.name == "orders":
            raise KeyError("no such column")
        yield batch


class Twice(Transformer[Spec]):
    """Announces a column twice."""

    name = "twice"

    def transform_table(self, table: Table) -> Table:
        return table.with_columns([*table.columns, table.columns[-1]]) if table.name == "orders" else table

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        yield batch


class Liar(Transformer[Spec]):
    """Gives other columns than it announces."""

    name = "liar"

    def transform_table(self, table: Table) -> Table:
        return table

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        yield batch.drop_columns(["shop"]) if table.name == "orders" else batch


def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for `condition()`; a test that waits in vain fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
