"""Connections to PostgreSQL: one per thread, transactions whose outcome is always known, errors in our words."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from catchment.sdk import PluginError, Transient

_PASSING = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300"}
"""SQLSTATEs of failures that left nothing and may pass: serialization, deadlock, lock timeout, restart, no slot."""


class Connections:
    """A connection for each thread that asks, opened when it first does."""

    def __init__(self, connection_string: str) -> None:
        self._connection_string = connection_string
        self._local = threading.local()
        self._all: list[Any] = []
        self._lock = threading.Lock()

    def get(self) -> Any:
        """This thread's connection, in autocommit mode; a new one if the last was lost."""
        connection = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._local.connection = self.open()
        return connection

    def open(self) -> Any:
        """A connection of its own. Raises `Transient` while the server starts, else `PluginError`."""
        try:
            import psycopg
        except ImportError as error:
            raise PluginError(
                "the postgresql driver is not installed", hint="pip install 'catchment[postgresql]'"
            ) from error
        try:
            connection = psycopg.connect(self._connection_string, autocommit=True, application_name="catchment")
            connection.execute("set timezone = 'UTC'")
            connection.execute("set client_min_messages = warning")
        except psycopg.Error as error:
            if error.sqlstate in _PASSING:
                raise Transient(f"the server is not ready: {_text(error)}") from error
            raise PluginError(f"the database cannot be reached: {_text(error)}") from error
        with self._lock:
            self._all.append(connection)
        return connection

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            for connection in self._all:
                with contextlib.suppress(Exception):
                    connection.close()
            self._all.clear()

    @contextlib.contextmanager
    def transaction(self, connection: Any = None) -> Iterator[Any]:
        """A transaction on this thread's connection.

        Raises `Transient` where nothing took effect and it may pass. When the connection goes away in the middle of the
        commit, the server is asked what became of it: committed is fine, aborted is `Transient`.
        """
        import psycopg

        connection = connection or self.get()
        xid = ""
        try:
            connection.execute("begin")
            yield connection
            xid = connection.execute("select pg_current_xact_id_if_assigned()::text").fetchone()[0] or ""
        except psycopg.Error as error:
            with contextlib.suppress(psycopg.Error):
                connection.execute("rollback")
            raise explained(error, lost=connection.closed) from error
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                connection.execute("rollback")
            raise
        try:
            connection.execute("commit")
        except psycopg.Error as error:
            if not connection.closed:
                raise explained(error) from error
            self._resolve(xid, error)

    def run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute one statement outside a transaction."""
        import psycopg

        connection = self.get()
        try:
            return connection.execute(statement, list(values) or None)
        except psycopg.Error as error:
            raise explained(error, lost=connection.closed) from error

    def _resolve(self, xid: str, cause: Exception) -> None:
        """Find out whether the transaction `xid` was committed before the connection went away."""
        if not xid:
            raise Transient(f"the connection was lost: {_text(cause)}") from cause
        for attempt in range(30):
            try:
                status = self.open().execute("select pg_xact_status(%s::xid8)", [xid]).fetchone()[0]
            except (PluginError, Transient):
                status = "in progress"
            if status == "committed":
                return
            if status == "aborted":
                raise Transient(f"the connection was lost before the commit: {_text(cause)}") from cause
            time.sleep(min(0.1 * 2**attempt, 2.0))
        raise PluginError(
            f"the connection was lost during a commit and the server does not say what became of it: {_text(cause)}",
            hint="look at the table before you sync again",
        ) from cause


def explained(error: Exception, *, lost: bool = False) -> PluginError:
    """What psycopg says, in our words."""
    state = getattr(error, "sqlstate", None)
    if lost and state not in _PASSING and (state is None or state[:2] in ("08", "57")):
        return Transient(f"the connection was lost: {_text(error)}")
    text = _text(error)
    if state in _PASSING:
        return Transient(f"{text} (SQLSTATE {state})")
    return PluginError(f"{text} (SQLSTATE {state})" if state else text)


def _text(error: Exception) -> str:
    """Message, detail and, for COPY, where it happened."""
    diagnostic = getattr(error, "diag", None)
    parts = [diagnostic.message_primary, diagnostic.message_detail, diagnostic.context] if diagnostic else []
    found = [part.replace("\n", " ") for part in parts if part]
    return "; ".join(found) or " ".join(str(error).split())
