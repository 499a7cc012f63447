"""A ClickHouse server in a process of its own: its HTTP interface in front of chDB, the same engine as a library.

Run it as `python -P clickhouse_server.py PORT FOLDER`: beside it lie modules that are named as the library's own.
One statement runs at a time. What a statement says, and every type and error, is the engine's; only the way in is ours:
login, settings and the database of a request, and rows, which the engine reads from a file by the code that reads them
from a connection.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import re
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path
from typing import Any

USER, PASSWORD = "catchment", "rather-secret-43"
_INSERT = re.compile(r"\s*(insert\s+into\s+.+)\s+format\s+(\w+)\s*", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\s+format\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_OF_A_REQUEST = {
    "query", "database", "user", "password", "default_format", "query_id", "session_id", "compress", "decompress",
    "wait_end_of_query", "client_protocol_version", "buffer_size",
}  # fmt: skip
"""Parameters that are no settings."""


class Engine:
    """chDB, for one statement at a time."""

    def __init__(self, folder: str) -> None:
        from chdb.session import Session

        self._session: Any = Session(folder)
        self._lock = threading.Lock()

    def run(self, statement: str, database: str, settings: dict[str, str], answer: str) -> bytes:
        """What a statement gives, in the format `answer`. Raises what the engine raises."""
        with self._lock:
            set_names = []
            try:
                self._do(f"use `{database}`")
                for name, value in settings.items():
                    self._do(f"set {name} = '{value}'")
                    set_names.append(name)
                return self._do(statement, answer)
            finally:
                for name in set_names:
                    self._do(f"set {name} = default")

    def _do(self, statement: str, answer: str = "TabSeparated") -> bytes:
        result = self._session.query(statement, answer)
        return bytes(result.bytes()) if result is not None and result.size() else b""


class Handler(http.server.BaseHTTPRequestHandler):
    """Requests as https://clickhouse.com/docs/interfaces/http has them."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    """Headers and body leave together: apart, the second waits for the other side to confirm the first."""
    engine: Engine

    def do_POST(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        given = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
        try:
            body = self._body()
        except (ConnectionError, ValueError):
            # Whoever sends half of something gets nothing, and nothing of it is kept.
            self.close_connection = True
            return
        if address.path == "/ping":
            self._answer(200, b"Ok.\n")
        elif self._login(given) != (USER, PASSWORD):
            self._answer(403, b"Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)", code="516")
        else:
            self._run(given, body)

    do_GET = do_POST

    def _run(self, given: dict[str, str], body: bytes) -> None:
        statement = given.get("query", "")
        rows = body if statement else b""
        statement = statement or body.decode()
        settings = {name: value for name, value in given.items() if name not in _OF_A_REQUEST}
        answer = given.get("default_format", "TabSeparated")
        found = _FORMAT.search(statement)
        if found and not rows:
            answer, statement = found[1], statement[: found.start()]
        try:
            with self._rows(statement, rows) as complete:
                result = self.engine.run(complete, given.get("database", "default"), settings, answer)
        except Exception as error:
            code = re.search(r"Code: (\d+)", str(error))
            self._answer(500, str(error).encode(), code=code[1] if code else "1002")
            return
        is_query = re.match(r"\s*(select|with|show|describe|exists)\b", statement, re.IGNORECASE)
        self._answer(200, result, answer=answer if is_query else "")

    @contextlib.contextmanager
    def _rows(self, statement: str, rows: bytes) -> Any:
        """The statement to run, with the rows where the engine finds them."""
        insert = _INSERT.fullmatch(statement) if rows else None
        if insert is None:
            yield statement
            return
        with tempfile.NamedTemporaryFile(prefix="rows-") as file:
            file.write(rows)
            file.flush()
            yield f"{insert[1]} from infile '{file.name}' format {insert[2]}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionError("the body is cut short")
            return body
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _login(self, given: dict[str, str]) -> tuple[str, str]:
        authorization = self.headers.get("Authorization", "")
        if authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            return user, password
        user = self.headers.get("X-ClickHouse-User") or given.get("user") or "default"
        return user, self.headers.get("X-ClickHouse-Key") or given.get("password") or ""

    def _answer(self, status: int, body: bytes, *, code: str = "", answer: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Summary", "{}")
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        if answer:
            self.send_header("X-ClickHouse-Format", answer)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def main() -> None:
    port, folder = sys.argv[1:]
    sys.path.append(str(Path(sys.prefix) / "peers"))
    Handler.engine = Engine(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main()
