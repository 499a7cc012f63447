"""The journal of past runs: a SQLite file below `--cq-dir`, for its owner alone, that several processes may write."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catchment.engine.result import Result
from catchment.errors import CatchmentError

FILE = "journal.sqlite"
KEPT_RUNS = 1_000
KEPT_BYTES = 100 << 20
"""Bytes of results that are kept; of runs with many hundreds of tables that is fewer than `KEPT_RUNS`."""
WAIT_S = 5.0
"""Time to wait for other processes that write: half of what an interrupted run has for its end."""
VERSION = 1
"""Version of the tables below, which stands in the file as its `user_version`."""

# The result comes last: SQLite reads what stands before it without the pages that a long one fills.
_TABLE = """
create table runs (
    number integer primary key,
    invocation_id text not null,
    started text not null,
    ended text not null,
    outcome text not null,
    exit_code integer not null,
    version text not null,
    rows integer not null,
    errors integer not null,
    config text not null,
    bytes integer not null,
    result text not null
)
"""
_DROP_OLD = """
delete from runs where number in (
    select number from (
        select number, row_number() over latest as place, sum(bytes) over latest as bytes
        from runs window latest as (order by number desc)
    ) where place > ? or (place > 1 and bytes > ?)
)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A line of the journal: a past run, but for its result, which `Journal.result` reads."""

    number: int
    """Place in the journal, from 1; later runs have higher ones."""
    invocation_id: str
    started: str
    """RFC 3339, in UTC."""
    ended: str
    outcome: str
    exit_code: int
    version: str
    rows: int
    """Rows that were read, each once however many destinations it went to."""
    errors: int
    config: tuple[str, ...]
    """Files and folders of the config, as absolute paths."""


_NAMES = tuple(each.name for each in fields(Run))
"""The columns of a line; the table has bytes and the result besides."""


class Journal:
    """The journal in a folder. Every method raises `CatchmentError` where the file cannot be used."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder).absolute() / FILE

    def add(self, document: dict[str, Any], *, config: Sequence[str], exit_code: int, rows: int, errors: int) -> None:
        """Note a run whose result is `document`, as JSON; what is too old goes."""
        text = json.dumps(document, separators=(",", ":"))
        values = [document[name] for name in ("invocation_id", "started", "ended", "outcome")]
        values += [exit_code, document["version"], rows, errors, json.dumps(list(config)), len(text), text]
        with self._writable() as connection:
            marks = ", ".join("?" * len(values))
            connection.execute(f"insert into runs values (null, {marks})", values)  # noqa: S608
            connection.execute(_DROP_OLD, (KEPT_RUNS, KEPT_BYTES))

    def runs(self, limit: int) -> list[Run]:
        """The last runs, latest first; none where there is no journal yet."""
        return self._runs("order by number desc limit ?", limit)

    def find(self, prefix: str = "") -> Run:
        """The latest run whose id begins with `prefix`. Raises `CatchmentError` for none, and for several ids."""
        asked = prefix.lower()
        found = self._runs("where substr(invocation_id, 1, ?) = ? order by number desc", len(asked), asked)
        ids = list(dict.fromkeys(run.invocation_id for run in found))
        if not found and asked:
            raise CatchmentError(f"no run {prefix!r} is in the journal {self.path}", hint="`catchment runs` lists them")
        if not found:
            hint = "`catchment sync` writes one at its end; `--cq-dir` says where it is"
            raise CatchmentError(f"no run is in the journal {self.path}", hint=hint)
        if asked and len(ids) > 1:
            shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            raise CatchmentError(f"several runs begin with {prefix!r}: {shown}", hint="write more of the id")
        return found[0]

    def before(self, run: Run) -> Run | None:
        """The run of the same config before `run`."""
        config = json.dumps(list(run.config))
        found = self._runs("where number < ? and config = ? order by number desc limit 1", run.number, config)
        return found[0] if found else None

    def result(self, run: Run) -> Result:
        """The whole result of a run."""
        with self._connected() as connection:
            row = connection.execute("select result from runs where number = ?", (run.number,)).fetchone()
        try:
            return Result.from_json(json.loads(row[0]))
        except (TypeError, ValueError, ValidationError) as error:
            text = f"run {run.invocation_id} in the journal {self.path} cannot be read"
            raise CatchmentError(text, hint="another program has changed or removed it") from error

    def _runs(self, condition: str, *values: object) -> list[Run]:
        if not self.path.exists():
            return []
        with self._connected() as connection:
            # A process that was killed may have left an empty file.
            there = self._check(connection)
            found = connection.execute(f"select {', '.join(_NAMES)} from runs {condition}", values) if there else ()  # noqa: S608
            rows = list(found)
        return [Run(**dict(zip(_NAMES, row, strict=True)) | {"config": tuple(json.loads(row[-1]))}) for row in rows]

    @contextlib.contextmanager
    def _writable(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own, in a file that is made if it is missing."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise CatchmentError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error
        with self._connected() as connection:
            # The lock comes first: of two processes that find the file empty, one makes the table.
            connection.execute("begin immediate")
            if self._check(connection) == 0:
                connection.execute(_TABLE)
                connection.execute(f"pragma user_version = {VERSION}")
            yield connection
            connection.execute("commit")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            address = f"{self.path.as_uri()}?mode=rw"
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None)
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            # An operational error (a lock, a full disk) may pass; another one says that this is no journal.
            passes = isinstance(error, sqlite3.OperationalError)
            hint = "" if passes else "move the file away, the next sync begins a new one"
            raise CatchmentError(f"the journal {self.path} cannot be used: {error}", hint=hint) from error

    def _check(self, connection: sqlite3.Connection) -> int:
        """The version of the file, 0 for an empty one. Raises `CatchmentError` for one of a later catchment."""
        version: int = connection.execute("pragma user_version").fetchone()[0]
        if version > VERSION:
            hint = "use that one, or another `--cq-dir`"
            raise CatchmentError(f"the journal {self.path} was written by a later catchment", hint=hint)
        return version
