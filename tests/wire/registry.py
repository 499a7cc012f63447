"""A registry of Docker images with one image in it, over HTTP on this machine; it notes who asks for what."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IMAGE = "org/plugin"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry(ThreadingHTTPServer):
    """Holds `org/plugin` under every tag but `none`; with a password it asks for it."""

    daemon_threads = True

    def __init__(self, login: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = login
        self.asked: list[str] = []
        self.blobs = {_digest(blob): blob for blob in self._blobs()}

    @property
    def name(self) -> str:
        """Host and image, without a tag."""
        return f"127.0.0.1:{self.server_port}/{IMAGE}"

    def _blobs(self) -> Iterator[bytes]:
        with io.BytesIO() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("nothing"))
            layer = archive.getvalue()
        packed = gzip.compress(layer, mtime=0)
        root = {"type": "layers", "diff_ids": [_digest(layer)]}
        about = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}).encode()
        kinds = ("container.image.v1+json", "image.rootfs.diff.tar.gzip")
        config, only = (
            {"mediaType": f"application/vnd.docker.{kind}", "size": len(blob), "digest": _digest(blob)}
            for kind, blob in zip(kinds, (about, packed), strict=True)
        )
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [only]}
        self.manifest = json.dumps(manifest).encode()
        yield from (about, packed)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        wanted = "Basic " + base64.b64encode(self.server.login.encode()).decode()
        if self.server.login and self.headers.get("Authorization") != wanted:
            self._answer(401, _error("UNAUTHORIZED", "authentication required"), "application/json")
        elif self.path == "/v2/":
            self._answer(200, b"{}", "application/json")
        elif self.path.startswith(f"/v2/{IMAGE}/manifests/") and not self.path.endswith("/none"):
            self._answer(200, self.server.manifest, _MANIFEST)
        elif (blob := self.server.blobs.get(self.path.rpartition("/")[2])) is not None:
            self._answer(200, blob, "application/octet-stream")
        else:
            self._answer(404, _error("MANIFEST_UNKNOWN", "manifest unknown"), "application/json")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", _digest(body))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextlib.contextmanager
def serving(login: str = "") -> Iterator[Registry]:
    """A running registry; `login` is the `name:password` that it asks for."""
    with Registry(login) as registry:
        thread = threading.Thread(target=registry.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield registry
        finally:
            registry.shutdown()
            thread.join()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
