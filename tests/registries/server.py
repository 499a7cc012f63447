"""A hub and a GitHub of our own: real servers on this machine that answer as they are told, and remember who asked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import ssl
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from catchment.registries.wanted import this_machine

TARGET = this_machine()


@dataclass
class Reply:
    """What is sent for a path."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes after which the connection breaks."""
    pause_s: float = 0.0
    """Waited between pieces."""
    pieces: int = 1


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if context else "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.replies: dict[str, list[Reply]] = {}
        """By path: each is sent once, the last for ever."""
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.sent = threading.Event()
        """Set when the first piece of a slow body is out."""

    @property
    def url(self) -> str:
        host = "localhost" if self.scheme == "https" else "127.0.0.1"
        return f"{self.scheme}://{host}:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def put(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    def put_json(self, path: str, document: object, **more) -> None:
        self.put(path, Reply(json.dumps(document).encode(), **more))

    def handle_error(self, request, client_address):
        """A client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        path = urlsplit(self.path).path
        self.server.asked.append((path, dict(self.headers)))
        replies = self.server.replies.get(path) or [Reply(b"{}", 404)]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        step = max(1, len(reply.body) // reply.pieces)
        for begin in range(0, len(reply.body[: reply.cut]), step):
            self.wfile.write(reply.body[: reply.cut][begin : begin + step])
            self.wfile.flush()
            if reply.pause_s:
                self.server.sent.set()
                time.sleep(reply.pause_s)
        if reply.cut is not None:
            self.close_connection = True

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hub_path(name="thing", kind="source", team="acme", version="v1.2.3") -> str:
    return f"/plugins/{team}/{kind}/{name}/versions/{version}"


def publish(server: Server, program: bytes, name="thing", kind="source", version="v1.2.3", **more) -> bytes:
    """Put a plugin on the hub as upstream does; its archive."""
    archive = more.get("archive") or zipped((f"plugin-{name}-{version}-{TARGET.replace('_', '-')}", program))
    path = hub_path(name, kind, version=version)
    server.put_json(path, {"name": version, "package_type": "native", "supported_targets": [TARGET]})
    document = {"location": f"{server.url}/files/{name}.zip?signature=secret", "checksum": sha256(archive)}
    server.put_json(f"{path}/assets/{TARGET}", document | more.get("asset", {}))
    server.put(f"/files/{name}.zip", Reply(archive))
    return archive
