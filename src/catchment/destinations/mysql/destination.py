"""The MySQL destination: migrate, write, delete and read; publishing is in `publish.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pydantic import field_validator

from catchment.destinations.mysql import catalogue, migrate, place, types
from catchment.destinations.mysql.catalogue import described
from catchment.destinations.mysql.connection import Connections, Exact, OutcomeUnknown, asking, changed, explained, run
from catchment.destinations.mysql.load import load
from catchment.destinations.mysql.publish import Publisher, upserted
from catchment.destinations.mysql.staging import Staging
from catchment.destinations.mysql.types import DIALECT
from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    Column,
    DeleteRecord,
    Destination,
    Measure,
    PluginError,
    Published,
    Secret,
    Swap,
    Table,
    TablePreview,
    Transient,
    sql,
)
from catchment.sdk.adopted import read_back, written
from catchment.sdk.measures import measured
from catchment.sdk.staging import STAGING_PREFIX, is_staging

READ_ROWS = 8_192
"""Rows of a batch that is read."""


class MySQLSpec(BatchSpec):
    """Spec of the mysql destination."""

    connection_string: Secret
    """`user:password@tcp(host:3306)/database?name=value`, as upstream's Go driver takes it, or a `mysql://` URL."""

    @field_validator("connection_string")
    @classmethod
    def _check(cls, value: Secret) -> Secret:
        place.parse(value.reveal())
        return value


class MySQL(Destination[MySQLSpec]):
    """Writes with `load data local`, publishes by renaming freshly built tables; MariaDB as well as MySQL."""

    name = "mysql"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique", "move_pk_to_cq_id"}),
        kept_when_forced=migrate.KEPT,
        delete_records=True,
        publish="sync",
        max_identifier_bytes=types.MAX_NAME,
        rejects=True,
        measures=True,
        writers=2,
        batch=BatchSize(rows=0, size_bytes=48 << 20, timeout_s=60.0),
        stored_as=types.stored_as,
    )

    def __init__(self, spec: MySQLSpec) -> None:
        super().__init__(spec)
        found = place.parse(spec.connection_string.reveal())
        self._connections = Connections(found)
        self._staging = Staging(self._connections, found.database)
        self._publisher = Publisher(self._connections, self._staging, self.capabilities)
        self._in_place: dict[str, bool] = {}
        """By table, whether rows of equal keys have to be changed where they are, as something hangs on them."""

    def open(self) -> None:
        """Connect."""
        with self._connections.lent():
            pass

    def close(self) -> None:
        """Close every connection."""
        self._staging.close()
        self._connections.close()

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or alter it in one statement; what `force` needs beyond that copies the rows that fit."""
        types.check_names(table)
        with self._connections.locked([table.name]) as connection:
            have, found = self._migration(connection, table, force=force)
            server, database = self._connections.server, self._connections.database
            migrate.carry_out(connection, server, database, have, table, found)
        self._in_place.pop(table.name, None)

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Asks the catalogue."""
        with self._connections.lent() as connection:
            return [self._preview(connection, table, force=force) for table in tables]

    def write(self, table: Table, rows: pa.Table) -> None:
        """Load in one transaction, where the last of equal keys stays."""
        self._write(table, rows, keep=True)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """The same, rolled back."""
        self._write(table, rows, keep=False)

    def _write(self, table: Table, rows: pa.Table, *, keep: bool) -> None:
        server = self._connections.server
        if sql.may_be_adopted(DIALECT, table):
            table = self._adopted(table)
            rows = written(rows, table)
        if is_staging(table.name):
            self._write_staged(table, rows, keep=keep)
        elif table.primary_keys and self._changes_in_place(table):
            self._merge(table, rows, keep=keep)
        else:
            with self._connections.transaction(table.name, again=bool(table.primary_keys), keep=keep) as connection:
                load(connection, server, table.name, table.columns, rows)

    def _write_staged(self, table: Table, rows: pa.Table, *, keep: bool) -> None:
        """Nobody else writes a staged table, so its rows tell whether a commit came through."""
        staged = self._staging.of(table.name)
        columns = [staged.final.column(column.name) for column in table.columns]
        grown = 0
        try:
            again = bool(staged.final.primary_keys)
            with self._connections.transaction(table.name, again=again, keep=keep) as connection:
                grown = load(connection, self._connections.server, table.name, columns, rows)
        except OutcomeUnknown as error:
            # Who has the lock knows that the connection which had it is gone.
            with self._connections.locked([table.name]) as connection:
                found = catalogue.count(connection, table.name)
            if found == staged.rows:
                raise Transient(str(error.args[0])) from error
            if found != staged.rows + grown:
                raise
        if keep:
            self._staging.count(table.name, grown)

    def _adopted(self, table: Table) -> Table:
        """The table with the types that its columns have where upstream's plugin made them."""
        if is_staging(table.name):
            return sql.adopted(DIALECT, self._staging.of(table.name).final, table)
        with self._connections.lent() as connection:
            return sql.adopted(DIALECT, described(connection, self._connections.server, table), table)

    def _merge(self, table: Table, rows: pa.Table, *, keep: bool) -> None:
        """By way of a temporary table, from which rows of equal keys are changed where they are."""
        temporary = table.renamed(f"{STAGING_PREFIX}rows").with_columns(
            [replace(column, unique=False) for column in table.columns]
        )
        server, name = self._connections.server, DIALECT.table(temporary.name)
        made = types.created_as(temporary, server.collation)
        made = made.replace("create table if not exists", "create temporary table", 1)
        before = (f"drop temporary table if exists {name}", made)
        with self._connections.transaction(table.name, keep=keep, before=before) as connection:
            load(connection, server, temporary.name, temporary.columns, rows)
            names = DIALECT.columns(table.column_names)
            gone = catalogue.left_out(connection, table.name, table.column_names)
            merged = upserted(name, table.column_names, table.primary_keys, gone)
            run(connection, f"insert into {DIALECT.table(table.name)} ({names}) {merged}")
            run(connection, f"drop temporary table {name}")

    def _changes_in_place(self, table: Table) -> bool:
        """Whether a row must not go and come back: others refer to it, triggers see it, or it has more columns."""
        if table.name not in self._in_place:
            with self._connections.lent() as connection:
                have = catalogue.describe(connection, self._connections.server, table.name)
                ties = catalogue.ties(connection, table.name)
                more = have is not None and not set(have.column_names) <= set(table.column_names)
                self._in_place[table.name] = bool(more or ties.children or ties.triggers)
        return self._in_place[table.name]

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        statement, values = sql.delete_stale(
            DIALECT,
            table,
            source_name=source_name,
            sync_time=sync_time.astimezone(UTC).replace(tzinfo=None),
            clients=clients,
        )
        bound = [Exact(value) if isinstance(value, str) else value for value in values]
        with self._connections.transaction(table.name) as connection:
            return changed(connection, statement, bound)

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        tables = [message.table_name, *(relation.table_name for relation in message.relations)]
        with self._connections.transaction(*dict.fromkeys(tables)) as connection:
            for statement, values in sql.delete_records(DIALECT, message):
                changed(connection, statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of text that the server puts together, which are parsed by column."""
        import pymysql
        from pymysql.cursors import SSCursor

        connection = self._connections.open()
        try:
            have = described(connection, self._connections.server, table)
            if have is None:
                raise PluginError(f"table `{table.name}` does not exist")
            adopted = sql.adopted(DIALECT, have, table)
            columns = [
                (column, have.column(column.name) if column.name in have else None) for column in adopted.columns
            ]
            # What the server cannot put into one text is null, and so is the whole row then.
            null = "'\\\\N'"
            parts = ", '\\t', ".join(
                f"if({DIALECT.quote(column.name)} is null, {null}, {types.select_expression(column, there)})"
                if there
                else null
                for column, there in columns
            )
            query = f"select cast(concat({parts}) as binary) from {DIALECT.table(table.name)}"
            with connection.cursor(SSCursor) as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(READ_ROWS):
                    batch = _parsed(table, columns, rows)
                    arrays = [
                        read_back(array, there.type, column.type, types.stored_as(column.type))
                        for array, there, column in zip(batch.columns, adopted.columns, table.columns, strict=True)
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))
        except pymysql.MySQLError as error:
            raise explained(error) from error
        finally:
            # A query that is not read to its end leaves nothing that could be used again.
            with contextlib.suppress(pymysql.MySQLError):
                connection.close()

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A query each; texts are told apart to the byte."""
        with self._connections.lent() as connection:

            def ask(statement: str, values: Sequence[Any]) -> Any:
                exact = [Exact(value) if isinstance(value, str) else value for value in values]
                return run(connection, statement, exact)[0][0]

            return measured(DIALECT, table, measures, keys=keys, source_name=source_name, ask=ask)

    def stored_table(self, name: str) -> Table | None:
        """With the types of the catalogue; those that only MySQL has are read as text."""
        with self._connections.lent() as connection:
            have = catalogue.describe(connection, self._connections.server, name)
        if have is None:
            return None
        return have.with_columns(
            [replace(c, type=pa.utf8() if isinstance(c.type, sql.Opaque) else c.type) for c in have.columns]
        )

    def stored_names(self) -> Sequence[str]:
        """Tables and views of the database."""
        with self._connections.lent() as connection:
            return [name for name in catalogue.names(connection) if not name.startswith(STAGING_PREFIX)]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table beside the live one, with the columns that the live one will have."""
        types.check_names(table)
        self._staging.begin(staged.name)
        with self._connections.lent() as connection:
            have, found = self._migration(connection, table, force=force)
            self._staging.create(connection, have, table, found, staged, force=force)

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Build the indexes, then rename every table, or merge every table, at once."""
        done = self._publisher.publish(swaps)
        for swap in swaps:
            self._in_place.pop(swap.table.name, None)
        return done

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        self._staging.discard(table.name for table in staged)

    def _migration(self, connection: Any, table: Table, *, force: bool) -> tuple[Table | None, sql.Migration]:
        """The live table, and what to do to it. Raises `MigrationRefused`, also for one that cannot be dropped."""
        catalogue.check_kind(connection, table.name)
        have = described(connection, self._connections.server, table)
        found = sql.migration(DIALECT, have, table, self.capabilities, force=force)
        anew = found.action == "recreate" or found.rewrites
        others = catalogue.hanging(connection, table.name) if anew else []
        if others:
            raise sql.hung_on(table.name, others)
        return have, found

    def _preview(self, connection: Any, table: Table, *, force: bool) -> TablePreview:
        try:
            types.check_names(table)
            catalogue.check_kind(connection, table.name)
        except PluginError as error:
            return TablePreview("refused").refused(error)
        have = described(connection, self._connections.server, table)
        found = sql.preview(DIALECT, have, table, self.capabilities, force=force, ask=asking(connection))
        if found.action == "create":
            return found
        others: list[str] = []
        if found.action in ("recreate", "refused"):
            keys = catalogue.hanging(connection, table.name)
            if found.action == "recreate" and keys:
                found = found.refused(sql.hung_on(table.name, keys))
            others = [*catalogue.views(connection, table.name), *keys]
        there = catalogue.status(connection, table.name)
        return replace(found, rows=there.rows if there else None, dependents=tuple(others))

    def test_connection(self) -> None:
        """Connect and ask for the version."""
        try:
            with self._connections.lent() as connection:
                run(connection, "select version()")
        finally:
            self._connections.close()


def _parsed(
    table: Table, columns: Sequence[tuple[Column, Column | None]], rows: Sequence[tuple[bytes | None]]
) -> pa.RecordBatch:
    """Rows of text as a batch."""
    from pyarrow import csv

    texts = [text for (text,) in rows]
    if None in texts:
        raise PluginError(
            f"table `{table.name}` has a row that is longer than the server's `max_allowed_packet`",
            hint="raise it, for this program or for all",
        )
    names = [str(place) for place in range(len(columns))]
    parsed = csv.read_csv(
        pa.BufferReader(b"\n".join(texts) + b"\n"),  # type: ignore[arg-type]
        csv.ReadOptions(column_names=names, block_size=1 << 30),
        csv.ParseOptions(delimiter="\t", quote_char=False, escape_char=False, newlines_in_values=False),
        csv.ConvertOptions(
            column_types={
                name: types.csv_type(have) if have is not None else pa.utf8()
                for name, (_, have) in zip(names, columns, strict=True)
            },
            null_values=[types.NULL],
            strings_can_be_null=True,
        ),
    ).combine_chunks()
    arrays = []
    for array, (column, have) in zip(parsed.columns, columns, strict=True):
        whole = array.chunk(0) if array.num_chunks else pa.array([], array.type)
        kind = types.stored_as(column.type)
        arrays.append(types.from_csv(whole, column, have) if have is not None else pa.nulls(len(whole), kind))
    return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))
