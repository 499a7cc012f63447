"""Start, watch and stop the process of a plugin; none is left behind, whatever ends first."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catchment.errors import PluginError, PluginLost
from catchment.wire.output import Output

log = logging.getLogger("catchment.process")

_WATCH = 'trap "" INT TERM HUP; read -r _; [ "$1" ] && kill -KILL "-$1"; rm -rf -- "$0"'
"""What a shell does when the pipe from us closes because we are gone: remove a folder, end a plugin's processes."""
SOCKET_CHARACTERS = 90
"""Longest path of a socket; Linux takes 107 bytes, others fewer."""
_POLL_S = 0.005


class NotStarted(PluginError):
    """Raised when the process ended before it listened."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a plugin is started."""

    path: str
    log_level: str = "info"
    extra: Sequence[str] = ()
    """What follows the address."""
    env: Sequence[str] | None = None
    """Names of the environment variables that it sees; None means all."""
    start_s: float = 60.0
    stop_s: float = 5.0


class Process:
    """A plugin's process, and the address that it listens on."""

    def __init__(self, name: str, command: Command, network: Literal["unix", "tcp"] = "unix") -> None:
        self._name = name
        self._command = command
        self._network = network
        self._folder = socket_folder()
        self._address = str(self._folder / "s") if network == "unix" else f"127.0.0.1:{_free_port()}"
        try:
            self._process = self._spawn()
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise PluginError(f"`{command.path}` cannot be started: {error.strerror or error}") from error
        self._watcher = Watcher(self._folder, self._process.pid)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.output = Output(name, self._process.stdout, self._process.stderr)
        self._stopped = False
        self._lock = threading.Lock()
        try:
            self._wait_for_socket()
        except BaseException:
            self.stop()
            raise

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"unix://{self._address}" if self._network == "unix" else self._address

    def exit_text(self, wait_s: float = 0.0) -> str:
        """How the process ended, with its last lines; empty while it runs."""
        try:
            status = self._process.wait(wait_s) if wait_s else self._process.poll()
        except subprocess.TimeoutExpired:
            return ""
        if status is None:
            return ""
        self.output.settle(0.5)
        told = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if status in (-signal.SIGKILL, 137):
            told += ", perhaps for want of memory"
        lines = "\n".join(list(self.output.last)[-5:])
        return f"its process {told}" + (f"; its last lines:\n{lines}" if lines else "")

    def stop(self) -> None:
        """Ask it to end, then make it; nothing of it is left."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        ran = self._process.poll() is None
        self._signal(signal.SIGINT)
        try:
            status = self._process.wait(self._command.stop_s)
            # Python programs that know nothing of signals end by this one.
            if ran and status not in (0, -signal.SIGINT):
                log.warning("plugin `%s` ended with status %d when it was told to stop", self._name, status)
        except subprocess.TimeoutExpired:
            log.warning("plugin `%s` did not end within %g seconds and was killed", self._name, self._command.stop_s)
        # Also what it started itself and left behind.
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._watcher.close()
        self.output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._command
        arguments = ["--log-level", command.log_level, "--log-format", "json"]
        arguments += ["--network", self._network, "--address", self._address, "--no-sentry", *command.extra]
        path = self._command.path
        # A bare name would be looked for in PATH only.
        path = path if os.sep in path else f".{os.sep}{path}"
        return subprocess.Popen(
            [path, "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(self._command.env),
            # A Ctrl-C at the terminal is for us: plugins are told when it is their turn.
            process_group=0,
        )

    def _wait_for_socket(self) -> None:
        deadline = time.monotonic() + self._command.start_s
        while not _answers(self._address):
            ended = self.exit_text()
            if ended:
                raise NotStarted(f"`{self._command.path}` did not start: {ended}")
            if time.monotonic() > deadline:
                lines = "\n".join(list(self.output.last)[-5:])
                raise PluginLost(
                    f"`{self._command.path}` did not listen within {self._command.start_s:g} seconds"
                    + (f"; its last lines:\n{lines}" if lines else ""),
                    hint="raise `timeouts.start` if it is only slow",
                )
            time.sleep(_POLL_S)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def socket_folder() -> Path:
    """A folder of our own that nobody else may look into, with a path that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="cq-"))
    if len(str(folder)) > SOCKET_CHARACTERS:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="cq-", dir="/tmp"))
    return folder


class Watcher:
    """A shell that outlives us, should we be killed, and then clears away what we cannot."""

    def __init__(self, folder: Path, group: int | None = None) -> None:
        # It waits for as long as we hold the other end of its pipe.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(folder), str(group or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def close(self) -> None:
        """It is not needed any more: everything was cleared away."""
        self._shell.kill()
        self._shell.communicate()


def _environment(names: Sequence[str] | None) -> Mapping[str, str] | None:
    return None if names is None else {name: os.environ[name] for name in names if name in os.environ}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    is_path = address.startswith("/")
    with socket.socket(socket.AF_UNIX if is_path else socket.AF_INET) as probe:
        try:
            probe.connect(address if is_path else ("127.0.0.1", int(address.rpartition(":")[2])))
        except OSError:
            return False
    return True
