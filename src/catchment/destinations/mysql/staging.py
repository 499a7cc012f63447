"""Staged tables: made beside the live ones, and swept when the run that made them is gone.

A run that is alive is told from a dead one by a lock of the server, which ends with the connection that holds it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from catchment.destinations.mysql import catalogue
from catchment.destinations.mysql.connection import MARK, Connections, explained, lock_name, run
from catchment.destinations.mysql.migrate import alterations, create, define
from catchment.destinations.mysql.types import DIALECT
from catchment.sdk import PluginError, Table, sql
from catchment.sdk.staging import STAGING_PREFIX, staging_run

log = logging.getLogger("catchment.mysql")


@dataclass(slots=True)
class Staged:
    """What is known of one staged table."""

    final: Table
    """What it will be when it is published."""
    forced: bool
    """Whether the live one may be changed as `migrate_mode: forced` does."""
    indexes: dict[str, str] = field(default_factory=dict)
    """Definitions of the indexes that it gets when its rows are in, which is faster; by name."""
    rows: int = 0
    has_taken: bool = False
    """Whether live rows that stay were copied into it, by a publish that may have to be tried again."""
    is_renamed: bool = False
    """Whether the server was asked to rename it to the live one."""


class Staging:
    """The staged tables of one destination."""

    def __init__(self, connections: Connections, database: str) -> None:
        self._connections = connections
        self._database = database
        self._control: Any = None
        """Holds the locks of the runs. It is also a witness: a server that went away has cut it."""
        self._was_cut = False
        self._runs: set[str] = set()
        self._tables: dict[str, Staged] = {}
        self._lock = threading.Lock()

    def begin(self, name: str) -> None:
        """Mark the run of a staged table as alive, and drop what dead runs left; only the first call of a run does."""
        found = staging_run(name)
        with self._lock, self._explained():
            if found in self._runs:
                return
            if self._control is None or not self._control.open:
                self._take_control()
            if not self._try_lock(found):
                raise PluginError(f"another sync stages rows under the name `{found}`, which was to be ours alone")
            self._runs.add(found)
            self._drop(dead=True)

    def create(
        self, connection: Any, have: Table | None, table: Table, found: sql.Migration, staged: Table, *, force: bool
    ) -> None:
        """Make a staged table: as the live one is and will be, or else anew; indexes come when the rows are in."""
        name = DIALECT.table(staged.name)
        run(connection, f"drop table if exists {name}")
        made = Staged(found.table, forced=force)
        if found.action in ("create", "recreate"):
            plain = found.table.renamed(staged.name)
            create(connection, self._connections.server, plain, unique=False)
            made.indexes = {
                column.name: f"UNIQUE KEY {DIALECT.quote(column.name)} ({DIALECT.quote(column.name)})"
                for column in table.columns
                if column.unique and not column.primary_key
            }
        else:
            # With the defaults, checks, comments and indexes that somebody gave it.
            define(connection, table.name, f"create table {name} like {DIALECT.table(table.name)}")
            changes = alterations(connection, self._connections.server, have, table.renamed(staged.name), found)
            if changes:
                define(connection, table.name, f"alter table {name} {', '.join(changes)}")
            made.indexes = catalogue.indexes(connection, staged.name)
            if made.indexes:
                drops = ", ".join(f"drop index {DIALECT.quote(index)}" for index in made.indexes)
                define(connection, table.name, f"alter table {name} {drops}")
        self._tables[staged.name] = made

    def of(self, name: str) -> Staged:
        """What is known of a staged table."""
        return self._tables[name]

    def count(self, name: str, rows: int) -> None:
        """Note by how many rows a staged table grew."""
        with self._lock:
            self._tables[name].rows += rows

    def check(self, names: Iterable[str]) -> None:
        """Raises `PluginError` if the server lost rows that it had taken, as one that crashes may be set up to do."""
        with self._lock, self._explained():
            if not self._is_alive():
                self._was_cut = True
                self._take_control()
                for found in self._runs:
                    self._try_lock(found)
        if not self._was_cut:
            return
        with self._connections.lent() as connection:
            for name in names:
                if self._tables[name].is_renamed or self._tables[name].has_taken:
                    continue
                there = catalogue.count(connection, name) if catalogue.is_there(connection, name) else 0
                if there != self._tables[name].rows:
                    raise PluginError(
                        f"the connection was lost, and of {self._tables[name].rows:,} staged rows the server has "
                        f"{there:,}",
                        hint="nothing was published; sync again",
                    )

    def discard(self, names: Iterable[str]) -> None:
        """Drop staged tables."""
        with self._connections.lent() as connection:
            for name in names:
                run(connection, f"drop table if exists {DIALECT.table(name)}")

    def close(self) -> None:
        """Leave no trace: the tables of our runs go."""
        import pymysql

        with self._lock:
            if self._control is None:
                return
            try:
                if not self._is_alive():
                    self._take_control()
                self._drop(dead=False)
            except (pymysql.MySQLError, PluginError) as error:
                log.info("staged tables stay until the next run: %s", error)
            finally:
                with contextlib.suppress(pymysql.MySQLError):
                    self._control.close()
                self._control = None
                self._runs.clear()

    def _is_alive(self) -> bool:
        import pymysql

        try:
            self._control.ping()
        except pymysql.MySQLError:
            return False
        return True

    def _take_control(self) -> None:
        """Open the connection that holds the locks."""
        if self._control is not None:
            self._was_cut = True
        self._control = self._connections.open()

    def _try_lock(self, found: str) -> bool:
        return bool(run(self._control, f"select get_lock({MARK}, 0)", [self._lock_of(found)])[0][0])

    def _lock_of(self, found: str) -> str:
        return lock_name(self._database, STAGING_PREFIX + found)

    def _drop(self, *, dead: bool) -> None:
        """Drop the tables of dead runs, or else those of ours."""
        there = catalogue.staged_names(self._control)
        runs = {staging_run(name) for name in there}
        for found in runs - self._runs if dead else runs & self._runs:
            if dead and not self._try_lock(found):
                continue
            for name in there:
                if staging_run(name) == found:
                    run(self._control, f"drop table if exists {DIALECT.table(name)}")
            if dead:
                run(self._control, f"do release_lock({MARK})", [self._lock_of(found)])

    @contextlib.contextmanager
    def _explained(self) -> Any:
        import pymysql

        try:
            yield
        except pymysql.MySQLError as error:
            raise explained(error) from error
