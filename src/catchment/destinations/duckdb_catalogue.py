"""What DuckDB says of a table: how many rows it has, what hangs on it, and how its columns are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from catchment.sdk import Column, PluginError, Table, TablePreview, json, sql, uuid
from catchment.sdk.staging import STAGING_PREFIX
from catchment.sdk.storage import map_type

Run: TypeAlias = Callable[..., Any]
"""Executes a statement with its values; gives what can be fetched from."""


def completed(preview: TablePreview, name: str, run: Run, connection: Any) -> TablePreview:
    """`preview` with the table's rows, and with what hangs on a table that would be dropped."""
    if preview.action == "create":
        return preview
    rows = _estimated_rows(run, name)
    if preview.action not in ("recreate", "refused"):
        return replace(preview, rows=rows)
    children = _children(run, name)
    if preview.action == "recreate" and children:
        preview = preview.refused(sql.hung_on(name, children))
    return replace(preview, rows=rows, dependents=(*views(run, connection, name), *children))


def _estimated_rows(run: Run, name: str) -> int | None:
    """Rows of a table, near enough: what was deleted not long ago may be in it; None if it is a view."""
    query = "select estimated_size from duckdb_tables() where schema_name = current_schema() and table_name = ?"
    found = run(query, (name,)).fetchone()
    return int(found[0]) if found is not None else None


def _children(run: Run, name: str) -> list[str]:
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
    tied: frozenset[str] = frozenset()
    """Tables with something that one which takes their place would not have."""


def ties(run: Run) -> Ties:
    """One look at all tables: the catalogue's functions list the whole database whatever they are asked."""
    here = "schema_name = current_schema() and database_name = current_database()"
    children: dict[str, list[str]] = {}
    query = (
        f"select distinct referenced_table, table_name from duckdb_constraints() where {here} "
        "and constraint_type = 'FOREIGN KEY' order by all"
    )
    for parent, child in run(query).fetchall():
        children.setdefault(parent, []).append(f"foreign key of table `{child}`")
    tied = run(
        f"select table_name from duckdb_indexes() where {here} "
        f"union select table_name from duckdb_tables() where {here} and comment is not null "
        f"union select table_name from duckdb_columns() where {here} "
        "and (comment is not null or column_default is not null) "
        f"union select table_name from duckdb_constraints() where {here} "
        "and constraint_type in ('CHECK', 'UNIQUE', 'FOREIGN KEY')"
    ).fetchall()
    return Ties(children, frozenset(name for (name,) in tied))


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
