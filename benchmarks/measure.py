"""Whole processes, measured: wall seconds, CPU seconds of everything they start, and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Sample:
    """One run."""

    wall_s: float
    cpu_s: float
    """User and system time of the process, what it started, and the database server."""
    peak_mb: float
    """Largest resident set of one process."""


def server_cpu_s(server: psutil.Process | None) -> float:
    """CPU that a database server has used so far, with its ended children."""
    if server is None:
        return 0.0
    times = server.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in server.children(recursive=True):
        try:
            own = child.cpu_times()
        except psutil.Error:
            continue
        total += own.user + own.system
    return float(total)


def run(
    command: Sequence[str], server: psutil.Process | None = None, environment: Mapping[str, str] | None = None
) -> Sample:
    """Run `command` to its end. Raises `RuntimeError` with its output if it fails."""
    before, started = server_cpu_s(server), time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
    )
    peak = _Peak(process.pid)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]} ended with {process.returncode}:\n{output.decode()[-2000:]}")
    # A backend that has just ended is counted once the server has seen to it.
    time.sleep(0.2)
    cpu = usage.ru_utime + usage.ru_stime + server_cpu_s(server) - before
    return Sample(wall, cpu, peak.end() / 1e6)


class _Peak:
    """The largest resident set of a process and what it started, looked up twenty times a second.

    Not `ru_maxrss`: that one begins with what the process that measures had when it made the other.
    """

    def __init__(self, pid: int) -> None:
        self._root = pid
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Stop watching; bytes."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            try:
                root = psutil.Process(self._root)
                found = [root, *root.children(recursive=True)]
                self._peak = max(self._peak, *(process.memory_info().rss for process in found))
            except psutil.Error:
                continue


def median(samples: Sequence[Sample]) -> Sample:
    """Each figure's own median."""
    return Sample(
        statistics.median(sample.wall_s for sample in samples),
        statistics.median(sample.cpu_s for sample in samples),
        statistics.median(sample.peak_mb for sample in samples),
    )
