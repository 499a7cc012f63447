"""From what a table function yields (rows, models, pages, Arrow) to record batches of the table's columns.

Rows become batches here, at the edge of the source, by column; Arrow that fits passes through untouched.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from catchment.errors import PluginError, did_you_mean
from catchment.schema import types
from catchment.schema.table import Column, Table

Row: TypeAlias = "Mapping[str, Any] | Any"
"""A mapping by column name, or an object with attributes of that name (a dataclass, a pydantic model)."""
Rows: TypeAlias = "Iterable[Row | Sequence[Row] | pa.RecordBatch | pa.Table]"
"""What a table function yields: single rows, pages of rows, or Arrow. Pages and Arrow are the fast ways."""

GATHER_ROWS = 5_000
"""Single rows that make a batch."""
GATHER_S = 2.0
"""Seconds that single rows may wait for others."""


def batches(table: Table, rows: Rows) -> Iterator[pa.RecordBatch]:
    """`rows` as batches with the columns of `table` that the source itself fills, in their order.

    Missing columns are null. Raises `PluginError` naming column and value for what does not fit a column's type;
    nothing is wrapped or cut.
    """
    waiting: list[Row] = []
    since = 0.0
    for item in rows:
        if isinstance(item, (pa.RecordBatch, pa.Table)):
            if waiting:
                yield from_rows(table, waiting)
                waiting = []
            yield from from_arrow(table, item)
        elif isinstance(item, Sequence) and not isinstance(item, (str, bytes)):
            if waiting:
                yield from_rows(table, waiting)
                waiting = []
            for start in range(0, len(item), GATHER_ROWS):
                yield from_rows(table, item[start : start + GATHER_ROWS])
        else:
            if not waiting:
                since = time.monotonic()
            waiting.append(item)
            if len(waiting) >= GATHER_ROWS or time.monotonic() - since > GATHER_S:
                yield from_rows(table, waiting)
                waiting = []
    if waiting:
        yield from_rows(table, waiting)


def from_arrow(table: Table, data: pa.RecordBatch | pa.Table) -> Iterator[pa.RecordBatch]:
    """Arrow data as batches of `table`'s columns, cast where no value changes."""
    names = set(data.schema.names)
    unknown = [name for name in data.schema.names if name not in table]
    if unknown:
        raise PluginError(
            f"table `{table.name}` has no column `{unknown[0]}`", hint=did_you_mean(unknown[0], table.column_names)
        )
    for batch in data.to_batches() if isinstance(data, pa.Table) else [data]:
        arrays = [
            _cast(table, column, batch.column(column.name))
            if column.name in names
            else pa.nulls(batch.num_rows, column.type)
            for column in table.columns
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=table.arrow_schema)


def from_rows(table: Table, rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as one batch; keys that are no column are left out, as upstream leaves them."""
    first = rows[0]
    if isinstance(first, Mapping):

        def values(name: str) -> list[Any]:
            return [row.get(name) for row in rows]
    else:

        def values(name: str) -> list[Any]:
            return [getattr(row, name, None) for row in rows]

    arrays = [_array(table, column, values(column.name)) for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow_schema)


def _cast(table: Table, column: Column, array: pa.Array) -> pa.Array:
    if array.type.equals(column.type):
        return array
    try:
        storage = types.to_storage(array).cast(types.storage_type(column.type), safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PluginError(
            f"table `{table.name}`: column `{column.name}` is {types.type_string(column.type)}, "
            f"got {types.type_string(array.type)} that does not fit: {error}"
        ) from error
    return types.from_storage(storage, column.type)


def _array(table: Table, column: Column, values: list[Any]) -> pa.Array:
    prepare = _PREPARE.get(type(column.type))
    try:
        if prepare is not None:
            values = [None if value is None else prepare(value) for value in values]
        return types.from_storage(pa.array(values, types.storage_type(column.type)), column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError):
        index, value, reason = _culprit(column, values, prepare)
        raise PluginError(
            f"table `{table.name}`: column `{column.name}` is {types.type_string(column.type)}, "
            f"got {value!r} in row {index + 1} of a batch: {reason}"
        ) from None


def _culprit(column: Column, values: list[Any], prepare: Callable[[Any], Any] | None) -> tuple[int, Any, str]:
    """The first value that does not fit, and why."""
    for index, value in enumerate(values):
        try:
            pa.array([value if prepare is None or value is None else prepare(value)], types.storage_type(column.type))
        except Exception as error:
            return index, value, str(error)
    return 0, values[0] if values else None, "the values of the column do not fit together"


def _uuid_bytes(value: Any) -> bytes:
    import uuid

    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))).bytes


def _json_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_jsonable).encode()


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def _inet_bytes(value: Any) -> bytes:
    import ipaddress

    return value if isinstance(value, bytes) else str(ipaddress.ip_interface(value)).encode()


def _mac_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes.fromhex(str(value).translate({58: None, 45: None, 46: None}))


_PREPARE: Mapping[type, Callable[[Any], Any]] = {
    types.UUIDType: _uuid_bytes,
    types.JSONType: _json_bytes,
    types.InetType: _inet_bytes,
    types.MACType: _mac_bytes,
}
