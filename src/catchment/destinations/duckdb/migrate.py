"""Changes of a live table: new columns in place, all else by copying the rows that fit into a table made anew.

DuckDB alters no key, and no type of a column that a key or an index is on
(https://duckdb.org/docs/stable/sql/statements/alter_table).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from typing import Any

from catchment.destinations.duckdb import catalogue
from catchment.destinations.duckdb.catalogue import Run
from catchment.destinations.duckdb.types import DIALECT
from catchment.sdk import Capabilities, ChangeKind, Table, sql
from catchment.sdk.staging import STAGING_PREFIX

log = logging.getLogger("catchment.duckdb")

COPIED: frozenset[ChangeKind] = frozenset(
    {"change_type", "change_not_null", "change_primary_key", "move_pk_to_cq_id", "remove_column_not_null"}
)
"""Changes that copy the rows, if all of them fit the new table."""


class Migrator:
    """Changes tables of one database."""

    def __init__(self, run: Run, connection: Any, capabilities: Capabilities) -> None:
        self._run = run
        self._connection = connection
        self._capabilities = capabilities

    def describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        return catalogue.describe(self._run, self._connection, name)

    def plan(self, table: Table, *, force: bool) -> tuple[Table | None, sql.Migration, str]:
        """The table that is there, what has to happen to it, and why its rows cannot stay if they cannot.

        Raises `MigrationRefused`, also for a table that cannot be dropped, as others refer to its rows.
        """
        have = self.describe(table.name)
        planned = sql.migration(DIALECT, have, table, self._capabilities, force=force)
        found, reason = sql.fitted(DIALECT, have, table, planned, self.ask)
        if found.action == "recreate" or found.rewrites:
            children = catalogue.children(self._run, table.name)
            if children:
                raise sql.hung_on(table.name, children)
        return have, found, reason

    def ask(self, query: str) -> Sequence[Sequence[Any]]:
        """All rows of a query."""
        rows: Sequence[Sequence[Any]] = self._run(query).fetchall()
        return rows

    def carry_out(self, have: Table | None, table: Table, found: sql.Migration, reason: str) -> None:
        """Make the changes, in the transaction that is open."""
        if found.action == "recreate":
            self.warn(table.name, reason)
            self._run(sql.drop_table(DIALECT, table.name))
        if found.action in ("create", "recreate"):
            self._run(sql.create_table(DIALECT, table))
        if found.action != "alter" or have is None:
            return
        if found.rewrites:
            self._copy(have, found.table)
            return
        for change in found.changes:
            if change.kind == "add_column" and change.current is not None:
                self._run(sql.add_column(DIALECT, table, change.current))

    def warn(self, name: str, reason: str) -> None:
        """Tell the log that a table's rows go, why, and which views may break."""
        log.warning("table `%s` is made anew, without the rows that were in it: %s", name, reason)
        views = list(catalogue.views(self._run, self._connection, name))
        if views:
            log.warning("table `%s` is made anew, check what reads it: %s", name, ", ".join(views))

    def definitions(self, final: Table, live: str, as_they_are: Set[str]) -> str:
        """Columns of `final` as in `create table`; of those that stay `as_they_are` the type is the live table's.

        It may be one that Arrow does not know.
        """
        kinds = {name: kind for name, kind, _ in catalogue.columns(self._run, live)} if as_they_are else {}
        return ", ".join(
            f"{DIALECT.quote(column.name)} {kinds[column.name]}{' not null' if column.not_null else ''}"
            if column.name in as_they_are
            else sql.column_definition(DIALECT, column)
            for column in final.columns
        )

    def _copy(self, have: Table, want: Table) -> None:
        """Copy the rows into a table as `want` has it, which takes the place of the one that is there."""
        if have.name in catalogue.ties(self._run).set_by_hand:
            log.warning(
                "what was set by hand on table `%s` or its columns (comments, checks, defaults) goes", have.name
            )
        indexes = catalogue.indexes(self._run, have.name)
        new = f"{STAGING_PREFIX}copy.{have.name}"
        same = {c.name for c in have.columns if not sql.is_retyped(DIALECT, c, want.column(c.name))}
        values = ", ".join(sql.converted(DIALECT, c, want.column(c.name)) for c in have.columns)
        self._run(f"create table {DIALECT.table(new)} ({self.definitions(want.without_keys(), have.name, same)})")
        self._run(
            f"insert into {DIALECT.table(new)} ({DIALECT.columns(have.column_names)}) "
            f"select {values} from {DIALECT.table(have.name)}"
        )
        if want.primary_keys:
            self._run(f"alter table {DIALECT.table(new)} add primary key ({DIALECT.columns(want.primary_keys)})")
        self._run(sql.drop_table(DIALECT, have.name))
        self._run(f"alter table {DIALECT.table(new)} rename to {DIALECT.quote(want.name)}")
        for statement in indexes:
            self._run(statement)
