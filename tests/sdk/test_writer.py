"""The writer: order, batches by rows, bytes and seconds, retries, and what a failure takes with it."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.errors import PluginError, PluginLost
from catchment.messages import DeleteStale, Insert, MigrateTable
from catchment.sdk.writer import DestinationHost, Retries
from catchment.testing import data
from tests.engine.plugins import Appends, Recorder

TABLE = data.sourced("t", ("id", pa.int64()), keys=[])
KEYED = data.sourced("k", ("id", pa.int64()))


@pytest.fixture
def make():
    """Makes a host and a session of it."""
    hosts = []

    def make(kind=Recorder, budget=None, retries=None, **spec):
        host = DestinationHost(kind, retries)
        host.init(spec)
        hosts.append(host)
        return host, host.session(budget or Budget(64 << 20))

    yield make
    for host in hosts:
        host.close()


def rows(count, table=TABLE):
    return data.rows(table, count)


def writes(host):
    return [size for kind, _, size in host.destination.calls if kind == "write"]


def test_batches_are_cut_to_the_limit_and_the_rest_goes_at_flush(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    for size in (30, 30, 30, 130):
        session.write(Insert(TABLE, rows(size)))
    session.flush()

    assert writes(host) == [100, 100, 20]
    assert session.stats()["t"].rows == 220


def test_a_message_of_another_kind_pushes_rows_out_before_it(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, rows(3)))
    session.write(DeleteStale(TABLE, "suite", data.SYNC_TIME))
    session.write(Insert(TABLE, rows(4)))
    session.flush()

    assert [kind for kind, _, _ in host.destination.calls] == ["migrate", "write", "delete_stale", "write"]


def test_transient_failures_are_tried_again_and_nothing_is_written_twice(make):
    host, session = make(fail_first=3)
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, rows(5)))
    session.flush()

    assert writes(host) == [5]
    assert host.destination.tries == 4


def test_what_stays_away_is_lost(make):
    host, session = make(fail_first=100, retries=Retries(attempts=3, first_wait_s=0.01, longest_wait_s=0.02))
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, rows(5)))

    with pytest.raises(PluginLost, match="stays away: busy"):
        session.flush()
    with pytest.raises(PluginLost):
        session.write(Insert(TABLE, rows(1)))
    assert host.destination.tries == 3


def test_a_failed_table_refuses_rows_and_others_go_on(make):
    _, session = make(refuse=["t"])
    session.write(MigrateTable(TABLE))
    session.write(MigrateTable(KEYED))
    session.write(Insert(TABLE, rows(100)))
    session.flush()
    with pytest.raises(PluginError, match="t is refused"):
        session.write(Insert(TABLE, rows(1)))
    session.write(Insert(KEYED, rows(7, KEYED)))
    session.flush()

    assert (session.stats()["t"].rows, session.stats()["k"].rows) == (0, 7)
    assert session.stats()["t"].error == "t is refused"


@pytest.mark.parametrize(("kind", "table", "at_once"), [(Recorder, TABLE, 1), (Appends, TABLE, 3), (Appends, KEYED, 1)])
def test_batches_of_one_table_overlap_only_where_that_is_declared(make, kind, table, at_once):
    host, session = make(kind, take_s=0.05)
    session.write(MigrateTable(table))
    session.write(Insert(table, rows(900, table)))
    session.flush()

    assert writes(host) == [100] * 9
    assert host.destination.most_running == at_once


def test_tables_are_written_side_by_side(make):
    host, session = make(take_s=0.05)
    tables = [data.sourced(f"t{n}", ("id", pa.int64()), keys=[]) for n in range(5)]
    for table in tables:
        session.write(MigrateTable(table))
        session.write(Insert(table, rows(100, table)))
    session.flush()

    assert host.destination.most_running == 3


def test_a_full_budget_flushes_the_largest_table(make):
    host, session = make(budget=Budget(2_000))
    for table, size in ((TABLE, 40), (KEYED, 5)):
        session.write(MigrateTable(table))
        session.write(Insert(table, rows(size, table)))
    session.write(Insert(KEYED, rows(60, KEYED)))
    while not writes(host):
        time.sleep(0.01)

    assert ("write", "t", 40) in host.destination.calls


def test_closing_without_a_flush_writes_nothing_more(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, rows(50)))
    session.close()

    assert writes(host) == []
