"""Changes of a live table, made in place and in one transaction, so that what hangs on it survives them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

from catchment.destinations.postgresql import types
from catchment.destinations.postgresql.catalogue import describe, estimated_rows, hanging, is_catalogue, key_constraints
from catchment.destinations.postgresql.connection import explained
from catchment.destinations.postgresql.types import DIALECT, quote
from catchment.sdk import Capabilities, ChangeKind, MigrationRefused, PluginError, RowsRefused, Table, TablePreview, sql

log = logging.getLogger("catchment.postgresql")

ALTERED: frozenset[ChangeKind] = frozenset(
    {"change_type", "change_not_null", "change_primary_key", "remove_column_not_null"}
)
"""Forced changes that keep the rows, if all of them fit the changed table."""


def plan(
    connection: Any, table: Table, capabilities: Capabilities, *, force: bool
) -> tuple[Table | None, sql.Migration, str]:
    """The table that is there, what has to happen to it, and why its rows cannot stay if they cannot.

    Raises `MigrationRefused`, also where others hang on what would have to go.
    """
    if is_catalogue(connection, table.name):
        raise MigrationRefused(
            f"table `{table.name}` has the name of one of PostgreSQL's own", hint="rename it with a transformer"
        )
    have = describe(connection, table.name)
    planned = sql.migration(DIALECT, have, table, capabilities, force=force)
    found, reason = sql.fitted(DIALECT, have, table, planned, _asks(connection))
    refusal = _in_the_way(connection, have, found)
    if refusal is not None:
        raise refusal
    return have, found, reason


def preview(connection: Any, table: Table, capabilities: Capabilities, *, force: bool) -> TablePreview:
    """What `plan` decides, told rather than raised, with the table's rows and what hangs on it."""
    try:
        types.check(table)
    except PluginError as error:
        return TablePreview("refused").refused(error)
    have = describe(connection, table.name)
    found = sql.preview(DIALECT, have, table, capabilities, force=force, ask=_asks(connection))
    if found.action == "create":
        return found
    if found.action in ("alter", "recreate"):
        planned = sql.migration(DIALECT, have, table, capabilities, force=force)
        refusal = _in_the_way(connection, have, replace(planned, action=found.action))
        found = found.refused(refusal) if refusal is not None else found
    others = hanging(connection, table.name) if found.action in ("recreate", "refused") else []
    return replace(found, rows=estimated_rows(connection, table.name), dependents=tuple(others))


def carry_out(connection: Any, have: Table | None, table: Table, found: sql.Migration, reason: str) -> None:
    """Make the changes, in the transaction that is open."""
    name = DIALECT.table(table.name)
    if found.action == "recreate":
        log.warning("table `%s` is made anew, without the rows that were in it: %s", table.name, reason)
        connection.execute(f"drop table {name}")
    if found.action in ("create", "recreate"):
        connection.execute(sql.create_table(DIALECT, table))
    if found.action != "alter" or have is None:
        return
    keys = key_constraints(connection, table.name)
    plain = {change.column for change in found.changes if change.kind == "remove_unique"}
    for clause in _clauses(have, found.table, keys, plain):
        connection.execute(f"alter table {name} {clause}")


def _clauses(have: Table, want: Table, keys: Sequence[tuple[str, str, list[str]]], plain: Set[str]) -> Iterator[str]:
    """What to alter for `have` to become `want`, which has all its columns; those in `plain` are no longer unique."""
    is_rekeyed = have.primary_keys != want.primary_keys
    for constraint, kind, columns in keys:
        if (kind == "p" and is_rekeyed) or (kind == "u" and len(columns) == 1 and columns[0] in plain):
            yield f"drop constraint {quote(constraint)}"
    for column in want.columns:
        if column.name not in have:
            yield f"add column {sql.column_definition(DIALECT, column)}"
            continue
        before, name = have.column(column.name), quote(column.name)
        if sql.is_retyped(DIALECT, before, column):
            value = sql.converted(DIALECT, before, column)
            yield f"alter column {name} type {types.type_name(column.type)} using {value}"
        strict, was_strict = column.not_null or column.primary_key, before.not_null or before.primary_key
        if strict != was_strict:
            yield f"alter column {name} {'set' if strict else 'drop'} not null"
    if is_rekeyed and want.primary_keys:
        yield f"add primary key ({DIALECT.columns(want.primary_keys)})"


def _asks(connection: Any) -> Callable[[str], Sequence[Sequence[Any]]]:
    """Queries behind a savepoint: a value that cannot be cast is an answer, and not the transaction's end."""
    import psycopg

    def ask(query: str) -> Sequence[Sequence[Any]]:
        try:
            with connection.transaction():
                rows: Sequence[Sequence[Any]] = connection.execute(query).fetchall()
                return rows
        except (psycopg.DataError, psycopg.NotSupportedError) as error:
            raise RowsRefused(str(explained(error))) from error

    return ask


def _in_the_way(connection: Any, have: Table | None, found: sql.Migration) -> MigrationRefused | None:
    """The error for what hangs on a table that is to be dropped, or on columns that are to change."""
    if have is None or found.action not in ("alter", "recreate"):
        return None
    if found.action == "recreate":
        others = hanging(connection, have.name)
        return sql.hung_on(have.name, others) if others else None
    want = found.table
    retyped = [c.name for c in have.columns if sql.is_retyped(DIALECT, c, want.column(c.name))]
    others = hanging(connection, have.name, retyped) if retyped else []
    if have.primary_keys != want.primary_keys and have.primary_keys:
        # Views read the columns, whether they are a key or not; foreign keys need it.
        keyed = hanging(connection, have.name, have.primary_keys)
        others += [text for text in keyed if text not in others and "view `" not in text]
        retyped += [key for key in have.primary_keys if key not in retyped]
    return sql.hung_on(have.name, others, retyped) if others else None
