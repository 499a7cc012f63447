"""How far an incremental table was read: the largest value of its incremental column, as text and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.errors import PluginError
from catchment.schema.table import Column
from catchment.schema.types import type_string
from catchment.sdk.storage import restore
from catchment.sdk.values import MISFITS, to_values


def is_orderable(kind: pa.DataType) -> bool:
    """Whether a column of the type can be an incremental one: its values have a largest, and a text that comes back."""
    is_moment = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    is_float = pa.types.is_float32(kind) or pa.types.is_float64(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_moment or is_number or is_float or is_text)


def cursor_key(table: str, client: str, parent_keys: Iterable[Any] = ()) -> str:
    """The cursor's name: table, client, and the parent row's keys, each part with its slashes escaped."""
    texts = (key.cast(pa.utf8()).as_py() if isinstance(key, pa.Scalar) else str(key) for key in parent_keys)
    parts = [part.replace("%", "%25").replace("/", "%2F") for part in (table, client, *texts)]
    return "/".join(parts).rstrip("/")


def to_text(cursor: pa.Scalar) -> str:
    """The text that `from_text` makes the same cursor of, to the nanosecond."""
    return str(cursor.cast(pa.utf8()).as_py())


def from_text(text: str, column: Column, key: str) -> pa.Scalar:
    """A saved cursor. Raises `PluginError` if it is none of the column's type."""
    try:
        return restore(pa.array([text]), column.type)[0]
    except MISFITS as error:
        raise PluginError(
            f"the saved cursor {text!r} is no {type_string(column.type)} for column `{column.name}`: {error}",
            hint=f"delete the row with the key {key!r} from the state table to read from the start",
        ) from None


def to_value(cursor: pa.Scalar) -> Any:
    """The cursor as a table function gets it."""
    return to_values(pa.repeat(cursor, 1))[0]


def larger(so_far: pa.Scalar | None, values: pa.Array) -> pa.Scalar | None:
    """The larger of `so_far` and the largest of `values`."""
    found = pc.max(values)
    if not found.is_valid:
        return so_far
    return found if so_far is None or pc.greater(found, so_far).as_py() else so_far
