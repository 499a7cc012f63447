"""A SQLite file as a destination: Arrow columns are bound to one prepared statement a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa
from pydantic import field_validator

from catchment.destinations.sqlite import catalogue, migrate, place
from catchment.destinations.sqlite.publish import Publisher
from catchment.destinations.sqlite.staging import Staging
from catchment.destinations.sqlite.types import DIALECT, bound, kept_as, moment_text, restored, stored_as
from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    DeleteRecord,
    Destination,
    Measure,
    PluginError,
    Published,
    RowsRefused,
    Swap,
    Table,
    TablePreview,
    Transient,
    sql,
)
from catchment.sdk.adopted import read_back, written
from catchment.sdk.measures import measured
from catchment.sdk.sqlite import Connection, quote
from catchment.sdk.staging import STAGING_PREFIX, staging_run

MAX_COLUMNS = 2_000
"""Columns of a table (https://www.sqlite.org/limits.html)."""
CACHE_KIB = 64 << 10
"""Memory for pages of the file: what a batch changes stays in it until the batch is committed, so that readers are
kept out of a file without a write-ahead log only while it is written."""
COUNTED_BYTES = 64 << 20
"""Size of a database up to which a preview counts the rows of a table: SQLite keeps no estimate, and reads them all."""


class SQLiteSpec(BatchSpec):
    """Spec of the sqlite destination."""

    connection_string: str
    """Path of the database file, `:memory:`, or a `file:` URI; options such as `?_journal_mode=WAL` may follow."""

    @field_validator("connection_string")
    @classmethod
    def _check_options(cls, value: str) -> str:
        place.parse(value)
        return value


class SQLite(Destination[SQLiteSpec]):
    """Binds Arrow columns to one prepared statement a batch, in one transaction; keys are built after the rows."""

    name = "sqlite"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}),
        kept_when_forced=migrate.COPIED,
        delete_records=True,
        publish="sync",
        rejects=True,
        measures=True,
        batch=BatchSize(rows=0, size_bytes=32 << 20, timeout_s=60.0),
        stored_as=stored_as,
    )

    def __init__(self, spec: SQLiteSpec) -> None:
        super().__init__(spec)
        self._place = place.parse(spec.connection_string)
        self._connection: Connection | None = None
        self._staging: Staging | None = None

    def open(self) -> None:
        """Open the file, and make it if it is missing."""
        self._open()

    def _open(self, *, only_look: bool = False) -> None:
        self._check_folder()
        try:
            self._connection = Connection(self._place.target)
        except Transient:
            raise
        except PluginError as error:
            if "failed to open" not in str(error):
                raise
            # The driver always says that it had no memory.
            is_folder = self._place.path is not None and self._place.path.is_dir()
            reason = "it is a folder" if is_folder else "it is missing, or may not be read or written"
            raise PluginError(f"database {self.spec.connection_string!r} cannot be opened: {reason}") from error
        for pragma, value in {"cache_size": f"-{CACHE_KIB}", **self._place.pragmas}.items():
            if not only_look or pragma not in place.KEPT_IN_FILE:
                self._connection.run(f"pragma {pragma} = {value}")
        if only_look:
            self._connection.run("pragma query_only = on")
        # A table that is made anew takes the place of the one that views and foreign keys look for by its name.
        self._connection.run("pragma legacy_alter_table = on")
        path = self._place.path
        self._staging = Staging(self._connection, path.absolute() if path is not None else None)

    def close(self) -> None:
        """Close the file."""
        if self._staging is not None:
            self._staging.close()
            self._staging = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force`, and copies the rows that fit."""
        _check_width(table)
        with self._opened.transaction():
            have = self._describe(table.name)
            found = sql.migration(DIALECT, have, table, self.capabilities, force=force)
            migrate.carry_out(self._opened.run, have, table, found)

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Looks into the file; one that is missing is not made."""
        if self._connection is not None:
            return [self._preview(table, force=force) for table in tables]
        self._check_folder()
        if self._place.path is None or not self._place.path.is_file():
            return [sql.preview(DIALECT, None, table, self.capabilities, force=force) for table in tables]
        try:
            self._open(only_look=True)
            return [self._preview(table, force=force) for table in tables]
        finally:
            self.close()

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert or replace the rows in one transaction."""
        with self._opened.transaction():
            self._write(table, rows)
        staged = self._staged.get(table.name)
        if staged is not None:
            staged.rows += rows.num_rows

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        with contextlib.suppress(_TakenBack), self._opened.transaction():
            self._write(table, rows)
            raise _TakenBack

    def _write(self, table: Table, rows: pa.Table) -> None:
        staged = self._staged.get(table.name)
        keyed = table if staged is None else staged.final
        for key in keyed.primary_keys:
            # SQLite would make a number up for a key that is null.
            if rows.column(key).null_count:
                raise RowsRefused(f"key column `{key}` of table `{keyed.name}` is null in a row", column=key)
        adopted = self._adopted(table)
        rows = written(rows, adopted)
        replaces = bool(table.primary_keys) if staged is None else staged.is_keyed
        verb = "insert or replace" if replaces else "insert"
        marks = ", ".join("?" * len(table.columns))
        statement = f"{verb} into {DIALECT.table(table.name)} ({DIALECT.columns(table.column_names)}) values ({marks})"
        arrays = [
            pa.chunked_array([bound(chunk, column) for chunk in array.chunks])
            for array, column in zip(rows.columns, adopted.columns, strict=True)
        ]
        if staged is not None:
            self._opened.run(staged.create)
        try:
            self._opened.run_for_each(statement, pa.Table.from_arrays(arrays, names=list(table.column_names)))
        except RowsRefused as error:
            text = str(error)
            column = text.partition(f"NOT NULL constraint failed: {table.name}.")[2]
            raise RowsRefused(text.replace(table.name, keyed.name), column=column) from error

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond: the texts of equal form compare as the times do."""
        statement, (source, moment, *rest) = sql.delete_stale(
            DIALECT, table, source_name=source_name, sync_time=sync_time, clients=clients
        )
        with self._opened.transaction():
            self._opened.run(statement, (source, moment_text(moment), *rest))
            return int(self._opened.run("select changes()")[0][0])

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._opened.transaction():
            self._make([message.table_name, *(relation.table_name for relation in message.relations)])
            for statement, values in sql.delete_records(DIALECT, message):
                self._opened.run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """A stream of batches."""
        have = self._describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        adopted = sql.adopted(DIALECT, have, table)
        columns = [(column.name, kept_as(column.type)) for column in adopted.columns]
        expressions = [quote(column.name) if column.name in have else "null" for column in table.columns]
        for batch in self._opened.select(table.name, columns, expressions=expressions):
            arrays = [
                restored(array, column)
                if there.type.equals(column.type)
                else read_back(array, there.type, column.type, stored_as(column.type))
                for array, there, column in zip(batch.columns, adopted.columns, table.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A query each. A staged table that had no rows is made for it."""
        self._make([table.name, *(measure.other for measure in measures)])

        def ask(statement: str, values: Sequence[Any]) -> Any:
            return self._opened.run(statement, values)[0][0]

        return measured(DIALECT, table, measures, keys=keys, source_name=source_name, ask=ask)

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
        return [name for name in catalogue.names(self._opened.run) if not name.startswith(STAGING_PREFIX)]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Look whether the live table may be changed; the first rows make the staged one."""
        _check_width(table)
        catalogue.check_name(self._opened.run, table.name)
        found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        self._staged.begin(staging_run(staged.name))
        self._staged.add(found.table, staged, forced=force)

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Give every staged table its key, then rename it to the live one, or merge it, in one transaction."""
        return Publisher(self._opened, self._staged, self.capabilities).publish(swaps)

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        self._staged.discard(table.name for table in staged)

    @property
    def _staged(self) -> Staging:
        assert self._staging is not None, "open() comes first"
        return self._staging

    @property
    def _opened(self) -> Connection:
        assert self._connection is not None, "open() comes first"
        return self._connection

    def _check_folder(self) -> None:
        path = self._place.path
        if path is not None and not path.absolute().parent.is_dir():
            raise PluginError(f"folder {str(path.parent)!r} of the database does not exist", hint="make it first")

    def _preview(self, table: Table, *, force: bool) -> TablePreview:
        run, have, path = self._opened.run, self._describe(table.name), self._place.path
        preview = sql.preview(DIALECT, have, table, self.capabilities, force=force, ask=run)
        if preview.action == "create" or have is None:
            return preview
        rows = None
        if path is not None and path.is_file() and path.stat().st_size <= COUNTED_BYTES:
            rows = int(run(f"select count(*) from {DIALECT.table(table.name)}")[0][0])
        views = tuple(catalogue.views(run, table.name)) if preview.action in ("recreate", "refused") else ()
        return replace(preview, rows=rows, dependents=views)

    def _make(self, names: Sequence[str]) -> None:
        """Make those of the tables that are staged and had no rows yet."""
        for name in names:
            staged = self._staged.get(name)
            if staged is not None:
                self._opened.run(staged.create)

    def _adopted(self, table: Table) -> Table:
        """The table with the types that its columns have where upstream's plugin made them."""
        if not sql.may_be_adopted(DIALECT, table):
            return table
        staged = self._staged.get(table.name)
        return sql.adopted(DIALECT, self._describe(table.name) if staged is None else staged.final, table)

    def _describe(self, name: str) -> Table | None:
        return catalogue.describe(self._opened.run, name)


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""


def _check_width(table: Table) -> None:
    """Raises `PluginError` for a table that SQLite has no room for."""
    if len(table.columns) > MAX_COLUMNS:
        raise PluginError(
            f"table `{table.name}` has {len(table.columns):,} columns, SQLite takes {MAX_COLUMNS:,}",
            hint="leave some out with a transformer",
        )
