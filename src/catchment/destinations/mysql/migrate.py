"""Changes of a live table: one statement that alters it all at once, or the table is made anew."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from catchment.destinations.mysql import catalogue
from catchment.destinations.mysql.connection import (
    Server,
    asking,
    explained,
    named_locks,
    number_of,
    run,
    transaction,
)
from catchment.destinations.mysql.types import DIALECT, created_as, definitions, key_definitions
from catchment.sdk import ChangeKind, PluginError, Table, sql
from catchment.sdk.staging import CQ_ID, STAGING_PREFIX

log = logging.getLogger("catchment.mysql")

KEPT: frozenset[ChangeKind] = frozenset(
    {"change_type", "change_not_null", "change_primary_key", "remove_column_not_null"}
)
"""Changes that copy the rows, if all of them fit the new table."""

_ROW_TOO_LARGE = 1118


def carry_out(
    connection: Any, server: Server, database: str, have: Table | None, table: Table, found: sql.Migration
) -> None:
    """Make the changes to the table that is there as `have`, and keep its rows if they fit."""
    if have is None:
        create(connection, server, table)
        return
    found, reason = sql.fitted(DIALECT, have, table, found, asking(connection))
    if found.action == "recreate":
        lost = catalogue.ties(connection, table.name)
        warn(connection, table.name, reason)
        if lost.any:
            log.warning("with table `%s` go its foreign keys and triggers: %s", table.name, ", ".join(lost.names))
        run(connection, sql.drop_table(DIALECT, table.name))
        create(connection, server, table)
        return
    if found.rewrites:
        _copy(connection, database, have, found.table)
        return
    changes = alterations(connection, server, have, table, found)
    if changes:
        define(connection, table.name, f"alter table {DIALECT.table(table.name)} {', '.join(changes)}")


def warn(connection: Any, name: str, reason: str) -> None:
    """Tell the log that a table's rows go, why, and which views may break."""
    log.warning("table `%s` is made anew, without the rows that were in it: %s", name, reason)
    views = catalogue.views(connection, name)
    if views:
        log.warning("table `%s` is made anew, check what reads it: %s", name, ", ".join(views))


def _copy(connection: Any, database: str, have: Table, want: Table) -> None:
    """Copy the rows into a table as `want` has it, which takes the place of the one that is there."""
    run_name = f"{STAGING_PREFIX}copy{hashlib.sha256(have.name.encode()).hexdigest()[:16]}"
    new, old = DIALECT.table(f"{run_name}.new"), DIALECT.table(f"{run_name}.old")
    live = DIALECT.table(have.name)
    made = catalogue.generated(connection, have.name)
    columns = [name for name in have.column_names if name not in made]
    # Whoever sweeps takes it for a run that is alive.
    with named_locks(connection, database, [run_name]):
        for left in (new, old):
            run(connection, f"drop table if exists {left}")
        define(connection, have.name, f"create table {new} like {live}")
        define(connection, have.name, f"alter table {new} {', '.join(_reshaped(have, want))}")
        values = ", ".join(sql.converted(DIALECT, have.column(name), want.column(name)) for name in columns)
        with transaction(connection):
            run(connection, f"insert into {new} ({DIALECT.columns(columns)}) select {values} from {live}")
        run(connection, f"rename table {live} to {old}, {new} to {live}")
        run(connection, f"drop table {old}")


def alterations(connection: Any, server: Server, have: Table | None, table: Table, found: sql.Migration) -> list[str]:
    """What `alter table` has to do to a table as `have`, with the name of `table`, so that it fits."""
    if have is None:
        return []
    if found.rewrites:
        return _reshaped(have, found.table)
    changes = list(_alterations(connection, have, table, found))
    if all(change.kind != "move_pk_to_cq_id" for change in found.changes):
        changes += _sharpened(connection, server, table)
    return changes


def _reshaped(have: Table, want: Table) -> list[str]:
    """What `alter table` does to an empty table as `have` so that it is as `want`, which has all its columns."""
    shape = {column.name: column for column in have.columns}
    changed = [
        column.name
        for column in want.columns
        if column.name in shape
        and (
            sql.is_retyped(DIALECT, shape[column.name], column)
            or (column.not_null or column.primary_key) != shape[column.name].not_null
            or column.primary_key != shape[column.name].primary_key
        )
    ]
    fresh = [name for name in want.column_names if name not in shape]
    plain = definitions(_without_unique(want), [*changed, *fresh])
    parts = [f"modify column {plain[name]}" for name in changed] + [f"add column {plain[name]}" for name in fresh]
    if have.primary_keys != want.primary_keys:
        parts = [*(["drop primary key"] if have.primary_keys else []), *parts]
        parts += [f"add primary key ({DIALECT.columns(want.primary_keys)})"] if want.primary_keys else []
    return parts


def _sharpened(connection: Any, server: Server, table: Table) -> list[str]:
    """A key that tells all its values apart, in the place of one that does not."""
    keys = catalogue.blurred_keys(connection, server, table.name)
    if not keys or set(keys) != set(table.primary_keys):
        return []
    columns = key_definitions(table, server.collation)
    log.info("the key of table `%s` becomes one that tells all values apart", table.name)
    modified = [f"modify column {definition}" for definition in columns.values()]
    return ["drop primary key", *modified, f"add primary key ({DIALECT.columns(keys)})"]


def _alterations(connection: Any, have: Table, table: Table, found: sql.Migration) -> Iterator[str]:
    for change in found.changes:
        if change.kind == "add_column" and change.current is not None:
            yield f"add column {definitions(table, [change.column])[change.column]}"
        elif change.kind == "remove_unique":
            for index, columns in catalogue.key_columns(connection, table.name).items():
                if index != "PRIMARY" and change.column in columns:
                    yield f"drop index {DIALECT.quote(index)}"
        elif change.kind == "move_pk_to_cq_id":
            yield from _move_key(have, found.table)


def _move_key(have: Table, merged: Table) -> Iterator[str]:
    """The primary key on `_cq_id` alone; columns of the old one may be null again."""
    yield "drop primary key"
    for name in have.primary_keys:
        if name != CQ_ID and not merged.column(name).not_null:
            yield f"modify column {definitions(merged, [name])[name]} null"
    yield f"add primary key ({DIALECT.quote(CQ_ID)})"


def create(connection: Any, server: Server, table: Table, *, unique: bool = True) -> None:
    """Make a table; without `unique` only its primary key is made."""
    define(connection, table.name, created_as(table if unique else _without_unique(table), server.collation))


def define(connection: Any, name: str, statement: str) -> None:
    """Execute a statement that makes or alters the table of that name.

    The server reckons with the longest row that there could be. Where that is too long it is told not to, and a row
    that is too long in earnest is refused when it comes. Raises `PluginError` if it lets nobody tell it.
    """
    import pymysql

    try:
        run(connection, statement)
    except pymysql.MySQLError as error:
        if number_of(error) != _ROW_TOO_LARGE:
            raise
        with contextlib.suppress(pymysql.MySQLError):
            run(connection, "set session innodb_strict_mode = off")
            try:
                run(connection, statement)
                return
            finally:
                run(connection, "set session innodb_strict_mode = on")
        raise PluginError(f"table `{name}` has too many columns for a row of MySQL: {explained(error)}") from error


def _without_unique(table: Table) -> Table:
    return table.with_columns([replace(column, unique=False) for column in table.columns])
