"""How staged tables become visible: keys are built first, then everything happens in one transaction.

A staged table takes the live one's place by renaming, which is fastest and leaves nothing to vacuum. Where views, keys,
grants or the like hang on the live table, or where most of its rows stay, the rows are merged into it instead, inside
the same transaction, so that all of that survives. Readers are kept out as late as can be: no row moves after that.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeAlias

from catchment.destinations.postgresql import catalogue, migrate
from catchment.destinations.postgresql.catalogue import Ties, describe
from catchment.destinations.postgresql.connection import MARK, Connections, execute, explained
from catchment.destinations.postgresql.embeddings import Embeddings
from catchment.destinations.postgresql.staging import Staging
from catchment.destinations.postgresql.types import DIALECT, constraint_name, quote, type_name
from catchment.sdk import Capabilities, PluginError, Published, Swap, Table, Transient, sql
from catchment.sdk.publishing import Step
from catchment.sdk.staging import CQ_SOURCE_NAME, CQ_SYNC_TIME, STAGING_PREFIX

log = logging.getLogger("catchment.postgresql")

COUNTED_ROWS = 500_000
"""Live rows up to which stale ones are counted: counting joins the live table with the new one."""
WRITERS_TIMEOUT_S = 10
"""Seconds to wait for others who write before the publish is tried again."""
READERS_TIMEOUT_S = 2
"""Seconds to wait for readers, while new ones wait behind us, before they are let through."""
READERS_TRIES = 30


_Step: TypeAlias = Step[Ties]


class Publisher:
    """Publishes the staged tables of one destination."""

    def __init__(
        self,
        connections: Connections,
        staging: Staging,
        capabilities: Capabilities,
        *,
        indexes: bool,
        embeddings: Embeddings | None,
    ) -> None:
        self._connections = connections
        self._staging = staging
        self._capabilities = capabilities
        self._indexes = indexes
        """Whether tables get the index that `create_performance_indexes` asks for."""
        self._embeddings = embeddings

    def publish(self, swaps: Sequence[Swap]) -> dict[str, Published]:
        """Make every swap visible together."""
        import psycopg

        ordered = sorted(swaps, key=lambda swap: swap.table.name)
        self._staging.check(swap.staged for swap in ordered)
        self._build_keys(ordered)
        with self._connections.transaction() as connection:
            try:
                steps = self._steps(connection, ordered)
                self._carry_out(connection, steps)
            except psycopg.errors.DuplicateTable as error:
                raise Transient(f"another sync made the table at the same moment: {explained(error)}") from error
        return {step.name: step.done for step in steps}

    def _steps(self, connection: Any, swaps: Sequence[Swap]) -> list[_Step]:
        """Stop all others from writing to the live tables, and look at what is in them."""
        connection.execute(f"set local lock_timeout = '{WRITERS_TIMEOUT_S}s'")
        names = [swap.table.name for swap in swaps]
        own = [performance_index(name) for name in names] if self._indexes else []
        found = catalogue.ties(connection, names, own)
        there = [name for name in names if name in found]
        if there:
            # Readers go on; nothing can change the live rows, or what hangs on them, after this.
            tables = ", ".join(DIALECT.table(name) for name in there)
            connection.execute(f"lock table {tables} in share row exclusive mode")
            found = catalogue.ties(connection, names, own)
        return [self._step(connection, swap, found.get(swap.table.name)) for swap in swaps]

    def _step(self, connection: Any, swap: Swap, ties: Ties | None) -> _Step:
        step = Step(DIALECT, swap, None, ties or Ties(False, False))
        if ties is None:
            return step
        forced = self._staging.is_forced(swap.staged)
        # The live table may have changed since the rows were staged.
        live, found, reason = migrate.plan(connection, swap.table, self._capabilities, force=forced)
        if found.action == "recreate":
            log.warning("table `%s` is made anew, without the rows that were in it: %s", step.name, reason)
            step.live, step.done = live, Published()
            return step
        if found.rewrites:
            _keep_readers_out(connection, [step.name])
            migrate.carry_out(connection, live, swap.table, found, reason)
            live = describe(connection, swap.table.name)
        step.live = live
        step.done = _count_stale(connection, step)
        others = _other_rows(connection, step)
        step.merges = step.ties.any or swap.keep == "all" or others == "most"
        step.takes_over = others == "some" and not step.merges
        return step

    def _carry_out(self, connection: Any, steps: Sequence[_Step]) -> None:
        """Rows first, then the locks that keep readers out, then what needs them."""
        merged = [step for step in steps if step.merges]
        if len(merged) > 1:
            order = catalogue.parents_first(connection, [step.name for step in merged])
            merged.sort(key=lambda step: order.index(step.name))
        altered = any(step.new_columns for step in merged)
        if not altered:
            _merge(connection, merged)
        for step in steps:
            if step.takes_over:
                _take_over(connection, step)
        replaced = [step for step in steps if not step.merges]
        _keep_readers_out(
            connection,
            [step.name for step in steps if step.live is not None and (not step.merges or step.new_columns)],
        )
        if altered:
            _merge(connection, merged)
        for step in replaced:
            if step.live is not None:
                connection.execute(f"drop table {step.table}")
        for step in replaced:
            _rename(connection, step.swap, index=self._index_of(step.swap))
        for step in steps:
            if self._embeddings is not None and self._embeddings.of(step.name) is not None:
                self._embeddings.publish(connection, step.swap.table, pieces_of(step.swap.staged))
                self._embeddings.clean(connection, step.name)
        for step in steps:
            if step.swap.parent:
                query = sql.count_orphans(DIALECT, step.name, step.swap.parent)
                step.done = replace(step.done, orphans=connection.execute(query).fetchone()[0])

    def _build_keys(self, swaps: Sequence[Swap]) -> None:
        """Indexes for the keys of every staged table, two at a time."""
        wanted = [(swap, name, columns) for swap in swaps for name, columns in _keys(swap.table).items()]
        wanted += [(swap, "cqpi", [CQ_SOURCE_NAME, CQ_SYNC_TIME]) for swap in swaps if self._index_of(swap)]
        with ThreadPoolExecutor(2, thread_name_prefix="build-keys") as pool:
            for future in [pool.submit(self._build_key, *key) for key in wanted]:
                future.result()

    def _index_of(self, swap: Swap) -> str:
        """Name of the live table's performance index; empty if it is to have none."""
        wanted = self._indexes and CQ_SOURCE_NAME in swap.table and CQ_SYNC_TIME in swap.table
        return performance_index(swap.table.name) if wanted else ""

    def _build_key(self, swap: Swap, name: str, columns: Sequence[str]) -> None:
        import psycopg

        staged, key = DIALECT.table(swap.staged.name), DIALECT.columns(columns)
        kind = "index" if name == "cqpi" else "unique index"
        # One round trip and one transaction for all of it. It may be there already, from a publish that is tried again.
        statement = (
            "set local maintenance_work_mem = '256MB'; set local synchronous_commit = off; "
            f"create {kind} if not exists {quote(_index(swap.staged, name))} on {staged} ({key})"
        )
        for last_try in (False, True):
            with self._connections.lent() as connection:
                try:
                    connection.execute(statement)
                    return
                except psycopg.errors.UniqueViolation as error:
                    if name != "pkey" or last_try:
                        raise PluginError(
                            f"table `{swap.table.name}`: the rows of this sync are not unique in {key}: "
                            f"{explained(error)}"
                        ) from error
            self._keep_last(swap, staged, key)

    def _keep_last(self, swap: Swap, staged: str, key: str) -> None:
        """Of rows with equal keys keep the one that came last; COPY puts rows in the order they came."""
        with self._connections.transaction() as connection:
            gone = connection.execute(
                f"delete from {staged} where ctid in (select ctid from (select ctid, row_number() over "
                f"(partition by {key} order by ctid desc) as place from {staged}) as placed where place > 1)"
            ).rowcount
        self._staging.count(swap.staged, -gone)


def pieces_of(staged: Table) -> str:
    """The quoted name of the table for pieces of a staged table's texts."""
    return DIALECT.table(f"{staged.name}.pieces")


def performance_index(table: str) -> str:
    """Name of the index that `create_performance_indexes` makes."""
    return constraint_name(table, "_cqpi")


def _keep_readers_out(connection: Any, names: Sequence[str]) -> None:
    """Wait for those who read the tables, but let new ones through now and then. Raises `PluginError` at last."""
    import psycopg

    if not names:
        return
    tables = ", ".join(DIALECT.table(name) for name in names)
    connection.execute(f"set local lock_timeout = '{READERS_TIMEOUT_S}s'")
    for attempt in itertools.count(1):
        connection.execute("savepoint readers")
        try:
            connection.execute(f"lock table {tables} in access exclusive mode")
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            connection.execute("rollback to savepoint readers")
            if attempt >= READERS_TRIES:
                users = ", ".join(catalogue.holders(connection, names))
                named = ", ".join(f"`{name}`" for name in names)
                raise PluginError(
                    f"nothing was published: {named} could not be had alone, others kept reading: {users}",
                    hint="end their transactions, then sync again",
                ) from error
            time.sleep(READERS_TIMEOUT_S / 2)


def _rename(connection: Any, swap: Swap, *, index: str) -> None:
    """The staged table, with its keys, as the live one."""
    staged = DIALECT.table(swap.staged.name)
    name = swap.staged.name.removeprefix(STAGING_PREFIX)
    wanted = [constraint_name(swap.table.name, f"_{ending}") for ending in _keys(swap.table)]
    schema, taken = _taken(connection, [*wanted, index])
    moved = f"{schema}.{quote(name)}"
    statements = [f"alter table {staged} reset (autovacuum_enabled)", f"alter table {staged} set schema {schema}"]
    for ending, constraint in zip(_keys(swap.table), wanted, strict=True):
        kind = "primary key" if ending == "pkey" else "unique"
        free = constraint
        for number in itertools.count(1):
            if free not in taken:
                break
            free = constraint_name(swap.table.name, f"_{ending}{number}")
            taken |= _taken(connection, [free])[1]
        built = quote(_index(swap.staged, ending))
        statements.append(f"alter table {moved} add constraint {quote(free)} {kind} using index {built}")
    if index and index not in taken:
        built = quote(_index(swap.staged, "cqpi"))
        statements.append(f"alter index {schema}.{built} rename to {quote(index)}")
    statements.append(f"alter table {moved} rename to {quote(swap.table.name)}")
    connection.execute("; ".join(statements))


def _taken(connection: Any, names: Sequence[str]) -> tuple[str, set[str]]:
    """The current schema, quoted, and which of the names something in it has."""
    schema, taken = connection.execute(
        "select quote_ident(current_schema()), array(select c.relname::text from pg_class c join pg_namespace n "
        "on n.oid = c.relnamespace where n.nspname = current_schema() and c.relname = any($1))",
        [list(names)],
    ).fetchone()
    return schema, set(taken)


def _take_over(connection: Any, step: _Step) -> None:
    """Copy the rows of other sources, whose keys are not in the new load, into the staged table."""
    assert step.live is not None
    have = _staged_columns(connection, step.staged)
    for column in step.live.columns:
        if column.name not in have:
            # Somebody added it after the rows were staged.
            kind = type_name(column.type)
            connection.execute(f"alter table {step.staged} add column {quote(column.name)} {kind}")
    names = DIALECT.columns(step.live.column_names)
    execute(
        connection,
        f"insert into {step.staged} ({names}) select {names} from {step.table} as l "
        f"where l.{quote(CQ_SOURCE_NAME)} is distinct from {MARK} and not {step.in_load}",
        [step.swap.source_name],
    )


def _merge(connection: Any, steps: Sequence[_Step]) -> None:
    """Change the live tables, parents first, to what renaming would have left."""
    for step in steps:
        _fill(connection, step)
    for step in reversed(steps):
        # Rows that others refer to go last: those who refer to them are gone, or changed, by now.
        if step.ties.referenced and step.swap.keep != "all":
            statement = f"delete from {step.table} as l where {step.own} and not {step.in_load}"
            execute(connection, statement, [step.swap.source_name])
        connection.execute(f"drop table {step.staged}")


def _fill(connection: Any, step: _Step) -> None:
    """New rows in, and with them the old ones of equal keys, and stale ones, out."""
    for name in step.new_columns:
        kind = type_name(step.swap.table.column(name).type)
        connection.execute(f"alter table {step.table} add column {quote(name)} {kind}")
    # Columns that only the live table has get their defaults.
    made = catalogue.generated(connection, step.name)
    columns = [name for name in step.swap.table.column_names if name not in made]
    names = DIALECT.columns(columns)
    absent = "true"
    if step.ties.referenced and step.swap.table.primary_keys:
        # A row that others refer to must not go away, not even for a moment: theirs might go with it.
        keys = step.swap.table.primary_keys
        same = " and ".join(f"s.{quote(key)} = l.{quote(key)}" for key in keys)
        changes = [f"{quote(name)} = s.{quote(name)}" for name in columns if name not in keys]
        gone = catalogue.left_out(connection, step.name, step.swap.table.column_names)
        changes += [f"{quote(name)} = default" for name in gone]
        if changes:
            changed = ", ".join(changes)
            connection.execute(f"update {step.table} as l set {changed} from {step.staged} as s where {same}")
        absent = f"not exists (select from {step.table} as l where {same})"
    elif step.swap.keep == "all":
        connection.execute(f"delete from {step.table} as l where {step.in_load}")
    else:
        statement = f"delete from {step.table} as l where {step.own} or {step.in_load}"
        execute(connection, statement, [step.swap.source_name])
    connection.execute(f"insert into {step.table} ({names}) select {names} from {step.staged} as s where {absent}")


def _staged_columns(connection: Any, staged: str) -> set[str]:
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
        [staged],
    ).fetchall()
    return {name for (name,) in rows}


def _other_rows(connection: Any, step: _Step) -> str:
    """How many of the live rows belong to other sources: `none`, `some` or `most`."""
    if step.live is None or CQ_SOURCE_NAME not in step.live:
        # Rows that nobody signed are nobody's to delete.
        return "most"
    own, others = execute(
        connection,
        f"select count(*) filter (where {step.own}), count(*) filter (where not {step.own}) from {step.table} as l",
        [step.swap.source_name, step.swap.source_name],
    ).fetchone()
    return "none" if not others else "most" if others > own else "some"


def _count_stale(connection: Any, step: _Step) -> Published:
    """This source's live rows whose keys are not in the new load; not counted where that costs too much."""
    if step.live is None or CQ_SOURCE_NAME not in step.live:
        return Published()
    rows = catalogue.estimated_rows(connection, step.name)
    if rows is not None and rows > COUNTED_ROWS:
        return Published()
    found = execute(
        connection,
        f"select count(*) from {step.table} as l where {step.own} and not {step.in_load}",
        [step.swap.source_name],
    ).fetchone()[0]
    return step.counted(found)


def _keys(table: Table) -> Mapping[str, Sequence[str]]:
    """Ending of the constraint's name → its columns: the primary key, then each unique column."""
    found: dict[str, Sequence[str]] = {"pkey": table.primary_keys} if table.primary_keys else {}
    for column in table.columns:
        if column.unique and not column.primary_key:
            found[f"{column.name}_key"] = [column.name]
    return found


def _index(staged: Table, ending: str) -> str:
    return constraint_name(staged.name.removeprefix(STAGING_PREFIX), f".{ending}")
