"""What SQLite's catalogue says of a table: its columns, what hangs on it, and how it was made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from catchment.destinations.sqlite.types import DIALECT
from catchment.sdk import Column, PluginError, Table, sql
from catchment.sdk.sqlite import quote
from catchment.sdk.staging import STAGING_PREFIX

Run: TypeAlias = Callable[..., list[tuple[Any, ...]]]
"""Executes a statement with its values; its rows."""


def describe(run: Run, name: str) -> Table | None:
    """The table as the catalogue has it; None if it is missing."""
    rows = run('select name, type, "notnull", pk from pragma_table_info(?)', (name,))
    columns = [
        Column(str(column), DIALECT.arrow_type(str(kind)), primary_key=bool(key), not_null=bool(strict or key))
        for column, kind, strict, key in rows
    ]
    return Table(name, tuple(columns)) if columns else None


def names(run: Run) -> list[str]:
    """Tables and views, staged ones too."""
    return [str(name) for (name,) in run("select name from sqlite_schema where type in ('table', 'view')")]


def staged_names(run: Run) -> list[str]:
    """Staged tables of every run."""
    return [name for name in names(run) if name.startswith(STAGING_PREFIX)]


def check_name(run: Run, name: str) -> None:
    """Raises `PluginError` if something else than a table has the name."""
    found = run("select type from sqlite_schema where type <> 'table' and lower(name) = lower(?)", (name,))
    if found:
        raise PluginError(
            f"there can be no table `{name}`, as there is a{'n' if found[0][0] == 'index' else ''} {found[0][0]} of "
            "that name",
            hint="drop it, or rename the table with a transformer",
        )


def definition(table: Table, live: str) -> str:
    """`create table` for `table` with the key of the live table of name `live`, whose name the key's carries."""
    return sql.create_table(DIALECT, table, constraint=f"{live}_cqpk")


def kept_definition(table: Table, live: str) -> str:
    """The same as SQLite keeps it."""
    return "CREATE TABLE " + definition(table, live).removeprefix("create table if not exists ")


def defaults(run: Run, have: Table, names: Sequence[str]) -> list[tuple[str, str]]:
    """Columns of the live table that are not among `names`, each with the expression of its default."""
    rows = run("select name, dflt_value from pragma_table_info(?)", (have.name,))
    return [(str(name), f"({value})" if value is not None else "null") for name, value in rows if name not in names]


def is_row_number(table: Table) -> bool:
    """Whether the key is SQLite's own row number, which has no index: one column, declared as `integer`.

    https://www.sqlite.org/lang_createtable.html#rowid
    """
    keys = table.primary_keys
    return len(keys) == 1 and DIALECT.type_name(table.column(keys[0]).type) == "integer"


def row_number(table: Table) -> str:
    """A name of SQLite's row number that no column has; empty if columns have them all."""
    taken = {name.lower() for name in table.column_names}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "")


@dataclass(frozen=True, slots=True)
class Ties:
    """What there is to a table besides columns, key and rows."""

    made: Sequence[tuple[str, str]] = ()
    """Indexes and triggers, each by kind and name, and the statement that makes it."""
    children: Sequence[str] = ()
    """Foreign keys of other tables that refer to it."""
    is_plain: bool = True
    """Whether the table was made by the very statement that we would make it with."""

    @property
    def any(self) -> bool:
        """Whether something would be lost with the table."""
        return bool(self.made or self.children) or not self.is_plain


def children(run: Run) -> dict[str, list[str]]:
    """Foreign keys of all tables, by the table that they refer to, in lower case."""
    found: dict[str, list[str]] = {}
    rows = run(
        'select distinct lower(f."table"), m.name from sqlite_schema m join pragma_foreign_key_list(m.name) f '
        "where m.type = 'table' and lower(f.\"table\") <> lower(m.name) order by m.name"
    )
    for parent, child in rows:
        found.setdefault(str(parent), []).append(f"foreign key of table `{child}`")
    return found


def ties(run: Run, have: Table, references: Mapping[str, Sequence[str]]) -> Ties:
    """What hangs on the table that is there; `references` are the `children` of all tables."""
    made = run(
        "select type || ' `' || name || '`', sql from sqlite_schema where lower(tbl_name) = lower(?) "
        "and type in ('index', 'trigger') and sql is not null order by type, name",
        (have.name,),
    )
    found = run("select sql from sqlite_schema where type = 'table' and lower(name) = lower(?)", (have.name,))
    text = str(found[0][0]) if found else ""
    return Ties(
        tuple((str(what), str(statement)) for what, statement in made),
        tuple(references.get(have.name.lower(), ())),
        _shape(text) == _shape(definition(have, have.name)),
    )


def _shape(statement: str) -> str:
    """A `create table` without what differs between two ways to write the same one."""
    text = re.sub(r"\s+", " ", statement).strip().casefold().replace("create table if not exists ", "create table ")
    return re.sub(r" ?([(),]) ?", r"\1", text)


def views(run: Run, name: str) -> Iterator[str]:
    """Views that read the table, by way of others too, as the plan of a query over each tells."""
    pages = {
        page for (page,) in run("select rootpage from sqlite_schema where lower(tbl_name) = lower(?)", (name,)) if page
    }
    for (view,) in run("select name from sqlite_schema where type = 'view' order by name"):
        try:
            plan = run(f"explain select * from {quote(str(view))}")
        except PluginError:
            # One that is broken already cannot break.
            continue
        if any(step[1] == "OpenRead" and step[3] in pages and step[4] == 0 for step in plan):
            yield f"view `{view}`"
