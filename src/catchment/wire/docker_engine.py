"""The few requests that plugins in containers need of the Docker engine of this machine.

https://docs.docker.com/reference/api/engine lists them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import httpx

from catchment.errors import PluginError

DEFAULT = "unix:///var/run/docker.sock"
_ANSWER_S = 60.0


class Refused(PluginError):
    """Raised for a request that the engine answers with an error; its words are the text."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status
        """Of HTTP: 404 for what is not there, 409 for what goes on already."""


class Engine:
    """A connection to the engine that DOCKER_HOST names. Raises `PluginError` if there is none."""

    def __init__(self) -> None:
        address = os.environ.get("DOCKER_HOST", "") or DEFAULT
        parts = urlsplit(address)
        near = parts.scheme in ("tcp", "http") and parts.hostname in ("127.0.0.1", "localhost", "::1")
        if not (parts.scheme == "unix" or (near and not os.environ.get("DOCKER_TLS_VERIFY"))):
            raise PluginError(
                f"the Docker engine at {address!r} is not a plain one on this machine: ports of its containers are "
                "not reached from here",
                hint="set DOCKER_HOST to a `unix://` socket, or start the plugin there and write `registry: grpc`",
            )
        path = parts.path if parts.scheme == "unix" else None
        absent = f"no Docker engine answers at {address!r}"
        hint = "start it, or set DOCKER_HOST to where it is"
        try:
            if path is not None:
                # The client would leave a socket open that does not lead anywhere.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(path)
        except OSError as error:
            raise PluginError(f"{absent}: {error.strerror or error}", hint=hint) from error
        self._client = httpx.Client(
            base_url="http://docker" if path else f"http://{parts.netloc}",
            transport=httpx.HTTPTransport(uds=path),
            timeout=_ANSWER_S,
            trust_env=False,
        )
        self._version = ""
        try:
            found = self._client.get("/_ping")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._client.close()
            raise PluginError(f"{absent}: {error}", hint=hint) from error
        if version := found.headers.get("Api-Version"):
            self._version = f"/v{version}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, wait_s: float = 0.0, **query: Any
    ) -> Any:
        """The answer to a request, None if there is no text; `wait_s` is what it may take more than others."""
        with self._sent(method, path, body, wait_s=wait_s, **query) as response:
            return _read(response.read() or b"null")

    def lines(self, path: str, headers: Mapping[str, str], **query: Any) -> Iterator[Mapping[str, Any]]:
        """What the engine tells about work that takes as long as it takes."""
        with self._sent("POST", path, headers=headers, wait_s=None, **query) as response:
            yield from (_read(line) for line in response.iter_lines() if line.strip())

    def attach(self, container: str) -> IO[bytes]:
        """What a container prints from now on, as it comes from its terminal."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        path = f"/containers/{container}/attach"
        with self._sent("POST", path, headers=headers, stream=1, stdout=1, stderr=1) as response:
            connection = response.extensions["network_stream"].get_extra_info("socket")
            return os.fdopen(os.dup(connection.fileno()), "rb", buffering=0)

    @contextlib.contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        wait_s: float | None = 0.0,
        **query: Any,
    ) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(_ANSWER_S, read=None if wait_s is None else _ANSWER_S + wait_s)
        try:
            with self._client.stream(
                method, self._version + path, json=body, params=query, headers=headers, timeout=timeout
            ) as response:
                if response.is_error:
                    raise Refused(_words(response.read()), response.status_code)
                yield response
        except httpx.HTTPError as error:
            raise PluginError(f"the Docker engine does not answer: {error or type(error).__name__}") from error


def _read(answer: bytes | str) -> Any:
    try:
        return json.loads(answer)
    except ValueError as error:
        raise PluginError(f"what answers as Docker engine is none: {answer[:100]!r}") from error


def _words(answer: bytes) -> str:
    """What the engine says about an error."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace").strip() or "no reason given"
