"""The PostgreSQL source: tables from the catalogue, rows as Arrow, all from one snapshot."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from catchment.sdk import Column, Context, Discovered, PluginError, Rows, Secret, Source, Spec, Table
from catchment.sources.postgresql.types import converted, quote, selected

READERS = 4
"""Connections that read at once."""


class PostgreSQLSpec(Spec):
    """Spec of the postgresql source."""

    connection_string: Secret
    """Connection string or URI, as libpq takes it."""
    schema_name: str = "public"
    """Schema whose tables are synced; which of them, the source's `tables` says."""
    views: bool = False
    """Whether views and materialised views are tables as well."""


_TABLES = """
select c.oid, c.relname, coalesce(obj_description(c.oid, 'pg_class'), '')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relkind = any(%s) and not c.relispartition
order by c.relname
"""

_COLUMNS = """
select a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod), a.attndims, a.attnotnull,
       coalesce(pk.conkey @> array[a.attnum], false),
       exists (select from pg_constraint u
               where u.conrelid = a.attrelid and u.contype = 'u' and u.conkey = array[a.attnum]),
       coalesce(col_description(a.attrelid, a.attnum), ''),
       (select format_type(t.typbasetype, t.typtypmod) from pg_type t where t.oid = a.atttypid and t.typtype = 'd')
from pg_attribute a
left join pg_constraint pk on pk.conrelid = a.attrelid and pk.contype = 'p'
where a.attrelid = any(%s) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""


class Database:
    """Connections that all see the database as it was when the first of them was opened."""

    def __init__(self, spec: PostgreSQLSpec) -> None:
        self.spec = spec
        self._url = spec.connection_string.reveal()
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(READERS)
        self.catalogue, self._snapshot = self._open_catalogue()

    def _open_catalogue(self) -> tuple[Any, str]:
        try:
            import adbc_driver_postgresql.dbapi  # noqa: F401
            import psycopg
        except ImportError as error:
            raise PluginError(
                "the postgresql driver is not installed", hint="pip install 'catchment[postgresql]'"
            ) from error
        try:
            connection = psycopg.connect(self._url, autocommit=True, application_name="catchment")
            connection.execute("begin isolation level repeatable read read only")
            snapshot = connection.execute("select pg_export_snapshot()").fetchone()
        except psycopg.Error as error:
            raise PluginError(f"the database cannot be read: {' '.join(str(error).split())}") from error
        return connection, snapshot[0] if snapshot else ""

    @contextlib.contextmanager
    def reader(self) -> Iterator[Any]:
        """An ADBC connection in the snapshot; waits for one of `READERS`."""
        import adbc_driver_postgresql.dbapi as adbc

        with self._slots:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            try:
                connection = connection or self._open_reader()
                yield connection
            except BaseException as error:
                if connection is not None:
                    connection.close()
                if isinstance(error, (adbc.Error, OSError)):
                    raise PluginError(" ".join(str(error).split())) from error
                raise
            with self._lock:
                self._idle.append(connection)

    def _open_reader(self) -> Any:
        import adbc_driver_postgresql.dbapi as adbc

        connection = adbc.connect(self._url, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute("begin isolation level repeatable read read only")
            cursor.execute(f"set transaction snapshot '{self._snapshot}'")
            cursor.execute("set timezone = 'UTC'")
        return connection

    def close(self) -> None:
        """Close every connection."""
        self.catalogue.close()
        for connection in self._idle:
            connection.close()
        self._idle.clear()


postgresql = Source("postgresql", spec=PostgreSQLSpec, client=Database)


@postgresql.discover
def _tables(database: Database) -> Iterator[Discovered[Database]]:
    schema = database.spec.schema_name
    kinds = ["r", "p", "f", *(["v", "m"] if database.spec.views else [])]
    tables = database.catalogue.execute(_TABLES, [schema, kinds]).fetchall()
    if not tables:
        raise PluginError(f"schema {schema!r} has no tables that this user can see", hint="check `schema_name`")
    columns: dict[int, list[Any]] = {}
    for oid, *rest in database.catalogue.execute(_COLUMNS, [[oid for oid, *_ in tables]]).fetchall():
        columns.setdefault(oid, []).append(rest)
    for oid, name, description in tables:
        found, expressions, arrays = [], [], []
        for column, type_name, dimensions, not_null, key, unique, comment, base in columns.get(oid, []):
            kind, expression = selected(column, base or type_name, dimensions)
            found.append(Column(column, kind, comment, primary_key=key, not_null=not_null, unique=unique and not key))
            expressions.append(expression)
            if pa.types.is_list(kind):
                arrays.append(column)
        if found:
            table = Table(name, tuple(found), description=description)
            yield Discovered(table, partial(_read, table, expressions, arrays))


def _read(table: Table, expressions: list[str], arrays: list[str], ctx: Context[Database]) -> Rows:
    """A table's rows as the driver's stream gives them."""
    source = f"{quote(ctx.client.spec.schema_name)}.{quote(table.name)}"
    query = f"select {', '.join(expressions)} from {source}"
    columns = list(table.columns)
    with ctx.client.reader() as connection, connection.cursor() as cursor:
        _check_arrays(cursor, source, arrays)
        cursor.execute(query)
        for batch in cursor.fetch_record_batch():
            yield converted(batch, columns)


def _check_arrays(cursor: Any, source: str, arrays: list[str]) -> None:
    """Raises `PluginError` for an array of arrays: the driver would flatten it without a word."""
    for name in arrays:
        cursor.execute(f"select true from {source} where array_ndims({quote(name)}) > 1 limit 1")
        if cursor.fetchone() is not None:
            raise PluginError(
                f"column `{name}` holds arrays of arrays, but is declared with one dimension",
                hint=f'declare it so that it is read as JSON: alter table … alter column "{name}" type …[][]',
            )
