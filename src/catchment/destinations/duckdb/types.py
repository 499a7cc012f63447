"""Arrow types as DuckDB has them, and values as its Arrow reader takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.duckdb.conversions import conversion
from catchment.sdk import PluginError, Table, inet, json, mac, sql, uuid
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import is_interval, is_nested


def _is_text(data_type: pa.DataType) -> bool:
    """Whether values are stored as text though they are none."""
    return bool(
        pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
        or (pa.types.is_decimal(data_type) and _decimal(data_type).precision > 38)
    )


def _decimal(data_type: pa.DataType) -> pa.DataType:
    """A decimal as DuckDB has it: digits for all of it, and none before the point left out."""
    scale = max(data_type.scale, 0)
    precision = max(data_type.precision - min(data_type.scale, 0), scale)
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)


def stored_leaf(data_type: pa.DataType) -> pa.DataType:
    """The type that comes back: exact but for durations and intervals, which are text."""
    return pa.utf8() if _is_text(data_type) else data_type


def to_leaf(array: pa.Array) -> pa.Array:
    """Values as DuckDB's Arrow reader takes them without changing them. Raises `pa.ArrowInvalid` for one that it would.

    The ends of the numbers that dates and timestamps are made of stand for infinity there, and a time of day that is
    none makes the whole database unusable once it is shown.
    """
    kind = array.type
    if kind.equals(uuid()):
        return pa.ExtensionArray.from_storage(pa.uuid(), array.storage)
    if kind.equals(inet()) or kind.equals(mac()) or kind.equals(json()) or _is_text(kind):
        return to_text(array)
    if pa.types.is_timestamp(kind):
        naive = array.cast(pa.timestamp(kind.unit)) if kind.tz else array
        naive = naive if kind.unit == "ns" else naive.cast(pa.timestamp("us"))
        return _within(naive, _FIRST_NS if kind.unit == "ns" else _FIRST_US, _INFINITE - 1)
    if pa.types.is_date(kind):
        return _within(array.cast(pa.date32()), -_LAST_DAY, _LAST_DAY)
    if pa.types.is_time(kind):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return _within(array, 0, 86_400 * per_second)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind.equals(pa.string_view()):
        # DuckDB does not look at every text that it is given, and cannot read one that is no UTF-8.
        array.validate(full=True)
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal(kind):
        return array.cast(_decimal(kind))
    return array.cast(pa.binary()) if kind.equals(pa.binary_view()) else array


_INFINITE = 2**63 - 1
_FIRST_US = -9_223_372_022_400_000_000
_FIRST_NS = -_INFINITE + 1
_LAST_DAY = 2**31 - 2


def _within(array: pa.Array, least: int, most: int) -> pa.Array:
    """`array`, whose values count days, seconds or the like. Raises `pa.ArrowInvalid` unless all are in bounds."""
    counts = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    found = pc.min_max(counts)
    if found["min"].is_valid and not least <= found["min"].as_py() <= found["max"].as_py() <= most:
        raise pa.ArrowInvalid(f"DuckDB has no {array.type} beyond {least} and {most}")
    return array


def check(table: Table) -> None:
    """Raises `PluginError` for a column that DuckDB has no type for, and for two whose names it takes for one."""
    seen: dict[str, str] = {}
    for column in table.columns:
        if _has_empty_struct(column.type):
            raise PluginError(
                f"column `{column.name}` of table `{table.name}` is a struct without fields, which DuckDB has not",
                hint="leave it out with a transformer",
            )
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise PluginError(
                f"table `{table.name}` has the columns `{other}` and `{column.name}`, which DuckDB does not tell apart",
                hint="rename one with a transformer",
            )


def _has_empty_struct(data_type: pa.DataType) -> bool:
    if not is_nested(data_type):
        return False
    fields = [data_type.field(index) for index in range(data_type.num_fields)]
    return not fields or any(_has_empty_struct(field.type) for field in fields)


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
    """The DuckDB type for an Arrow type; one of DuckDB's own stays what it is."""
    if isinstance(data_type, sql.Opaque):
        return str(data_type)
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
        stored = _decimal(data_type)
        return f"DECIMAL({stored.precision},{stored.scale})"
    if pa.types.is_timestamp(data_type):
        return "TIMESTAMP_NS" if data_type.unit == "ns" else "TIMESTAMP"
    if pa.types.is_date(data_type):
        return "DATE"
    if pa.types.is_time(data_type):
        return "TIME"
    if pa.types.is_float16(data_type):
        return "FLOAT"
    is_bytes = data_type.equals(pa.binary_view()) or pa.types.is_large_binary(data_type)
    return "BLOB" if is_bytes or pa.types.is_fixed_size_binary(data_type) else "VARCHAR"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a DuckDB type as the catalogue names it; nested and foreign types are kept by name."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", name)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _BACK[name] if name in _BACK else sql.Opaque(re.sub(r'"(\w+)"', r"\1", name))


def _upstream(kind: pa.DataType) -> pa.DataType:
    """What upstream's plugin keeps values as."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _upstream(kind.value_type)
        return kind if inner.equals(kind.value_type) else pa.list_(inner)
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return json()
    if pa.types.is_uint8(kind) or pa.types.is_uint16(kind):
        return pa.uint32()
    if pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.unit == "ns"):
        return pa.timestamp("us")
    is_text = pa.types.is_decimal(kind) or pa.types.is_time(kind) or pa.types.is_float16(kind)
    return pa.utf8() if is_text or pa.types.is_fixed_size_binary(kind) else kind


DIALECT = sql.Dialect(
    type_name=_type_name, arrow_type=arrow_type, inline_unique=False, conversion=conversion, upstream=_upstream
)
