"""What all SQL destinations share: a `Dialect` value, and functions that turn tables and messages into statements.

Identifiers are always quoted, values always bound. A destination keeps its `Dialect` in its own file and adds what only
its database has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from catchment.errors import MigrationRefused, PluginError, RowsRefused
from catchment.messages import DeleteRecord, PredicateGroup
from catchment.plugin import Capabilities, PreviewAction, PreviewedChange, TablePreview
from catchment.schema.changes import Change, changes, classify, merged, plan
from catchment.schema.internal import CQ_CLIENT_ID, CQ_ID, CQ_PARENT_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME
from catchment.schema.table import Column, Table

Statement: TypeAlias = tuple[str, tuple[Any, ...]]
"""SQL text and the values for its placeholders, in order."""
Ask: TypeAlias = Callable[[str], Sequence[Sequence[Any]]]
"""Runs a query; all its rows. Raises `RowsRefused` where a value cannot be cast, and leaves the transaction usable."""


class Opaque(pa.ExtensionType):  # type: ignore[misc]
    """A database's own type, known by its name alone; only good for comparing."""

    def __init__(self, name: str) -> None:
        self._sql_name = name
        super().__init__(pa.utf8(), f"sql:{name}")

    def __arrow_ext_serialize__(self) -> bytes:
        return self._sql_name.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Opaque:
        # Arrow makes it anew where it is the type of a list's values.
        return cls(serialized.decode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other._sql_name == self._sql_name

    def __hash__(self) -> int:
        return hash(self._sql_name)

    def __str__(self) -> str:
        return self._sql_name


@dataclass(frozen=True, slots=True)
class Conversion:
    """How values of one column type become those of another; `{0}` stands for the quoted column in both texts."""

    value: str
    fits: str = "true"
    """Whether a value that is not null can be turned without losing anything; null counts as no."""


def no_conversion(before: str, after: str) -> Conversion | None:
    """What a dialect has that turns no type into another."""
    return None


def same_type(kind: pa.DataType) -> pa.DataType:
    """What a dialect has whose types are upstream's."""
    return kind


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one database writes SQL."""

    type_name: Callable[[pa.DataType], str]
    """The column type for an Arrow type, as in `create table`."""
    arrow_type: Callable[[str], pa.DataType]
    """The Arrow type for a column type as the catalogue shows it; the inverse of `type_name` where that has one."""
    placeholder: str = "?"
    """What stands for a bound value."""
    quote_char: str = '"'
    escape_char: str = ""
    """What has to be doubled in a quoted name besides the quote."""
    qualify: Callable[[str], str] | None = None
    """The quoted name of a table where that is more than its name (a staging schema); None: the name, quoted."""
    same: str = "is not distinct from"
    """The operator between values that are equal, null and null as well."""
    inline_unique: bool = True
    """Whether `unique` columns get a constraint when the table is made."""
    to_parameter: Callable[[pa.Scalar], Any] = lambda scalar: scalar.as_py()
    """The driver's value for an Arrow scalar."""
    conversion: Callable[[str, str], Conversion | None] = no_conversion
    """How a forced migration turns a column of one type, named as by `type_name`, into another; None: not at all."""
    shown: str = "cast({0} as text)"
    """A column's value as text, for messages."""
    upstream: Callable[[pa.DataType], pa.DataType] = same_type
    """The type as which upstream's plugin keeps values, where it is another than ours; see `sdk/adopted.py`."""

    def quote(self, name: str) -> str:
        """`name` as a quoted identifier. Raises `PluginError` for a NUL, which no database can hold in one."""
        if "\0" in name:
            raise PluginError(f"name {name!r} holds a NUL character; rename it")
        if self.escape_char:
            name = name.replace(self.escape_char, self.escape_char * 2)
        return self.quote_char + name.replace(self.quote_char, self.quote_char * 2) + self.quote_char

    def table(self, name: str) -> str:
        """The quoted name of a table."""
        return self.qualify(name) if self.qualify is not None else self.quote(name)

    def columns(self, names: Sequence[str]) -> str:
        """Quoted names joined by commas."""
        return ", ".join(self.quote(name) for name in names)


@dataclass(frozen=True, slots=True)
class Migration:
    """What has to happen for a table to fit: `alter` carries out `changes`, `recreate` drops and creates."""

    action: Literal["none", "create", "alter", "recreate"]
    table: Table
    """The table as it will be: for `alter`, removed columns are still in it, nullable and without keys."""
    changes: tuple[Change, ...] = ()
    rewrites: bool = False
    """Whether `alter` is only possible with rows that fit: by a change that is kept when forced; see `fitted`."""


def migration(
    dialect: Dialect, have: Table | None, want: Table, capabilities: Capabilities, *, force: bool
) -> Migration:
    """How to get from `have` (as the catalogue describes it; None: missing) to `want`.

    Types are compared as the database stores them, so a type that it cannot tell apart is no change, and without
    `force` one that upstream's plugin has for the same values is none. Raises `MigrationRefused` for a change that
    needs `migrate_mode: forced`, or that the destination cannot make at all.
    """
    if have is None:
        return Migration("create", want)
    want = want if force else adopted(dialect, have, want)
    found = plan(
        have,
        normalized(dialect, want),
        safe=capabilities.safe_changes,
        forced=capabilities.forced_changes,
        force=force,
    )
    if not found:
        return Migration("none", merged(have, want))
    if all(change.kind in capabilities.safe_changes | capabilities.kept_when_forced for change in found):
        rewrites = any(change.kind not in capabilities.safe_changes for change in found)
        return Migration("alter", merged(have, want), found, rewrites)
    return Migration("recreate", want, found)


def fitted(dialect: Dialect, have: Table | None, want: Table, found: Migration, ask: Ask) -> tuple[Migration, str]:
    """`found` as the rows that are there allow it, and why none of them can stay if the table has to be made anew."""
    if have is None or found.action not in ("alter", "recreate"):
        return found, ""
    if found.action == "recreate":
        return found, "; ".join(map(str, found.changes))
    reason = obstacle(dialect, have, found.table, ask) if found.rewrites else ""
    return (Migration("recreate", want, found.changes), reason) if reason else (found, "")


def obstacle(dialect: Dialect, have: Table, want: Table, ask: Ask) -> str:
    """Why the rows of `have` do not fit `want`, which has all its columns; empty if they do."""
    table = dialect.table(have.name)
    for column in have.columns:
        name, after = dialect.quote(column.name), want.column(column.name)
        if is_retyped(dialect, column, after):
            reason = _misfit(dialect, table, column, after, ask)
            if reason:
                return reason
        becomes_strict = (after.not_null or after.primary_key) and not (column.not_null or column.primary_key)
        if becomes_strict and ask(f"select 1 from {table} where {name} is null limit 1"):  # noqa: S608
            return f"column `{column.name}` is null in a row"
    strict = [c.name for c in want.columns if c.name not in have and (c.not_null or c.primary_key)]
    if strict and ask(f"select 1 from {table} limit 1"):  # noqa: S608
        return f"the new column `{strict[0]}` must not be null"
    keys = want.primary_keys
    # Another type may show two keys as one.
    changed = keys != have.primary_keys or any(is_retyped(dialect, have.column(k), want.column(k)) for k in keys)
    if keys and changed and not strict:
        values = ", ".join(converted(dialect, have.column(key), want.column(key)) for key in keys)
        if ask(f"select 1 from {table} group by {values} having count(*) > 1 limit 1"):  # noqa: S608
            return f"rows are not unique in {', '.join(f'`{key}`' for key in keys)}"
    return ""


def _misfit(dialect: Dialect, table: str, have: Column, want: Column, ask: Ask) -> str:
    """Why the values of a column cannot have another type; empty if they can."""
    before, after, name = dialect.type_name(have.type), dialect.type_name(want.type), dialect.quote(have.name)
    how = dialect.conversion(before, after)
    if how is None:
        return f"column `{have.name}` cannot be turned from {before} into {after}"
    fits = how.fits.format(name)
    shown = dialect.shown.format(name)
    query = f"select {shown} from {table} where {name} is not null and not coalesce({fits}, false) limit 1"  # noqa: S608
    try:
        wrong = ask(query) if fits != "true" else ()
    except RowsRefused as error:
        return f"column `{have.name}` holds a value that is no {after}: {error}"
    return f"column `{have.name}` holds {wrong[0][0]!r}, which is no {after}" if wrong else ""


def is_retyped(dialect: Dialect, have: Column, want: Column) -> bool:
    """Whether a column of the catalogue has another type than it is to have."""
    return not have.type.equals(dialect.arrow_type(dialect.type_name(want.type)))


def converted(dialect: Dialect, have: Column, want: Column) -> str:
    """A column's values, as `want` has them, for a `select` from the table that has it as `have`."""
    name = dialect.quote(have.name)
    if not is_retyped(dialect, have, want):
        return name
    how = dialect.conversion(dialect.type_name(have.type), dialect.type_name(want.type))
    assert how is not None, "`obstacle` comes first"
    return how.value.format(name)


def preview(
    dialect: Dialect,
    have: Table | None,
    want: Table,
    capabilities: Capabilities,
    *,
    force: bool,
    ask: Ask | None = None,
) -> TablePreview:
    """What `migration` decides, told rather than raised, with every change; rows and dependents are the database's.

    With `ask` the rows are looked at, where it depends on them whether they stay.
    """
    if have is None:
        return TablePreview("create")
    want = want if force else adopted(dialect, have, want)
    found = changes(have, normalized(dialect, want))
    refusal = None
    action: PreviewAction = "refused"
    try:
        planned = migration(dialect, have, want, capabilities, force=force)
        action = (fitted(dialect, have, want, planned, ask)[0] if ask is not None else planned).action
    except MigrationRefused as error:
        refusal = error
    if action == "alter" and all(change.kind == "remove_column" for change in found):
        # Such a column stays in the table, so nothing is done to it, in this sync or in any later one.
        action = "none"
    told = [
        PreviewedChange(
            change.kind,
            change.column,
            f"{change}{_fate(change, action)}",
            classify(change, capabilities.safe_changes, capabilities.forced_changes),
        )
        for change in found
    ]
    preview = TablePreview(action, tuple(told))
    return preview.refused(refusal) if refusal is not None else preview


def _fate(change: Change, action: PreviewAction) -> str:
    """What becomes of a column that is gone."""
    if change.current is not None or change.previous is None:
        return ""
    return {
        "none": "; it stays, null in new rows",
        "alter": "; it stays, null in new rows",
        "recreate": "; it is dropped",
    }.get(action, "")


def hung_on(name: str, dependents: Sequence[str], columns: Sequence[str] = ()) -> MigrationRefused:
    """The error for a table that has to be made anew, or whose `columns` change, while others hang on them."""
    if columns:
        changing = f"column{'s' if len(columns) > 1 else ''} {', '.join(f'`{column}`' for column in columns)}"
        what = f"{changing} of table `{name}` cannot change while others hang on it"
    else:
        what = f"table `{name}` has to be dropped and made anew, and others hang on it"
    return MigrationRefused(
        f"{what}: {', '.join(dependents)}",
        hint="drop them and make them again afterwards, or migrate the table by hand",
    )


def adopted(dialect: Dialect, have: Table | None, want: Table) -> Table:
    """`want` with the types of those columns of `have`, as the catalogue has it, that upstream's plugin made for it."""
    if have is None or not may_be_adopted(dialect, want):
        return want
    columns = []
    for column in want.columns:
        theirs = dialect.upstream(column.type)
        if column.name in have and not theirs.equals(column.type):
            there = have.column(column.name).type
            ours = dialect.arrow_type(dialect.type_name(column.type))
            if not there.equals(ours) and there.equals(dialect.arrow_type(dialect.type_name(theirs))):
                column = replace(column, type=theirs)
        columns.append(column)
    return want.with_columns(columns)


def may_be_adopted(dialect: Dialect, table: Table) -> bool:
    """Whether upstream's plugin has another type than ours for a column, so that what is there has to be looked at."""
    return any(not dialect.upstream(column.type).equals(column.type) for column in table.columns)


def normalized(dialect: Dialect, table: Table) -> Table:
    """`table` with each type as it comes back from the database's catalogue; key columns are not null."""
    return table.with_columns(
        [
            Column(
                name=column.name,
                type=dialect.arrow_type(dialect.type_name(column.type)),
                primary_key=column.primary_key,
                not_null=column.not_null or column.primary_key,
                unique=column.unique and dialect.inline_unique,
            )
            for column in table.columns
        ]
    )


def column_definition(dialect: Dialect, column: Column) -> str:
    """A column as in `create table`, with `not null` and `unique`; the primary key is the table's."""
    parts = [dialect.quote(column.name), dialect.type_name(column.type)]
    if column.unique and not column.primary_key and dialect.inline_unique:
        parts.append("unique")
    if column.not_null or column.primary_key:
        parts.append("not null")
    return " ".join(parts)


def create_table(dialect: Dialect, table: Table, *, constraint: str = "") -> str:
    """`create table if not exists` with the columns and the primary key, which is called `constraint` if given."""
    parts = [column_definition(dialect, column) for column in table.columns]
    if table.primary_keys:
        named = f"constraint {dialect.quote(constraint)} " if constraint else ""
        parts.append(f"{named}primary key ({dialect.columns(table.primary_keys)})")
    return f"create table if not exists {dialect.table(table.name)} ({', '.join(parts)})"


def add_column(dialect: Dialect, table: Table, column: Column) -> str:
    """`alter table … add column`."""
    return f"alter table {dialect.table(table.name)} add column {column_definition(dialect, column)}"


def drop_table(dialect: Dialect, name: str) -> str:
    """`drop table if exists`."""
    return f"drop table if exists {dialect.table(name)}"


def insert_select(dialect: Dialect, into: str, columns: Sequence[str], source: str) -> str:
    """`insert into … select` of `columns` by name; `source` is a quoted table name or view."""
    names = dialect.columns(columns)
    return f"insert into {dialect.table(into)} ({names}) select {names} from {source}"  # noqa: S608


def delete_stale(
    dialect: Dialect, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
) -> Statement:
    """`delete` of a source's rows older than `sync_time`, with `clients` only of those clients."""
    where, values = stale_rows(dialect, source_name=source_name, sync_time=sync_time, clients=clients)
    return f"delete from {dialect.table(table.name)} where {where}", values  # noqa: S608


def count_orphans(dialect: Dialect, table: str, parent: str) -> str:
    """The query for how many rows of `table` point to no row of `parent`."""
    lost = (
        f"select 1 from {dialect.table(parent)} as p where p.{dialect.quote(CQ_ID)} = c.{dialect.quote(CQ_PARENT_ID)}"  # noqa: S608
    )
    return (
        f"select count(*) from {dialect.table(table)} as c "  # noqa: S608
        f"where c.{dialect.quote(CQ_PARENT_ID)} is not null and not exists ({lost})"
    )


def stale_rows(
    dialect: Dialect, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
) -> Statement:
    """The condition for a source's rows older than `sync_time`, to stand after `where`."""
    mark = dialect.placeholder
    where = f"{dialect.quote(CQ_SOURCE_NAME)} = {mark} and {dialect.quote(CQ_SYNC_TIME)} < {mark}"
    values: tuple[Any, ...] = (source_name, sync_time)
    if clients is not None:
        marks = ", ".join([mark] * len(clients)) or "null"
        where += f" and {dialect.quote(CQ_CLIENT_ID)} in ({marks})"
        values += tuple(clients)
    return where, values


def delete_records(dialect: Dialect, message: DeleteRecord) -> list[Statement]:
    """Statements to run in one transaction: rows of descendants first, those that match the predicates last."""
    condition, values = _matches(dialect, message.where)
    selected = {message.table_name: (condition, values)}
    deletes = [(message.table_name, condition, values)]
    waiting = list(message.relations)
    while waiting:
        ready = [relation for relation in waiting if relation.parent_name in selected]
        if not ready:
            names = ", ".join(f"`{relation.table_name}`" for relation in waiting)
            raise PluginError(f"cannot delete records of {names}: their parent tables are not part of the message")
        for relation in ready:
            parent_condition, parent_values = selected[relation.parent_name]
            condition = (
                f"{dialect.quote(CQ_PARENT_ID)} in (select {dialect.quote(CQ_ID)} "  # noqa: S608
                f"from {dialect.table(relation.parent_name)} where {parent_condition})"
            )
            selected[relation.table_name] = (condition, parent_values)
            deletes.append((relation.table_name, condition, parent_values))
        waiting = [relation for relation in waiting if relation not in ready]
    return [
        (f"delete from {dialect.table(name)} where {condition}", values)  # noqa: S608
        for name, condition, values in reversed(deletes)
    ]


def _matches(dialect: Dialect, groups: Sequence[PredicateGroup]) -> Statement:
    """The condition for rows that match every group; a null in a predicate stands for rows without a value."""
    parts: list[str] = []
    values: list[Any] = []
    for group in groups:
        tests: list[str] = []
        for predicate in group.predicates:
            value = predicate.value[0]
            column = dialect.quote(predicate.column)
            tests.append(f"{column} = {dialect.placeholder}" if value.is_valid else f"{column} is null")
            values += [dialect.to_parameter(value)] if value.is_valid else []
        if tests:
            parts.append(f"({f' {group.grouping} '.join(tests)})")
    return " and ".join(parts) or "1 = 1", tuple(values)
