"""What the sqlite source and the sqlite destination share: a connection, and queries whose columns have a known type.

SQLite keeps a type with each value, not with each column. The driver takes a column's type from the first rows, so
every query here begins with a row of its own that has a value of the wanted kind in every column; the driver then
stops at the first value that does not fit, instead of guessing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from catchment.errors import PluginError, RowsRefused, Transient

BATCH_ROWS = 65_536
_SAMPLES = {pa.int64(): "0", pa.float64(): "0.0", pa.utf8(): "''", pa.binary(): "x''"}
_FITTING = {pa.int64(): ("integer",), pa.float64(): ("real", "integer"), pa.utf8(): ("text",), pa.binary(): ("blob",)}


class Connection:
    """One connection in autocommit mode; what SQLite says of a failure becomes a `PluginError`."""

    def __init__(self, path: str) -> None:
        try:
            import adbc_driver_sqlite.dbapi as adbc
        except ImportError as error:
            raise PluginError("the sqlite driver is not installed", hint="pip install 'catchment[sqlite]'") from error
        self._path = path
        self._errors = (adbc.Error, OSError)
        with self._explained():
            self._connection = adbc.connect(path, autocommit=True)
        self.run("pragma busy_timeout = 5000")

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement; its rows, if it has any."""
        with self._explained(), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) or None)
            return list(cursor.fetchall()) if cursor.description else []

    def run_for_each(self, statement: str, rows: pa.Table) -> None:
        """Execute a statement once for each row, whose values are bound in order."""
        with self._explained(), self._connection.cursor() as cursor:
            cursor.executemany(statement, rows.to_reader())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that is rolled back if an error comes out of it."""
        self.run("begin immediate")
        try:
            yield
            self.run("commit")
        except BaseException:
            with contextlib.suppress(PluginError):
                self.run("rollback")
            raise

    def select(
        self, table: str, columns: Sequence[tuple[str, pa.DataType]], *, expressions: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of `table` with columns of type int64, float64, utf8 or binary.

        Raises `PluginError` naming column and value for one of another kind; an integer among reals is none.
        """
        samples = ", ".join(_SAMPLES[kind] for _, kind in columns)
        wanted = ", ".join(expressions or [quote(name) for name, _ in columns])
        query = f"select {samples} union all select {wanted} from {quote(table)}"
        schema = pa.schema(columns)
        try:
            with self._connection.cursor() as cursor:
                cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
                cursor.execute(query)
                reader = cursor.fetch_record_batch()
                if not reader.schema.types == schema.types:
                    raise self._misfit(table, columns, "a value of another kind")
                skip = 1
                for batch in reader:
                    yield pa.RecordBatch.from_arrays(batch.slice(skip).columns, schema=schema)
                    skip = 0
        except self._errors as error:
            raise self._misfit(table, columns, _text(error)) from error

    def _misfit(self, table: str, columns: Sequence[tuple[str, pa.DataType]], reason: str) -> PluginError:
        """An error that names the first value that does not fit; `reason` if all do."""
        for name, kind in columns:
            kinds = ", ".join(f"'{fitting}'" for fitting in (*_FITTING[kind], "null"))
            with contextlib.suppress(PluginError):
                # The bytes of a blob need not be text.
                text = f"substr(cast({quote(name)} as text), 1, 60)"
                found = self.run(
                    f"select typeof({quote(name)}), "
                    f"case typeof({quote(name)}) when 'blob' then hex(substr({quote(name)}, 1, 30)) else {text} end "
                    f"from {quote(table)} where typeof({quote(name)}) not in ({kinds}) limit 1"
                )
                if found:
                    return PluginError(
                        f"column `{name}` of table `{table}` is {kind}, but holds the {found[0][0]} {found[0][1]!r}",
                        hint="mend the value, or select it into another type in a view",
                    )
        return PluginError(reason)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            text = _text(error)
            if "database is locked" in text or "SQLITE_BUSY" in text:
                raise Transient(
                    f"database is locked: another program is writing {self._path!r}, or reading it in a transaction",
                    hint="let it finish, or end it, then sync again",
                ) from error
            if "database or disk is full" in text:
                raise PluginError(
                    f"database or disk is full: {self._path!r} cannot grow",
                    hint="make room where the file is, then sync again; nothing of the last transaction is in it",
                ) from error
            if "constraint failed" in text or "datatype mismatch" in text:
                raise RowsRefused(text) from error
            raise PluginError(text) from error


def quote(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _text(error: Exception) -> str:
    """What SQLite says, without the statement that the driver puts behind it."""
    return " ".join(str(error).partition("\nquery: ")[0].split())
