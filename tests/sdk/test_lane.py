"""Streams: a write that takes rows while they come, what ends it, and what becomes of its bytes."""

from __future__ import annotations

import threading
import time

import duckdb
import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.duckdb import DuckDB
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import BatchSize, Capabilities, Swap
from catchment.schema.internal import staging_name
from catchment.sdk.destination import Destination
from catchment.sdk.lane import IDLE_S, Stream
from catchment.sdk.writer import DestinationHost
from catchment.spec.fields import BatchSpec
from catchment.testing import data

TABLE = data.sourced("t", ("id", pa.int64()), keys=[])
OTHER = data.sourced("other", ("id", pa.int64()), keys=[])
KEYED = data.sourced("keyed", ("id", pa.int64()))


class Streams(Destination[BatchSpec]):
    """Notes the rows of every call; `stream` reads as fast as rows come."""

    name = "streams"
    capabilities = Capabilities(batch=BatchSize(rows=100))

    def __init__(self, spec):
        super().__init__(spec)
        self.calls = []
        self.reading = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self.fail_after = None

    def open(self): ...
    def close(self): ...
    def migrate(self, table, *, force): ...
    def delete_stale(self, table, *, source_name, sync_time, clients=None): ...
    def read(self, table):
        return iter(())

    def write(self, table, rows):
        self.calls.append(("write", table.name, rows.num_rows))

    def stream(self, table, batches):
        rows = 0
        for batch in batches:
            self.reading.set()
            assert self.may_read.wait(5)
            rows += batch.num_rows
            if self.fail_after is not None and rows > self.fail_after:
                raise PluginError("no more")
        self.calls.append(("stream", table.name, rows))


@pytest.fixture
def make():
    hosts = []

    def make(kind=Streams, budget=None, **spec):
        host = DestinationHost(kind)
        host.init(spec)
        hosts.append(host)
        return host, host.session(budget or Budget(64 << 20))

    yield make
    for host in hosts:
        host.close()


def test_what_follows_a_full_batch_goes_into_the_same_write(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    for _ in range(7):
        session.write(Insert(TABLE, data.rows(TABLE, 50)))
    session.flush()

    assert host.destination.calls == [("stream", "t", 350)]
    assert session.stats()["t"].rows == 350


def test_a_small_table_is_written_as_a_batch(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, data.rows(TABLE, 99)))
    session.flush()

    assert host.destination.calls == [("write", "t", 99)]


def test_limits_of_the_spec_are_obeyed_instead(make):
    host, session = make(batch_size=60)
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, data.rows(TABLE, 150)))
    session.flush()

    assert host.destination.calls == [("write", "t", 60), ("write", "t", 60), ("write", "t", 30)]


def test_tables_with_keys_are_written_in_batches(make):
    host, session = make()
    session.write(MigrateTable(KEYED))
    session.write(Insert(KEYED, data.rows(KEYED, 150)))
    session.flush()

    assert host.destination.calls == [("write", "keyed", 100), ("write", "keyed", 50)]


def test_a_stream_ends_when_another_table_needs_the_thread(make):
    host, session = make()
    for table in (TABLE, OTHER):
        session.write(MigrateTable(table))
    for _ in range(3):
        session.write(Insert(TABLE, data.rows(TABLE, 50)))
    assert host.destination.reading.wait(5)
    for _ in range(3):
        session.write(Insert(OTHER, data.rows(OTHER, 50)))

    wait_until(lambda: host.destination.calls == [("stream", "t", 150)])
    session.write(Insert(TABLE, data.rows(TABLE, 10)))
    session.flush()
    assert host.destination.calls[1:] == [("stream", "other", 150), ("write", "t", 10)]


def wait_until(holds):
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_stream_that_has_rows_to_read_keeps_its_thread(make):
    host, session = make()
    host.destination.may_read.clear()
    for table in (TABLE, OTHER):
        session.write(MigrateTable(table))
    for _ in range(5):
        for table in (TABLE, OTHER):
            session.write(Insert(table, data.rows(table, 60)))
    assert host.destination.reading.wait(5)
    # It has more to read than it could in the time after which one that idles gives way.
    time.sleep(3 * IDLE_S)
    host.destination.may_read.set()
    session.flush()

    assert host.destination.calls == [("stream", "t", 300), ("stream", "other", 300)]


def test_a_used_up_budget_does_not_cut_tables_into_pieces(make):
    host, session = make(budget=Budget(4_000))
    host.destination.may_read.clear()
    for table in (TABLE, OTHER):
        session.write(MigrateTable(table))
    row_bytes = data.rows(TABLE, 60).nbytes / 60
    # Half of the budget, and less than a batch, for each.
    threading.Timer(0.2, host.destination.may_read.set).start()
    for _ in range(int(40_000 / row_bytes / 10)):
        for table in (TABLE, OTHER):
            session.write(Insert(table, data.rows(table, 10)))
    session.flush()

    rows = {name: sum(count for _, table, count in host.destination.calls if table == name) for name in ("t", "other")}
    assert rows["t"] == rows["other"] == int(40_000 / row_bytes / 10) * 10
    assert len(host.destination.calls) < 40


def test_a_stream_ends_when_another_session_needs_the_destination(make):
    host, session = make()
    session.write(MigrateTable(TABLE))
    for _ in range(3):
        session.write(Insert(TABLE, data.rows(TABLE, 50)))
    assert host.destination.reading.wait(5)

    second = host.session(Budget(1 << 20))
    second.write(MigrateTable(OTHER))
    second.write(Insert(OTHER, data.rows(OTHER, 1)))
    second.flush()

    assert host.destination.calls == [("stream", "t", 150), ("write", "other", 1)]


def test_a_full_budget_never_locks_the_tables_up(make):
    budget = Budget(40_000)
    host, session = make(budget=budget)
    tables = [data.sourced(f"t{number}", ("id", pa.int64()), keys=[]) for number in range(5)]
    for table in tables:
        session.write(MigrateTable(table))
    for round_number in range(60):
        table = tables[round_number * round_number % 5]
        session.write(Insert(table, data.rows(table, 70)))
    session.flush()

    assert sum(rows for _, _, rows in host.destination.calls) == 60 * 70
    assert budget.used_bytes == 0


def test_a_stream_that_fails_ends_its_table_and_gives_its_bytes_back(make):
    budget = Budget(1 << 20)
    host, session = make(budget=budget)
    host.destination.fail_after = 120
    session.write(MigrateTable(TABLE))

    def insert_for_ever():
        for _ in range(1000):
            session.write(Insert(TABLE, data.rows(TABLE, 50)))
            time.sleep(0.001)

    with pytest.raises(PluginError, match="no more"):
        insert_for_ever()
    session.flush()

    assert session.stats()["t"].error == "no more"
    assert session.stats()["t"].rows == 0
    assert budget.used_bytes == 0


def test_closing_the_session_gives_a_stream_up(make):
    budget = Budget(1 << 20)
    host, session = make(budget=budget)
    session.write(MigrateTable(TABLE))
    for _ in range(4):
        session.write(Insert(TABLE, data.rows(TABLE, 50)))
    assert host.destination.reading.wait(5)
    session.close()

    assert host.destination.calls == []
    assert budget.used_bytes == 0


def test_an_ended_stream_takes_nothing_more():
    budget = Budget(1000)
    stream = Stream("t", budget)
    assert stream.put(data.rows(TABLE, 1), 10)
    stream.end()

    assert not stream.put(data.rows(TABLE, 1), 10)
    assert len(list(stream.read())) == 1


BATCH_ROWS = 100_000


def _batches(table, count, payload="x" * 200):
    names, moments = (
        pa.repeat("suite", BATCH_ROWS),
        pa.repeat(pa.scalar(data.SYNC_TIME, pa.timestamp("us", "UTC")), BATCH_ROWS),
    )
    for number in range(count):
        ids = pa.array(range(number * BATCH_ROWS, (number + 1) * BATCH_ROWS), pa.int64())
        yield pa.RecordBatch.from_arrays(
            [names, moments, ids, pa.repeat(payload, BATCH_ROWS)], names=table.column_names
        )


def test_duckdb_takes_a_long_load_in_one_transaction(make, tmp_path):
    path = str(tmp_path / "x.duckdb")
    table = data.sourced("long", ("id", pa.int64()), ("payload", pa.utf8()), keys=[])
    _, session = make(DuckDB, connection_string=path)
    session.write(MigrateTable(table))
    for batch in _batches(table, 5):
        session.write(Insert(table, batch))
    session.flush()
    session.close()

    assert session.stats()["long"].rows == 5 * BATCH_ROWS
    with duckdb.connect(path) as connection:
        query = "select count(*), count(distinct id), min(length(payload)) from long"
        assert connection.execute(query).fetchone() == (5 * BATCH_ROWS, 5 * BATCH_ROWS, 200)


def test_duckdb_keeps_the_last_of_equal_keys_of_a_streamed_staging_table(make, tmp_path):
    path = str(tmp_path / "x.duckdb")
    table = data.sourced("long", ("id", pa.int64()), ("payload", pa.utf8()))
    staged = table.without_keys().renamed(staging_name("run", 1))
    _, session = make(DuckDB, connection_string=path)
    session.write(MigrateTable(table, staged=staged))
    for payload in ("a" * 200, "b" * 200, "c" * 200):
        for batch in _batches(table, 2, payload):
            session.write(Insert(staged, batch))
    session.publish([Swap(table, staged, "suite", data.SYNC_TIME)])
    session.close()

    with duckdb.connect(path) as connection:
        query = "select count(*), count(distinct id), min(payload[1]), max(payload[1]) from long"
        assert connection.execute(query).fetchone() == (2 * BATCH_ROWS, 2 * BATCH_ROWS, "c", "c")


def test_duckdb_leaves_nothing_of_a_load_that_is_given_up(make, tmp_path):
    path = str(tmp_path / "x.duckdb")
    table = data.sourced("long", ("id", pa.int64()), ("payload", pa.utf8()), keys=[])
    host, session = make(DuckDB, connection_string=path)
    session.write(MigrateTable(table))
    for batch in _batches(table, 3):
        session.write(Insert(table, batch))
    session.close()
    host.close()

    with duckdb.connect(path) as connection:
        assert connection.execute("select count(*) from long").fetchone() == (0,)


@pytest.mark.parametrize(("size", "pieces"), [(3, 1), (2_000, 5)], ids=["small", "large"])
def test_small_pieces_are_made_one_before_they_are_written(make, size, pieces):
    class Pieces(Streams):
        capabilities = Capabilities(batch=BatchSize(rows=100_000))

        def write(self, table, rows):
            self.calls.append(rows.column(0).num_chunks)

    host, session = make(Pieces)
    session.write(MigrateTable(KEYED))
    for _ in range(5):
        session.write(Insert(KEYED, data.rows(KEYED, size)))
    session.flush()

    assert host.destination.calls == [pieces]
    assert session.stats()["keyed"].rows == 5 * size
