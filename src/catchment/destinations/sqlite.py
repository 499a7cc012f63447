"""sqlite: an embedded database in one file that everything can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    Column,
    DeleteRecord,
    Destination,
    PluginError,
    Table,
    TablePreview,
    Transient,
    sql,
)
from catchment.sdk.json_text import to_text
from catchment.sdk.sqlite import Connection, quote
from catchment.sdk.storage import is_interval, restore

MAX_COLUMNS = 2_000
"""Columns of a table (https://www.sqlite.org/limits.html)."""
COUNTED_BYTES = 64 << 20
"""Size of a database up to which a preview counts the rows of a table: SQLite keeps no estimate, and reads them all."""


class SQLiteSpec(BatchSpec):
    """Spec of the sqlite destination."""

    connection_string: str
    """Path of the database file."""


class SQLite(Destination[SQLiteSpec]):
    """Binds Arrow columns to one prepared statement a batch, in one transaction."""

    name = "sqlite"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}),
        delete_records=True,
        batch=BatchSize(rows=0, size_bytes=32 << 20, timeout_s=60.0),
        stored_as=lambda data_type: stored_as(data_type),
    )

    def __init__(self, spec: SQLiteSpec) -> None:
        super().__init__(spec)
        self._connection: Connection | None = None

    def open(self) -> None:
        """Open the file, and make it if it is missing."""
        self._check_folder()
        try:
            self._connection = Connection(self.spec.connection_string)
        except Transient:
            raise
        except PluginError as error:
            if "failed to open" not in str(error):
                raise
            # The driver always says that it had no memory.
            reason = "it is a folder" if self._path.is_dir() else "it is missing, or may not be read or written"
            raise PluginError(f"database {self.spec.connection_string!r} cannot be opened: {reason}") from error

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force` and makes the table anew."""
        if len(table.columns) > MAX_COLUMNS:
            raise PluginError(
                f"table `{table.name}` has {len(table.columns):,} columns, SQLite takes {MAX_COLUMNS:,}",
                hint="leave some out with a transformer",
            )
        with self._opened.transaction():
            found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
            if found.action == "recreate":
                self._opened.run(sql.drop_table(DIALECT, table.name))
            if found.action in ("create", "recreate"):
                self._opened.run(sql.create_table(DIALECT, table, constraint=f"{table.name}_cqpk"))
            for change in found.changes if found.action == "alter" else ():
                if change.kind == "add_column" and change.current is not None:
                    self._opened.run(sql.add_column(DIALECT, table, change.current))

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Looks into the file; one that is missing is not made."""
        if self._connection is not None:
            return [self._preview(table, force=force) for table in tables]
        self._check_folder()
        if not self._path.is_file():
            return [sql.preview(DIALECT, None, table, self.capabilities, force=force) for table in tables]
        try:
            self.open()
            self._opened.run("pragma query_only = on")
            return [self._preview(table, force=force) for table in tables]
        finally:
            self.close()

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert or replace the rows in one transaction."""
        verb = "insert or replace" if table.primary_keys else "insert"
        marks = ", ".join("?" * len(table.columns))
        statement = f"{verb} into {DIALECT.table(table.name)} ({DIALECT.columns(table.column_names)}) values ({marks})"
        arrays = [
            pa.chunked_array([_bound(chunk, column) for chunk in array.chunks])
            for array, column in zip(rows.columns, table.columns, strict=True)
        ]
        for key in table.primary_keys:
            # SQLite would make a number up for a key that is null.
            if rows.column(key).null_count:
                raise PluginError(f"key column `{key}` of table `{table.name}` is null in a row")
        with self._opened.transaction():
            self._opened.run_for_each(statement, pa.Table.from_arrays(arrays, names=list(table.column_names)))

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond: the texts of equal form compare as the times do."""
        statement, (source, moment, *rest) = sql.delete_stale(
            DIALECT, table, source_name=source_name, sync_time=sync_time, clients=clients
        )
        with self._opened.transaction():
            self._opened.run(statement, (source, _moment(moment), *rest))
            return int(self._opened.run("select changes()")[0][0])

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._opened.transaction():
            for statement, values in sql.delete_records(DIALECT, message):
                self._opened.run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """A stream of batches."""
        have = self._describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        columns = [(column.name, _kept_as(column.type)) for column in table.columns]
        expressions = [quote(column.name) if column.name in have else "null" for column in table.columns]
        for batch in self._opened.select(table.name, columns, expressions=expressions):
            arrays = [_restored(array, column) for array, column in zip(batch.columns, table.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def stored_table(self, name: str) -> Table | None:
        """With the declared types; of text columns the values tell bytes, and of timestamps nanoseconds."""
        have = self._describe(name)
        if have is None:
            return None
        texts = [column for column in have.columns if not pa.types.is_primitive(column.type)]
        moments = [column for column in have.columns if pa.types.is_timestamp(column.type)]
        looks = [f"exists (select 1 from {quote(name)} where typeof({quote(c.name)}) = 'blob')" for c in texts]
        looks += [f"exists (select 1 from {quote(name)} where length({quote(c.name)}) > 27)" for c in moments]
        found = self._opened.run(f"select {', '.join(looks)}")[0] if looks else ()
        types: dict[str, pa.DataType] = {column.name: pa.utf8() for column in texts}
        for column, is_so in zip([*texts, *moments], found, strict=True):
            if is_so:
                types[column.name] = pa.timestamp("ns") if column in moments else pa.binary()
        return have.with_columns([replace(c, type=types.get(c.name, c.type)) for c in have.columns])

    def stored_names(self) -> Sequence[str]:
        """Tables and views."""
        rows = self._opened.run("select name from sqlite_master where type in ('table', 'view')")
        return [str(name) for (name,) in rows]

    @property
    def _opened(self) -> Connection:
        assert self._connection is not None, "open() comes first"
        return self._connection

    @property
    def _path(self) -> Path:
        """The file; without meaning for `:memory:`."""
        text = self.spec.connection_string
        if not text.startswith("file:"):
            return Path(text)
        return Path(unquote(text.removeprefix("file:").partition("?")[0]))

    def _check_folder(self) -> None:
        if self.spec.connection_string != ":memory:" and not self._path.absolute().parent.is_dir():
            raise PluginError(f"folder {str(self._path.parent)!r} of the database does not exist", hint="make it first")

    def _preview(self, table: Table, *, force: bool) -> TablePreview:
        found = sql.preview(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        if found.action == "create":
            return found
        rows = None
        if self._path.is_file() and self._path.stat().st_size <= COUNTED_BYTES:
            rows = int(self._opened.run(f"select count(*) from {DIALECT.table(table.name)}")[0][0])
        views = tuple(self._views_of(table.name)) if found.action in ("recreate", "refused") else ()
        return replace(found, rows=rows, dependents=views)

    def _views_of(self, name: str) -> Iterator[str]:
        """Views that read the table, by way of others too, as the compiler of statements tells; they stay."""
        import sqlite3

        read: set[str] = set()

        def note(action: int, table: str | None, column: str | None, *more: object) -> int:
            if action == sqlite3.SQLITE_READ and table is not None:
                read.add(table.lower())
            return sqlite3.SQLITE_OK

        connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            views = connection.execute("select name from sqlite_schema where type = 'view' order by name").fetchall()
            connection.set_authorizer(note)
            for (view,) in views:
                read.clear()
                # One that is broken already cannot break.
                with contextlib.suppress(sqlite3.Error):
                    connection.execute(f"explain select * from {quote(view)}")
                if name.lower() in read:
                    yield f"view `{view}`"
        finally:
            connection.close()

    def _describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        rows = self._opened.run('select name, type, "notnull", pk from pragma_table_info(?)', (name,))
        columns = [
            Column(str(column), _arrow_type(str(kind)), primary_key=bool(key), not_null=bool(strict or key))
            for column, kind, strict, key in rows
        ]
        return Table(name, tuple(columns)) if columns else None


def _kept_as(data_type: pa.DataType) -> pa.DataType:
    """What SQLite itself keeps: int64, float64, utf8 or binary."""
    if pa.types.is_boolean(data_type) or (pa.types.is_integer(data_type) and not data_type.equals(pa.uint64())):
        return pa.int64()
    if pa.types.is_floating(data_type):
        return pa.float64()
    if _is_binary(data_type):
        return pa.binary()
    return pa.utf8()


def _is_binary(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type) or pa.types.is_fixed_size_binary(data_type)
    )


def stored_as(data_type: pa.DataType) -> pa.DataType:
    """What comes back: exact but for durations, intervals and anything nested, which are text."""
    if pa.types.is_nested(data_type) and not isinstance(data_type, pa.BaseExtensionType):
        return pa.utf8()
    if (
        pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
    ):
        return pa.utf8()
    return data_type


def _bound(array: pa.Array, column: Column) -> pa.Array:
    """Values as the driver binds them."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _timestamp_text(array)
    kept = _kept_as(kind)
    if kept.equals(pa.utf8()):
        return to_text(array)
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(array)).as_py():
        raise PluginError(
            f"column `{column.name}` holds NaN, which SQLite would turn into null",
            hint="make it null or a number before it is written",
        )
    return array.cast(kept)


def _timestamp_text(array: pa.Array) -> pa.Array:
    """`2024-01-02 03:04:05.678901Z`, with as many digits as the unit has."""
    naive = array.cast(pa.timestamp(array.type.unit)) if array.type.tz else array
    return pc.binary_join_element_wise(naive.cast(pa.utf8()), "Z", "")


def _restored(array: pa.Array, column: Column) -> pa.Array:
    """Values of `_kept_as` as `stored_as` declares them."""
    want = stored_as(column.type)
    if pa.types.is_timestamp(want):
        naive = pc.replace_substring(array, "Z", "").cast(pa.timestamp(want.unit))
        return restore(naive, want)
    return restore(array, want)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")


def _parameter(scalar: pa.Scalar) -> Any:
    """A predicate's value in the form that its column has."""
    return _bound(pa.repeat(scalar, 1), Column("predicate", scalar.type))[0].as_py()


def _type_name(data_type: pa.DataType) -> str:
    """The declared type, the same that upstream's plugin makes, but for uint64."""
    if pa.types.is_boolean(data_type):
        return "boolean"
    if pa.types.is_timestamp(data_type):
        return "timestamp"
    kept = _kept_as(data_type)
    return {pa.int64(): "integer", pa.float64(): "real"}.get(kept, "text")


def _arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a declared type; foreign ones are kept by name."""
    known = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "real": pa.float64(),
        "text": pa.utf8(),
        "timestamp": pa.timestamp("us"),
    }
    return known.get(name.lower(), sql.Opaque(name))


DIALECT = sql.Dialect(type_name=_type_name, arrow_type=_arrow_type, inline_unique=False, to_parameter=_parameter)
