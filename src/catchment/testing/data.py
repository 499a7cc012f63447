"""Tables and rows for the suites: every type, seeded values, rows of nulls, and values at the edges."""

from __future__ import annotations

import datetime
import decimal
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from catchment.schema import internal, types
from catchment.schema.intervals import is_interval, month_interval
from catchment.schema.table import Column, Table
from catchment.sdk.types import SCALARS

SYNC_TIME = datetime.datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=datetime.UTC)


def named(name: str, *columns: Column | tuple[str, pa.DataType], keys: Sequence[str] = ()) -> Table:
    """A table with those columns, of which `keys` are the primary key."""
    made = [column if isinstance(column, Column) else Column(*column) for column in columns]
    return Table(
        name,
        tuple(
            replace(c, primary_key=c.name in keys or c.primary_key, not_null=c.not_null or c.name in keys) for c in made
        ),
    )


def sourced(name: str, *columns: Column | tuple[str, pa.DataType], keys: Sequence[str] = ("id",)) -> Table:
    """A table with the columns that stale rows are found by, and `columns`."""
    return named(
        name, (internal.CQ_SOURCE_NAME, pa.utf8()), (internal.CQ_SYNC_TIME, pa.timestamp("us", "UTC")), *columns,
        keys=keys,
    )  # fmt: skip


def all_types(name: str, *, keys: Sequence[str] = ()) -> Table:
    """The test table: every scalar type, a struct of them, lists of each, maps of each by text and by number."""
    scalars = [Column(column, kind) for column, kind, _ in SCALARS]
    struct = Column("struct", pa.struct([pa.field(column, kind) for column, kind, _ in SCALARS]))
    single = [*scalars, struct]
    lists = [Column(f"{c.name}_list", pa.list_(c.type)) for c in single if c.name != "json"]
    maps = [
        Column(f"{prefix}_{c.name}_map", pa.map_(key, c.type))
        for c in (*single, *lists)
        for prefix, key in (("string", pa.utf8()), ("int", pa.int64()))
    ]
    return named(name, Column("id", pa.int64(), not_null=True), *single, *lists, *maps, keys=keys)


def rows(table: Table, count: int, *, first_id: int = 1, seed: int = 0, nulls: bool = False) -> pa.RecordBatch:
    """`count` rows with ids from `first_id`; with `nulls` everything that may be null is."""
    chance = random.Random(f"{seed}/{table.name}/{first_id}")
    arrays = []
    for column in table.columns:
        if column.name == "id" and not isinstance(column.type, pa.BaseExtensionType):
            values: list[Any] = list(range(first_id, first_id + count))
            values = [str(value) for value in values] if pa.types.is_string(column.type) else values
        elif column.name == internal.CQ_SYNC_TIME:
            values = [SYNC_TIME] * count
        elif column.name == internal.CQ_SOURCE_NAME:
            values = ["suite"] * count
        elif nulls and not column.not_null and column.name != internal.CQ_ID:
            values = [None] * count
        else:
            values = [_value(column.type, chance) for _ in range(count)]
        arrays.append(array(values, column.type))
    return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))


def batch(table: Table, *rows: Sequence[Any]) -> pa.RecordBatch:
    """Rows written out, values in the order of the columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(table.columns)
    arrays = [array(list(values), column.type) for values, column in zip(columns, table.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))


def array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values of the storage type as an array of `kind`."""
    return types.from_storage(pa.array(values, types.storage_type(kind)), kind)


def _value(kind: pa.DataType, chance: random.Random) -> Any:
    """A value as `pa.array` takes it for the storage type."""
    if pa.types.is_struct(kind):
        return {field.name: _value(field.type, chance) for field in kind}
    if pa.types.is_map(kind):
        # Keys of one map differ: a small integer is drawn twice now and then.
        first, second = _value(kind.key_type, chance), _value(kind.key_type, chance)
        while second == first:
            second = _value(kind.key_type, chance)
        return [(first, _value(kind.item_type, chance)), (second, _value(kind.item_type, chance))]
    if pa.types.is_list(kind):
        return [_value(kind.value_type, chance), None, _value(kind.value_type, chance)]
    if is_interval(kind):
        return _interval(kind, chance)
    if isinstance(kind, pa.BaseExtensionType):
        return _extension_value(kind, chance)
    if pa.types.is_integer(kind):
        top = 1 << (kind.bit_width - 1)
        return chance.randrange(top) if pa.types.is_unsigned_integer(kind) else -chance.randrange(top)
    if pa.types.is_floating(kind):
        return chance.randrange(1000) + chance.randrange(16) / 16
    if pa.types.is_decimal(kind):
        return decimal.Decimal(f"{chance.randrange(10**9)}.{chance.randrange(10**10):010}")
    if pa.types.is_boolean(kind):
        return chance.random() < 0.5
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return f"AString{chance.randrange(100_000)}"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return chance.randbytes(4)
    return _moment(kind, chance)


def _interval(kind: pa.DataType, chance: random.Random) -> Any:
    if not isinstance(kind, pa.BaseExtensionType):
        return pa.MonthDayNano([1, chance.randrange(10_000), chance.randrange(10_000)])
    months = chance.randrange(-100, 100)
    return months if kind.equals(month_interval()) else chance.randrange(1 << 62)


def _extension_value(kind: pa.DataType, chance: random.Random) -> bytes:
    if kind.equals(types.json()):
        return b'{"test":["a","b",%d]}' % chance.randrange(1000)
    if kind.equals(types.inet()):
        return b"10.%d.0.0/16" % chance.randrange(256)
    return chance.randbytes(16) if kind.equals(types.uuid()) else b"\x02" + chance.randbytes(5)


def _moment(kind: pa.DataType, chance: random.Random) -> Any:
    """Dates, times and durations; nanoseconds are whole microseconds, as upstream's are."""
    if pa.types.is_date(kind):
        return datetime.date(2023, 4, 24) + datetime.timedelta(days=chance.randrange(100))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    step = 1000 if kind.unit == "ns" else 1
    if pa.types.is_duration(kind):
        return chance.randrange(10_000_000)
    if pa.types.is_time(kind):
        return chance.randrange(86_400 * per_second // step) * step
    start = 1_700_000_000 * per_second
    return start + chance.randrange(10**6 * per_second // step) * step


EDGES: dict[str, tuple[pa.DataType, list[Any]]] = {
    **{
        f"int{bits}": (getattr(pa, f"int{bits}")(), [-(1 << (bits - 1)), (1 << (bits - 1)) - 1, 0])
        for bits in (8, 16, 32, 64)
    },
    **{f"uint{bits}": (getattr(pa, f"uint{bits}")(), [0, (1 << bits) - 1, 1]) for bits in (8, 16, 32, 64)},
    "float64": (pa.float64(), [1.7976931348623157e308, 5e-324, 0.1]),
    "float32": (pa.float32(), [0.25, -1.5, 16_777_216.0]),
    "decimal128": (
        pa.decimal128(38, 10),
        [decimal.Decimal("9999999999999999999999999999.9999999999"), decimal.Decimal("-0.0000000001"), None],
    ),
    "string": (pa.utf8(), ["quote \" and ' and \\ and , and ;", "line\nbreak\r\n\ttab", "Ünïcödé 日本 🎉"]),
    "binary": (pa.binary(), [b"\x00\x01\xff", b"'\"\\", b"\n"]),
    "date32": (pa.date32(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(1969, 12, 31)]),
    "time64_us": (pa.time64("us"), [0, 86_399_999_999, 1]),
    "timestamp_us": (
        pa.timestamp("us", "UTC"),
        [
            datetime.datetime(1677, 9, 22, tzinfo=datetime.UTC),
            datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC),
            datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC),
        ],
    ),
    "json": (types.json(), [b'{"a":"\\u00e9\\n\\"","b":[1,2.5,null,true]}', b'"text"', b"[]"]),
}
"""Values at the edges of each type, three to a column."""


def edges(name: str) -> tuple[Table, pa.RecordBatch]:
    """A table and three rows of values at the edges of their types."""
    table = named(name, ("id", pa.int64()), *((column, kind) for column, (kind, _) in EDGES.items()))
    arrays = [pa.array([1, 2, 3]), *(array(values, kind) for kind, values in EDGES.values())]
    return table, pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))
