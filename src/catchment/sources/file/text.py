"""What CSV and JSON reading share: opening, column types by name, and text that becomes typed values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import PluginError, did_you_mean, json, uuid

BLOCK_BYTES = 4 << 20
"""Bytes of text that are parsed at once."""

_BY_ENDING = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}

_TYPES: Mapping[str, Callable[[], pa.DataType]] = {
    "int64": pa.int64,
    "float64": pa.float64,
    "string": pa.utf8,
    "bool": pa.bool_,
    "date": pa.date32,
    "timestamp": lambda: pa.timestamp("us", "UTC"),
    "json": json,
    "uuid": uuid,
}


def column_type(name: str, where: str) -> pa.DataType:
    """The type that a spec calls `name`. Raises `PluginError` for an unknown one."""
    if name in _TYPES:
        return _TYPES[name]()
    decimal = re.fullmatch(r"decimal\((\d+), ?(\d+)\)", name)
    if decimal and 1 <= int(decimal[1]) <= 38 and int(decimal[2]) <= int(decimal[1]):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    hint = did_you_mean(name, [*_TYPES, "decimal(18,2)"])
    raise PluginError(f"{where}: {name!r} is no column type", hint=hint)


def open_stream(path: Path, compression: str | None) -> Any:
    """A stream of the file's bytes, decompressed."""
    if compression is None:
        compression = _BY_ENDING.get(path.suffix.lower())
    return pa.input_stream(str(path), compression=None if compression == "none" else compression)


@dataclass(slots=True)
class BadRow:
    """A row that cannot be read."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def convert(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Texts as `kind`, and a mask of those that are none (they become null); the mask is None if all are."""
    try:
        return _converted(texts, kind), None
    except (pa.ArrowInvalid, ValueError):
        good = [_fits(text, kind) for text in texts.to_pylist()]
        mask = pa.array([not fits for fits in good])
        return _converted(pc.if_else(mask, pa.scalar(None, pa.utf8()), texts), kind), mask


def _converted(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return texts
    if kind.equals(json()):
        _check_json(texts)
        return pa.ExtensionArray.from_storage(kind, texts.cast(pa.binary()))
    if kind.equals(uuid()):
        import uuid as uuids

        raw = [None if text is None else uuids.UUID(text).bytes for text in texts.to_pylist()]
        return pa.ExtensionArray.from_storage(kind, pa.array(raw, pa.binary(16)))
    if pa.types.is_boolean(kind):
        return pc.utf8_lower(texts).cast(kind)
    if pa.types.is_timestamp(kind):
        return _timestamps(texts, kind)
    return texts.cast(kind)


def _timestamps(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """ISO 8601; text without a zone is UTC."""
    zoned = pc.match_substring_regex(texts, r"(Z|[+-]\d\d:?\d\d)$")
    plain = pc.if_else(zoned, texts, pc.binary_join_element_wise(texts, "Z", ""))
    return plain.cast(pa.timestamp(kind.unit, "UTC")).cast(kind)


def _check_json(texts: pa.Array) -> None:
    import json as json_module

    for text in texts.to_pylist():
        if text is not None:
            json_module.loads(text)


def _fits(text: str | None, kind: pa.DataType) -> bool:
    try:
        _converted(pa.array([text], pa.utf8()), kind)
    except (pa.ArrowInvalid, ValueError):
        return False
    return True


_PATTERNS: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), r"^(true|false|True|False|TRUE|FALSE)$"),
    (pa.int64(), r"^-?(0|[1-9][0-9]{0,18})$"),
    (pa.float64(), r"^-?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?$"),
    (pa.date32(), r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    (
        pa.timestamp("us", "UTC"),
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
        r"(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?$",
    ),
)
"""Types that text is tried as, in this order; what is none of them is text."""


class Inference:
    """Finds the narrowest type that takes every text of a column: leading zeros stay text, nothing is guessed away."""

    def __init__(self) -> None:
        self._candidates = list(_PATTERNS)
        self._seen = False

    def look(self, texts: pa.Array) -> None:
        """Take a block of the column into account."""
        if texts.null_count == len(texts):
            return
        self._seen = True
        while self._candidates and not self._takes(texts, *self._candidates[0]):
            del self._candidates[0]

    @property
    def type(self) -> pa.DataType:
        """The type; text for a column without a value."""
        return self._candidates[0][0] if self._candidates and self._seen else pa.utf8()

    @staticmethod
    def _takes(texts: pa.Array, kind: pa.DataType, pattern: str) -> bool:
        if not pc.all(pc.match_substring_regex(texts, pattern)).as_py():
            return False
        try:
            _converted(texts, kind)
        except pa.ArrowInvalid:
            return False
        return True


def bad_rows(
    masks: Mapping[str, tuple[pa.Array, pa.Array]], kinds: Mapping[str, pa.DataType]
) -> Iterator[tuple[int, str]]:
    """Index and reason of every row in which a value is not of its column's type; `masks` has mask and texts."""
    for name, (mask, texts) in masks.items():
        for index in pc.indices_nonzero(mask).to_pylist():
            yield index, f"column `{name}`: {texts[index].as_py()!r} is no {kinds[name]}"
