"""Connections to MySQL and MariaDB: lent one at a time, transactions, named locks, errors in our words."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from catchment.destinations.mysql.place import Place
from catchment.sdk import PluginError, RowsRefused, Transient, sql

MARK = "\0"
"""What stands for a bound value in statements that are put together: no identifier can hold it, as it can hold `%s`."""
LOCK_WAIT_S = 30
"""Seconds to wait for others who use a table, or hold its name, before the call is tried again."""
IDLE_S = 86_400
"""Seconds that a connection may be idle: what holds a run's lock says nothing while rows are loaded."""
_SQL_MODE = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION"
LOCK_WAIT_TIMEOUT = 1205
_PASSING = {1040, 1053, 1205, 1213, 1317, 1412, 1684, 1927, 3024, 3572}
"""Errors that leave nothing, once rolled back, and may pass: no slot, shutdown, lock wait, deadlock, killed."""
_LOST = {0, 2006, 2013, 2014, 2055, 4031}
_NOT_READY = {1040, 1053, 1203, 1226, 2002, 2003, 2006, 2013}
_OF_ROWS = {1048, 1062, 1263, 1264, 1265, 1292, 1366, 1406, 1411, 1441, 3140, 3141, 3156, 3819, 4025, 1690, 1118, 1452}
"""Errors that a value is to blame for (https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html)."""
_HINTS = {
    1148: "start the server with `local_infile=ON`, or `set global local_infile = on`",
    3948: "start the server with `local_infile=ON`, or `set global local_infile = on`",
    4166: "start the server with `local_infile=ON`, or `set global local_infile = on`",
    1118: "MySQL keeps a row in half a page; leave columns out, or put some into one json column, with a transformer",
}
_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin", "utf8mb4_bin")
"""Collations that tell texts apart byte by byte, best first: the last one takes no notice of blanks at the end."""


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of the server."""

    is_mariadb: bool
    version: tuple[int, ...]
    collation: str
    """Of the tables that we make."""

    @property
    def pads(self) -> bool:
        """Whether two texts are equal to the server if they differ in blanks at their ends only."""
        return self.collation == _COLLATIONS[-1]


class OutcomeUnknown(PluginError):
    """Raised when the connection was lost in the middle of a commit that cannot be made a second time."""


@dataclass(frozen=True, slots=True)
class Exact:
    """A bound text that only a text of the very same bytes is equal to, whatever the column's collation."""

    text: str

    def literal(self, server: Server) -> str:
        """The text in SQL. By its collation an index can be used; bytes are exact where no collation is."""
        digits = f"X'{self.text.encode().hex()}'"
        return f"cast({digits} as binary)" if server.pads else f"_utf8mb4 {digits} collate {server.collation}"


class Connections:
    """Connections that are opened when none is free, and lent to one caller at a time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._all: list[Any] = []
        self._free: list[Any] = []
        self._lock = threading.Lock()
        self._server: Server | None = None

    @property
    def database(self) -> str:
        """Name of the database."""
        return self._place.database

    @property
    def server(self) -> Server:
        """What is known of the server; asks it, unless it was asked."""
        if self._server is None:
            with self.lent():
                pass
        assert self._server is not None
        return self._server

    def open(self) -> Any:
        """A connection of its own, in autocommit mode.

        Raises `Transient` while the server starts, or once it had been reached before; else `PluginError`.
        """
        try:
            import pymysql
        except ImportError as error:
            raise PluginError("the mysql driver is not installed", hint="pip install 'catchment[mysql]'") from error
        try:
            connection = self._connected()
            server = self._server = self._server or _asked(connection)
            connection.encoders = {**connection.encoders, Exact: lambda value, _: value.literal(server)}
        except pymysql.MySQLError as error:
            number, text = _parts(error)
            if number in _NOT_READY and (self._server is not None or number in (1040, 1053)):
                raise Transient(f"the server is not ready: {text}") from error
            raise PluginError(f"the database cannot be reached: {text}", hint=_login_hint(number)) from error
        with self._lock:
            self._all = [other for other in self._all if other.open]
            self._all.append(connection)
        return connection

    def _connected(self) -> Any:
        import pymysql
        from pymysql.constants import CLIENT

        place = self._place
        tls: dict[str, Any] = {
            "false": {"ssl_disabled": True},
            "true": {"ssl_verify_cert": True, "ssl_verify_identity": True},
            # Asked for, but not checked: a context that takes any certificate.
            "skip-verify": {"ssl": _unchecked()} if place.tls == "skip-verify" else {},
            "preferred": {},
        }[place.tls]
        made = pymysql.Connection(
            user=place.user,
            password=place.password.encode(),
            host=place.host,
            port=place.port,
            unix_socket=place.socket or None,
            database=place.database,
            charset="utf8mb4",
            connect_timeout=place.timeout_s,
            read_timeout=place.read_timeout_s,
            write_timeout=place.write_timeout_s,
            # Said to the server only: the driver itself would send any file that a server asks for.
            client_flag=CLIENT.LOCAL_FILES,
            autocommit=True,
            program_name="catchment",
            defer_connect=True,
            **tls,
        )
        made.connect(None if place.socket else _socket(place))
        settings = {
            **place.variables,
            "sql_mode": f"'{_SQL_MODE}'",
            "time_zone": "'+00:00'",
            "lock_wait_timeout": str(LOCK_WAIT_S),
            "wait_timeout": str(IDLE_S),
        }
        with made.cursor() as cursor:
            cursor.execute("set " + ", ".join(f"session {name} = {value}" for name, value in settings.items()))
        return made

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
        """A connection that answers; errors of the driver come out in our words."""
        import pymysql

        connection = self._answering()
        try:
            yield connection
        except pymysql.MySQLError as error:
            raise explained(error) from error
        finally:
            self._take_back(connection)

    @contextlib.contextmanager
    def transaction(
        self, *tables: str, again: bool = True, keep: bool = True, before: Sequence[str] = ()
    ) -> Iterator[Any]:
        """A transaction that holds the names of `tables` to itself among all who write them with catchment.

        Raises `Transient` where nothing took effect and it may pass. `again` tells whether the same may be done a
        second time: a connection that is lost in the middle of the commit is then `Transient` too, else
        `OutcomeUnknown`.
        Without `keep` it is taken back at its end. Statements that go before it are not part of it.
        """
        with self.lent() as connection, named_locks(connection, self._place.database, tables):
            for statement in before:
                run(connection, statement)
            with transaction(connection, again=again, keep=keep):
                yield connection

    @contextlib.contextmanager
    def locked(self, tables: Iterable[str]) -> Iterator[Any]:
        """A connection that holds the names of `tables`."""
        with self.lent() as connection, named_locks(connection, self._place.database, tables):
            yield connection

    def _answering(self) -> Any:
        """A free connection that was not lost while nobody used it, or else a new one."""
        import pymysql

        while True:
            with self._lock:
                connection = self._free.pop() if self._free else None
            if connection is None:
                return self.open()
            try:
                connection.ping()
                return connection
            except pymysql.MySQLError:
                self._take_back(connection)

    def _take_back(self, connection: Any) -> None:
        with self._lock:
            if connection.open and connection in self._all:
                self._free.append(connection)


def run(connection: Any, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Execute a statement in which `MARK` stands for each value; its rows, if it has any."""
    with connection.cursor() as cursor:
        if values:
            cursor.execute(statement.replace("%", "%%").replace(MARK, "%s"), tuple(values))
        else:
            cursor.execute(statement)
        return list(cursor.fetchall())


def asking(connection: Any) -> sql.Ask:
    """`run` for whoever knows nothing of the driver."""
    import pymysql

    def ask(statement: str) -> list[tuple[Any, ...]]:
        try:
            return run(connection, statement)
        except pymysql.MySQLError as error:
            raise explained(error) from error

    return ask


def changed(connection: Any, statement: str, values: Sequence[Any] = ()) -> int:
    """Execute a statement; how many rows it changed."""
    with connection.cursor() as cursor:
        return int(cursor.execute(statement.replace("%", "%%").replace(MARK, "%s"), tuple(values)))


@contextlib.contextmanager
def transaction(connection: Any, *, again: bool = True, keep: bool = True) -> Iterator[None]:
    """A transaction on a connection that is there; see `Connections.transaction`."""
    import pymysql

    run(connection, "begin")
    try:
        yield
    except BaseException:
        try:
            run(connection, "rollback")
        except pymysql.MySQLError:
            # The server does it when the connection ends.
            with contextlib.suppress(pymysql.MySQLError):
                connection.close()
        raise
    try:
        run(connection, "commit" if keep else "rollback")
    except pymysql.MySQLError as error:
        if again or connection.open:
            raise
        raise OutcomeUnknown(
            f"the connection was lost during a commit, and nobody knows what became of it: {_parts(error)[1]}",
            hint="look at the table before you sync again",
        ) from error


@contextlib.contextmanager
def named_locks(connection: Any, database: str, names: Iterable[str]) -> Iterator[None]:
    """Hold locks of the server that everybody knows by name; they end with the connection at the latest."""
    import pymysql

    held = []
    try:
        for name in sorted(names):
            lock = lock_name(database, name)
            if run(connection, f"select get_lock({MARK}, {LOCK_WAIT_S})", [lock])[0][0] != 1:
                raise Transient(f"table `{name}` is being written by another sync")
            held.append(lock)
        yield
    finally:
        with contextlib.suppress(pymysql.MySQLError):
            for lock in held if connection.open else ():
                run(connection, f"do release_lock({MARK})", [lock])


def lock_name(database: str, name: str) -> str:
    """Names of locks are one set for the whole server, have 64 characters and know no case."""
    return f"catchment.{hashlib.sha256(f'{database}/{name}'.encode()).hexdigest()[:48]}"


def explained(error: Exception) -> PluginError:
    """What the driver says, in our words; on a connection that was lost before a commit nothing took effect."""
    number, text = _parts(error)
    if number in _LOST or "sequence number" in text:
        return Transient(f"the connection was lost: {text}")
    if number in _PASSING:
        return Transient(f"{text} (error {number})")
    hint = _HINTS.get(number, "")
    if number in _OF_ROWS:
        # Which row of the batch it was is told by its key.
        text = re.sub(r" at row \d+$", "", text)
        found = re.search(r"[cC]olumn '(?:[^']*\.)?([^']+)'|column `[^`]*`\.`[^`]*`\.`([^`]+)`", text)
        column = (found[1] or found[2] or "").strip("`") if found else ""
        return RowsRefused(f"{text} (error {number})", hint=hint, column=column)
    return PluginError(f"{text} (error {number})", hint=hint)


def number_of(error: Exception) -> int:
    """The number of an error."""
    return _parts(error)[0]


def _parts(error: Exception) -> tuple[int, str]:
    """Number and text."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else -1
    text = str(error.args[-1]) if error.args and isinstance(error.args[-1], str) else str(error)
    return number, " ".join(text.split()) or "the connection is closed"


def _login_hint(number: int) -> str:
    return {
        1045: "check user and password of the connection string",
        1049: "make the database first: `create database`",
        1044: "grant the user rights on the database",
    }.get(number, "")


def _asked(connection: Any) -> Server:
    """What the server says about itself."""
    ((version, found),) = run(
        connection,
        "select version(), (select group_concat(collation_name) from information_schema.collations "
        f"where collation_name in ({', '.join([MARK] * len(_COLLATIONS))}))",
        _COLLATIONS,
    )
    # MariaDB knows them by their short names since 11.
    known = set(str(found).split(","))
    collation = next((name for name in _COLLATIONS if name in known), _COLLATIONS[-1])
    numbers = tuple(int(part) for part in re.findall(r"\d+", str(version))[:3])
    return Server("mariadb" in str(version).lower(), numbers, collation)


def _unchecked() -> Any:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _socket(place: Place) -> socket.socket:
    """A socket on which a peer that went away without a word is noticed within two minutes, not hours."""
    from pymysql import OperationalError

    try:
        made = socket.create_connection((place.host, place.port), place.timeout_s)
    except OSError as error:
        raise OperationalError(2003, f"cannot connect to {place.host}:{place.port}: {error}") from error
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 6),
        ("TCP_USER_TIMEOUT", 120_000),
    ):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
