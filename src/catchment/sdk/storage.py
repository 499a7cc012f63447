"""Types and values as a database stores them, and back: one function per leaf, applied at any depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from catchment.schema import types

LeafType: TypeAlias = Callable[[pa.DataType], pa.DataType]
LeafArray: TypeAlias = Callable[[pa.Array], pa.Array]


def numbered(count: int, first: int = 0) -> pa.Array:
    """The `count` numbers from `first` as int64."""
    return pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count), start=first - 1)


def is_nested(data_type: pa.DataType) -> bool:
    """Whether values of the type hold other values."""
    return bool(pa.types.is_nested(data_type)) and not isinstance(data_type, pa.BaseExtensionType)


def map_type(data_type: pa.DataType, leaf: LeafType) -> pa.DataType:
    """`data_type` with `leaf` applied to every type in it that holds no others; fields become nullable."""
    if not is_nested(data_type):
        return leaf(data_type)
    if pa.types.is_struct(data_type):
        return pa.struct([pa.field(field.name, map_type(field.type, leaf)) for field in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(map_type(data_type.key_type, leaf), map_type(data_type.item_type, leaf))
    return pa.list_(map_type(data_type.value_type, leaf))


def map_array(array: pa.Array, leaf: LeafArray) -> pa.Array:
    """`array` with `leaf` applied to the values at the bottom; lists of any kind become plain lists."""
    kind = array.type
    if not is_nested(kind):
        return leaf(array)
    if pa.types.is_struct(kind):
        children = [map_array(array.field(index), leaf) for index in range(kind.num_fields)]
        fields = [pa.field(field.name, child.type) for field, child in zip(kind, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null() if array.null_count else None)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        array = array.cast(pa.list_(kind.value_field))
    validity, offsets = array.buffers()[:2]
    if pa.types.is_map(kind):
        keys, items = map_array(array.keys, leaf), map_array(array.items, leaf)
        entries = pa.StructArray.from_arrays(
            [keys, items], fields=[pa.field("key", keys.type, nullable=False), pa.field("value", items.type)]
        )
        made, child = pa.map_(keys.type, items.type), entries
    else:
        child = map_array(array.values, leaf)
        made = pa.list_(child.type)
    return pa.Array.from_buffers(made, len(array), [validity, offsets], array.null_count, array.offset, [child])


def restore(array: pa.Array, want: pa.DataType) -> pa.Array:
    """Values as a database gives them, as `want`: the type that a destination declares for the column.

    Text becomes json, inet, mac or uuid; numbers, dates and times get their width and zone back. Raises
    `pa.ArrowInvalid` for a value that does not fit.
    """
    if array.type.equals(want):
        return array
    if isinstance(want, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(want, _extension_storage(array, want))
    if isinstance(array.type, pa.BaseExtensionType):
        return restore(array.storage, want)
    if not is_nested(want):
        return _cast(array, want)
    if pa.types.is_struct(want):
        children = [restore(array.field(array.type.get_field_index(field.name)), field.type) for field in want]
        return pa.StructArray.from_arrays(
            children, fields=list(want), mask=array.is_null() if array.null_count else None
        )
    if pa.types.is_map(want):
        keys, items = restore(array.keys, want.key_type), restore(array.items, want.item_type)
        child = pa.StructArray.from_arrays([keys, items], fields=[want.key_field, want.item_field])
        validity, offsets = array.buffers()[:2]
        return pa.Array.from_buffers(want, len(array), [validity, offsets], array.null_count, array.offset, [child])
    validity, offsets = array.buffers()[:2]
    child = restore(array.values, want.value_type)
    plain = pa.Array.from_buffers(
        pa.list_(pa.field(want.value_field.name, child.type)),
        len(array),
        [validity, offsets],
        array.null_count,
        array.offset,
        [child],
    )
    return plain if plain.type.equals(want) else plain.cast(want)


def _cast(array: pa.Array, want: pa.DataType) -> pa.Array:
    kind = array.type
    if pa.types.is_timestamp(want) and pa.types.is_timestamp(kind):
        # The database keeps UTC without saying so; the zone goes back on without moving the value.
        naive = array.cast(pa.timestamp(kind.unit)) if kind.tz else array
        return naive.cast(pa.timestamp(want.unit)).cast(pa.int64()).cast(want)
    if pa.types.is_time(want) and pa.types.is_string(kind):
        # Arrow parses moments, not times of day: those of the first day are the same numbers.
        moments = pc.binary_join_element_wise("1970-01-01 ", array, "").cast(pa.timestamp(want.unit))
        return moments.cast(pa.int64()).cast(pa.int32() if pa.types.is_time32(want) else pa.int64()).cast(want)
    return array.cast(want)


def _extension_storage(array: pa.Array, want: pa.DataType) -> pa.Array:
    storage = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
    if isinstance(want, types.UUIDType) and pa.types.is_binary(storage.type):
        return storage.cast(pa.binary(16))
    if isinstance(want, types.UUIDType) and not pa.types.is_fixed_size_binary(storage.type):
        undashed = pc.replace_substring(storage.cast(pa.utf8()), "-", "")
        return _from_hex(undashed).cast(pa.binary(16))
    if isinstance(want, types.MACType) and not pa.types.is_binary(storage.type):
        return _from_hex(pc.replace_substring(storage.cast(pa.utf8()), ":", ""))
    return storage.cast(want.storage_type)


def _from_hex(texts: pa.Array) -> pa.Array:
    """Bytes for hexadecimal text; Arrow has no function for it. Used only where rows are read back."""
    return pa.array([None if text is None else bytes.fromhex(text) for text in texts.to_pylist()], pa.binary())
