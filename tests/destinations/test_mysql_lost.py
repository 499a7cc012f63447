"""MySQL and MariaDB go away: connections cut at every moment, a server that is killed, syncs that are killed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pymysql
import pytest

from catchment.channel import Budget
from catchment.destinations.mysql import MySQL
from catchment.errors import PluginError, PluginLost
from catchment.messages import Insert, MigrateTable
from catchment.testing import data
from tests import services
from tests.destinations import proxy
from tests.destinations.conftest import NOW, WIDE, Staged, connected_to, people, rows

MANY = 30_000


@pytest.fixture
def through(mysql_dsn, open_destination):
    """A destination behind a proxy."""
    with proxy.before_mysql(mysql_dsn) as (between, dsn):
        yield between, open_destination(MySQL, connection_string=dsn)


def many(table, count=MANY, first=0):
    """Distinct rows, about a megabyte of them."""
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
def test_rows_are_there_exactly_once_or_the_table_fails_wherever_the_connection_is_cut(
    through, ask_mysql, moment, keys
):
    between, destination = through
    table = people(keys=keys)
    destination.write(MigrateTable(table))
    between.cut = moment
    counted = "select count(*), count(distinct id) from people"
    if keys or moment == "copy":
        stats = destination.write(Insert(table, many(table)))
        assert stats["people"].rows == MANY
        assert ask_mysql(counted) == [(MANY, MANY)]
    else:
        with pytest.raises(PluginError, match="lost during a commit, and nobody knows"):
            destination.write(Insert(table, many(table)))
        assert ask_mysql(counted) == [(MANY, MANY) if moment == "after" else (0, 0)]
    assert between.cuts == 1


@pytest.mark.parametrize("keys", [("id",), ()])
@pytest.mark.parametrize("moment", ["copy", "before", "after"])
def test_staged_rows_are_there_exactly_once_wherever_the_connection_is_cut(through, ask_mysql, moment, keys):
    between, destination = through
    table = people(keys=keys)
    destination.publish(table, rows(table, (1, "old")))
    between.cut = moment
    Staged(destination).add(table, many(table)).publish()
    assert between.cuts == 1
    assert ask_mysql("select count(*), count(distinct id) from people") == [(MANY, MANY)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("others", [False, True])
def test_a_publish_is_there_whole_or_not_wherever_the_connection_is_cut(through, ask_mysql, moment, others):
    between, destination = through
    tables = [people("one"), people("two")]
    for table in tables:
        destination.publish(table, rows(table, (1, "old")))
        if others:
            destination.insert(table, rows(table, (9, "theirs"), source="other"))
    staged = Staged(destination)
    for table in tables:
        staged.add(table, rows(table, (1, "new"), (2, "new")))
    staged.session.flush()
    between.mark, between.cut = b"rename table", moment
    if others and moment == "before":
        with pytest.raises(PluginError, match="nothing was published; sync again"):
            staged.publish()
        wanted = [(1, "old"), (9, "theirs")]
    else:
        staged.publish()
        wanted = [(1, "new"), (2, "new"), *([(9, "theirs")] if others else [])]
    assert between.cuts == 1
    for table in tables:
        assert ask_mysql(f"select id, name from {table.name} order by id") == wanted
    destination.plugin.close()
    assert [name for (name,) in ask_mysql("show tables")] == ["one", "two"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_merge_is_there_whole_and_once_wherever_the_connection_is_cut(through, ask_mysql, moment):
    between, destination = through
    tables = [people("one"), people("two", keys=())]
    for table in tables:
        destination.publish(table, rows(table, (1, "old"), (3, "stale")))
    ask_mysql("create trigger mine before insert on one for each row set @x = 1")
    staged = Staged(destination)
    for table in tables:
        staged.add(table, rows(table, (1, "new"), (2, "new")))
    staged.session.flush()
    between.cut = moment
    staged.publish()
    assert between.cuts == 1
    for table in tables:
        assert ask_mysql(f"select id, name from {table.name} order by id") == [(1, "new"), (2, "new")]


def test_connections_that_were_lost_while_idle_are_replaced_and_not_kept(open_destination, mysql_dsn, ask_mysql):
    destination = open_destination(MySQL, connection_string=mysql_dsn)
    table = people()
    connections = destination.plugin.destination._connections
    for number in range(4):
        destination.insert(table, rows(table, (number, "x")))
        for (found,) in ask_mysql(
            "select id from information_schema.processlist where db = database() and id <> connection_id()"
        ):
            ask_mysql(f"kill {found}")
    destination.insert(table, rows(table, (9, "x")))
    assert ask_mysql("select count(*) from people") == [(5,)]
    assert len(connections._all) <= 3


def test_a_load_that_is_killed_loses_and_doubles_nothing(open_destination, mysql_dsn, ask_mysql):
    destination = open_destination(MySQL, connection_string=mysql_dsn, batch_size=5_000, attempts=100)
    table = people(keys=())
    destination.write(MigrateTable(table))
    killed: list[int] = []
    done = threading.Event()

    def kill():
        with connected_to(mysql_dsn) as connection, connection.cursor() as cursor:
            while not done.is_set() and len(killed) < 5:
                cursor.execute(
                    "select id from information_schema.processlist where db = database() and info like 'load data%'"
                )
                for (found,) in cursor.fetchall():
                    # It may have ended by itself.
                    with contextlib.suppress(pymysql.MySQLError):
                        cursor.execute(f"kill {found}")
                        killed.append(found)
                time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    told = False
    try:
        destination.write(*(Insert(table, many(table, first=part * MANY)) for part in range(4)))
    except PluginError as error:
        # The load may have come to its commit before it was killed.
        assert "lost during a commit, and nobody knows" in str(error)  # noqa: PT017 - it need not be raised
        told = True
    finally:
        done.set()
        killer.join()
    assert killed, "no load was caught"
    ((count, distinct),) = ask_mysql("select count(*), count(distinct id) from people")
    assert count == distinct
    assert told or count == 4 * MANY


@pytest.fixture(params=["mariadb", "mysql8"])
def own_server(request):
    """A server of the test's own."""
    try:
        with getattr(services, request.param)() as server:
            server.run("create database d")
            yield server
    except services.Missing as error:
        pytest.skip(str(error))


def test_a_server_that_crashes_in_the_middle_is_waited_for(own_server, open_destination):
    destination = open_destination(MySQL, connection_string=own_server.dsn("d"), attempts=60)
    streamed, whole = people("streamed", keys=()), people("whole")
    destination.publish(whole, rows(whole, (1, "old")))
    staged = Staged(destination).add(whole, many(whole))
    session = destination.plugin.session(Budget(64 << 20))
    session.write(MigrateTable(streamed))
    session.write(Insert(streamed, many(streamed)))
    session.flush()
    staged.session.flush()
    own_server.kill()
    threading.Timer(1.0, own_server.start).start()
    session.write(Insert(streamed, many(streamed, first=MANY)))
    session.flush()
    assert session.stats()["streamed"].error == ""
    session.close()
    staged.publish()
    with connected_to(own_server.dsn("d")) as connection, connection.cursor() as cursor:
        cursor.execute("select (select count(distinct id) from streamed), (select count(*) from whole)")
        assert cursor.fetchall() == ((2 * MANY, MANY),)


def test_a_server_that_stays_away_ends_all_tables(own_server, open_destination):
    destination = open_destination(MySQL, connection_string=own_server.dsn("d"), attempts=3)
    table = people()
    destination.insert(table, rows(table, (1, "x")))
    own_server.kill()
    with pytest.raises(PluginLost, match="stays away"):
        destination.write(Insert(table, rows(table, (2, "x"))))


def _sync(path):
    with path.with_suffix(".log").open("w") as log:
        command = [sys.executable, "-m", "catchment", "sync", str(path)]
        return subprocess.Popen(command, cwd=path.parent, stdout=log, stderr=log)


def _sync_to_the_end(path):
    assert _sync(path).wait(timeout=60) == 0, path.with_suffix(".log").read_text()


def test_a_sync_that_is_killed_anywhere_leaves_live_tables_whole_and_the_next_one_sweeps(
    mysql_dsn, write_config, ask_mysql
):
    path = write_config(WIDE.format(plugin="mysql", delay="2ms", spec=f"{{connection_string: '{mysql_dsn}'}}"))
    _sync_to_the_end(path)
    tables = [name for (name,) in ask_mysql("show tables")]
    assert len(tables) == 3

    def counts():
        return [ask_mysql(f"select count(*), count(distinct _cq_sync_time) from `{table}`")[0] for table in tables]

    def staged():
        return [name for (name,) in ask_mysql("show tables") if name.startswith("_catchment")]

    assert counts() == [(20_000, 1)] * 3
    left = 0
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(5):
        run = _sync(path)
        while run.poll() is None and not staged():
            time.sleep(0.01)
        time.sleep(chance.random() * 0.8)
        run.send_signal(signal.SIGKILL)
        run.wait()
        left += bool(staged())
        assert counts() == [(20_000, 1)] * 3
    assert left, "no run was killed while it had staged tables"
    _sync_to_the_end(path)
    assert counts() == [(20_000, 1)] * 3
    assert staged() == []
    assert (
        len({moment for table in tables for (moment,) in ask_mysql(f"select max(_cq_sync_time) from `{table}`")}) == 1
    )


def test_a_run_that_is_alive_is_not_swept_by_another(open_destination, mysql_dsn, ask_mysql):
    one, two = (open_destination(MySQL, connection_string=mysql_dsn) for _ in range(2))
    table = people()
    staged = Staged(one, "aaaa0001").add(table, rows(table, (1, "one")))
    staged.session.flush()
    Staged(two, "bbbb0001").add(people("other"), rows(people("other"), (1, "two"))).publish()
    two.plugin.close()
    staged.publish()
    assert ask_mysql("select name from people") == [("one",)]
    one.plugin.close()
    assert [name for (name,) in ask_mysql("show tables")] == ["other", "people"]


def test_staged_tables_of_a_dead_run_are_dropped_by_the_next(open_destination, mysql_dsn, ask_mysql):
    ask_mysql("create table `_catchment_staging.dead0001.0` (x int)")
    ask_mysql("create table `_catchment_staging.dead0001.0.old` (x int)")
    destination = open_destination(MySQL, connection_string=mysql_dsn)
    staged = Staged(destination).add(people(), data.batch(people()))
    staged.session.flush()
    assert [name for (name,) in ask_mysql("show tables")] == ["_catchment_staging.cafe0001.0"]
    staged.session.close()
    assert ask_mysql("show tables") == []


def test_publishing_again_and_again_opens_no_more_connections(open_destination, mysql_dsn, ask_mysql):
    destination = open_destination(MySQL, connection_string=mysql_dsn)
    for _ in range(5):
        destination.publish(people(), rows(people(), (1, "x")))
    opened = "select count(*) from information_schema.processlist where db = database()"
    assert ask_mysql(opened)[0][0] <= 5
    destination.plugin.close()
    until = time.monotonic() + 5
    # The server lists a session for a moment after its client has gone.
    while ask_mysql(opened) != [(1,)] and time.monotonic() < until:
        time.sleep(0.01)
    assert ask_mysql(opened) == [(1,)]
