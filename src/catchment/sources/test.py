"""test: makes tables up, to try configs, destinations and failures without any real source."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from catchment.sdk import (
    Column,
    Context,
    DeleteRecord,
    Discovered,
    Duration,
    PluginError,
    Predicate,
    PredicateGroup,
    Rows,
    Source,
    Spec,
    Table,
    TableRelation,
)
from catchment.sdk.storage import numbered
from catchment.sdk.types import all_types_columns, all_types_row, matches

AtLeastNone = Annotated[int, Field(ge=0)]


class TestSpec(Spec):
    """Spec of the test source."""

    num_clients: Annotated[int, Field(ge=1)] = 1
    """Clients that `test_some_table` and `test_paid_table` are read with."""
    num_rows: AtLeastNone = 1
    """Rows of each client and table, and of each wide table."""
    num_sub_rows: AtLeastNone = 10
    """Rows of `test_sub_table` under each row of `test_some_table`."""
    num_sub_cols: AtLeastNone = 1
    """Extra columns of `test_sub_table`."""
    required_env: tuple[str, ...] = ()
    """`KEY=VALUE` that the environment must have; `KEY=` must be unset."""
    fail_immediately: bool = False
    """Whether every table fails before its first row."""
    exit_immediately: bool = False
    """Whether the process ends at once, with status 1."""
    delete_records: tuple[int, ...] = ()
    """`resource_id` of rows of `test_some_table` that a message deletes after the sync."""
    tables: AtLeastNone = 0
    """Plain tables `test_wide_table_N` besides the others."""
    columns: Annotated[int, Field(ge=1)] = 10
    """Columns of each plain table, the key included."""
    rows_per_batch: Annotated[int, Field(ge=1)] = 10_000
    """Rows of each batch of a plain table."""
    delay: Duration = 0.0
    """How long each batch of a plain table takes."""
    fail_tables: tuple[str, ...] = ()
    """Globs of tables that fail."""
    fail_after_rows: AtLeastNone = 0
    """Rows that a failing table sends before it fails."""
    row_bytes: AtLeastNone = 0
    """Bytes of a `payload` column of each plain table; 0 for no such column."""
    seed: int = 0
    """Makes the values of plain tables differ."""


@dataclass(frozen=True)
class Client:
    """One of the clients; its number is its id."""

    spec: TestSpec
    number: int = 0

    @property
    def id(self) -> str:
        """Id of the client."""
        return f"client_{self.number}"


def _connect(spec: TestSpec) -> Client:
    for entry in spec.required_env:
        key, separator, value = entry.partition("=")
        if not separator:
            raise PluginError(f"required_env: expected `KEY=VALUE`, got {entry!r}")
        if os.environ.get(key, "") != value:
            raise PluginError(f"required_env: `{key}` is not as the spec wants it")
    if spec.exit_immediately:
        os._exit(1)
    return Client(spec)


test = Source("test", spec=TestSpec, client=_connect)


def _clients(client: Client) -> list[Client]:
    return [Client(client.spec, number) for number in range(client.spec.num_clients)]


def _failing(ctx: Context[Client], table: str, batches: Iterable[pa.RecordBatch]) -> Rows:
    """`batches`, as far as the spec lets them come."""
    spec = ctx.client.spec
    if spec.fail_immediately:
        raise PluginError("failing at the source stage according to spec requirements")
    if not any(matches(glob, table) for glob in spec.fail_tables):
        yield from batches
        return
    left = spec.fail_after_rows
    for batch in batches:
        if not left:
            break
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
    raise PluginError(f"`fail_tables` has table `{table}`, and `fail_after_rows` is {spec.fail_after_rows}")


_MAIN = pa.schema([("resource_id", pa.int64()), ("column2", pa.utf8()), ("client_id", pa.utf8())])


def _main_rows(ctx: Context[Client]) -> Iterator[pa.RecordBatch]:
    spec = ctx.client.spec
    for start in range(0, spec.num_rows, spec.rows_per_batch):
        ids = numbered(min(spec.rows_per_batch, spec.num_rows - start), start)
        texts = pa.array([f"test_column_data_{number}" for number in range(3)])
        thirds = pc.subtract(ids, pc.multiply(pc.divide(ids, 3), 3))
        columns = [ids, texts.take(thirds), pa.repeat(ctx.client.id, len(ids))]
        yield pa.RecordBatch.from_arrays(columns, schema=_MAIN)


@test.table(_MAIN, primary_key=["resource_id", "client_id"], multiplex=_clients)
def test_some_table(ctx: Context[Client]) -> Rows:
    """Plain rows, some for each client."""
    yield from _failing(ctx, "test_some_table", _main_rows(ctx))


@test.table(_MAIN, primary_key=["resource_id", "client_id"], multiplex=_clients)
def test_paid_table(ctx: Context[Client]) -> Rows:
    """The same rows, in a table that upstream would charge for."""
    yield from _failing(ctx, "test_paid_table", _main_rows(ctx))


@test.table(pa.schema([("client_id", pa.utf8()), *((c.name, c.type) for c in all_types_columns())]))
def test_testdata_table(ctx: Context[Client]) -> Rows:
    """One row with a value of every type."""
    row = all_types_row()
    client = pa.array([ctx.client.id])
    batch = pa.RecordBatch.from_arrays([client, *row.columns], names=["client_id", *row.schema.names])
    yield from _failing(ctx, "test_testdata_table", [batch])


@test.deletions
def _deletions(client: Client) -> Iterator[DeleteRecord]:
    """One message for all rows that the spec names; their sub-rows go with them."""
    if client.spec.delete_records:
        wanted = tuple(
            Predicate("resource_id", pa.array([number], pa.int64())) for number in client.spec.delete_records
        )
        relations = (TableRelation("test_sub_table", "test_some_table"),)
        yield DeleteRecord("test_some_table", (PredicateGroup(wanted, "or"),), relations)


@test.discover
def _more_tables(client: Client) -> Iterator[Discovered[Client]]:
    yield _sub_table(client.spec)
    for number in range(client.spec.tables):
        table = _wide_table(f"test_wide_table_{number}", client.spec)
        yield Discovered(table, partial(_wide_rows, table))


def _sub_table(spec: TestSpec) -> Discovered[Client]:
    extra = [Column(f"extra_column_{number}", pa.int64()) for number in range(spec.num_sub_cols)]
    table = Table(
        "test_sub_table",
        (
            Column("parent_resource_id", pa.int64(), primary_key=True, not_null=True),
            Column("sub_resource_id", pa.int64(), primary_key=True, not_null=True),
            Column("data_column", pa.utf8()),
            *extra,
        ),
        description="Rows below each row of `test_some_table`.",
        parent="test_some_table",
    )

    def read(ctx: Context[Client]) -> Rows:
        count = ctx.client.spec.num_sub_rows
        ids = numbered(count)
        columns = [pa.repeat(pa.scalar(ctx.parent["resource_id"], pa.int64()), count), ids]
        columns += [pa.repeat("test_sub_column_data", count), *(pc.multiply(ids, 7919 + n) for n in range(len(extra)))]
        batch = pa.RecordBatch.from_arrays(columns, schema=table.arrow_schema)
        yield from _failing(ctx, table.name, [batch])

    return Discovered(table, read)


_WIDE_TYPES = (pa.int64(), pa.utf8(), pa.float64(), pa.timestamp("us", "UTC"), pa.bool_())


def _wide_table(name: str, spec: TestSpec) -> Table:
    columns = [Column("id", pa.int64(), primary_key=True, not_null=True)]
    columns += [Column(f"column_{n}", _WIDE_TYPES[n % len(_WIDE_TYPES)]) for n in range(1, spec.columns)]
    if spec.row_bytes:
        columns.append(Column("payload", pa.utf8()))
    return Table(name, tuple(columns), description="A plain table made up on demand.")


def _wide_rows(table: Table, ctx: Context[Client]) -> Rows:
    """Batches that differ in their key alone: making values up is not what a benchmark is to measure."""
    yield from _failing(ctx, table.name, _made_up(table, ctx.client.spec))


def _made_up(table: Table, spec: TestSpec) -> Iterator[pa.RecordBatch]:
    rows = spec.num_rows
    size = min(spec.rows_per_batch, max(rows, 1))
    numbers = numbered(size)
    values = [_wide_values(column.type, size, spec.seed + n) for n, column in enumerate(table.columns[1:], 1)]
    if spec.row_bytes:
        values[-1] = pa.repeat("x" * spec.row_bytes, size)
    for start in range(0, rows, size):
        if spec.delay:
            time.sleep(spec.delay)
        count = min(size, rows - start)
        columns = [pc.add(numbers, pa.scalar(start, pa.int64())), *values]
        yield pa.RecordBatch.from_arrays([c.slice(0, count) for c in columns], schema=table.arrow_schema)


@functools.lru_cache(maxsize=256)
def _wide_values(kind: pa.DataType, count: int, seed: int) -> pa.Array:
    """The values of a column; the same for all tables, so they are made once."""
    scattered = pc.bit_wise_and(pc.multiply(numbered(count, seed), 2_654_435_761), 0xFFFFFFF)
    if pa.types.is_string(kind):
        return pc.binary_join_element_wise("value", scattered.cast(pa.utf8()), "-")
    if pa.types.is_boolean(kind):
        return pc.equal(pc.bit_wise_and(scattered, 1), 1)
    if pa.types.is_timestamp(kind):
        return pc.add(scattered, 1_700_000_000_000_000).cast(kind)
    return scattered.cast(kind)
