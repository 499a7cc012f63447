"""Changes of a live table: new columns in place, and what SQLite cannot alter by copying the rows into a table anew.

SQLite's own advice for such changes: make the new table, copy, drop the old one, rename
(https://www.sqlite.org/lang_altertable.html#otheralter).
"""

from __future__ import annotations

import logging

from catchment.destinations.sqlite import catalogue
from catchment.destinations.sqlite.catalogue import Run
from catchment.destinations.sqlite.types import DIALECT
from catchment.sdk import ChangeKind, Table, sql
from catchment.sdk.staging import STAGING_PREFIX

log = logging.getLogger("catchment.sqlite")

COPIED: frozenset[ChangeKind] = frozenset(
    {"change_type", "change_not_null", "change_primary_key", "move_pk_to_cq_id", "remove_column_not_null"}
)
"""Changes that copy the rows, if all of them fit the new table."""


def carry_out(run: Run, have: Table | None, table: Table, found: sql.Migration) -> bool:
    """Make the changes, in the transaction that is open; whether the rows that were there still are."""
    if found.action == "create":
        run(catalogue.definition(table, table.name))
    if found.action in ("none", "create") or have is None:
        return True
    found, reason = sql.fitted(DIALECT, have, table, found, run)
    if found.action == "alter" and not found.rewrites:
        for change in found.changes:
            if change.kind == "add_column" and change.current is not None:
                run(sql.add_column(DIALECT, table, change.current))
        return True
    if found.action == "alter":
        _copy(run, have, found.table)
        return True
    hung = [what for what, _ in catalogue.ties(run, have, {}).made]
    views = list(catalogue.views(run, table.name))
    log.warning("table `%s` is made anew, without the rows that were in it: %s", table.name, reason)
    if hung:
        log.warning("with table `%s` go: %s", table.name, ", ".join(hung))
    if views:
        log.warning("table `%s` is made anew, check what reads it: %s", table.name, ", ".join(views))
    run(sql.drop_table(DIALECT, table.name))
    run(catalogue.definition(table, table.name))
    return False


def _copy(run: Run, have: Table, want: Table) -> None:
    """Copy the rows into a table as `want` has it, which takes the place of the one that is there."""
    ties = catalogue.ties(run, have, {})
    if not ties.is_plain:
        log.warning("what was set by hand on table `%s` or its columns (checks, defaults, references) goes", have.name)
    new = f"{STAGING_PREFIX}copy.{have.name}"
    columns = [sql.converted(DIALECT, column, want.column(column.name)) for column in have.columns]
    run(catalogue.definition(want.renamed(new), want.name))
    run(
        f"insert into {DIALECT.table(new)} ({DIALECT.columns(have.column_names)}) "
        f"select {', '.join(columns)} from {DIALECT.table(have.name)}"
    )
    run(sql.drop_table(DIALECT, have.name))
    run(f"alter table {DIALECT.table(new)} rename to {DIALECT.quote(want.name)}")
    for _, statement in ties.made:
        run(statement)
