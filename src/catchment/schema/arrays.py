"""What Arrow has no function for, by column: texts of bytes, decimals and intervals, and the values of list slices.

Every function takes slices and nulls; none looks at a cell in Python.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from catchment.schema import types

_PLAIN_SCALE = 6
"""Largest scale of decimals whose text by Arrow has no exponent: it takes one at the seventh zero after the point."""
_UUID_DASHES = (8, 13, 18, 23)
_UUID_TEXT = 36
_KEY, _VALUE = pa.field("key", pa.utf8(), nullable=False), pa.field("value", pa.utf8())


def numbered(count: int, first: int = 0, step: int = 1) -> pa.Array:
    """The `count` numbers from `first` in steps, as int64."""
    # Scalars with a type: Arrow looks for `dateutil`, under the import lock, for each value whose type it has to infer.
    each, before = pa.scalar(step, pa.int64()), pa.scalar(first - step, pa.int64())
    return pc.cumulative_sum(pa.repeat(each, count), start=before)


def hex_texts(array: pa.Array) -> pa.Array:
    """Lower-case hexadecimal text of binary values of any kind."""
    offsets, raw = _spans(array)
    return _texts(array, offsets, 2, binascii.hexlify(raw))


def colon_texts(array: pa.Array) -> pa.Array:
    """As `hex_texts` with colons between the bytes, as hardware addresses are written."""
    offsets, raw = _spans(array)
    texts = _texts(array, offsets, 3, binascii.hexlify(raw, ":") + b":")
    return pc.ascii_rtrim(texts, characters=":")


def uuid_texts(array: pa.Array) -> pa.Array:
    """The dashed text of 16-byte values."""
    _, raw = _spans(array)
    hexes = binascii.hexlify(raw)
    texts = bytearray(b"-") * (_UUID_TEXT * len(array))
    # One strided copy per place of the text, instead of one slice per value.
    places = [place for place in range(_UUID_TEXT) if place not in _UUID_DASHES]
    for digit, place in enumerate(places):
        texts[place::_UUID_TEXT] = hexes[digit::32]
    return _texts(array, numbered(len(array) + 1), _UUID_TEXT, texts)


def base64_texts(array: pa.Array) -> pa.Array:
    """The base64 text of binary values of any kind."""
    kind = pa.large_binary() if pa.types.is_large_binary(array.type) else pa.binary()
    values = array.cast(kind)
    lengths = pc.binary_length(values).cast(pa.int64())
    over = pc.subtract(lengths, pc.multiply(pc.divide(lengths, 3), 3))
    # With each value filled up to whole groups of three, all of them are one run of bytes.
    fill = pa.array([b"", b"\0\0", b"\0"], kind).take(over)
    filled = pc.binary_join_element_wise(values, fill, pa.scalar(b"", kind))
    offsets, raw = _spans(filled)
    groups = pc.divide(offsets, 3)
    texts = _texts(filled, groups, 4, binascii.b2a_base64(raw, newline=False))
    for rest, ending in ((1, "=="), (2, "=")):
        ended = pc.binary_join_element_wise(pc.utf8_slice_codeunits(texts, 0, -len(ending)), ending, "")
        texts = pc.if_else(pc.equal(over, rest), ended, texts)
    return texts


def bytes_of_hex(texts: pa.Array) -> pa.Array:
    """The bytes of hexadecimal text. Raises `pa.ArrowInvalid` for any other text."""
    # Whatever lies under a null is no text.
    filled = pc.fill_null(texts.cast(pa.binary()), b"")
    odd = pc.equal(pc.bit_wise_and(pc.binary_length(filled), 1), 1)
    offsets, raw = _spans(filled)
    try:
        if pc.any(odd).as_py():
            raise binascii.Error("odd number of digits")
        data = binascii.unhexlify(raw)
    except binascii.Error as error:
        raise pa.ArrowInvalid(f"expected hexadecimal digits, {error}") from None
    halves = pc.divide(offsets, 2).cast(pa.int32())
    made = pa.Array.from_buffers(pa.binary(), len(texts), [None, halves.buffers()[1], pa.py_buffer(data)])
    return _masked(texts, made)


def decimal_texts(array: pa.Array) -> pa.Array:
    """Decimals with all digits of their scale and never an exponent."""
    kind = array.type
    if kind.bit_width < 128:
        array, kind = array.cast(pa.decimal128(kind.precision, kind.scale)), pa.decimal128(kind.precision, kind.scale)
    if 0 <= kind.scale <= _PLAIN_SCALE:
        return array.cast(pa.utf8())
    make = pa.decimal128 if kind.bit_width == 128 else pa.decimal256
    whole = pa.Array.from_buffers(
        make(kind.precision, 0), len(array), array.buffers(), array.null_count, array.offset
    ).cast(pa.utf8())
    if kind.scale == 0:
        return whole
    if kind.scale < 0:
        return pc.if_else(pc.equal(whole, "0"), whole, pc.binary_join_element_wise(whole, "0" * -kind.scale, ""))
    digits = pc.utf8_lpad(pc.utf8_ltrim(whole, characters="-"), kind.scale + 1, "0")
    sign = pc.if_else(pc.starts_with(whole, "-"), "-", "")
    before, behind = (
        pc.utf8_slice_codeunits(digits, 0, -kind.scale),
        pc.utf8_slice_codeunits(digits, -kind.scale, None),
    )
    return pc.binary_join_element_wise(sign, before, ".", behind, "")


def interval_texts(array: pa.Array) -> pa.Array:
    """`{"months":…,"days":…,"nanoseconds":…}` from the 16 bytes of each value."""
    count, start = len(array), array.offset
    data = array.buffers()[1]
    small = pa.Array.from_buffers(pa.int32(), (start + count) * 4, [None, data])
    large = pa.Array.from_buffers(pa.int64(), (start + count) * 2, [None, data])
    months, days = (small.take(numbered(count, start * 4 + place, 4)).cast(pa.utf8()) for place in (0, 1))
    nanos = large.take(numbered(count, start * 2 + 1, 2)).cast(pa.utf8())
    texts = pc.binary_join_element_wise('{"months":', months, ',"days":', days, ',"nanoseconds":', nanos, "}", "")
    return _masked(array, texts)


def day_time_texts(array: pa.Array) -> pa.Array:
    """`{"days":…,"milliseconds":…}` from int64 values with days in the lower and milliseconds in the upper half."""
    halves = pa.Array.from_buffers(pa.int32(), (array.offset + len(array)) * 2, [None, array.buffers()[1]])
    days, millis = (halves.take(numbered(len(array), array.offset * 2 + place, 2)).cast(pa.utf8()) for place in (0, 1))
    return _masked(array, pc.binary_join_element_wise('{"days":', days, ',"milliseconds":', millis, "}", ""))


def list_texts(array: pa.Array, texts_of: Callable[[pa.Array], pa.Array], separator: str) -> pa.Array:
    """`[…]` around the texts of each list's or map's values; null lists stay null.

    `texts_of` gets the values as `list_values` gives them, and leaves no null.
    """
    offsets, values = list_values(array)
    texts = texts_of(values)
    kind = texts.type
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), pa.scalar(separator, kind))
    whole = pc.binary_join_element_wise(pa.scalar("[", kind), joined, pa.scalar("]", kind), pa.scalar("", kind))
    return _masked(array, whole)


def list_values(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Where each list of a slice begins among the values that follow, from 0, as int32; and only those values.

    Takes every kind of list, and maps, whose values are structs of `key` and `value`. Whatever lies under a null list
    is not among them.
    """
    if len(array) == 0:
        return pa.array([0], pa.int32()), _children(array).slice(0, 0)
    kind = array.type
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        # Views may lie in any order, and Arrow's cast of a slice of them is wrong: their values are laid out anew.
        return _laid_out(array)
    if pa.types.is_fixed_size_list(kind):
        offsets = numbered(len(array) + 1, array.offset * kind.list_size, kind.list_size)
    else:
        offsets = array.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    values = _children(array).slice(first, last - first)
    offsets = pc.subtract(offsets, offsets[0]).cast(pa.int32())
    if array.null_count == 0:
        return offsets, values
    return _laid_out(pa.ListArray.from_arrays(offsets, values, mask=array.is_null()))


def _children(array: pa.Array) -> pa.Array:
    """Every value that the lists of an array are cut out of, slices not applied."""
    if not pa.types.is_map(array.type):
        return array.values
    keys, items = array.keys, array.items
    return pa.StructArray.from_arrays([keys, items], fields=[_KEY.with_type(keys.type), _VALUE.with_type(items.type)])


def _laid_out(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    # By way of the storage: Arrow cannot build extension types.
    values = types.from_storage(types.to_storage(array).flatten(), array.type.value_type)
    return offsets.cast(pa.int32()), values


def raw_bytes(array: pa.Array) -> bytes:
    """The bytes of all texts or binary values of an array, one behind the other."""
    return bytes(_spans(array)[1].to_pybytes())


def _spans(array: pa.Array) -> tuple[pa.Array, pa.Buffer]:
    """Where each value begins among the bytes that follow, from 0, as int64; and only those bytes."""
    if len(array) == 0:
        return pa.array([0], pa.int64()), pa.py_buffer(b"")
    if pa.types.is_binary_view(array.type) or pa.types.is_string_view(array.type):
        # Their values lie about in memory.
        array = array.cast(pa.large_binary() if pa.types.is_binary_view(array.type) else pa.large_utf8())
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        raw = array.buffers()[1].slice(array.offset * width, len(array) * width)
        return numbered(len(array) + 1, 0, width), raw
    wide = pa.int64() if pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type) else pa.int32()
    _, places, data = array.buffers()
    offsets = pa.Array.from_buffers(wide, len(array) + 1, [None, places], offset=array.offset).cast(pa.int64())
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    raw = data.slice(first, last - first) if data is not None else pa.py_buffer(b"")
    return pc.subtract(offsets, offsets[0]), raw


def _texts(like: pa.Array, offsets: pa.Array, width: int, texts: bytes | bytearray) -> pa.Array:
    """Texts that lie one behind the other, `width` bytes for each step of `offsets`; null where `like` is."""
    places = pc.multiply(offsets, width).cast(pa.int32())
    made = pa.Array.from_buffers(pa.utf8(), len(like), [None, places.buffers()[1], pa.py_buffer(texts)])
    return _masked(like, made)


def _masked(like: pa.Array, texts: pa.Array) -> pa.Array:
    return pc.if_else(like.is_valid(), texts, pa.scalar(None, texts.type)) if like.null_count else texts
