"""What differs between the rows that were written and those that came back, in words a person can use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.plugin import null_for_null
from catchment.schema import types
from catchment.schema.table import Table
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import as_list, is_nested, list_values, map_array

StoredAs = Callable[[pa.DataType], pa.DataType]
EmptyForNull = Callable[[pa.DataType], bool]
_SECONDS = re.compile(r"^([0-9T -]*[0-9]{2}:[0-9]{2}:[0-9]{2})(?:(\.[0-9]*[1-9])0*|\.0+)(Z?)$")
SHOWN = 5
"""Differences that are told; the rest is counted."""


def values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Plain values: bytes for extension types, numbers of the unit for times, parsed JSON for JSON."""
    kind = array.type
    if isinstance(kind, types.JSONType):
        return [None if text is None else json.loads(text) for text in types.to_storage(array).to_pylist()]
    plain = types.to_storage(array)
    if pa.types.is_duration(kind) or pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        plain = plain.cast(pa.int64())
    return _sorted_maps(plain.to_pylist()) if pa.types.is_map(kind) else list(plain.to_pylist())


def _sorted_maps(found: list[Any]) -> list[Any]:
    """Maps have no order."""
    return [None if entries is None else sorted(entries, key=lambda entry: str(entry[0])) for entries in found]


def expected(array: pa.Array, stored_as: StoredAs) -> pa.Array:
    """The values of `array` as a destination that declares `stored_as` has to give them back."""
    want = stored_as(array.type)
    if want.equals(array.type):
        return array
    if pa.types.is_list(array.type) and pa.types.is_list(want):
        child = expected(array.values, stored_as)
        validity, offsets = array.buffers()[:2]
        return pa.Array.from_buffers(
            pa.list_(child.type), len(array), [validity, offsets], array.null_count, array.offset, [child]
        )
    if pa.types.is_string(want) and not pa.types.is_large_string(array.type):
        return to_text(array)
    if is_nested(want):
        return map_array(array, lambda leaf: expected(leaf, stored_as))
    return pc.cast(array, want, safe=False)


def emptied(array: pa.Array, empty_for_null: EmptyForNull) -> pa.Array:
    """`array` with empty lists and maps, and structs of nulls, where a destination declares to have no null."""
    kind = array.type
    if not is_nested(kind):
        return array
    mask = array.is_null() if array.null_count and not empty_for_null(kind) else None
    if pa.types.is_struct(kind):
        children = [emptied(child, empty_for_null) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
    offsets, inner = list_values(array)
    if pa.types.is_map(kind):
        keys, items = (emptied(inner.field(place), empty_for_null) for place in (0, 1))
        return pa.MapArray.from_arrays(offsets, keys, items, kind, mask=mask)
    child = emptied(inner, empty_for_null)
    plain = pa.ListArray.from_arrays(offsets, child, pa.list_(kind.value_field.with_type(child.type)), mask=mask)
    return as_list(plain, kind)


def difference(
    table: Table,
    want: Sequence[pa.RecordBatch],
    got: Sequence[pa.RecordBatch],
    stored_as: StoredAs,
    *,
    key: str = "id",
    empty_for_null: EmptyForNull = null_for_null,
) -> str:
    """What is not as it should be, empty if nothing is. Rows are matched in the order of `key`."""
    have = pa.Table.from_batches(got) if got else None
    rows = sum(batch.num_rows for batch in want)
    there = have.num_rows if have is not None else 0
    if there != rows:
        return f"{rows} rows were wanted, {there} are there"
    if have is None or rows == 0:
        return ""
    if tuple(have.column_names) != table.column_names:
        return f"the columns are {have.column_names}, wanted were {list(table.column_names)}"
    found: list[str] = []
    order = _order(values(have.column(key)))
    wanted_keys = [value for batch in want for value in values(expected(batch.column(key), stored_as))]
    wanted_order = _order(wanted_keys)
    for column in table.columns:
        kind = stored_as(column.type)
        if not have.column(column.name).type.equals(kind):
            found.append(f"column `{column.name}` has type {have.column(column.name).type}, declared is {kind}")
            continue
        given = values(have.column(column.name))
        columns = [emptied(batch.column(column.name), empty_for_null) for batch in want]
        asked = [value for array in columns for value in values(expected(array, stored_as))]
        for there, here in zip(order, wanted_order, strict=True):
            if _plain(given[there]) != _plain(asked[here]):
                found.append(f"column `{column.name}` of row {key}={wanted_keys[here]!r}: "
                             f"{asked[here]!r} was written, {given[there]!r} came back")  # fmt: skip
    return "\n".join([*found[:SHOWN], *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])])


def _order(keys: Sequence[Any]) -> list[int]:
    return sorted(range(len(keys)), key=lambda index: (str(type(keys[index])), keys[index]))


def _plain(value: Any) -> Any:
    """Text without what does not count: spaces and the order of keys in JSON, zeros at the end of a second."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return _unordered(json.loads(value))
        except ValueError:
            return value
    return _SECONDS.sub(r"\1\2\3", value) if isinstance(value, str) else value


def _unordered(value: Any) -> Any:
    if isinstance(value, list):
        return [_unordered(item) for item in value]
    return {name: _unordered(item) for name, item in value.items()} if isinstance(value, dict) else _plain(value)
