"""The way to a ClickHouse server: statements, rows in and out as Arrow, errors in our words.

The driver sends what fails on the way again if it holds it in memory, rows too, which could double them; so rows are
given to it piece by piece, and everything is sent once. What may be repeated is decided here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from catchment.destinations.clickhouse.address import Address
from catchment.sdk import PluginError, RowsRefused, Transient

_PASSING = {
    202: "too many queries at once", 203: "no free connection", 209: "timeout on the network", 210: "network error",
    225: "no keeper", 242: "table is read only", 252: "too many parts", 279: "no replica answers",
    285: "too few replicas", 439: "no free thread", 473: "deadlock avoided", 745: "server overloaded", 999: "keeper",
}  # fmt: skip
"""Codes of failures that left nothing and may pass (https://github.com/ClickHouse/ClickHouse, `ErrorCodes.cpp`)."""
_OF_ROWS = {6, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349, 407, 469}
"""Codes of values that do not fit their column."""
_UNKNOWN_DATABASE, _AUTHENTICATION, _UNKNOWN_OUTCOME, _MEMORY = 81, 516, 319, 241
_HINTS = {
    _UNKNOWN_DATABASE: "make the database first, or name another one in `connection_string`",
    _AUTHENTICATION: "look at the user and the password in `connection_string`",
    497: "grant the user what is missing, or use another user",
    48: "tables are published by exchanging them, which needs a database with the engine `Atomic`; use one, or set "
    "`publish: stream` for the destination",
}
_ONE_BLOCK = {
    # All rows of a statement become one block, which goes in as a whole or not at all.
    "min_insert_block_size_rows": 1 << 62,
    "min_insert_block_size_bytes": 1 << 62,
    "max_insert_threads": 1,
    "async_insert": 0,
}
_ARROW = {"input_format_null_as_default": 0, "input_format_arrow_allow_missing_columns": 0}
"""Values that do not fit are errors, not something else."""
_SYNC = {"alter_sync": 2, "mutations_sync": 2, "lightweight_deletes_sync": 2}
"""Changes are made when the statement returns."""
_WAIT_S = 120.0
_SENT_BYTES = 1 << 20
"""Bytes that are handed to the network at once: it copies them."""


class Unknown(PluginError):
    """Raised when the connection went away after a statement was sent, so that it may have taken effect or not."""


class Connection:
    """One server, spoken to by any number of threads."""

    def __init__(self, address: Address, *, ca_cert: str = "") -> None:
        self._address = address
        self._ca_cert = ca_cert
        self._client: Any = None
        self._pool: Any = None
        self._was_reached = False
        self.is_wide = True
        """Whether dates and times reach from the year 1 to 9999."""

    def open(self) -> None:
        """Connect to the first host that answers. Raises `Transient` if it had been reached before."""
        try:
            import clickhouse_connect
        except ImportError as error:
            raise PluginError(
                "the clickhouse driver is not installed", hint="pip install 'catchment[clickhouse]'"
            ) from error
        # Every error that it logs it raises as well.
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
        if self._address.is_secure and not self._address.is_verified:
            import urllib3

            # The connection string says so.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        failures = []
        for host, port in self._address.hosts:
            try:
                self._client = clickhouse_connect.get_client(**self._options(host, port))
                self._client.http_retries = 0
                first = self.rows("select toString(toDate32('0001-01-01'))")
                self.is_wide, self._was_reached = first == [("0001-01-01",)], True
                return
            except PluginError as error:
                failures.append(error)
            except Exception as error:
                failures.append(explained(error))
            self.close()
            if not isinstance(failures[-1], Transient | Unknown):
                # It answered, and the others would say the same.
                raise failures[-1]
        told = "; ".join(str(failure) for failure in failures)
        if self._was_reached:
            raise Transient(told)
        raise PluginError(
            f"the server at {self._address} cannot be reached: {told}",
            hint="HTTP is spoken to it, on port 8123 (8443 with TLS); `http_port` names another port",
        )

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._pool is not None:
            self._pool.clear()
            self._pool = None

    @property
    def is_open(self) -> bool:
        """Whether `open` succeeded and `close` was not called."""
        return self._client is not None

    def run(self, statement: str, *, settings: Mapping[str, Any] | None = None) -> None:
        """Run a statement that has no rows and may be repeated. Raises `Transient` where that may help."""
        try:
            self.run_once(statement, settings=settings)
        except Unknown as error:
            raise Transient(str(error)) from error

    def run_once(self, statement: str, *, settings: Mapping[str, Any] | None = None) -> None:
        """Run a statement that must not take effect twice. Raises `Unknown` where nobody knows whether it did."""
        with self._explained():
            self._client.command(statement, settings=_SYNC | dict(settings or {}))

    def move(self, statement: str) -> None:
        """Run an `insert ... select`: all rows as one block. Raises `Unknown` as `run_once` does."""
        self.run_once(statement, settings={**_ONE_BLOCK, "insert_deduplication_token": uuid.uuid4().hex})

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives, as Python values."""
        try:
            with self._explained():
                return list(self._client.query(query).result_rows)
        except Unknown as error:
            raise Transient(str(error)) from error

    def insert(self, into: str, batches: Sequence[pa.RecordBatch]) -> None:
        """Insert rows as one block; `into` is the quoted table with its columns.

        Raises `RowsRefused` for values that do not fit, and `Unknown` if nobody knows whether the rows are in, when it
        is settled: no statement of ours runs any more.
        """
        number = uuid.uuid4().hex
        settings = {**_ONE_BLOCK, **_ARROW, "insert_deduplication_token": number, "query_id": number}
        try:
            with self._explained():
                self._client.raw_insert(into, None, self._encoded(batches), settings, "ArrowStream")
        except Unknown:
            self._wait_for(number)
            raise

    def batches(self, query: str) -> Iterator[pa.RecordBatch]:
        """What a query gives, as Arrow."""
        settings = {"output_format_arrow_fixed_string_as_fixed_byte_array": 1}
        with self._explained(), self._client.query_arrow_stream(query, settings=settings, use_strings=True) as stream:
            yield from stream

    def _options(self, host: str, port: int) -> dict[str, Any]:
        address = self._address
        options: dict[str, Any] = {
            "host": host,
            "port": port,
            "interface": "https" if address.is_secure else "http",
            "username": address.user,
            "password": address.password,
            "database": address.database,
            "settings": dict(address.settings),
            "compress": "lz4" if address.is_compressed else False,
            "verify": address.is_verified,
            "connect_timeout": address.connect_timeout_s,
            "send_receive_timeout": address.read_timeout_s,
            "proxy_path": address.path,
            # Every statement stands for itself, and may run beside others.
            "autogenerate_session_id": False,
            "client_name": "catchment",
            "show_clickhouse_errors": "scrub",
        }
        if address.proxy:
            options["https_proxy" if address.is_secure else "http_proxy"] = address.proxy
        if not (address.is_secure and self._ca_cert and address.is_verified):
            return options | {"dedicated_pool": True}
        import ssl

        from clickhouse_connect.driver.httputil import get_pool_manager

        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self._ca_cert)
        self._pool = get_pool_manager(ssl_context=context)
        return options | {"pool_mgr": self._pool}

    def _encoded(self, batches: Sequence[pa.RecordBatch]) -> Iterator[bytes | memoryview]:
        """Rows as pieces of an Arrow stream."""
        compression = "lz4" if self._address.is_compressed else None
        sink = _Pieces()
        with pa.ipc.new_stream(
            sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression)
        ) as writer:
            for batch in batches:
                writer.write_batch(batch)
                yield from sink.taken()
        yield from sink.taken()

    def _wait_for(self, number: str) -> None:
        """Return when the server no longer runs a statement that was cut off."""
        deadline = time.monotonic() + _WAIT_S
        query = f"select count() from system.processes where query_id = '{number}'"
        pause = 0.05
        while time.monotonic() < deadline:
            with contextlib.suppress(PluginError):
                if self.rows(query) == [(0,)]:
                    return
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the driver come out in our words."""
        from clickhouse_connect.driver.exceptions import ClickHouseError
        from urllib3.exceptions import HTTPError

        if self._client is None:
            raise PluginError("the destination is not open")
        try:
            yield
        except (ClickHouseError, HTTPError, OSError, pa.ArrowException) as error:
            raise explained(error) from error


class _Pieces(io.RawIOBase):
    """Collects what is written, to be taken away; what comes of a column is its own memory, not a copy."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[memoryview] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(memoryview(piece))
        return len(self._pieces[-1])

    def taken(self) -> Iterator[bytes | memoryview]:
        """What was written since the last time, in parts that are sent at once."""
        pieces, self._pieces = self._pieces, []
        if sum(map(len, pieces)) <= _SENT_BYTES:
            yield b"".join(pieces)
            return
        for piece in pieces:
            for start in range(0, len(piece), _SENT_BYTES):
                yield piece[start : start + _SENT_BYTES]


def explained(error: Exception) -> PluginError:
    """What the driver says, in our words: `Transient` where nothing took effect and it may pass."""
    code = getattr(error, "code", None)
    text = _text(error)
    if code is None:
        if _is_refusal(error):
            return Transient(f"the server is not there: {text}")
        return Unknown(f"the connection was lost: {text}") if _is_lost(error) else PluginError(text)
    if code == _UNKNOWN_OUTCOME:
        return Unknown(text)
    if code in _PASSING or (code == _MEMORY and "(total)" in text):
        return Transient(text)
    if code in _OF_ROWS:
        return RowsRefused(text, column=_column(text))
    return PluginError(text, hint=_HINTS.get(code, ""))


def _is_refusal(error: BaseException | None) -> bool:
    """Whether no connection came about, so that nothing was sent."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    while error is not None:
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            return True
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__
    return False


def _is_lost(error: BaseException | None) -> bool:
    """Whether the network, or a proxy in between, is to blame: the server itself gives every error a code."""
    from urllib3.exceptions import HTTPError

    while error is not None:
        if isinstance(error, HTTPError | OSError) or "HTTP status" in str(error):
            return True
        error = error.__cause__
    return False


_PREFIX = re.compile(r"^Received ClickHouse exception, code: \d+, server response: |Code: \d+\. DB::Exception: ")


def _text(error: BaseException) -> str:
    """What happened, without what the driver and the server put around it."""
    while error.__cause__ is not None and getattr(error, "code", None) is None:
        error = error.__cause__
    return " ".join(_PREFIX.sub("", str(error)).split()).rstrip(". ")


def _column(text: str) -> str:
    found = re.search(r"column `?([^`\s]+)`? ", text)
    return found[1] if found else ""
