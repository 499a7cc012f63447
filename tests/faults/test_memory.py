"""Much that has to wait, and rows that are huge: the memory of a sync stays bounded, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from catchment.destinations.sqlite import SQLite
from catchment.sdk import Table
from tests.e2e.conftest import Store, at_sqlite
from tests.e2e.documents import destination
from tests.faults import flood

BUDGET = 32 << 20

MEASURED = """
import json, sys
from catchment.engine.sync import Options, Sync
from tests.e2e.documents import plan

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

small, large, budget = json.loads(sys.argv[1])
assert Sync(plan(*small), Options(buffer_bytes=budget)).run().outcome == "complete"
# What is loaded is loaded: from here on the peak is that of the rows.
open("/proc/self/clear_refs", "w").write("5")
before = peak()
result = Sync(plan(*large), Options(buffer_bytes=budget)).run()
print(json.dumps([result.outcome, peak() - before, [str(row) for row in result.tables]]))
"""


def megabytes_of(small, large):
    """What a sync adds to the memory of its process, which has done a small one before."""
    found = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps([small, large, BUDGET])],
        env=os.environ | {"PYTHONPATH": found}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome, added, tables = json.loads(done.stdout.splitlines()[-1])
    assert outcome == "complete", tables
    print(f"a sync added {added} MB")
    return added


class Slow(SQLite):
    """Writes as SQLite does, and takes its time."""

    name = "slow"

    def write(self, table: Table, rows: pa.Table) -> None:
        time.sleep(rows.nbytes / (400 << 20))
        super().write(table, rows)


def test_a_slow_destination_costs_no_memory_and_no_row(tmp_path):
    path = str(tmp_path / "x.sqlite")
    rows, row_bytes = 90_000, 10_000

    def documents(count):
        into = destination(path="tests.faults.test_memory:Slow", spec={"connection_string": path})
        return [flood.document(rows=count, row_bytes=row_bytes), into]

    added = megabytes_of(documents(10), documents(rows))

    # Twice as many rows take as much: the budget, what SQLite keeps, and batches that the allocator has not let go of.
    assert added < rows * row_bytes / 2 / (1 << 20)
    found = at_sqlite(path).query("select count(*), sum(id), min(length(text)), max(length(text)) from drops")
    assert found == [(rows, sum(flood.numbers(rows, 0)), row_bytes, row_bytes)]


HUGE = 20 << 20
LENGTH = {"postgresql": "octet_length(text)"}


@pytest.mark.parametrize(
    "place",
    [
        "sqlite",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("duckdb", "postgresql", "mysql", "clickhouse")),
    ],
    indirect=True,
)
def test_huge_rows_arrive_and_their_memory_is_bounded(place: Store):
    rows = 48

    def documents(count):
        return [flood.document(rows=count, row_bytes=HUGE, rows_per_batch=1), place.document()]

    added = megabytes_of(documents(1), documents(rows))

    # DuckDB writes rows by the hundred thousand and keeps as many in memory, whatever they weigh.
    assert added < rows * HUGE / 2 / (1 << 20) or place.plugin == "duckdb"
    length = LENGTH.get(place.plugin, "length(text)")
    found = place.query(f"select id, {length}, substring(text, 1, 40), substring(text, {HUGE - 39}, 40) from drops")
    texts = {number: flood.text_of(number, 0, HUGE) for number in range(rows)}
    assert sorted(found) == [(number, HUGE, text[:40], text[-40:]) for number, text in sorted(texts.items())]
