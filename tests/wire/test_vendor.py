"""Plugins made with the vendor's Python SDK, started and driven by ours, and its source with a destination of ours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests import services
from tests.wire.test_local import SHOP, config, launcher, nothing_is_left, rows_of, sync
from tests.wire.test_serve import answers

__all__ = ["config", "launcher", "nothing_is_left"]

pytestmark = pytest.mark.skipif(not services.peers().exists(), reason="no `.venv/peers`; `make setup` fills it")


@pytest.fixture
def vendor(tmp_path):
    """Writes an executable around one of the vendor's plugins."""

    def write(kind):
        path = tmp_path / f"vendor-{kind}"
        plugins = Path(__file__).parent / "vendor_plugins.py"
        run = f'PYTHONPATH={services.peers()} exec {sys.executable} {plugins} {kind} "$@"'
        path.write_text(f"#!/bin/sh\n{run}\n")
        path.chmod(0o755)
        return path

    return write


def test_source_of_the_vendors_into_duckdb(config, vendor, tmp_path):
    database = tmp_path / "x.duckdb"

    result = sync(config(vendor("source"), "duckdb", "{count: 25}", f"{{connection_string: {database}}}"))

    assert result.outcome == "complete", result.to_json()
    assert rows_of(database, "select count(*), max(name), max(uid::varchar), max(extra) from people") == [
        (25, "name 9", "18181818-1818-1818-1818-181818181818", '{"a":1}')
    ]


def test_rows_of_ours_into_a_destination_of_the_vendors(config, vendor, tmp_path):
    lines = tmp_path / "lines"

    result = sync(config(SHOP, vendor("destination"), "{}", f"{{path: {lines}}}", mode="overwrite-delete-stale"))

    assert result.outcome == "complete", result.to_json()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["migrate"] for line in told if "migrate" in line] == ["shops", "orders", "events"]
    assert sum(line.get("rows", 0) for line in told) == 9
    assert Counter(line["other"] for line in told if "other" in line) == {"WriteDeleteStale": 3}


def test_both_of_the_vendors(config, vendor, tmp_path):
    lines = tmp_path / "lines"

    result = sync(config(vendor("source"), vendor("destination"), "{count: 3000}", f"{{path: {lines}}}"))

    assert result.outcome == "complete", result.to_json()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sum(line.get("rows", 0) for line in told) == 3000
    # Records of one row came in, batches went out.
    assert len(told) < 300


def test_plugin_of_the_vendors_by_address(config, vendor, tmp_path):
    from catchment.wire.process import _free_port

    address = f"127.0.0.1:{_free_port()}"
    process = subprocess.Popen([vendor("source"), "serve", "--address", address], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not answers(address) and time.monotonic() < deadline:
            time.sleep(0.05)
        database = tmp_path / "x.duckdb"
        path = config(f"grpc://{address}", "duckdb", "{}", f"{{connection_string: {database}}}")
        path.write_text(path.read_text().replace("grpc://", ""))

        assert sync(path).outcome == "complete"
        assert process.poll() is None
        assert rows_of(database, "select count(*) from people") == [(3,)]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
