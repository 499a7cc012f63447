"""The schema that staged tables wait in: made by the first run, swept of what dead runs left, taken away by the last.

A run that is alive is told from a dead one by an advisory lock, which PostgreSQL itself drops with the connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from catchment.destinations.postgresql.connection import Connections, explained
from catchment.destinations.postgresql.types import DIALECT, STAGING_SCHEMA, quote, type_name
from catchment.sdk import PluginError, Table
from catchment.sdk.staging import STAGING_PREFIX, staging_run

log = logging.getLogger("catchment.postgresql")

_SCHEMA_LOCK = int.from_bytes(b"catchmnt") >> 1
"""Held, together with others, by all who use the schema, and alone by the one who takes it away."""


class Staging:
    """The staged tables of one destination."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._control: Any = None
        """Holds the locks. It is also a witness: a server that crashed has cut it."""
        self._was_cut = False
        self._runs: set[str] = set()
        self._rows: defaultdict[str, int] = defaultdict(int)
        self._forced: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, staged: Table) -> None:
        """Mark the run of `staged` as alive, and drop what dead runs left; only the first call of a run does it."""
        import psycopg

        run = staging_run(staged.name)
        with self._lock:
            if run in self._runs:
                return
            try:
                if self._control is None or self._control.closed:
                    self._take_control()
                # A run whose lock can be had is dead.
                if not self._try_lock(_lock_number(run)):
                    raise PluginError(f"another sync stages rows under the name `{run}`, which was to be ours alone")
                self._runs.add(run)
                self._drop(dead=True)
            except psycopg.errors.InsufficientPrivilege as error:
                raise refused(error) from error
            except psycopg.Error as error:
                raise explained(error, lost=self._control is None or self._control.closed) from error

    def create(self, connection: Any, final: Table, staged: Table, *, forced: bool) -> None:
        """Make a staged table with the columns of `final`; `forced`: the live one is not to be kept."""
        import psycopg

        try:
            connection.execute(_create_staged(final, staged))
        except psycopg.errors.InsufficientPrivilege as error:
            raise refused(error) from error
        with self._lock:
            (self._forced.add if forced else self._forced.discard)(staged.name)

    def is_forced(self, staged: Table) -> bool:
        """Whether the live table is to be made anew, by `migrate_mode: forced`."""
        return staged.name in self._forced

    def count(self, staged: Table, rows: int) -> None:
        """Note rows that were written to a staged table."""
        with self._lock:
            self._rows[staged.name] += rows

    def check(self, staged: Iterable[Table]) -> None:
        """Raises `PluginError` if the server lost rows: it does not wait for the disk before it takes staged ones.

        That only happens to a server that crashes, and then they are counted.
        """
        import psycopg

        with self._lock:
            try:
                self._control.execute("select 1")
            except psycopg.Error:
                self._was_cut = True
                self._take_control()
                for run in self._runs:
                    self._try_lock(_lock_number(run))
        if not self._was_cut:
            return
        for table in staged:
            with self._connections.lent() as connection:
                try:
                    found = connection.execute(f"select count(*) from {DIALECT.table(table.name)}").fetchone()[0]
                except psycopg.errors.UndefinedTable:
                    found = 0
            if found != self._rows[table.name]:
                raise PluginError(
                    f"the connection was lost, and of {self._rows[table.name]:,} staged rows the server has {found:,}",
                    hint="nothing was published; sync again",
                )

    def discard(self, staged: Iterable[Table]) -> None:
        """Drop staged tables."""
        with self._connections.transaction() as connection:
            for table in staged:
                names = (table.name, f"{table.name}.pieces")
                connection.execute(f"drop table if exists {', '.join(map(DIALECT.table, names))}")

    def close(self) -> None:
        """Leave no trace: the tables of our runs go, and the schema when nobody uses it."""
        import psycopg

        with self._lock:
            if self._control is None:
                return
            try:
                if not self._is_alive():
                    self._take_control()
                self._drop(dead=False)
                self._control.execute("select pg_advisory_unlock_all()")
                # Others who begin now wait for the moment that this takes, and make the schema again.
                if self._try_lock(_SCHEMA_LOCK):
                    self._control.execute(f"drop schema if exists {quote(STAGING_SCHEMA)}")
            except (psycopg.Error, PluginError) as error:
                # It is not ours, the server is gone, or a table of a dead run is not ours: the next run looks again.
                log.info("the schema of staged tables stays: %s", error)
            finally:
                with contextlib.suppress(psycopg.Error):
                    self._control.close()
                self._control = None
                self._runs.clear()

    def _is_alive(self) -> bool:
        import psycopg

        try:
            self._control.execute("select 1")
        except psycopg.Error:
            return False
        return True

    def _try_lock(self, number: int) -> bool:
        return bool(self._control.execute("select pg_try_advisory_lock($1)", [number]).fetchone()[0])

    def _take_control(self) -> None:
        """Open the connection that holds the locks, and make the schema."""
        import psycopg

        if self._control is not None:
            self._was_cut = True
        self._control = self._connections.open()
        self._control.execute("select pg_advisory_lock_shared($1)", [_SCHEMA_LOCK])
        there = self._control.execute("select to_regnamespace($1) is not null", [STAGING_SCHEMA]).fetchone()[0]
        if not there:
            # Two first runs may make it at the same moment.
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                self._control.execute(f"create schema if not exists {quote(STAGING_SCHEMA)}")

    def _drop(self, *, dead: bool) -> None:
        """Drop the tables of dead runs, or else those of ours."""
        import psycopg

        rows = self._control.execute(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = $1 and c.relkind = 'r'",
            [STAGING_SCHEMA],
        ).fetchall()
        runs = {name.partition(".")[0] for (name,) in rows}
        for run in runs - self._runs if dead else runs & self._runs:
            number = _lock_number(run)
            if dead and not self._try_lock(number):
                continue
            for (name,) in rows:
                if name.startswith(f"{run}."):
                    try:
                        self._control.execute(f"drop table if exists {DIALECT.table(STAGING_PREFIX + name)}")
                    except psycopg.errors.InsufficientPrivilege:
                        # Left by a run of another role, which will drop it.
                        log.info("a staged table of another role stays", extra={"table": name})
            if dead:
                self._control.execute("select pg_advisory_unlock($1)", [number])


def refused(error: Exception) -> PluginError:
    """What a role may not do, and the two ways out."""
    return PluginError(
        f"rows cannot be staged: {explained(error)}",
        hint=f"grant the role `create` on the database (or `usage, create` on the schema `{STAGING_SCHEMA}`), or set "
        "`publish: stream` for the destination",
    )


def _create_staged(final: Table, staged: Table) -> str:
    """`create table` for a staged table: the live one's columns, key columns not null, no keys."""
    columns = ", ".join(
        f"{quote(column.name)} {type_name(column.type)}{' not null' if column.not_null or column.primary_key else ''}"
        for column in final.columns
    )
    # Nothing is updated before it is published, and a table that is built at once needs no vacuum on the way.
    return f"create table {DIALECT.table(staged.name)} ({columns}) with (autovacuum_enabled = false)"


def _lock_number(run: str) -> int:
    """The advisory lock of a run: 63 bits that its name makes."""
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:8]) >> 1
