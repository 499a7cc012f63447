"""Reading CSV files: types from the whole file, errors by line, rows as Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from catchment.sdk import PluginError
from catchment.sdk.storage import numbered
from catchment.sources.file.spec import CSVSpec
from catchment.sources.file.text import BLOCK_BYTES, BadRow, Inference, bad_rows, convert, open_stream

Bad = Callable[[BadRow], None]
"""What is done with a row that cannot be read: raise, or count it."""


def schema(path: Path, spec: CSVSpec, compression: str | None, declared: Mapping[str, pa.DataType]) -> pa.Schema:
    """Names and types of the file's columns; the whole file is looked at, unless every type is declared."""
    names = _names(path, spec, compression)
    if names and set(names) <= set(declared):
        return pa.schema([(name, declared[name]) for name in names])
    found = {name: Inference() for name in names if name not in declared}
    for _, block in _blocks(path, spec, compression, names, lambda row: None):
        for name, inference in found.items():
            inference.look(block.column(name))
    return pa.schema([(name, declared[name] if name in declared else found[name].type) for name in names])


def read(
    path: Path, spec: CSVSpec, compression: str | None, wanted: pa.Schema, bad: Bad
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Batches with the columns of `wanted` that the file has, and the line of each row."""
    names = _names(path, spec, compression)
    kinds = {name: wanted.field(name).type for name in names if name in wanted.names}
    for first_line, block in _blocks(path, spec, compression, names, bad):
        lines = _lines(block, first_line)
        arrays, masks = [], {}
        for name, kind in kinds.items():
            texts = block.column(name)
            array, mask = convert(texts, kind)
            arrays.append(array)
            if mask is not None:
                masks[name] = (mask, texts)
        batch = pa.RecordBatch.from_arrays(arrays, names=list(kinds))
        if masks:
            broken: dict[int, str] = {}
            for index, reason in bad_rows(masks, kinds):
                broken.setdefault(index, reason)
            for index in sorted(broken):
                bad(BadRow(path, lines[index].as_py(), broken[index]))
            keep = pa.array([index not in broken for index in range(batch.num_rows)])
            batch, lines = batch.filter(keep), lines.filter(keep)
        yield batch, lines


def _names(path: Path, spec: CSVSpec, compression: str | None) -> list[str]:
    """The column names; empty for an empty file."""
    try:
        with _reader(path, spec, compression, None, lambda row: "skip") as reader:
            names = list(reader.schema.names)
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return []
        raise PluginError(f"{path}: {_reason(error)}") from error
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise PluginError(f"{path}: cannot be read: {error}") from error
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise PluginError(f"{path}:1: column {sorted(twice)[0]!r} is there twice", hint="rename one in the header")
    return names


def _blocks(
    path: Path, spec: CSVSpec, compression: str | None, names: list[str], bad: Bad
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The file as batches of text, each with the line of its first row."""
    if not names:
        return
    line = 2 if spec.header else 1
    pending: list[BadRow] = []

    def note(row: Any) -> str:
        count = f"{row.actual_columns} values, expected {row.expected_columns}"
        pending.append(BadRow(path, row.number or 0, f"{count}: {row.text!r}"))
        return "skip"

    try:
        with _reader(path, spec, compression, names, note) as reader:
            for batch in reader:
                for row in pending:
                    bad(row)
                line_count = batch.num_rows + len(pending)
                pending.clear()
                if batch.num_rows:
                    yield line, batch
                line += line_count + _newlines(batch)
    except pa.ArrowInvalid as error:
        raise PluginError(f"{path}:{line} or later: {_reason(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"{path}:{line} or later: cannot be read: {error}") from error
    for row in pending:
        bad(row)


def _reader(path: Path, spec: CSVSpec, compression: str | None, names: list[str] | None, note: Any) -> Any:
    # One thread: only then are rows numbered in errors, and the parser is not what a sync waits for.
    return pacsv.open_csv(
        open_stream(path, compression),
        read_options=pacsv.ReadOptions(
            use_threads=False,
            block_size=BLOCK_BYTES,
            encoding=spec.encoding,
            autogenerate_column_names=not spec.header,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=spec.delimiter, quote_char=spec.quote, newlines_in_values=True, invalid_row_handler=note
        ),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.utf8() for name in names} if names else None,
            null_values=list(spec.null_values),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=True,
        ),
    )


def _newlines(batch: pa.RecordBatch) -> int:
    """Line breaks inside values."""
    return sum(pc.sum(pc.count_substring(column, "\n")).as_py() or 0 for column in batch.columns)


def _lines(block: pa.RecordBatch, first: int) -> pa.Array:
    """The line that each row starts on, line breaks inside values counted."""
    rows = numbered(block.num_rows, first)
    if not _newlines(block):
        return rows
    breaks = None
    for column in block.columns:
        found = pc.fill_null(pc.count_substring(column, "\n"), 0).cast(pa.int64())
        breaks = found if breaks is None else pc.add(breaks, found)
    before = pc.subtract(pc.cumulative_sum(breaks), breaks)
    return pc.add(rows, before)


def _reason(error: Exception) -> str:
    text = str(error)
    return text.removeprefix("CSV parse error: ")[:1].lower() + text.removeprefix("CSV parse error: ")[1:]
