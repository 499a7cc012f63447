"""Reading JSON lines: one object a line, types from the whole file, errors by line, rows as Arrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as pajson

from catchment.sdk import PluginError
from catchment.sdk import json as json_type
from catchment.sources.file.text import BLOCK_BYTES, BadRow, open_stream

Bad = Callable[[BadRow], None]


def schema(path: Path, compression: str | None, declared: Mapping[str, pa.DataType]) -> pa.Schema:
    """Names and types of all keys in the file; the whole file is looked at."""
    found = pa.schema([])
    for line, block in _blocks(path, compression):
        for _, _, table in _tables(path, line, block, None, lambda row: None, declared):
            try:
                found = pa.unify_schemas([found, table.schema], promote_options="permissive")
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                raise PluginError(
                    f"{path}:{line} or later: a key holds values of different types: {error}",
                    hint="name the column under `columns` with the type `json`",
                ) from error
    fields = [declared.get(field.name, pa.utf8() if pa.types.is_null(field.type) else field.type) for field in found]
    return pa.schema([(field.name, kind) for field, kind in zip(found, fields, strict=True)])


def read(path: Path, compression: str | None, wanted: pa.Schema, bad: Bad) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches with the columns of `wanted` that the file has, and the line of each row."""
    for line, block in _blocks(path, compression):
        for first, lines, table in _tables(path, line, block, wanted, bad, {}):
            kept = table.select([name for name in wanted.names if name in table.column_names])
            for batch in kept.combine_chunks().to_batches():
                numbers = pa.array(lines if lines is not None else range(first, first + batch.num_rows), pa.int64())
                yield batch, numbers


def _blocks(path: Path, compression: str | None) -> Iterator[tuple[int, bytes]]:
    """The file in pieces that end at a line's end, each with its first line."""
    line, rest = 1, b""
    try:
        with open_stream(path, compression) as stream:
            while True:
                data = stream.read(BLOCK_BYTES)
                block = rest + data
                if data:
                    cut = block.rfind(b"\n") + 1
                    block, rest = block[:cut], block[cut:]
                if block.strip():
                    if line == 1:
                        block = block.removeprefix(b"\xef\xbb\xbf")
                    yield line, block
                line += block.count(b"\n")
                if not data:
                    return
    except OSError as error:
        raise PluginError(f"{path}:{line} or later: cannot be read: {error}") from error


def _tables(
    path: Path, line: int, block: bytes, wanted: pa.Schema | None, bad: Bad, declared: Mapping[str, pa.DataType]
) -> Iterator[tuple[int, list[int] | None, pa.Table]]:
    """A block as a table: its first line, the lines of its rows where they are not consecutive, and the rows."""
    kinds = {field.name: field.type for field in wanted} if wanted is not None else dict(declared)
    if not any(kind.equals(json_type()) for kind in kinds.values()) and b"\n\n" not in block:
        try:
            yield line, None, _parsed(block, wanted)
            return
        except pa.ArrowInvalid:
            pass  # Line by line below: that finds the broken one.
    lines, rows = [], []
    for number, text in enumerate(block.splitlines(), line):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError(f"expected an object, got {str(row)[:80]!r}")
            _parsed(json.dumps(_as_json_text(row, kinds)).encode(), _storage(wanted))
        except (ValueError, pa.ArrowInvalid) as error:
            bad(BadRow(path, number, f"{error}: {text[:120].decode(errors='replace')!r}"))
            continue
        lines.append(number)
        rows.append(json.dumps(_as_json_text(row, kinds)))
    if rows:
        table = _parsed("\n".join(rows).encode(), _storage(wanted))
        yield line, lines, _with_json(table, kinds)


def _parsed(block: bytes, wanted: pa.Schema | None) -> pa.Table:
    options = pajson.ParseOptions(
        explicit_schema=wanted, unexpected_field_behavior="infer" if wanted is None else "ignore"
    )
    size = max(len(block) + 1, 1 << 16)
    return pajson.read_json(pa.BufferReader(block), pajson.ReadOptions(use_threads=False, block_size=size), options)


def _as_json_text(row: dict[str, Any], kinds: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """`row` with the values of json columns as text."""
    return {
        name: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if name in kinds and kinds[name].equals(json_type()) and value is not None
        else value
        for name, value in row.items()
    }


def _storage(wanted: pa.Schema | None) -> pa.Schema | None:
    if wanted is None:
        return None
    return pa.schema([(f.name, pa.utf8() if f.type.equals(json_type()) else f.type) for f in wanted])


def _with_json(table: pa.Table, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    for index, name in enumerate(table.column_names):
        if name in kinds and kinds[name].equals(json_type()):
            chunks = [
                pa.ExtensionArray.from_storage(json_type(), chunk.cast(pa.binary()))
                for chunk in table.column(name).chunks
            ]
            table = table.set_column(index, name, pa.chunked_array(chunks, type=json_type()))
    return table
