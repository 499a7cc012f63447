"""The journal: who may read it, what it keeps, and what it says of files that are none."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from catchment.engine import journal as module
from catchment.engine.journal import Journal
from catchment.errors import CatchmentError
from tests.engine.test_result import RESULT

IDS = [f"{number:08x}-4f89-41d3-9a0c-0305e82c3301" for number in range(1, 10)]


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "made" / ".cq")


def add(journal, invocation_id=IDS[0], config=("/a.yml",), **more):
    document = RESULT.to_json() | {"invocation_id": invocation_id} | more
    journal.add(document, config=config, exit_code=2, rows=10, errors=3)


def ids(journal, limit=100):
    return [run.invocation_id for run in journal.runs(limit)]


def test_a_run_is_kept_with_its_result(journal):
    add(journal, RESULT.invocation_id, config=["/srv/a.yml", "/srv/b"])

    [run] = journal.runs(10)

    assert (run.invocation_id, run.outcome, run.exit_code, run.version) == (RESULT.invocation_id, "partial", 2, "0.1.0")
    assert (run.rows, run.errors, run.config) == (10, 3, ("/srv/a.yml", "/srv/b"))
    assert (run.started, run.ended) == ("2026-08-01T03:15:00.123456Z", "2026-08-01T03:15:00.123456Z")
    assert journal.result(run) == RESULT


def test_the_owner_alone_may_read_it(journal):
    before = os.umask(0o022)
    try:
        add(journal)
    finally:
        os.umask(before)

    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_reading_makes_no_file(journal):
    assert journal.runs(5) == []
    with pytest.raises(CatchmentError, match="no run is in the journal"):
        journal.find()
    assert not journal.path.parent.exists()


def test_the_oldest_runs_go(journal, monkeypatch):
    monkeypatch.setattr(module, "KEPT_RUNS", 3)
    for each in IDS[:5]:
        add(journal, each)

    assert ids(journal) == [IDS[4], IDS[3], IDS[2]]


def test_long_results_leave_room_for_fewer_but_the_last_one_stays(journal, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 10_000)
    long = "x" * 6_000
    for each in IDS[:3]:
        add(journal, each, version=long)
    assert ids(journal) == [IDS[2]]

    add(journal, IDS[3])
    assert ids(journal) == [IDS[3], IDS[2]]
    add(journal, IDS[4], version=long * 2)
    assert ids(journal) == [IDS[4]]


def test_runs_are_found_by_the_beginning_of_their_id(journal):
    for each in (IDS[0], IDS[1], IDS[0].replace("4f89", "5f89")):
        add(journal, each)

    assert journal.find("00000002").invocation_id == IDS[1]
    assert journal.find(IDS[0].upper()).invocation_id == IDS[0]
    assert journal.find().number == 3
    with pytest.raises(CatchmentError, match=r"several runs begin with '00000001': .*; write more of the id"):
        journal.find("00000001")
    with pytest.raises(CatchmentError, match=r"no run '%' is in the journal .*; `catchment runs` lists them"):
        journal.find("%")


def test_of_runs_with_the_same_id_the_last_one_is_meant(journal):
    add(journal, outcome="failed")
    add(journal, outcome="complete")

    assert journal.find(IDS[0]).outcome == "complete"


def test_the_run_before_is_one_of_the_same_config(journal):
    for each, config in zip(IDS, (["/a.yml"], ["/b.yml"], ["/a.yml"], ["/a.yml", "/b.yml"]), strict=False):
        add(journal, each, config)
    last, _, other, first = [journal.before(run) for run in journal.runs(4)]

    assert (last, other, first) == (None, None, None)
    assert journal.before(journal.find(IDS[2])).invocation_id == IDS[0]


def test_several_processes_write_at_once(journal):
    script = (
        "import sys\n"
        "from catchment.engine.journal import Journal\n"
        "from tests.engine.test_journal import add\n"
        "for number in range(15):\n"
        "    add(Journal(sys.argv[1]), f'{sys.argv[2]}-{number}')\n"
    )
    words = [sys.executable, "-c", script, str(journal.path.parent)]
    running = [subprocess.Popen([*words, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    errors = [process.communicate(timeout=60)[1] for process in running]

    assert errors == [""] * 4
    assert sorted(ids(journal)) == sorted(f"{name}-{number}" for name in "abcd" for number in range(15))


def test_a_file_that_is_no_journal_is_left_alone(journal):
    journal.path.parent.mkdir(parents=True)
    journal.path.write_text("my notes " * 1000)

    for use in (lambda: add(journal), lambda: journal.runs(1)):
        with pytest.raises(CatchmentError, match="not a database; move the file away, the next sync begins a new one"):
            use()
    assert journal.path.read_text() == "my notes " * 1000


def test_an_empty_file_is_a_journal_without_runs(journal):
    journal.path.parent.mkdir(parents=True)
    journal.path.touch()

    assert journal.runs(5) == []
    add(journal)
    assert ids(journal) == [IDS[0]]


def test_the_journal_of_a_later_version_is_left_alone(journal):
    add(journal)
    with sqlite3.connect(journal.path) as connection:
        connection.execute("pragma user_version = 2")
    connection.close()

    for use in (lambda: add(journal), lambda: journal.runs(1)):
        with pytest.raises(CatchmentError, match="was written by a later catchment; use that one, or another"):
            use()


def test_a_result_that_somebody_broke(journal):
    add(journal)
    with sqlite3.connect(journal.path) as connection:
        connection.execute("update runs set result = '{}'")
    connection.close()

    with pytest.raises(CatchmentError, match="cannot be read; another program has changed or removed it"):
        journal.result(journal.find())


def test_a_lock_that_stays_is_told_and_not_waited_for_without_end(journal, monkeypatch):
    add(journal)
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    holder = sqlite3.connect(journal.path, isolation_level=None)
    holder.execute("begin exclusive")
    try:
        with pytest.raises(CatchmentError, match=r"database is locked$"):
            add(journal)
    finally:
        holder.close()

    add(journal)
    assert len(ids(journal)) == 2
