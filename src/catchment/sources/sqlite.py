"""sqlite: tables of a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from catchment.sdk import Column, Context, Discovered, PluginError, Rows, Source, Spec, Table
from catchment.sdk.sqlite import Connection, quote
from catchment.sdk.storage import restore

SAMPLE_ROWS = 1000
"""Rows of a table in which bytes are looked for in columns of text."""


class SQLiteSpec(Spec):
    """Spec of the sqlite source."""

    connection_string: str
    """Path of the database file."""
    views: bool = False
    """Whether views are tables as well."""


class Database:
    """The file; every reading opens it anew, so that they can go side by side."""

    def __init__(self, spec: SQLiteSpec) -> None:
        self.spec = spec
        if not Path(spec.connection_string).is_file():
            raise PluginError(
                f"there is no file {spec.connection_string!r}", hint="set `connection_string` to its path"
            )

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.spec.connection_string)


sqlite = Source("sqlite", spec=SQLiteSpec, client=Database)


@sqlite.discover
def _tables(database: Database) -> Iterator[Discovered[Database]]:
    kinds = "'table', 'view'" if database.spec.views else "'table'"
    connection = database.connect()
    try:
        names = connection.run(
            f"select name from sqlite_schema where type in ({kinds}) "
            "and name not like 'sqlite\\_%' escape '\\' order by name"
        )
        if not names:
            raise PluginError(f"{database.spec.connection_string!r} has no tables")
        for (name,) in names:
            found = _columns(connection, str(name))
            table = Table(str(name), tuple(column for column, _ in found))
            yield Discovered(table, partial(_read, table, [expression for _, expression in found]))
    finally:
        connection.close()


def _read(table: Table, expressions: list[str], ctx: Context[Database]) -> Rows:
    """A table's rows as the driver's stream gives them."""
    stored = [
        (column.name, pa.int64() if pa.types.is_boolean(column.type) else column.type) for column in table.columns
    ]
    connection = ctx.client.connect()
    try:
        for batch in connection.select(table.name, stored, expressions=expressions):
            arrays = [restore(array, column.type) for array, column in zip(batch.columns, table.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))
    finally:
        connection.close()


def _columns(connection: Connection, table: str) -> list[tuple[Column, str]]:
    """Each column, and the expression that selects it with values of one kind."""
    described = connection.run(
        f'select name, type, "notnull", pk, hidden from pragma_table_xinfo({_literal(table)}) where hidden <> 1'
    )
    loose = [str(name) for name, declared, *_ in described if _declared_type(str(declared)) is None]
    texts = [str(name) for name, declared, *_ in described if _declared_type(str(declared)) == pa.utf8()]
    loose += _with_bytes(connection, table, texts)
    kinds = _kinds_found(connection, table, loose)
    found = []
    for name, declared, not_null, key, _ in described:
        kind = _declared_type(str(declared))
        expression = quote(str(name))
        if kind is None or str(name) in loose:
            kind, expression = _found_type(str(name), str(declared), kinds[str(name)])
        found.append((Column(str(name), kind, primary_key=bool(key), not_null=bool(not_null or key)), expression))
    return found


def _declared_type(declared: str) -> pa.DataType | None:
    """The type for a declaration that SQLite holds values to; None where any value stays as it came."""
    upper = declared.upper()
    if "INT" in upper:
        return pa.int64()
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return pa.utf8()
    if "BLOB" in upper:
        return pa.binary()
    if any(part in upper for part in ("REAL", "FLOA", "DOUB")):
        return pa.float64()
    return None


def _with_bytes(connection: Connection, table: str, columns: list[str]) -> list[str]:
    """Those of the columns declared as text whose first rows hold bytes, as CloudQuery's destination writes them."""
    if not columns:
        return []
    parts = ", ".join(f"max(typeof({quote(name)}) = 'blob')" for name in columns)
    (row,) = connection.run(f"select {parts} from (select * from {quote(table)} limit {SAMPLE_ROWS})")
    return [name for name, found in zip(columns, row, strict=True) if found]


def _kinds_found(connection: Connection, table: str, columns: list[str]) -> dict[str, dict[str, bool]]:
    """Which kinds of values columns hold, by one look at every row; `wide` means an integer besides 0 and 1."""
    if not columns:
        return {}
    kinds = ("integer", "real", "text", "blob")
    parts = []
    for name in columns:
        parts += [f"max(typeof({quote(name)}) = '{kind}')" for kind in kinds]
        parts.append(f"max({quote(name)} not in (0, 1))")
    (row,) = connection.run(f"select {', '.join(parts)} from {quote(table)}")
    width = len(kinds) + 1
    return {
        name: dict(zip((*kinds, "wide"), map(bool, row[index * width : (index + 1) * width]), strict=True))
        for index, name in enumerate(columns)
    }


def _found_type(name: str, declared: str, kinds: dict[str, bool]) -> tuple[pa.DataType, str]:
    """Type and expression for a column whose declaration holds values to nothing."""
    quoted = quote(name)
    if kinds["blob"]:
        return pa.binary(), f"cast({quoted} as blob)"
    if kinds["text"]:
        return (
            pa.utf8(),
            f"case typeof({quoted}) when 'real' then printf('%!.17g', {quoted}) else cast({quoted} as text) end",
        )
    if "BOOL" in declared.upper() and not kinds["real"] and not kinds["wide"]:
        return pa.bool_(), quoted
    if kinds["real"]:
        return pa.float64(), f"cast({quoted} as real)"
    return (pa.int64(), quoted) if kinds["integer"] else (pa.utf8(), quoted)


def _literal(text: str) -> str:
    """`text` as an SQL string, where a function takes no bound value."""
    return "'" + text.replace("'", "''") + "'"
