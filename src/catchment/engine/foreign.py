"""Plugins that run elsewhere: `registry: local` starts a program, `docker` a container, `grpc` finds one running.

What speaks the protocol is imported when a config has such a plugin.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catchment.engine.connections import names_in
from catchment.errors import SpecError
from catchment.plugin import DestinationPlugin

if TYPE_CHECKING:
    from catchment.spec.model import PluginConfig
    from catchment.wire.peer import Connected

DOWNLOADED = ("cloudquery", "github")
"""Registries whose plugins are downloaded before they are started."""
CREDENTIALS = ("CLOUDQUERY_API_KEY", "GITHUB_TOKEN")
"""Environment variables that are sent to a registry and shown to nobody."""
REGISTRIES = ("local", "grpc", "docker", *DOWNLOADED)
"""Registries whose plugins are driven by the protocol."""
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(rf"(?:\w[\w.-]*(?::\d+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]*)?(?:@[a-z0-9]+:[0-9a-f]+)?", re.ASCII)
"""As https://github.com/distribution/reference has it."""
_CONTAINER_STOP_S = 10.0
"""As upstream has it."""
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
    """Raises `SpecError` for an executable that is not there, or what cannot be an address, an image or a path."""
    path = str(config.path)
    if config.registry in DOWNLOADED:
        from catchment.registries.wanted import wanted

        wanted(config.registry, config.kind, path, config.version)
        return
    if config.registry == "grpc":
        if not path.startswith(("unix:", "grpcs://")) and ":" not in path:
            raise SpecError(f"{config.kind} plugin: expected host:port or unix:///path, got {path!r}")
        return
    if config.registry == "docker":
        _check_image(config.kind, path)
        return
    found = Path(path)
    if not found.exists():
        raise SpecError(f"{config.kind} plugin `{path}` is not there", hint="`path` is that of an executable file")
    if found.is_dir() or not os.access(found, os.X_OK):
        what = "is a folder" if found.is_dir() else "is not executable"
        raise SpecError(f"{config.kind} plugin `{path}` {what}", hint="`path` is that of an executable file")


def _peer(config: PluginConfig) -> Connected:
    from catchment.wire.peer import Absent, Connected, Started

    if config.registry == "grpc":
        return Connected(str(config.path), start_s=config.timeouts.start)
    if not config.program and not config.image:
        return Absent(f"{config.path} {config.version} was not fetched yet; `catchment plugin install` does")
    endpoint = getattr(config, "otel_endpoint", "")
    extra = ["--otel-endpoint", endpoint] if endpoint else []
    extra += ["--otel-endpoint-insecure"] if getattr(config, "otel_endpoint_insecure", False) else []
    level = logging.getLogger("catchment.plugin").getEffectiveLevel()
    log_level = next((name for number, name in _LEVELS if level >= number), "trace")
    if config.image:
        return _contained(config, log_level, extra)
    from catchment.wire.process import Command

    command = Command(
        config.program,
        log_level=log_level,
        extra=extra,
        env=config.env,
        start_s=config.timeouts.start,
        stop_s=config.timeouts.stop,
    )
    # Where the config names no collector of its own, the source is given ours.
    return Started(config.name, command, listens=config.kind == "source" and not endpoint)


def _contained(config: PluginConfig, log_level: str, extra: Sequence[str]) -> Connected:
    from catchment.wire.contained import Contained
    from catchment.wire.containers import Image

    stop = config.timeouts.stop if "stop" in config.timeouts.model_fields_set else _CONTAINER_STOP_S
    image = Image(
        config.image,
        token=_login(config),
        log_level=log_level,
        extra=extra,
        env=config.env or (),
        reaches_back=bool(names_in(config.spec)) or getattr(config, "backend_options", None) is not None,
        start_s=config.timeouts.start,
        stop_s=stop,
    )
    return Contained(config.name, image)


def pull(config: PluginConfig) -> None:
    """Have the image of a plugin on this machine. Raises as `check`, and where the engine cannot get it."""
    _check_image(config.kind, config.image)
    from catchment.wire.containers import pull as pull_image

    pull_image(config.image, _login(config))


def _login(config: PluginConfig) -> str:
    from catchment.registries.images import login_for

    return config.docker_registry_auth_token.reveal() or login_for(config.image)


def _check_image(kind: str, path: str) -> None:
    if _IMAGE.fullmatch(path) is None:
        raise SpecError(
            f"{kind} plugin: {path!r} names no image", hint="write `[host/]name[:tag]`, as `docker pull` takes it"
        )
