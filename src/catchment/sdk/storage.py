"""Types and values as a database stores them, and back: one function per leaf, applied at any depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from catchment.errors import RowsRefused
from catchment.schema import types
from catchment.schema.arrays import bytes_of_hex as bytes_of_hex
from catchment.schema.arrays import hex_texts as hex_texts
from catchment.schema.arrays import list_values as list_values
from catchment.schema.arrays import numbered as numbered
from catchment.schema.arrays import raw_bytes as raw_bytes
from catchment.schema.intervals import is_interval as is_interval

LeafType: TypeAlias = Callable[[pa.DataType], pa.DataType]
LeafArray: TypeAlias = Callable[[pa.Array], pa.Array]
MAC_SIZES = (6, 8, 20)
"""Bytes that a hardware address may have."""
Cast: TypeAlias = Callable[[pa.Array, pa.DataType], pa.Array]


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
        children = [map_array(child, leaf) for child in array.flatten()]
        fields = [pa.field(field.name, child.type) for field, child in zip(kind, children, strict=True)]
        return _struct(array, children, fields)
    offsets, values = list_values(array)
    mask = array.is_null() if array.null_count else None
    if pa.types.is_map(kind):
        keys, items = (map_array(values.field(place), leaf) for place in (0, 1))
        return pa.MapArray.from_arrays(offsets, keys, items, mask=mask)
    return pa.ListArray.from_arrays(offsets, map_array(values, leaf), mask=mask)


def _struct(like: pa.StructArray, children: list[pa.Array], fields: list[pa.Field]) -> pa.Array:
    """`children` as one struct array with the nulls of `like`."""
    if not fields:
        # Without a child Arrow cannot tell how long the array is.
        return like
    mask = like.is_null() if like.null_count else None
    return pa.StructArray.from_arrays(children, fields=fields, mask=mask)


def converted(name: str, array: pa.Array, convert: LeafArray) -> pa.Array:
    """`convert(array)` for the column `name`. Raises `RowsRefused` where a value has no place in the database."""
    try:
        return convert(array)
    except pa.ArrowInvalid as error:
        raise RowsRefused(f"column `{name}` holds a value that is out of range: {error}", column=name) from error


def restore(array: pa.Array, want: pa.DataType, cast: Cast | None = None) -> pa.Array:
    """Values as a database gives them, as `want`: the type that a destination declares for the column.

    Text becomes json, inet, mac or uuid; numbers, dates and times get their width and zone back. `cast` is what is done
    at the bottom, where that is something else. Raises `pa.ArrowInvalid` for a value that does not fit.
    """
    if array.type.equals(want):
        return array
    if isinstance(want, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(want, _extension_storage(array, want))
    if isinstance(array.type, pa.BaseExtensionType):
        return restore(array.storage, want, cast)
    if not is_nested(want):
        return (cast or _cast)(array, want)
    if not is_nested(array.type) or pa.types.is_struct(want) != pa.types.is_struct(array.type):
        # Where Arrow has no such cast either it says so.
        return array.cast(want)
    if pa.types.is_struct(want):
        names = [field.name for field in array.type]
        if sorted(names) != sorted(field.name for field in want):
            raise pa.ArrowInvalid(f"it has the fields {', '.join(names)}, not {', '.join(f.name for f in want)}")
        # Flattened, as whatever lies under a null struct need not fit.
        found = array.flatten()
        children = [restore(found[names.index(field.name)], field.type, cast) for field in want]
        return _struct(array, children, list(want))
    offsets, values = list_values(array)
    mask = array.is_null() if array.null_count else None
    if pa.types.is_map(want):
        if not pa.types.is_struct(values.type) or values.type.num_fields != 2:
            raise pa.ArrowInvalid(f"{array.type} is no map")
        keys, items = (
            restore(values.field(place), kind, cast) for place, kind in enumerate((want.key_type, want.item_type))
        )
        return pa.MapArray.from_arrays(offsets, keys, items, want, mask=mask)
    child = restore(values, want.value_type, cast)
    plain = pa.ListArray.from_arrays(offsets, child, pa.list_(want.value_field.with_type(child.type)), mask=mask)
    return as_list(plain, want)


def as_list(plain: pa.ListArray, want: pa.DataType) -> pa.Array:
    """A plain list as another kind of list of the same values. Raises `pa.ArrowInvalid` for a wrong length."""
    if plain.type.equals(want):
        return plain
    if not pa.types.is_fixed_size_list(want) or want.list_size == 0 or plain.null_count == 0:
        return plain.cast(want)
    # Arrow's cast leaves whatever was in memory under a null, so the values are laid out here, null under a null.
    size = want.list_size
    lengths = pc.list_value_length(plain)
    if not pc.all(pc.equal(lengths, size), min_count=0).as_py():
        raise pa.ArrowInvalid(f"lists of other lengths than {size}")
    shown = plain.is_valid().take(pc.divide(numbered(len(plain) * size), size))
    place = pc.subtract(pc.cumulative_sum(shown.cast(pa.int64())), 1)
    values = types.to_storage(list_values(plain)[1]).take(pc.if_else(shown, place, pa.scalar(None, pa.int64())))
    child = types.from_storage(values, want.value_type)
    return pa.FixedSizeListArray.from_arrays(child, type=want, mask=plain.is_null())


def _cast(array: pa.Array, want: pa.DataType) -> pa.Array:
    kind = array.type
    if pa.types.is_timestamp(want) and pa.types.is_timestamp(kind):
        # The database keeps UTC without saying so; the zone goes back on without moving the value.
        naive = array.cast(pa.timestamp(kind.unit)) if kind.tz else array
        return naive.cast(pa.timestamp(want.unit)).cast(pa.int64()).cast(want)
    if pa.types.is_time(want) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        # Arrow parses moments, not times of day: those of the first day are the same numbers.
        moments = pc.binary_join_element_wise("1970-01-01 ", array.cast(pa.utf8()), "").cast(pa.timestamp(want.unit))
        return moments.cast(pa.int64()).cast(pa.int32() if pa.types.is_time32(want) else pa.int64()).cast(want)
    return array.cast(want)


def _extension_storage(array: pa.Array, want: pa.DataType) -> pa.Array:
    storage = array.storage if isinstance(array.type, pa.BaseExtensionType) else array
    kind = storage.type
    if isinstance(want, types.UUIDType) and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return storage.cast(pa.binary()).cast(pa.binary(16))
    if isinstance(want, types.UUIDType) and not pa.types.is_fixed_size_binary(kind):
        return bytes_of_hex(pc.replace_substring(storage.cast(pa.utf8()), "-", "")).cast(pa.binary(16))
    if isinstance(want, types.MACType) and not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        made = bytes_of_hex(pc.replace_substring(storage.cast(pa.utf8()), ":", ""))
        if not pc.all(
            pc.is_in(pc.binary_length(made.drop_null()), pa.array(MAC_SIZES, pa.int32())), min_count=0
        ).as_py():
            raise pa.ArrowInvalid("hardware addresses have 6, 8 or 20 bytes")
        return made
    return storage.cast(want.storage_type)
