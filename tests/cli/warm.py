"""A process that has loaded what most commands load, and forks into each that it is asked for: see `run.py`.

A command begins half a second sooner so. It gets its folder, environment, path of modules and streams before any code
of its own runs, and ends as every Python process ends.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
import time
from typing import Any, NamedTuple

from catchment.allocator import choose_allocator

LOADED = (
    "catchment.cli.sync", "catchment.cli.report", "catchment.cli.metrics", "catchment.engine.sync",
    "catchment.engine.plan", "catchment.engine.acquire", "catchment.engine.journal", "catchment.spec.load",
    "catchment.sources.test", "catchment.destinations.test", "catchment.destinations.duckdb",
    "catchment.telemetry.exports", "psycopg", "pyarrow.parquet", "rich.progress",
)  # fmt: skip


class Asked(NamedTuple):
    """What came over the socket: nothing, or a command with its three streams and a pipe for how it ends."""

    message: bytes
    files: list[int]


def wait_for_a_command(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, and tell how the commands end; gives the request in a new process, then None in ours."""
    pipes: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not asked:
                    selector.unregister(key.fd)
                    tell(key.fd, key.data, pipes.pop(key.fd))
                    continue
                message, files = receive(asked)
                if not message:
                    return None
                pid = os.fork()
                if pid == 0:
                    for number in range(3):
                        os.dup2(files[number], number)
                    for file in (*files, *pipes, *pipes.values(), asked.detach()):
                        os.close(file)
                    return dict(json.loads(message))
                os.write(files[3], f"{pid}\n".encode())
                for file in files[:3]:
                    os.close(file)
                ended = os.pidfd_open(pid)
                pipes[ended] = files[3]
                selector.register(ended, selectors.EVENT_READ, pid)


def receive(asked: socket.socket) -> Asked:
    files = array.array("i")
    message, ancillary, _, _ = asked.recvmsg(1 << 20, socket.CMSG_SPACE(4 * files.itemsize))
    for _, _, packed in ancillary:
        files.frombytes(packed)
    return Asked(message, list(files))


def tell(ended: int, pid: int, pipe: int) -> None:
    os.close(ended)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(pipe)


def become(path: list[str], *, arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Run the command as `python -m catchment` does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    folders = [os.path.abspath(folder) for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [os.getcwd(), *folders, *path]
    sys.argv[1:] = arguments
    runpy.run_module("catchment", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    choose_allocator()
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    wanted = wait_for_a_command(socket.socket(fileno=os.dup(0)))
    if wanted is not None:
        become(sys.path[1:], **wanted)
