"""Clocks that go wrong: a sync that is dated before the last one, and a clock that is set while a sync runs."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from catchment.engine import sync as engine
from catchment.engine.journal import Journal
from tests import services
from tests.conftest import needed
from tests.e2e.documents import run, source
from tests.faults import flood
from tests.faults.flood import FOUND, wanted

ROWS = 100
WIDE_ROWS = 400_000
"""Enough that the clock is set before the last one is read."""
NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)
EARLIER = NOON - datetime.timedelta(hours=1)
LATER = NOON + datetime.timedelta(days=400)


class Clock:
    """What the engine takes for the time."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self, zone: datetime.tzinfo) -> datetime.datetime:
        return self.moment.astimezone(zone)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engine, "datetime", clock)
    return clock


def sync(place, version, publish):
    result = run(flood.document(rows=ROWS, version=version), place.document(publish=publish))
    assert result.outcome == "complete"
    [row] = result.tables
    return row


@pytest.mark.parametrize("moment", [EARLIER, NOON, LATER], ids=["behind", "the same microsecond", "far ahead"])
def test_a_publish_does_not_ask_the_clock(place, clock, moment):
    sync(place, 1, "atomic")
    clock.moment = moment

    row = sync(place, 2, "atomic")

    assert sorted(place.query(FOUND)) == wanted(ROWS, 2)
    assert (row.rows_stale_deleted, row.stale_kept_reason) == (ROWS // 5, "")


@pytest.mark.parametrize("moment", [EARLIER, NOON], ids=["behind", "the same microsecond"])
def test_a_clock_that_is_behind_deletes_nothing_fresh_and_stale_rows_that_stay_are_told(place, clock, moment):
    sync(place, 1, "stream")
    clock.moment = moment

    row = sync(place, 2, "stream")

    both = {number: text for number, *text in [*wanted(ROWS, 1), *wanted(ROWS, 2)]}
    assert {number: text for number, *text in place.query(FOUND)} == both
    assert row.rows_stale_deleted == 0
    assert row.rows_stale_kept is None
    assert row.stale_kept_reason == (
        "100 rows of the source are dated as this sync, or later: was the clock set back? Those that are gone stay"
    )

    clock.moment = NOON + datetime.timedelta(seconds=1)
    row = sync(place, 3, "stream")
    assert sorted(place.query(FOUND)) == wanted(ROWS, 3)
    assert row.stale_kept_reason == ""


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_a_clock_far_ahead_is_a_clock_like_any_other(place, clock, publish):
    sync(place, 1, publish)
    clock.moment = LATER

    row = sync(place, 2, publish)

    assert sorted(place.query(FOUND)) == wanted(ROWS, 2)
    assert row.stale_kept_reason == ""


LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.mark.parametrize("jump", ["-3h", pytest.param("+3h", marks=pytest.mark.thorough)])
def test_a_clock_that_is_set_while_a_sync_runs_changes_nothing(request, tmp_path, duck_file, jump):
    with needed(request, "faketime", everywhere=False):
        if not LIBRARIES:
            raise services.Missing("no clock that can be set: libfaketime is not installed (Debian: libfaketime)")
    offset = tmp_path / "offset"
    config = tmp_path / "config.yml"
    wide = source("made", "test", ["test_wide_table_0"], spec={"tables": 1, "num_rows": WIDE_ROWS})
    config.write_text(yaml.safe_dump_all([wide, duck_file.document()]))
    environment = os.environ | {
        "LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "catchment", "sync", str(config), "--no-log-file", "--progress", "plain"]
    times = []
    for _ in range(2):
        offset.write_text("+0")
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline()]
            offset.write_text(jump)
            told += process.stdout.readlines()
        assert process.returncode == 0, told
        [past] = Journal(tmp_path / ".cq").runs(1)
        assert past.started < past.ended
        found = duck_file.query("select count(*), count(distinct id), min(_cq_sync_time) from test_wide_table_0")
        [(count, ids, moment)] = found
        assert (count, ids) == (WIDE_ROWS, WIDE_ROWS)
        times.append(moment)
    assert times[0] < times[1]
