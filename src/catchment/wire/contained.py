"""The other side of the wire in a container, with a way back to the destinations that it keeps cursors in."""

from __future__ import annotations

import shutil
from pathlib import Path

from catchment.wire.containers import HOST_NAME, SHARED, Container, Image, shares_sockets
from catchment.wire.output import Output
from catchment.wire.peer import Connected
from catchment.wire.process import Watcher, socket_folder
from catchment.wire.relay import Relay


class Contained(Connected):
    """A plugin in a container that is started when it is first needed, and removed by `close`."""

    def __init__(self, name: str, image: Image) -> None:
        super().__init__("", start_s=image.start_s)
        self._name = name
        self._image = image
        self._container: Container | None = None
        self._relays: dict[str, Relay] = {}
        self._folder: Path | None = None
        self._watcher: Watcher | None = None

    @property
    def output(self) -> Output | None:
        """What it prints."""
        return self._container.output if self._container is not None else None

    @property
    def target(self) -> str:
        """The port of this machine that leads to it."""
        return self._container.target if self._container is not None else ""

    def settle(self, *, last: bool = False) -> None:
        """As for a process; with `last` the container is stopped, as what it prints comes with a delay."""
        if last and self._container is not None:
            self._container.end()
        else:
            super().settle()

    def reached(self, address: str) -> str:
        """A socket in the container that leads to `address`; where sockets do not work there, a port."""
        with self._lock:
            folder = self._shared()
            if address not in self._relays:
                self._relays[address] = Relay(address, folder / str(len(self._relays)) if folder is not None else None)
            relay = self._relays[address]
            return f"unix://{SHARED}/{relay.path.name}" if relay.path is not None else f"{HOST_NAME}:{relay.port}"

    def close(self) -> None:
        """Hang up, stop the container and remove it."""
        super().close()
        container, self._container = self._container, None
        try:
            if container is not None:
                container.remove()
        finally:
            relays, self._relays = self._relays, {}
            for relay in relays.values():
                relay.close()
            if self._folder is not None and self._watcher is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._watcher.close()
            self._folder = self._watcher = None

    def _begin(self) -> None:
        if self._container is None:
            shared = self._shared() if self._image.reaches_back else None
            self._container = Container(self._name, self._image, shared)

    def _shared(self) -> Path | None:
        """The folder of sockets that the container sees; None where it cannot use them."""
        if self._folder is None and not self._relays and shares_sockets():
            self._folder = socket_folder()
            self._watcher = Watcher(self._folder)
            (self._folder / "shared").mkdir()
            # Of the container's user, whoever that is; the folder around it keeps everybody else out.
            (self._folder / "shared").chmod(0o755)
        return self._folder / "shared" if self._folder is not None else None

    def _ended(self) -> str:
        return self._container.exit_text(wait_s=1.0) if self._container is not None else ""
