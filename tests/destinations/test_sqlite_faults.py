"""SQLite under failure: syncs that are killed, disks that are full, files that are locked, several runs at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catchment.destinations.sqlite import SQLite
from catchment.destinations.sqlite.staging import Staging
from catchment.errors import PluginError, PluginLost
from catchment.testing import data
from tests.destinations.conftest import NOW, WIDE, Staged, people, rows
from tests.destinations.test_sqlite import held, query

TABLES = ["test_wide_table_1", "test_wide_table_2", "test_wide_table_3"]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.sqlite")


@pytest.fixture
def destination(open_destination, path):
    return open_destination(SQLite, connection_string=path)


def tables(path):
    return [name for (name,) in query(path, "select name from sqlite_schema where type = 'table' order by name")]


@pytest.mark.unhurried
@pytest.mark.parametrize("options", ["", "?_journal_mode=WAL"])
def test_a_sync_that_is_killed_leaves_live_tables_whole_and_the_next_one_sweeps(path, write_config, options):
    spec = f'{{connection_string: "{path}{options}", batch_size: 4000}}'
    config = write_config(WIDE.format(plugin="sqlite", delay="25ms", spec=spec))
    command = [sys.executable, "-m", "catchment", "sync", str(config)]
    log = config.with_suffix(".log")

    def sync():
        with log.open("w") as file:
            return subprocess.Popen(command, cwd=config.parent, stdout=file, stderr=file)

    assert sync().wait(timeout=60) == 0, log.read_text()
    names = tables(path)
    assert len(names) == 3
    counted = " union all ".join(
        f"select count(*), count(distinct _cq_sync_time), max(_cq_sync_time) from {n}" for n in names
    )
    seen: Counter[object] = Counter()
    done = threading.Event()

    def poll():
        while not done.is_set():
            found = query(path, counted)
            # All tables are of one sync, and whole.
            seen[
                (len(found), *{(count, times) for count, times, _ in found}, len({moment for *_, moment in found}))
            ] += 1

    reader = threading.Thread(target=poll)
    reader.start()
    chance, left = random.Random(7), 0
    try:
        for _ in range(5):
            before, run = tables(path), sync()
            while run.poll() is None and tables(path) == before:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 1.2))
            run.send_signal(signal.SIGKILL)
            run.wait()
            left += tables(path) != names
        assert left, "no run was killed while it had staged tables"
        assert sync().wait(timeout=60) == 0, log.read_text()
    finally:
        done.set()
        reader.join()
    assert set(seen) == {(3, (20_000, 1), 1)}
    assert tables(path) == names
    assert query(path, "pragma integrity_check") == [("ok",)]
    assert [name for name in os.listdir(config.parent) if "catchment-" in name] == []


STAGES = """
import sys
from catchment.destinations.sqlite import SQLite
from tests.destinations.conftest import Staged, people, rows
from catchment.testing.destination import Harness
plugin = SQLite.as_plugin()
plugin.init({"connection_string": sys.argv[1]})
table = people(sys.argv[2])
staged = Staged(Harness(plugin, {}), sys.argv[3]).add(table, rows(table, (1, "theirs")))
staged.session.flush()
print("staged", flush=True)
if sys.stdin.readline():
    staged.publish()
plugin.close()
"""


@contextlib.contextmanager
def staging(path, table, run):
    """Another process that has staged a table; it publishes when it is sent a line."""
    command = [sys.executable, "-c", STAGES, path, table, run]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "staged\n"
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_a_run_of_another_process_is_spared_while_it_lives_and_swept_when_it_is_dead(destination, path, tmp_path):
    table = people()
    with staging(path, "theirs", "bbbb0001") as other:
        Staged(destination, "aaaa0001").add(table, rows(table, (1, "ours"))).publish()
        assert len(tables(path)) == 2
        other.stdin.write("publish\n")
        other.stdin.flush()
        assert other.wait(timeout=30) == 0
    assert tables(path) == ["people", "theirs"]
    with staging(path, "theirs", "bbbb0002") as other:
        other.kill()
        other.wait()
        assert len(tables(path)) == 3
        assert (tmp_path / "x.sqlite-catchment-bbbb0002").exists()
        Staged(destination, "aaaa0002").add(table, rows(table, (2, "ours"))).publish()
    assert tables(path) == ["people", "theirs"]
    assert query(path, "select name from theirs") == [("theirs",)]
    destination.plugin.close()
    assert os.listdir(tmp_path) == ["x.sqlite"]


def test_the_file_of_a_dead_run_goes_though_it_staged_nothing(destination, tmp_path):
    (tmp_path / "x.sqlite-catchment-dead0001").touch()
    (tmp_path / "y.sqlite-catchment-dead0001").touch()
    Staged(destination).add(people(), rows(people(), (1, "a"))).publish()
    destination.plugin.close()
    assert sorted(os.listdir(tmp_path)) == ["x.sqlite", "y.sqlite-catchment-dead0001"]


def test_two_destinations_on_one_file_both_write_one_table(open_destination, path):
    table = people()
    both = [open_destination(SQLite, connection_string=path) for _ in range(2)]
    staged = [
        Staged(one, f"aaaa000{n}").add(table, data.batch(table, (f"s{n}", NOW, n, "x")), source=f"s{n}")
        for n, one in enumerate(both)
    ]
    for one in staged:
        one.publish()
    assert query(path, "select id from people order by id") == [(0,), (1,)]
    assert tables(path) == ["people"]


def test_runs_begin_while_others_sweep(open_destination, path):
    def begin(name: str) -> None:
        connection = open_destination(SQLite, connection_string=path).plugin.destination._opened
        for number in range(60):
            run = Staging(connection, Path(path))
            run.begin(f"{name}{number}")
            assert Path(f"{path}-catchment-{name}{number}").exists()
            run.close()

    with ThreadPoolExecutor(2) as pool:
        for begun in [pool.submit(begin, name) for name in ("one", "two")]:
            begun.result()


def test_a_database_in_memory_takes_staged_tables(open_destination):
    destination = open_destination(SQLite, connection_string=":memory:")
    for number in range(2):
        destination.publish(people(), rows(people(), (number, "a")))
        destination.expect(people(), rows(people(), (number, "a")))


def test_a_full_disk_is_told_and_the_last_good_state_stays(destination, path):
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    opened = destination.plugin.destination._opened
    opened.run("pragma max_page_count = 40")
    big = rows(table, *((n, "x" * 1_000) for n in range(1_000)))
    with pytest.raises(PluginError, match=r"database or disk is full: '.*x\.sqlite' cannot grow; make room"):
        Staged(destination).add(table, big).publish()
    with pytest.raises(PluginError, match="database or disk is full"):
        destination.insert(table, big)
    assert query(path, "select id, name from people") == [(1, "a")]
    assert tables(path) == ["people"]
    opened.run("pragma max_page_count = 100000")
    Staged(destination, "cafe0002").add(table, big).publish()
    assert query(path, "select count(*) from people") == [(1_000,)]
    assert query(path, "pragma integrity_check") == [("ok",)]


def test_a_disk_that_is_full_while_a_key_is_built_leaves_nothing_behind(destination, path):
    table = people(keys=("name",))
    destination.publish(table, rows(table, (1, "a")))
    opened = destination.plugin.destination._opened
    staged = Staged(destination).add(table, rows(table, *((n, f"{n:0500}") for n in range(1_000))))
    staged.session.flush()
    opened.run(f"pragma max_page_count = {opened.run('pragma page_count')[0][0] + 10}")
    with pytest.raises(PluginError, match="database or disk is full"):
        staged.publish()
    opened.run("pragma max_page_count = 100000")
    assert query(path, "select id, name from people") == [(1, "a")]
    assert tables(path) == ["people"]
    destination.publish(table, rows(table, (2, "b")))
    assert query(path, "pragma integrity_check") == [("ok",)]


def test_a_writer_that_holds_the_file_too_long_is_told_with_the_file_and_what_to_do(open_destination, path):
    destination = open_destination(SQLite, connection_string=f"{path}?_busy_timeout=50", attempts=3)
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    staged = Staged(destination).add(table, rows(table, (2, "b")))
    staged.session.flush()
    words = r"database is locked: another program is writing '.*x\.sqlite'.*let it finish, or end it, then sync again"
    with held(path, "begin immediate"), pytest.raises(PluginLost, match=words):
        staged.publish()
    assert query(path, "select id from people") == [(1,)]
    # The rows of that run wait for the next one to sweep them.
    destination.plugin.close()
    again = open_destination(SQLite, connection_string=path)
    Staged(again, "cafe0002").add(table, rows(table, (3, "c"))).publish()
    assert query(path, "select id from people") == [(3,)]
    assert tables(path) == ["people"]


@pytest.mark.parametrize("statement", ["begin immediate", "select id from people order by id"])
def test_a_publish_waits_for_others_that_end(open_destination, path, statement):
    destination = open_destination(SQLite, connection_string=f"{path}?_timeout=50", attempts=20)
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    staged = Staged(destination).add(table, rows(table, (2, "b"), (2, "c")))
    staged.session.flush()
    with held(path, statement) as release:
        timer = threading.Timer(0.7, release)
        timer.start()
        staged.publish()
        timer.join()
    assert query(path, "select id, name from people") == [(2, "c")]
    assert query(path, "pragma integrity_check") == [("ok",)]
