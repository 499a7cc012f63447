"""Values for columns that upstream's plugins made, where ours would have another type for them.

Whoever switches engines goes on with the tables that are there, in `migrate_mode: safe`: `sql.adopted` tells which
types stay. What is written to such a column has the form that it had before; a value without a place there is refused.
"""

from __future__ import annotations

import base64
import json

import pyarrow as pa

from catchment.errors import RowsRefused
from catchment.schema import types
from catchment.schema.table import Table
from catchment.sdk.json_text import to_json_text, to_text
from catchment.sdk.storage import as_list, is_nested, list_values, restore


def written(rows: pa.Table, table: Table) -> pa.Table:
    """Rows with the types of `table`, as `sql.adopted` gave it. Raises `RowsRefused` for a value without a place."""
    for place, column in enumerate(table.columns):
        values = rows.column(place)
        if not values.type.equals(column.type):
            try:
                chunks = [_written(chunk, column.type) for chunk in values.chunks]
            except pa.ArrowInvalid as error:
                raise RowsRefused(
                    f"column `{column.name}` holds a value that has no place in the type which the table was made "
                    f"with: {error}",
                    hint="run once with `migrate_mode: forced`, which gives the column a type that takes it",
                    column=column.name,
                ) from error
            rows = rows.set_column(place, column.name, pa.chunked_array(chunks, column.type))
    return rows


def _written(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type.equals(kind):
        return array
    if kind.equals(types.json()):
        return pa.ExtensionArray.from_storage(kind, to_json_text(array).cast(kind.storage_type))
    if pa.types.is_string(kind):
        return to_text(array)
    if is_nested(kind):
        offsets, values = list_values(array)
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(offsets, _written(values, kind.value_type), kind, mask=mask)
    if pa.types.is_timestamp(array.type):
        # The zone goes without moving the value.
        array = array.cast(pa.timestamp(array.type.unit))
    return array.cast(pa.date32() if pa.types.is_date64(array.type) else array.type).cast(kind)


def read_back(array: pa.Array, there: pa.DataType, kind: pa.DataType, want: pa.DataType) -> pa.Array:
    """Values of a column of type `kind`, which is kept as `there`, as `want`, the type that `read` gives."""
    if there.equals(kind):
        return restore(array, want)
    if array.null_count == len(array):
        return pa.nulls(len(array), want)
    texts = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
    if there.equals(types.json()):
        return pa.array([None if text is None else json.loads(text) for text in texts.to_pylist()], want)
    if is_nested(want):
        offsets, values = list_values(array)
        mask = array.is_null() if array.null_count else None
        child = read_back(values, there.value_type, kind.value_type, want.value_type)
        return as_list(pa.ListArray.from_arrays(offsets, child, pa.list_(child.type), mask=mask), want)
    if pa.types.is_fixed_size_binary(want) and pa.types.is_string(texts.type):
        return pa.array([None if text is None else base64.b64decode(text) for text in texts.to_pylist()], want)
    if pa.types.is_uint64(want) and pa.types.is_int64(array.type):
        # Numbers that do not fit have gone in as negative ones.
        return array.view(want)
    return restore(array, want)
