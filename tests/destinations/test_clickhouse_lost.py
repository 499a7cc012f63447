"""ClickHouse goes away: connections cut at every moment, a server that is killed and started again."""

from __future__ import annotations

import threading
import time
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from catchment.destinations.clickhouse import ClickHouse
from catchment.destinations.clickhouse.connection import Connection
from catchment.errors import PluginError, PluginLost
from catchment.messages import DeleteRecord, Insert, MigrateTable
from catchment.schema.internal import CQ_ID, STAGING_PREFIX
from catchment.schema.types import uuid
from catchment.testing import data
from tests import services
from tests.destinations.clickhouse import asking
from tests.destinations.conftest import NOW, Staged, people, rows
from tests.destinations.proxy import Proxy

MANY = 20_000
INSERT = b"INSERT+INTO"
COUNTED = "select count(), uniqExact(id) from people"


@pytest.fixture
def ask(clickhouse_url):
    with asking(clickhouse_url) as ask:
        yield ask


@pytest.fixture
def through(clickhouse_url, open_destination):
    """A destination behind a proxy."""
    port = urlsplit(clickhouse_url).port
    proxy = Proxy(port)
    try:
        url = clickhouse_url.replace(str(port), str(proxy.port))
        yield proxy, open_destination(ClickHouse, connection_string=url)
    finally:
        proxy.close()


def table_with_ids(keys=()):
    return people("people", (CQ_ID, uuid()), keys=keys)


def many(table, count=MANY):
    """Distinct rows: a megabyte of them, by default."""
    arrays = {
        "_cq_source_name": pa.array(["suite"] * count),
        "_cq_sync_time": pa.array([NOW] * count, pa.timestamp("us", "UTC")),
        "id": pa.array(range(count)),
        "name": pa.array([f"name {number}" for number in range(count)]),
        CQ_ID: data.array([number.to_bytes(16, "big") for number in range(count)], uuid()),
    }
    return pa.RecordBatch.from_arrays([arrays[name] for name in table.column_names], names=list(table.column_names))


@pytest.mark.parametrize("keys", [("id",), ()], ids=["keyed", "keyless"])
@pytest.mark.parametrize("moment", ["copy", "before", "after"])
def test_rows_are_there_exactly_once_wherever_the_connection_is_cut(through, ask, moment, keys):
    proxy, destination = through
    table = table_with_ids(keys)
    destination.write(MigrateTable(table))
    proxy.cut, proxy.mark = moment, INSERT
    stats = destination.write(Insert(table, many(table)))
    assert proxy.cuts == 1
    assert stats["people"].rows == MANY
    assert ask(COUNTED) == [(MANY, MANY)]


@pytest.mark.parametrize("mark", [b"delete from", b"insert into `people`"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_rows_are_replaced_once_wherever_the_connection_is_cut(through, ask, moment, mark):
    proxy, destination = through
    table = table_with_ids(["id"])
    destination.insert(table, many(table, 1_000))
    proxy.cut, proxy.mark = moment, mark
    destination.write(Insert(table, many(table, 2_000)))
    assert proxy.cuts == 1
    assert ask(COUNTED) == [(2_000, 2_000)]


MARKS = {
    "first": (INSERT, b"create table", b"rename table", b"drop table"),
    "reload": (INSERT, b"create table", b"exchange tables", b"drop table"),
}
"""What a publish of a table that is not there yet says to the server, and one of a table that is."""
CUTS = [
    *((made, "copy", INSERT) for made in MARKS),
    *((made, moment, mark) for made, marks in MARKS.items() for mark in marks for moment in ("before", "after")),
]


@pytest.mark.parametrize(("made", "moment", "mark"), CUTS)
def test_a_publish_is_there_exactly_once_wherever_the_connection_is_cut(through, ask, made, moment, mark):
    proxy, destination = through
    table = table_with_ids(["id"])
    if made == "reload":
        destination.publish(table, many(table, 10))
    proxy.cut, proxy.mark = moment, mark
    Staged(destination).add(table, many(table)).publish()
    assert proxy.cuts == 1
    assert ask(COUNTED) == [(MANY, MANY)]
    destination.plugin.close()
    assert ask("select name from system.tables where database = currentDatabase()") == [("people",)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_rows_of_other_sources_are_there_once_when_a_publish_is_cut(through, ask, moment):
    proxy, destination = through
    table = people()
    destination.insert(table, rows(table, *((n, "other") for n in range(1_000)), source="other"))
    proxy.cut, proxy.mark = moment, b"insert into `_catchment_staging"
    destination.publish(table, rows(table, (5, "mine"), (5_000, "mine")))
    assert proxy.cuts == 1
    assert ask(COUNTED) == [(1_001, 1_001)]


def test_a_lost_answer_of_a_table_that_cannot_tell_is_an_error_and_nothing_is_sent_twice(through, ask):
    proxy, destination = through
    table = people(keys=())
    destination.write(MigrateTable(table))
    proxy.cut, proxy.mark = "after", INSERT
    with pytest.raises(PluginError, match="2 rows were inserted, and the server does not say whether they are in"):
        destination.write(Insert(table, rows(table, (1, "a"), (2, "b"))))
    assert ask("select count() from people") == [(2,)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_delete_that_is_cut_is_made(through, ask, moment):
    proxy, destination = through
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    proxy.cut, proxy.mark = moment, b"delete from"
    destination.write(MigrateTable(table), DeleteRecord("people"))
    assert proxy.cuts == 1
    assert ask("select count() from people") == [(0,)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_forced_change_that_is_cut_is_made_once(through, ask, moment):
    proxy, destination = through
    before, after = people("people", ("v", pa.utf8())), people("people", ("v", pa.int64()))
    destination.insert(before, rows(before, (1, "a", "7")))
    proxy.cut, proxy.mark = moment, b"exchange tables"
    destination.write(MigrateTable(after, force=True))
    assert proxy.cuts == 1
    assert ask("select id, v from people") == [(1, 7)]


@pytest.fixture
def server():
    with services.clickhouse() as server:
        with asking(server.url) as ask:
            ask("create database x")
        yield server


def test_a_server_that_is_killed_and_started_again_loses_and_doubles_nothing(server, open_destination):
    destination = open_destination(ClickHouse, connection_string=server.url + "x", batch_size=5_000, attempts=200)
    table = table_with_ids()
    destination.write(MigrateTable(table))
    ended = threading.Event()

    def kill():
        while not ended.wait(1.0):
            server.kill()
            server.start()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        written = 0
        while written < 100_000 or server.starts < 3:
            batch = many(table, 20_000)
            index = table.column_names.index("id")
            ids = pa.array(range(written, written + 20_000))
            batch = batch.set_column(index, "id", ids)
            index = table.column_names.index(CQ_ID)
            numbers = [number.to_bytes(16, "big") for number in ids.to_pylist()]
            batch = batch.set_column(index, CQ_ID, data.array(numbers, uuid()))
            destination.write(Insert(table, batch))
            written += 20_000
    finally:
        ended.set()
        killer.join()
    with asking(server.url + "x") as ask:
        assert ask(COUNTED) == [(written, written)]


def test_a_server_that_stays_away_is_lost_and_the_last_good_state_stays(server, open_destination):
    destination = open_destination(ClickHouse, connection_string=server.url + "x", attempts=2)
    destination.publish(people(), rows(people(), (1, "old")))
    staged = Staged(destination).add(people(), rows(people(), (2, "new")))
    staged.session.flush()
    server.kill()
    with pytest.raises(PluginLost, match="stays away: the server is not there"):
        staged.publish()
    destination.plugin.close()
    server.start()
    with asking(server.url + "x") as ask:
        assert ask("select id from people") == [(1,)]
        assert ask(f"select count() > 0 from system.tables where startsWith(name, '{STAGING_PREFIX}')") == [(1,)]
    again = open_destination(ClickHouse, connection_string=server.url + "x")
    # The dead run was of this very process, so only time tells.
    again.publish(people(), rows(people(), (3, "newest")))
    with asking(server.url + "x") as ask:
        assert ask("select id from people") == [(3,)]


def test_rows_are_never_sent_again_by_the_driver(through, ask, monkeypatch):
    proxy, destination = through
    sent = []
    insert = Connection.insert

    def count(self, into, batches):
        sent.append(into)
        return insert(self, into, batches)

    monkeypatch.setattr(Connection, "insert", count)
    table = people(keys=())
    destination.write(MigrateTable(table))
    proxy.cut, proxy.mark = "after", INSERT
    with pytest.raises(PluginError):
        destination.write(Insert(table, rows(table, (1, "a"))))
    time.sleep(0.5)
    assert len(sent) == 1
    assert ask("select count() from people") == [(1,)]
