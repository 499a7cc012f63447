"""The file destination: each file appears whole under its name, or not at all."""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from catchment.destinations.file import formats
from catchment.destinations.file.spec import FileSpec
from catchment.sdk import (
    BatchSize,
    Capabilities,
    ChangeKind,
    Column,
    Destination,
    MigrationRefused,
    PluginError,
    PreviewedChange,
    Table,
    TablePreview,
    Unsupported,
    json,
)
from catchment.sdk.storage import is_interval, restore

_OF_COLUMNS: frozenset[ChangeKind] = frozenset(
    {"add_column", "add_column_not_null", "remove_column", "remove_column_not_null", "change_type"}
)
_ALL_CHANGES: frozenset[ChangeKind] = _OF_COLUMNS | {
    "change_not_null",
    "change_primary_key",
    "remove_unique",
    "move_pk_to_cq_id",
}


class File(Destination[FileSpec]):
    """Writes a file beside its final place, makes it durable, and renames it."""

    name = "file"
    capabilities = Capabilities(
        write_modes=frozenset({"append"}),
        safe_changes=_ALL_CHANGES,
        writers=2,
        batch=BatchSize(rows=1_000_000, size_bytes=256 << 20, timeout_s=60.0),
    )

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        fixed = {"csv": _OF_COLUMNS - {"change_type"}, "parquet": _OF_COLUMNS}.get(spec.format, frozenset())
        fixed = fixed if spec.no_rotate else frozenset()
        self.capabilities = replace(
            File.capabilities,
            # A CSV or Parquet file that grows has the columns that it began with.
            safe_changes=_ALL_CHANGES - fixed,
            forced_changes=frozenset() if fixed else None,
            stored_as=lambda data_type: formats.stored_as(spec.format, data_type),
        )
        self._extension = spec.format + (".gz" if spec.compression else "")
        template = os.path.normpath(spec.path)
        self._template = template if "{{TABLE}}" in template else os.path.join(template, f"{{{{TABLE}}}}.{spec.format}")
        self._grown: dict[str, tuple[list[Path], Path]] = {}
        """With `no_rotate`: the temporary files with a table's new rows, and the file they will be in."""

    def open(self) -> None:
        """Check that files can be made there."""
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PluginError(f"folder {str(folder)!r} cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise PluginError(f"folder {str(folder)!r} cannot be written to", hint="check its permissions")

    def close(self) -> None:
        """Remove what was not flushed."""
        for parts, _ in self._grown.values():
            for part in parts:
                part.unlink(missing_ok=True)
        self._grown.clear()

    def migrate(self, table: Table, *, force: bool) -> None:
        """Files are made by the rows; a file that grows must have the table's columns."""
        if table.primary_keys:
            raise Unsupported("destination `file` only appends; set `write_mode: append`")
        if self.spec.no_rotate:
            self._check_columns(table, self._path(table.name))

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Looks at files that grow; where each batch is a file of its own, there is nothing to look at."""
        there = next(folder for folder in (self._folder, *self._folder.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise PluginError(f"folder {str(self._folder)!r} cannot be written to", hint="check its permissions")
        return [self._preview(table, force=force) for table in tables]

    def write(self, table: Table, rows: pa.Table) -> None:
        """A file of its own for the batch, or more rows for the one that grows at `flush`."""
        if self.spec.no_rotate:
            self._grow(table, rows)
            return
        path = self._path(table.name)
        temporary = _temporary(path)
        try:
            with self._opened(temporary) as file:
                self._encode(file, rows, header=True)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise PluginError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def flush(self, tables: Sequence[Table]) -> None:
        """Put the new rows of files that grow into them, each at once."""
        for table in tables:
            parts, path = self._grown.pop(table.name, ([], Path()))
            try:
                if parts:
                    self._merge(parts, path)
            finally:
                for part in parts:
                    part.unlink(missing_ok=True)

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Files have no rows that can be deleted."""
        raise Unsupported("destination `file` cannot delete rows; set `write_mode: append`")

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of every file that the path may stand for."""
        for path in sorted(glob.glob(self._pattern(table.name))):
            yield from self._read(Path(path), table)

    def stored_table(self, name: str) -> Table | None:
        """The columns that the first line of CSV files and the schemas of Parquet files have, each column once."""
        columns: dict[str, pa.DataType | None] = {}
        paths = [Path(path) for path in sorted(glob.glob(self._pattern(name)))]
        for path in paths:
            have = self._columns(path)
            if have is None:
                raise Unsupported(f"files in the format `{self.spec.format}` do not tell their columns")
            columns = {**have, **columns}
        if not paths:
            return None
        return Table(name, tuple(Column(column, kind or pa.utf8()) for column, kind in columns.items()))

    @property
    def _folder(self) -> Path:
        """The folder that all files are in or below."""
        folder = Path(re.split(r"\{\{", self._template)[0])
        return folder if self._template.startswith(f"{folder}{os.sep}{{") else folder.parent

    def _preview(self, table: Table, *, force: bool) -> TablePreview:
        refusal = None
        try:
            path = self._path(table.name)
            # It only compares.
            self.migrate(table, force=force)
        except MigrationRefused as error:
            refusal = error
        except PluginError as error:
            return TablePreview("refused").refused(error)
        if not self.spec.no_rotate:
            return TablePreview("unknown", reason="every batch is a file of its own")
        if not path.exists():
            return TablePreview("create")
        have = self._columns(path)
        if have is None:
            return TablePreview("unknown", reason=f"the file {str(path)!r} does not tell its columns")
        rows = None
        if self.spec.format == "parquet":
            import pyarrow.parquet as pq

            rows = pq.read_metadata(path).num_rows
        found = TablePreview("none", tuple(_changes(have, self._wanted(table))), rows=rows)
        return found.refused(refusal) if refusal is not None else found

    def _path(self, table: str) -> Path:
        now = datetime.now(UTC)
        values = {
            "TABLE": table,
            "FORMAT": self._extension,
            "UUID": str(uuid.uuid4()),
            "YEAR": f"{now:%Y}",
            "MONTH": f"{now:%m}",
            "DAY": f"{now:%d}",
            "HOUR": f"{now:%H}",
            "MINUTE": f"{now:%M}",
        }
        if "/" in table or table in (".", ".."):
            raise PluginError(f"table name {table!r} cannot be part of a path", hint="rename it with a transformer")
        return Path(re.sub(r"\{\{(\w+)\}\}", lambda found: values.get(found[1], found[0]), self._template))

    def _pattern(self, table: str) -> str:
        """A glob for every file that `_path` may have named."""
        fixed = {"TABLE": glob.escape(table), "FORMAT": self._extension}
        parts = re.split(r"\{\{(\w+)\}\}", self._template)
        return "".join(fixed.get(part, "*") if index % 2 else glob.escape(part) for index, part in enumerate(parts))

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[IO[bytes]]:
        """A new file, durable when the block ends."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as raw:
            if self.spec.compression:
                with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, filename="", mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())

    def _encode(self, file: IO[bytes], rows: pa.Table, *, header: bool) -> None:
        if self.spec.format == "csv":
            formats.write_csv(rows, file, self.spec, header=header and not self.spec.csv.skip_header)
        elif self.spec.format == "json":
            for data in formats.json_lines(rows):
                file.write(data)
        else:
            stored = formats.parquet_rows(rows)
            with formats.parquet_writer(file, stored.schema, self.spec) as writer:
                writer.write_table(stored, row_group_size=self.spec.parquet.max_row_group_length or None)

    def _grow(self, table: Table, rows: pa.Table) -> None:
        """Keep rows in a file of their own until `flush` puts them behind the others."""
        parts, path = self._grown.setdefault(table.name, ([], self._path(table.name)))
        part = _temporary(path)
        try:
            with self._opened(part) as file:
                self._encode(file, self._in_order(path, rows), header=not parts and not path.exists())
        except OSError as error:
            part.unlink(missing_ok=True)
            raise PluginError(f"{path} cannot be written: {error.strerror or error}") from error
        parts.append(part)

    def _merge(self, parts: list[Path], path: Path) -> None:
        """Make `path` anew from what it holds and `parts`."""
        whole = _temporary(path)
        there = [path, *parts] if path.exists() else parts
        try:
            with whole.open("wb") as out:
                if self.spec.format == "parquet":
                    self._join_parquet(there, out)
                else:
                    # A gzip file may have several members, so packed parts go one behind the other like plain ones.
                    for part in there:
                        with part.open("rb") as data:
                            shutil.copyfileobj(data, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
            os.replace(whole, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise PluginError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            whole.unlink(missing_ok=True)

    def _join_parquet(self, parts: list[Path], out: IO[bytes]) -> None:
        import pyarrow.parquet as pq

        with formats.parquet_writer(out, pq.read_schema(parts[-1]), self.spec) as writer:
            for part in parts:
                with pq.ParquetFile(part) as opened:
                    for group in range(opened.num_row_groups):
                        writer.write_table(opened.read_row_group(group))

    def _check_columns(self, table: Table, path: Path) -> None:
        """Raises `MigrationRefused` if the file that grows cannot take the table's columns."""
        have = self._columns(path) if path.exists() else None
        if have is None:
            return
        want = self._wanted(table)
        if have != want:
            raise MigrationRefused(
                f"table `{table.name}` cannot be migrated here: {path} has the columns {_shown(have)}, "
                f"the table has {_shown(want)}",
                hint="move the file away, or put {{YEAR}}, {{MONTH}} and {{DAY}} into `path`",
            )

    def _wanted(self, table: Table) -> dict[str, pa.DataType | None]:
        """The columns of a new file for the table, of Parquet with their types."""
        if self.spec.format == "parquet":
            return {column.name: formats.parquet_type(column.type) for column in table.columns}
        return dict.fromkeys(table.column_names)

    def _columns(self, path: Path) -> dict[str, pa.DataType | None] | None:
        """The columns of a file in its order, of Parquet with their types; None where it does not say."""
        if self.spec.format == "parquet":
            import pyarrow.parquet as pq

            return {field.name: field.type for field in pq.read_schema(path)}
        if self.spec.format == "json" or self.spec.csv.skip_header:
            return None
        with self._reading(path) as file:
            return dict.fromkeys(next(iter(formats.read_header(file, self.spec)), []))

    def _in_order(self, path: Path, rows: pa.Table) -> pa.Table:
        """Rows with their columns in the order that the file has."""
        have = self._columns(path) if path.exists() else None
        return rows.select(list(have)) if have is not None else rows

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[IO[bytes]]:
        with gzip.open(path, "rb") if self.spec.compression else path.open("rb") as file:
            yield file  # type: ignore[misc]

    def _read(self, path: Path, table: Table) -> Iterator[pa.RecordBatch]:
        kinds = [self.capabilities.stored_as(column.type) for column in table.columns]
        schema = pa.schema(list(zip(table.column_names, kinds, strict=True)))
        if self.spec.format == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as opened:
                for batch in opened.iter_batches(formats.READ_ROWS):
                    yield _fitted(batch, schema)
            return
        with self._reading(path) as file:
            names = list(table.column_names)
            plain = {field.name for field in schema if not pa.types.is_string(field.type)}
            documents = {column.name for column in table.columns if column.type.equals(json())}
            intervals = {column.name for column in table.columns if is_interval(column.type)}
            rows = (
                formats.read_csv(file, names, self.spec)
                if self.spec.format == "csv"
                else formats.read_json(file, plain, documents, intervals)
            )
            waiting: list[Any] = []
            for row in rows:
                waiting.append(row)
                if len(waiting) == formats.READ_ROWS:
                    yield pa.RecordBatch.from_pylist(waiting, schema=schema)
                    waiting = []
            if waiting:
                yield pa.RecordBatch.from_pylist(waiting, schema=schema)


def _shown(columns: Mapping[str, pa.DataType | None]) -> str:
    return ", ".join(f"{name} ({kind})" if kind is not None else name for name, kind in columns.items())


def _changes(
    have: Mapping[str, pa.DataType | None], want: Mapping[str, pa.DataType | None]
) -> Iterator[PreviewedChange]:
    """What keeps a file that grows from taking a table's rows."""
    for name, kind in want.items():
        if name not in have:
            yield PreviewedChange("add_column", name, f"column `{name}` is new", "impossible")
        elif have[name] != kind:
            text = f"column `{name}` changed from {have[name]} to {kind}"
            yield PreviewedChange("change_type", name, text, "impossible")
    for name in have:
        if name not in want:
            yield PreviewedChange("remove_column", name, f"column `{name}` is gone", "impossible")


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema` by name, null where the file has none."""
    arrays = [
        restore(batch.column(field.name), field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _temporary(path: Path) -> Path:
    """A hidden name in the same folder, so that renaming replaces at once."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
