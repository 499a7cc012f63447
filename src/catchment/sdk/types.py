"""Every column type that the protocol knows, with a value of each; for tests and docs."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa

from catchment.schema import types
from catchment.schema.intervals import day_time_interval, month_interval
from catchment.schema.select import matches
from catchment.schema.table import Column

__all__ = ["all_types_columns", "all_types_row", "matches"]

_MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=datetime.UTC)

SCALARS: tuple[tuple[str, pa.DataType, Any], ...] = (
    ("int8", pa.int8(), -8),
    ("int16", pa.int16(), -16),
    ("int32", pa.int32(), -32),
    ("int64", pa.int64(), -64),
    ("uint8", pa.uint8(), 8),
    ("uint16", pa.uint16(), 16),
    ("uint32", pa.uint32(), 32),
    ("uint64", pa.uint64(), 64),
    ("float32", pa.float32(), 32.25),
    ("float64", pa.float64(), 64.125),
    ("binary", pa.binary(), b"\x00\x01\xff"),
    ("string", pa.utf8(), "AString1"),
    ("boolean", pa.bool_(), True),
    ("uuid", types.uuid(), bytes(range(16))),
    ("inet", types.inet(), b"10.1.2.3/8"),
    ("mac", types.mac(), bytes.fromhex("aabbccddeeff")),
    ("json", types.json(), b'{"test":["a","b",3]}'),
    ("date32", pa.date32(), _MOMENT.date()),
    ("date64", pa.date64(), _MOMENT.date()),
    ("duration_s", pa.duration("s"), 123_456),
    ("duration_ms", pa.duration("ms"), 123_456),
    ("duration_us", pa.duration("us"), 123_456),
    ("duration_ns", pa.duration("ns"), 123_456),
    ("interval_month", month_interval(), 3),
    ("interval_day_time", day_time_interval(), 2 | 500 << 32),
    ("interval_month_day_nano", pa.month_day_nano_interval(), (1, 2, 3)),
    ("large_binary", pa.large_binary(), b"\x00\x01\xff"),
    ("large_string", pa.large_utf8(), "AString1"),
    ("time32_s", pa.time32("s"), 11_045),
    ("time32_ms", pa.time32("ms"), 11_045_678),
    ("time64_us", pa.time64("us"), 11_045_678_901),
    ("time64_ns", pa.time64("ns"), 11_045_678_901_000),
    ("timestamp_s", pa.timestamp("s", "UTC"), _MOMENT),
    ("timestamp_ms", pa.timestamp("ms", "UTC"), _MOMENT),
    ("timestamp_us", pa.timestamp("us", "UTC"), _MOMENT),
    ("timestamp_ns", pa.timestamp("ns", "UTC"), _MOMENT),
    ("decimal128", pa.decimal128(19, 10), decimal.Decimal("123456789.0123456789")),
)
"""Name, type and a value, as `pa.array` takes it for the storage type."""


def all_types_columns() -> tuple[Column, ...]:
    """A column of every scalar type, a struct of them, and a list of each (json apart)."""
    scalars = [Column(name, kind) for name, kind, _ in SCALARS]
    struct = Column("struct", pa.struct([pa.field(name, kind) for name, kind, _ in SCALARS]))
    lists = [Column(f"{c.name}_list", pa.list_(c.type)) for c in (*scalars, struct) if c.name != "json"]
    return (*scalars, struct, *lists)


def all_types_row() -> pa.RecordBatch:
    """One row of `all_types_columns`; lists hold the value, a null and the value."""
    scalars = [_array(kind, value) for _, kind, value in SCALARS]
    fields = [pa.field(name, kind) for name, kind, _ in SCALARS]
    struct = pa.StructArray.from_arrays(scalars, fields=fields)
    arrays = [*scalars, struct]
    for (name, _, _), array in zip((*SCALARS, ("struct", None, None)), (*scalars, struct), strict=True):
        if name != "json":
            values = pa.concat_arrays([array, pa.nulls(1, array.type), array])
            arrays.append(pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), values))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in all_types_columns()])


def _array(kind: pa.DataType, value: Any) -> pa.Array:
    storage = types.storage_type(kind)
    if pa.types.is_timestamp(kind) and isinstance(value, datetime.datetime):
        array = pa.array([value], pa.timestamp("us", "UTC")).cast(storage, safe=False)
    else:
        array = pa.array([value], storage)
    return types.from_storage(array, kind)
