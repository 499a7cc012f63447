"""Plugins that run in a process of their own: `registry: local` starts one, `registry: grpc` finds it running.

What speaks the protocol is imported when a config has such a plugin.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catchment.errors import SpecError
from catchment.plugin import DestinationPlugin

if TYPE_CHECKING:
    from catchment.spec.model import PluginConfig
    from catchment.wire.peer import Connected

REGISTRIES = ("local", "grpc")
"""Registries whose plugins are driven by the protocol."""
_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info"), (logging.DEBUG, "debug"))


def foreign(config: PluginConfig) -> Any:
    """The plugin, neither started nor called yet. Raises `SpecError` for a path that cannot be right."""
    check(config)
    from catchment.wire.client import RemoteDestination, RemoteSource, RemoteTransformer

    peer = _peer(config)
    match config.kind:
        case "source":
            return RemoteSource(config.name, peer, idle_s=config.timeouts.idle)
        case "destination":
            return RemoteDestination(config.name, peer)
        case _:
            return RemoteTransformer(config.name, peer)


def destination_at(address: str) -> DestinationPlugin:
    """A destination that runs elsewhere and that somebody else has initialised."""
    from catchment.wire.client import RemoteDestination
    from catchment.wire.peer import Connected

    return RemoteDestination("backend", Connected(address), initialised=True)


def check(config: PluginConfig) -> None:
    """Raises `SpecError` for an executable that is not there, or an address that is none."""
    path = str(config.path)
    if config.registry == "grpc":
        if not path.startswith(("unix:", "grpcs://")) and ":" not in path:
            raise SpecError(f"{config.kind} plugin: expected host:port or unix:///path, got {path!r}")
        return
    found = Path(path)
    if not found.exists():
        raise SpecError(f"{config.kind} plugin `{path}` is not there", hint="`path` is that of an executable file")
    if found.is_dir() or not os.access(found, os.X_OK):
        what = "is a folder" if found.is_dir() else "is not executable"
        raise SpecError(f"{config.kind} plugin `{path}` {what}", hint="`path` is that of an executable file")


def _peer(config: PluginConfig) -> Connected:
    from catchment.wire.peer import Connected, Started
    from catchment.wire.process import Command

    if config.registry == "grpc":
        return Connected(str(config.path), start_s=config.timeouts.start)
    endpoint = getattr(config, "otel_endpoint", "")
    extra = ["--otel-endpoint", endpoint] if endpoint else []
    extra += ["--otel-endpoint-insecure"] if getattr(config, "otel_endpoint_insecure", False) else []
    level = logging.getLogger("catchment.plugin").getEffectiveLevel()
    command = Command(
        str(config.path),
        log_level=next((name for number, name in _LEVELS if level >= number), "trace"),
        extra=extra,
        env=config.env,
        start_s=config.timeouts.start,
        stop_s=config.timeouts.stop,
    )
    return Started(config.name, command)
