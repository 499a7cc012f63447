"""Python values of one column as an Arrow array, and back: nothing is wrapped, rounded to fit or cut."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.schema import types
from catchment.sdk.storage import MAC_SIZES, as_list, is_nested, restore

MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError)
"""What `to_array` raises for a value that does not fit."""

_IP = (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)
_IN_WORDS = (decimal.Decimal, uuid.UUID, datetime.timedelta, PurePath, *_IP)
"""Types whose text is their value."""
_HAS_ZONE = r":.*(Z|[+-]\d\d(:?\d\d)?)$"


def to_array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """`values` as an array of `kind`; None is null. Raises one of `MISFITS`.

    Times, dates and decimals may be text (RFC 3339, UTC where it names no zone); json takes any value that JSON has a
    word for, or JSON text as bytes; lists take any iterable but text.
    """
    prepare = _PREPARE.get(type(kind))
    if prepare is not None:
        values = [None if value is None else prepare(value) for value in values]
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if is_nested(kind):
        return _nested(kind, values)
    found = set(map(type, values)) - {type(None)}
    if any(issubclass(python_type, pa.Scalar) for python_type in found):
        return _mixed(kind, values) if len(values) > 1 else exact_cast(pa.array(values), kind)
    if pa.types.is_integer(kind) and not found <= {int}:
        # Arrow cuts fractions off without a word.
        values = [None if value is None else _whole(value) for value in values]
    elif pa.types.is_floating(kind):
        return _floats(kind, values, found)
    elif pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return _moments_or_decimals(kind, values, found)
    return pa.array(values, kind)


def to_values(array: pa.Array) -> list[Any]:
    """The values as an author would write them: UUIDs, addresses and JSON as Python has them.

    Times in nanoseconds, which Python has no type for, stay Arrow scalars; `.value` is their number.
    """
    kind = array.type
    if getattr(kind, "unit", "") == "ns":
        return [value if value.is_valid else None for value in array]
    read = _READ.get(type(kind))
    values = array.to_pylist()
    return values if read is None else [None if value is None else read(value) for value in values]


def exact_cast(array: pa.Array, want: pa.DataType) -> pa.Array:
    """`array` as `want`, where no value changes by it. Raises one of `MISFITS`."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return restore(array, want, _exact_leaf)


def _exact_leaf(array: pa.Array, want: pa.DataType) -> pa.Array:
    made = array.cast(want)
    kinds = (array.type, want)
    if not any(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds) and any(
        pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_date(kind) for kind in kinds
    ):
        # Arrow takes these casts for safe even where they round, or drop the time of day.
        lost = pc.not_equal(made.cast(array.type, safe=False), array)
        if pa.types.is_floating(array.type):
            lost = pc.and_(lost, pc.invert(pc.is_nan(array)))
        if pc.any(lost).as_py():
            raise pa.ArrowInvalid(f"{array.filter(lost)[0].as_py()!r} would change")
    return made


def _mixed(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """Values of several Python types, each by itself."""
    return pa.concat_arrays([to_array(kind, [value]) for value in values])


def _nested(kind: pa.DataType, values: list[Any]) -> pa.Array:
    mask = pa.array([value is None for value in values], pa.bool_())
    if pa.types.is_struct(kind):
        rows = [{} if value is None else _fields(kind, value) for value in values]
        children = [to_array(field.type, [row.get(field.name) for row in rows]) for field in kind]
        if not children:
            return pa.array([None if value is None else {} for value in values], kind)
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=mask)
    lists = [[] if value is None else _elements(kind, value) for value in values]
    flat = [element for made in lists for element in made]
    ends = [0]
    for made in lists:
        ends.append(ends[-1] + len(made))
    if pa.types.is_map(kind):
        keys = to_array(kind.key_type, [key for key, _ in flat])
        items = to_array(kind.item_type, [item for _, item in flat])
        return pa.MapArray.from_arrays(pa.array(ends, pa.int32()), keys, items, kind, mask=mask)
    child = to_array(kind.value_type, flat)
    plain = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), child, pa.list_(kind.value_field), mask=mask)
    return as_list(plain, kind)


def _elements(kind: pa.DataType, value: Any) -> list[Any]:
    if pa.types.is_map(kind) and isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"expected a {'mapping' if pa.types.is_map(kind) else 'list'}")
    return list(value)


def _fields(kind: pa.DataType, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if not any(hasattr(value, field.name) for field in kind):
        raise TypeError(f"expected a mapping or an object with {', '.join(field.name for field in kind)}")
    return {field.name: getattr(value, field.name, None) for field in kind}


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("expected a whole number, got a bool")
    whole = int(value) if isinstance(value, (float, decimal.Decimal)) else operator.index(value)
    if whole != value:
        raise ValueError("expected a whole number")
    return whole


def _floats(kind: pa.DataType, values: list[Any], found: set[type]) -> pa.Array:
    if bool in found:
        raise TypeError("expected a number, got a bool")
    array = pa.array(values, kind)
    if not pa.types.is_float64(kind):
        # Rounded to the width is what the column asks for; out of its range is not.
        wide = pa.array(values, pa.float64())
        if pc.any(pc.and_(pc.is_inf(array.cast(pa.float64())), pc.is_finite(wide))).as_py():
            raise OverflowError(f"out of the range of {types.type_string(kind)}")
    return array


def _moments_or_decimals(kind: pa.DataType, values: list[Any], found: set[type]) -> pa.Array:
    texts = {python_type for python_type in found if issubclass(python_type, str)}
    numbers = {python_type for python_type in found if issubclass(python_type, int)}
    if 0 < len(texts) < len(found) or (pa.types.is_temporal(kind) and 0 < len(numbers) < len(found)):
        return _mixed(kind, values)
    if pa.types.is_temporal(kind) and any(issubclass(python_type, (float, decimal.Decimal)) for python_type in found):
        # Arrow cuts fractions off here as well.
        raise TypeError("expected a whole number or a time")
    if texts:
        return _from_texts(kind, pa.array(values, pa.utf8()))
    if pa.types.is_date(kind):
        values = [_day(value) if isinstance(value, datetime.datetime) else value for value in values]
    elif getattr(kind, "unit", "") in ("s", "ms") and not numbers:
        # Arrow would cut microseconds off; its cast refuses to.
        finest = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else None
        return pa.array(values, finest or (pa.time64("us") if pa.types.is_time(kind) else pa.duration("us"))).cast(kind)
    return pa.array(values, kind)


def _from_texts(kind: pa.DataType, texts: pa.Array) -> pa.Array:
    if pa.types.is_duration(kind):
        raise TypeError("expected a timedelta")
    if pa.types.is_timestamp(kind) and kind.tz:
        zoned = pc.match_substring_regex(texts, _HAS_ZONE)
        texts = pc.if_else(zoned, texts, pc.binary_join_element_wise(texts, "Z", ""))
    if pa.types.is_date64(kind):
        return texts.cast(pa.date32()).cast(kind)
    return restore(texts, kind)


def _day(value: datetime.datetime) -> datetime.date:
    if value.time() != datetime.time(0):
        raise ValueError("expected a date, got a time of day with it")
    return value.date()


def _uuid_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return uuid.UUID(bytes=value).bytes
    return (value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))).bytes


def _json_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        json.loads(value)
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_jsonable, allow_nan=False).encode()


def _jsonable(value: Any) -> Any:
    """What stands in JSON for a value that `json` does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        # In some order that is the same in every run.
        return sorted(value, key=repr)
    if isinstance(value, Sequence):
        return list(value)
    if not isinstance(value, _IN_WORDS):
        raise TypeError(f"JSON has no word for {type(value).__name__}")
    return str(value)


def _inet_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        ipaddress.ip_interface(value.decode())
        return value
    return str(ipaddress.ip_interface(str(value))).encode()


def _mac_bytes(value: Any) -> bytes:
    made = value if isinstance(value, bytes) else bytes.fromhex(str(value).translate({58: None, 45: None, 46: None}))
    if len(made) not in MAC_SIZES:
        raise ValueError(f"expected 6, 8 or 20 bytes, got {len(made)}")
    return made


_PREPARE: Mapping[type, Callable[[Any], bytes]] = {
    types.UUIDType: _uuid_bytes,
    types.JSONType: _json_bytes,
    types.InetType: _inet_bytes,
    types.MACType: _mac_bytes,
}
_READ: Mapping[type, Callable[[bytes], Any]] = {
    types.UUIDType: lambda value: uuid.UUID(bytes=value),
    types.JSONType: json.loads,
    types.InetType: lambda value: ipaddress.ip_interface(value.decode()),
}
