"""How a staged table becomes visible: it is completed beside the live one, and the two are exchanged.

Where live rows stay, or keys came twice, a third table is built from both and exchanged: the live one is never changed,
so readers see all of the old rows or all of the new ones. What others write to the live table meanwhile is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from catchment.destinations.clickhouse.catalogue import Definitions, Stored, add_column, look
from catchment.destinations.clickhouse.connection import Connection, Unknown
from catchment.destinations.clickhouse.migrate import Migrator, Plan, busy
from catchment.destinations.clickhouse.staging import Staged, Staging
from catchment.destinations.clickhouse.types import DIALECT, quote, text_literal
from catchment.sdk import PluginError, Published, Swap, Transient
from catchment.sdk.staging import CQ_ID, CQ_PARENT_ID, CQ_SOURCE_NAME

COUNTED_ROWS = 500_000
"""Live rows of the source up to which stale ones are counted: counting joins the live table with the new one."""
LATEST_FIRST = "toUInt64(splitByChar('_', _part)[-3]) desc, _part_offset desc"
"""Rows that came later before those that came earlier: parts are numbered, and keep the order of equal rows."""
_TRIES = 5


@dataclass(slots=True)
class _Step:
    """What has to be done for one swap."""

    swap: Swap
    staged: Staged
    plan: Plan
    before: tuple[str, int | None]
    """The live table as it was when its rows were looked at."""
    fresh: str
    """The table that takes its place."""
    done: Published = field(default_factory=lambda: Published(0, 0))

    @property
    def live(self) -> Stored | None:
        """The live table whose rows may stay."""
        return self.plan.stored if self.plan.found.action != "recreate" else None

    @property
    def keys(self) -> str:
        """The key's columns; empty for a table without."""
        return DIALECT.columns(self.swap.table.primary_keys)

    @property
    def own(self) -> str:
        """Whether a live row is of the source that publishes."""
        if self.live is None or CQ_SOURCE_NAME not in self.live.table:
            # Rows that nobody signed are nobody's to delete.
            return "false"
        return f"ifNull({quote(CQ_SOURCE_NAME)} = {text_literal(self.swap.source_name)}, false)"

    @property
    def absent(self) -> str:
        """Whether a live row's key is not in the new load."""
        return absent(self.keys, quote(self.swap.staged.name)) if self.keys else "true"


def absent(keys: str, table: str, others: str = "") -> str:
    """Whether the keys of a row are not in another table, under other names if so.

    Not `not exists`: ClickHouse before 25.8 takes no subquery that looks at the row around it.
    """
    return f"not ifNull(({keys}) in (select {others or keys} from {table}), false)"


def unique(table: str, keys: str) -> str:
    """The query for how many keys there are; five times faster than `uniqExact`."""
    return f"select count() from (select 1 from {table} group by {keys})"


class Publisher:
    """Publishes the staged tables of one destination."""

    def __init__(self, connection: Connection, definitions: Definitions, staging: Staging, migrator: Migrator) -> None:
        self._connection = connection
        self._definitions = definitions
        self._staging = staging
        self._migrator = migrator
        self._published: dict[str, Published] = {}
        """By name of the staged table: a publish that is tried again must not exchange the tables back."""

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Complete every table, then exchange them, one right after the other."""
        waiting = [swap for swap in swaps if swap.staged.name not in self._published]
        for swap in waiting:
            self._check(swap)
        for step in [self._prepared(swap) for swap in waiting]:
            self._exchange(step)
        return {swap.table.name: self._told(swap) for swap in swaps}

    def _told(self, swap: Swap) -> Published:
        """What is reported of a table, with the rows that have lost their parents now that all tables are new."""
        done = self._published[swap.staged.name]
        if not swap.parent:
            return done
        lost = absent(quote(CQ_PARENT_ID), quote(swap.parent), quote(CQ_ID))
        return replace(
            done,
            orphans=self._count(
                f"select count() from {quote(swap.table.name)} where {quote(CQ_PARENT_ID)} is not null and {lost}"
            ),
        )

    def _exchange(self, step: _Step) -> None:
        name = step.swap.table.name
        for _ in range(_TRIES):
            moved = (
                self._migrator.exchange(name, step.fresh, step.before)
                if step.plan.stored is not None
                else self._migrator.rename(step.fresh, name)
            )
            if moved:
                self._published[step.swap.staged.name] = step.done
                self._staging.drop({step.fresh, step.swap.staged.name})
                return
            if step.fresh != step.swap.staged.name:
                self._staging.drop([step.fresh])
            step = self._prepared(step.swap)
        raise busy(name)

    def _check(self, swap: Swap) -> None:
        """Raises `PluginError` if the server does not have all the rows that it took, as after a crash."""
        staged = self._staging.get(swap.staged.name)
        there = look(self._connection, swap.staged.name)
        wanted = staged.rows if staged is not None else 0
        found = self._count(f"select count() from {quote(swap.staged.name)}") if there is not None else 0
        if found != wanted or there is None:
            raise PluginError(
                f"of {wanted:,} staged rows of table `{swap.table.name}` the server has {found:,}",
                hint="nothing was published; sync again",
            )

    def _prepared(self, swap: Swap) -> _Step:
        """The table that is to take the live one's place, complete."""
        staged = self._staging.get(swap.staged.name)
        assert staged is not None
        before = self._migrator.mark(swap.table.name)
        # The live table may have changed since the rows were staged.
        plan = self._migrator.plan_staged(swap.table, force=staged.forced)
        step = _Step(swap, staged, plan, before, swap.staged.name)
        if plan.found.action == "recreate":
            self._migrator.warn(plan)
        if step.live is None:
            step.done = Published() if plan.stored is not None else Published(0, 0)
        kept = self._count_live(step) if step.live is not None else 0
        is_twice = bool(step.keys) and self._has_twice(step)
        self._add_columns(step, swap.staged.name)
        try:
            if staged.make is not None or is_twice or kept:
                self._build(step, is_twice=is_twice, kept=kept)
        except Unknown as error:
            raise Transient(str(error)) from error
        return step

    def _count_live(self, step: _Step) -> int:
        """How many live rows stay; notes how many of the source's go."""
        table = quote(step.swap.table.name)
        own, others = self._connection.rows(f"select countIf({step.own}), countIf(not {step.own}) from {table}")[0]
        keeps_all = step.swap.keep == "all"
        step.done = Published()
        if own <= COUNTED_ROWS:
            stale = self._count(f"select count() from {table} where {step.own} and {step.absent}") if own else 0
            step.done = Published(0, stale) if keeps_all else Published(stale, 0)
        return int(own + others) if keeps_all else int(others)

    def _has_twice(self, step: _Step) -> bool:
        """Whether a key was staged more than once."""
        staged = quote(step.swap.staged.name)
        query = f"select (select count() from {staged}), ({unique(staged, step.keys)})"
        total, found = self._connection.rows(query)[0]
        return bool(total > found)

    def _add_columns(self, step: _Step, name: str) -> None:
        """Columns that came with another source's sync, after these rows were staged."""
        there = look(self._connection, name) if step.live is not None else None
        for column in step.live.table.columns if step.live is not None else ():
            if there is not None and column.name not in there.table:
                self._connection.run(add_column(name, column, self._definitions.on_cluster))

    def _build(self, step: _Step, *, is_twice: bool, kept: int) -> None:
        """A table of its own for the rows that are published."""
        name, staged, make = self._staging.scratch(), quote(step.swap.staged.name), step.staged.make
        if make is None:
            self._connection.run(self._definitions.create_like(name, step.swap.staged.name))
        else:
            make(name)
            self._add_columns(step, name)
        step.fresh = name
        columns = DIALECT.columns(step.staged.final.column_names)
        if make is not None or is_twice:
            last = f" order by {LATEST_FIRST} limit 1 by {step.keys}" if is_twice else ""
            self._connection.move(f"insert into {quote(name)} ({columns}) select {columns} from {staged}{last}")
        else:
            self._attach(step.swap.staged.name, name)
        if kept and step.live is not None:
            which = step.absent if step.swap.keep == "all" else f"not {step.own} and {step.absent}"
            live = step.live.table.column_names
            self._connection.move(
                f"insert into {quote(name)} ({DIALECT.columns(live)}) "
                f"select {self._migrator.selected(step.plan, live)} from {quote(step.swap.table.name)} where {which}"
            )

    def _attach(self, source: str, target: str) -> None:
        """All rows of a table of the same structure into another one, without copying them."""
        found = self._connection.rows(
            "select distinct partition_id from system.parts "
            f"where database = currentDatabase() and table = {text_literal(source)} and active"
        )
        for (partition,) in found:
            self._connection.run_once(
                f"alter table {quote(target)} attach partition id {text_literal(partition)} from {quote(source)}"
            )

    def _count(self, query: str) -> int:
        return int(self._connection.rows(query)[0][0])
