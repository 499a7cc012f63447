"""Staged tables, and others that are there for a moment: made beside the live ones, swept when their run is gone.

ClickHouse has no lock that goes with a connection. So each run has a table, its lease, to which it adds a row now and
then: a run is dead whose process is gone from this machine, or whose lease was not renewed for a while. Its comment
says whose it is until it has a row.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from catchment.destinations.clickhouse import catalogue
from catchment.destinations.clickhouse.catalogue import Definitions
from catchment.destinations.clickhouse.connection import Connection
from catchment.destinations.clickhouse.types import quote, text_literal
from catchment.sdk import PluginError, Table
from catchment.sdk.staging import STAGING_PREFIX, staging_run

log = logging.getLogger("catchment.clickhouse")

RENEWED_S = 15.0
"""Seconds between two rows of a lease."""
DEAD_S = 90
"""Seconds without a new row after which a run counts as dead."""
_LEASE = ".lease"
_NOT_ATOMIC = ("Ordinary", "Lazy", "Memory")
"""Engines of databases whose tables cannot be exchanged."""


@dataclass(slots=True)
class Staged:
    """A table whose rows wait."""

    final: Table
    """What it will be when it is published."""
    forced: bool
    """Whether the live one may be made anew, by `migrate_mode: forced`."""
    make: Callable[[str], None] | None = None
    """Makes the table that is published, under the name that it is given; None if it is the staged one itself."""
    rows: int = 0
    """Rows that were written to it."""


class Staging:
    """The staged tables of one destination."""

    def __init__(self, connection: Connection, definitions: Definitions) -> None:
        self._connection = connection
        self._definitions = definitions
        self._own = uuid.uuid4().hex[:8]
        """The run of tables that serve one call."""
        self._numbers = itertools.count(1)
        self._runs: set[str] = set()
        self._staged: dict[str, Staged] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def begin(self, run: str) -> None:
        """Mark a run as alive, and sweep what dead ones left; only the first call of a run does it."""
        with self._lock:
            if run in self._runs:
                return
            if not self._runs:
                self._check_database()
            lease = quote(_lease(run))
            on_cluster, engine = self._definitions.on_cluster, self._definitions.engine
            self._connection.run(
                f"create table if not exists {lease}{on_cluster} (host String, process UInt32, at DateTime64(3)) "
                f"engine = {engine} order by tuple() comment {text_literal(f'{_machine()} {os.getpid()}')}"
            )
            self._renew(run)
            self._runs.add(run)
            self._sweep()
            if self._renewing is None:
                self._renewing = threading.Thread(target=self._keep_renewing, name="lease-clickhouse", daemon=True)
                self._renewing.start()

    def scratch(self) -> str:
        """A name for a table that serves one call."""
        self.begin(self._own)
        return f"{STAGING_PREFIX}{self._own}.{next(self._numbers)}"

    def add(self, name: str, staged: Staged) -> None:
        """Note a staged table."""
        with self._lock:
            self._staged[name] = staged

    def get(self, name: str) -> Staged | None:
        """A staged table; None for any other."""
        return self._staged.get(name)

    def drop(self, names: Iterable[str]) -> None:
        """Drop tables; a missing one is no error."""
        for name in names:
            self._connection.run(self._definitions.drop(name))

    def close(self) -> None:
        """Leave no trace: what is left of our runs goes."""
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
            self._renewing = None
        if not self._runs or not self._connection.is_open:
            return
        try:
            there = catalogue.names(self._connection, STAGING_PREFIX)
            for run in self._runs:
                self._drop_run(run, there)
        except PluginError as error:
            log.warning("staged tables stay until the next run: %s", error)
        self._runs.clear()

    def _check_database(self) -> None:
        found = self._connection.rows("select engine from system.databases where name = currentDatabase()")
        if found and found[0][0] in _NOT_ATOMIC:
            raise PluginError(
                f"rows cannot be staged: tables of a database with the engine `{found[0][0]}` cannot be exchanged",
                hint="use a database with the engine `Atomic`, or set `publish: stream` for the destination",
            )

    def _renew(self, run: str) -> None:
        values = f"{text_literal(_machine())}, {os.getpid()}, now64(3)"
        self._connection.run(f"insert into {quote(_lease(run))} (host, process, at) select {values}")

    def _keep_renewing(self) -> None:
        while not self._ended.wait(RENEWED_S):
            for run in list(self._runs):
                try:
                    self._renew(run)
                except PluginError as error:
                    # It is tried again, and whoever writes sees for himself that the server is away.
                    log.info("a lease was not renewed: %s", error)

    def _sweep(self) -> None:
        """Drop the tables of runs that are gone."""
        there = catalogue.names(self._connection, STAGING_PREFIX)
        for run in {staging_run(name) for name in there} - self._runs:
            if self._is_dead(run, there):
                log.info("what a dead run left is dropped", extra={"run": run})
                self._drop_run(run, there)

    def _is_dead(self, run: str, there: list[str]) -> bool:
        if _lease(run) not in there:
            return True
        found = self._connection.rows(
            f"select any(host), max(process), dateDiff('second', max(at), now64(3)), count() from {quote(_lease(run))}"
        )
        host, process, age, rows = found[0]
        if not rows:
            # It is just being made, or its run was killed right then: who made it stands in its comment.
            made = self._connection.rows(
                "select comment, dateDiff('second', metadata_modification_time, now()) from system.tables "
                f"where database = currentDatabase() and name = {text_literal(_lease(run))}"
            )
            if not made:
                return False
            comment, age = made[0]
            host, _, number = comment.rpartition(" ")
            process = int(number) if number.isdigit() else 0
        return bool(age > DEAD_S or (host == _machine() and not _is_running(process)))

    def _drop_run(self, run: str, there: list[str]) -> None:
        """The lease goes last: without it the others would be anybody's."""
        tables = [name for name in there if name.startswith(f"{STAGING_PREFIX}{run}.") and name != _lease(run)]
        self.drop([*tables, _lease(run)])


def _lease(run: str) -> str:
    return f"{STAGING_PREFIX}{run}{_LEASE}"


def _machine() -> str:
    """What tells this machine, or container, since it was started, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text().strip() if boot.exists() else ""
    return f"{socket.gethostname()}/{started}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
