"""Reading JSON: one object a line (or an array of them), types from the whole file, errors by line, rows as Arrow.

As with CSV, a file is read once for its types and once for its rows. What has no type of its own in Arrow (values of
several kinds under one key, whole numbers beyond 64 bits, objects without keys) is kept as JSON text.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from catchment.sdk import json
from catchment.sdk.storage import is_nested, numbered
from catchment.sources.file import json_types
from catchment.sources.file.blocks import Bad, BadRow, Part, shown
from catchment.sources.file.inference import Inference
from catchment.sources.file.json_values import DEPTH, Lines, Values, is_shallow, read_lines, values_of
from catchment.sources.file.text import typed

_PARSED = (pa.int64(), pa.float64(), pa.bool_(), pa.utf8())
"""Types of single values that the parser makes itself; others are made of text."""


class Columns:
    """The columns of some JSON files: keys in the order they are met, types that hold every value of all files."""

    def __init__(self, declared: Mapping[str, pa.DataType]) -> None:
        self._declared = declared
        self._types: dict[str, pa.DataType] = {}
        self._moments: dict[str, Inference] = {}
        self._kept: set[str] = set()
        self._long_numbers = False

    @property
    def schema(self) -> pa.Schema:
        """The union of the files' columns."""
        return pa.schema([(name, self._type(name)) for name in self._types])

    def look(self, path: Path, compression: str | None) -> None:
        """Take a file into account."""
        for lines in read_lines(path, compression):
            known = self._known()
            rows = None
            if self._kept or not lines.is_plain() or not self._take(lines.text, known):
                rows = _objects(lines)
                for row in rows:
                    for name in row:
                        self._types.setdefault(name, pa.null())
                self._keep(json_types.clashing(rows))
                self._take_rows(rows)
            self._check_long_numbers(lines, rows)

    def _type(self, name: str) -> pa.DataType:
        if name in self._declared:
            return self._declared[name]
        kind = self._types[name]
        if name in self._kept or not json_types.is_storable(kind):
            return json()
        if pa.types.is_string(kind):
            return self._moments[name].type
        return json_types.as_text(kind, nulls=True)

    def _known(self) -> pa.Schema:
        """What the parser is told, so that it does not take texts for moments; a type with unknown parts it finds."""
        return pa.schema([(n, kind) for n, kind in self._types.items() if not json_types.has_leaf(kind, pa.null())])

    def _take(self, text: bytes, known: pa.Schema) -> bool:
        """Take objects into account; False if the parser cannot read them."""
        try:
            table = _parse(text, known, infer=True)
        except pa.ArrowInvalid:
            try:
                table = _parse(text, None, infer=True)
            except pa.ArrowInvalid:
                return False
        kinds = {field.name: json_types.as_text(field.type, nulls=False) for field in table.schema}
        if not all(kind.equals(table.schema.field(name).type) for name, kind in kinds.items()):
            texts = [(name, json_types.as_text(kind, nulls=True)) for name, kind in kinds.items()]
            table = _parse(text, pa.schema(texts), infer=True)
        for name, kind in kinds.items():
            self._merge(name, kind)
            if pa.types.is_string(kind):
                moments = self._moments.setdefault(name, Inference(only_moments=True))
                moments.look(table.column(name).combine_chunks())
        return True

    def _take_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take objects into account without the keys that are kept as text; those that cannot be read are left out."""
        for row in rows:
            for name in self._kept & row.keys():
                self._types.setdefault(name, pa.null())
                del row[name]
        texts = [json_text.dumps(row).encode() for row in rows]
        bad = {index for index, _ in _misfits(texts, lambda text: _parse(text, None, infer=True))}
        if len(bad) < len(texts):
            self._take(b"\n".join(text for index, text in enumerate(texts) if index not in bad), pa.schema([]))

    def _merge(self, name: str, kind: pa.DataType) -> None:
        before = self._types.get(name, pa.null())
        both = json_types.merged(before, kind)
        if both is None:
            self._keep({name})
            return
        widened = json_types.has_leaf(before, pa.int64()) and json_types.has_leaf(both, pa.float64())
        if widened and self._long_numbers and not both.equals(before):
            self._keep({name})
        if len(list(json_types.leaves(both))) > json_types.FIELDS:
            self._keep({name})
        self._types[name] = both

    def _keep(self, names: set[str]) -> None:
        self._kept |= names - self._declared.keys()
        for name in names:
            self._types.setdefault(name, pa.null())

    def _check_long_numbers(self, lines: Lines, rows: Sequence[dict[str, Any]] | None) -> None:
        """Keep as text what is float64 and holds whole numbers that are not exact so."""
        if not pc.match_substring_regex(pa.array([lines.text], pa.large_binary()), "[0-9]{16}")[0].as_py():
            return
        self._long_numbers = True
        floats = [n for n, kind in self._types.items() if json_types.has_leaf(kind, pa.float64())]
        floats = [name for name in floats if name not in self._kept and name not in self._declared]
        if floats:
            for row in rows if rows is not None else _objects(lines):
                self._keep({name for name in floats if json_types.is_inexact(row.get(name))})


def read(path: Path, compression: str | None, wanted: pa.Schema, bad: Bad) -> Iterator[Part]:
    """The rows, with the columns of `wanted`."""
    kinds = {field.name: field.type for field in wanted}
    for lines in read_lines(path, compression):
        part = _parsed(path, lines, kinds, bad) if lines.is_plain() else None
        if part is None:
            part = _converted(path, lines, kinds, bad)
        if part.batch.num_rows:
            yield part


def _parsed(path: Path, lines: Lines, kinds: Mapping[str, pa.DataType], bad: Bad) -> Part | None:
    """Rows the fast way; None where a line is broken, or has no value of its column's type."""
    parsed = {name: kind for name, kind in kinds.items() if not kind.equals(json())}
    told = [(n, kind if kind in _PARSED or is_nested(kind) else pa.utf8()) for n, kind in parsed.items()]
    columns: dict[str, pa.Array] = {}
    try:
        if told:
            table = _parse(lines.text, pa.schema(told), infer=False)
            if table.num_rows != lines.count:
                return None
            columns = {name: table.column(name).combine_chunks() for name in parsed}
        if len(parsed) < len(kinds):
            rows = [values_of(line) for _, line in lines.numbered()]
            columns |= {name: _json(rows, name) for name in kinds if name not in parsed}
    except ValueError:
        return None
    ordered = {name: columns[name] for name in kinds}
    return typed(path, ordered, kinds, partial(_numbers, lines), bad)


@dataclass(frozen=True, slots=True)
class _Row:
    """An object, where it stands, and what is written there."""

    line: int
    text: bytes
    values: Values


def _converted(path: Path, lines: Lines, kinds: Mapping[str, pa.DataType], bad: Bad) -> Part:
    """Rows of which some may be broken, line by line; single values are made of text, as in CSV."""
    found: list[BadRow] = []
    rows = list(_checked(path, lines, any(kind.equals(json()) for kind in kinds.values()), found.append))
    nested = pa.schema([(name, kind) for name, kind in kinds.items() if is_nested(kind)])
    columns: dict[str, pa.Array] = {}
    if nested.names:
        misfits = dict(_misfits([row.text for row in rows], lambda text: _parse(text, nested, infer=False)))
        for index, reason in misfits.items():
            found.append(BadRow(path, rows[index].line, f"{reason}: {shown(rows[index].text.strip())}"))
        rows = [row for index, row in enumerate(rows) if index not in misfits]
        if rows:
            table = _parse(b"\n".join(row.text for row in rows), nested, infer=False)
            columns = {name: table.column(name).combine_chunks() for name in nested.names}
        else:
            columns = {field.name: pa.array([], field.type) for field in nested}
    values = [row.values for row in rows]
    for name, kind in kinds.items():
        if kind.equals(json()):
            columns[name] = _json(values, name)
        elif name not in columns:
            columns[name] = pa.array([_text(row.get(name)) for row in values], pa.utf8())
    ordered = {name: columns[name] for name in kinds}
    return typed(path, ordered, kinds, lambda: pa.array([row.line for row in rows], pa.int64()), bad, found=found)


def _checked(path: Path, lines: Lines, strict: bool, bad: Bad) -> Iterator[_Row]:
    """The lines that are objects; `bad` gets the others."""
    for number, line in lines.numbered():
        try:
            if not is_shallow(line):
                raise ValueError(f"nested more than {DEPTH} levels deep")
            row = values_of(line, strict=strict)
            for value, _ in row.values():
                if isinstance(value, str):
                    value.encode()
        except ValueError as error:
            bad(BadRow(path, number, f"{_fault(error)}: {shown(line.strip())}"))
        else:
            yield _Row(number, line, row)


def _objects(lines: Lines) -> list[dict[str, Any]]:
    """The lines that are objects."""
    found = []
    for _, line in lines.numbered():
        try:
            row = json_text.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and is_shallow(line):
            found.append(row)
    return found


def _parse(text: bytes, told: pa.Schema | None, *, infer: bool) -> pa.Table:
    """Objects as a table. Raises `pa.ArrowInvalid`, or a `ValueError` for bytes that are no text."""
    options = pajson.ParseOptions(explicit_schema=told, unexpected_field_behavior="infer" if infer else "ignore")
    reading = pajson.ReadOptions(use_threads=False, block_size=len(text) + 1)
    return pajson.read_json(pa.BufferReader(text), reading, options)


def _misfits(texts: Sequence[bytes], parse: Callable[[bytes], pa.Table], first: int = 0) -> Iterator[tuple[int, str]]:
    """Index and fault of each text that cannot be parsed; halves are tried, so that few of them cost little."""
    if not texts:
        return
    try:
        parse(b"\n".join(texts))
    except ValueError as error:
        if len(texts) == 1:
            yield first, _fault(error)
        else:
            middle = len(texts) // 2
            yield from _misfits(texts[:middle], parse, first)
            yield from _misfits(texts[middle:], parse, first + middle)


def _fault(error: ValueError) -> str:
    """What is wrong, without the parser's name and its own count of rows."""
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8 text"
    if isinstance(error, UnicodeEncodeError):
        return "half of a surrogate pair"
    if isinstance(error, json_text.JSONDecodeError):
        return f"{error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}"
    return str(error).removeprefix("JSON parse error: ").removesuffix(" in row 0")


def _json(rows: Sequence[Values], name: str) -> pa.Array:
    """A key's values as they are written."""
    texts = [row[name][1] if name in row and row[name][0] is not None else None for row in rows]
    return pa.ExtensionArray.from_storage(json(), pa.array(texts, pa.utf8()).cast(pa.binary()))


def _text(value: tuple[Any, str] | None) -> str | None:
    """A single value as text: a string's own, anything else as it is written."""
    if value is None or value[0] is None:
        return None
    return value[0] if isinstance(value[0], str) else value[1]


def _numbers(lines: Lines) -> pa.Array:
    return pa.array(lines.numbers, pa.int64()) if lines.numbers else numbered(lines.count, lines.first)
