"""Runs the real command, as a person does."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TEST_CONFIG = """
kind: source
spec: {{name: t, registry: python, path: test, tables: ["*"], destinations: [d], spec: {source}}}
---
kind: destination
spec: {{name: d, registry: python, path: test, write_mode: append, spec: {destination}}}
"""
TIMEOUT_S = 60
READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "ARROW_", "OMP_", "GRPC_")
"""How the variables begin that an interpreter or a library reads once, before any command."""


def catchment(*arguments, cwd=None, **environment):
    """Run a command in a process of its own, to its end."""
    words = [*map(str, arguments)]
    wanted = os.environ | environment
    with _LOCK:
        warm = warm_process()
    if _starts_in_another_way(wanted):
        return subprocess.run(
            [sys.executable, "-m", "catchment", *words],
            capture_output=True, text=True, timeout=TIMEOUT_S, env=wanted, cwd=cwd, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    outs, errs, ends = os.pipe(), os.pipe(), os.pipe()
    theirs = [os.open(os.devnull, os.O_RDONLY), outs[1], errs[1], ends[1]]
    request = {"arguments": words, "cwd": str(Path(cwd or ".").absolute()), "environment": wanted}
    with _LOCK:
        socket.send_fds(warm, [json.dumps(request).encode()], theirs)
    for file in theirs:
        os.close(file)
    told, out, err = _read_all([ends[0], outs[0], errs[0]], words)
    code = int(told.split()[1])
    return subprocess.CompletedProcess(["catchment", *words], code, _text(out), _text(err))


_LOCK = threading.Lock()


@functools.cache
def warm_process() -> socket.socket:
    """The socket of a process that forks for each command; it ends when the socket is closed, at the latest with us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    # Not with what the test that asks first has set.
    now = {name: value for name, value in os.environ.items() if not name.startswith(READ_AT_THE_START)}
    environment = {name: value for name, value in (now | _BEGAN_WITH).items() if name != "PYTHONPATH"}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))], stdin=theirs.fileno(), env=environment,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    # It is nobody's child to wait for: it goes when we go.
    process.returncode = 0
    return ours


_BEGAN_WITH = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_THE_START)}


def _starts_in_another_way(environment: dict[str, str]) -> bool:
    """Whether what the warm process has read at its start is not what this command would read."""
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    if any(Path(folder, "sitecustomize.py").exists() for folder in folders if folder):
        return True
    read = {name: value for name, value in environment.items() if name.startswith(READ_AT_THE_START)}
    # The path is set anew, and the command chooses this allocator itself.
    same = {"PYTHONPATH": "", "ARROW_DEFAULT_MEMORY_POOL": _BEGAN_WITH.get("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")}
    own = environment.get("ARROW_DEFAULT_MEMORY_POOL", same["ARROW_DEFAULT_MEMORY_POOL"])
    return read | {**same, "ARROW_DEFAULT_MEMORY_POOL": own} != _BEGAN_WITH | same


def _read_all(pipes: list[int], words: list[str]) -> list[bytes]:
    """All that comes through pipes until every one is closed; a command that takes too long is killed."""
    texts = {pipe: b"" for pipe in pipes}
    until = time.monotonic() + TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(until - time.monotonic())
            if not ready:
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(int(texts[pipes[0]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, TIMEOUT_S, texts[pipes[1]], texts[pipes[2]])
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                texts[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
    for pipe in pipes:
        os.close(pipe)
    return [texts[pipe] for pipe in pipes]


def _text(written: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(written)).read()
