"""Connections to PostgreSQL: lent one at a time, transactions whose outcome is always known, errors in our words."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from catchment.sdk import PluginError, RowsRefused, Transient

_PASSING = {"25P03", "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "53300"}
"""SQLSTATEs of failures that left nothing and may pass: serialization, deadlock, lock timeout, restart, no slot."""
_OF_ROWS = ("22", "23", "54000")
"""Where SQLSTATEs begin whose cause is in the rows: data that do not fit, broken constraints, rows too large."""
_NOT_READY = ("starting up", "shutting down", "accepting connections", "too many", "connection slots", "recovery mode")
"""Parts of what a server says that cannot take a connection yet; the driver has no SQLSTATE for those."""
_HINTS = {
    "22021": "PostgreSQL cannot hold a NUL character in a text; take it out with a transformer",
    "22P05": "PostgreSQL cannot hold a NUL character in a json value; take it out with a transformer",
}
_DEFAULTS = {
    "fallback_application_name": "catchment",
    "connect_timeout": "10",
    # A peer that went away without a word is noticed within two minutes, not hours.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "6",
    "tcp_user_timeout": "120000",
}
"""Settings of libpq for what the connection string does not set."""
MARK = "\0"
"""What stands for a bound value in statements that are put together: no identifier can hold it, as it can hold `%s`."""
_NO_MARK = "select null, null, null"
"""The query before a commit where the server remembers no transactions."""
_RESOLVE_TRIES = 30


def execute(connection: Any, statement: str, values: Sequence[Any] = ()) -> Any:
    """Run a statement in which `MARK` stands for each value."""
    return connection.execute(numbered(statement), list(values) or None)


def numbered(statement: str) -> str:
    """A statement with a number for each `MARK`."""
    first, *rest = statement.split(MARK)
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


class Connections:
    """Connections that are opened when none is free, and lent to one caller at a time."""

    def __init__(
        self, connection_string: str, password: Callable[[Mapping[str, str]], str] | None = None, lifetime_s: float = 0
    ) -> None:
        self._connection_string = connection_string
        self._password = password
        """What makes the password of each connection; None where the string has it."""
        self._lifetime_s = lifetime_s
        """Seconds after which a connection is not lent again; 0 means no limit."""
        self._opened: dict[int, float] = {}
        """By the identity of a connection when it was opened, on the monotonic clock."""
        self._all: list[Any] = []
        self._free: list[Any] = []
        self._lock = threading.Lock()
        self._mark = ""
        """The query before a commit: the transaction's number, and where the log stands; empty until one is open."""
        self.version = ""
        """What the server calls itself, once one connection is open."""

    def open(self) -> Any:
        """A connection of its own, in autocommit mode.

        Raises `Transient` while the server starts, or once it had been reached before; else `PluginError`.
        """
        try:
            import psycopg
        except ImportError as error:
            raise PluginError(
                "the postgresql driver is not installed", hint="pip install 'catchment[postgresql]'"
            ) from error
        try:
            connection = psycopg.connect(self.settings(), autocommit=True, cursor_factory=psycopg.RawCursor)
            connection.execute("set timezone = 'UTC'")
            if not self._mark:
                self.version = "".join(map(str, connection.execute("select version()").fetchone() or ()))
                self._mark = _mark_query(connection) if self.version.startswith("PostgreSQL ") else _NO_MARK
            if self._mark is not _NO_MARK:
                connection.execute("set client_min_messages = warning")
        except psycopg.ProgrammingError as error:
            raise PluginError(f"`connection_string` cannot be read: {_text(error)}") from error
        except psycopg.Error as error:
            text = _text(error)
            if self._mark or error.sqlstate in _PASSING or any(part in text for part in _NOT_READY):
                raise Transient(f"the server is not ready: {text}") from error
            raise PluginError(f"the database cannot be reached: {text}") from error
        with self._lock:
            self._all = [other for other in self._all if not other.closed]
            self._all.append(connection)
            self._opened[id(connection)] = time.monotonic()
        return connection

    def settings(self) -> str:
        """The connection string with our defaults, and with a password that was made for it."""
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        settings: dict[str, Any] = _DEFAULTS | conninfo_to_dict(self._connection_string)
        if "PGCONNECT_TIMEOUT" in os.environ:
            settings.pop("connect_timeout")
        if self._password is not None:
            settings["password"] = self._password(settings)
        return make_conninfo("", **settings)

    def _pop_free(self) -> Any:
        """A connection that nobody uses and that is not too old; None if there is none."""
        with self._lock:
            while self._free:
                connection = self._free.pop()
                age = time.monotonic() - self._opened.get(id(connection), 0.0)
                if not self._lifetime_s or age < self._lifetime_s:
                    return connection
                self._all.remove(connection)
                connection.close()
        return None

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for connection in self._all:
                with contextlib.suppress(Exception):
                    connection.close()
            self._all.clear()
            self._free.clear()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Any]:
        """A free connection, or a new one; errors of the driver come out in our words."""
        import psycopg

        connection = self._pop_free() or self.open()
        try:
            yield connection
        except psycopg.Error as error:
            raise explained(error, lost=connection.closed) from error
        finally:
            self._take_back(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction on a connection of its own.

        Raises `Transient` where nothing took effect and it may pass. When the connection goes away in the middle of the
        commit, the server is asked what became of it: committed is fine, aborted is `Transient`.
        """
        import psycopg

        connection = self._begin()
        try:
            try:
                yield connection
                mark = connection.execute(self._mark).fetchone()
            except BaseException as error:
                with contextlib.suppress(psycopg.Error):
                    connection.execute("rollback")
                if isinstance(error, psycopg.Error):
                    raise explained(error, lost=connection.closed) from error
                raise
            try:
                connection.execute("commit")
            except psycopg.Error as error:
                if not connection.closed:
                    raise explained(error) from error
                self._resolve(mark, error)
        finally:
            self._take_back(connection)

    def _begin(self) -> Any:
        """A connection on which a transaction has begun; those that were lost while nobody used them are let go."""
        import psycopg

        while True:
            free = self._pop_free()
            connection = free or self.open()
            try:
                connection.execute("begin")
                return connection
            except psycopg.Error as error:
                self._take_back(connection)
                if free is None or not connection.closed:
                    raise explained(error, lost=connection.closed) from error

    def _take_back(self, connection: Any) -> None:
        with self._lock:
            if not connection.closed and connection in self._all:
                self._free.append(connection)

    def _resolve(self, mark: tuple[str | None, str | None, str | None], cause: Exception) -> None:
        """Find out whether the transaction of `mark` was committed before the connection went away."""
        xid = mark[0]
        if self._mark is _NO_MARK:
            raise PluginError(
                f"the connection was lost during a commit, and the server cannot be asked what became of it: "
                f"{_text(cause)}",
                hint="look at the table before you sync again",
            ) from cause
        if xid is None:
            raise Transient(f"the connection was lost: {_text(cause)}") from cause
        for attempt in range(_RESOLVE_TRIES):
            status = self._status(*mark)
            if status == "committed":
                return
            if status == "aborted":
                raise Transient(f"the connection was lost before the commit: {_text(cause)}") from cause
            time.sleep(min(0.1 * 2**attempt, 2.0))
        raise PluginError(
            f"the connection was lost during a commit and the server does not say what became of it: {_text(cause)}",
            hint="look at the table before you sync again",
        ) from cause

    def _status(self, xid: str | None, written: str | None, replayed: str | None) -> str | None:
        """What became of a transaction: `committed`, `aborted`, or else it is not known yet."""
        import psycopg

        try:
            with contextlib.closing(self.open()) as connection:
                if written is not None:
                    # A server that crashed may have lost the end of its log. The numbers of the transactions in there
                    # are given out again, so their status would be that of others.
                    lost = connection.execute(
                        "select pg_last_wal_replay_lsn() is distinct from $1::pg_lsn "
                        "and pg_last_wal_replay_lsn() < $2::pg_lsn",
                        [replayed, written],
                    ).fetchone()[0]
                    if lost:
                        return "aborted"
                row = connection.execute("select pg_xact_status($1::text::xid8)", [xid]).fetchone()
                return str(row[0]) if row[0] else None
        except (PluginError, psycopg.OperationalError):
            return None
        except psycopg.Error as error:
            # A number that was not given out yet: the server never wrote down that it had begun.
            return "aborted" if error.sqlstate == "22023" else None


def _mark_query(connection: Any) -> str:
    """The query for a transaction's number, the end of the log, and where the last recovery ended."""
    import psycopg

    try:
        positions = "pg_current_wal_insert_lsn()::text, pg_last_wal_replay_lsn()::text"
        connection.execute(f"select {positions}")
    except psycopg.DatabaseError as error:
        if connection.closed:
            raise
        del error
        # Amazon's Aurora has no log of this kind, and loses none of it.
        positions = "null, null"
    return f"select pg_current_xact_id_if_assigned()::text, {positions}"


def explained(error: Exception, *, lost: bool = False) -> PluginError:
    """What psycopg says, in our words; on a connection that was `lost` before a commit nothing took effect."""
    state = getattr(error, "sqlstate", None)
    text = _text(error)
    if lost and state not in _PASSING:
        return Transient(f"the connection was lost: {text}")
    if state in _PASSING or _is_race(error, state):
        return Transient(f"{text} (SQLSTATE {state})")
    hint = _HINTS.get(state or "", "") if _NUL.search(text) else ""
    if state and state.startswith(_OF_ROWS):
        # Which row of the batch it was is told by its key.
        text = _ROW.sub("", text)
        found = re.search(r"column [`\"]([^`\"]+)[`\"]", text)
        return RowsRefused(f"{text} (SQLSTATE {state})", hint=hint, column=found[1] if found else "")
    return PluginError(f"{text} (SQLSTATE {state})" if state else text, hint=hint)


def _is_race(error: Exception, state: str | None) -> bool:
    """Whether two sessions changed the catalogue at once, for which there is no SQLSTATE."""
    if state == "XX000":
        return "concurrently" in _text(error)
    diagnostic = getattr(error, "diag", None)
    return state == "23505" and diagnostic is not None and diagnostic.schema_name == "pg_catalog"


def _text(error: Exception) -> str:
    """Message, detail and, for COPY, where it happened."""
    diagnostic = getattr(error, "diag", None)
    parts = [diagnostic.message_primary, diagnostic.message_detail, diagnostic.context] if diagnostic else []
    found = [part.replace("\n", " ") for part in parts if part]
    return _COPY.sub(_place, "; ".join(found)) or " ".join(str(error).split())


_NUL = re.compile(r"0x00|u0000")
_ROW = re.compile(r"(?:; )?row \d+ of the batch(?!,)|row \d+ of the batch, ")
_COPY = re.compile(r"COPY .+?, line (\d+)(?:, column ([^:]+))?", re.DOTALL)


def _place(found: re.Match[str]) -> str:
    """Where in a COPY: its table may be one of ours that nobody knows."""
    column = f", column `{found[2]}`" if found[2] else ""
    return f"row {found[1]} of the batch{column}"
