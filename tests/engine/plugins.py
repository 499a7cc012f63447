"""Plugins that do what a test asks for, by spec."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar

import pyarrow as pa

from catchment.sdk import (
    BatchSize,
    Capabilities,
    Column,
    Context,
    Destination,
    Discovered,
    PluginError,
    PluginLost,
    Rows,
    Source,
    Spec,
    Table,
    Transformer,
    Transient,
)


class ShopSpec(Spec):
    """Which rows there are, and what goes wrong."""

    shops: tuple[int, ...] = (1, 2)
    orders: tuple[int, ...] = (10, 20)
    fail: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    dead: bool = False


def _client(spec: ShopSpec) -> ShopSpec:
    if spec.dead:
        raise PluginError("the shop cannot be reached", hint="pay the bill")
    return spec


shop = Source("shop", spec=ShopSpec, client=_client)


def _end(ctx: Context[ShopSpec], table: str) -> None:
    if table in ctx.client.fail:
        raise PluginError(f"{table} broke off")
    if table in ctx.client.skip:
        ctx.skip_rows(1, "line 7 is no order")


@shop.table(pa.schema([("id", pa.int64()), ("name", pa.utf8())]), primary_key=["id"])
def shops(ctx: Context[ShopSpec]) -> Rows:
    """Shops."""
    yield [{"id": number, "name": f"shop {number}"} for number in ctx.client.shops]
    _end(ctx, "shops")


@shop.table(pa.schema([("id", pa.int64()), ("shop", pa.int64())]), primary_key=["id"], parent=shops)
def orders(ctx: Context[ShopSpec]) -> Rows:
    """Orders of each shop."""
    yield [{"id": ctx.parent["id"] * 100 + number, "shop": ctx.parent["id"]} for number in ctx.client.orders]
    _end(ctx, "orders")


@shop.table(pa.schema([("at", pa.int64()), ("what", pa.utf8())]), primary_key=["at"], incremental="at")
def events(ctx: Context[ShopSpec]) -> Rows:
    """Events after the cursor."""
    first = 0 if ctx.cursor is None else ctx.cursor + 1
    seen.append(ctx.cursor)
    yield [{"at": first + number, "what": "x"} for number in range(3)]
    _end(ctx, "events")


seen: list[int | None] = []
"""Cursors that `events` was given."""


class SlowSpec(Spec):
    """How the destination behaves."""

    fail_first: int = 0
    lose_after: int = 0
    take_s: float = 0.0
    refuse: tuple[str, ...] = ()


class Recorder(Destination[SlowSpec]):
    """Keeps what it was given, in order, and tells how many calls ran at once."""

    name = "recorder"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column"}), writers=3, batch=BatchSize(rows=100, size_bytes=0, timeout_s=0)
    )
    made: ClassVar[list[Recorder]] = []

    def __init__(self, spec: SlowSpec) -> None:
        super().__init__(spec)
        self.calls: list[tuple[str, str, int]] = []
        self.cleaned: list[tuple[str, Sequence[str] | None]] = []
        self.tries = 0
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()
        Recorder.made.append(self)

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def migrate(self, table: Table, *, force: bool) -> None:
        self.calls.append(("migrate", table.name, 0))

    def write(self, table: Table, rows: pa.Table) -> None:
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.tries += 1
            tries = self.tries
        try:
            time.sleep(self.spec.take_s)
            if table.name in self.spec.refuse:
                raise PluginError(f"{table.name} is refused")
            if tries <= self.spec.fail_first:
                raise Transient("busy", retry_after_s=0.01)
            if self.spec.lose_after and tries > self.spec.lose_after:
                raise PluginLost("the server is gone")
            self.calls.append(("write", table.name, rows.num_rows))
        finally:
            with self.lock:
                self.running -= 1

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        self.calls.append(("delete_stale", table.name, 0))
        self.cleaned.append((table.name, clients))
        return 0

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        return iter(())


class Appends(Recorder):
    """The same, with batches of keyless tables side by side."""

    name = "appends"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column"}),
        writers=3,
        parallel_appends=True,
        batch=BatchSize(rows=100, size_bytes=0, timeout_s=0),
    )


class Doubler(Transformer[Spec]):
    """Renames a table and adds a column."""

    name = "doubler"

    def transform_table(self, table: Table) -> Table:
        return table.renamed(f"{table.name}_out").with_columns([*table.columns, Column("twice", pa.int64())])

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        ids = batch.column("id" if "id" in batch.schema.names else "at")
        yield batch.append_column("twice", pa.array([value * 2 for value in ids.to_pylist()], pa.int64()))


colliding = Source("colliding", spec=Spec, client=lambda spec: spec)


@colliding.discover
def _twice(spec: Spec) -> Iterator[Discovered[Spec]]:
    table = Table("same", (Column("id", pa.int64()),))
    for _ in range(2):
        yield Discovered(table, lambda ctx: [])
