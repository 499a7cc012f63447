"""Plugins in process that never come back: an interrupted sync ends within 10 seconds all the same, with its report."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from catchment.engine.journal import Journal

PLUGINS = '''
import ctypes
import threading

import pyarrow as pa

from catchment.destinations.duckdb import DuckDB
from catchment.destinations.duckdb.destination import DuckDBSpec
from catchment.sdk import Source, Spec


class StuckSpec(Spec):
    at: str = ""


def stop(spec, at):
    """Wait for ever, and say so before."""
    if spec.at == at:
        open("reached", "w").close()
        while True:
            # In C, and for good: no Python code runs in this thread any more.
            ctypes.CDLL(None).pause() if at == "in C" else threading.Event().wait()


class Client:
    def __init__(self, spec):
        self.spec = spec
        stop(spec, "client")

    def close(self):
        stop(self.spec, "close")


source = Source("stuck", spec=StuckSpec, client=Client)


@source.table(pa.schema([("id", pa.int64())]), primary_key=["id"])
def fine(ctx):
    """Comes to its end."""
    yield [{"id": number} for number in range(3)]


@source.table(pa.schema([("id", pa.int64())]), primary_key=["id"])
def things(ctx):
    """Things."""
    yield [{"id": number} for number in range(3)]
    stop(ctx.spec, "table")
    stop(ctx.spec, "in C")


class StuckDuckDBSpec(DuckDBSpec):
    at: str = ""


class Stuck(DuckDB):
    name = "stuck"
    spec_type = StuckDuckDBSpec

    def open(self):
        stop(self.spec, "open")
        super().open()

    def write(self, table, rows):
        super().write(table, rows)
        if table.name == "things":
            stop(self.spec, "write")

    def publish(self, swaps):
        stop(self.spec, "publish")
        return super().publish(swaps)

    def close(self):
        super().close()
        stop(self.spec, "close")
'''
CONFIG = """
kind: source
spec: {{name: s, registry: python, path: 'plugins:source', tables: ["*"], destinations: [d], spec: {{at: "{source}"}}}}
---
kind: destination
spec:
  name: d
  registry: python
  path: plugins:Stuck
  publish: {publish}
  spec: {{at: "{destination}", connection_string: x.duckdb, batch_size: 1}}
"""


STAGGER_S = 0.4
"""Seconds between two signals, so that no two syncs write their reports at the same time."""


class Stuck:
    """A sync in a folder of its own, whose plugin never comes back."""

    def __init__(self, folder, at, number, publish="stream"):
        plugin, self.at = at.split(": ")
        self.folder, self.number = folder, number
        self.result, self.err, self.seconds = {}, "", 0.0
        folder.mkdir()
        (folder / "plugins.py").write_text(PLUGINS)
        places = {"source": "", "destination": ""} | {plugin: self.at}
        (folder / "config.yml").write_text(CONFIG.format(**places, publish=publish))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "catchment", "sync", "config.yml", "--output", "json", "--prometheus-file",
             "x.prom"],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.getenv("PYTHONPATH")]))},
        )  # fmt: skip

    def wait(self):
        """Wait until it is stuck."""
        while not (self.folder / "reached").exists():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def end(self):
        """Interrupt it, and take the time until it has ended."""
        started = time.monotonic()
        self.process.send_signal(self.number)
        out, self.err = self.process.communicate(timeout=30)
        self.seconds = time.monotonic() - started
        self.result = json.loads(out)

    def check(self):
        """It ended in time, and says so; what else it says is of the place where it was stuck."""
        assert self.seconds < 10
        assert self.process.returncode == 128 + self.number, self.err
        assert "Interrupted: ending in order" in self.err
        assert self.result["outcome"] == "interrupted"


def rows_are_flushed(sync):
    assert {row["table"]: row["rows_written"] for row in sync.result["tables"]} == {"fine": 3, "things": 3}
    assert sync.result["sources"][0]["outcome"] == "interrupted"


def source_is_left(sync):
    assert sync.result["sources"][0]["outcome"] == "interrupted"


def what_is_durable_stays_complete(sync):
    assert [(row["complete"], row["rows_written"]) for row in sync.result["tables"]] == [(True, 3)] * 2
    assert "Warning: a plugin did not close within 8 seconds of the interrupt; rows are not at stake" in sync.err


def report_says_what_is_known(sync):
    [destination] = sync.result["destinations"]
    assert destination["outcome"] == "interrupted"
    assert destination["error"].startswith("it did not end within 8 seconds of the interrupt")
    tables = {row["table"]: row for row in sync.result["tables"]}
    assert not any(row["complete"] for row in tables.values())
    if sync.at == "write":
        # The rows of the other table are there; whether those in the call are nobody knows.
        with duckdb.connect(str(sync.folder / "x.duckdb")) as connection:
            assert connection.execute("select count(*) from fine").fetchall() == [(tables["fine"]["rows_written"],)]
        assert tables["things"]["rows_written"] == 0
        assert "what it was doing may be done or not" in tables["things"]["stale_kept_reason"]
    if sync.at == "publish":
        assert [(row["published"], row["rows_written"]) for row in tables.values()] == [(False, 0)] * 2
    [run] = Journal(sync.folder / ".cq").runs(5)
    assert (run.exit_code, run.outcome) == (128 + signal.SIGTERM, "interrupted")


CASES = [
    ("source: table", signal.SIGINT, rows_are_flushed),
    ("source: table", signal.SIGTERM, rows_are_flushed),
    ("source: in C", signal.SIGINT, rows_are_flushed),
    ("source: in C", signal.SIGTERM, rows_are_flushed),
    ("source: client", signal.SIGINT, source_is_left),
    ("source: close", signal.SIGINT, what_is_durable_stays_complete),
    ("destination: close", signal.SIGINT, what_is_durable_stays_complete),
    ("destination: open", signal.SIGTERM, report_says_what_is_known),
    ("destination: write", signal.SIGTERM, report_says_what_is_known),
    ("destination: publish", signal.SIGTERM, report_says_what_is_known),
]
"""Where it is stuck, what interrupts it, and what is to be said of it."""


@pytest.fixture
def stuck(tmp_path):
    """Every case at once, since they do nothing but wait."""
    with contextlib.ExitStack() as ends:
        syncs = []
        for number, (at, sent, _) in enumerate(CASES):
            syncs.append(Stuck(tmp_path / str(number), at, sent, "atomic" if at.endswith("publish") else "stream"))
            ends.enter_context(syncs[-1].process)
            ends.callback(syncs[-1].process.kill)
        for sync in syncs:
            sync.wait()
        time.sleep(0.5)
        yield syncs


def test_a_plugin_that_is_stuck_is_left_in_time_and_the_report_says_what_is_known(stuck):
    with ThreadPoolExecutor(len(stuck)) as pool:
        ended = []
        for sync in stuck:
            ended.append(pool.submit(sync.end))
            time.sleep(STAGGER_S)
    wrong = {}
    for (at, sent, check), sync, end in zip(CASES, stuck, ended, strict=True):
        try:
            end.result()
            sync.check()
            check(sync)
        except (AssertionError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            wrong[at, sent.name] = f"{type(error).__name__}: {error}\n{sync.err}"
    assert wrong == {}
