"""PostgreSQL goes away: connections cut at every moment, a server that is stopped, started and killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.postgresql import PostgreSQL
from catchment.errors import PluginError, PluginLost
from catchment.messages import Insert, MigrateTable
from catchment.testing import data
from tests import services
from tests.destinations import proxy
from tests.destinations.conftest import NOW, Staged, people, rows

MANY = 60_000


@pytest.fixture
def through(postgresql_url, open_destination):
    """A destination behind a proxy."""
    with proxy.before(postgresql_url) as (between, url):
        yield between, open_destination(PostgreSQL, connection_string=url)


def many(table, count=MANY, first=0):
    """Distinct rows, about 2 MB of them."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array(["suite"] * count),
            pa.array([NOW] * count, pa.timestamp("us", "UTC")),
            pa.array(range(first, first + count)),
            pa.array([f"name {number}" for number in range(count)]),
        ],
        names=list(table.column_names),
    )


@pytest.mark.parametrize("keys", [("id",), ()])
@pytest.mark.parametrize("moment", ["copy", "before", "after"])
def test_rows_are_there_exactly_once_wherever_the_connection_is_cut(through, ask, moment, keys):
    between, destination = through
    table = people(keys=keys)
    destination.write(MigrateTable(table))
    between.cut = moment
    stats = destination.write(Insert(table, many(table)))
    assert between.cuts == 1
    assert stats["people"].rows == MANY
    assert ask("select count(*), count(distinct id) from people") == [(MANY, MANY)]


@pytest.mark.parametrize("moment", ["copy", "before", "after"])
@pytest.mark.parametrize("skip", range(4))
def test_a_publish_is_there_exactly_once_wherever_the_connection_is_cut(through, ask, moment, skip):
    between, destination = through
    destination.publish(people(), rows(people(), (1, "old")))
    between.cut, between.skip_commits = moment, skip
    Staged(destination).add(people(), many(people())).publish()
    assert ask("select count(*), count(distinct id) from people") == [(MANY, MANY)]
    assert ask("select count(*) from pg_index where indrelid = 'people'::regclass") == [(1,)]


def test_a_backend_that_is_terminated_in_the_middle_of_a_copy_loses_and_doubles_nothing(
    open_destination, postgresql_url, ask
):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url, batch_size=20_000, attempts=100)
    table = people(keys=())
    destination.write(MigrateTable(table))
    killed, done = [], threading.Event()

    def kill():
        while not done.is_set():
            killed.extend(
                ask("select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy %' and pid <> "
                    "pg_backend_pid() and application_name = 'catchment' limit 1")
            )  # fmt: skip
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    batches = [many(table, 20_000, first) for first in range(0, 400_000, 20_000)]
    try:
        destination.write(*(Insert(table, batch) for batch in batches))
    finally:
        done.set()
        killer.join()
    assert killed, "no COPY was caught"
    assert ask("select count(*), count(distinct id) from people") == [(400_000, 400_000)]


def test_connections_that_were_lost_while_idle_are_replaced_and_not_kept(open_destination, postgresql_url, ask):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url)
    table = people()
    connections = destination.plugin.destination._connections
    for number in range(5):
        destination.insert(table, rows(table, (number, "x")))
        ask("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'catchment'")
    destination.insert(table, rows(table, (9, "x")))
    assert ask("select count(*) from people") == [(6,)]
    assert len(connections._all) <= 3


def test_publishing_again_and_again_opens_no_more_connections(open_destination, postgresql_url, ask):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url)
    count = "select count(*) from pg_stat_activity where application_name = 'catchment'"
    for _ in range(6):
        destination.publish(people(), rows(people(), (1, "x")))
    assert ask(count)[0][0] <= 4
    states = ask("select distinct state from pg_stat_activity where application_name = 'catchment'")
    assert states == [("idle",)]
    destination.plugin.close()
    assert ask("select to_regnamespace('_catchment_staging')") == [(None,)]


@pytest.fixture
def own_server():
    try:
        with services.postgresql_server("-c shared_buffers=64MB") as server:
            yield server
    except services.Missing as error:
        pytest.skip(str(error))


def test_a_server_that_is_restarted_in_the_middle_is_waited_for(own_server, open_destination):
    url = f"{own_server.url} dbname=postgres"
    destination = open_destination(PostgreSQL, connection_string=url, attempts=40)
    table = people(keys=())
    session = destination.plugin.session(Budget(64 << 20))
    session.write(MigrateTable(table))
    session.write(Insert(table, many(table)))
    session.flush()
    own_server.stop()
    threading.Timer(1.0, own_server.start).start()
    session.write(Insert(table, many(table, first=MANY)))
    session.flush()
    assert session.stats()["people"].error == ""
    session.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(distinct id) from people").fetchone() == (2 * MANY,)


def test_a_server_that_stays_away_ends_all_tables(own_server, open_destination):
    destination = open_destination(PostgreSQL, connection_string=f"{own_server.url} dbname=postgres", attempts=3)
    table = people()
    destination.insert(table, rows(table, (1, "x")))
    own_server.stop("immediate")
    with pytest.raises(PluginLost, match="stays away"):
        destination.write(Insert(table, rows(table, (2, "x"))))


def _crash(url):
    """Kill a backend: the server ends all sessions and recovers from its log, and so loses what it had not flushed."""
    with psycopg.connect(url, autocommit=True) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
    for _ in range(100):
        time.sleep(0.1)
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            continue
    raise AssertionError("the server did not come back")


def test_staged_rows_that_a_crash_took_are_not_published_as_if_they_were_all(own_server, open_destination):
    url = f"{own_server.url} dbname=postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter system set wal_writer_delay = '10s'")
        connection.execute("select pg_reload_conf()")
    destination = open_destination(PostgreSQL, connection_string=url)
    table = people()
    destination.publish(table, rows(table, (1, "before")))
    staged = Staged(destination).add(table, rows(table, (2, "lost")))
    staged.session.flush()
    with psycopg.connect(url, autocommit=True) as connection:
        # The staged table itself is safe now, and so is its first row; the second row is not.
        connection.execute("create table flushes_the_log (x int)")
    staged.session.write(Insert(staged.swaps[0].staged, rows(table, (3, "lost"))))
    staged.session.flush()
    with _crash(url) as connection:
        with pytest.raises(PluginError, match=r"of 2 staged rows the server has [01]; nothing was published"):
            staged.publish()
        assert connection.execute("select name from people").fetchall() == [("before",)]
    destination.publish(table, rows(table, (2, "again")))


def test_the_status_of_a_transaction_that_a_crash_took_is_not_that_of_the_next_one(own_server, open_destination):
    url = f"{own_server.url} dbname=postgres"
    destination = open_destination(PostgreSQL, connection_string=url)
    connections = destination.plugin.destination._connections
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter system set wal_writer_delay = '10s'")
        connection.execute("select pg_reload_conf()")
        connection.execute("create table t (x int)")
    with connections.transaction() as connection:
        connection.execute("set local synchronous_commit = off")
        connection.execute("insert into t values (1)")
        mark = connection.execute(connections._mark).fetchone()
    with _crash(url) as connection:
        assert connection.execute("select * from t").fetchall() == []
        # The number is given out again, and that transaction is committed.
        reused = connection.execute("select pg_current_xact_id()::text").fetchone()
        assert reused == (mark[0],)
        assert connections._status(*mark) == "aborted"
    with connections.transaction() as connection:
        connection.execute("insert into t values (2)")
        mark = connection.execute(connections._mark).fetchone()
    with _crash(url):
        assert connections._status(*mark) == "committed"


CONFIG = """
kind: source
spec:
  name: made
  registry: python
  path: test
  tables: [test_wide_table_*]
  destinations: [pg]
  spec: {{tables: 3, columns: 6, num_rows: {count}, rows_per_batch: 500, delay: 2ms, seed: 1}}
---
kind: destination
spec:
  name: pg
  registry: python
  path: postgresql
  write_mode: overwrite-delete-stale
  spec: {{connection_string: "{url}"}}
"""


def _sync(path):
    with path.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "catchment", "sync", str(path)]
        return subprocess.Popen(command, cwd=path.parent, stdout=log, stderr=log)


def _sync_to_the_end(path):
    assert _sync(path).wait(timeout=60) == 0, path.with_suffix(".log").read_text()


def test_a_sync_that_is_killed_anywhere_leaves_live_tables_whole_and_the_next_one_sweeps(
    postgresql_url, write_config, ask
):
    path = write_config(CONFIG.format(url=postgresql_url, count=20_000))
    _sync_to_the_end(path)
    tables = [name for (name,) in ask("select relname from pg_class where relname like 'test_wide%' and relkind = 'r'")]

    def counts():
        return [ask(f"select count(*), count(distinct _cq_sync_time) from {table}")[0] for table in tables]

    assert counts() == [(20_000, 1)] * 3
    left = 0
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    staged = "select 1 from pg_class where relnamespace = to_regnamespace('_catchment_staging') and relkind = 'r'"
    for _ in range(6):
        run = _sync(path)
        while run.poll() is None and not ask(staged):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.4)
        run.send_signal(signal.SIGKILL)
        run.wait()
        left += bool(ask(staged))
        assert counts() == [(20_000, 1)] * 3
    assert left, "no run was killed while it had staged tables"
    _sync_to_the_end(path)
    assert counts() == [(20_000, 1)] * 3
    assert ask("select to_regnamespace('_catchment_staging')") == [(None,)]
    assert len({moment for table in tables for (moment,) in ask(f"select max(_cq_sync_time) from {table}")}) == 1


def test_a_run_that_is_alive_is_not_swept_by_another(open_destination, postgresql_url, ask):
    one, two = (open_destination(PostgreSQL, connection_string=postgresql_url) for _ in range(2))
    table = people()
    staged = Staged(one, "aaaa0001").add(table, rows(table, (1, "one")))
    staged.session.flush()
    Staged(two, "bbbb0001").add(people("other"), rows(people("other"), (1, "two"))).publish()
    two.plugin.close()
    assert ask("select to_regnamespace('_catchment_staging') is not null") == [(True,)]
    staged.publish()
    assert ask("select name from people") == [("one",)]
    one.plugin.close()
    assert ask("select to_regnamespace('_catchment_staging')") == [(None,)]


def test_the_schema_of_a_run_that_begins_is_not_taken_away_by_one_that_ends(open_destination, postgresql_url):
    table = people()
    failed = []

    def again(run):
        for number in range(15):
            destination = open_destination(PostgreSQL, connection_string=postgresql_url)
            try:
                Staged(destination, f"{run}{number:07}").add(people(f"t{run}"), rows(table, (1, "x"))).publish()
            except PluginError as error:
                failed.append(str(error))
            destination.plugin.close()

    threads = [threading.Thread(target=again, args=(run,)) for run in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_staged_tables_of_a_dead_run_are_dropped_by_the_next(open_destination, postgresql_url, ask):
    ask("create schema _catchment_staging")
    ask('create table _catchment_staging."dead0001.0" (x int)')
    destination = open_destination(PostgreSQL, connection_string=postgresql_url)
    staged = Staged(destination).add(people(), data.batch(people()))
    staged.session.flush()
    left = "select relname from pg_class where relnamespace = '_catchment_staging'::regnamespace and relkind = 'r'"
    assert ask(left) == [("cafe0001.0",)]
    staged.session.close()
