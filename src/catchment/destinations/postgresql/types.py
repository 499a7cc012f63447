"""Arrow types as PostgreSQL has them, and values as binary COPY takes them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.postgresql.connection import MARK
from catchment.destinations.postgresql.conversions import conversion
from catchment.sdk import Column, PluginError, Table, inet, json, mac, sql, uuid
from catchment.sdk.json_text import to_json_text, to_text
from catchment.sdk.staging import STAGING_PREFIX, is_staging
from catchment.sdk.storage import is_interval, is_nested, map_array

STAGING_SCHEMA = "_catchment_staging"
MAX_NAME_BYTES = 63
MAX_COLUMNS = 1_600
"""Columns of a table (https://www.postgresql.org/docs/current/limits.html)."""
MAC_BYTES = 6
"""Of a `macaddr`."""

_NAMES: Mapping[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int8(): "smallint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "integer",
    pa.uint32(): "bigint",
    pa.uint64(): "numeric(20,0)",
    pa.float16(): "real",
    pa.float32(): "real",
    pa.float64(): "double precision",
    uuid(): "uuid",
    json(): "jsonb",
    inet(): "inet",
    mac(): "macaddr",
}
_BACK: Mapping[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "numeric(20,0)": pa.uint64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "text": pa.utf8(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "uuid": uuid(),
    "jsonb": json(),
    "inet": inet(),
    "macaddr": mac(),
}


def type_name(data_type: pa.DataType) -> str:
    """The column type, the same that upstream's plugin makes; one of PostgreSQL's own stays what it is."""
    if isinstance(data_type, sql.Opaque):
        return str(data_type)
    if data_type in _NAMES:
        return _NAMES[data_type]
    if is_list(data_type) and not is_nested_list(data_type):
        return f"{type_name(data_type.value_type)}[]"
    if pa.types.is_decimal(data_type):
        return f"numeric({data_type.precision},{data_type.scale})"
    if pa.types.is_date(data_type):
        return "date"
    if pa.types.is_time(data_type):
        return "time without time zone"
    if pa.types.is_timestamp(data_type):
        return "timestamp without time zone"
    if is_bytes(data_type):
        return "bytea"
    return "text"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a type as `format_type` names it; foreign ones are kept by name."""
    if name in _BACK:
        return _BACK[name]
    if name.endswith("[]"):
        return pa.list_(arrow_type(name[:-2]))
    decimal = re.fullmatch(r"numeric\((\d+),(\d+)\)", name)
    if decimal and int(decimal[1]) <= 76:
        maker = pa.decimal128 if int(decimal[1]) <= 38 else pa.decimal256
        return maker(int(decimal[1]), int(decimal[2]))
    return sql.Opaque(name)


def is_bytes(data_type: pa.DataType) -> bool:
    """Whether values are plain bytes of any kind."""
    return bool(
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_fixed_size_binary(data_type)
        or data_type.equals(pa.binary_view())
    )


def is_list(data_type: pa.DataType) -> bool:
    """Whether values are lists of any kind."""
    return bool(
        pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)
    )


def is_nested_list(data_type: pa.DataType) -> bool:
    """Whether the values in a list are lists or maps themselves, which PostgreSQL's arrays cannot hold."""
    return bool(pa.types.is_map(data_type.value_type) or is_list(data_type.value_type))


def stored_as(data_type: pa.DataType) -> pa.DataType:
    """What comes back: microseconds for nanoseconds, text for durations, intervals, structs and maps."""
    if is_list(data_type) and not is_nested_list(data_type):
        return pa.list_(stored_as(data_type.value_type))
    if is_nested(data_type) or _is_text(data_type):
        return pa.utf8()
    if pa.types.is_timestamp(data_type) and data_type.unit == "ns":
        return pa.timestamp("us", data_type.tz)
    if pa.types.is_time64(data_type):
        return pa.time64("us")
    return data_type


def _is_text(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
    )


@dataclass(frozen=True, slots=True)
class Wire:
    """How a column travels: the type that COPY fills, and whether SQL has to turn it into the column's own."""

    type: str
    casts: bool


def wire(data_type: pa.DataType) -> Wire:
    """COPY checks the type inside an array, and has no text form of addresses: those go through a text column."""
    name = type_name(data_type)
    if data_type.equals(inet()) or pa.types.is_decimal256(data_type):
        return Wire("text", True)
    if is_list(data_type):
        inner = data_type.value_type
        if any(inner.equals(kind) for kind in (uuid(), json(), inet(), mac())) or pa.types.is_decimal256(inner):
            return Wire("text[]", True)
    return Wire(name, False)


def to_wire(array: pa.Array) -> pa.Array:
    """Values as the encoder takes them."""
    kind = array.type
    if is_list(kind) and not is_nested_list(kind):
        if pa.types.is_struct(kind.value_type):
            return map_list(array, to_json_text)
        return map_array(array, _in_list)
    if is_nested(kind):
        return to_json_text(array)
    return _leaf(array)


def map_list(array: pa.Array, convert: object) -> pa.Array:
    """A list array with its values, nested or not, put through `convert`."""
    if not pa.types.is_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    values = convert(array.values)  # type: ignore[operator]
    validity, offsets = array.buffers()[:2]
    return pa.Array.from_buffers(
        pa.list_(values.type), len(array), [validity, offsets], array.null_count, array.offset, [values]
    )


def _in_list(array: pa.Array) -> pa.Array:
    kind = array.type
    if wire(pa.list_(kind)).casts:
        return to_text(array)
    return _leaf(array)


_WIDER: Mapping[pa.DataType, pa.DataType] = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_utf8(): pa.utf8(),
    pa.large_binary(): pa.binary(),
    pa.date64(): pa.date32(),
}


def _leaf(array: pa.Array) -> pa.Array:
    kind = array.type
    if kind in _WIDER:
        return array.cast(_WIDER[kind])
    if kind.equals(uuid()):
        return array.storage
    if kind.equals(mac()):
        sizes = pc.unique(pc.binary_length(array.storage.drop_null())).to_pylist()
        if sizes not in ([], [MAC_BYTES]):
            raise pa.ArrowInvalid(f"a hardware address of {max(sizes)} bytes, `macaddr` takes {MAC_BYTES}")
        return array.storage
    if kind.equals(json()):
        return array.storage.cast(pa.utf8())
    if kind.equals(inet()) or _is_text(kind) or pa.types.is_decimal256(kind):
        return to_text(array)
    if pa.types.is_fixed_size_binary(kind) or kind.equals(pa.binary_view()):
        return array.cast(pa.binary())
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    if pa.types.is_timestamp(kind):
        naive = array.cast(pa.timestamp(kind.unit)) if kind.tz else array
        # Nanoseconds are cut; a second too far away to be counted in microseconds is an error.
        return naive if kind.unit == "us" else pc.cast(naive, pa.timestamp("us"), safe=kind.unit != "ns")
    if pa.types.is_time(kind):
        return pc.cast(array, pa.time64("us"), safe=False)
    return array


def qualify(name: str) -> str:
    """The quoted name of a table; staged ones live in a schema of their own."""
    if is_staging(name):
        return f"{quote(STAGING_SCHEMA)}.{quote(name.removeprefix(STAGING_PREFIX))}"
    return quote(name)


def quote(name: str) -> str:
    """A quoted identifier."""
    return DIALECT.quote(name)


def constraint_name(table: str, ending: str) -> str:
    """`<table><ending>`; where PostgreSQL would cut it, cut here and told apart from others by a hash."""
    name = (table + ending).encode()
    if len(name) <= MAX_NAME_BYTES:
        return table + ending
    mark = hashlib.sha256(name).hexdigest()[:8]
    return f"{name[: MAX_NAME_BYTES - 9].decode(errors='ignore')}_{mark}"


def is_foreign(data_type: pa.DataType) -> bool:
    """Whether a type of the catalogue is one that only PostgreSQL has, or a list of such."""
    return is_foreign(data_type.value_type) if is_list(data_type) else isinstance(data_type, sql.Opaque)


def select_expression(column: Column, have: Column) -> str:
    """How a column is selected so that the driver gives it in a form that can be restored; `have` is what it is."""
    name, kind = quote(column.name), stored_as(column.type)
    if is_foreign(have.type) and kind.equals(pa.utf8()):
        return f"{name}::text as {name}"
    if any(kind.equals(other) for other in (json(), inet())) or pa.types.is_decimal(kind) or kind.equals(pa.uint64()):
        return f"{name}::text as {name}"
    if kind.equals(mac()):
        return f"macaddr_send({name}) as {name}"
    if is_list(kind):
        inner = kind.value_type
        if isinstance(inner, pa.BaseExtensionType) or pa.types.is_decimal(inner) or inner.equals(pa.uint64()):
            return f"{name}::text[] as {name}"
    return name


def check(table: Table) -> None:
    """Raises `PluginError` for a name that PostgreSQL would cut, and for more columns than it takes."""
    for name in (table.name, *table.column_names):
        if len(name.encode()) > MAX_NAME_BYTES and not is_staging(name):
            raise PluginError(
                f"table `{table.name}`: the name `{name}` has {len(name.encode())} bytes, PostgreSQL takes "
                f"{MAX_NAME_BYTES}",
                hint="rename it with a transformer",
            )
    if len(table.columns) > MAX_COLUMNS:
        raise PluginError(
            f"table `{table.name}` has {len(table.columns):,} columns, PostgreSQL takes {MAX_COLUMNS:,}",
            hint="leave some out with a transformer",
        )


def _upstream(kind: pa.DataType) -> pa.DataType:
    """What upstream's plugin keeps values as."""
    if is_list(kind) and not is_nested_list(kind):
        inner = _upstream(kind.value_type)
        return kind if inner.equals(kind.value_type) else pa.list_(inner)
    is_text = pa.types.is_float16(kind) or pa.types.is_fixed_size_binary(kind)
    return pa.utf8() if is_text and not isinstance(kind, pa.BaseExtensionType) else kind


DIALECT = sql.Dialect(
    type_name=type_name,
    arrow_type=arrow_type,
    placeholder=MARK,
    qualify=qualify,
    conversion=conversion,
    upstream=_upstream,
)
