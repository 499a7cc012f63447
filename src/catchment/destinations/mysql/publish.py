"""How staged tables become visible: their indexes are built first, then one statement renames all of them at once.

`rename table` is atomic over any number of tables, and views and grants go by a table's name, so they survive. Triggers
and foreign keys do not; where a live table has any, all rows of the sync move into the live tables in one transaction
instead. MySQL cannot rename within a transaction, so it is one or the other for all tables.
"""

from __future__ import annotations

import graphlib
import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeAlias

from catchment.destinations.mysql import catalogue, migrate
from catchment.destinations.mysql.catalogue import Ties
from catchment.destinations.mysql.connection import (
    LOCK_WAIT_S,
    LOCK_WAIT_TIMEOUT,
    Connections,
    Exact,
    asking,
    changed,
    number_of,
    run,
    transaction,
)
from catchment.destinations.mysql.staging import Staging
from catchment.destinations.mysql.types import DIALECT
from catchment.sdk import Capabilities, PluginError, Published, Swap, sql
from catchment.sdk.publishing import Step
from catchment.sdk.staging import CQ_SOURCE_NAME

log = logging.getLogger("catchment.mysql")

COUNTED_ROWS = 500_000
"""Rows of a source up to which stale ones are counted: each is looked for among the new ones."""
READERS_TIMEOUT_S = 2
"""Seconds to wait for readers, while new ones wait behind us, before they are let through."""
READERS_TRIES = 30
_OLD = ".old"
"""End of the name that a live table has when another has taken its place, until it is dropped."""
_Step: TypeAlias = Step[Ties]


class Publisher:
    """Publishes the staged tables of one destination."""

    def __init__(self, connections: Connections, staging: Staging, capabilities: Capabilities) -> None:
        self._connections = connections
        self._staging = staging
        self._capabilities = capabilities

    def publish(self, swaps: Sequence[Swap]) -> dict[str, Published]:
        """Make every swap visible together."""
        ordered = sorted(swaps, key=lambda swap: swap.table.name)
        names = [swap.staged.name for swap in ordered]
        self._staging.check(names)
        if not all(self._staging.of(name).is_renamed for name in names):
            self._build_indexes(names)
        with self._connections.locked(swap.table.name for swap in ordered) as connection:
            # Whoever was asked to rename before had these locks, and is gone.
            if self._was_renamed(connection, names):
                steps = [Step(DIALECT, swap, None, Ties(), done=Published()) for swap in ordered]
            elif any(self._staging.of(name).has_taken for name in names):
                # The rows that were copied then may have changed, and nobody knows them any more.
                raise PluginError("the connection was lost, nothing was published", hint="sync again")
            else:
                steps = [self._step(connection, swap) for swap in ordered]
                if any(step.merges for step in steps):
                    self._merge(connection, steps)
                else:
                    self._exchange(connection, steps)
            for step in steps:
                if step.swap.parent:
                    count = run(connection, sql.count_orphans(DIALECT, step.name, step.swap.parent))[0][0]
                    step.done = replace(step.done, orphans=int(count))
            self._tidy(connection, names)
        return {step.name: step.done for step in steps}

    def _was_renamed(self, connection: Any, names: Sequence[str]) -> bool:
        """Whether a publish that is tried again was carried out the first time."""
        asked = all(self._staging.of(name).is_renamed for name in names)
        return asked and not any(catalogue.is_there(connection, name) for name in names)

    def _build_indexes(self, names: Iterable[str]) -> None:
        """All indexes of each staged table in one statement, two tables at a time."""
        with ThreadPoolExecutor(2, thread_name_prefix="build-indexes") as pool:
            for future in [pool.submit(self._build, name) for name in names]:
                future.result()

    def _build(self, name: str) -> None:
        wanted = self._staging.of(name)
        if not wanted.indexes:
            return
        with self._connections.lent() as connection:
            # They may be there already, from a publish that is tried again.
            there = catalogue.indexes(connection, name)
            missing = [definition for index, definition in wanted.indexes.items() if index not in there]
            if missing:
                adds = ", ".join(f"add {definition}" for definition in missing)
                migrate.define(connection, wanted.final.name, f"alter table {DIALECT.table(name)} {adds}")

    def _step(self, connection: Any, swap: Swap) -> _Step:
        """Look at the live table."""
        server, name = self._connections.server, swap.table.name
        catalogue.check_kind(connection, name)
        live = catalogue.described(connection, server, swap.table)
        step = Step(DIALECT, swap, live, catalogue.ties(connection, name) if live is not None else Ties())
        if live is None:
            return step
        # The live table may have changed since the rows were staged.
        forced = self._staging.of(swap.staged.name).forced
        found = sql.migration(DIALECT, live, swap.table, self._capabilities, force=forced)
        if (found.action == "recreate" or found.rewrites) and step.ties.children:
            raise sql.hung_on(name, catalogue.hanging(connection, name))
        found, reason = sql.fitted(DIALECT, live, swap.table, found, asking(connection))
        if found.action == "recreate":
            migrate.warn(connection, name, reason)
            step.live, step.done = None, Published()
            return step
        own, others = _count_rows(connection, step)
        step.done = _count_stale(connection, step, own)
        step.merges = step.ties.any
        step.takes_over = bool(others) or (swap.keep == "all" and bool(own))
        return step

    def _exchange(self, connection: Any, steps: Sequence[_Step]) -> None:
        """Copy what stays of the live rows into the staged tables, then rename them all at once."""
        for step in steps:
            if step.takes_over:
                self._take_over(connection, step)
        renames = []
        for step in steps:
            old = DIALECT.table(step.swap.staged.name + _OLD)
            if catalogue.is_there(connection, step.name):
                renames.append(f"{step.table} to {old}")
            renames.append(f"{step.staged} to {step.table}")
            self._staging.of(step.swap.staged.name).is_renamed = True
        _rename(connection, steps, f"rename table {', '.join(renames)}")

    def _take_over(self, connection: Any, step: _Step) -> None:
        """Copy live rows that stay, whose keys are not in the new load."""
        assert step.live is not None
        have = catalogue.describe(connection, self._connections.server, step.swap.staged.name)
        for column in step.live.columns:
            if have is not None and column.name not in have:
                # It came with another source's sync, after these rows were staged.
                kind = catalogue.raw_type(column)
                added = f"alter table {step.staged} add column {DIALECT.quote(column.name)} {kind}"
                migrate.define(connection, step.name, added)
        made = catalogue.generated(connection, step.name)
        names = [name for name in step.live.column_names if name not in made]
        final, live = self._staging.of(step.swap.staged.name).final, step.live
        values = ", ".join(
            sql.converted(DIALECT, live.column(name), final.column(name) if name in final else live.column(name))
            for name in names
        )
        statement = (
            f"insert into {step.staged} ({DIALECT.columns(names)}) select {values} from {step.table} as l "
            f"where not {step.in_load}"
        )
        everyone = step.swap.keep == "all" or CQ_SOURCE_NAME not in step.live
        bound = [] if everyone else [Exact(step.swap.source_name)]
        with transaction(connection):
            run(connection, statement if everyone else f"{statement} and not {step.own}", bound)
            self._staging.of(step.swap.staged.name).has_taken = True

    def _merge(self, connection: Any, steps: Sequence[_Step]) -> None:
        """Change the live tables in one transaction to what renaming would have left.

        Stale rows go first, so that what is unique in them is free; but those that others refer to go last, when all
        who refer to them are gone, or changed.
        """
        self._alter_live(connection, steps)
        ordered = _parents_first(steps)
        added = [step.name for step in steps if step.swap.keep == "all" and not step.swap.table.primary_keys]
        # Lost in the middle of the commit, all is done once more and comes to the same, but for what is only added.
        with transaction(connection, again=not added):
            for step in ordered:
                if not step.ties.children:
                    _delete_stale(connection, step)
            for step in ordered:
                _fill(connection, step)
            for step in reversed(ordered):
                if step.ties.children:
                    _delete_stale(connection, step)

    def _alter_live(self, connection: Any, steps: Sequence[_Step]) -> None:
        """Give live tables their new columns, and make those that are missing: what MySQL has no transaction for."""
        server = self._connections.server
        for step in steps:
            if step.live is None:
                run(connection, sql.drop_table(DIALECT, step.name))
                migrate.create(connection, server, step.swap.table)
                step.live = step.swap.table
                continue
            forced = self._staging.of(step.swap.staged.name).forced
            found = sql.migration(DIALECT, step.live, step.swap.table, self._capabilities, force=forced)
            migrate.carry_out(connection, server, self._connections.database, step.live, step.swap.table, found)

    def _tidy(self, connection: Any, names: Sequence[str]) -> None:
        """Drop what is of no more use. What stays is dropped when the run ends, or by the next one."""
        for name in names:
            for left in (name, name + _OLD):
                run(connection, f"drop table if exists {DIALECT.table(left)}")


def _rename(connection: Any, steps: Sequence[_Step], statement: str) -> None:
    """Wait for those who read the tables, but let new ones through now and then. Raises `PluginError` at last."""
    import pymysql

    run(connection, f"set session lock_wait_timeout = {READERS_TIMEOUT_S}")
    try:
        for attempt in itertools.count(1):
            try:
                run(connection, statement)
                return
            except pymysql.MySQLError as error:
                if number_of(error) != LOCK_WAIT_TIMEOUT or not connection.open:
                    raise
                if attempt >= READERS_TRIES:
                    named = ", ".join(f"`{step.name}`" for step in steps if step.live is not None)
                    raise PluginError(
                        f"nothing was published: {named} could not be had alone, others kept reading",
                        hint="end their transactions (`show processlist` names them), then sync again",
                    ) from error
            time.sleep(READERS_TIMEOUT_S / 2)
    finally:
        if connection.open:
            run(connection, f"set session lock_wait_timeout = {LOCK_WAIT_S}")


def _count_rows(connection: Any, step: _Step) -> tuple[int, int]:
    """Live rows of this source, and of others."""
    assert step.live is not None
    if CQ_SOURCE_NAME not in step.live:
        # Rows that nobody signed are nobody's to delete.
        return 0, int(run(connection, f"select count(*) from {step.table}")[0][0])
    counted = f"select coalesce(sum({step.own}), 0), count(*) from {step.table} as l"
    own, everything = run(connection, counted, [Exact(step.swap.source_name)])[0]
    return int(own), int(everything) - int(own)


def _count_stale(connection: Any, step: _Step, own: int) -> Published:
    """This source's live rows whose keys are not in the new load; not counted where that costs too much."""
    if own > COUNTED_ROWS or step.live is None or CQ_SOURCE_NAME not in step.live:
        return Published()
    if not own:
        return step.counted(0)
    counted = f"select count(*) from {step.table} as l where {step.own} and not {step.in_load}"
    return step.counted(int(run(connection, counted, [Exact(step.swap.source_name)])[0][0]))


def _parents_first(steps: Sequence[_Step]) -> list[_Step]:
    """The steps, each behind those that its foreign keys refer to; in their own order where that goes in a circle."""
    by_name = {step.name: step for step in steps}
    order = graphlib.TopologicalSorter(
        {
            step.name: {parent for parent in step.ties.parents if parent in by_name and parent != step.name}
            for step in steps
        }
    )
    try:
        return [by_name[name] for name in order.static_order()]
    except graphlib.CycleError:
        return list(steps)


def _delete_stale(connection: Any, step: _Step) -> None:
    if step.swap.keep != "all" and step.live is not None and CQ_SOURCE_NAME in step.live:
        statement = f"delete l from {step.table} as l where {step.own} and not {step.in_load}"
        changed(connection, statement, [Exact(step.swap.source_name)])


def _fill(connection: Any, step: _Step) -> None:
    """New rows in, and those of equal keys changed in place, which keeps what refers to them."""
    made = catalogue.generated(connection, step.name)
    names = [name for name in step.swap.table.column_names if name not in made]
    columns, keys = DIALECT.columns(names), step.swap.table.primary_keys
    gone = catalogue.left_out(connection, step.name, step.swap.table.column_names)
    run(connection, f"insert into {step.table} ({columns}) {upserted(step.staged, names, keys, gone)}")


def upserted(source: str, names: Sequence[str], keys: Sequence[str], gone: Sequence[str]) -> str:
    """The end of an `insert` of all rows of a quoted table: rows of equal keys are changed to them.

    Columns that are `gone` from the source get what a new row has in them.
    """
    selected = f"select {', '.join(f's.{DIALECT.quote(name)}' for name in names)} from {source} as s"
    if not keys:
        return selected
    others = [name for name in names if name not in keys] or list(keys[:1])
    changes = [f"{DIALECT.quote(name)} = s.{DIALECT.quote(name)}" for name in others]
    changes += [f"{DIALECT.quote(name)} = default" for name in gone]
    return f"{selected} on duplicate key update {', '.join(changes)}"
