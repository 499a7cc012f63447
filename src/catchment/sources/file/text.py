"""Text that becomes typed values: column types by name, conversion by column, and which texts fit no type."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import did_you_mean, json, uuid
from catchment.sdk.storage import numbered
from catchment.sources.file.blocks import Bad, BadRow, Part, shown

TIMESTAMP = pa.timestamp("us", "UTC")

_TYPES: Mapping[str, Callable[[], pa.DataType]] = {
    "int64": pa.int64,
    "float64": pa.float64,
    "string": pa.utf8,
    "bool": pa.bool_,
    "date": pa.date32,
    "timestamp": lambda: TIMESTAMP,
    "json": json,
    "uuid": uuid,
}


def column_type(name: str) -> pa.DataType:
    """The type that a spec calls `name`. Raises `ValueError` for an unknown one."""
    if name in _TYPES:
        return _TYPES[name]()
    decimal = re.fullmatch(r"decimal\((\d+), ?(\d+)\)", name)
    if decimal and 1 <= int(decimal[1]) <= 38 and int(decimal[2]) <= int(decimal[1]):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    raise ValueError(f"{name!r} is no column type; {did_you_mean(name, [*_TYPES, 'decimal(18,2)'])}")


def type_name(kind: pa.DataType) -> str:
    """What a spec calls the type."""
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return next((name for name, made in _TYPES.items() if made().equals(kind)), str(kind))


def convert(texts: pa.Array, kind: pa.DataType, nulls: Iterable[str] = ()) -> tuple[pa.Array, list[int]]:
    """Texts as `kind`, and the indices of those that are none (they become null).

    Space around a value that is no text does not count, and one of `nulls` is null even where it is quoted: a number
    cannot be empty.
    """
    try:
        return converted(texts, kind), []
    except (pa.ArrowInvalid, ValueError):
        pass
    cleaned = without(pc.utf8_trim_whitespace(texts), nulls)
    bad = list(_misfits(cleaned, kind, 0))
    if bad:
        is_bad = pc.is_in(numbered(len(texts)), pa.array(bad, pa.int64()))
        cleaned = pc.if_else(is_bad, pa.scalar(None, pa.utf8()), cleaned)
    return converted(cleaned, kind), bad


def without(texts: pa.Array, nulls: Iterable[str]) -> pa.Array:
    """`texts` with those of `nulls` as null."""
    return pc.if_else(pc.is_in(texts, pa.array(list(nulls), pa.utf8())), pa.scalar(None, pa.utf8()), texts)


def typed(
    path: Path,
    columns: Mapping[str, pa.Array],
    kinds: Mapping[str, pa.DataType],
    lines: Callable[[], pa.Array],
    bad: Bad,
    *,
    found: Iterable[BadRow] = (),
    nulls: Iterable[str] = (),
    unit: str = "",
) -> Part:
    """Columns of which some are text as rows of their types; rows with a text that does not fit are left out.

    `bad` gets those rows and the ones `found` before, in the order of the file.
    """
    arrays, broken = [], dict[int, str]()
    for name, array in columns.items():
        kind = kinds[name]
        if not array.type.equals(kind):
            texts = array
            array, misfits = convert(texts, kind, nulls)
            for index in misfits:
                broken.setdefault(index, f"column `{name}`: {shown(texts[index].as_py())} is no {type_name(kind)}")
        arrays.append(array)
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    all_found = list(found)
    if broken:
        known = lines()
        all_found += [BadRow(path, known[index].as_py(), reason, unit) for index, reason in broken.items()]
        kept = all_but(broken, batch.num_rows)
        batch, good = batch.filter(kept), known.filter(kept)
        lines = lambda: good  # noqa: E731
    for row in sorted(all_found, key=lambda row: row.line):
        bad(row)
    return Part(batch, lines)


def all_but(indices: Iterable[int], count: int) -> pa.Array:
    """A mask of `count` rows without those at `indices`."""
    return pc.invert(pc.is_in(numbered(count), pa.array(list(indices), pa.int64())))


def converted(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Texts as `kind`. Raises `pa.ArrowInvalid` or `ValueError` if one of them is none."""
    if pa.types.is_string(kind):
        return texts
    if kind.equals(json()):
        _check_json(texts)
        return pa.ExtensionArray.from_storage(kind, texts.cast(pa.binary()))
    if kind.equals(uuid()):
        return pa.ExtensionArray.from_storage(kind, _uuid_bytes(texts))
    if pa.types.is_boolean(kind):
        return pc.utf8_lower(texts).cast(kind)
    if pa.types.is_timestamp(kind):
        return _timestamps(texts, kind)
    return texts.cast(kind)


def _misfits(texts: pa.Array, kind: pa.DataType, first: int) -> Iterable[int]:
    """Indices, counted from `first`, of texts that are no `kind`; halves are tried, so that few of them cost little."""
    try:
        converted(texts, kind)
    except (pa.ArrowInvalid, ValueError):
        if len(texts) == 1:
            yield first
        else:
            middle = len(texts) // 2
            yield from _misfits(texts.slice(0, middle), kind, first)
            yield from _misfits(texts.slice(middle), kind, first + middle)


def _timestamps(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO 8601; text without a zone is UTC, a date its midnight."""
    is_date = pc.equal(pc.binary_length(texts), pa.scalar(10, pa.int32()))
    zoned = pc.ends_with(texts, "Z")
    if not pc.all(zoned).as_py():
        zoned = pc.match_substring_regex(texts, r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$")
    ending = pc.if_else(is_date, " 00:00:00Z", pc.if_else(zoned, "", "Z"))
    return pc.binary_join_element_wise(texts, ending, "").cast(pa.timestamp(kind.unit, "UTC")).cast(kind)


def _check_json(texts: pa.Array) -> None:
    """Raises `ValueError` if a text is not JSON; `NaN` and the like are none, as no database takes them."""
    for text in texts.to_pylist():
        if text is not None:
            try:
                json_text.loads(text, parse_constant=no_constant)
            except RecursionError:
                raise ValueError("nested too deeply") from None


def no_constant(name: str) -> None:
    """Refuses `NaN` and `Infinity`, which Python takes for JSON."""
    raise ValueError(f"{name} is not JSON")


_DIGITS = pa.array([int(chr(c), 16) if chr(c) in "0123456789abcdefABCDEF" else None for c in range(256)], pa.uint8())


def _uuid_bytes(texts: pa.Array) -> pa.Array:
    """The 16 bytes of each UUID, written with dashes or without."""
    pattern = "^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"
    if pc.all(pc.match_substring_regex(texts, pattern)).as_py() is False:
        raise ValueError("not every text is a UUID")
    digits = pc.replace_substring(pc.fill_null(texts, "0" * 32), "-", "")
    count, data = len(texts) * 16, digits.buffers()[2]
    start = digits.offset * 32
    codes = pa.Array.from_buffers(pa.uint8(), start + 2 * count, [None, data]).slice(start) if count else digits
    if not count:
        return pa.array([], pa.binary(16))
    first = pc.multiply(numbered(count), pa.scalar(2, pa.int64()))
    high, low = (_DIGITS.take(codes.take(at)) for at in (first, pc.add(first, pa.scalar(1, pa.int64()))))
    raw = pc.add(pc.multiply(high, pa.scalar(16, pa.uint8())), low)
    made = pa.Array.from_buffers(pa.binary(16), len(texts), [None, raw.buffers()[1]])
    return pc.if_else(texts.is_valid(), made, pa.scalar(None, pa.binary(16))) if texts.null_count else made
