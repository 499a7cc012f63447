"""Values as text, by column: plain cell text, and JSON text of anything nested. No Python per cell.

Two kinds of values have no Arrow function and go value by value: base64 of binary and the shortest text of floats that
Arrow writes with an exponent.
"""

from __future__ import annotations

import base64
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.schema import types

_ESCAPES = [("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\b", "\\b"), ("\f", "\\f")]
_CONTROL = [(chr(code), f"\\u{code:04x}") for code in range(32) if chr(code) not in "\n\r\t\b\f"]


def to_text(array: pa.Array) -> pa.Array:
    """Plain text of every value; nested values as JSON text, null stays null."""
    kind = array.type
    if isinstance(kind, types.UUIDType):
        return _uuid_text(array.storage)
    if isinstance(kind, types.MACType):
        return _mac_text(array.storage)
    if isinstance(kind, (types.JSONType, types.InetType)):
        return array.storage.cast(pa.utf8())
    if isinstance(kind, pa.BaseExtensionType):
        return to_text(array.storage)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if v is None else base64.b64encode(v).decode() for v in array.to_pylist()], pa.utf8())
    if pa.types.is_timestamp(kind):
        return pc.binary_join_element_wise(
            pc.replace_substring(array.cast(pa.timestamp(kind.unit)).cast(pa.utf8()), " ", "T"), "Z", ""
        )
    if pa.types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.utf8())
    if pa.types.is_duration(kind):
        return pc.binary_join_element_wise(array.cast(pa.int64()).cast(pa.utf8()), kind.unit, "")
    if pa.types.is_interval(kind):
        return _interval_text(array)
    if pa.types.is_dictionary(kind):
        return to_text(array.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.utf8())
    if pa.types.is_nested(kind):
        return to_json_text(array)
    return array.cast(pa.utf8())


def to_json_text(array: pa.Array) -> pa.Array:
    """Compact JSON text of every value; a null value stays null, a null inside one is `null`."""
    kind = array.type
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.utf8())
    if pa.types.is_struct(kind):
        return _struct_json(array)
    if pa.types.is_map(kind):
        return _list_json(array, _entries_json(array))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list_json(array, _inner(to_json_text(array.values)))
    if isinstance(kind, types.JSONType) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return to_text(array)
    if pa.types.is_interval(kind):
        return to_text(array)
    if pa.types.is_floating(kind):
        # JSON has no word for these.
        finite = pc.is_finite(array.cast(pa.float64()))
        texts = array.cast(pa.utf8())
        return pc.if_else(finite, texts, pc.if_else(array.is_null(), texts, _quoted(texts)))
    return _quoted(to_text(array))


def _inner(texts: pa.Array) -> pa.Array:
    return pc.fill_null(texts, "null")


def _quoted(texts: pa.Array) -> pa.Array:
    """JSON strings; the replacements run only where there is something to replace."""
    needs = pc.any(pc.match_substring_regex(texts, '[\\x00-\\x1f"\\\\]')).as_py()
    if needs:
        has_control = pc.any(pc.match_substring_regex(texts, "[\\x00-\\x07\\x0b\\x0e-\\x1f]")).as_py()
        pairs = _ESCAPES + (_CONTROL if has_control else [])
        texts = reduce(lambda made, pair: pc.replace_substring(made, pair[0], pair[1]), pairs, texts)
    return pc.binary_join_element_wise('"', texts, '"', "")


def _struct_json(array: pa.StructArray) -> pa.Array:
    parts: list[Any] = []
    for index, field in enumerate(array.type):
        name = _quoted(pa.array([field.name])).to_pylist()[0]
        parts += [("," if index else "{") + name + ":", _inner(to_json_text(array.field(index)))]
    parts.append("}" if parts else "{}")
    texts = pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else pa.repeat("{}", len(array))
    return pc.if_else(array.is_valid(), texts, pa.scalar(None, pa.utf8()))


def _entries_json(array: pa.MapArray) -> pa.Array:
    """JSON objects with `key` and `value` for the entries of a map."""
    keys, items = _inner(to_json_text(array.keys)), _inner(to_json_text(array.items))
    return pc.binary_join_element_wise('{"key":', keys, ',"value":', items, "}", "")


def _list_json(array: pa.Array, values: pa.Array) -> pa.Array:
    """`[…]` around the texts of each list's values; `values` is as long as the array's whole child."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = [(array.offset + i) * size for i in range(len(array) + 1)]
        offsets = pa.array(starts, pa.int32())
    else:
        offsets = array.offsets.cast(pa.int32())
    lists = pa.ListArray.from_arrays(offsets, values)
    texts = pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
    return pc.if_else(array.is_valid(), texts, pa.scalar(None, pa.utf8()))


def _uuid_text(storage: pa.Array) -> pa.Array:
    hexes = _hex(storage)
    ends = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
    return pc.binary_join_element_wise(*(pc.utf8_slice_codeunits(hexes, a, b) for a, b in ends), "-")


def _hex(storage: pa.Array) -> pa.Array:
    return pa.array([None if value is None else value.hex() for value in storage.to_pylist()], pa.utf8())


def _mac_text(storage: pa.Array) -> pa.Array:
    return pa.array([None if value is None else value.hex(":") for value in storage.to_pylist()], pa.utf8())


def _interval_text(array: pa.Array) -> pa.Array:
    """`{"months":…,"days":…,"nanoseconds":…}` from the 16 bytes of each value."""
    count, start = len(array), array.offset
    data = array.buffers()[1]
    small = pa.Array.from_buffers(pa.int32(), (start + count) * 4, [None, data])
    large = pa.Array.from_buffers(pa.int64(), (start + count) * 2, [None, data])
    index = pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count), start=start - 1)
    months, days = (small.take(pc.add(pc.multiply(index, 4), n)).cast(pa.utf8()) for n in (0, 1))
    nanos = large.take(pc.add(pc.multiply(index, 2), 1)).cast(pa.utf8())
    texts = pc.binary_join_element_wise('{"months":', months, ',"days":', days, ',"nanoseconds":', nanos, "}", "")
    return pc.if_else(array.is_valid(), texts, pa.scalar(None, pa.utf8()))
