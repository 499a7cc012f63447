"""How each PostgreSQL type is selected, and what it is in Arrow."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import Column, PluginError, inet, json, mac, uuid
from catchment.sdk.storage import restore

_PLAIN: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "oid": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "text": pa.utf8(),
    "name": pa.utf8(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "uuid": uuid(),
}
"""Types that the driver gives as they are."""

_IN_LISTS = {pa.bool_(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.utf8(), pa.timestamp("us")}

_EARLIEST: Mapping[pa.DataType, int] = {
    pa.date32(): -2_451_545 + 10_957 - 40_000,
    pa.timestamp("us"): -212_000_000_000_000_000,
    pa.timestamp("us", "UTC"): -212_000_000_000_000_000,
}
"""No day of PostgreSQL's calendar (from 4714 BC) is before these; `infinity` overflows to numbers that are."""


def selected(name: str, type_name: str, dimensions: int) -> tuple[pa.DataType, str]:
    """Arrow type and SQL expression for a column of the type that `format_type` calls `type_name`."""
    quoted = quote(name)
    if type_name.endswith("[]"):
        inner = _PLAIN.get(_unsized(type_name[:-2]))
        if dimensions > 1:
            return json(), f"to_jsonb({quoted})::text as {quoted}"
        if inner in _IN_LISTS or _is_text(type_name[:-2]):
            return pa.list_(inner or pa.utf8()), quoted
        return pa.list_(pa.utf8()), f"{quoted}::text[] as {quoted}"
    if type_name in ("json", "jsonb"):
        return json(), f"{quoted}::text as {quoted}"
    if type_name in ("inet", "cidr"):
        return inet(), f"{quoted}::text as {quoted}"
    if type_name == "macaddr":
        return mac(), f"macaddr_send({quoted}) as {quoted}"
    decimal = re.fullmatch(r"numeric\((\d+),(-?\d+)\)", type_name)
    if decimal and 0 <= int(decimal[2]) <= int(decimal[1]) <= 76:
        # As text it is a fifth of the work that the driver's own reading of numerics is.
        maker = pa.decimal128 if int(decimal[1]) <= 38 else pa.decimal256
        return maker(int(decimal[1]), int(decimal[2])), f"{quoted}::text as {quoted}"
    plain = _PLAIN.get(_unsized(type_name))
    if plain is not None:
        return plain, quoted
    return pa.utf8(), quoted if _is_text(type_name) else f"{quoted}::text as {quoted}"


def _unsized(type_name: str) -> str:
    """`time(3) without time zone` without the number."""
    return re.sub(r"\(\d+\)", "", type_name)


def _is_text(type_name: str) -> bool:
    return type_name == "text" or type_name.startswith(("character", "bpchar"))


def quote(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def converted(batch: pa.RecordBatch, columns: list[Column]) -> pa.RecordBatch:
    """A batch as the driver gives it, with the columns' types. Raises `PluginError` for a value Arrow cannot hold."""
    arrays = []
    for array, column in zip(batch.columns, columns, strict=True):
        try:
            made = restore(array, column.type)
        except pa.ArrowInvalid as error:
            raise PluginError(
                f"column `{column.name}`: {error}", hint="NaN and infinity are no decimals; select them out in a view"
            ) from error
        _check_finite(made, column)
        arrays.append(made)
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _check_finite(array: pa.Array, column: Column) -> None:
    """Raises `PluginError` for `infinity` among dates and times, which the driver wraps around."""
    earliest = _EARLIEST.get(column.type)
    if earliest is None or not len(array):
        return
    least = pc.min(array.view(pa.int32() if pa.types.is_date32(column.type) else pa.int64())).as_py()
    if least is not None and least < earliest:
        raise PluginError(
            f"column `{column.name}` holds `infinity`, for which Arrow has no value",
            hint="sync a view that makes it null or a date",
        )
