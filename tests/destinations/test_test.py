"""The test destination: every key of its spec changes what it does."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.test import Test as Destination
from catchment.errors import PluginError, SpecError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, WriteMessage
from catchment.testing.data import SYNC_TIME, named

TABLE = named("people", ("id", pa.int64()))
OTHER = named("orders", ("id", pa.int64()))


def rows(*numbers):
    return pa.RecordBatch.from_arrays([pa.array(numbers, pa.int64())], names=["id"])


def write(spec, *messages):
    """Rows that were taken and the error, by table."""
    plugin = Destination.as_plugin()
    plugin.init(spec)
    session = plugin.session(Budget(1 << 20))
    try:
        for message in messages:
            try:
                session.write(message)
            except PluginError:
                continue  # The table has failed; `stats` says why.
        session.flush()
        return {name: (found.rows, found.error) for name, found in session.stats().items()}
    finally:
        session.close()
        plugin.close()


def test_rows_are_counted_and_dropped():
    assert write({}, MigrateTable(TABLE), Insert(TABLE, rows(1, 2)), Insert(TABLE, rows(3))) == {"people": (3, "")}


MESSAGES: dict[str, list[WriteMessage]] = {
    "migrate": [MigrateTable(TABLE)],
    "insert": [MigrateTable(TABLE), Insert(TABLE, rows(1))],
    "delete_stale": [DeleteStale(TABLE, "s", SYNC_TIME)],
    "delete_record": [DeleteRecord("people")],
}


@pytest.mark.parametrize(
    ("stage", "fails", "passes"),
    [
        ("write", {"migrate", "insert", "delete_stale", "delete_record"}, set()),
        ("migrate", {"migrate", "insert"}, {"delete_stale", "delete_record"}),
        ("insert", {"insert"}, {"migrate", "delete_stale", "delete_record"}),
    ],
)
def test_error_on_a_stage_fails_there_and_nowhere_else(stage, fails, passes):
    assert fails | passes == set(MESSAGES)
    for name, messages in MESSAGES.items():
        done = write({f"error_on_{stage}": True}, *messages)
        errors = [error for _, error in done.values() if error]
        assert bool(errors) == (name in fails), name
        assert all(f"error_on_{stage} is true" in error for error in errors)


@pytest.mark.parametrize(
    ("stage", "reached"),
    [("write", ["session"]), ("migrate", ["session"]), ("insert", ["session", "migrated"])],
)
def test_exit_on_a_stage_ends_the_process_there(stage, reached):
    script = (
        "import json, sys\n"
        "from tests.destinations.test_test import *\n"
        "plugin = Destination.as_plugin()\n"
        "plugin.init(json.loads(sys.argv[1]))\n"
        "session = plugin.session(Budget(1 << 20))\n"
        "print('session', flush=True)\n"
        "session.write(MigrateTable(TABLE)); session.flush()\n"
        "print('migrated', flush=True)\n"
        "session.write(Insert(TABLE, rows(1))); session.flush()\n"
        "print('inserted', flush=True)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps({f"exit_on_{stage}": True})],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.split()) == (1, reached), done.stderr


def test_upstreams_three_writers_are_accepted_one_at_a_time():
    names = ["batch_writer", "stream_batch_writer", "mixed_batch_writer"]
    for name in names:
        assert write({name: True}, MigrateTable(TABLE), Insert(TABLE, rows(1))) == {"people": (1, "")}
    for one, other in itertools.pairwise(names):
        with pytest.raises(SpecError, match="exclude each other"):
            write({one: True, other: True})


def test_delay_is_waited_for_at_each_write():
    started = time.monotonic()
    write({"delay": "0.1s", "batch_size": 1}, MigrateTable(TABLE), *(Insert(TABLE, rows(n)) for n in range(3)))
    assert time.monotonic() - started >= 0.3


def test_fail_tables_fails_those_tables_only():
    messages = [MigrateTable(TABLE), MigrateTable(OTHER), Insert(TABLE, rows(1)), Insert(OTHER, rows(1))]
    done = write({"fail_tables": ["peo*"]}, *messages)

    assert done["orders"] == (1, "")
    assert done["people"][0] == 0
    assert "fail_tables has table `people`" in done["people"][1]


def test_fail_after_rows_takes_that_many_before():
    inserts = [Insert(TABLE, rows(number)) for number in range(10)]
    spec = {"fail_tables": ["people"], "fail_after_rows": 4, "batch_size": 1}

    count, error = write(spec, MigrateTable(TABLE), *inserts)["people"]
    assert count == 4
    assert "fail_tables has table `people`" in error
    assert write({**spec, "fail_after_rows": 10}, MigrateTable(TABLE), *inserts) == {"people": (10, "")}


@pytest.mark.parametrize(("limit", "writes"), [({"batch_size": 2}, 5), ({"batch_size_bytes": 8}, 10)])
def test_batch_limits_decide_how_often_rows_are_written(limit, writes):
    def took(spec):
        inserts = [Insert(TABLE, rows(number)) for number in range(10)]
        started = time.monotonic()
        write({"delay": "100ms", "batch_timeout": "0", **spec}, MigrateTable(TABLE), *inserts)
        return time.monotonic() - started

    assert took(limit) >= writes * 0.1
    assert took({"batch_size": 10}) < writes * 0.1


def test_batch_timeout_writes_rows_that_would_wait():
    plugin = Destination.as_plugin()
    plugin.init({"batch_size": 1000, "batch_timeout": "100ms"})
    session = plugin.session(Budget(1 << 20))
    try:
        session.write(MigrateTable(TABLE))
        session.write(Insert(TABLE, rows(1)))
        deadline = time.monotonic() + 10
        while session.stats()["people"].rows == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert session.stats()["people"].rows == 1
    finally:
        session.close()
        plugin.close()


@pytest.mark.parametrize("spec", [{"delay": 1}, {"fail_after_rows": -1}, {"batch_size": 0}, {"error_on_wirte": True}])
def test_a_wrong_spec_is_refused(spec):
    with pytest.raises(SpecError, match=next(iter(spec))):
        Destination.as_plugin().init(spec)
