"""Staged tables and how they become visible: keys are built first, then everything happens in one transaction.

A staged table takes the live one's place by renaming, which is fastest and leaves nothing to vacuum. Where views, keys,
grants or the like hang on the live table, or where most of its rows stay, the rows are merged into it instead, inside
the same transaction, so that all of that survives.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from catchment.destinations.postgresql.catalogue import dependents, describe
from catchment.destinations.postgresql.connection import Connections, explained
from catchment.destinations.postgresql.types import DIALECT, STAGING_SCHEMA, constraint_name, quote, type_name
from catchment.sdk import PluginError, Published, Swap, Table
from catchment.sdk.staging import CQ_SOURCE_NAME, STAGING_PREFIX, staging_run

COUNTED_ROWS = 500_000
"""Live rows up to which stale ones are counted: counting joins the live table with the new one."""
LOCK_TIMEOUT_S = 10
"""Seconds to wait for readers before the publish is tried again."""


class Publisher:
    """The staged tables of one destination."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._control: Any = None
        self._runs: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, staged: Table) -> None:
        """Mark the run of `staged` as alive, and drop what dead runs left; only the first call of a run does it."""
        import psycopg

        run = staging_run(staged.name)
        with self._lock:
            if run in self._runs:
                return
            try:
                if self._control is None:
                    self._control = self._connections.open()
                self._control.execute(f"create schema if not exists {quote(STAGING_SCHEMA)}")
                # The lock goes with the connection: a run whose lock can be had is dead.
                self._control.execute("select pg_advisory_lock(%s)", [_lock_number(run)])
                self._drop_dead()
            except psycopg.errors.UniqueViolation:
                # Two first runs made the schema at the same moment; it is there now.
                self._control.execute("select pg_advisory_lock(%s)", [_lock_number(run)])
            except psycopg.Error as error:
                raise explained(error) from error
            self._runs.add(run)

    def publish(self, swaps: Sequence[Swap]) -> dict[str, Published]:
        """Make every swap visible together."""
        ordered = sorted(swaps, key=lambda swap: swap.table.name)
        self._build_keys(ordered)
        with self._connections.transaction() as connection:
            connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'")
            hanging = dependents(connection, [swap.table.name for swap in ordered])
            done = {}
            for swap in ordered:
                done[swap.table.name] = _publish(connection, swap, hanging)
            return done

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        with self._connections.transaction() as connection:
            for table in staged:
                connection.execute(f"drop table if exists {DIALECT.table(table.name)}")

    def close(self) -> None:
        """Leave no trace: the staging schema goes when nothing is in it."""
        if self._control is not None:
            import psycopg

            try:
                self._control.execute(f"drop schema if exists {quote(STAGING_SCHEMA)}")
            except psycopg.Error:
                # Another run has its tables there; the last one takes it away.
                return
            finally:
                self._control.close()
                self._control = None

    def _drop_dead(self) -> None:
        rows = self._control.execute(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = %s and c.relkind = 'r'",
            [STAGING_SCHEMA],
        ).fetchall()
        for run in {name.partition(".")[0] for (name,) in rows} - self._runs:
            number = _lock_number(run)
            if not self._control.execute("select pg_try_advisory_lock(%s)", [number]).fetchone()[0]:
                continue
            for (name,) in rows:
                if name.startswith(f"{run}."):
                    self._control.execute(f"drop table if exists {DIALECT.table(STAGING_PREFIX + name)}")
            self._control.execute("select pg_advisory_unlock(%s)", [number])

    def _build_keys(self, swaps: Sequence[Swap]) -> None:
        """Unique indexes for the keys of every staged table, two at a time."""
        wanted = [(swap, name, columns) for swap in swaps for name, columns in _keys(swap.table).items()]
        with ThreadPoolExecutor(2, thread_name_prefix="build-keys") as pool:
            for future in [pool.submit(self._build_key, *key) for key in wanted]:
                future.result()

    def _build_key(self, swap: Swap, name: str, columns: Sequence[str]) -> None:
        import psycopg

        staged, key = DIALECT.table(swap.staged.name), DIALECT.columns(columns)
        statement = f"create unique index {quote(_index(swap.staged, name))} on {staged} ({key})"
        for last_try in (False, True):
            connection = self._connections.get()
            try:
                # One round trip for all of it; the settings are the session's own and harmless to keep.
                connection.execute(f"set maintenance_work_mem = '256MB'; set synchronous_commit = off; {statement}")
                return
            except psycopg.errors.UniqueViolation as error:
                if last_try:
                    raise explained(error) from error
                if name != "pkey":
                    raise PluginError(
                        f"table `{swap.table.name}`: the rows of this sync are not unique in {key}: {explained(error)}"
                    ) from error
                self._keep_last(staged, key)
            except psycopg.Error as error:
                raise explained(error, lost=connection.closed) from error

    def _keep_last(self, staged: str, key: str) -> None:
        """Of rows with equal keys keep the one that came last; COPY puts rows in the order they came."""
        with self._connections.transaction() as connection:
            connection.execute(
                f"delete from {staged} where ctid in (select ctid from (select ctid, row_number() over "
                f"(partition by {key} order by ctid desc) as place from {staged}) as placed where place > 1)"
            )


def create_staged(final: Table, staged: Table) -> str:
    """`create table` for a staged table: the live one's columns, key columns not null, no keys."""
    columns = ", ".join(
        f"{quote(column.name)} {type_name(column.type)}{' not null' if column.not_null or column.primary_key else ''}"
        for column in final.columns
    )
    # Nothing is updated before it is published, and a table that is built at once needs no vacuum on the way.
    return f"create table {DIALECT.table(staged.name)} ({columns}) with (autovacuum_enabled = false)"


def _publish(connection: Any, swap: Swap, hanging: Mapping[str, bool]) -> Published:
    if swap.table.name not in hanging:
        _rename(connection, swap)
        return Published(0, 0)
    live = DIALECT.table(swap.table.name)
    # Readers go on until here; nothing can change the live rows after this.
    connection.execute(f"lock table {live} in share row exclusive mode")
    others = _other_rows(connection, swap, live)
    done = _count_stale(connection, swap, live)
    if hanging[swap.table.name] or swap.keep == "all" or others == "most":
        _merge(connection, swap, live)
    else:
        if others == "some":
            _take_over(connection, swap, live)
        connection.execute(f"drop table {live}")
        _rename(connection, swap)
    return done


def _rename(connection: Any, swap: Swap) -> None:
    """The staged table, with its keys, as the live one."""
    staged = DIALECT.table(swap.staged.name)
    name = swap.staged.name.removeprefix(STAGING_PREFIX)
    schema = connection.execute("select quote_ident(current_schema())").fetchone()[0]
    moved = f"{schema}.{quote(name)}"
    statements = [f"alter table {staged} reset (autovacuum_enabled)", f"alter table {staged} set schema {schema}"]
    for ending, columns in _keys(swap.table).items():
        kind = "primary key" if ending == "pkey" else "unique"
        constraint = constraint_name(swap.table.name, f"_{ending}")
        index = quote(_index(swap.staged, ending))
        statements.append(f"alter table {moved} add constraint {quote(constraint)} {kind} using index {index}")
        del columns
    statements.append(f"alter table {moved} rename to {quote(swap.table.name)}")
    connection.execute("; ".join(statements))


def _take_over(connection: Any, swap: Swap, live: str) -> None:
    """Copy the rows of other sources, whose keys are not in the new load, into the staged table."""
    staged = DIALECT.table(swap.staged.name)
    names = _shared(connection, swap)
    connection.execute(
        f"insert into {staged} ({names}) select {names} from {live} as l "
        f"where l.{quote(CQ_SOURCE_NAME)} is distinct from %s and not {_in_load(swap, staged)}",
        [swap.source_name],
    )


def _merge(connection: Any, swap: Swap, live: str) -> None:
    """Change the live table to what renaming would have left."""
    staged = DIALECT.table(swap.staged.name)
    _add_columns(connection, swap, live)
    own = "" if swap.keep == "all" else f"l.{quote(CQ_SOURCE_NAME)} is not distinct from %s or "
    values = [] if swap.keep == "all" else [swap.source_name]
    names = _shared(connection, swap)
    connection.execute(f"delete from {live} as l where {own}{_in_load(swap, staged)}", values or None)
    connection.execute(f"insert into {live} ({names}) select {names} from {staged}")
    connection.execute(f"drop table {staged}")


def _add_columns(connection: Any, swap: Swap, live: str) -> None:
    """The columns that the live table lacks."""
    have = describe(connection, swap.table.name)
    for column in swap.table.columns:
        if have is not None and column.name not in have:
            connection.execute(f"alter table {live} add column {quote(column.name)} {type_name(column.type)}")


def _in_load(swap: Swap, staged: str) -> str:
    """Whether a live row `l` has its key in the new load."""
    if not swap.table.primary_keys:
        return "false"
    same = " and ".join(f"s.{quote(key)} = l.{quote(key)}" for key in swap.table.primary_keys)
    return f"exists (select from {staged} as s where {same})"


def _shared(connection: Any, swap: Swap) -> str:
    """The columns that live and staged table both have, quoted."""
    have = describe(connection, swap.table.name)
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [DIALECT.table(swap.staged.name)],
    ).fetchall()
    return DIALECT.columns([name for (name,) in rows if have is not None and name in have])


def _other_rows(connection: Any, swap: Swap, live: str) -> str:
    """How many of the live rows belong to other sources: `none`, `some` or `most`."""
    have = describe(connection, swap.table.name)
    if have is None or CQ_SOURCE_NAME not in have:
        # Rows that nobody signed are nobody's to delete.
        return "most"
    own, others = connection.execute(
        f"select count(*) filter (where l.{quote(CQ_SOURCE_NAME)} is not distinct from %s), "
        f"count(*) filter (where l.{quote(CQ_SOURCE_NAME)} is distinct from %s) from {live} as l",
        [swap.source_name, swap.source_name],
    ).fetchone()
    return "none" if not others else "most" if others > own else "some"


def _count_stale(connection: Any, swap: Swap, live: str) -> Published:
    """This source's live rows whose keys are not in the new load; not counted where that costs too much."""
    rows = connection.execute("select reltuples from pg_class where oid = to_regclass(%s)", [live]).fetchone()[0]
    have = describe(connection, swap.table.name)
    if rows > COUNTED_ROWS or have is None or CQ_SOURCE_NAME not in have:
        return Published()
    found = connection.execute(
        f"select count(*) from {live} as l where l.{quote(CQ_SOURCE_NAME)} is not distinct from %s "
        f"and not {_in_load(swap, DIALECT.table(swap.staged.name))}",
        [swap.source_name],
    ).fetchone()[0]
    return Published(0, found) if swap.keep == "all" else Published(found, 0)


def _keys(table: Table) -> dict[str, Sequence[str]]:
    """Ending of the constraint's name → its columns: the primary key, then each unique column."""
    found: dict[str, Sequence[str]] = {"pkey": table.primary_keys} if table.primary_keys else {}
    for column in table.columns:
        if column.unique and not column.primary_key:
            found[f"{column.name}_key"] = [column.name]
    return found


def _index(staged: Table, ending: str) -> str:
    return constraint_name(staged.name.removeprefix(STAGING_PREFIX), f".{ending}")


def _lock_number(run: str) -> int:
    """The advisory lock of a run: 63 bits of its name, which is hexadecimal."""
    return int.from_bytes(run.encode()[-8:].rjust(8, b"\0")) >> 1
