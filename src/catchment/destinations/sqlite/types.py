"""How Arrow's types are declared in SQLite, which values are bound for them, and how those come back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import Column, RowsRefused, sql
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import is_interval, restore


def kept_as(data_type: pa.DataType) -> pa.DataType:
    """What SQLite itself keeps: int64, float64, utf8 or binary."""
    if pa.types.is_boolean(data_type) or (pa.types.is_integer(data_type) and not data_type.equals(pa.uint64())):
        return pa.int64()
    if pa.types.is_floating(data_type):
        return pa.float64()
    if _is_binary(data_type):
        return pa.binary()
    return pa.utf8()


def _is_binary(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_fixed_size_binary(data_type)
        or pa.types.is_binary_view(data_type)
    )


def stored_as(data_type: pa.DataType) -> pa.DataType:
    """What comes back: exact but for durations, intervals and anything nested, which are text."""
    if pa.types.is_nested(data_type) and not isinstance(data_type, pa.BaseExtensionType):
        return pa.utf8()
    if (
        pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
    ):
        return pa.utf8()
    return data_type


def bound(array: pa.Array, column: Column) -> pa.Array:
    """Values as the driver binds them."""
    kind = array.type
    kept = kept_as(kind)
    if array.null_count == len(array):
        return pa.nulls(len(array), kept)
    if pa.types.is_timestamp(kind):
        return _timestamp_text(array)
    if kept.equals(pa.utf8()):
        return to_text(array)
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(array)).as_py():
        raise RowsRefused(
            f"column `{column.name}` holds NaN, which SQLite would turn into null",
            hint="make it null or a number before it is written",
            column=column.name,
        )
    return array.cast(kept)


def _timestamp_text(array: pa.Array) -> pa.Array:
    """`2024-01-02 03:04:05.678901Z`, with as many digits as the unit has."""
    if len(array) > 1 and not array.null_count:
        first, last = pc.min_max(array).values()
        if first.equals(last):
            # As `_cq_sync_time` is in every batch.
            return pa.repeat(_timestamp_text(array.slice(0, 1))[0], len(array))
    naive = array.cast(pa.timestamp(array.type.unit)) if array.type.tz else array
    return pc.binary_join_element_wise(naive.cast(pa.utf8()), "Z", "")


def restored(array: pa.Array, column: Column) -> pa.Array:
    """Values of `kept_as` as `stored_as` declares them."""
    want = stored_as(column.type)
    if pa.types.is_timestamp(want):
        naive = pc.replace_substring(array, "Z", "").cast(pa.timestamp(want.unit))
        return restore(naive, want)
    return restore(array, want)


def moment_text(moment: datetime) -> str:
    """A moment as `_cq_sync_time` has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")


def _parameter(scalar: pa.Scalar) -> Any:
    """A predicate's value in the form that its column has."""
    return bound(pa.repeat(scalar, 1), Column("predicate", scalar.type))[0].as_py()


def _type_name(data_type: pa.DataType) -> str:
    """The declared type, the same that upstream's plugin makes, but for uint64."""
    if isinstance(data_type, sql.Opaque):
        return str(data_type)
    if pa.types.is_boolean(data_type):
        return "boolean"
    if pa.types.is_timestamp(data_type):
        return "timestamp"
    kept = kept_as(data_type)
    return {pa.int64(): "integer", pa.float64(): "real"}.get(kept, "text")


def _arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a declared type; foreign ones are kept by name."""
    known = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "real": pa.float64(),
        "text": pa.utf8(),
        "timestamp": pa.timestamp("us"),
    }
    return known.get(name.lower(), sql.Opaque(name))


_MOMENT = "{0} glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]*Z'"
_WHOLE = "{0} = cast({0} as integer) and abs({0}) < 9223372036854775807"
_CONVERSIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("boolean", "text"): ("case {0} when 1 then 'true' when 0 then 'false' end", "{0} in (0, 1)"),
    ("boolean", "integer"): ("{0}", "typeof({0}) = 'integer'"),
    ("boolean", "real"): ("cast({0} as real)", "{0} in (0, 1)"),
    ("integer", "text"): ("cast({0} as text)", "typeof({0}) = 'integer'"),
    ("integer", "boolean"): ("{0}", "{0} in (0, 1)"),
    ("integer", "real"): ("cast({0} as real)", "cast(cast({0} as real) as integer) = {0} and abs({0}) < 1 << 62"),
    ("real", "text"): (
        "case when cast(printf('%!.15g', {0}) as real) = {0} then printf('%!.15g', {0}) "
        "when {0} is not null then printf('%!.17g', {0}) end",
        "typeof({0}) = 'real'",
    ),
    ("real", "integer"): ("cast({0} as integer)", _WHOLE),
    ("text", "integer"): ("cast({0} as integer)", "cast(cast({0} as integer) as text) = {0}"),
    ("text", "real"): ("cast({0} as real)", "json_valid({0}) and json_type({0}) in ('integer', 'real')"),
    ("text", "boolean"): ("{0} = 'true'", "{0} in ('true', 'false')"),
    ("text", "timestamp"): ("{0}", _MOMENT),
    ("timestamp", "text"): ("{0}", "typeof({0}) = 'text'"),
}
"""Declared types before and after → the new value, and whether a value that is not null can be turned into it."""


def _conversion(before: str, after: str) -> sql.Conversion | None:
    """How a forced migration turns values of one declared type into another."""
    found = _CONVERSIONS.get((before.lower(), after))
    return sql.Conversion(*found) if found is not None else None


DIALECT = sql.Dialect(
    type_name=_type_name,
    arrow_type=_arrow_type,
    inline_unique=False,
    to_parameter=_parameter,
    conversion=_conversion,
    upstream=lambda kind: pa.int64() if kind.equals(pa.uint64()) else kind,
)
