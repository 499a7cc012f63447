"""Which files make which table, and how each is read."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from catchment.sdk import Column, Context, Discovered, PluginError, Rows, Source, Table
from catchment.sources.file import csv, jsonlines
from catchment.sources.file.spec import CSVSpec, FileSpec, Format, TableSpec
from catchment.sources.file.text import BadRow, column_type

PARQUET_BATCH_ROWS = 65_536

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = (".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class Files:
    """The files of one table."""

    name: str
    paths: tuple[Path, ...]
    format: Format
    csv: CSVSpec
    compression: str | None
    declared: dict[str, pa.DataType]
    primary_keys: tuple[str, ...] = ()


file = Source("file", spec=FileSpec, client=lambda spec: spec)


@file.discover
def _tables(spec: FileSpec) -> Iterator[Discovered[FileSpec]]:
    for files in _files(spec):
        fields = _schema(files)
        provenance = [Column("_file", pa.utf8()), Column("_line", pa.int64())] if spec.provenance else []
        missing = [key for key in files.primary_keys if key not in fields.names]
        if missing:
            known = ", ".join(f"`{name}`" for name in fields.names)
            raise PluginError(f"table `{files.name}`: key column `{missing[0]}` is missing, there are {known}")
        columns = [
            Column(field.name, field.type, primary_key=field.name in files.primary_keys,
                   not_null=field.name in files.primary_keys)
            for field in fields
        ]  # fmt: skip
        description = f"Rows of {', '.join(path.name for path in files.paths[:3])}"
        table = Table(files.name, (*columns, *provenance), description=description)
        yield Discovered(table, partial(_read, files, fields))


def _files(spec: FileSpec) -> list[Files]:
    """The tables of the spec: named patterns first, then every file that is in none."""
    roots = [spec.path] if isinstance(spec.path, str) else list(spec.path)
    base = Path(roots[0]) if len(roots) == 1 and Path(roots[0]).is_dir() else None
    found: list[Files] = []
    taken: set[Path] = set()
    for table in spec.tables:
        paths = _matching([table.path] if isinstance(table.path, str) else table.path, base)
        taken.update(path.resolve() for path in paths)
        found.append(_named(spec, table, paths))
    for path in _matching(roots, None, required=not spec.tables):
        if path.resolve() not in taken and (spec.format is not None or _format_of(path) is not None):
            found.append(_files_of(spec, _snake(path), (path,)))
    seen: dict[str, Files] = {}
    for files in found:
        other = seen.setdefault(files.name, files)
        if other is not files:
            raise PluginError(
                f"`{other.paths[0]}` and `{files.paths[0]}` are both table `{files.name}`",
                hint="give one of them a name of its own under `tables`",
            )
    if not found:
        raise PluginError(f"no CSV, JSON or Parquet file in {', '.join(map(repr, roots))}")
    return found


def _named(spec: FileSpec, table: TableSpec, paths: Sequence[Path]) -> Files:
    declared = {
        name: column_type(kind, f"table `{table.name}`, column `{name}`") for name, kind in table.columns.items()
    }
    return _files_of(spec, table.name, tuple(paths), table, declared)


def _files_of(
    spec: FileSpec,
    name: str,
    paths: tuple[Path, ...],
    table: TableSpec | None = None,
    declared: dict[str, pa.DataType] | None = None,
) -> Files:
    chosen = (table.format if table is not None else None) or spec.format
    formats = {chosen or _format_of(path) for path in paths}
    if len(formats) != 1 or None in formats:
        shown = ", ".join(str(path) for path in paths[:3])
        raise PluginError(f"table `{name}`: the format of {shown} is not clear", hint="set `format`")
    found = formats.pop()
    assert found is not None
    options = (table.csv if table is not None else None) or spec.csv
    if found == "csv" and options is spec.csv and paths[0].name.removesuffix(".gz").endswith(".tsv"):
        options = options.model_copy(update={"delimiter": "\t"})
    keys = table.primary_keys if table is not None else ()
    return Files(name, paths, found, options, spec.compression, declared or {}, keys)


def _matching(patterns: Sequence[str], base: Path | None, *, required: bool = True) -> list[Path]:
    """The files that patterns name, each once, sorted within a pattern."""
    found: list[Path] = []
    for pattern in patterns:
        path = base / pattern if base is not None else Path(pattern)
        if path.is_dir():
            paths = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        elif path.is_file():
            paths = [path]
        else:
            paths = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not paths and required:
            raise PluginError(f"no file matches {str(path)!r}", hint="`path` is a file, a folder or a glob")
        found.extend(path for path in paths if path not in found)
    return found


def _format_of(path: Path) -> Format | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1]) if suffixes else None


def _snake(path: Path) -> str:
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() in _COMPRESSIONS or suffix.lower() in _FORMATS:
            name = name.removesuffix(suffix)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"\W+", "_", name).strip("_").lower() or "table"


def _schema(files: Files) -> pa.Schema:
    """The union of the files' columns."""
    found = pa.schema([])
    for path in files.paths:
        one = _schema_of(files, path)
        try:
            found = pa.unify_schemas([found, one], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            if files.format == "parquet":
                raise PluginError(f"table `{files.name}`: {path} does not fit the files before it: {error}") from error
            found = _as_text(found, one)
    if not found.names:
        raise PluginError(f"table `{files.name}`: {files.paths[0]} has no columns")
    return found


def _schema_of(files: Files, path: Path) -> pa.Schema:
    if files.format == "csv":
        return csv.schema(path, files.csv, files.compression, files.declared)
    if files.format == "json":
        return jsonlines.schema(path, files.compression, files.declared)
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path).remove_metadata()
    except (pa.ArrowInvalid, OSError) as error:
        raise PluginError(f"{path} is no Parquet file that can be read: {error}") from error
    fields = []
    for field in schema:
        kind = files.declared.get(field.name, field.type)
        fields.append((field.name, kind.value_type if pa.types.is_dictionary(kind) else kind))
    return pa.schema(fields)


def _as_text(found: pa.Schema, one: pa.Schema) -> pa.Schema:
    """The union of schemas of text files whose types do not go together: such columns are text."""
    kinds = {field.name: field.type for field in found}
    for field in one:
        other = kinds.setdefault(field.name, field.type)
        if not other.equals(field.type):
            numbers = pa.types.is_integer(other) or pa.types.is_floating(other)
            both = numbers and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
            kinds[field.name] = pa.float64() if both else pa.utf8()
    return pa.schema(list(kinds.items()))


def _read(files: Files, wanted: pa.Schema, ctx: Context[FileSpec]) -> Rows:
    """Batches of every file of a table, in order."""
    spec, skipped = ctx.client, []

    def bad(row: BadRow) -> None:
        if spec.on_bad_row == "error":
            raise PluginError(str(row), hint="mend the row, or set `on_bad_row: skip` to leave such rows out")
        skipped.append(row)

    for path in files.paths:
        for batch, lines in _batches(files, path, wanted, bad):
            if spec.provenance:
                batch = batch.append_column("_file", pa.repeat(str(path), batch.num_rows))
                batch = batch.append_column("_line", lines)
            yield batch
    if skipped:
        ctx.skip_rows(len(skipped), str(skipped[0]))


def _batches(
    files: Files, path: Path, wanted: pa.Schema, bad: csv.Bad
) -> Iterator[tuple[pa.RecordBatch, pa.Array | None]]:
    if files.format == "csv":
        yield from csv.read(path, files.csv, files.compression, wanted, bad)
    elif files.format == "json":
        yield from jsonlines.read(path, files.compression, wanted, bad)
    else:
        yield from _parquet(path)


def _parquet(path: Path) -> Iterator[tuple[pa.RecordBatch, pa.Array | None]]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            # One row group after the other: asked for all of them, the reader keeps the bytes of the whole file.
            for group in range(opened.num_row_groups):
                for batch in opened.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=[group]):
                    arrays = [a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for a in batch.columns]
                    lines = pa.nulls(batch.num_rows, pa.int64())
                    yield pa.RecordBatch.from_arrays(arrays, names=batch.schema.names), lines
    except (pa.ArrowInvalid, OSError) as error:
        raise PluginError(f"{path} cannot be read to its end: {error}") from error
