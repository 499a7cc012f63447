"""The other side of the wire: how it is reached, whether it speaks our version, and why a call to it failed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import grpc

from catchment.errors import PluginError, PluginLost, ProtocolError, SpecError, Unsupported
from catchment.wire import service
from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.output import Output
from catchment.wire.process import Command, NotStarted, Process

if TYPE_CHECKING:
    from catchment.wire.telemetry import Receiver

TLS = "grpcs://"
_TLS_OPTIONS = ("ca", "cert", "key")


class Connected:
    """A plugin that runs already, at `host:port`, `unix:///path`, or `grpcs://host:port?ca=FILE` over TLS."""

    def __init__(self, address: str, *, start_s: float = 60.0) -> None:
        self._address = address
        self._start_s = start_s
        self._channel: grpc.Channel | None = None
        self._lock = threading.Lock()
        _credentials(address)

    @property
    def output(self) -> Output | None:
        """What its process prints; None where that cannot be seen."""
        return None

    @property
    def target(self) -> str:
        """Where another process reaches it; only after `channel`."""
        return self._address

    def settle(self, *, last: bool = False) -> None:
        """Return when what it has printed by now is counted; with `last` nothing more is asked of it."""
        if self.output is not None:
            self.output.settle()

    def failures(self) -> Mapping[str, int]:
        """Errors that the plugin's metrics count, by table, as far as they can be seen; after the last `settle`."""
        return {}

    def reached(self, address: str) -> str:
        """Where the plugin reaches what listens at `address` here; asked before it is started."""
        return address

    def channel(self) -> grpc.Channel:
        """The channel; opened, and the version agreed on, at the first call. Raises `PluginLost`, `ProtocolError`."""
        with self._lock:
            if self._channel is None:
                self._begin()
                channel = service.open_channel(*_dialled(self.target))
                try:
                    self._agree(channel)
                except BaseException:
                    channel.close()
                    raise
                self._channel = channel
            return self._channel

    def call(self, method: str) -> Callable[..., Any]:
        """What calls a method of the plugin service."""
        return service.bind(self.channel(), service.METHODS[method])

    def failure(self, name: str, error: grpc.RpcError) -> PluginError:
        """Why a call failed, as the error of the engine that fits. `name` is the plugin's, with its kind."""
        code, details = _status(error)
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                ended = self._ended()
                return PluginLost(f"{name} is gone: {ended or details}")
            case grpc.StatusCode.UNIMPLEMENTED:
                return Unsupported(f"{name} cannot do that: {details}")
            case grpc.StatusCode.CANCELLED:
                return PluginLost(f"{name} broke the call off: {details}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return PluginError(f"{name} refused a message for its size: {details}")
            case _:
                return PluginError(f"{name}: {details}")

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _begin(self) -> None:
        """Do what has to be done before the channel can be opened."""

    def _ended(self) -> str:
        """How the process ended; empty where that is not known."""
        return ""

    def _agree(self, channel: grpc.Channel) -> None:
        try:
            versions = _versions(channel, self._start_s)
        except grpc.RpcError as error:
            code, details = _status(error)
            ended = self._ended()
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise ProtocolError(f"what listens at {self.target} is no plugin: {details}") from error
            raise PluginLost(f"no plugin answers at {self.target}: {ended or details}") from error
        if service.VERSION not in versions:
            spoken = ", ".join(str(version) for version in versions) or "none"
            older = not versions or max(versions) < service.VERSION
            raise ProtocolError(
                f"the plugin speaks protocol versions {spoken}, version {service.VERSION} is needed; "
                + ("upgrade the plugin" if older else "upgrade catchment")
            )


class Absent(Connected):
    """A plugin that cannot be started yet."""

    def __init__(self, reason: str) -> None:
        super().__init__("")
        self._reason = reason

    def _begin(self) -> None:
        raise PluginError(self._reason)


class Started(Connected):
    """A plugin that is started when it is first needed, and stopped by `close`.

    With `listens` its metrics are read. They come at its end, so the last `settle` stops it.
    """

    def __init__(self, name: str, command: Command, *, listens: bool = False) -> None:
        super().__init__("", start_s=command.start_s)
        self._name = name
        self._command = command
        self._process: Process | None = None
        self._listens = listens
        self._receiver: Receiver | None = None

    @property
    def output(self) -> Output | None:
        """What its process prints."""
        return self._process.output if self._process is not None else None

    @property
    def target(self) -> str:
        """The socket that it listens on."""
        return self._process.target if self._process is not None else ""

    def settle(self, *, last: bool = False) -> None:
        """As for any; where its metrics are read, the last one ends the process."""
        if last and self._receiver is not None:
            self._stop()
        else:
            super().settle()

    def failures(self) -> Mapping[str, int]:
        """What it has counted, once it has ended."""
        return self._receiver.failures() if self._receiver is not None else {}

    def close(self) -> None:
        """Hang up and stop the process."""
        self._stop()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()

    def _stop(self) -> None:
        super().close()
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _begin(self) -> None:
        if self._process is not None:
            return
        try:
            self._process = Process(self._name, self._told_where())
        except NotStarted as error:
            # Plugins made with the vendor's Python SDK cannot listen on a socket of the file system, have no metrics,
            # and do not understand the flags of them.
            try:
                self._process = Process(self._name, self._command, "tcp")
            except NotStarted:
                raise error from None

    def _told_where(self) -> Command:
        """The command with the address that metrics are sent to."""
        if not self._listens:
            return self._command
        if self._receiver is None:
            from catchment.wire.telemetry import Receiver

            self._receiver = Receiver()
        extra = (*self._command.extra, "--otel-endpoint", self._receiver.endpoint, "--otel-endpoint-insecure")
        return replace(self._command, extra=extra)

    def _ended(self) -> str:
        # A connection breaks a moment before its process is gone.
        return self._process.exit_text(wait_s=1.0) if self._process is not None else ""


def _versions(channel: grpc.Channel, timeout_s: float) -> list[int]:
    try:
        asked = service.bind(channel, service.VERSIONS)
        return list(asked(pb.GetVersions.Request(), timeout=timeout_s, wait_for_ready=True).versions)
    except grpc.RpcError as error:
        if _status(error)[0] != grpc.StatusCode.UNIMPLEMENTED:
            raise
    named = service.bind(channel, service.VERSION_NAMES)(pb.GetVersionNames.Request(), timeout=timeout_s).versions
    return [int(name.removeprefix("v")) for name in named if name.removeprefix("v").isdigit()]


def _status(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    return code, f"{details or code.name}"


def _dialled(address: str) -> tuple[str, grpc.ChannelCredentials | None]:
    return urlsplit(address).netloc if address.startswith(TLS) else address, _credentials(address)


def _credentials(address: str) -> grpc.ChannelCredentials | None:
    """What `grpcs://…?ca=FILE&cert=FILE&key=FILE` asks for; None for an address in the clear. Raises `SpecError`."""
    if not address.startswith(TLS):
        return None
    options = {key: values[-1] for key, values in parse_qs(urlsplit(address).query).items()}
    unknown = sorted(set(options) - set(_TLS_OPTIONS))
    if unknown:
        raise SpecError(f"address {address!r}: unknown option `{unknown[0]}`", hint="there are `ca`, `cert` and `key`")
    try:
        ca, cert, key = (
            Path(options[each]).read_bytes() if each in options else None for each in ("ca", "cert", "key")
        )
    except OSError as error:
        raise SpecError(f"address {address!r}: {error.filename} cannot be read: {error.strerror}") from error
    return grpc.ssl_channel_credentials(ca, key, cert)
