"""Values as text, by column: plain cell text, and JSON text of anything nested. No Python per cell."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.errors import PluginError
from catchment.schema import arrays, types
from catchment.schema.intervals import MonthIntervalType, interval_texts, is_interval

_ESCAPES = [("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\b", "\\b"), ("\f", "\\f")]
_CONTROL = [(chr(code), f"\\u{code:04x}") for code in range(32) if chr(code) not in "\n\r\t\b\f"]


def to_text(array: pa.Array) -> pa.Array:
    """Plain text of every value; nested values as JSON text, binary as base64, null stays null."""
    kind = array.type
    if isinstance(kind, types.UUIDType):
        return arrays.uuid_texts(array.storage)
    if isinstance(kind, types.MACType):
        return arrays.colon_texts(array.storage)
    if isinstance(kind, (types.JSONType, types.InetType)):
        return array.storage.cast(pa.utf8())
    if is_interval(kind):
        return interval_texts(array)
    if isinstance(kind, pa.BaseExtensionType):
        return to_text(array.storage)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return arrays.base64_texts(array)
    if pa.types.is_binary_view(kind):
        return arrays.base64_texts(array.cast(pa.binary()))
    if pa.types.is_timestamp(kind):
        texts = _moments(array.cast(pa.timestamp(kind.unit)))
        written = pc.binary_join_element_wise(pc.replace_substring(texts, " ", "T"), "Z", "")
        return pc.if_else(pc.match_substring(texts, ":"), written, texts)
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return _moments(array)
    if pa.types.is_decimal(kind):
        return arrays.decimal_texts(array)
    if pa.types.is_duration(kind):
        return pc.binary_join_element_wise(array.cast(pa.int64()).cast(pa.utf8()), kind.unit, "")
    if pa.types.is_dictionary(kind):
        return to_text(array.dictionary_decode())
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.utf8())
    if pa.types.is_nested(kind):
        return to_json_text(array)
    return array.cast(pa.utf8())


def _moments(array: pa.Array) -> pa.Array:
    """Dates and times as text; those beyond what a calendar or a day holds as the number they are, with its unit."""
    kind = array.type
    if pa.types.is_date64(kind):
        days = array.cast(pa.date32(), safe=False)
        # A date with a time of day is none, but must be shown as what it is.
        whole = pc.all(pc.equal(days.cast(pa.date64()), array), min_count=0).as_py()
        array, kind = (days, days.type) if whole else (array.cast(pa.timestamp("ms")), pa.timestamp("ms"))
    texts = array.cast(pa.utf8())
    if not pc.any(pc.match_substring(texts, ">")).as_py():
        return texts
    unit = "d" if pa.types.is_date(kind) else kind.unit
    count = pc.binary_join_element_wise(pc.replace_substring_regex(texts, r"[^-0-9]", ""), unit, "")
    return pc.if_else(pc.match_substring(texts, ">"), count, texts)


def to_json_text(array: pa.Array) -> pa.Array:
    """Compact JSON text of every value; a null value stays null, a null inside one is `null`.

    A map is a list of objects with `key` and `value`. Raises `PluginError` for a union.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.utf8())
    if pa.types.is_dictionary(kind):
        return to_json_text(array.dictionary_decode())
    if pa.types.is_struct(kind):
        return _struct_json(array)
    if isinstance(kind, types.JSONType) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return to_text(array)
    if isinstance(kind, MonthIntervalType):
        # A number by itself, but an object wherever upstream's plugins write JSON.
        return pc.binary_join_element_wise('{"months":', to_text(array), "}", "")
    if is_interval(kind):
        return to_text(array)
    if pa.types.is_floating(kind):
        # JSON has no word for these.
        finite = pc.is_finite(array.cast(pa.float64()))
        texts = array.cast(pa.utf8())
        return pc.if_else(finite, texts, pc.if_else(array.is_null(), texts, _quoted(texts)))
    if pa.types.is_union(kind):
        raise PluginError(f"values of type {kind} have no text; cast the column to one type before it is sent")
    if pa.types.is_nested(kind):
        return arrays.list_texts(array, lambda values: _inner(to_json_text(values)), ",")
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
