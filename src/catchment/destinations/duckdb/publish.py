"""How staged tables become visible: each gets its key and the live one's name, or is merged into it, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from catchment.destinations.duckdb import catalogue
from catchment.destinations.duckdb.catalogue import Run, Ties
from catchment.destinations.duckdb.migrate import Migrator
from catchment.destinations.duckdb.types import DIALECT
from catchment.sdk import Published, Swap, Table, sql
from catchment.sdk.staging import CQ_SOURCE_NAME

ORDER_NAME = "_catchment_order"
"""The column of a staged table with the numbers of its rows; of rows with equal keys the one that came last stays."""
ORDER = f'"{ORDER_NAME}"'
_ABSENT = '"_catchment_absent"'


class Publisher:
    """Publishes the staged tables of one destination."""

    def __init__(
        self, run: Run, migrator: Migrator, ties: Ties, *, forced: Set[str], numbered: Mapping[str, int]
    ) -> None:
        self._run = run
        self._migrator = migrator
        self._ties = ties
        self._forced = forced
        """Staged tables that may replace a live one which their rows do not fit."""
        self._numbered = numbered
        """Rows that went into staged tables; some may be deleted since."""

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Make every swap visible, in the transaction that is open."""
        done = {swap.table.name: self._publish(swap) for swap in swaps}
        for swap in swaps:
            if swap.parent:
                found = self._run(sql.count_orphans(DIALECT, swap.table.name, swap.parent)).fetchone()
                done[swap.table.name] = replace(done[swap.table.name], orphans=found[0])
        return done

    def _publish(self, swap: Swap) -> Published:
        keys, staged = swap.table.primary_keys, DIALECT.table(swap.staged.name)
        done = Published(0, 0)
        if keys:
            self._keep_last(swap)
        # The live table may have changed since the rows were staged.
        have, found, reason = self._migrator.plan(swap.table, force=swap.staged.name in self._forced)
        if have is not None and found.rewrites:
            self._migrator.carry_out(have, swap.table, found, reason)
            have = self._migrator.describe(swap.table.name)
        if have is not None and found.action != "recreate" and swap.table.name in self._ties.tied:
            return self._merge(swap, have)
        if have is not None and found.action == "recreate":
            # Of a table that is made anew nothing stays: its rows do not fit.
            self._migrator.warn(swap.table.name, reason)
            done = Published()
        elif have is not None:
            done = self._keep_live_rows(swap, have)
        if keys:
            self._run(f"alter table {staged} add primary key ({DIALECT.columns(keys)})")
        if have is not None:
            self._run(sql.drop_table(DIALECT, swap.table.name))
        self._run(f"alter table {staged} rename to {DIALECT.quote(swap.table.name)}")
        return done

    def _keep_last(self, swap: Swap) -> None:
        """Of rows with equal keys keep the one that came last; the numbers of rows go."""
        staged, quoted = DIALECT.table(swap.staged.name), DIALECT.columns(swap.table.primary_keys)
        unique = self._count(f"(select distinct {quoted} from {staged})")
        if unique == self._numbered[swap.staged.name] or unique == self._count(staged):
            self._run(f"alter table {staged} drop column {ORDER}")
            return
        # A copy, not a delete: a key cannot be built over rows that were deleted in the same transaction.
        copy = f"{swap.staged.name}.unique"
        stored = [column for column in catalogue.columns(self._run, swap.staged.name) if column[0] != ORDER_NAME]
        columns = ", ".join(
            f"{DIALECT.quote(name)} {kind}{' not null' if strict else ''}" for name, kind, strict in stored
        )
        self._run(f"create table {DIALECT.table(copy)} ({columns})")
        self._run(
            f"insert into {DIALECT.table(copy)} select {DIALECT.columns([name for name, _, _ in stored])} "
            f"from {staged} where {ORDER} in (select max({ORDER}) from {staged} group by {quoted})"
        )
        self._run(sql.drop_table(DIALECT, swap.staged.name))
        self._run(f"alter table {DIALECT.table(copy)} rename to {DIALECT.quote(swap.staged.name)}")

    def _keep_live_rows(self, swap: Swap, have: Table) -> Published:
        """Copy the live rows that stay into the staged table; how many of this source's went and stayed."""
        live, staged = DIALECT.table(swap.table.name), DIALECT.table(swap.staged.name)
        staged_names = {name for name, _, _ in catalogue.columns(self._run, swap.staged.name)}
        for name, kind, _ in catalogue.columns(self._run, swap.table.name):
            if name not in staged_names:
                # It came with another source's sync, after these rows were staged.
                self._run(f"alter table {staged} add column {DIALECT.quote(name)} {kind}")
        # Looked for once: that takes as long as the key takes to build.
        self._run(
            f"create temp table {_ABSENT} as select rowid as place, {_own(have)} as own from {live} "
            f"where {_absent(swap, have)}",
            (swap.source_name,),
        )
        total, own = self._run(f"select count(*), count(*) filter (where own) from {_ABSENT}").fetchone()
        done = Published(0, own) if swap.keep == "all" else Published(own, 0)
        if total - done.stale_deleted:
            kept = f"select place from {_ABSENT}{'' if swap.keep == 'all' else ' where not own'}"
            names = DIALECT.columns(have.column_names)
            self._run(f"insert into {staged} ({names}) select {names} from {live} where rowid in ({kept})")
        self._run(f"drop table {_ABSENT}")
        return done

    def _count(self, rows: str) -> int:
        return int(self._run(f"select count(*) from {rows}").fetchone()[0])

    def _merge(self, swap: Swap, have: Table) -> Published:
        """Change the live table, on which something was set that a renamed one would not have."""
        live, staged = DIALECT.table(swap.table.name), DIALECT.table(swap.staged.name)
        for column in swap.table.columns:
            if column.name not in have:
                self._run(sql.add_column(DIALECT, swap.table, column))
        own, absent = _own(have), _absent(swap, have)
        done = self._count_stale(swap, own, absent)
        gone = f"not ({absent})" if swap.keep == "all" else f"({own}) or not ({absent})"
        self._run(f"delete from {live} where {gone}", () if swap.keep == "all" else (swap.source_name,))
        names = DIALECT.columns(swap.table.column_names)
        self._run(f"insert into {live} ({names}) select {names} from {staged}")
        self._run(sql.drop_table(DIALECT, swap.staged.name))
        return done

    def _count_stale(self, swap: Swap, own: str, absent: str) -> Published:
        live = DIALECT.table(swap.table.name)
        count = self._run(f"select count(*) from {live} where {own} and {absent}", (swap.source_name,)).fetchone()[0]
        return Published(0, count) if swap.keep == "all" else Published(count, 0)


def _own(have: Table) -> str:
    """Whether a live row is of the source whose name is bound."""
    return f"{DIALECT.quote(CQ_SOURCE_NAME)} is not distinct from ?" if CQ_SOURCE_NAME in have else "? is null"


def _absent(swap: Swap, have: Table) -> str:
    """Whether a live row's key is not in the new load."""
    keys = [key for key in swap.table.primary_keys if key in have]
    if not keys:
        return "true"
    if len(keys) < len(swap.table.primary_keys):
        return "false"
    quoted = DIALECT.columns(keys)
    return f"({quoted}) not in (select {quoted} from {DIALECT.table(swap.staged.name)})"
