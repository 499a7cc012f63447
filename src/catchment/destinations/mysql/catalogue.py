"""What the server's catalogue says of a table: its columns, its indexes, and what hangs on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from catchment.destinations.mysql.connection import MARK, Server, number_of, run
from catchment.destinations.mysql.types import DIALECT, arrow_type, fits_text, is_text, type_name
from catchment.sdk import Column, MigrationRefused, Table, json, sql
from catchment.sdk.staging import STAGING_PREFIX

_COLUMNS = f"""
select table_name, column_name, column_type, is_nullable, extra, collation_name
from information_schema.columns where table_schema = database() and table_name = {MARK} order by ordinal_position
"""
_KEYS = f"""
select table_name, index_name, column_name, sub_part from information_schema.statistics
where table_schema = database() and table_name = {MARK} and non_unique = 0 order by index_name, seq_in_index
"""
_JSON = f"""
select table_name, constraint_name, check_clause from information_schema.check_constraints
where constraint_schema = database() and table_name = {MARK} and check_clause like 'json_valid(%'
"""


def describe(connection: Any, server: Server, name: str) -> Table | None:
    """The table of the database; None if it is missing."""
    rows = _named(run(connection, _COLUMNS, [name]), name)
    if not rows:
        return None
    keys = key_columns(connection, name)
    primary, unique = keys.pop("PRIMARY", {}), {column for columns in keys.values() for column in columns}
    # MariaDB's json is a text with a check, which its catalogue shows as such.
    checked = _named(run(connection, _JSON, [name]), name) if server.is_mariadb else []
    valid = {constraint for constraint, clause in checked if clause == f"json_valid(`{constraint}`)"}
    return Table(
        name,
        tuple(
            Column(
                column,
                json() if column in valid and kind == "longtext" else arrow_type(str(kind)),
                primary_key=column in primary,
                not_null=nullable == "NO",
                unique=column in unique and column not in primary,
            )
            for column, kind, nullable, *_ in rows
        ),
    )


def described(connection: Any, server: Server, want: Table) -> Table | None:
    """The table that is there for `want`: a text column stands for a type that fits it as well.

    Upstream's plugin keeps more types as text than we do, and a key can hold a bounded text only.
    """
    have = describe(connection, server, want.name)
    if have is None:
        return None
    columns = []
    for column in have.columns:
        wanted = want.column(column.name) if column.name in want else None
        fits = (
            wanted is not None
            and is_text(column.type)
            and (fits_text(wanted.type) or ((wanted.primary_key or wanted.unique) and type_name(wanted.type) == "json"))
        )
        columns.append(replace(column, type=arrow_type(type_name(wanted.type))) if fits and wanted else column)
    return have.with_columns(columns)


def _named(rows: Sequence[tuple[Any, ...]], name: str) -> list[tuple[Any, ...]]:
    """Rows of the table, without their first value: the catalogue takes names that differ in case for one."""
    exact = [row[1:] for row in rows if row[0] == name]
    return exact or [row[1:] for row in rows if row[0] == name.lower()]


@dataclass(frozen=True, slots=True)
class Status:
    """What kind of table it is."""

    kind: str
    """`BASE TABLE`, `VIEW` and so on."""
    engine: str
    has_transactions: bool
    rows: int | None
    """As the engine estimates them."""


_STATUS = f"""
select t.table_name, t.table_type, coalesce(t.engine, ''), coalesce(e.transactions, 'NO'), t.table_rows
from information_schema.tables t left join information_schema.engines e on e.engine = t.engine
where t.table_schema = database() and t.table_name = {MARK}
"""


def status(connection: Any, name: str) -> Status | None:
    """None if the table is missing."""
    rows = _named(run(connection, _STATUS, [name]), name)
    if not rows:
        return None
    kind, engine, transactions, count = rows[0]
    return Status(str(kind), str(engine), transactions == "YES", int(count) if count is not None else None)


def check_kind(connection: Any, name: str) -> None:
    """Raises `MigrationRefused` for what cannot be written all or nothing."""
    found = status(connection, name)
    if found is None:
        return
    if "TABLE" not in found.kind and found.kind != "SYSTEM VERSIONED":
        raise MigrationRefused(
            f"`{name}` is a {found.kind.lower()}", hint="drop it, or rename the table with a transformer"
        )
    if not found.has_transactions:
        raise MigrationRefused(
            f"table `{name}` is kept by the engine {found.engine}, which has no transactions",
            hint=f"`alter table {DIALECT.quote(name)} engine = InnoDB`",
        )


@dataclass(frozen=True, slots=True)
class Ties:
    """What a table that takes another's place would not have."""

    parents: Sequence[str] = ()
    """Tables that its foreign keys refer to."""
    children: Sequence[str] = ()
    """Tables whose foreign keys refer to its rows, which then have to stay where they are."""
    triggers: Sequence[str] = ()

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.parents or self.children or self.triggers)

    @property
    def names(self) -> list[str]:
        """What is lost with the table, for people."""
        return [*(f"to `{name}`" for name in self.parents), *(f"`{name}`" for name in self.triggers)]


_PARENTS = f"""
select table_name, referenced_table_name from information_schema.referential_constraints
where constraint_schema = database() and table_name = {MARK}
"""
_CHILDREN = f"""
select referenced_table_name, concat(if(constraint_schema = database(), '', concat(constraint_schema, '.')), table_name)
from information_schema.referential_constraints
where unique_constraint_schema = database() and referenced_table_name = {MARK}
"""
_TRIGGERS = f"""
select event_object_table, trigger_name from information_schema.triggers
where event_object_schema = database() and event_object_table = {MARK}
"""


def ties(connection: Any, name: str) -> Ties:
    """What hangs on the table and does not go by its name, as views and grants do."""
    parents, children, triggers = (
        sorted({str(found) for (found,) in _named(run(connection, query, [name]), name)})
        for query in (_PARENTS, _CHILDREN, _TRIGGERS)
    )
    return Ties(parents, [child for child in children if child != name], triggers)


def hanging(connection: Any, name: str) -> list[str]:
    """Foreign keys of others that keep the table from being dropped."""
    return [f"foreign key of table `{child}`" for child in ties(connection, name).children]


def views(connection: Any, name: str) -> list[str]:
    """Views that read the table, by way of others too, as far as their definitions may be seen."""
    rows = run(
        connection,
        "select table_name, view_definition, concat('`', replace(database(), '`', '``'), '`.') "
        "from information_schema.views",
    )
    found: list[str] = []
    wanted = [name]
    while wanted:
        quoted = DIALECT.quote(wanted.pop())
        new = [str(view) for view, text, here in rows if view not in found and f"{here}{quoted}" in str(text)]
        found += new
        wanted += new
    return [f"view `{view}`" for view in sorted(found)]


def names(connection: Any) -> list[str]:
    """Tables and views of the database, staged ones too."""
    return [str(name) for (name,) in run(
        connection, "select table_name from information_schema.tables where table_schema = database()"
    )]  # fmt: skip


def staged_names(connection: Any) -> list[str]:
    """Staged tables of every run."""
    return [name for name in names(connection) if name.startswith(STAGING_PREFIX)]


def is_there(connection: Any, name: str) -> bool:
    """Whether there is such a table."""
    import pymysql

    try:
        run(connection, f"select 1 from {DIALECT.table(name)} limit 0")
    except pymysql.MySQLError as error:
        if number_of(error) != NO_SUCH_TABLE:
            raise
        return False
    return True


NO_SUCH_TABLE = 1146


def count(connection: Any, name: str) -> int:
    """Rows of a table, all of them looked at."""
    return int(run(connection, f"select count(*) from {DIALECT.table(name)}")[0][0])


def indexes(connection: Any, name: str) -> dict[str, str]:
    """Every index but the primary key: its name and its definition, as `create table` has it."""
    ((_, text),) = run(connection, f"show create table {DIALECT.table(name)}")
    found = {}
    for line in str(text).splitlines():
        match = re.match(r"\s+((?:UNIQUE |FULLTEXT |SPATIAL )?KEY (`(?:[^`]|``)+`) .*?),?$", line)
        if match:
            found[match[2][1:-1].replace("``", "`")] = match[1]
    return found


def key_columns(connection: Any, name: str) -> dict[str, dict[str, int | None]]:
    """Columns of the primary key, called `PRIMARY`, and of each index that makes one column unique.

    With each column goes the number of its characters that count, where not all do.
    """
    found: dict[str, dict[str, int | None]] = {}
    for index, column, part in _named(run(connection, _KEYS, [name]), name):
        found.setdefault(str(index), {})[str(column)] = part
    return {index: columns for index, columns in found.items() if index == "PRIMARY" or len(columns) == 1}


def blurred_keys(connection: Any, server: Server, name: str) -> list[str]:
    """Columns of the primary key if any of them takes values for equal that are not, else none.

    Upstream's plugin makes keys of the first characters of a text, and by a collation that takes `a` for `A`.
    """
    parts = key_columns(connection, name).get("PRIMARY", {})
    rows = _named(run(connection, _COLUMNS, [name]), name)
    collations = {str(column): collation for column, *_, collation in rows}
    exact = {None, server.collation, "utf8mb4_nopad_bin", "utf8mb4_0900_bin"}
    blurred = any(part is not None or collations.get(column) not in exact for column, part in parts.items())
    return list(parts) if blurred else []


def generated(connection: Any, name: str) -> set[str]:
    """Columns whose values the server makes itself and takes from nobody."""
    rows = _named(run(connection, _COLUMNS, [name]), name)
    return {
        str(column)
        for column, _, _, extra, _ in rows
        if "GENERATED" in str(extra).upper().replace("DEFAULT_GENERATED", "")
    }


def left_out(connection: Any, name: str, columns: Sequence[str]) -> list[str]:
    """Columns of a table that are none of `columns`, but for those whose values the server makes itself."""
    made, rows = generated(connection, name), _named(run(connection, _COLUMNS, [name]), name)
    return [
        str(column)
        for column, _, _, extra, _ in rows
        if column not in columns and column not in made and "auto_increment" not in str(extra).lower()
    ]


def raw_type(column: Column) -> str:
    """How a column of the catalogue is declared."""
    return str(column.type) if isinstance(column.type, sql.Opaque) else type_name(column.type)
