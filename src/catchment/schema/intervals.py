"""The two interval types that pyarrow carries but cannot show: months, and days with milliseconds.

pyarrow has no constructor for them and fails on their columns. Their layout is that of plain numbers, so in process a
column of them is an extension type over int32 or int64, and its schema is exchanged where it enters or leaves.
"""

from __future__ import annotations

import base64
from typing import Any

import pyarrow as pa

from catchment.schema import arrays
from catchment.schema.types import CloudQueryType

_MONTHS = base64.b64decode(
    "/////3AAAAAQAAAAAAAKAAwABgAFAAgACgAAAAABBAAMAAAACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUAAgABgAHAAwAAAAQABAAAAAAAAEL"
    "EAAAABgAAAAEAAAAAAAAAAEAAABhAAYACAAGAAYAAAAAAAAA"
)
_DAYS = _MONTHS[:118] + b"\x01" + _MONTHS[119:]
"""IPC messages of schemas with one column of the type: the only way to get at it."""


class MonthIntervalType(CloudQueryType):
    """Whole months as int32."""

    extension = "catchment.month_interval"
    storage = pa.int32()

    def __str__(self) -> str:
        return "month_interval"


class DayTimeIntervalType(CloudQueryType):
    """Days in the lower, milliseconds in the upper half of an int64."""

    extension = "catchment.day_time_interval"
    storage = pa.int64()

    def __str__(self) -> str:
        return "day_time_interval"


for _type in (MonthIntervalType(), DayTimeIntervalType()):
    pa.register_extension_type(_type)


def month_interval() -> pa.DataType:
    """The type of columns of whole months."""
    return MonthIntervalType()


def day_time_interval() -> pa.DataType:
    """The type of columns of days and milliseconds."""
    return DayTimeIntervalType()


def is_interval(data_type: pa.DataType) -> bool:
    """Whether values of the type are intervals of any of the three kinds."""
    return isinstance(data_type, (MonthIntervalType, DayTimeIntervalType)) or bool(pa.types.is_interval(data_type))


def interval_texts(array: pa.Array) -> pa.Array:
    """The protocol's text of intervals of any kind: a number of months, or a JSON object of the parts."""
    if isinstance(array.type, MonthIntervalType):
        return array.storage.cast(pa.utf8())
    if isinstance(array.type, DayTimeIntervalType):
        return arrays.day_time_texts(array.storage)
    return arrays.interval_texts(array)


def _real(message: bytes) -> pa.DataType:
    return pa.ipc.read_schema(pa.py_buffer(message)).field(0).type


_REAL = {MonthIntervalType: _real(_MONTHS), DayTimeIntervalType: _real(_DAYS)}
_SHOWN: dict[int, pa.DataType] = {real.id: kind() for kind, real in _REAL.items()}


def shown(schema: pa.Schema) -> pa.Schema:
    """`schema` as it came, with the types that pyarrow cannot show replaced by ours; the layout of batches is one."""
    return _with_types(schema, lambda kind: _SHOWN.get(kind.id, kind))


def carried(schema: pa.Schema) -> pa.Schema:
    """The inverse of `shown`: the schema that travels."""
    return _with_types(schema, lambda kind: _REAL.get(type(kind), kind))


def _with_types(schema: pa.Schema, replace: Any) -> pa.Schema:
    fields = [field.with_type(_mapped(field.type, replace)) for field in schema]
    return pa.schema(fields, metadata=schema.metadata) if fields != list(schema) else schema


def _mapped(kind: pa.DataType, replace: Any) -> pa.DataType:
    """`kind` with `replace` applied to every type in it that holds no other."""
    if isinstance(kind, pa.BaseExtensionType):
        return replace(kind)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_mapped(field.type, replace)) for field in kind])
    if pa.types.is_map(kind):
        key, item = kind.key_field, kind.item_field
        return pa.map_(
            key.with_type(_mapped(key.type, replace)), item.with_type(_mapped(item.type, replace)), kind.keys_sorted
        )
    if pa.types.is_fixed_size_list(kind):
        field = kind.value_field
        return pa.list_(field.with_type(_mapped(field.type, replace)), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.large_list if pa.types.is_large_list(kind) else pa.list_
        return make(kind.value_field.with_type(_mapped(kind.value_type, replace)))
    return replace(kind)
