"""Changes of a live table: new columns in place, all else by a copy that takes its place at once."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from catchment.destinations.clickhouse import catalogue, types
from catchment.destinations.clickhouse.catalogue import Definitions, Stored
from catchment.destinations.clickhouse.connection import Connection, Unknown
from catchment.destinations.clickhouse.types import DIALECT, quote, text_literal
from catchment.sdk import (
    Capabilities,
    ChangeKind,
    MigrationRefused,
    PluginError,
    PreviewedChange,
    Table,
    TablePreview,
    Transient,
    sql,
)
from catchment.sdk.staging import CQ_CLIENT_ID

log = logging.getLogger("catchment.clickhouse")

COPIED: frozenset[ChangeKind] = frozenset(
    {"change_type", "change_not_null", "change_primary_key", "move_pk_to_cq_id", "remove_column_not_null"}
)
"""Changes that copy the rows, if all of them fit the new table."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to happen to a table."""

    stored: Stored | None
    have: Table | None
    want: Table
    """As it was asked for, but for what ClickHouse cannot tell apart."""
    found: sql.Migration
    reason: str = ""
    """Why the rows that are there cannot stay, where they cannot."""
    layout: tuple[str, ...] = ()
    """What the spec says otherwise of order and partitions than the table has."""

    @property
    def copies(self) -> bool:
        """Whether rows have to be copied."""
        is_copied = any(change.kind in COPIED for change in self.found.changes)
        return self.found.action == "alter" and bool(is_copied or self.layout)


class Migrator:
    """Looks at live tables and changes them."""

    def __init__(
        self,
        connection: Connection,
        definitions: Definitions,
        capabilities: Capabilities,
        scratch: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._definitions = definitions
        self._capabilities = capabilities
        self._scratch = scratch

    def plan(self, table: Table, *, force: bool) -> Plan:
        """What has to happen. Raises `MigrationRefused`."""
        plan = self.plan_staged(table, force=force)
        if plan.layout and not force:
            raise _needs_force(table.name, plan.layout)
        return plan

    def carry_out(self, plan: Plan) -> None:
        """Make the changes."""
        definitions, name = self._definitions, plan.want.name
        if plan.found.action == "recreate":
            self.warn(plan)
            self._connection.run(definitions.drop(name))
        if plan.found.action in ("create", "recreate"):
            self._connection.run(definitions.create(plan.want))
            return
        assert plan.stored is not None
        if plan.copies:
            self._copy(plan)
            return
        self._add_columns(plan, name)
        self.set_ttl(plan.stored, plan.want, name)

    def preview(self, table: Table, *, force: bool) -> TablePreview:
        """What `plan` and `carry_out` would do, and which views read a table that would be made anew."""
        preview = self._preview(table, force=force)
        if preview.action not in ("recreate", "refused"):
            return preview
        views = tuple(catalogue.views(self._connection, table.name))
        published = preview.when_published
        return replace(preview, dependents=views, when_published=published and replace(published, dependents=views))

    def _preview(self, table: Table, *, force: bool) -> TablePreview:
        stored = catalogue.look(self._connection, table.name)
        have, want = _comparable(stored, table)
        preview = sql.preview(DIALECT, have, want, self._capabilities, force=force, ask=self._connection.rows)
        if stored is None:
            return preview
        preview = replace(preview, rows=stored.rows)
        try:
            plan = self.plan_staged(table, force=force)
        except MigrationRefused as error:
            return preview.refused(error)
        if not plan.layout:
            return replace(preview, action="alter") if plan.copies else preview
        told = [PreviewedChange("change_layout", "", text, "safe" if force else "forced") for text in plan.layout]
        altered = replace(preview, action="alter", changes=(*preview.changes, *told))
        if force:
            return altered
        published = [replace(change, safety="safe") for change in told]
        return replace(
            altered.refused(_needs_force(table.name, plan.layout)),
            when_published=replace(altered, changes=(*preview.changes, *published)),
        )

    def warn(self, plan: Plan) -> None:
        """Tell the log that a table's rows go, why, and which views may break."""
        log.warning("table `%s` is made anew, without the rows that were in it: %s", plan.want.name, plan.reason)
        views = catalogue.views(self._connection, plan.want.name)
        if views:
            log.warning("table `%s` is made anew, check what reads it: %s", plan.want.name, ", ".join(views))

    def selected(self, plan: Plan, columns: Sequence[str]) -> str:
        """Columns of the live table as the new one takes them."""
        assert plan.have is not None
        parts = (
            f"{sql.converted(DIALECT, plan.have.column(name), plan.found.table.column(name))} as {quote(name)}"
            for name in columns
        )
        return ", ".join(parts)

    def plan_staged(self, table: Table, *, force: bool) -> Plan:
        """As `plan` for a table that is published: its new layout comes with the new rows."""
        stored = catalogue.look(self._connection, table.name)
        if stored is not None and stored.is_view:
            raise MigrationRefused(
                f"table `{table.name}` cannot be written to: its engine is `{stored.engine}`",
                hint="drop it, or rename the table with a transformer",
            )
        have, want = _comparable(stored, table)
        planned = sql.migration(DIALECT, have, want, self._capabilities, force=force)
        found, reason = sql.fitted(DIALECT, have, want, planned, self._connection.rows)
        layout = self._layout_changes(stored, want) if stored is not None and found.action != "recreate" else ()
        if layout and found.action == "none":
            found = replace(found, action="alter")
        return Plan(stored, have, want, found, reason, layout)

    def _layout_changes(self, stored: Stored, want: Table) -> tuple[str, ...]:
        """What the spec asks for in so many words and the table does not have."""
        definitions, found = self._definitions, []
        if definitions.asks_for_order(want):
            wanted = self._canonical(", ".join(definitions.order(want)))
            if wanted != stored.sorting:
                found.append(f"rows are to be sorted by `{wanted}`, and are by `{stored.sorting}`")
        if definitions.partition(want):
            wanted = self._canonical(definitions.partition(want))
            if wanted != stored.partition:
                found.append(f"partitions are to be `{wanted}`, and are `{stored.partition}`")
        return tuple(found)

    def _canonical(self, expressions: str) -> str:
        """Expressions as the catalogue writes them."""
        query = text_literal(f"select {expressions}")
        return str(self._connection.rows(f"select formatQuerySingleLine({query})")[0][0]).removeprefix("SELECT ")

    def make(self, plan: Plan, name: str) -> None:
        """A table for new rows under another name: as the live one is, or else as the spec has it."""
        definitions = self._definitions
        if not self.is_like_live(plan):
            table = plan.found.table.renamed(plan.want.name)
            self._connection.run(definitions.create(table, name=name))
            return
        assert plan.stored is not None
        self._connection.run(definitions.create_like(name, plan.want.name))
        self._add_columns(plan, name)
        self.set_ttl(plan.stored, plan.want, name)
        if plan.stored.is_keyed is None:
            comment = text_literal(catalogue.comment_of(plan.want))
            self._connection.run(f"alter table {quote(name)}{definitions.on_cluster} modify comment {comment}")

    def is_like_live(self, plan: Plan) -> bool:
        """Whether a table that is made for new rows has all that the live one has: order, indexes, settings."""
        return plan.stored is not None and plan.found.action in ("none", "alter") and not plan.copies

    def sorting(self, plan: Plan) -> list[str]:
        """What the rows of such a table are sorted by."""
        if self.is_like_live(plan) and plan.stored is not None:
            return types.split(f"({plan.stored.sorting})")[1] if plan.stored.sorting else []
        return self._definitions.order(plan.found.table.renamed(plan.want.name))

    def set_ttl(self, stored: Stored, want: Table, name: str) -> None:
        """Give the table the time to live that the spec has, if it has one."""
        ttl = self._definitions.ttl(want)
        if not ttl:
            return
        has = re.search(r" TTL (.*?)(?: SETTINGS | COMMENT |$)", stored.definition)
        if has is None or has[1] != self._canonical(ttl):
            self._connection.run(f"alter table {quote(name)}{self._definitions.on_cluster} modify ttl {ttl}")

    def _add_columns(self, plan: Plan, name: str) -> None:
        for change in plan.found.changes:
            if change.kind == "add_column" and change.current is not None:
                column = plan.want.column(change.column)
                self._connection.run(catalogue.add_column(name, column, self._definitions.on_cluster))

    def _copy(self, plan: Plan) -> None:
        """A new table with the rows of the old one takes its place."""
        assert plan.stored is not None
        definitions, fresh, name = self._definitions, self._scratch(), plan.want.name
        columns = plan.stored.table.column_names
        try:
            for _ in range(_TRIES):
                before = self.mark(name)
                self._connection.run(definitions.drop(fresh))
                self._connection.run(definitions.create(plan.found.table.renamed(name), name=fresh))
                self._connection.move(
                    f"insert into {quote(fresh)} ({DIALECT.columns(columns)}) "
                    f"select {self.selected(plan, columns)} from {quote(name)}"
                )
                if self.exchange(name, fresh, before):
                    return
            raise busy(name)
        except Unknown as error:
            raise Transient(str(error)) from error
        finally:
            with contextlib.suppress(PluginError):
                # One that stays goes with the run.
                self._connection.run(definitions.drop(fresh))

    def mark(self, name: str) -> tuple[str, int | None]:
        """What changes when others write to a table, or put another one in its place."""
        found = self._connection.rows(
            "select toString(uuid), total_rows from system.tables "
            f"where database = currentDatabase() and name = {text_literal(name)}"
        )
        return found[0] if found else ("", None)

    def exchange(self, live: str, fresh: str, before: tuple[str, int | None]) -> bool:
        """Put `fresh` in the place of `live`, and `live` in its; false if others had written to it since `before`.

        Those who write in the very moment are seen as well: then the tables are exchanged back.
        """
        if self.mark(live) != before:
            return False
        new, _ = self.mark(fresh)
        statement = f"exchange tables {quote(live)} and {quote(fresh)}{self._definitions.on_cluster}"
        self._exchange(statement, live, new)
        if self.mark(fresh) == before:
            return True
        self._exchange(statement, fresh, new)
        return False

    def rename(self, fresh: str, live: str) -> bool:
        """Make `fresh` the live table, of which there was none; false if there is one by now."""
        new, _ = self.mark(fresh)
        try:
            self._exchange(f"rename table {quote(fresh)} to {quote(live)}{self._definitions.on_cluster}", live, new)
        except Transient:
            raise
        except PluginError:
            if self.mark(live)[0]:
                return False
            raise
        return True

    def _exchange(self, statement: str, place: str, uuid: str) -> None:
        """Run a statement that puts the table with this uuid in its place, and make sure that it did, once."""
        for attempt in range(_TRIES):
            try:
                self._connection.run_once(statement)
                return
            except (Unknown, Transient) as error:
                time.sleep(min(0.2 * 2**attempt, 3.0))
                if self.mark(place)[0] == uuid:
                    return
                failure = error
        raise Transient(str(failure)) from failure


def _needs_force(name: str, layout: Sequence[str]) -> MigrationRefused:
    """The error for a live table whose rows would have to be laid out anew."""
    return MigrationRefused(
        f"table `{name}` cannot be migrated in `migrate_mode: safe`: {'; '.join(layout)}",
        hint="run once with `migrate_mode: forced`, which copies the rows; or with `publish: atomic` and "
        "`write_mode: overwrite-delete-stale`, whose next publish makes the change",
    )


def busy(name: str) -> PluginError:
    """The error for a table that others keep writing to."""
    return PluginError(
        f"table `{name}` was not changed: others kept writing to it", hint="let them end, then sync again"
    )


def _comparable(stored: Stored | None, table: Table) -> tuple[Table | None, Table]:
    """The table that is there and the one that is wanted, without what ClickHouse cannot tell apart."""
    if stored is None:
        have, kept = None, table
    else:
        have = stored.table
        if stored.is_keyed is None:
            # It does not say what its key is, so it is taken for the one that is wanted.
            have = have.with_columns(replace(c, primary_key=c.name in table.primary_keys) for c in have.columns)
        have = have.with_columns(replace(c, not_null=c.not_null or c.primary_key) for c in have.columns)
        kept = have
    columns = []
    for column in table.columns:
        if types.is_compound(column.type):
            column = replace(column, not_null=False)
        elif column.name == CQ_CLIENT_ID and not column.primary_key:
            # Older rows have none, and that is no reason to refuse a table.
            there = have is not None and column.name in kept
            column = replace(column, not_null=there and kept.column(column.name).not_null)
        columns.append(column)
    return have, table.with_columns(columns)
