"""The DuckDB destination: migrate, write, delete and read; publishing is in `publish.py`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment.destinations.duckdb import catalogue
from catchment.destinations.duckdb.migrate import COPIED, Migrator
from catchment.destinations.duckdb.publish import ORDER, ORDER_NAME, Publisher
from catchment.destinations.duckdb.types import DIALECT, check, stored_leaf, to_leaf
from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    DeleteRecord,
    Destination,
    Measure,
    MigrationRefused,
    PluginError,
    Published,
    RowsRefused,
    Swap,
    Table,
    TablePreview,
    sql,
)
from catchment.sdk.adopted import read_back, written
from catchment.sdk.measures import measured
from catchment.sdk.staging import STAGING_PREFIX, staging_run
from catchment.sdk.storage import converted, map_array, map_type, numbered

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
        kept_when_forced=COPIED,
        delete_records=True,
        publish="sync",
        rejects=True,
        measures=True,
        # What follows these bytes is streamed.
        batch=BatchSize(rows=0, size_bytes=8 << 20, timeout_s=0),
        stored_as=lambda data_type: map_type(data_type, stored_leaf),
    )

    def __init__(self, spec: DuckDBSpec) -> None:
        super().__init__(spec)
        self._connection: Any = None
        self._runs: set[str] = set()
        """Runs that stage tables here."""
        self._ties = catalogue.Ties()
        self._spelt: dict[str, str] = {}
        """Names of tables by their lower case, once one has been looked for."""
        self._numbered: dict[str, int] = {}
        """Rows so far of staged tables whose rows are numbered, as the last of equal keys is published."""
        self._forced: set[str] = set()
        """Staged tables that may replace a live one which their rows do not fit."""
        self._unmade: dict[str, str] = {}
        """Statements that make staged tables, until their first rows come."""

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
            # It draws one on standard output where it takes Python for interactive.
            self._run("set enable_progress_bar = false")
            self._run("set timezone = 'UTC'")
            # Every core inserts; where the order of rows decides they carry a number.
            self._run("set preserve_insertion_order = false")
        except duckdb.Error as error:
            raise catalogue.not_opened(path, error) from error

    def close(self) -> None:
        """Write the log into the file and close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        _alive.difference_update(self._runs)

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force`, and copies the rows that fit."""
        check(table)
        self._check_spelling(table.name)
        with self._transaction():
            have, found, reason = self._migrator.plan(table, force=force)
            self._migrator.carry_out(have, table, found, reason)

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Looks into the file, which may be read by others meanwhile; one that is missing is not made."""
        was_open = self._connection is not None
        try:
            if not was_open:
                self._open(only_look=True)
            return [self._preview(table, force=force) for table in tables]
        finally:
            if not was_open:
                self.close()

    def _preview(self, table: Table, *, force: bool) -> TablePreview:
        migrator = self._migrator
        try:
            check(table)
            self._check_spelling(table.name)
        except PluginError as error:
            return TablePreview("refused").refused(error)
        have = migrator.describe(table.name)
        found = sql.preview(DIALECT, have, table, self.capabilities, force=force, ask=migrator.ask)
        return catalogue.completed(found, table.name, self._run, self._connection)

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert the rows in one transaction; with keys, the rows of equal keys go first."""
        with self._writing([table.name]):
            self._write(table, rows)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        with contextlib.suppress(_TakenBack), self._writing([table.name]):
            self._write(table, rows)
            raise _TakenBack

    def _write(self, table: Table, rows: pa.Table) -> None:
        if not table.primary_keys:
            self._insert(table, iter(rows.to_batches()))
            return
        rows = written(rows, self._adopted(table))
        names, keys = DIALECT.columns(table.column_names), DIALECT.columns(table.primary_keys)
        live = DIALECT.table(table.name)
        with self._registered(_numbered(rows)) as view:
            self._run(f"delete from {live} where ({keys}) in (select {keys} from {view})")
            self._run(
                f"insert into {live} ({names}) select {names} from {view} "
                f"where {ORDER} in (select max({ORDER}) from {view} group by {keys})"
            )

    def stream(self, table: Table, batches: Iterator[pa.RecordBatch]) -> None:
        """Insert rows while they come, in one statement: row groups are filled, and the reader is never waited for."""
        with self._writing([table.name]):
            self._insert(table, batches)

    def _insert(self, table: Table, batches: Iterator[pa.RecordBatch]) -> None:
        adopted = self._adopted(table)
        nothing = pa.RecordBatch.from_arrays(
            [pa.nulls(0, kind) for kind in adopted.arrow_schema.types], table.column_names
        )
        refused: list[RowsRefused] = []

        def stored() -> Iterator[pa.RecordBatch]:
            try:
                for batch in batches:
                    for part in written(pa.Table.from_batches([batch]), adopted).to_batches():
                        yield self._with_number(table.name, _stored(part))
            except RowsRefused as error:
                # DuckDB makes a text of what it meets while it reads.
                refused.append(error)
                raise

        schema = self._with_number(table.name, _stored(nothing)).schema
        reader = pa.RecordBatchReader.from_batches(schema, stored())
        names = DIALECT.columns(schema.names)
        with self._registered(reader) as view:
            try:
                self._run(f"insert into {DIALECT.table(table.name)} ({names}) select {names} from {view}")
            except PluginError as error:
                if refused:
                    raise refused[0] from error
                raise

    def _with_number(self, name: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of a staged table that will get a key with their number in the load; others as they are."""
        first = self._numbered.get(name)
        if first is None:
            return rows
        self._numbered[name] = first + rows.num_rows
        return rows.append_column(ORDER_NAME, numbered(rows.num_rows, first))

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
        with self._writing([message.table_name, *(relation.table_name for relation in message.relations)]):
            for statement, values in sql.delete_records(DIALECT, message):
                self._run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Batches of at most 100,000 rows."""
        have = self._migrator.describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        adopted = sql.adopted(DIALECT, have, table)
        columns = [catalogue.selected(column, have) for column in adopted.columns]
        cursor = self._connection.cursor()
        rows = cursor.sql(f"select {', '.join(columns)} from {DIALECT.table(table.name)}")
        for batch in rows.to_arrow_reader(100_000):
            arrays = [
                read_back(array, there.type, column.type, self.capabilities.stored_as(column.type))
                for array, there, column in zip(batch.columns, adopted.columns, table.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A query each. A staged table that had no rows is made for it."""

        def ask(statement: str, values: Sequence[Any]) -> Any:
            return self._run(statement, values).fetchone()[0]

        with self._writing([table.name, *(measure.other for measure in measures)]):
            return measured(DIALECT, table, measures, keys=keys, source_name=source_name, ask=ask)

    def stored_table(self, name: str) -> Table | None:
        """With the types that DuckDB's Arrow reader gives; those that are DuckDB's own are read as text."""
        have = self._migrator.describe(name)
        if have is None:
            return None
        kinds = catalogue.read_types(self._connection, DIALECT.table(name))
        return have.with_columns([replace(c, type=kind) for c, kind in zip(have.columns, kinds, strict=True)])

    def stored_names(self) -> Sequence[str]:
        """Tables and views of the current schema."""
        return [name for name in catalogue.names(self._run) if not name.startswith(STAGING_PREFIX)]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Look at the live table, and note the staged one with the columns that the live one will have."""
        check(table)
        self._check_spelling(table.name)
        _, found, _ = self._migrator.plan(table, force=force)
        self._begin(staging_run(staged.name))
        if table.name in self._ties.children:
            named = ", ".join(self._ties.children[table.name])
            raise PluginError(
                f"table `{table.name}` cannot be published, others refer to its rows: {named}",
                hint="drop the foreign keys, or set `publish: stream` for the destination",
            )
        final = found.table.without_keys().renamed(staged.name)
        gone = {name for name in final.column_names if name not in table}
        definitions = self._migrator.definitions(final, table.name, gone)
        if table.primary_keys:
            definitions += f", {ORDER} bigint"
            self._numbered[staged.name] = 0
        if force:
            self._forced.add(staged.name)
        # The first rows make it, which spares a wait for the disk.
        self._unmade[staged.name] = f"create table {DIALECT.table(staged.name)} ({definitions})"

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Complete every staged table, give it its key, and rename it to the live one, in one transaction."""
        with self._writing([swap.staged.name for swap in swaps]):
            publisher = Publisher(self._run, self._migrator, self._ties, forced=self._forced, numbered=self._numbered)
            return publisher.publish(swaps)

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        with self._transaction():
            for table in staged:
                self._unmade.pop(table.name, None)
                self._numbered.pop(table.name, None)
                self._run(sql.drop_table(DIALECT, table.name))

    @property
    def _migrator(self) -> Migrator:
        return Migrator(self._run, self._connection, self.capabilities)

    def _adopted(self, table: Table) -> Table:
        """The table with the types that its columns have where upstream's plugin made them."""
        looked_at = sql.may_be_adopted(DIALECT, table)
        return sql.adopted(DIALECT, self._migrator.describe(table.name), table) if looked_at else table

    def _begin(self, run: str) -> None:
        """Look at the file when a run begins: drop what runs that were killed left, note what hangs on tables."""
        if run in self._runs:
            return
        self._runs.add(run)
        _alive.add(run)
        for name in catalogue.staged_names(self._run):
            if staging_run(name) not in _alive:
                self._run(sql.drop_table(DIALECT, name))
        self._ties = catalogue.ties(self._run)

    def _check_spelling(self, name: str) -> None:
        """Raises `MigrationRefused` for a name that DuckDB takes for that of another table."""
        if not self._spelt:
            self._spelt = catalogue.spellings(self._run)
        other = self._spelt.setdefault(name.lower(), name)
        if other != name and catalogue.spellings(self._run).get(name.lower(), other) != name:
            raise MigrationRefused(
                f"table `{name}` cannot be told apart from table `{other}`, as DuckDB sees no case in names",
                hint="rename one with a transformer",
            )

    def _run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute a statement; what DuckDB says of a failure becomes a `PluginError`."""
        import duckdb

        if self.spec.debug:
            log.info("%s %s", statement, values)
        try:
            return self._connection.execute(statement, list(values))
        except duckdb.Error as error:
            raise catalogue.explained(error) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("begin")
        try:
            yield
        except BaseException:
            with contextlib.suppress(PluginError):
                self._run("rollback")
            raise
        try:
            self._run("commit")
        except PluginError as error:
            # It takes no more statements, but the rows are in, and who only reads the file sees them.
            if _COMMITTED not in str(error):
                raise
            log.warning("DuckDB has no room to tidy up its file, which nobody can write to until there is: %s", error)

    @contextlib.contextmanager
    def _writing(self, names: Sequence[str]) -> Iterator[None]:
        """A transaction in which those of the tables that are staged and not made yet are made first."""
        unmade = [name for name in names if name in self._unmade]
        with self._transaction():
            for name in unmade:
                self._run(self._unmade[name])
            yield
        for name in unmade:
            del self._unmade[name]

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


_COMMITTED = "COMMIT succeeded and is durable"


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""


def _stored(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as DuckDB takes them."""
    names = batch.schema.names
    arrays = [
        converted(name, array, lambda values: map_array(values, to_leaf))
        for name, array in zip(names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _numbered(rows: pa.Table) -> pa.Table:
    """Rows as DuckDB takes them, with a number that tells which of equal ones came last."""
    stored = pa.Table.from_batches([_stored(batch) for batch in rows.to_batches()])
    return stored.append_column(ORDER_NAME, numbered(rows.num_rows))


def _naive(moment: datetime) -> datetime:
    """UTC without a zone, as timestamps are stored."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _options(connection_string: str) -> dict[str, Any]:
    """`a=b` pairs behind the `?` of a connection string."""
    pairs = (pair.partition("=") for pair in connection_string.partition("?")[2].split("&") if pair)
    return {key: value for key, _, value in pairs}
