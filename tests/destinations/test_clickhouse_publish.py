"""How tables are published in ClickHouse: what becomes visible, what stays, and what is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.clickhouse import ClickHouse, staging
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema.internal import STAGING_PREFIX, staging_name
from catchment.testing import data
from tests.cli.run import catchment
from tests.destinations.clickhouse import asking
from tests.destinations.conftest import NOW, WIDE, Staged, people, rows

STAGED = (
    f"select count() from system.tables where database = currentDatabase() and startsWith(name, '{STAGING_PREFIX}')"
)


@pytest.fixture
def ask(clickhouse_url):
    with asking(clickhouse_url) as ask:
        yield ask


@pytest.fixture
def destination(open_destination, clickhouse_url):
    return open_destination(ClickHouse, connection_string=clickhouse_url)


def test_nothing_is_left_after_a_publish_but_the_table(destination, ask):
    destination.publish(people(), rows(people(), (1, "a"), (2, "b")))
    destination.publish(people(), rows(people(), (2, "c"), (2, "d"), (3, "e")))
    assert ask("select id, name from people order by id") == [(2, "d"), (3, "e")]
    destination.plugin.close()
    assert ask("select name from system.tables where database = currentDatabase()") == [("people",)]


@pytest.mark.parametrize("order", [[], ["name"], ["name", "id"], ["id"]], ids=str)
def test_the_last_of_equal_keys_is_published_however_rows_are_sorted(open_destination, clickhouse_url, ask, order):
    spec = {"order": [{"order_by": order}]} if order else {}
    destination = open_destination(ClickHouse, connection_string=clickhouse_url, batch_size=5_000, **spec)
    table = people("people", ("n", pa.int64()))
    chance = random.Random(7)
    count = 60_000
    keys = [chance.randrange(900) for _ in range(count)]
    last = {key: number for number, key in enumerate(keys)}
    for _ in range(2):
        batches = [
            rows(table, *((keys[n], f"x{chance.randrange(9)}", n) for n in range(start, start + 3_000)))
            for start in range(0, count, 3_000)
        ]
        destination.publish(table, *batches)
        assert dict(ask("select id, n from people")) == last
        assert ask("select count() from people") == [(len(last),)]
        ask("optimize table people final")


def test_rows_of_other_sources_stay_and_are_counted_once(destination, ask):
    table = people()
    destination.insert(table, rows(table, *((n, "other") for n in range(1_000)), source="other"))
    for _ in range(3):
        done = destination.publish(table, rows(table, *((n, "mine") for n in range(900, 1_100))))
    assert (done.stale_deleted, done.stale_kept) == (0, 0)
    assert ask("select name, count() from people group by name order by name") == [("mine", 200), ("other", 900)]


def test_a_table_that_nobody_signed_keeps_its_rows(destination, ask):
    ask("create table people (id Int64, name Nullable(String)) engine MergeTree order by id")
    ask("insert into people values (1, 'theirs'), (2, 'theirs')")
    destination.publish(people(), rows(people(), (2, "mine"), (3, "mine")))
    assert ask("select id, name from people order by id") == [(1, "theirs"), (2, "mine"), (3, "mine")]


def test_rows_without_a_source_are_not_this_sources(destination, ask):
    table = people()
    destination.insert(table, data.batch(table, (None, NOW, 1, "nobody's"), ("suite", NOW, 2, "old")))
    destination.publish(table, rows(table, (3, "new")))
    assert ask("select id, name from people order by id") == [(1, "nobody's"), (3, "new")]


def test_what_was_done_to_a_live_table_survives(destination, ask):
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    ask("alter table people add index by_name name type bloom_filter granularity 1")
    ask("alter table people modify column name codec(ZSTD(3))")
    ask("alter table people add column twice Int64 materialized id * 2")
    ask("alter table people add column origin String default 'here'")
    ask("alter table people modify setting merge_with_ttl_timeout = 7200")
    ask("create view shown as select id, twice from people")
    (before,) = ask("show create table people")
    destination.publish(table, rows(table, (2, "b"), (2, "c"), (3, "d")))
    assert ask("show create table people") == [before]
    assert ask("select id, twice, origin from people order by id") == [(2, 4, "here"), (3, 6, "here")]
    assert ask("select * from shown order by id") == [(2, 4), (3, 6)]


def test_a_materialized_view_goes_on_after_a_publish(destination, ask):
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    ask("create table seen (id Int64) engine MergeTree order by id")
    ask("create materialized view seeing to seen as select id from people")
    destination.publish(table, rows(table, (2, "b")))
    keyless = table.without_keys()
    destination.write(Insert(keyless, rows(keyless, (3, "c"))))
    assert ask("select id from seen") == [(3,)]


def test_forced_changes_keep_rows_of_other_sources_that_fit(destination, ask):
    before = people("people", ("value", pa.utf8()))
    after = people("people", ("value", pa.int64()))
    destination.insert(before, rows(before, (1, "a", "17"), (2, "b", None), source="other"))
    Staged(destination).add(after, rows(after, (3, "c", 5)), force=True).publish()
    assert ask("select id, value from people order by id") == [(1, 17), (2, None), (3, 5)]
    assert ask("select type from system.columns where database = currentDatabase() and name = 'value'") == [
        ("Nullable(Int64)",)
    ]


def test_forced_changes_leave_out_rows_that_do_not_fit_and_say_so(destination, ask, caplog):
    before = people("people", ("value", pa.utf8()))
    after = people("people", ("value", pa.int64()))
    destination.insert(before, rows(before, (1, "a", "seventeen"), source="other"))
    Staged(destination).add(after, rows(after, (3, "c", 5)), force=True).publish()
    assert ask("select id, value from people order by id") == [(3, 5)]
    assert "column `value` holds 'seventeen', which is no Int64" in caplog.text


def test_readers_see_all_of_the_old_rows_or_all_of_the_new_ones(destination, clickhouse_url):
    table, sizes, seen, ended = people(), {1_000, 3_000}, set(), threading.Event()
    destination.publish(table, rows(table, *((n, "old") for n in range(1_000))))

    def read():
        with asking(clickhouse_url) as ask:
            while not ended.is_set():
                seen.update(ask("select count(), uniqExact(name) from people"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(6):
            size = 3_000 if turn % 2 == 0 else 1_000
            destination.publish(table, rows(table, *((n, f"turn {turn}") for n in range(size))))
    finally:
        ended.set()
        reader.join()
    assert seen == {(size, 1) for size in sizes}


def test_rows_that_others_insert_while_a_table_is_published_are_not_lost(destination, ask, monkeypatch):
    table = people()
    destination.insert(table, rows(table, (1, "other"), source="other"))
    migrator = destination.plugin.destination._migrator
    exchange = migrator._exchange
    meanwhile: list[int] = []

    def exchange_late(statement, place, uuid):
        if not meanwhile:
            meanwhile.append(1)
            ask("insert into people values ('another', now64(6), 7, 'in the very moment')")
        exchange(statement, place, uuid)

    monkeypatch.setattr(migrator, "_exchange", exchange_late)
    destination.publish(table, rows(table, (2, "mine")))
    assert ask("select id from people order by id") == [(1,), (2,), (7,)]
    # The leases of the two runs: that of the sync, and that of tables which serve one call.
    assert ask(STAGED) == [(2,)]


def test_two_sources_that_publish_one_table_at_the_same_time_both_get_in(open_destination, clickhouse_url, ask):
    table, errors = people(), []
    others = [open_destination(ClickHouse, connection_string=clickhouse_url) for _ in range(2)]

    def publish(number, destination):
        try:
            for turn in range(3):
                batch = rows(table, *((n * 2 + number, f"{turn}") for n in range(500)), source=f"source {number}")
                Staged(destination, run=f"cafe{number}{turn}").add(table, batch, source=f"source {number}").publish()
        except PluginError as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=pair) for pair in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ask("select count(), uniqExact(id), uniqExact(_cq_source_name), min(name) from people") == [
        (1_000, 1_000, 2, "2")
    ]


def test_staged_rows_that_the_server_lost_are_noticed(destination, ask):
    table = people()
    destination.publish(table, rows(table, (1, "old")))
    staged = Staged(destination).add(table, rows(table, (2, "a"), (3, "b")))
    staged.session.flush()
    ask(f"truncate table `{staged.swaps[0].staged.name}`")
    with pytest.raises(PluginError, match="of 2 staged rows of table `people` the server has 0; nothing was published"):
        staged.publish()
    assert ask("select id from people") == [(1,)]


KILLED = """
import os, sys
import pyarrow as pa
from catchment.channel import Budget
from catchment.destinations.clickhouse import ClickHouse
from catchment.messages import Insert, MigrateTable
from catchment.schema.internal import staging_name
from tests.destinations.conftest import people, rows

plugin = ClickHouse.as_plugin()
plugin.init({"connection_string": sys.argv[1]})
session = plugin.session(Budget(1 << 20))
staged = people().without_keys().renamed(staging_name("dead0001", 1))
session.write(MigrateTable(people(), staged=staged))
session.write(Insert(staged, rows(people(), (1, "never"))))
session.flush()
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_cleared_by_the_next(destination, clickhouse_url, ask):
    done = subprocess.run([sys.executable, "-c", KILLED, clickhouse_url], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert ask(STAGED) == [(2,)]
    destination.publish(people(), rows(people(), (2, "mine")))
    destination.plugin.close()
    assert ask("select name from system.tables where database = currentDatabase()") == [("people",)]
    assert ask("select id from people") == [(2,)]


def test_what_a_live_run_stages_is_left_alone(open_destination, clickhouse_url, ask):
    first, second = (open_destination(ClickHouse, connection_string=clickhouse_url) for _ in range(2))
    waiting = Staged(first, run="cafe0001").add(people(), rows(people(), (1, "first")))
    waiting.session.flush()
    Staged(second, run="cafe0002").add(people("others"), rows(people("others"), (2, "second"))).publish()
    second.plugin.close()
    waiting.publish()
    assert sorted(ask("select id from people union all select id from others")) == [(1,), (2,)]


@pytest.mark.parametrize(("process", "left"), [(os.getpid(), 1), (2**22 + 1, 0)], ids=["alive", "killed"])
def test_a_lease_without_a_row_goes_if_its_run_was_killed(open_destination, clickhouse_url, ask, process, left):
    lease = f"{STAGING_PREFIX}cafe0009.lease"
    ask(
        f"create table `{lease}` (host String, process UInt32, at DateTime64(3)) engine MergeTree order by tuple() "
        f"comment '{staging._machine()} {process}'"
    )
    open_destination(ClickHouse, connection_string=clickhouse_url).publish(people(), rows(people(), (1, "a")))
    assert ask(f"select count() from system.tables where name = '{lease}'") == [(left,)]


def test_a_run_of_another_machine_is_dead_when_it_was_silent_for_long(
    open_destination, clickhouse_url, ask, monkeypatch
):
    lease, staged = f"{STAGING_PREFIX}far00001.lease", f"{STAGING_PREFIX}far00001.1"
    for name in (lease, staged):
        ask(f"create table `{name}` (host String, process UInt32, at DateTime64(3)) engine MergeTree order by tuple()")
    ask(f"insert into `{lease}` select 'elsewhere/boot', 1, now64(3) - interval {staging.DEAD_S - 30} second")
    destination = open_destination(ClickHouse, connection_string=clickhouse_url)
    destination.publish(people(), rows(people(), (1, "a")))
    destination.plugin.close()
    assert ask(STAGED) == [(2,)]
    ask(f"truncate table `{lease}`")
    ask(f"insert into `{lease}` select 'elsewhere/boot', 1, now64(3) - interval {staging.DEAD_S + 5} second")
    destination = open_destination(ClickHouse, connection_string=clickhouse_url)
    destination.publish(people(), rows(people(), (1, "a")))
    destination.plugin.close()
    assert ask(STAGED) == [(0,)]


def test_a_lease_is_renewed_while_nothing_is_written(open_destination, clickhouse_url, ask, monkeypatch):
    monkeypatch.setattr(staging, "RENEWED_S", 0.05)
    destination = open_destination(ClickHouse, connection_string=clickhouse_url)
    waiting = Staged(destination).add(people(), rows(people(), (1, "a")))
    waiting.session.flush()
    lease = f"select count() from `{STAGING_PREFIX}cafe0001.lease`"
    for _ in range(600):
        if ask(lease)[0][0] >= 3:
            break
        threading.Event().wait(0.05)
    assert ask(lease)[0][0] >= 3
    waiting.publish()


def test_a_table_that_another_made_after_staging_is_not_dropped(destination, ask):
    staged = Staged(destination).add(people(), rows(people(), (1, "mine")))
    staged.session.flush()
    ask(
        "create table people (_cq_source_name Nullable(String), _cq_sync_time Nullable(DateTime64(6)), id Int64, "
        "name Nullable(String), extra Array(String)) engine MergeTree order by id"
    )
    ask("insert into people values ('other', now64(6), 2, 'theirs', ['x'])")
    staged.publish()
    assert ask("select id, name, extra from people order by id") == [(1, "mine", []), (2, "theirs", ["x"])]


def test_a_database_whose_tables_cannot_be_exchanged_is_told_before_a_row_is_sent(
    open_destination, clickhouse_server, ask
):
    with asking(clickhouse_server.url) as ask_server:
        ask_server("create database passing engine = Memory")
        try:
            destination = open_destination(ClickHouse, connection_string=clickhouse_server.url + "passing")
            session = destination.plugin.session(Budget(1 << 20))
            staged = people().without_keys().renamed(staging_name("cafe0001", 1))
            session.write(MigrateTable(people(), staged=staged))
            session.flush()
            assert "engine `Memory` cannot be exchanged" in session.stats()[staged.name].error
            session.close()
        finally:
            ask_server("drop database passing")


def test_a_sync_that_is_killed_leaves_live_tables_whole_and_the_next_one_sweeps(clickhouse_url, write_config):
    spec = f'{{connection_string: "{clickhouse_url}", batch_size: 4000}}'
    config = write_config(WIDE.format(plugin="clickhouse", delay="25ms", spec=spec))
    command = [sys.executable, "-m", "catchment", "sync", str(config)]
    log = config.with_suffix(".log")

    def sync():
        with log.open("w") as file:
            return subprocess.Popen(command, cwd=config.parent, stdout=file, stderr=file)

    assert sync().wait(timeout=60) == 0, log.read_text()
    names = "select name from system.tables where database = currentDatabase() order by name"
    with asking(clickhouse_url) as ask:
        tables = [name for (name,) in ask(names)]
    assert len(tables) == 3
    counted = " union all ".join(
        f"select '{n}', count(), uniqExact(_cq_id), uniqExact(_cq_sync_time) from {n}" for n in tables
    )
    seen, done = set(), threading.Event()

    def poll():
        with asking(clickhouse_url) as ask:
            while not done.is_set():
                seen.update(ask(counted))

    reader = threading.Thread(target=poll)
    reader.start()
    chance, left = random.Random(7), 0
    try:
        with asking(clickhouse_url) as ask:
            for _ in range(5):
                before, run = ask(names), sync()
                while run.poll() is None and ask(names) == before:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 1.2))
                run.send_signal(signal.SIGKILL)
                run.wait()
                left += len(ask(names)) > len(tables)
            assert left, "no run was killed while it had staged tables"
            assert sync().wait(timeout=60) == 0, log.read_text()
            assert ask(names) == [(name,) for name in tables]
    finally:
        done.set()
        reader.join()
    # Each table is whole, and of one sync.
    assert seen == {(name, 20_000, 20_000, 1) for name in tables}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("write_mode: append", (6, 3, 2)),
        ("write_mode: overwrite", (3, 3, 1)),
        ("write_mode: overwrite, pk_mode: cq-id-only", (3, 3, 1)),
        ("write_mode: overwrite, sync_group_id: 'at {{SYNC_ID}}'", (6, 3, 2)),
        ("write_mode: overwrite-delete-stale", (3, 3, 1)),
        ("write_mode: overwrite-delete-stale, publish: stream", (3, 3, 1)),
        ("write_mode: overwrite-delete-stale, publish: stream, pk_mode: cq-id-only", (3, 3, 1)),
    ],
)
def test_a_sync_twice_in_every_mode(clickhouse_url, ask, write_config, options, wanted):
    config = write_config(
        "kind: source\n"
        "spec: {name: made, registry: python, path: test, tables: [test_some_table], destinations: [db], "
        "deterministic_cq_id: true, skip_dependent_tables: true, spec: {num_rows: 3}}\n"
        "---\n"
        "kind: destination\n"
        f"spec: {{name: db, registry: python, path: clickhouse, {options}, "
        f"spec: {{connection_string: '{clickhouse_url}'}}}}\n"
    )
    for _ in range(2):
        done = catchment("sync", config, cwd=config.parent)
        assert done.returncode == 0, done.stdout + done.stderr
    found = ask("select count(), uniqExact(resource_id), uniqExact(_cq_sync_time) from test_some_table")
    assert found == [wanted]
    assert ask("select name from system.tables where database = currentDatabase()") == [("test_some_table",)]
