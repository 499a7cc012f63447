"""What DuckDB says of a table: how many rows it has, what hangs on it, and how its columns are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from catchment.destinations.duckdb.types import DIALECT, arrow_type
from catchment.sdk import Column, MigrationRefused, PluginError, RowsRefused, Table, TablePreview, json, sql, uuid
from catchment.sdk.staging import STAGING_PREFIX
from catchment.sdk.storage import map_type

Run: TypeAlias = Callable[..., Any]
"""Executes a statement with its values; gives what can be fetched from."""


def describe(run: Run, connection: Any, name: str) -> Table | None:
    """The table as the catalogue has it; None if it is missing."""
    # The catalogue's views list every column of the database at each call; this function looks at one table.
    if not _exists(run, connection, name):
        return None
    rows = run(f'select name, type, "notnull", pk from pragma_table_info({_literal(_quoted(name))})')
    return Table(
        name,
        tuple(
            Column(column, arrow_type(kind), primary_key=key, not_null=strict)
            for column, kind, strict, key in rows.fetchall()
        ),
    )


def _exists(run: Run, connection: Any, name: str) -> bool:
    """Whether there is a table of this name."""
    import duckdb

    if is_own(run, name):
        raise MigrationRefused(
            f"table `{name}` has the name of one of DuckDB's own", hint="rename it with a transformer"
        )
    try:
        connection.table(_quoted(name))
    except duckdb.CatalogException:
        return False
    except duckdb.Error as error:
        raise PluginError(f"{type(error).__name__}: {error}") from error
    return True


def columns(run: Run, name: str) -> list[tuple[str, str, bool]]:
    """Name, type and whether it is not null, of every column of a table."""
    query = f'select name, type, "notnull" from pragma_table_info({_literal(_quoted(name))})'
    return list(run(query).fetchall())


def spellings(run: Run) -> dict[str, str]:
    """Names of all tables, by how they are spelt in lower case."""
    query = "select table_name from duckdb_tables() where schema_name = current_schema()"
    return {name.lower(): name for (name,) in run(query).fetchall()}


def indexes(run: Run, name: str) -> list[str]:
    """The statements that made the indexes of a table."""
    query = "select sql from duckdb_indexes() where schema_name = current_schema() and table_name = ? and sql <> ''"
    return [statement for (statement,) in run(query, (name,)).fetchall()]


def completed(preview: TablePreview, name: str, run: Run, connection: Any) -> TablePreview:
    """`preview` with the table's rows, and with what hangs on a table that would be dropped."""
    if preview.action == "create":
        return preview
    rows = _estimated_rows(run, name)
    if preview.action not in ("recreate", "refused"):
        return replace(preview, rows=rows)
    hung = children(run, name)
    if preview.action == "recreate" and hung:
        preview = preview.refused(sql.hung_on(name, hung))
    return replace(preview, rows=rows, dependents=(*views(run, connection, name), *hung))


def _estimated_rows(run: Run, name: str) -> int | None:
    """Rows of a table, near enough: what was deleted not long ago may be in it; None if it is a view."""
    query = "select estimated_size from duckdb_tables() where schema_name = current_schema() and table_name = ?"
    found = run(query, (name,)).fetchone()
    return int(found[0]) if found is not None else None


def children(run: Run, name: str) -> list[str]:
    """Tables with a foreign key to the table, which keep it from being dropped."""
    query = (
        "select distinct table_name from duckdb_constraints() where schema_name = current_schema() "
        "and constraint_type = 'FOREIGN KEY' and referenced_table = ? order by all"
    )
    return [f"foreign key of table `{child}`" for (child,) in run(query, (name,)).fetchall()]


def views(run: Run, connection: Any, name: str) -> Iterator[str]:
    """Views that read the table, by way of others too; when it is dropped they stay, and look for it by its name."""
    (schema,) = run("select current_schema()").fetchone()
    wanted = {name, _quoted(name)}
    wanted |= {f"{owner}.{part}" for owner in (schema, _quoted(schema)) for part in wanted}
    query = "select schema_name, view_name from duckdb_views() where not internal order by all"
    for owner, view in run(query).fetchall():
        read = connection.get_table_names(f"select * from {_quoted(owner)}.{_quoted(view)}", qualified=True)
        if wanted & read:
            yield f"view `{view}`" if owner == schema else f"view `{owner}.{view}`"


def names(run: Run) -> list[str]:
    """Tables and views of the current schema."""
    query = "select table_name from information_schema.tables where table_schema = current_schema()"
    return [name for (name,) in run(query).fetchall()]


def read_types(connection: Any, quoted_name: str) -> list[pa.DataType]:
    """The types that the columns of a table are read with, in its order."""
    reader = connection.cursor().sql(f"select * from {quoted_name} limit 0").to_arrow_reader(1)
    return [map_type(field.type, _read_type) for field in reader.schema]


def _read_type(data_type: pa.DataType) -> pa.DataType:
    if isinstance(data_type, pa.BaseExtensionType):
        # DuckDB's own, such as HUGEINT, have no Arrow type and are read as text.
        known = {"arrow.uuid": uuid(), "arrow.json": json(), "arrow.bool8": pa.bool_()}
        return known.get(data_type.extension_name, pa.utf8())
    return data_type


def selected(column: Column, have: Table) -> str:
    """How a column is selected: null where the table has none of this name, cast where text is wanted of another."""
    name = _quoted(column.name)
    if column.name not in have:
        return f"null as {name}"
    is_cast = column.type.equals(pa.utf8()) and not have.column(column.name).type.equals(pa.utf8())
    return f"cast({name} as varchar) as {name}" if is_cast else name


@dataclass(frozen=True, slots=True)
class Ties:
    """What there is to tables of a file besides columns, primary keys and rows, when a run begins."""

    children: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Foreign keys of others, by the table that they refer to."""
    indexed: frozenset[str] = frozenset()
    """Tables with an index besides that of their key."""
    set_by_hand: frozenset[str] = frozenset()
    """Tables with a comment, a default, a check or the like, which one that takes their place would not have."""

    @property
    def tied(self) -> frozenset[str]:
        """Tables whose rows have to stay where they are."""
        return self.indexed | self.set_by_hand


def ties(run: Run) -> Ties:
    """One look at all tables: the catalogue's functions list the whole database whatever they are asked."""
    here = "schema_name = current_schema() and database_name = current_database()"
    found: dict[str, list[str]] = {}
    query = (
        f"select distinct referenced_table, table_name from duckdb_constraints() where {here} "
        "and constraint_type = 'FOREIGN KEY' order by all"
    )
    for parent, child in run(query).fetchall():
        found.setdefault(parent, []).append(f"foreign key of table `{child}`")
    indexed = run(f"select distinct table_name from duckdb_indexes() where {here}").fetchall()
    by_hand = run(
        f"select table_name from duckdb_tables() where {here} and comment is not null "
        f"union select table_name from duckdb_columns() where {here} "
        "and (comment is not null or column_default is not null) "
        f"union select table_name from duckdb_constraints() where {here} "
        "and constraint_type in ('CHECK', 'UNIQUE', 'FOREIGN KEY')"
    ).fetchall()
    return Ties(found, frozenset(name for (name,) in indexed), frozenset(name for (name,) in by_hand))


def staged_names(run: Run) -> list[str]:
    """Staged tables of every run."""
    query = "select table_name from duckdb_tables() where schema_name = current_schema() and starts_with(table_name, ?)"
    return [name for (name,) in run(query, (STAGING_PREFIX,)).fetchall()]


def is_own(run: Run, name: str) -> bool:
    """Whether DuckDB would take the name for one of its own views."""
    if not name.lower().startswith(("duckdb_", "sqlite_", "pragma_")):
        return False
    query = "select exists (select 1 from duckdb_views() where internal and lower(view_name) = lower(?))"
    return bool(run(query, (name,)).fetchone()[0])


def not_opened(path: str, error: Exception) -> PluginError:
    """The error for a file that cannot be opened, and who holds it."""
    holder = re.search(r"PID (\d+)", str(error))
    if "lock" in str(error) and holder is not None:
        return PluginError(
            f"database {path!r} is held by another program (PID {holder[1]})",
            hint="end it: only one process at a time can have a DuckDB file open for writing",
        )
    return PluginError(f"database {path!r} cannot be opened: {error}")


_quoted = DIALECT.quote


def explained(error: Exception) -> PluginError:
    """What DuckDB says, in our words; `RowsRefused` where it is about the rows, with their column if it tells."""
    import duckdb

    # Behind it stand our own statement and DuckDB's.
    text = re.split(r"\n\n(?:Stack Trace|LINE \d)", f"{type(error).__name__}: {error}")[0]
    of_rows = (
        duckdb.ConstraintException,
        duckdb.ConversionException,
        duckdb.InvalidInputException,
        duckdb.OutOfRangeException,
    )
    if not isinstance(error, of_rows):
        return PluginError(text)
    found = _COLUMN.search(text)
    column = (found[1].replace('""', '"') if found[1] is not None else found[2] or found[3]) if found else ""
    return RowsRefused(text, column=column)


_COLUMN = re.compile(
    r'NOT NULL constraint failed: .*\.(?:"((?:[^"]|"")*)"|([^".\n]+))$|from source column (.+)$', re.MULTILINE
)


def _literal(text: str) -> str:
    """`text` as an SQL string, where a function takes no bound value."""
    return "'" + text.replace("'", "''") + "'"
