"""Plugins in containers: fetch the image, start it, read what it prints, stop it; no container is left behind."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catchment.errors import PluginError, PluginLost
from catchment.wire.docker_engine import Engine, Refused
from catchment.wire.output import Output
from catchment.wire.process import NotStarted

log = logging.getLogger("catchment.containers")

SHARED = "/run/catchment"
"""Where a container finds the sockets of what it may reach of ours."""
HOST_NAME = "host.docker.internal"
"""What a container calls this machine."""
_PORT = 7777
_HOST_LABEL = "catchment.host"
_PROCESS_LABEL = "catchment.process"
_POLL_S = 0.05
_LOG_S = 5.0
_BEING_MADE_S = 3.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
"""What a client of HTTP/2 says first, with empty settings (RFC 9113, 3.4)."""
_WATCH = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
from catchment.wire.containers import discard
discard(sys.argv[1])
"""
"""What a process of its own does when the pipe from us closes because we are gone. It loads nothing until then."""


@dataclass(frozen=True, slots=True)
class Image:
    """How a plugin in an image is started."""

    reference: str
    token: str = ""
    """What the registry is shown, as Docker's `X-Registry-Auth` has it."""
    log_level: str = "info"
    extra: Sequence[str] = ()
    """What follows the address."""
    env: Sequence[str] = ()
    """Names of the environment variables that it gets."""
    reaches_back: bool = False
    """Whether it has to reach destinations of ours."""
    start_s: float = 60.0
    """How long it may take to listen; fetching the image does not count."""
    stop_s: float = 10.0


def pull(reference: str, token: str = "") -> None:
    """Fetch an image, unless the engine has it. Raises `PluginError` with the engine's words."""
    with Engine() as engine:
        _fetch(engine, reference, token)


def shares_sockets() -> bool:
    """Whether sockets of ours work in its containers: not where they run in a virtual machine."""
    with Engine() as engine:
        found = engine.ask("GET", "/info")
        return sys.platform == "linux" and bool(found.get("OperatingSystem") != "Docker Desktop")


def discard(name: str) -> None:
    """Remove a container that nobody looks after any more; one that is just being made is waited for."""
    deadline = time.monotonic() + _BEING_MADE_S
    with Engine() as engine:
        while not _remove(engine, name) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


class Container:
    """A plugin in a container, and the port of this machine that leads to it."""

    def __init__(self, name: str, image: Image, shared: Path | None = None) -> None:
        self._plugin = name
        self._image = image
        self._exits = contextlib.ExitStack()
        engine = self._engine = self._exits.enter_context(Engine())
        self._exits.callback(self._close_output)
        self.name = f"{re.sub('[^a-zA-Z0-9_.-]', '-', name).lstrip('_.-') or 'plugin'}-{uuid.uuid4()}"
        self.output: Output | None = None
        self.target = ""
        self._lock = threading.Lock()
        try:
            _fetch(engine, image.reference, image.token)
            _sweep(engine)
            self._exits.callback(_watch(self.name))
            try:
                engine.ask("POST", "/containers/create", self._asked(shared), name=self.name)
                # Attached before it starts, nothing that it prints is missed.
                self.output = Output(name, engine.attach(self.name))
                engine.ask("POST", f"/containers/{self.name}/start")
            except Refused as error:
                raise PluginError(f"`{image.reference}` cannot be started: {error}") from error
            self._wait()
        except BaseException:
            # What went wrong first is what is told.
            with contextlib.suppress(PluginError):
                self.remove()
            raise

    def exit_text(self, wait_s: float = 0.0) -> str:
        """How the container ended, with its last lines; empty while it runs."""
        deadline = time.monotonic() + wait_s
        while (state := self._state()[0]).get("Running") or state.get("Status") == "created":
            if time.monotonic() >= deadline:
                return ""
            time.sleep(_POLL_S)
        status = state.get("ExitCode", -1)
        told = f"ended with status {status}" if state else "is gone"
        if state.get("Error"):
            told += f" ({state['Error']})"
        if state.get("OOMKilled") or status == 128 + signal.SIGKILL:
            told += ", perhaps for want of memory"
        self._close_output()
        return f"its container {told}{self._last_lines()}"

    def end(self) -> None:
        """Stop it, and read to the end of what it prints: only then is it known that there is nothing more."""
        with self._lock:
            if self._state()[0].get("Running"):
                self._stop()
            self._close_output()

    def remove(self) -> None:
        """Stop it; nothing of it is left."""
        with self._exits:
            try:
                self.end()
            finally:
                _remove(self._engine, self.name)

    def _stop(self) -> None:
        stop_s = math.ceil(self._image.stop_s)
        self._engine.ask("POST", f"/containers/{self.name}/stop", wait_s=stop_s, t=stop_s)
        status = self._state()[0].get("ExitCode", 0)
        if status == 128 + signal.SIGKILL:
            log.warning("plugin `%s` did not end within %d seconds and was killed", self._plugin, stop_s)
        elif status not in (0, 128 + signal.SIGINT):
            log.warning("plugin `%s` ended with status %d when it was told to stop", self._plugin, status)

    def _close_output(self) -> None:
        if self.output is not None:
            self.output.close(_LOG_S)

    def _asked(self, shared: Path | None) -> dict[str, Any]:
        """What the engine is asked to create."""
        image, port = self._image, f"{_PORT}/tcp"
        arguments = ["--log-level", image.log_level, "--log-format", "json"]
        arguments += ["--network", "tcp", "--address", f"0.0.0.0:{_PORT}", "--no-sentry", *image.extra]
        host: dict[str, Any] = {"PortBindings": {port: [{"HostIp": "127.0.0.1"}]}}
        if shared is not None:
            host["Mounts"] = [{"Type": "bind", "Source": str(shared), "Target": SHARED, "ReadOnly": True}]
        elif image.reaches_back:
            host["ExtraHosts"] = [f"{HOST_NAME}:host-gateway"]
        return {
            "Image": image.reference,
            "Cmd": ["serve", *arguments],
            # Without a terminal, programs hold back what they print.
            "Tty": True,
            "ExposedPorts": {port: {}},
            "Env": [f"{name}={os.environ[name]}" for name in image.env if name in os.environ],
            "Labels": {_HOST_LABEL: _host(), _PROCESS_LABEL: _process(os.getpid())},
            # What plugins know to end by; Python programs in a container ignore the signal that is usual.
            "StopSignal": "SIGINT",
            "HostConfig": host,
        }

    def _wait(self) -> None:
        """Return when the plugin speaks. Raises `NotStarted` if it ends before that, `PluginLost` if it takes long."""
        deadline = time.monotonic() + self._image.start_s
        while True:
            state, port = self._state()
            if not state.get("Running"):
                ended = self.exit_text()
                if ended:
                    raise NotStarted(f"`{self._image.reference}` did not start: {ended}")
            elif port and _speaks(port):
                self.target = f"127.0.0.1:{port}"
                return
            if time.monotonic() > deadline:
                raise PluginLost(
                    f"`{self._image.reference}` did not listen within {self._image.start_s:g} seconds"
                    + self._last_lines(),
                    hint="raise `timeouts.start` if it is only slow",
                )
            time.sleep(_POLL_S)

    def _state(self) -> tuple[dict[str, Any], int]:
        """The state of the container and its port on this machine; empty if it is gone, 0 if it has none yet."""
        try:
            found = self._engine.ask("GET", f"/containers/{self.name}/json")
        except Refused as error:
            if error.status != 404:
                raise
            return {}, 0
        ports = (found.get("NetworkSettings", {}).get("Ports") or {}).get(f"{_PORT}/tcp")
        return found["State"], int(ports[0]["HostPort"]) if ports else 0

    def _last_lines(self) -> str:
        if self.output is None:
            return ""
        self.output.settle()
        lines = "\n".join(list(self.output.last)[-5:])
        return f"; its last lines:\n{lines}" if lines else ""


def _fetch(engine: Engine, reference: str, token: str) -> None:
    if token:
        _check_token(token)
    try:
        engine.ask("GET", f"/images/{reference}/json")
        return
    except Refused as error:
        if error.status != 404:
            raise
    log.info("pulling image `%s`", reference)
    failed = f"image `{reference}` cannot be pulled"
    hint = "look at `path`" + ("" if token else "; for a private image set `docker_registry_auth_token`")
    # Without a tag the engine would fetch them all.
    is_exact = "@" in reference or ":" in reference.rpartition("/")[2]
    name = reference if is_exact else f"{reference}:latest"
    try:
        for line in engine.lines("/images/create", {"X-Registry-Auth": token} if token else {}, fromImage=name):
            if "error" in line:
                raise PluginError(f"{failed}: {line['error']}", hint=hint)
    except Refused as error:
        raise PluginError(f"{failed}: {error}", hint=hint) from error


def _check_token(token: str) -> None:
    """Raises `PluginError` for one that engines would take for none."""
    try:
        found = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict):
        raise PluginError(
            "`docker_registry_auth_token` is not the base64 of a JSON object",
            hint="""encode `{"username": "…", "password": "…"}`, as the header X-Registry-Auth of Docker has it""",
        )


def _remove(engine: Engine, name: str) -> bool:
    """Remove a container, whatever it does; whether it was there."""
    try:
        engine.ask("DELETE", f"/containers/{name}", force=1, v=1)
    except Refused as error:
        # With 409 somebody else is at it.
        if error.status not in (404, 409):
            raise
        return error.status != 404
    return True


def _sweep(engine: Engine) -> None:
    """Remove containers of runs on this machine that were killed together with what watched over them."""
    filters = json.dumps({"label": [f"{_HOST_LABEL}={_host()}"]})
    for container in engine.ask("GET", "/containers/json", all=1, filters=filters):
        owner = str(container["Labels"].get(_PROCESS_LABEL, ""))
        number = owner.partition("@")[0]
        if number.isdigit() and _process(int(number)) != owner and _remove(engine, container["Id"]):
            log.info("removed container `%s`, left behind by a run that was killed", container["Names"][0].lstrip("/"))


def _host() -> str:
    """This machine, as far as the numbers of its processes mean the same."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(space) if space.exists() else ''}".strip()


def _process(number: int) -> str:
    """A process that nobody can be taken for later; empty if there is none of that number."""
    stat = Path(f"/proc/{number}/stat")
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return f"{number}@"
    try:
        # After the name in brackets: the state, and as the 20th what the clock showed when it started (proc(5)).
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "" if fields[0] in "ZX" else f"{number}@{fields[19]} {boot}"


def _watch(name: str) -> Any:
    """Start a process that outlives us, should we be killed, and then removes a container; gives what ends it."""
    watcher = subprocess.Popen(
        [sys.executable, "-P", "-c", _WATCH, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )

    def end() -> None:
        watcher.kill()
        watcher.communicate()

    return end


def _speaks(port: int) -> bool:
    """Whether HTTP/2 is spoken at a port: what forwards it takes connections before the plugin does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
            probe.sendall(_PREFACE)
            return bool(probe.recv(1))
    except OSError:
        return False
