"""How a sync ends: side by side, interrupted, with a destination lost on the way or failing at its last flush."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.engine.pipeline import Pipeline
from catchment.engine.plan import make_plan
from catchment.engine.result import PluginResult
from catchment.engine.source_run import SourceRun
from catchment.engine.stamp import Stamp
from catchment.engine.sync import Options, Sync, migrate
from catchment.messages import ClientDone, Insert, MigrateTable, TableError
from catchment.plugin import SyncRequest
from catchment.schema.select import Selection
from catchment.schema.table import Column, Table
from catchment.spec.load import load_documents
from tests.e2e.conftest import at_file
from tests.e2e.documents import HERE, destination, made, messages, plan, run, source
from tests.e2e.plugins import Gathers, Pause, cursors, until
from tests.engine import plugins
from tests.engine.plugins import Recorder

RECORDER = "tests.engine.plugins:Recorder"
STATE = {"table_name": "state", "connection": "@@plugins.db.connection"}


@pytest.fixture
def db(tmp_path):
    return at_file(str(tmp_path / "db.duckdb"))


def running(*documents, **options):
    """A sync in a thread of its own."""
    sync = Sync(plan(*documents), Options(**options))
    thread = threading.Thread(target=sync.run)
    thread.start()
    return sync, thread


# side by side


def shop_of(name, *rows, columns=None):
    document = made(people={"columns": columns or {"id": "int64", "name": "utf8"}, "primary_key": ["id"],
                            "rows": [list(row) for row in rows]})  # fmt: skip
    document["spec"]["name"] = name
    return document


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_two_sources_fill_one_table_side_by_side(db, publish):
    for _ in range(2):
        first, second = shop_of("one", (1, "Ann"), (2, "Bo")), shop_of("two", (3, "Cy"))
        result = run(first, second, db.document(publish=publish), sources_in_parallel=2)
        assert result.outcome == "complete"

    found = db.query("select _cq_source_name, id from people order by id")
    assert found == [("one", 1), ("one", 2), ("two", 3)]


# the same table twice, and other ways of a source to speak out of turn


class Speaking:
    """A source that sends the messages it is given."""

    name = "speaking"
    secrets: frozenset[str] = frozenset()

    def __init__(self, *messages):
        self.messages = messages
        self.saved = []

    def init(self, spec, *, no_connection=False, invocation_id=""):
        pass

    def tables(self, selection):
        return []

    def unreadable(self, selection):
        return {}

    def sync(self, request):
        yield from self.messages

    def acknowledge(self, cursors):
        self.saved.extend(cursors)

    def interrupt(self): ...

    def test_connection(self):
        pass

    def close(self):
        pass


TABLE = Table("t", (Column("id", pa.int64(), primary_key=True, not_null=True),))
ROWS = pa.RecordBatch.from_pydict({"id": [1, 2]}, schema=TABLE.arrow_schema)


def spoken(*said, mode="overwrite"):
    """The outcome of a source that says this, and what its destination was called with."""
    host = Recorder.as_plugin()
    host.init({})
    pipeline = Pipeline("db", host, Stamp(datetime.now(UTC), "speaking", write_mode=mode), Budget(1 << 20))
    result = PluginResult("speaking", "speaking")
    speaking = SourceRun("speaking", Speaking(*said), SyncRequest(Selection()), [pipeline], result)
    speaking.run()
    pipeline.close()
    calls = [call for call in Recorder.made[-1].calls if call[0] != "delete_stale"]
    host.close()
    return result, calls


def test_a_table_that_is_announced_twice_is_made_once():
    result, calls = spoken(MigrateTable(TABLE), MigrateTable(Table("t", TABLE.columns)), Insert(TABLE, ROWS))

    assert (result.outcome, result.error) == ("complete", "")
    assert calls == [("migrate", "t", 0), ("write", "t", 2)]


def test_a_table_that_changes_on_the_way_fails_the_source():
    other = Table("t", (*TABLE.columns, Column("name", pa.utf8())))
    result, calls = spoken(MigrateTable(TABLE), Insert(TABLE, ROWS), MigrateTable(other))

    assert result.outcome == "failed"
    assert result.error == "source `speaking` sent table `t` twice, the second time with a change"
    assert ("write", "t", 2) in calls


@pytest.mark.parametrize("said", [Insert(TABLE, ROWS), ClientDone("t", "")])
def test_a_table_that_was_not_announced_fails_the_source(said):
    result, calls = spoken(said)

    assert result.outcome == "failed"
    assert result.error == "source `speaking` speaks of table `t` before it sent its columns"
    assert calls == []


def test_a_source_with_a_table_twice_fails(db):
    result = run(source("twice", "tests.engine.plugins:colliding", ["*"]), db.document())

    assert result.outcome == "failed"
    assert "duplicate table same" in result.sources[0].error


SLICED = Table("t", (Column("_cq_client_id", pa.utf8()), *TABLE.columns))
BELOW = Table("u", SLICED.columns, parent="t")


def test_a_client_is_only_cleaned_where_it_and_what_is_above_were_read_to_the_end():
    done = [ClientDone(name, client) for name in ("t", "u") for client in "abc"]
    said = [MigrateTable(SLICED), MigrateTable(BELOW), TableError("t", "broke off", "a"), TableError("u", "too", "b")]

    result, _ = spoken(*said, *done, mode="overwrite-delete-stale")

    assert result.outcome == "complete"
    assert Recorder.made[-1].cleaned == [("t", ("b", "c")), ("u", ("c",))]


def test_a_table_whose_every_client_broke_off_is_not_cleaned():
    spoken(MigrateTable(SLICED), TableError("t", "broke off", "a"), mode="overwrite-delete-stale")

    assert Recorder.made[-1].cleaned == []


# cursors


def test_cursors_are_saved_after_every_destination_has_published(db, monkeypatch):
    order = []
    for name in ("publish", "write"):
        host = __import__("catchment.destinations.duckdb", fromlist=["DuckDB"]).DuckDB
        call = getattr(host, name)

        def noting(self, first, *rest, name=name, call=call):
            done = call(self, first, *rest)
            order.append((name, getattr(first, "name", "")))
            return done

        monkeypatch.setattr(host, name, noting)
    feed = source("feed", f"{HERE}:feed", ["*"], ["db", "other"], backend_options=STATE)
    shop = source("shop", tables=["shops", "events"], destinations=["db"], backend_options=STATE)
    other = destination("other", RECORDER, spec={"take_s": 0.2}, publish="stream")
    assert run(feed, shop, db.document(), other, sources_in_parallel=1).outcome == "complete"

    saved = [index for index, (_, table) in enumerate(order) if table == "state"]
    assert len(saved) == 2
    assert [name for name, _ in order[saved[0] + 1 : saved[1]]].count("publish") == 1
    assert ("write", "messages") in order[: saved[0]]


def test_a_destination_that_is_lost_on_the_way_leaves_the_other_one_whole_and_no_cursor(db):
    plugins.seen.clear()
    wide = {"tables": 1, "num_rows": 1000, "rows_per_batch": 100}
    lost = destination("lost", RECORDER, spec={"lose_after": 3}, publish="stream")
    both = source("test", "test", ["test_wide_table_0"], ["db", "lost"], spec=wide)
    events = source("shop", tables=["events"], destinations=["db", "lost"], backend_options=STATE)

    result = run(both, events, db.document(), lost, sources_in_parallel=1)

    assert result.outcome == "failed"
    assert {part.name: part.outcome for part in result.destinations} == {"db": "complete", "lost": "failed"}
    assert next(part for part in result.destinations if part.name == "lost").error == "the server is gone"
    assert db.query("select count(*) from test_wide_table_0") == [(1000,)]
    rows = {row.destination: row for row in result.tables if row.source == "test"}
    assert rows["db"].complete
    assert not rows["lost"].complete
    assert 0 < rows["lost"].rows_written <= 300
    # The second source finds one destination only; what it reads is not kept back from its next sync.
    run(source("shop", tables=["events"], backend_options=STATE), db.document())
    assert plugins.seen[-1] in (None, 2)


def test_cursors_stay_when_one_of_two_destinations_is_lost(db):
    plugins.seen.clear()
    lost = destination("lost", RECORDER, spec={"lose_after": 1, "fail_first": 0}, publish="stream")
    shop = source("shop", tables=["shops", "events"], destinations=["db", "lost"], backend_options=STATE)
    assert run(shop, db.document(), lost).outcome == "failed"

    run(source("shop", tables=["events"], backend_options=STATE), db.document())

    assert plugins.seen == [None, None]


def test_cursors_stay_when_a_destination_fails_on_a_child_of_their_rows(db):
    cursors.clear()
    refusing = destination("other", RECORDER, spec={"refuse": ["replies"]}, publish="stream")
    tables = ["messages", "replies"]
    feed = source("feed", f"{HERE}:feed", tables, ["db", "other"], backend_options=STATE)
    assert run(feed, db.document(), refusing).outcome == "partial"

    run(source("feed", f"{HERE}:feed", tables, backend_options=STATE), db.document())

    assert cursors == [None, None]


def test_a_source_without_a_destination_left_is_broken_off(db):
    wide = {"tables": 1, "num_rows": 100_000, "rows_per_batch": 100, "delay": "5ms"}
    lost = destination("db", RECORDER, spec={"lose_after": 2}, publish="stream")
    started = time.monotonic()

    result = run(source("test", "test", ["test_wide_table_0"], spec=wide), lost)

    assert time.monotonic() - started < 4
    assert result.outcome == result.sources[0].outcome == "failed"
    assert "none of its destinations is left" in result.sources[0].error


def test_a_destination_that_was_lost_is_not_used_by_the_next_source(db):
    lost = destination("lost", RECORDER, spec={"lose_after": 1}, publish="stream")
    first = source("one", tables=["shops", "events"], destinations=["db", "lost"])
    second = source("two", tables=["shops"], destinations=["lost"])

    result = run(first, second, db.document(), lost, sources_in_parallel=1)

    assert result.sources[1].error == "source `two`: none of its destinations can be used"


def test_a_summary_that_is_refused_leaves_the_destination_to_the_next_source(db):
    with duckdb.connect(db.connection) as connection:
        connection.execute("create table cloudquery_sync_summaries (sync_id integer not null)")
    first, second = source("one", tables=["shops"]), source("two", tables=["events"])

    result = run(first, second, db.document(send_sync_summary=True), sources_in_parallel=1)

    assert result.outcome == "failed"
    assert "the sync summary could not be written: table `cloudquery_sync_summaries`" in result.destinations[0].error
    assert db.query("select count(*) from events") == [(3,)]


def test_a_summary_that_does_not_fit_is_made_anew_in_forced_mode(db):
    with duckdb.connect(db.connection) as connection:
        connection.execute("create table cloudquery_sync_summaries (sync_id integer not null)")

    assert run(source(), db.document(send_sync_summary=True, migrate_mode="forced")).outcome == "complete"
    assert db.query("select count(*) from cloudquery_sync_summaries") == [(1,)]


# the last flush


def test_an_error_at_the_last_flush_is_reported_and_nothing_is_deleted():
    spec = {"refuse": ["shops"]}
    result = run(source(), destination(path=f"{HERE}:Gathers", spec=spec))

    assert result.outcome == "partial"
    rows = {row.table: row for row in result.tables}
    assert messages(result) == "shops cannot be made durable\nshops cannot be made durable"
    assert all(not row.complete and row.rows_written == 0 for row in rows.values())
    assert not [call for call in Recorder.made[-1].calls if call[0] == "delete_stale"]
    assert isinstance(Recorder.made[-1], Gathers)


def test_a_mistake_in_a_destinations_code_is_reported_and_the_other_one_is_finished(db):
    result = run(source(destinations=["db", "faulty"]), db.document(), destination("faulty", f"{HERE}:Faulty"))

    assert result.outcome == "partial"
    rows = {(row.destination, row.table): row for row in result.tables}
    assert all(rows["db", table].complete and rows["db", table].published for table in ("shops", "orders"))
    assert messages(result) == "\n".join(["AttributeError: no such thing"] * 2)


def test_an_error_in_the_last_batch_keeps_stale_rows_and_cursors(db):
    plugins.seen.clear()
    refusing = destination("db2", RECORDER, spec={"refuse": ["events"]}, publish="stream")
    shop = source("shop", tables=["events"], destinations=["db", "db2"], backend_options=STATE)

    result = run(shop, db.document(), refusing)

    assert result.outcome == "partial"
    assert not [call for call in Recorder.made[-1].calls if call[0] == "delete_stale"]
    assert db.query("select count(*) from state") == [(0,)]


# interrupts


def slow(**more):
    spec = {"tables": 1, "num_rows": 100_000, "rows_per_batch": 10, "delay": "20ms"}
    return source("test", "test", ["test_wide_table_0"], spec=spec, **more)


def test_an_interrupted_atomic_sync_leaves_the_last_good_state(db):
    quick = source("test", "test", ["test_wide_table_0"], spec={"tables": 1, "num_rows": 3})
    assert run(quick, db.document()).outcome == "complete"
    was = db.query("select * from test_wide_table_0 order by id")

    sync, thread = running(slow(), db.document(send_sync_summary=True))
    until(lambda: any(row.rows_read > 50 for row in sync.tables()))
    started = time.monotonic()
    sync.interrupt()
    thread.join(20)

    assert time.monotonic() - started < 5
    assert sync.result.outcome == sync.result.sources[0].outcome == "interrupted"
    assert db.query("select * from test_wide_table_0 order by id") == was
    assert db.tables() == ["test_wide_table_0"]
    [row] = sync.result.tables
    assert (row.published, row.complete, row.rows_written) == (False, False, 0)
    assert row.stale_kept_reason == "not published: the sync was interrupted"


def test_an_interrupted_stream_keeps_what_was_read_and_deletes_nothing(db):
    quick = source("test", "test", ["test_wide_table_0"], spec={"tables": 1, "num_rows": 2000})
    run(quick, db.document(publish="stream"))

    sync, thread = running(slow(), db.document(publish="stream"))
    until(lambda: any(row.rows_read > 50 for row in sync.tables()))
    started = time.monotonic()
    sync.interrupt()
    thread.join(20)

    assert time.monotonic() - started < 5
    assert sync.result.outcome == "interrupted"
    [row] = sync.result.tables
    assert row.rows_written == row.rows_read > 50
    assert not row.complete
    newest = "select count(*) from test_wide_table_0 where _cq_sync_time = (select max(_cq_sync_time) from {})"
    assert db.query(newest.format("test_wide_table_0")) == [(row.rows_written,)]
    assert db.query("select count(*) from test_wide_table_0") == [(2000,)]


def test_an_interrupt_does_not_wait_for_rows_that_a_source_has_sent_already():
    spec = {"tables": 1, "num_rows": 200_000, "rows_per_batch": 1_000}
    quick = source("test", "test", ["test_wide_table_0"], spec=spec)
    sync, thread = running(quick, destination(path=RECORDER, spec={"take_s": 0.02}), buffer_bytes=200_000)
    until(lambda: any(row.rows_read > 2_000 for row in sync.tables()))
    started = time.monotonic()
    sync.interrupt()
    thread.join(20)

    assert time.monotonic() - started < 2
    assert sync.result.outcome == "interrupted"
    [row] = sync.result.tables
    assert row.rows_written == row.rows_read < 200_000


def test_an_interrupt_does_not_wait_for_a_source_that_is_stuck(db):
    pause = Pause("stuck")
    stuck = source("paused", f"{HERE}:paused", ["steps"], spec={"pause": "stuck"})
    sync, thread = running(stuck, db.document())
    try:
        assert pause.reached.wait(20)
        started = time.monotonic()
        sync.interrupt()
        thread.join(20)
        assert time.monotonic() - started < 8
        assert sync.result.outcome == "interrupted"
    finally:
        pause.over.set()


def test_an_interrupt_keeps_sources_that_wait_from_starting(db):
    sync, thread = running(slow(), source("later", tables=["shops"]), db.document(), sources_in_parallel=1)
    until(lambda: any(row.rows_read for row in sync.tables()))
    sync.interrupt()
    thread.join(20)

    assert [part.outcome for part in sync.result.sources] == ["interrupted", "interrupted"]
    assert "shops" not in db.tables()


def test_an_interrupt_that_comes_too_late_changes_nothing(db):
    sync = Sync(plan(source(), db.document()))
    assert sync.run().outcome == "complete"
    sync.interrupt()

    assert sync.result.outcome == "complete"


def test_an_interrupted_incremental_table_is_not_skipped_over(db):
    plugins.seen.clear()
    pause = Pause("cursor")
    stuck = source("paused", f"{HERE}:paused", ["steps"], spec={"pause": "cursor"}, backend_options=STATE)
    sync, thread = running(stuck, db.document())
    try:
        assert pause.reached.wait(20)
        sync.interrupt()
        thread.join(20)
    finally:
        pause.over.set()

    assert db.query("select count(*) from state") == [(0,)]


# --no-migrate and migrate


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_without_migration_no_table_is_made_or_changed(db, publish):
    made_first = make_plan(load_documents([shop_of("made", (1, "Ann")), db.document()]))
    missing = run(shop_of("made", (1, "Ann")), db.document(publish=publish), migrate=False)
    assert missing.outcome == "partial"
    assert db.tables() == []

    migrate(made_first)
    assert run(shop_of("made", (1, "Ann")), db.document(publish=publish), migrate=False).outcome == "complete"
    wider = shop_of("made", (2, "Bo", 7), columns={"id": "int64", "name": "utf8", "age": "int64"})
    assert run(wider, db.document(publish=publish), migrate=False).outcome == "partial"

    assert db.query("select id, name from people") == [(1, "Ann")]


def test_without_migration_stale_rows_go_all_the_same(db):
    run(shop_of("made", (1, "Ann"), (2, "Bo")), db.document())
    assert run(shop_of("made", (2, "Bo")), db.document(), migrate=False).outcome == "complete"

    assert db.query("select id from people") == [(2,)]


def test_a_migration_makes_the_tables_that_a_sync_finds_right(db):
    documents = [source(client_id_column=True), db.document(send_sync_summary=True)]

    result = migrate(plan(*documents))

    assert result.outcome == "complete"
    assert all(row.complete for row in result.tables)
    assert db.tables() == ["cloudquery_sync_summaries", "orders", "shops"]
    assert db.query("select count(*) from shops") == [(0,)]
    was = db.query("select table_name, column_name, column_index, data_type from duckdb_columns() order by all")
    assert run(*documents).outcome == "complete"
    now = db.query("select table_name, column_name, column_index, data_type from duckdb_columns() order by all")
    assert now == was


def test_a_source_that_fails_while_it_migrates_is_reported(db):
    dead = source("dead", tables=["shops"], spec={"dead": True})
    wrong = source("wrong", tables=["shosp"])

    result = migrate(plan(source(), wrong, dead, db.document()))

    assert result.outcome == "failed"
    errors = {part.name: part.error for part in result.sources}
    assert errors["shop"] == ""
    assert "tables include a pattern shosp with no matches" in errors["wrong"]
    assert "shops" in db.tables()
