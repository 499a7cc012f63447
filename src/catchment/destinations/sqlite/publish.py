"""How staged tables become visible: keys are built first, then everything happens in one transaction.

A staged table takes the live one's place by renaming, which moves no row. Where indexes, triggers, foreign keys or
constraints of somebody hang on the live table, or where most of its rows stay, the rows are merged into it instead, in
the same transaction, so that all of that survives. Views look for their tables by name and survive either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from catchment.destinations.sqlite import catalogue, migrate
from catchment.destinations.sqlite.catalogue import Ties, describe
from catchment.destinations.sqlite.staging import Staged, Staging
from catchment.destinations.sqlite.types import DIALECT
from catchment.sdk import Capabilities, PluginError, Published, Swap, Table, sql
from catchment.sdk.publishing import Step
from catchment.sdk.sqlite import Connection, quote
from catchment.sdk.staging import CQ_SOURCE_NAME

SMALL_ROWS = 50_000
"""Staged rows up to which the key is built in the transaction that publishes: the wait for the disk is the dearer."""
COUNTED_ROWS = 500_000
"""Rows of a source up to which stale ones are counted: each is looked for among the new ones."""


_Step: TypeAlias = Step[Ties]


class Publisher:
    """Publishes the staged tables of one destination."""

    def __init__(self, connection: Connection, staging: Staging, capabilities: Capabilities) -> None:
        self._connection = connection
        self._run = connection.run
        self._staging = staging
        self._capabilities = capabilities

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Make every swap visible together."""
        for swap in swaps:
            if self._staged(swap).rows > SMALL_ROWS:
                with self._connection.transaction():
                    self._build_key(swap)
        try:
            with self._connection.transaction():
                # Rows that others refer to may be gone for a moment.
                self._run("pragma defer_foreign_keys = on")
                references = catalogue.children(self._run)
                for swap in swaps:
                    self._run(self._staged(swap).create)
                    self._build_key(swap)
                steps = [self._step(swap, references) for swap in swaps]
                self._merge([step for step in steps if step.merges])
                self._rename([step for step in steps if not step.merges])
                for step in steps:
                    if step.swap.parent:
                        count = self._run(sql.count_orphans(DIALECT, step.name, step.swap.parent))[0][0]
                        step.done = replace(step.done, orphans=int(count))
        except BaseException:
            with contextlib.suppress(PluginError):
                # What was read of the catalogue inside the transaction is no longer so.
                self._run("pragma writable_schema = reset")
            raise
        return {step.name: step.done for step in steps}

    def _staged(self, swap: Swap) -> Staged:
        staged = self._staging.get(swap.staged.name)
        assert staged is not None, "stage() comes first"
        return staged

    def _build_key(self, swap: Swap) -> None:
        """Index a staged table by the live one's key, now that its rows are in; the last of equal keys stays."""
        # Columns of an index on disk have an order: that of the table which it will be the key of.
        keys, staged = self._staged(swap).final.primary_keys, swap.staged.name
        if not keys or self._staged(swap).is_keyed:
            return
        # It may be there already, from a publish that is tried again.
        build = f"create unique index if not exists {_index(staged)} on {quote(staged)} ({DIALECT.columns(keys)})"
        try:
            self._run(build)
        except PluginError as error:
            if "UNIQUE constraint failed" not in str(error):
                raise
            self._keep_last(swap)
            self._run(build)

    def _keep_last(self, swap: Swap) -> None:
        """Of rows with equal keys keep the one that came last; row numbers follow the order of insertion."""
        staged, keys = DIALECT.table(swap.staged.name), DIALECT.columns(swap.table.primary_keys)
        number = catalogue.row_number(self._staged(swap).final)
        self._run(
            f"delete from {staged} where {number} in (select number from (select {number} as number, row_number() over "
            f"(partition by {keys} order by {number} desc) as place from {staged}) where place > 1)"
        )

    def _step(self, swap: Swap, references: Mapping[str, Sequence[str]]) -> _Step:
        """Look at the live table, and change it so that the rows fit."""
        catalogue.check_name(self._run, swap.table.name)
        have = describe(self._run, swap.table.name)
        step = Step(DIALECT, swap, have, Ties())
        if have is None:
            return step
        force = self._staged(swap).is_forced
        # The live table may have changed since the rows were staged.
        found = sql.migration(DIALECT, have, swap.table, self._capabilities, force=force)
        if not migrate.carry_out(self._run, have, swap.table, found):
            step.live, step.done = None, Published()
            return step
        live = step.live = describe(self._run, swap.table.name)
        assert live is not None
        step.ties = catalogue.ties(self._run, live, references)
        own, others = self._count_rows(step, live)
        step.done = self._count_stale(step, own)
        step.merges = step.ties.any or swap.keep == "all" or others > own
        step.takes_over = bool(others) and not step.merges
        return step

    def _count_rows(self, step: _Step, live: Table) -> tuple[int, int]:
        """Live rows of this source, and of others."""
        if CQ_SOURCE_NAME not in live:
            # Rows that nobody signed are nobody's to delete.
            return 0, int(self._run(f"select count(*) from {step.table}")[0][0])
        source = step.swap.source_name
        counted = (
            f"select count(*) filter (where {step.own}), count(*) filter (where not {step.own}) from {step.table} as l"
        )
        own, others = self._run(counted, (source, source))[0]
        return int(own), int(others)

    def _count_stale(self, step: _Step, own: int) -> Published:
        """This source's live rows whose keys are not in the new load; not counted where that costs too much."""
        if own > COUNTED_ROWS:
            return Published()
        absent = f"{step.own} and not {step.in_load}"
        values = (step.swap.source_name,)
        count = int(self._run(f"select count(*) from {step.table} as l where {absent}", values)[0][0]) if own else 0
        return step.counted(count)

    def _rename(self, steps: Sequence[_Step]) -> None:
        """Put the staged tables, with their keys, in the places of the live ones, where anything hangs by their names.

        SQLite adds no key to a table that is there. But a unique index is the same on disk as a key, except for its
        name and its statement, so that both table and index need no more than other entries in the catalogue
        (https://www.sqlite.org/pragma.html#pragma_writable_schema). A copy into a table with the key takes twice the
        time and space, and for every table that SQLite renames it reads the whole catalogue again.
        """
        finals = []
        for step in steps:
            final = self._staged(step.swap).final
            finals.append(self._take_over(step, final) if step.takes_over else final)
        for step in steps:
            self._run(sql.drop_table(DIALECT, step.name))
        if not steps:
            return
        version = int(self._run("pragma schema_version")[0][0])
        self._run("pragma writable_schema = on")
        for step, final in zip(steps, finals, strict=True):
            staged, name = step.swap.staged.name, step.name
            self._run(
                "update sqlite_schema set name = ?, tbl_name = ?, sql = ? where type = 'table' and name = ?",
                (name, name, catalogue.kept_definition(final, name), staged),
            )
            self._run(
                "update sqlite_schema set name = ?, tbl_name = ?, sql = null where type = 'index' and tbl_name = ?",
                (f"sqlite_autoindex_{name}_1", name, staged),
            )
        # Has others read the catalogue anew, then ourselves.
        self._run(f"pragma schema_version = {version + 1}")
        self._run("pragma writable_schema = reset")
        for step in steps:
            found = describe(self._run, step.name)
            if found is None or set(found.primary_keys) != set(step.swap.table.primary_keys):
                raise PluginError(f"table `{step.name}` could not be given its key", hint="set `publish: stream`")

    def _take_over(self, step: _Step, final: Table) -> Table:
        """Copy the rows of other sources, whose keys are not in the new load, into the staged table.

        The columns that it then has: some may have come with another source's sync, after these rows were staged.
        """
        assert step.live is not None
        new = [column for column in step.live.columns if column.name not in final]
        for column in new:
            self._run(sql.add_column(DIALECT, step.swap.staged, column))
        names = DIALECT.columns(step.live.column_names)
        self._run(
            f"insert into {step.staged} ({names}) select {names} from {step.table} as l "
            f"where not {step.own} and not {step.in_load}",
            (step.swap.source_name,),
        )
        return final.with_columns([*final.columns, *new])

    def _merge(self, steps: Sequence[_Step]) -> None:
        """Change the live tables to what renaming would have left.

        Stale rows go first, so that what is unique in them is free; but those that others refer to go last, when all
        who refer to them are gone, or changed.
        """
        for step in steps:
            if not step.ties.children:
                self._delete_stale(step)
        for step in steps:
            self._fill(step)
        for step in steps:
            if step.ties.children:
                self._delete_stale(step)
            self._run(sql.drop_table(DIALECT, step.swap.staged.name))

    def _delete_stale(self, step: _Step) -> None:
        if step.swap.keep != "all" and step.live is not None and CQ_SOURCE_NAME in step.live:
            self._run(
                f"delete from {step.table} as l where {step.own} and not {step.in_load}", (step.swap.source_name,)
            )

    def _fill(self, step: _Step) -> None:
        """New rows in, and those of equal keys changed in place, which keeps what refers to them."""
        assert step.live is not None
        names, keys = step.swap.table.column_names, step.swap.table.primary_keys
        columns = DIALECT.columns(names)
        insert = f"insert into {step.table} ({columns}) select {columns} from {step.staged}"
        if keys:
            changes = [f"{quote(name)} = excluded.{quote(name)}" for name in names if name not in keys]
            changes += [f"{quote(name)} = {value}" for name, value in catalogue.defaults(self._run, step.live, names)]
            then = f"update set {', '.join(changes)}" if changes else "nothing"
            insert += f" where true on conflict ({DIALECT.columns(keys)}) do {then}"
        self._run(insert)


def _index(staged: str) -> str:
    """The index that will be the key, quoted."""
    return quote(f"{staged}.key")
