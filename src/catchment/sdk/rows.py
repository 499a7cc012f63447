"""From what a table function yields (rows, models, pages, Arrow) to record batches of the table's columns.

Rows become batches here, at the edge of the source, by column; Arrow that fits passes through untouched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from catchment.errors import PluginError, did_you_mean
from catchment.schema import types
from catchment.schema.table import Column, Table
from catchment.sdk.values import MISFITS, exact_cast, to_array, to_values

Row: TypeAlias = "Mapping[str, Any] | Any"
"""A mapping by column name, or an object with attributes of that name (a dataclass, a pydantic model)."""
Rows: TypeAlias = "Iterable[Row | Sequence[Row] | pa.RecordBatch | pa.Table]"
"""What a table function yields: single rows, pages of rows, or Arrow. Pages and Arrow are the fast ways."""

GATHER_ROWS = 5_000
"""Single rows that make a batch, at most."""
GATHER_BYTES = 8 << 20
"""Bytes that a batch of single rows is meant to have."""
FIRST_ROWS = 8
"""Single rows of the first batch, which tells how large rows are; later ones grow by as much, to what is meant."""
GATHER_S = 2.0
"""Seconds after which the next single row takes those before it along."""


def batches(table: Table, rows: Rows, *, retried: type[Exception] | tuple[()] = ()) -> Iterator[pa.RecordBatch]:
    """`rows` as batches with the columns of `table` that the source itself fills, in their order.

    Missing columns are null; None is no row. Raises `PluginError` naming column and value for what does not fit a
    column's type; nothing is wrapped or cut. What was yielded before an error is sent before it is raised; only before
    an error of the kind `retried` that comes first of all it is not, as it will come again.
    """
    waiting: list[Row] = []
    enough = FIRST_ROWS
    since = 0.0
    sent = False
    try:
        for item in rows:
            is_single = not isinstance(item, (pa.RecordBatch, pa.Table)) and not _is_page(item)
            if is_single and item is not None:
                if not waiting:
                    since = time.monotonic()
                waiting.append(item)
            if waiting and (not is_single or len(waiting) >= enough or time.monotonic() - since > GATHER_S):
                gathered, waiting, sent = waiting, [], True
                batch = from_rows(table, gathered)
                fitting = max(GATHER_BYTES * batch.num_rows // max(batch.nbytes, 1), 1)
                enough = min(GATHER_ROWS, FIRST_ROWS * enough, fitting)
                yield batch
                del gathered, batch
            if not is_single:
                sent = True
                yield from _from_page(table, item)
    except Exception as error:
        if waiting and (sent or not isinstance(error, retried)):
            yield from_rows(table, waiting)
        raise
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
    if len(names) < len(data.schema.names):
        twice = next(name for name in data.schema.names if data.schema.names.count(name) > 1)
        raise PluginError(f"table `{table.name}`: the Arrow data has column `{twice}` twice; drop one of them")
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
    mappings = {row_type: issubclass(row_type, Mapping) for row_type in set(map(type, rows))}
    for row_type, is_mapping in mappings.items():
        if not is_mapping:
            _check_attributes(table, next(row for row in rows if type(row) is row_type))

    def values(name: str) -> list[Any]:
        if all(mappings.values()):
            return [row.get(name) for row in rows]
        if not any(mappings.values()):
            return [getattr(row, name, None) for row in rows]
        return [row.get(name) if mappings[type(row)] else getattr(row, name, None) for row in rows]

    arrays = [_array(table, column, values(column.name)) for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow_schema)


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch, with values as `to_values` gives them."""
    columns = [to_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_page(item: Any) -> bool:
    """Whether `item` holds rows; a named tuple is a row itself."""
    return isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and not hasattr(item, "_fields")


def _from_page(table: Table, item: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(item, (pa.RecordBatch, pa.Table)):
        yield from from_arrow(table, item)
        return
    for start in range(0, len(item), GATHER_ROWS):
        yield from_rows(table, item[start : start + GATHER_ROWS])


def _check_attributes(table: Table, row: Any) -> None:
    if not any(hasattr(row, name) for name in table.column_names):
        raise PluginError(
            f"table `{table.name}`: got {_shown(row)} for a row; yield mappings, objects with the columns as "
            "attributes, lists of these, or Arrow (and another generator's rows by `yield from`)"
        )


def _cast(table: Table, column: Column, array: pa.Array) -> pa.Array:
    if array.type.equals(column.type):
        return array
    try:
        return exact_cast(array, column.type)
    except MISFITS as error:
        raise PluginError(
            f"table `{table.name}`: column `{column.name}` is {types.type_string(column.type)}, "
            f"got {types.type_string(array.type)} that does not fit: {error}"
        ) from error


def _array(table: Table, column: Column, values: list[Any]) -> pa.Array:
    try:
        return to_array(column.type, values)
    except MISFITS as error:
        index, value, reason = _culprit(column, values, error)
        raise PluginError(
            f"table `{table.name}`: column `{column.name}` is {types.type_string(column.type)}, "
            f"got {_shown(value)} in row {index + 1} of a batch: {reason}"
        ) from None


def _culprit(column: Column, values: list[Any], error: Exception) -> tuple[int, Any, str]:
    """The first value that does not fit, and why."""
    for index, value in enumerate(values):
        try:
            to_array(column.type, [value])
        except MISFITS as found:
            return index, value, str(found)
    return 0, values[0], f"the values do not fit together: {error}"


def _shown(value: Any) -> str:
    """`repr` of a value, of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
