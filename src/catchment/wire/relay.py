"""A way from inside a container to what listens on this machine, without opening anything to the network."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from pathlib import Path

_CHUNK = 1 << 16


class Relay:
    """Passes connections on to an address; listens on a socket at `path`, or on a port of this machine alone."""

    def __init__(self, address: str, path: Path | None = None) -> None:
        self._server: _PathServer | _PortServer
        self.path = path
        self.port = 0
        """The port that it listens on; 0 where there is none."""
        if path is not None:
            self._server = _PathServer(str(path), _Handler)
            # The container's user is none of ours; what keeps others out is the folder around it.
            path.chmod(0o666)
        else:
            self._server = _PortServer(("127.0.0.1", 0), _Handler)
            self.port = self._server.server_address[1]
        self._server.passed_to = address
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those that there are end with the container."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Threads(socketserver.ThreadingMixIn):
    daemon_threads = True
    block_on_close = False
    passed_to = ""
    """Where connections are passed on to."""


class _PortServer(_Threads, socketserver.TCPServer):
    pass


class _PathServer(_Threads, socketserver.UnixStreamServer):
    pass


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            there = _dialled(self.server.passed_to)  # type: ignore[attr-defined]
        except OSError:
            return
        with there:
            back = threading.Thread(target=_copy, args=(there, self.request), name="relay-back", daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, destination: socket.socket) -> None:
    """Pass on what comes until it ends, and that it ended."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(socket.SHUT_WR)


def _dialled(address: str) -> socket.socket:
    """A connection to an address as gRPC writes it: `unix:///path`, `unix:path` or `host:port`."""
    if address.startswith("unix:"):
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(address.removeprefix("unix://" if address.startswith("unix://") else "unix:"))
        except OSError:
            found.close()
            raise
        return found
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)))
