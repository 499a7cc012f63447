"""What ClickHouse's catalogue says of a table, and the statement that makes one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from catchment.destinations.clickhouse import types
from catchment.destinations.clickhouse.connection import Connection
from catchment.destinations.clickhouse.spec import Choice, ClickHouseSpec, Engine
from catchment.destinations.clickhouse.types import DIALECT, quote, text_literal
from catchment.sdk import Column, PluginError, Table
from catchment.sdk.staging import CQ_ID, CQ_SYNC_TIME
from catchment.sdk.types import matches

_MARK = "catchment key: "
"""How the comment of a table begins that says which columns are its key: ClickHouse itself knows none."""
C = TypeVar("C", bound=Choice)


@dataclass(frozen=True, slots=True)
class Stored:
    """A table as the catalogue has it."""

    table: Table
    """Columns that can be written to; keys as its comment has them."""
    uuid: str
    engine: str
    rows: int | None
    """Rows in it, with those that were deleted but not yet cleared away."""
    sorting: str
    """The expressions after `order by`, joined by commas; empty if there are none."""
    partition: str
    definition: str
    """What `create table` would be, in one line."""
    is_keyed: bool | None
    """Whether it has a key; None if it does not say, as other programs made it."""

    @property
    def is_view(self) -> bool:
        """Whether rows cannot be written to it."""
        return "MergeTree" not in self.engine


_TABLE = """
select toString(uuid), engine, total_rows, sorting_key, partition_key, create_table_query, comment
from system.tables where database = currentDatabase() and name = {0}
"""
_COLUMNS = """
select name, type, default_kind from system.columns
where database = currentDatabase() and table = {0} and default_kind not in ('MATERIALIZED', 'ALIAS', 'EPHEMERAL')
order by position
"""


def look(connection: Connection, name: str) -> Stored | None:
    """The table of this name in the database of the connection; None if it is missing."""
    found = connection.rows(_TABLE.format(text_literal(name)))
    if not found:
        return None
    uuid, engine, rows, sorting, partition, definition, comment = found[0]
    keys = _keys_in(comment)
    columns = [
        Column(
            column,
            types.arrow_type(kind),
            primary_key=column in (keys or ()),
            # A column that ClickHouse fills itself need not come.
            not_null=_is_strict(kind) and not default,
        )
        for column, kind, default in connection.rows(_COLUMNS.format(text_literal(name)))
    ]
    is_keyed = None if keys is None else bool(keys)
    return Stored(
        Table(name, tuple(columns)), uuid, engine, rows, _bare(sorting), _bare(partition), definition, is_keyed
    )


def _bare(expressions: str) -> str:
    """Expressions without the brackets that ClickHouse keeps around them if they were written."""
    inner = expressions[1:-1]
    return inner if expressions == f"({inner})" and _closes(inner) else expressions


def _closes(text: str) -> bool:
    """Whether no bracket is closed that was not opened; quoted names with brackets may make it say no."""
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return False
    return depth == 0


def _is_strict(kind: str) -> bool:
    base, arguments = types.split(kind)
    if base == "LowCardinality":
        return _is_strict(arguments[0])
    return base != "Nullable" and base not in types.NEVER_NULL


def _keys_in(comment: str) -> list[str] | None:
    if not comment.startswith(_MARK):
        return None
    try:
        keys = json.loads(comment.removeprefix(_MARK))
    except ValueError:
        return None
    return [str(key) for key in keys] if isinstance(keys, list) else None


def comment_of(table: Table) -> str:
    """The comment that says which columns are the key of a table."""
    return _MARK + json.dumps(list(table.primary_keys), ensure_ascii=False)


def names(connection: Connection, prefix: str = "") -> list[str]:
    """Names of the tables and views of the database."""
    where = f" and startsWith(name, {text_literal(prefix)})" if prefix else ""
    found = connection.rows(f"select name from system.tables where database = currentDatabase(){where} order by name")
    return [str(name) for (name,) in found]


def views(connection: Connection, name: str) -> list[str]:
    """Views of the database that read the table, by way of others too, as far as their statements tell."""
    statements = dict(
        connection.rows(
            "select name, as_select from system.tables where database = currentDatabase() and as_select <> ''"
        )
    )
    [(database,)] = connection.rows("select currentDatabase()")
    found: list[str] = []
    wanted = [name]
    while wanted:
        query = text_literal(f"select 1 from {quote(str(database))}.{quote(wanted.pop())}")
        # As the catalogue writes it.
        shown = str(connection.rows(f"select formatQuerySingleLine({query})")[0][0]).partition(" FROM ")[2]
        named = re.compile(rf"(?<![\w`.]){re.escape(shown)}(?![\w`.])")
        new = [view for view, text in statements.items() if view not in found and named.search(text)]
        found += new
        wanted += new
    return [f"view `{view}`" for view in sorted(found)]


class Definitions:
    """The statements that make tables, as the spec wants them."""

    def __init__(self, spec: ClickHouseSpec) -> None:
        self._spec = spec
        self.on_cluster = f" on cluster {text_literal(spec.cluster)}" if spec.cluster else ""
        self.engine = _engine(spec.engine)
        self.is_replicated = spec.engine.name.startswith("Replicated")

    def create(self, table: Table, *, name: str = "", plain: bool = False) -> str:
        """`create table` under its own or another name; `plain`: rows stay in the order in which they come."""
        columns = ", ".join(column_definition(column) for column in table.columns)
        order = ", ".join(self.order(table)) if not plain else ""
        clauses = [f"order by ({order})" if order else "order by tuple()"]
        if not plain and self.partition(table):
            clauses.insert(0, f"partition by {self.partition(table)}")
        if not plain and self.ttl(table):
            clauses.append(f"ttl {self.ttl(table)}")
        return (
            f"create table if not exists {quote(name or table.name)}{self.on_cluster} ({columns}) "
            f"engine = {self.engine} {' '.join(clauses)} settings allow_nullable_key = 1 "
            f"comment {text_literal(comment_of(table))}"
        )

    def create_like(self, name: str, like: str) -> str:
        """`create table` with all that another one has: columns, engine, order, indexes, settings."""
        return f"create table {quote(name)}{self.on_cluster} as {quote(like)}"

    def drop(self, name: str) -> str:
        """`drop table`, at once and for good."""
        return f"drop table if exists {quote(name)}{self.on_cluster} sync"

    def order(self, table: Table) -> list[str]:
        """What rows are sorted by: what the spec says, else the key, else what is not null, as upstream has it."""
        entry = _entry(self._spec.order, "order", table)
        if entry is not None:
            return list(entry.order_by)
        scalars = [column for column in table.columns if not types.is_compound(column.type)]
        keys = [column.name for column in scalars if column.primary_key]
        if keys:
            return [quote(key) for key in keys]
        strict = [column.name for column in scalars if column.not_null]
        return [quote(name) for name in sorted(strict, key=lambda name: name == CQ_ID)]

    def asks_for_order(self, table: Table) -> bool:
        """Whether the spec says how the table is sorted."""
        return _entry(self._spec.order, "order", table) is not None

    def partition(self, table: Table) -> str:
        """The expression after `partition by`; empty if the spec has none for the table."""
        entries = [e for e in self._spec.partition if not (e.skip_incremental_tables and table.is_incremental)]
        entry = _entry(entries, "partition", table)
        return entry.partition_by if entry is not None else ""

    def ttl(self, table: Table) -> str:
        """The expression after `ttl`; empty if the spec has none for the table."""
        entry = _entry(self._spec.ttl, "ttl", table)
        if entry is None or CQ_SYNC_TIME not in table:
            return ""
        column = table.column(CQ_SYNC_TIME)
        moment = quote(CQ_SYNC_TIME)
        if not (column.not_null or column.primary_key):
            moment = f"ifNull({moment}, toDateTime64(0, 6))"
        return f"toDateTime({moment}) + ({entry.ttl})"


def _entry(entries: Sequence[C], kind: str, table: Table) -> C | None:
    """The entry of the spec that is for the table. Raises `PluginError` for two."""
    found = [
        entry
        for entry in entries
        if any(matches(glob, table.name) for glob in entry.tables)
        and not any(matches(glob, table.name) for glob in entry.skip_tables)
    ]
    if len(found) > 1:
        shown = ", ".join(f"`tables: {list(entry.tables)}`" for entry in found)
        raise PluginError(
            f"table `{table.name}` fits {len(found)} entries of `{kind}`: {shown}",
            hint="name the table in `skip_tables` of all but one",
        )
    return found[0] if found else None


def _engine(engine: Engine) -> str:
    shown = []
    for parameter in engine.parameters:
        if isinstance(parameter, bool):
            shown.append(str(parameter).lower())
        else:
            shown.append(text_literal(parameter) if isinstance(parameter, str) else str(parameter))
    return f"{engine.name}({', '.join(shown)})"


def column_definition(column: Column) -> str:
    """A column as in `create table`."""
    is_strict = column.not_null or column.primary_key
    return f"{quote(column.name)} {types.type_name(column.type) if is_strict else types.nullable(column.type)}"


def add_column(table: str, column: Column, on_cluster: str) -> str:
    """`alter table … add column`."""
    return f"alter table {DIALECT.table(table)}{on_cluster} add column if not exists {column_definition(column)}"
