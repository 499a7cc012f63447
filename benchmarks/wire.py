"""The jobs of the plugin protocol: what a relay moves, what it holds, and how long a plugin takes to listen."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World

SERVED = Path(__file__).with_name("served.py")
MEMORY = str(Path(__file__).with_name("memory.py"))
TEST = "from catchment.serve import serve; serve('catchment.destinations.test:Test')"


def wire_jobs(world: World) -> list[Job]:
    """Every line about the protocol; 20 columns, a socket of the file system, both ends in Python."""
    return [
        _relay(world, "source", records=6_000, rows=1_000, least=400_000),
        _relay(world, "source", records=150_000, rows=1, least=8_000),
        _relay(world, "both", records=5_000, rows=1_000, least=300_000),
        _relay(world, "both", records=100_000, rows=1, least=5_000),
        _listens(world),
        _memory(world),
    ]


def _relay(world: World, which: str, *, records: int, rows: int, least: int) -> Job:
    from benchmarks.jobs import Job, per_second

    name = f"grpc-{which}-{rows}-row{'s' if rows > 1 else ''}"
    config = _config(world, name, which, {"records": records, "rows": rows})
    unit = "rows" if rows > 1 else "records"
    return Job(name, lambda: world.sync(config), None, f">= {least:,} {unit}/s",
               per_second(records * rows, unit, least))  # fmt: skip


def _memory(world: World) -> Job:
    """5 GB from one process to another through ours."""
    from benchmarks.jobs import Job

    config = _config(world, "grpc-memory", "both", {"records": 5_000, "rows": 1_000, "text_bytes": 180})
    added: list[float] = []

    def ours() -> measure.Sample:
        done = subprocess.run([sys.executable, MEMORY, str(config)], capture_output=True, text=True, check=True)
        found = re.search(r"added (\d+) MB", done.stdout)
        added.append(float(found[1]) if found else float("inf"))
        return measure.Sample(0.0, 0.0, sorted(added)[len(added) // 2])

    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        return f"+{ours.peak_mb:.0f} MB", ours.peak_mb <= 200

    return Job("grpc-relay-5gb-memory", ours, None, "<= +200 MB", figure)


def _listens(world: World) -> Job:
    """From the start of a plugin without a heavy driver to its socket."""
    from benchmarks.jobs import Job, slower_by

    address = world.folder / "listens.sock"

    def ours() -> measure.Sample:
        address.unlink(missing_ok=True)
        started = time.perf_counter()
        arguments = ["serve", "--network", "unix", "--address", str(address), "--log-format", "json"]
        process = subprocess.Popen([sys.executable, "-c", TEST, *arguments], stdout=subprocess.DEVNULL)
        while not _answers(address):
            time.sleep(0.002)
        taken = time.perf_counter() - started
        process.send_signal(signal.SIGTERM)
        if process.wait() != 0:
            raise RuntimeError(f"the plugin ended with {process.returncode}")
        return measure.Sample(taken, 0.0, 0.0)

    def bare() -> measure.Sample:
        return measure.run([sys.executable, "-c", "pass"])

    return Job("grpc-serve-until-it-listens", ours, bare, "<= +0.6 s", slower_by(0.6))


def _config(world: World, name: str, which: str, spec: dict[str, object]) -> Path:
    source: dict[str, object] = {"registry": "local", "path": str(_executable(world, "source", SERVED.read_text())),
                                 "spec": spec}  # fmt: skip
    destination: dict[str, object] = {"path": "test"}
    if which == "both":
        destination = {"registry": "local", "path": str(_executable(world, "destination", f"{TEST}\n"))}
    return data.config(world.folder, name, source, destination, "append")


def _executable(world: World, name: str, text: str) -> Path:
    path = world.folder / f"served-{name}"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def _answers(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(address))
        return True
    return False
