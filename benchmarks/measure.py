"""Whole processes, measured: wall seconds, CPU seconds of everything they start, and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
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
    return Sample(wall, cpu, usage.ru_maxrss / 1024)


def median(samples: Sequence[Sample]) -> Sample:
    """Each figure's own median."""
    return Sample(
        statistics.median(sample.wall_s for sample in samples),
        statistics.median(sample.cpu_s for sample in samples),
        statistics.median(sample.peak_mb for sample in samples),
    )
