"""A destination that runs in this process, at the service of others: a foreign source keeps its cursors there."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import grpc

from catchment.errors import Unsupported
from catchment.plugin import DestinationPlugin
from catchment.wire.limits import OPTIONS
from catchment.wire.process import Watcher, socket_folder
from catchment.wire.server import About, Servicer

_CALLS = 32
_STOP_S = 5.0


class Shared:
    """An initialised destination behind a socket that only this user may open."""

    def __init__(self, destination: DestinationPlugin) -> None:
        self._folder = socket_folder()
        self._watcher = Watcher(self._folder)
        self.address = f"unix://{self._folder / 's'}"
        about = About(destination.name, "")
        self._servicer = Servicer(lambda: destination, about, _no_backend, shared=destination)
        self._server = grpc.server(
            ThreadPoolExecutor(_CALLS, "shared"), handlers=self._servicer.handlers(), options=OPTIONS
        )
        self._server.add_insecure_port(self.address)
        self._server.start()

    def close(self) -> None:
        """Answer no more; the destination stays open."""
        self._servicer.stop(_STOP_S)
        self._server.stop(0.1).wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._watcher.close()


def _no_backend(connection: str) -> DestinationPlugin:
    raise Unsupported("a destination has no cursors of its own")
