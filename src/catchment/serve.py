"""The command line of a standalone plugin, as CloudQuery's has it: `serve`, `doc`, `package`, `info`.

A file of three lines makes any plugin an executable, for `registry: local` here and in CloudQuery's CLI:

    #!/usr/bin/env python3
    from catchment.serve import serve
    serve("catchment.destinations.duckdb:DuckDB")

A program that starts it waits for the socket, so that is bound first: the plugin's own code is loaded after it.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from catchment import __version__
from catchment.allocator import choose_allocator

if TYPE_CHECKING:
    from catchment.plugin import DestinationPlugin, PluginFactory
    from catchment.wire.server import Servicer

log = logging.getLogger("catchment.serve")

NETWORKS = ("tcp", "tcp4", "tcp6", "unix", "unixpacket")
LEVELS = ("trace", "debug", "info", "warn", "error")
TEAM = "catchment"
CALLS = 256
"""Calls that are answered at once; each stream is one for as long as it lasts."""
STOP_S = 4.0
"""Seconds that running calls have to flush; the programs that start plugins kill them after five."""

Reference: TypeAlias = "PluginFactory | str"


def serve(plugin: Reference, arguments: Sequence[str] | None = None, *, version: str = __version__) -> NoReturn:
    """Do what the command line says with `plugin`, and end the process.

    `plugin` is a `Source`, a class derived from `Destination` or `Transformer`, or `package.module:Object`, which is
    imported after the socket is bound.
    """
    status = main(plugin, arguments, version=version)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of drivers and of calls that are stuck must not keep the process.
    os._exit(status)


def main(plugin: Reference, arguments: Sequence[str] | None = None, *, version: str = __version__) -> int:
    """As `serve`, and returns the exit status."""
    options = _parser(plugin, version).parse_args(arguments)
    if options.command == "serve":
        return _serve(plugin, version, options)
    from catchment.errors import CatchmentError
    from catchment.wire import package

    try:
        loaded = package.Described(load(plugin), TEAM, version)
        if options.command == "info":
            print(f"Package and version: {loaded.path}@{version}", file=sys.stderr)
        elif options.command == "doc":
            package.write_tables(loaded, Path(options.directory), options.format)
        else:
            package.write_package(loaded, options, _target(plugin))
    except (CatchmentError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def load(plugin: Reference) -> PluginFactory:
    """The object that makes the plugin. Raises `PluginError` when it cannot be imported."""
    if not isinstance(plugin, str):
        return plugin
    from catchment.errors import PluginError

    module_name, _, attribute = plugin.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"plugin `{plugin}` cannot be imported: {error}", hint="install what it needs") from error
    made: PluginFactory = found
    return made


def _target(plugin: Reference) -> str:
    """`package.module:Object` of a plugin, for a launcher. Raises `PluginError` for an object without a name."""
    if isinstance(plugin, str):
        return plugin
    if isinstance(plugin, type) and plugin.__module__ != "__main__":
        return f"{plugin.__module__}:{plugin.__qualname__}"
    from catchment.errors import PluginError

    raise PluginError("a launcher needs the plugin's name", hint="give `serve` the text `package.module:Object`")


def _parser(plugin: Reference, version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A catchment plugin; it speaks the plugin protocol version 3.")
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True)
    served = commands.add_parser("serve", help="answer calls until told to stop", allow_abbrev=False)
    served.add_argument("--address", default="localhost:7777", help="host:port, or path of a socket")
    served.add_argument("--network", default="tcp", choices=NETWORKS)
    served.add_argument("--log-level", default="info", choices=LEVELS)
    served.add_argument("--log-format", default="text", choices=("text", "json"))
    served.add_argument("--otel-endpoint", default="", help="accepted; telemetry is not exported yet")
    served.add_argument("--license", default="", help="accepted; nothing here needs one")
    for name in ("--otel-endpoint-insecure", "--no-sentry"):
        served.add_argument(name, nargs="?", const=True, default=False, type=_boolean, help="accepted, without effect")
    doc = commands.add_parser("doc", help="write what tables there are")
    doc.add_argument("directory")
    doc.add_argument("--format", default="json", choices=("json", "markdown"))
    packed = commands.add_parser("package", help="write what a hub needs to distribute the plugin")
    packed.add_argument("-m", "--message", required=True, help="what is new, or @file")
    packed.add_argument("-D", "--dist-dir", default="")
    packed.add_argument("--docs-dir", default="")
    packed.add_argument("version")
    packed.add_argument("plugin_directory")
    commands.add_parser("info", help="tell package and version")
    return parser


def _boolean(text: str) -> bool:
    values = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return values[text.lower()]


def _serve(plugin: Reference, version: str, options: argparse.Namespace) -> int:
    from catchment.wire.logs import start_log

    choose_allocator()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    plugin_log = start_log(options.log_level, json_lines=options.log_format == "json")
    try:
        target = _bound(options.network, options.address)
    except (OSError, ValueError) as error:
        log.error("cannot listen on %s: %s", options.address, error)
        return 1
    import grpc

    from catchment.wire.limits import OPTIONS

    loader: Any = _Loader(plugin, version, plugin_log)
    server = grpc.server(
        ThreadPoolExecutor(CALLS, "call"), handlers=[loader], options=(*OPTIONS, ("grpc.so_reuseport", 0))
    )
    try:
        port = server.add_insecure_port(target)
    except RuntimeError as error:
        log.error("cannot listen on %s: %s", target, error)
        return 1
    server.start()
    address = options.address if options.network.startswith("unix") else f"{target.rpartition(':')[0]}:{port}"
    status = 0
    try:
        servicer = loader.servicer()
        log.info("listening", extra={"address": address, "plugin": f"{TEAM}/{plugin_log.path}@{version}"})
        # A signal that comes just before a wait without end would be handled after it.
        while not stop.wait(0.1) and not plugin_log.is_deserted():
            pass
        log.info("stopping")
        servicer.stop(STOP_S)
    except Exception as error:
        log.error("the plugin cannot be used: %s: %s", type(error).__name__, error)
        status = 1
    server.stop(0.2).wait(0.5)
    return status


class _Loader:
    """Answers for a plugin that is loaded at the first call, or before it if there is time."""

    def __init__(self, plugin: Reference, version: str, plugin_log: Any) -> None:
        self._plugin, self._version, self._log = plugin, version, plugin_log
        self._lock = threading.Lock()
        self._servicer: Servicer | None = None
        self._handlers: list[Any] = []

    def servicer(self) -> Servicer:
        """What answers; everything heavy is imported in here."""
        with self._lock:
            if self._servicer is None:
                servicer, self._log.path = _servicer(load(self._plugin), self._version, self._log.begin)
                self._handlers, self._servicer = servicer.handlers(), servicer
            return self._servicer

    def service(self, details: Any) -> Any:
        """What gRPC asks a handler."""
        self.servicer()
        found = (handler.service(details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)


def _servicer(factory: PluginFactory, version: str, on_init: Callable[[str], None]) -> tuple[Servicer, str]:
    """The servicer, and `kind/name`."""
    from catchment.wire.package import spec_schema
    from catchment.wire.server import About, Servicer

    name = str(getattr(factory, "name", ""))
    about = About(name, version, spec_schema(factory))
    servicer = Servicer(factory.as_plugin, about, connect, on_init=on_init)
    return servicer, f"{servicer.kind}/{name}"


def connect(target: str) -> DestinationPlugin:
    """The destination that keeps a source's cursors; whoever runs it has initialised it."""
    from catchment.wire.client import RemoteDestination
    from catchment.wire.peer import Connected

    return RemoteDestination("backend", Connected(target), initialised=True)


def _bound(network: str, address: str) -> str:
    """What gRPC listens on. Raises `ValueError` for an address that is none."""
    if network == "unixpacket":
        raise ValueError("gRPC cannot use `unixpacket`; use `unix`")
    if network == "unix":
        return f"unix:{os.path.abspath(address)}"
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"expected host:port, got {address!r}")
    host = host.strip("[]")
    if not host:
        return f"[::]:{port}" if network != "tcp4" else f"0.0.0.0:{port}"
    family = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6}.get(network, socket.AF_UNSPEC)
    found = socket.getaddrinfo(host, int(port), family, socket.SOCK_STREAM)
    # As upstream, a name with several addresses is served on the first, IPv4 where there is one.
    chosen = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    shown = f"[{chosen[4][0]}]" if chosen[0] == socket.AF_INET6 else str(chosen[4][0])
    return f"{shown}:{port}"
