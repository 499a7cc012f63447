"""The source itself: the schema of each table, then its rows, file after file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import Column, Context, Discovered, PluginError, Rows, Source, Table, did_you_mean
from catchment.sdk.storage import numbered
from catchment.sources.file import csv, jsonlines
from catchment.sources.file.blocks import Bad, BadRow, Part
from catchment.sources.file.files import Files, find
from catchment.sources.file.spec import FileSpec

PROVENANCE = (Column("_file", pa.utf8()), Column("_line", pa.int64()))


@dataclass(frozen=True)
class Seen:
    """What a file was like when its types were found."""

    size_bytes: int
    names: Sequence[str]
    """The columns of a CSV file."""


file = Source("file", spec=FileSpec, client=lambda spec: spec)


@file.discover
def _tables(spec: FileSpec) -> Iterator[Discovered[FileSpec]]:
    for files in find(spec):
        try:
            fields, seen = _schema(files)
            table = _table(files, fields, spec)
        except PluginError as error:
            yield Discovered.broken(files.name, error)
        else:
            yield Discovered(table, partial(_read, files, fields, seen))


def _table(files: Files, fields: pa.Schema, spec: FileSpec) -> Table:
    keys = files.primary_keys
    for name in (*keys, *files.declared):
        if name not in fields.names:
            what = f"key column `{name}`" if name in keys else f"column `{name}` of `columns`"
            raise PluginError(
                f"table `{files.name}`: {what} is missing in {_shown(files.paths)}",
                hint=did_you_mean(name, fields.names),
            )
    for column in PROVENANCE:
        if spec.provenance and column.name in fields.names:
            raise PluginError(
                f"table `{files.name}`: {_shown(files.paths)} has a column `{column.name}` of its own",
                hint="set `provenance: false`, or rename it in the file",
            )
    columns = [Column(f.name, f.type, primary_key=f.name in keys, not_null=f.name in keys) for f in fields]
    return Table(
        files.name,
        (*columns, *(PROVENANCE if spec.provenance else ())),
        description=f"Rows of {_shown([Path(path.name) for path in files.paths])}",
    )


def _shown(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(str(path) for path in paths[:3]) + more


def _schema(files: Files) -> tuple[pa.Schema, dict[Path, Seen]]:
    """The union of the files' columns, and what each file was like. Raises `PluginError` if one cannot be read."""
    if not files.paths:
        raise PluginError(f"table `{files.name}`: no file matches", hint="its `path` is a file, a folder or a glob")
    if files.format is None:
        raise PluginError(
            f"table `{files.name}`: the format of {_shown(files.paths)} is not clear",
            hint="set `format` to `csv`, `json` or `parquet`",
        )
    seen = {}
    names: Mapping[Path, Sequence[str]] = {}
    sizes = {path: _size_bytes(path) for path in files.paths}
    if files.format == "csv":
        csv_columns = csv.Columns(files.csv, files.declared)
        names = {path: csv_columns.look(path, files.compression) for path in files.paths}
        found = csv_columns.schema
    elif files.format == "json":
        json_columns = jsonlines.Columns(files.declared)
        for path in files.paths:
            json_columns.look(path, files.compression)
        found = json_columns.schema
    else:
        from catchment.sources.file import parquet

        parquet_columns = parquet.Columns(files.name, files.declared)
        for path in files.paths:
            parquet_columns.look(path)
        found = parquet_columns.schema
    seen = {path: Seen(size, names.get(path, ())) for path, size in sizes.items()}
    if not found.names:
        raise PluginError(f"table `{files.name}`: {_shown(files.paths)} has no columns", hint="take it out of `path`")
    return found, seen


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error}") from error


def _read(files: Files, fields: pa.Schema, seen: Mapping[Path, Seen], ctx: Context[FileSpec]) -> Rows:
    """Batches of every file of a table, in order."""
    spec = ctx.client
    skipped, example = 0, ""

    def bad(row: BadRow) -> None:
        nonlocal skipped, example
        if spec.on_bad_row == "error":
            raise PluginError(str(row), hint="mend the row, or set `on_bad_row: skip` to leave such rows out")
        skipped, example = skipped + 1, example or str(row)

    for path in files.paths:
        if _size_bytes(path) < seen[path].size_bytes:
            raise PluginError(f"{path}: became smaller while it was read", hint="run the sync again")
        first_row = 1
        for part in _parts(files, path, fields, seen[path], bad):
            count = part.batch.num_rows
            part = _with_keys(files, path, part, first_row, bad)
            first_row += count
            batch = part.batch
            if spec.provenance:
                batch = batch.append_column("_file", pa.repeat(str(path), batch.num_rows))
                batch = batch.append_column("_line", part.lines())
            yield batch
    if skipped:
        ctx.skip_rows(skipped, example)


def _parts(files: Files, path: Path, fields: pa.Schema, seen: Seen, bad: Bad) -> Iterator[Part]:
    if files.format == "csv":
        yield from csv.read(path, files.csv, files.compression, fields, seen.names, bad)
    elif files.format == "json":
        yield from jsonlines.read(path, files.compression, fields, bad)
    else:
        from catchment.sources.file import parquet

        yield from parquet.read(path, fields, bad)


def _with_keys(files: Files, path: Path, part: Part, first_row: int, bad: Bad) -> Part:
    """The rows that have all their keys; `bad` gets the others."""
    batch = part.batch
    for name in files.primary_keys:
        if name not in batch.schema.names:
            raise PluginError(f"{path}: key column `{name}` is missing")
    broken = [name for name in files.primary_keys if batch.column(name).null_count]
    if not broken:
        return part
    is_whole = pc.is_valid(batch.column(broken[0]))
    for name in broken[1:]:
        is_whole = pc.and_(is_whole, pc.is_valid(batch.column(name)))
    lines = part.lines()
    unit = "row " if files.format == "parquet" else ""
    places = numbered(batch.num_rows, first_row) if unit else lines
    for index in pc.indices_nonzero(pc.invert(is_whole)).to_pylist():
        name = next(name for name in broken if not batch.column(name)[index].is_valid)
        bad(BadRow(path, places[index].as_py(), f"key column `{name}` has no value", unit))
    kept = lines.filter(is_whole)
    return Part(batch.filter(is_whole), lambda: kept)
