"""Where other processes reach the destinations of a run, and that put into a source's spec.

A config says `@@plugins.NAME.connection`. A destination that runs in this process is served on a socket at the first
question, so a run without foreign plugins opens none.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from catchment.plugin import DestinationPlugin

if TYPE_CHECKING:
    from catchment.wire.share import Shared

CONNECTION = re.compile(r"@@plugins\.([a-zA-Z0-9_.-]+)\.connection")


class Connections:
    """The addresses of a run's destinations."""

    def __init__(self, destinations: Mapping[str, DestinationPlugin]) -> None:
        self._destinations = destinations
        self._shared: dict[str, Shared] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> str:
        """Where another process reaches a destination, which is initialised."""
        destination = self._destinations[name]
        own = getattr(destination, "connection", "")
        if own:
            return str(own)
        from catchment.wire.share import Shared

        with self._lock:
            if name not in self._shared:
                self._shared[name] = Shared(destination)
            return self._shared[name].address

    def filled(self, value: Any, reached: Callable[[str], str] = str) -> Any:
        """A JSON-like value with every `@@plugins.NAME.connection` in its texts replaced by the address.

        `reached` tells under which address the reader of the value gets there.
        """
        if isinstance(value, str):
            return CONNECTION.sub(lambda match: reached(self.of(match[1])), value)
        if isinstance(value, Mapping):
            return {key: self.filled(item, reached) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item, reached) for item in value]
        return value

    def close(self) -> None:
        """Answer no more."""
        for shared in self._shared.values():
            shared.close()


def reached_by(plugin: Any) -> Callable[[str], str]:
    """Under which address a plugin reaches what listens here: another one only where it runs in a container."""
    reached: Callable[[str], str] = getattr(plugin, "reached", str)
    return reached


def names_in(value: Any) -> set[str]:
    """The destinations whose connection a JSON-like value asks for."""
    if isinstance(value, str):
        return set(CONNECTION.findall(value))
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return set().union(*(names_in(item) for item in items))
