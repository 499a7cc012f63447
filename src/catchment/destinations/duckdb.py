"""duckdb: an embedded analytical database in one file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment.destinations import duckdb_catalogue
from catchment.destinations.duckdb_types import DIALECT, arrow_type, stored_leaf, to_leaf
from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    Column,
    DeleteRecord,
    Destination,
    MigrationRefused,
    PluginError,
    Published,
    RowsRefused,
    Swap,
    Table,
    TablePreview,
    sql,
)
from catchment.sdk.staging import CQ_SOURCE_NAME, STAGING_PREFIX, staging_run
from catchment.sdk.storage import map_array, map_type, numbered, restore

log = logging.getLogger("catchment.duckdb")

_alive: set[str] = set()
"""Runs of this process that have staged tables; no other process can have the file open meanwhile."""


class DuckDBSpec(BatchSpec):
    """Spec of the duckdb destination."""

    connection_string: str
    """Path of the database file, `:memory:`, or `md:` and the name of a MotherDuck database."""
    debug: bool = False
    """Whether every statement is logged."""


class DuckDB(Destination[DuckDBSpec]):
    """Writes Arrow straight into DuckDB; keys are built after the rows are in."""

    name = "duckdb"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}),
        delete_records=True,
        publish="sync",
        rejects=True,
        # What follows these bytes is streamed.
        batch=BatchSize(rows=0, size_bytes=32 << 20, timeout_s=0),
        stored_as=lambda data_type: map_type(data_type, stored_leaf),
    )

    def __init__(self, spec: DuckDBSpec) -> None:
        super().__init__(spec)
        self._connection: Any = None
        self._runs: set[str] = set()
        """Runs that stage tables here."""
        self._ties = duckdb_catalogue.Ties()
        self._keeps_order = True
        self._ordered: set[str] = set()
        """Staged tables whose rows have to stay in their order, as the last of equal keys is published."""
        self._forced: set[str] = set()
        """Staged tables that may replace a live one which their rows do not fit."""

    def open(self) -> None:
        """Open the file, and make it if it is missing."""
        self._open()

    def _open(self, *, only_look: bool = False) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise PluginError("the duckdb driver is not installed", hint="pip install 'catchment[duckdb]'") from error
        path = self.spec.connection_string.partition("?")[0] or ":memory:"
        in_file = path != ":memory:" and not path.startswith("md:")
        if in_file and not Path(path).absolute().parent.is_dir():
            raise PluginError(f"folder {str(Path(path).parent)!r} of the database does not exist", hint="make it first")
        if only_look and in_file and not Path(path).exists():
            # What would be made, in memory.
            path, in_file = ":memory:", False
        try:
            options = _options(self.spec.connection_string)
            self._connection = duckdb.connect(path, read_only=only_look and in_file, config=options)
            self._run("set arrow_lossless_conversion = true")
            self._run("set timezone = 'UTC'")
        except duckdb.Error as error:
            raise duckdb_catalogue.not_opened(path, error) from error

    def close(self) -> None:
        """Write the log into the file and close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        _alive.difference_update(self._runs)

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force` and makes the table anew."""
        found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        if found.action == "recreate":
            self._check_dependents(table.name, duckdb_catalogue.ties(self._run))
        with self._transaction():
            if found.action == "recreate":
                self._run(sql.drop_table(DIALECT, table.name))
            if found.action in ("create", "recreate"):
                self._run(sql.create_table(DIALECT, table))
            for change in found.changes if found.action == "alter" else ():
                if change.kind == "add_column" and change.current is not None:
                    self._run(sql.add_column(DIALECT, table, change.current))

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Looks into the file, which may be read by others meanwhile; one that is missing is not made."""
        was_open = self._connection is not None
        try:
            if not was_open:
                self._open(only_look=True)
            found = [
                sql.preview(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
                for table in tables
            ]
            return [
                duckdb_catalogue.completed(preview, table.name, self._run, self._connection)
                for preview, table in zip(found, tables, strict=True)
            ]
        finally:
            if not was_open:
                self.close()

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert the rows in one transaction; with keys, the rows of equal keys go first."""
        with self._transaction():
            self._write(table, rows)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        with contextlib.suppress(_TakenBack), self._transaction():
            self._write(table, rows)
            raise _TakenBack

    def _write(self, table: Table, rows: pa.Table) -> None:
        if not table.primary_keys:
            self._insert(table, iter(rows.to_batches()))
            return
        names, keys = DIALECT.columns(table.column_names), DIALECT.columns(table.primary_keys)
        live = DIALECT.table(table.name)
        self._keep_order(True)
        with self._registered(_numbered(rows, table)) as view:
            self._run(f"delete from {live} where ({keys}) in (select {keys} from {view})")
            self._run(
                f"insert into {live} ({names}) select {names} from {view} "
                f"qualify row_number() over (partition by {keys} order by {_ORDER} desc) = 1"
            )

    def stream(self, table: Table, batches: Iterator[pa.RecordBatch]) -> None:
        """Insert rows while they come, in one statement: row groups are filled, and the reader is never waited for."""
        with self._transaction():
            self._insert(table, batches)

    def _insert(self, table: Table, batches: Iterator[pa.RecordBatch]) -> None:
        nothing = pa.RecordBatch.from_arrays(
            [pa.nulls(0, kind) for kind in table.arrow_schema.types], table.column_names
        )
        reader = pa.RecordBatchReader.from_batches(_stored(nothing).schema, map(_stored, batches))
        names = DIALECT.columns(table.column_names)
        # Rows that need not stay in their order are inserted by every core.
        self._keep_order(table.name in self._ordered)
        with self._registered(reader) as view:
            self._run(f"insert into {DIALECT.table(table.name)} ({names}) select {names} from {view}")

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        statement, values = sql.delete_stale(
            DIALECT, table, source_name=source_name, sync_time=_naive(sync_time), clients=clients
        )
        with self._transaction():
            return int(self._run(statement, values).fetchone()[0])

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._transaction():
            for statement, values in sql.delete_records(DIALECT, message):
                self._run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Batches of at most 100,000 rows."""
        have = self._describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        columns = [duckdb_catalogue.selected(column, have) for column in table.columns]
        cursor = self._connection.cursor()
        rows = cursor.sql(f"select {', '.join(columns)} from {DIALECT.table(table.name)}")
        for batch in rows.to_arrow_reader(100_000):
            arrays = [
                restore(array, self.capabilities.stored_as(column.type))
                for array, column in zip(batch.columns, table.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def stored_table(self, name: str) -> Table | None:
        """With the types that DuckDB's Arrow reader gives; those that are DuckDB's own are read as text."""
        have = self._describe(name)
        if have is None:
            return None
        kinds = duckdb_catalogue.read_types(self._connection, DIALECT.table(name))
        return have.with_columns([replace(c, type=kind) for c, kind in zip(have.columns, kinds, strict=True)])

    def stored_names(self) -> Sequence[str]:
        """Tables and views of the current schema."""
        return [name for name in duckdb_catalogue.names(self._run) if not name.startswith(STAGING_PREFIX)]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table beside the live one, with the columns that the live one will have."""
        found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        self._begin(staging_run(staged.name))
        if found.action == "recreate":
            self._check_dependents(table.name, self._ties)
        elif table.name in self._ties.children:
            named = ", ".join(self._ties.children[table.name])
            raise PluginError(
                f"table `{table.name}` cannot be published, others refer to its rows: {named}",
                hint="drop the foreign keys, or set `publish: stream` for the destination",
            )
        final = found.table.without_keys().renamed(staged.name)
        # Columns that only the live table has may be null, and have types that Arrow does not know.
        gone = {column.name for column in final.columns if column.name not in table}
        kinds = {name: kind for name, kind, _ in self._columns(table.name)} if gone else {}
        definitions = [
            f"{DIALECT.quote(column.name)} {kinds[column.name]}"
            if column.name in gone
            else sql.column_definition(DIALECT, column)
            for column in final.columns
        ]
        if table.primary_keys:
            self._ordered.add(staged.name)
        if force:
            self._forced.add(staged.name)
        with self._transaction():
            self._run(f"create table {DIALECT.table(staged.name)} ({', '.join(definitions)})")

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Complete every staged table, give it its key, and rename it to the live one, in one transaction."""
        with self._transaction():
            return {swap.table.name: self._publish(swap) for swap in swaps}

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        with self._transaction():
            for table in staged:
                self._run(sql.drop_table(DIALECT, table.name))

    def _publish(self, swap: Swap) -> Published:
        keys, staged = swap.table.primary_keys, DIALECT.table(swap.staged.name)
        have = self._describe(swap.table.name)
        done = Published(0, 0)
        if keys:
            self._keep_last(swap)
        force = swap.staged.name in self._forced
        # The live table may have changed since the rows were staged.
        found = sql.migration(DIALECT, have, swap.table, self.capabilities, force=force)
        if have is not None and found.action != "recreate" and swap.table.name in self._ties.tied:
            return self._merge(swap, have)
        if have is not None:
            # Of a table that is made anew nothing stays: its rows do not fit.
            done = Published() if found.action == "recreate" else self._keep_live_rows(swap, have)
        if keys:
            self._run(f"alter table {staged} add primary key ({DIALECT.columns(keys)})")
        self._run(sql.drop_table(DIALECT, swap.table.name))
        self._run(f"alter table {staged} rename to {DIALECT.quote(swap.table.name)}")
        return done

    def _keep_last(self, swap: Swap) -> None:
        """Of rows with equal keys keep the one that came last; row ids follow the order of insertion."""
        staged, quoted = DIALECT.table(swap.staged.name), DIALECT.columns(swap.table.primary_keys)
        total, unique = self._run(
            f"select (select count(*) from {staged}), (select count(*) from (select distinct {quoted} from {staged}))"
        ).fetchone()
        if total > unique:
            # A copy, not a delete: a key cannot be built over rows that were deleted in the same transaction.
            copy = f"{swap.staged.name}.unique"
            columns = ", ".join(
                f"{DIALECT.quote(name)} {kind}{' not null' if strict else ''}"
                for name, kind, strict in self._columns(swap.staged.name)
            )
            self._run(f"create table {DIALECT.table(copy)} ({columns})")
            self._run(
                f"insert into {DIALECT.table(copy)} select * from {staged} "
                f"qualify row_number() over (partition by {quoted} order by rowid desc) = 1"
            )
            self._run(sql.drop_table(DIALECT, swap.staged.name))
            self._run(f"alter table {DIALECT.table(copy)} rename to {DIALECT.quote(swap.staged.name)}")

    def _keep_live_rows(self, swap: Swap, have: Table) -> Published:
        """Copy the live rows that stay into the staged table; how many of this source's went and stayed."""
        live, staged = DIALECT.table(swap.table.name), DIALECT.table(swap.staged.name)
        staged_names = {name for name, _, _ in self._columns(swap.staged.name)}
        for name, kind, _ in self._columns(swap.table.name):
            if name not in staged_names:
                # It came with another source's sync, after these rows were staged.
                self._run(f"alter table {staged} add column {DIALECT.quote(name)} {kind}")
        own, absent = _own(have), _absent(swap, have)
        done = self._count_stale(swap, own, absent)
        kept = absent if swap.keep == "all" else f"not ({own}) and {absent}"
        values = () if swap.keep == "all" else (swap.source_name,)
        names = DIALECT.columns(have.column_names)
        self._run(f"insert into {staged} ({names}) select {names} from {live} where {kept}", values)
        return done

    def _merge(self, swap: Swap, have: Table) -> Published:
        """Change the live table, on which something was set that a renamed one would not have."""
        live, staged = DIALECT.table(swap.table.name), DIALECT.table(swap.staged.name)
        for column in swap.table.columns:
            if column.name not in have:
                self._run(sql.add_column(DIALECT, swap.table, column))
        own, absent = _own(have), _absent(swap, have)
        done = self._count_stale(swap, own, absent)
        gone = f"not ({absent})" if swap.keep == "all" else f"({own}) or not ({absent})"
        self._run(f"delete from {live} where {gone}", () if swap.keep == "all" else (swap.source_name,))
        names = DIALECT.columns(swap.table.column_names)
        self._run(f"insert into {live} ({names}) select {names} from {staged}")
        self._run(sql.drop_table(DIALECT, swap.staged.name))
        return done

    def _count_stale(self, swap: Swap, own: str, absent: str) -> Published:
        live = DIALECT.table(swap.table.name)
        count = self._run(f"select count(*) from {live} where {own} and {absent}", (swap.source_name,)).fetchone()[0]
        return Published(0, count) if swap.keep == "all" else Published(count, 0)

    def _begin(self, run: str) -> None:
        """Look at the file when a run begins: drop what runs that were killed left, note what hangs on tables."""
        if run in self._runs:
            return
        self._runs.add(run)
        _alive.add(run)
        for name in duckdb_catalogue.staged_names(self._run):
            if staging_run(name) not in _alive:
                self._run(sql.drop_table(DIALECT, name))
        self._ties = duckdb_catalogue.ties(self._run)

    def _check_dependents(self, name: str, ties: duckdb_catalogue.Ties) -> None:
        """Raises `MigrationRefused` for a table that cannot be dropped; the log names the views that may break."""
        if name in ties.children:
            raise sql.hung_on(name, ties.children[name])
        views = list(duckdb_catalogue.views(self._run, self._connection, name))
        if views:
            log.warning("table `%s` is made anew, check what reads it: %s", name, ", ".join(views))

    def _columns(self, name: str) -> list[tuple[str, str, bool]]:
        """Name, type and whether it is not null, of every column of a table."""
        query = f'select name, type, "notnull" from pragma_table_info({_literal(DIALECT.quote(name))})'
        return list(self._run(query).fetchall())

    def _describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        # The catalogue's views list every column of the database at each call; this function looks at one table.
        if not self._exists(name):
            return None
        rows = self._run(f'select name, type, "notnull", pk from pragma_table_info({_literal(DIALECT.quote(name))})')
        return Table(
            name,
            tuple(
                Column(column, arrow_type(kind), primary_key=key, not_null=strict)
                for column, kind, strict, key in rows.fetchall()
            ),
        )

    def _exists(self, name: str) -> bool:
        """Whether there is a table of this name."""
        import duckdb

        if duckdb_catalogue.is_own(self._run, name):
            raise MigrationRefused(
                f"table `{name}` has the name of one of DuckDB's own", hint="rename it with a transformer"
            )
        try:
            self._connection.table(DIALECT.quote(name))
        except duckdb.CatalogException:
            return False
        except duckdb.Error as error:
            raise PluginError(f"{type(error).__name__}: {error}") from error
        return True

    def _run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute a statement; what DuckDB says of a failure becomes a `PluginError`."""
        import duckdb

        if self.spec.debug:
            log.info("%s %s", statement, values)
        try:
            return self._connection.execute(statement, list(values))
        except (duckdb.ConstraintException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        except duckdb.Error as error:
            raise PluginError(f"{type(error).__name__}: {error}") from error

    def _keep_order(self, keep: bool) -> None:
        """Whether the next insert keeps the order of its rows."""
        if keep is not self._keeps_order:
            self._run(f"set preserve_insertion_order = {str(keep).lower()}")
            self._keeps_order = keep

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("begin")
        try:
            yield
        except BaseException:
            with contextlib.suppress(PluginError):
                self._run("rollback")
            raise
        self._run("commit")

    @contextlib.contextmanager
    def _registered(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[str]:
        import duckdb

        self._connection.register("_catchment_rows", rows)
        try:
            yield '"_catchment_rows"'
        finally:
            # A transaction that is broken refuses this too, in place of the error that broke it; the next rows take the
            # name over.
            with contextlib.suppress(duckdb.TransactionException):
                self._connection.unregister("_catchment_rows")


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""


_ORDER_NAME = "_catchment_order"
_ORDER = f'"{_ORDER_NAME}"'


def _stored(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as DuckDB takes them."""
    return pa.RecordBatch.from_arrays([map_array(array, to_leaf) for array in batch.columns], names=batch.schema.names)


def _numbered(rows: pa.Table, table: Table) -> pa.Table:
    """Rows as DuckDB takes them, with a number that tells which of equal ones came last."""
    stored = pa.Table.from_batches([_stored(batch) for batch in rows.to_batches()])
    return stored.append_column(_ORDER_NAME, numbered(rows.num_rows))


def _literal(text: str) -> str:
    """`text` as an SQL string, where a function takes no bound value."""
    return "'" + text.replace("'", "''") + "'"


def _naive(moment: datetime) -> datetime:
    """UTC without a zone, as timestamps are stored."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _options(connection_string: str) -> dict[str, Any]:
    """`a=b` pairs behind the `?` of a connection string."""
    pairs = (pair.partition("=") for pair in connection_string.partition("?")[2].split("&") if pair)
    return {key: value for key, _, value in pairs}


def _own(have: Table) -> str:
    """Whether a live row is of the source whose name is bound."""
    return f"{DIALECT.quote(CQ_SOURCE_NAME)} is not distinct from ?" if CQ_SOURCE_NAME in have else "? is null"


def _absent(swap: Swap, have: Table) -> str:
    """Whether a live row's key is not in the new load."""
    keys = [key for key in swap.table.primary_keys if key in have]
    if not keys:
        return "true"
    if len(keys) < len(swap.table.primary_keys):
        return "false"
    quoted = DIALECT.columns(keys)
    return f"({quoted}) not in (select {quoted} from {DIALECT.table(swap.staged.name)})"
