"""Plugins in process that never come back: an interrupted sync ends within 10 seconds all the same, with its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

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


@pytest.fixture
def stuck(tmp_path, write_config):
    """Starts a sync, and gives its process once it is stuck."""
    (tmp_path / "plugins.py").write_text(PLUGINS)
    processes = []

    def start(source="", destination="", publish="stream"):
        path = write_config(CONFIG.format(source=source, destination=destination, publish=publish))
        process = subprocess.Popen(
            [sys.executable, "-m", "catchment", "sync", path, "--output", "json", "--prometheus-file", "x.prom"],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.getenv("PYTHONPATH")]))},
        )  # fmt: skip
        processes.append(process)
        while not (tmp_path / "reached").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(0.5)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process, number=signal.SIGINT):
    """The result that the process prints after a signal, in time."""
    started = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 128 + number, err
    assert "Interrupted: ending in order" in err
    result = json.loads(out)
    assert result["outcome"] == "interrupted"
    return result, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", ["table", "in C"])
def test_a_source_that_is_stuck_is_left_and_the_rest_is_flushed(stuck, at, number):
    result, _ = ended(stuck(source=at), number)

    assert {row["table"]: row["rows_written"] for row in result["tables"]} == {"fine": 3, "things": 3}
    assert result["sources"][0]["outcome"] == "interrupted"


def test_a_source_that_is_stuck_before_its_rows_is_left(stuck):
    result, _ = ended(stuck(source="client"))

    assert result["sources"][0]["outcome"] == "interrupted"


@pytest.mark.parametrize("plugin", ["source", pytest.param("destination", marks=pytest.mark.thorough)])
def test_a_plugin_that_does_not_close_is_left_and_what_is_durable_stays_complete(stuck, plugin):
    result, err = ended(stuck(**{plugin: "close"}))

    assert [(row["complete"], row["rows_written"]) for row in result["tables"]] == [(True, 3)] * 2
    assert "Warning: a plugin did not close within 8 seconds of the interrupt; rows are not at stake" in err


@pytest.mark.parametrize(
    ("at", "publish"),
    [
        pytest.param("open", "stream", marks=pytest.mark.thorough),
        ("write", "stream"),
        ("publish", "atomic"),
    ],
)
def test_a_destination_that_is_stuck_is_left_and_the_report_says_what_is_known(stuck, tmp_path, at, publish):
    result, _ = ended(stuck(destination=at, publish=publish), signal.SIGTERM)

    [destination] = result["destinations"]
    assert destination["outcome"] == "interrupted"
    assert destination["error"].startswith("it did not end within 8 seconds of the interrupt")
    tables = {row["table"]: row for row in result["tables"]}
    assert not any(row["complete"] for row in tables.values())
    if at == "write":
        # The rows of the other table are there; whether those in the call are nobody knows.
        with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
            assert connection.execute("select count(*) from fine").fetchall() == [(tables["fine"]["rows_written"],)]
        assert tables["things"]["rows_written"] == 0
        assert "what it was doing may be done or not" in tables["things"]["stale_kept_reason"]
    if at == "publish":
        assert [(row["published"], row["rows_written"]) for row in tables.values()] == [(False, 0)] * 2
    [run] = Journal(tmp_path / ".cq").runs(5)
    assert (run.exit_code, run.outcome) == (128 + signal.SIGTERM, "interrupted")
