"""Staged tables: made beside the live ones, and swept when the run that made them is gone.

SQLite has no lock of its own for a run, and several processes may write one file. So each run holds the lock of an
empty file beside the database, named after it, which the system lets go of with the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from catchment.destinations.sqlite import catalogue
from catchment.destinations.sqlite.types import DIALECT
from catchment.sdk import PluginError, Table, sql
from catchment.sdk.sqlite import Connection
from catchment.sdk.staging import STAGING_PREFIX, staging_run

_MARK = "-catchment-"
"""Between the name of the database file and that of the run, in the name of a run's file."""
_TRIES = 10


@dataclass(slots=True)
class Staged:
    """One staged table."""

    final: Table
    """What it will be when it is published, with the live table's name."""
    create: str
    """The statement that makes it, if it is not there yet."""
    is_keyed: bool
    """Whether it has its key from the start, so that rows of equal keys have to be replaced."""
    is_forced: bool
    """Whether the live table may be made anew, by `migrate_mode: forced`."""
    rows: int = 0
    """Rows that were written to it."""


class Staging:
    """The staged tables of one destination."""

    def __init__(self, connection: Connection, path: Path | None) -> None:
        self._connection = connection
        self._path = path
        """The database file; None where it is in memory, so that nobody else can leave anything in it."""
        self._locks: dict[str, Connection] = {}
        self._swept: set[str] = set()
        self._tables: dict[str, Staged] = {}

    def begin(self, run: str) -> None:
        """Mark a run as alive, and sweep what dead ones left; only the first call of a run does it."""
        if self._path is None or run in self._swept:
            return
        if run not in self._locks:
            self._locks[run] = self._locked(self._file(run))
        self._sweep()
        self._swept.add(run)

    def add(self, final: Table, staged: Table, *, forced: bool) -> None:
        """Note a staged table with the columns of `final`. The first rows make it, which spares a wait for the disk."""
        # Any other key is built when the rows are in, which sorts them once instead of finding a place for each.
        keyed = catalogue.is_row_number(final) or (bool(final.primary_keys) and not catalogue.row_number(final))
        table = final.renamed(staged.name)
        if not keyed:
            table = table.with_columns(
                replace(column, primary_key=False, not_null=column.not_null or column.primary_key)
                for column in table.columns
            )
        self._tables[staged.name] = Staged(final, catalogue.definition(table, final.name), keyed, forced)

    def get(self, name: str) -> Staged | None:
        """The staged table of this name; None if it is none of ours."""
        return self._tables.get(name)

    def discard(self, names: Iterable[str]) -> None:
        """Drop staged tables."""
        with self._connection.transaction():
            for name in names:
                self._connection.run(sql.drop_table(DIALECT, name))

    def close(self) -> None:
        """Let go of the runs."""
        for run, lock in self._locks.items():
            lock.close()
            self._file(run).unlink(missing_ok=True)
        self._locks.clear()

    def _file(self, run: str) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}{_MARK}{run}")

    def _locked(self, file: Path) -> Connection:
        """The file, made and held. One who sweeps may hold it first, and take it away."""
        failed: PluginError | None = None
        for _ in range(_TRIES):
            lock, failed = Connection(str(file)), None
            try:
                lock.run("begin exclusive")
            except PluginError as error:
                # SQLite calls it an error of the disk where the file goes in that very moment.
                failed = error
            if file.exists():
                if failed is None:
                    return lock
                lock.close()
                raise failed
            lock.close()
        raise PluginError(f"rows cannot be staged: {str(file)!r} is taken away as soon as it is made") from failed

    def _sweep(self) -> None:
        """Drop the staged tables of runs that are gone, and their files."""
        assert self._path is not None
        tables = catalogue.staged_names(self._connection.run)
        start = f"{self._path.name}{_MARK}"
        files = [file.name for file in self._path.parent.iterdir() if file.name.startswith(start)]
        runs = {staging_run(name) for name in tables} | {name.removeprefix(start) for name in files}
        for run in runs - set(self._locks):
            with _held(self._file(run)) as is_dead:
                if is_dead:
                    self.discard(name for name in tables if name.startswith(f"{STAGING_PREFIX}{run}."))
                    self._file(run).unlink(missing_ok=True)


@contextlib.contextmanager
def _held(file: Path) -> Iterator[bool]:
    """Hold a run's file; false if it cannot be had, as the run is alive. One that is missing needs no holding."""
    with contextlib.ExitStack() as stack:
        if file.exists():
            try:
                lock = Connection(f"{file.as_uri()}?mode=rw")
                stack.callback(lock.close)
                lock.run("pragma busy_timeout = 0")
                lock.run("begin exclusive")
            except PluginError:
                yield False
                return
        yield True
