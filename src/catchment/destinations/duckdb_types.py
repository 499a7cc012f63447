"""Arrow types as DuckDB has them, and values as its Arrow reader takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from catchment.sdk import inet, json, mac, sql, uuid
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import is_interval


def _is_text(data_type: pa.DataType) -> bool:
    """Whether values are stored as text though they are none."""
    return bool(
        pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
        or (pa.types.is_decimal256(data_type) and data_type.precision > 38)
    )


def stored_leaf(data_type: pa.DataType) -> pa.DataType:
    """The type that comes back: exact but for durations and intervals, which are text."""
    return pa.utf8() if _is_text(data_type) else data_type


def to_leaf(array: pa.Array) -> pa.Array:
    """Values as DuckDB's Arrow reader takes them without changing them."""
    kind = array.type
    if kind.equals(uuid()):
        return pa.ExtensionArray.from_storage(pa.uuid(), array.storage)
    if kind.equals(inet()) or kind.equals(mac()) or kind.equals(json()) or _is_text(kind):
        return to_text(array)
    if pa.types.is_timestamp(kind) and kind.tz:
        return array.cast(pa.timestamp(kind.unit))
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal256(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    return array


_TYPES: Sequence[tuple[pa.DataType, str]] = (
    (pa.bool_(), "BOOLEAN"),
    (pa.int8(), "TINYINT"),
    (pa.int16(), "SMALLINT"),
    (pa.int32(), "INTEGER"),
    (pa.int64(), "BIGINT"),
    (pa.uint8(), "UTINYINT"),
    (pa.uint16(), "USMALLINT"),
    (pa.uint32(), "UINTEGER"),
    (pa.uint64(), "UBIGINT"),
    (pa.float32(), "FLOAT"),
    (pa.float64(), "DOUBLE"),
    (pa.utf8(), "VARCHAR"),
    (pa.binary(), "BLOB"),
    (pa.date32(), "DATE"),
    (pa.time64("us"), "TIME"),
    (pa.time64("ns"), "TIME_NS"),
    (pa.timestamp("us"), "TIMESTAMP"),
    (pa.timestamp("ns"), "TIMESTAMP_NS"),
    (uuid(), "UUID"),
    (json(), "JSON"),
)
"""Arrow types and the DuckDB types that show them again."""
_NAMES = dict(_TYPES)
_BACK = {name: data_type for data_type, name in _TYPES}


def _type_name(data_type: pa.DataType) -> str:
    """The DuckDB type for an Arrow type."""
    if data_type in _NAMES:
        return str(_NAMES[data_type])
    if (
        _is_text(data_type)
        or data_type.equals(inet())
        or data_type.equals(mac())
        or pa.types.is_large_string(data_type)
    ):
        return "VARCHAR"
    if pa.types.is_map(data_type):
        return f"MAP({_type_name(data_type.key_type)}, {_type_name(data_type.item_type)})"
    if pa.types.is_struct(data_type):
        fields = ", ".join(f"{DIALECT.quote(field.name)} {_type_name(field.type)}" for field in data_type)
        return f"STRUCT({fields})"
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type):
        return f"{_type_name(data_type.value_type)}[]"
    if pa.types.is_decimal(data_type):
        return f"DECIMAL({data_type.precision},{max(data_type.scale, 0)})"
    if pa.types.is_timestamp(data_type):
        return "TIMESTAMP_NS" if data_type.unit == "ns" else "TIMESTAMP"
    if pa.types.is_date(data_type):
        return "DATE"
    if pa.types.is_time(data_type):
        return "TIME"
    if pa.types.is_float16(data_type):
        return "FLOAT"
    return "BLOB" if pa.types.is_large_binary(data_type) or pa.types.is_fixed_size_binary(data_type) else "VARCHAR"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a DuckDB type as the catalogue names it; nested and foreign types are kept by name."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", name)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _BACK[name] if name in _BACK else sql.Opaque(re.sub(r'"(\w+)"', r"\1", name))


DIALECT = sql.Dialect(type_name=_type_name, arrow_type=arrow_type, inline_unique=False)
