"""A TCP proxy before a database server that cuts a connection at a chosen moment."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Literal

Moment = Literal["", "copy", "before", "after"]


class Proxy:
    """Forwards bytes; once armed, cuts the next connection that gets there, both ways, and is armed no more."""

    def __init__(self, port: int, mark: bytes = b"commit\0", context: ssl.SSLContext | None = None) -> None:
        self._server = ("127.0.0.1", port)
        self.mark = mark
        """What a commit looks like on the way to the server."""
        self._context = context
        """With it clients have to speak TLS; the server is spoken to in the clear."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut: Moment = ""
        """`copy`: in the middle of the rows; `before`: instead of forwarding a commit; `after`: once the server has
        answered it."""
        self.skip_commits = 0
        """Commits that pass before it cuts."""
        self.cuts = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._context is not None:
                    try:
                        client = self._context.wrap_socket(client, server_side=True)
                    except OSError:
                        # It does not trust the certificate.
                        client.close()
                        continue
                server = socket.create_connection(self._server)
                for one in (client, server):
                    # What comes in two pieces goes on in two, and the second would wait for the first to be confirmed.
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answered = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, answered), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, answered), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        copied = 0
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                copied += len(piece)
                if self.mark in piece and self._fires("before"):
                    break
                if copied > 200_000 and self._fires("copy"):
                    break
                if self.mark in piece and self._fires("after"):
                    answered.set()
                server.sendall(piece)
        _end(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                if answered.is_set():
                    break
                client.sendall(piece)
        _end(client, server)

    def _fires(self, moment: Moment) -> bool:
        with self._lock:
            if self.cut != moment:
                return False
            if moment != "copy" and self.skip_commits:
                self.skip_commits -= 1
                return False
            self.cut = ""
            self.cuts += 1
            return True


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextlib.contextmanager
def before(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server of `url`, and the connection string that goes through it."""
    port = next(part.removeprefix("port=") for part in url.split() if part.startswith("port="))
    proxy = Proxy(int(port))
    try:
        yield proxy, url.replace(f"port={port}", f"port={proxy.port}") + " sslmode=disable gssencmode=disable"
    finally:
        proxy.close()


@contextlib.contextmanager
def before_mysql(dsn: str) -> Iterator[tuple[Proxy, str]]:
    """The same before a MariaDB or MySQL server."""
    found = re.search(r":(\d+)\)", dsn)
    assert found is not None
    proxy = Proxy(int(found[1]), b"\x03commit")
    try:
        yield proxy, dsn.replace(found[0], f":{proxy.port})") + "?tls=false"
    finally:
        proxy.close()
