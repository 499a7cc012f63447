"""Writing to PostgreSQL's kin: statements that all of them take, on the connections of the destination."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from catchment.destinations.postgresql.connection import Connections, execute, numbered
from catchment.destinations.postgresql.kin import Kin
from catchment.sdk import Capabilities, Column, DeleteRecord, PluginError, Table, TablePreview, Transient, sql

READ_ROWS = 10_000
_COLUMNS = """
select a.attname, case when y.typcategory = 'A' and y.typelem <> 0 then format_type(y.typelem, a.atttypmod) || '[]'
                       else format_type(a.atttypid, a.atttypmod) end, a.attnotnull
from pg_catalog.pg_attribute a
join pg_catalog.pg_type y on y.oid = a.atttypid
join pg_catalog.pg_class t on t.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = t.relnamespace
where a.attnum > 0 and not a.attisdropped and n.nspname = current_schema() and t.relname = $1
order by a.attnum
"""
"""CockroachDB says `numeric[]` of a list, but tells what is in it."""
_KEYS = """
select k.column_name, c.constraint_type, k.constraint_name from information_schema.key_column_usage k
join information_schema.table_constraints c
on c.constraint_name = k.constraint_name and c.table_schema = k.table_schema and c.table_name = k.table_name
where k.table_schema = current_schema() and k.table_name = $1
"""


class Plain:
    """The tables of one such database."""

    def __init__(self, connections: Connections, kin: Kin, capabilities: Capabilities) -> None:
        self._connections = connections
        self._kin = kin
        self._capabilities = capabilities

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its columns; a forced change makes it anew."""
        kept = self._kin.kept(table)
        with self._connections.lent() as connection:
            have = self._describe(connection, table.name)
            found = sql.migration(self._kin.dialect, have, kept, self._capabilities, force=force)
            named = connection.execute(_KEYS, [table.name]).fetchall() if found.action == "alter" else []
            key = next((name for _, kind, name in named if kind == "PRIMARY KEY"), "")
            for statement in self._kin.statements(have, kept, found, key):
                connection.execute(statement)

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Asks the catalogue."""
        with self._connections.lent() as connection:
            return [
                sql.preview(
                    self._kin.dialect,
                    self._describe(connection, table.name),
                    self._kin.kept(table),
                    self._capabilities,
                    force=force,
                )
                for table in tables
            ]

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert or replace row by row, in one transaction where there are any.

        Where there are none a lost connection may have left rows, which only a key keeps from being there twice.
        """
        try:
            with self._begun() as connection:
                self._insert(connection, table, rows)
        except Transient as error:
            if self._kin.is_crate and not table.primary_keys:
                raise PluginError(
                    f"rows were lost on the way, and {self._kin.name} cannot say which it has: {error}",
                    hint="look at the table before you sync again",
                ) from error
            raise

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        with contextlib.suppress(_TakenBack), self._begun() as connection:
            self._insert(connection, table, rows)
            raise _TakenBack

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None
    ) -> int:
        """Delete a source's older rows; how many."""
        statement, values = sql.delete_stale(
            self._kin.dialect, table, source_name=source_name, sync_time=self._kin.moment(sync_time), clients=clients
        )
        with self._begun() as connection:
            return int(execute(connection, statement, values).rowcount)

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants."""
        with self._begun() as connection:
            for statement, values in sql.delete_records(self._kin.dialect, message):
                execute(connection, statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Batches of at most 10,000 rows."""
        with self._connections.lent() as connection:
            have = self._describe(connection, table.name)
            if have is None:
                raise PluginError(f"table `{table.name}` does not exist")
            cursor = connection.execute(self._kin.select(table, have))
            while rows := cursor.fetchmany(READ_ROWS):
                yield self._kin.read(table, rows)

    def describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        with self._connections.lent() as connection:
            return self._describe(connection, name)

    def _begun(self) -> contextlib.AbstractContextManager[Any]:
        return self._connections.lent() if self._kin.is_crate else self._connections.transaction()

    def _insert(self, connection: Any, table: Table, rows: pa.Table) -> None:
        statement = numbered(self._kin.insert(table))
        connection.cursor().executemany(statement, self._kin.rows(table, rows))

    def _describe(self, connection: Any, name: str) -> Table | None:
        rows = connection.execute(_COLUMNS, [name]).fetchall()
        found = connection.execute(_KEYS, [name]).fetchall() if rows else []
        keys = {column for column, kind, _ in found if kind == "PRIMARY KEY"}
        # Only those that are called as the database calls them are ours to drop.
        unique = {column for column, kind, key in found if kind == "UNIQUE" and key == f"{name}_{column}_key"}
        columns = [
            Column(
                column,
                self._kin.dialect.arrow_type(kind),
                primary_key=column in keys,
                not_null=strict,
                unique=column in unique and column not in keys,
            )
            for column, kind, strict in rows
            # CockroachDB gives a table without a key one that nobody asked for.
            if column != "rowid"
        ]
        return Table(name, tuple(columns)) if columns else None


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""
