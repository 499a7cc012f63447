"""Plugins served in a thread of the tests' own process, over a real socket."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from catchment.serve import connect
from catchment.wire.limits import OPTIONS
from catchment.wire.peer import Connected
from catchment.wire.server import About, Servicer


@contextlib.contextmanager
def served(make: Any, *, schema: str | None = None) -> Iterator[str]:
    """The address of a plugin that `make` makes anew at each `Init`."""
    with tempfile.TemporaryDirectory(prefix="cq-test-") as folder:
        servicer = Servicer(make, About(make().name, "v1.2.3", schema), connect)
        server = grpc.server(ThreadPoolExecutor(32), handlers=servicer.handlers(), options=OPTIONS)
        address = f"unix://{Path(folder) / 's'}"
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            servicer.stop(2.0)
            server.stop(0.2).wait()


@contextlib.contextmanager
def listening(handlers: list[grpc.GenericRpcHandler]) -> Iterator[str]:
    """The address of a server with handlers of the test's own."""
    with tempfile.TemporaryDirectory(prefix="cq-test-") as folder:
        server = grpc.server(ThreadPoolExecutor(8), handlers=handlers, options=OPTIONS)
        address = f"unix://{Path(folder) / 's'}"
        server.add_insecure_port(address)
        server.start()
        try:
            yield address
        finally:
            server.stop(0.2).wait()


def connected(address: str) -> Connected:
    return Connected(address, start_s=20.0)
