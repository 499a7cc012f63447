"""Cursors: kept in real destinations, per client and parent row, exact, and never for what failed."""

from __future__ import annotations

import datetime
import decimal
import sqlite3
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from catchment.destinations.duckdb import DuckDB
from catchment.destinations.file import File
from catchment.destinations.sqlite import SQLite
from catchment.errors import PluginError
from catchment.messages import Cursor
from catchment.plugin import Backend, SyncRequest
from catchment.schema.table import Column
from catchment.sdk import Destination, cursors
from catchment.sdk.state import StateTable
from tests.sdk.made import EVERYTHING, add, errors, make_source, of, regions

UTC = datetime.UTC


@pytest.fixture(params=["duckdb", "sqlite", "file"])
def destination(request, tmp_path):
    """A real destination; `file` can only append."""
    made: dict[str, tuple[type[Destination[Any]], dict[str, str]]] = {
        "duckdb": (DuckDB, {"connection_string": str(tmp_path / "state.duckdb")}),
        "sqlite": (SQLite, {"connection_string": str(tmp_path / "state.sqlite")}),
        "file": (File, {"path": str(tmp_path / "{{TABLE}}/{{UUID}}.{{FORMAT}}"), "format": "parquet"}),
    }
    kind, spec = made[request.param]
    host = kind.as_plugin()
    host.init(spec)
    yield host
    host.close()


@pytest.fixture
def state(destination):
    """Makes the table anew, as the next run does."""
    return lambda scope="": StateTable(Backend(destination, "cursors", scope))


def test_saved_cursors_are_there_in_the_next_run(state):
    first = state()
    assert first.load() == {}
    first.save({"a": "1", "b/é/%": "text with 'quotes'"})
    first.save({"a": "2"})

    assert state().load() == {"a": "2", "b/é/%": "text with 'quotes'"}


def test_the_highest_version_counts_over_many_runs(state):
    for number in range(4):
        run = state()
        run.load()
        run.save({"a": str(9 - number)})
        run.save({"a": str(number)})

    assert state().load() == {"a": "3"}


def test_sources_that_share_the_table_do_not_see_each_other(state):
    for scope in ("one", "two"):
        run = state(scope)
        run.load()
        run.save({"a": scope})

    assert state("one").load() == {"a": "one"}
    assert state("two").load() == {"a": "two"}


def test_nothing_is_written_for_a_cursor_that_is_known(tmp_path):
    path = tmp_path / "state.sqlite"
    host = SQLite.as_plugin()
    host.init({"connection_string": str(path)})
    state = StateTable(Backend(host, "cursors"))
    state.load()
    for _ in range(3):
        state.save({"a": "1"})
    state.save({})
    host.close()

    with sqlite3.connect(path) as connection:
        assert connection.execute("select key, value, version from cursors").fetchall() == [("a", "1", "1")]
    connection.close()


def test_a_backend_that_fails_says_which_table_and_why(tmp_path):
    path = tmp_path / "state.sqlite"
    host = SQLite.as_plugin()
    host.init({"connection_string": str(path)})
    state = StateTable(Backend(host, "cursors"))
    state.load()
    with sqlite3.connect(path) as connection:
        connection.execute("drop table cursors")
    connection.close()

    with pytest.raises(PluginError, match=r"cursors cannot be kept in table `cursors`: .*cursors"):
        state.save({"a": "1"})


def test_a_cursor_that_could_not_be_saved_is_tried_again(tmp_path):
    path = tmp_path / "state.duckdb"
    host = DuckDB.as_plugin()
    host.init({"connection_string": str(path)})
    state = StateTable(Backend(host, "cursors"))
    state.load()
    opened: Any = host.destination
    opened._connection.execute("alter table cursors rename to aside")
    with pytest.raises(PluginError, match="cursors cannot be kept"):
        state.save({"a": "1"})
    opened._connection.execute("alter table aside rename to cursors")

    state.save({"a": "1"})
    host.close()

    with duckdb.connect(str(path)) as database:
        assert database.sql("select key, value from cursors").fetchall() == [("a", "1")]


def test_a_table_of_that_name_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "state.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("create table cursors (id integer primary key, key integer)")
    connection.close()
    host = SQLite.as_plugin()
    host.init({"connection_string": str(path)})

    with pytest.raises(PluginError, match=r"cursors cannot be kept in table `cursors`: .*cannot be migrated"):
        StateTable(Backend(host, "cursors")).load()
    host.close()


# Cursors of a source


class Runs:
    """Syncs of one source, each with the cursors that the ones before it saved."""

    def __init__(self, destination):
        self.destination = destination
        self.asked = []

    def sync(self, *, save=True, clients=None, parents=(1,), schema=None, rows=None, fail=()):
        """One run; `rows` gives those of a client, parent and cursor."""
        source = make_source()
        schema = schema if schema is not None else pa.schema([("id", pa.int64()), ("at", pa.int64())])
        self.asked = []

        def read(ctx):
            place = (ctx.client.id, ctx.parent.get("id"))
            self.asked.append((*place, ctx.cursor))
            yield [{"id": n, "at": value} for n, value in enumerate(rows(place) if rows else [])]
            if place in fail:
                raise PluginError("broken")

        options = {"multiplex": regions(*clients)} if clients else {}
        if parents is not None:
            parent = add(source, "parents", lambda ctx: [{"id": number} for number in parents], **options)
            options = {"parent": parent}
        add(source, "events", read, schema, primary_key=["id"], incremental="at", **options)
        host = source.as_plugin()
        host.init({})
        messages = list(host.sync(SyncRequest(EVERYTHING, backend=Backend(self.destination, "cursors"))))
        if save:
            host.acknowledge(of(messages, Cursor))
        host.close()
        self.asked.sort(key=str)
        return messages


@pytest.fixture
def runs(tmp_path):
    host = DuckDB.as_plugin()
    host.init({"connection_string": str(tmp_path / "state.duckdb")})
    yield Runs(host)
    host.close()


def test_the_next_run_asks_from_where_the_last_one_came_to(runs):
    runs.sync(parents=None, rows=lambda place: [3, 7, 5])
    assert runs.asked == [("", None, None)]

    messages = runs.sync(parents=None, rows=lambda place: [8])
    assert runs.asked == [("", None, 7)]
    assert of(messages, Cursor) == [Cursor("events", "events", "8")]

    runs.sync(parents=None)
    assert runs.asked == [("", None, 8)]


def test_a_cursor_comes_behind_all_its_rows(runs):
    messages = runs.sync(rows=lambda place: [1, 2])

    kinds = [type(message).__name__ for message in messages]
    assert kinds.index("Cursor") > max(index for index, kind in enumerate(kinds) if kind == "Insert")


def test_each_client_and_parent_row_has_its_own(runs):
    values = {("eu", 1): [10], ("eu", 2): [20], ("us", 1): [30], ("us", 2): []}

    messages = runs.sync(clients=("eu", "us"), parents=(1, 2), rows=values.__getitem__)
    runs.sync(clients=("eu", "us"), parents=(1, 2))

    assert {cursor.key for cursor in of(messages, Cursor)} == {"events/eu/1", "events/eu/2", "events/us/1"}
    assert runs.asked == [("eu", 1, 10), ("eu", 2, 20), ("us", 1, 30), ("us", 2, None)]


def test_what_failed_keeps_its_old_cursor(runs):
    runs.sync(parents=(1, 2), rows=lambda place: [5])
    messages = runs.sync(parents=(1, 2), rows=lambda place: [9], fail={("", 2)})
    runs.sync(parents=(1, 2))

    assert [name for name, _, _ in errors(messages)] == ["events"]
    assert dict(entry[1:] for entry in runs.asked)[2] == 5


def test_what_was_not_acknowledged_is_asked_for_again(runs):
    runs.sync(parents=None, rows=lambda place: [5])
    runs.sync(parents=None, rows=lambda place: [9], save=False)
    runs.sync(parents=None)

    assert runs.asked == [("", None, 5)]


def test_a_cursor_never_goes_back(runs):
    runs.sync(parents=None, rows=lambda place: [9])
    messages = runs.sync(parents=None, rows=lambda place: [4])
    runs.sync(parents=None)

    assert of(messages, Cursor) == []
    assert runs.asked == [("", None, 9)]


def test_a_parent_whose_children_failed_is_read_again(runs):
    source = make_source()
    schema = pa.schema([("id", pa.int64()), ("at", pa.int64())])
    parent = add(source, "a", lambda ctx: [{"id": 1, "at": 5}], schema, incremental="at")

    def broken(ctx):
        raise PluginError("broken")

    add(source, "b", broken, parent=parent)
    host = source.as_plugin()
    host.init({})

    messages = list(host.sync(SyncRequest(EVERYTHING)))

    assert of(messages, Cursor) == [], "its children would never be asked for again"


def test_rows_left_out_keep_the_cursor_where_it_is(runs):
    def read(ctx):
        ctx.skip_rows(1, "line 7")
        yield {"id": 1, "at": 5}

    source = make_source()
    add(source, "a", read, pa.schema([("id", pa.int64()), ("at", pa.int64())]), incremental="at")
    host = source.as_plugin()
    host.init({})

    assert of(host.sync(SyncRequest(EVERYTHING)), Cursor) == []


VALUES = [
    (pa.int64(), [-9, -5, -7], -5),
    (pa.uint64(), [2**64 - 1, 0], 2**64 - 1),
    (pa.utf8(), ["a", "é/%'\"\n", "Z"], "é/%'\"\n"),
    (pa.float64(), [0.1 + 0.2, -1e300], 0.1 + 0.2),
    (pa.decimal128(38, 10), [decimal.Decimal("1E-10"), decimal.Decimal(0)], decimal.Decimal("1E-10")),
    (pa.date32(), [datetime.date(1969, 12, 31), datetime.date(1, 1, 1)], datetime.date(1969, 12, 31)),
    (pa.time64("us"), [datetime.time(1, 2, 3, 4)], datetime.time(1, 2, 3, 4)),
    (
        pa.timestamp("us", "UTC"),
        [datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)],
        datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    ),
    (pa.timestamp("us"), [datetime.datetime(2024, 1, 2)], datetime.datetime(2024, 1, 2)),
    (pa.timestamp("s", "UTC"), [datetime.datetime(1969, 1, 2, tzinfo=UTC)], datetime.datetime(1969, 1, 2, tzinfo=UTC)),
]


@pytest.mark.parametrize(("kind", "values", "largest"), VALUES, ids=[str(kind) for kind, _, _ in VALUES])
def test_cursors_of_every_type_come_back_exactly(runs, kind, values, largest):
    schema = pa.schema([("id", pa.int64()), ("at", kind)])

    runs.sync(parents=None, schema=schema, rows=lambda place: [None, *values, None])
    runs.sync(parents=None, schema=schema)

    assert [asked[2] for asked in runs.asked] == [largest]


def test_nanoseconds_come_back_exactly(runs):
    kind = pa.timestamp("ns", "UTC")
    schema = pa.schema([("id", pa.int64()), ("at", kind)])
    values = [pa.scalar(number, kind) for number in (1_700_000_000_123_456_789, 1_700_000_000_123_456_788, -1)]

    runs.sync(parents=None, schema=schema, rows=lambda place: values)
    messages = runs.sync(parents=None, schema=schema, rows=lambda place: values)

    assert [asked[2].value for asked in runs.asked] == [1_700_000_000_123_456_789]
    assert of(messages, Cursor) == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_times_keep_their_moment_when_clocks_go_back(zone):
    column = Column("at", pa.timestamp("us", zone))
    for second in range(1_698_541_200, 1_698_552_000, 900):
        cursor = pa.scalar(second * 10**6, column.type)

        assert cursors.from_text(cursors.to_text(cursor), column, "key").equals(cursor)


def test_a_saved_cursor_of_another_type_is_the_error_of_its_table(runs):
    runs.sync(parents=None, schema=pa.schema([("id", pa.int64()), ("at", pa.utf8())]), rows=lambda place: ["x"])

    [(table, _, text)] = errors(runs.sync(parents=None))

    assert table == "events"
    assert text.startswith("the saved cursor 'x' is no int64 for column `at`")
    assert "delete the row with the key 'events' from the state table" in text


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("t", ""), "t"),
        (("t", "eu"), "t/eu"),
        (("t", "", ["a", 1]), "t//a/1"),
        (("t", "a/b", ["c"]), "t/a%2Fb/c"),
        (("t", "a", ["b/c"]), "t/a/b%2Fc"),
        (("t", "a%2Fb", ["c"]), "t/a%252Fb/c"),
        (("t", "a", [pa.scalar(1, pa.timestamp("ns"))]), "t/a/1970-01-01 00:00:00.000000001"),
    ],
)
def test_no_two_places_share_a_key(parts, key):
    assert cursors.cursor_key(*parts) == key
