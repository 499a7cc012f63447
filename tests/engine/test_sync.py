"""The rules of a sync, in process: what is deleted, what stays, what an error takes down, what is counted."""

from __future__ import annotations

import duckdb
import pytest

from catchment.engine.plan import make_plan
from catchment.engine.result import exit_code
from catchment.engine.sync import Options, Sync
from catchment.errors import SpecError
from catchment.spec.load import load_documents
from tests.engine import plugins
from tests.engine.plugins import Recorder

HERE = "tests.engine.plugins"


def source(name="shop", tables=("shops", "orders"), destinations=("db",), path=f"{HERE}:shop", spec=None, **more):
    body = {"name": name, "registry": "python", "path": path, "tables": list(tables),
            "destinations": list(destinations), "spec": spec or {}, **more}  # fmt: skip
    return {"kind": "source", "spec": body}


def destination(name="db", path="duckdb", **more):
    return {"kind": "destination", "spec": {"name": name, "registry": "python", "path": path, **more}}


def transformer(name, path):
    return {"kind": "transformer", "spec": {"name": name, "registry": "python", "path": path}}


def run(*documents, **options):
    return Sync(make_plan(load_documents(documents)), Options(**options)).run()


@pytest.fixture
def db(tmp_path):
    """A destination config, and a function that queries what is in it."""
    path = str(tmp_path / "db.duckdb")

    def query(text):
        with duckdb.connect(path) as connection:
            return connection.execute(text).fetchall()

    return {"spec": {"connection_string": path}}, query


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_stale_rows_of_a_table_that_broke_off_stay(db, publish):
    more, query = db
    assert run(source(), destination(**more, publish=publish)).outcome == "complete"

    result = run(source(spec={"shops": [1, 3], "fail": ["shops"]}), destination(**more, publish=publish))

    assert result.outcome == "partial"
    assert query("select id from shops order by id") == [(1,), (2,), (3,)]
    tables = {row.table: row for row in result.tables}
    assert tables["shops"].errors[0].message == "shops broke off"
    assert tables["shops"].stale_kept_reason
    # A child is complete only if its parent is: orders of shop 2 may be missing because the shop was.
    assert query("select count(*) from orders where shop = 2") == [(2,)]


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_a_child_that_broke_off_leaves_its_parents_alone(db, publish):
    more, query = db
    assert run(source(), destination(**more, publish=publish)).outcome == "complete"

    run(source(spec={"shops": [1], "orders": [10], "fail": ["orders"]}), destination(**more, publish=publish))

    assert query("select id from shops") == [(1,)]
    assert query("select id from orders order by id") == [(110,), (120,), (210,), (220,)]


def test_skipped_rows_keep_stale_ones_and_are_no_error(db):
    more, query = db
    run(source(tables=["shops"]), destination(**more))

    result = run(source(tables=["shops"], spec={"shops": [5], "skip": ["shops"]}), destination(**more))

    assert query("select id from shops order by id") == [(1,), (2,), (5,)]
    [row] = result.tables
    assert (row.rows_rejected, row.complete) == (1, False)
    assert exit_code(result.outcome, "table-error") == 0


def test_ids_that_children_refer_to_stay_from_sync_to_sync(db):
    more, query = db
    run(source(), destination(**more))
    first = query("select id, _cq_id from shops order by id")
    run(source(), destination(**more))

    assert query("select id, _cq_id from shops order by id") == first
    orphans = "select count(*) from orders where _cq_parent_id not in (select _cq_id from shops)"
    assert query(orphans) == [(0,)]


def test_random_ids_where_they_are_asked_for(db):
    more, query = db
    run(source(deterministic_cq_id=False), destination(**more))
    first = query("select id, _cq_id from shops order by id")
    run(source(deterministic_cq_id=False), destination(**more))

    assert query("select id, _cq_id from shops order by id") != first


def test_one_destination_that_fails_does_not_take_the_other_down(db, tmp_path):
    more, query = db
    lost = destination("lost", f"{HERE}:Recorder", spec={"lose_after": 0, "refuse": ["shops"]}, publish="stream")

    result = run(source(tables=["shops"], destinations=["db", "lost"]), destination(**more), lost)

    assert query("select id from shops order by id") == [(1,), (2,)]
    rows = {row.destination: row for row in result.tables}
    assert rows["db"].complete
    assert "shops is refused" in rows["lost"].errors[0].message
    assert result.outcome == "partial"


def test_a_destination_that_is_gone_fails_and_the_other_is_finished(db):
    more, query = db
    gone = destination("gone", "duckdb", spec={"connection_string": "/no/such/folder/x.duckdb"})

    result = run(source(tables=["shops"], destinations=["db", "gone"]), destination(**more), gone)

    assert result.outcome == "failed"
    assert query("select count(*) from shops") == [(2,)]
    assert "does not exist" in next(d for d in result.destinations if d.name == "gone").error


def test_one_source_that_fails_does_not_take_the_other_down(db):
    more, query = db
    dead = source("dead", tables=["shops"], spec={"dead": True})

    result = run(source("alive", tables=["shops"]), dead, destination(**more))

    assert query("select distinct _cq_source_name from shops") == [("alive",)]
    outcomes = {part.name: part.outcome for part in result.sources}
    assert outcomes == {"alive": "complete", "dead": "failed"}
    assert "the shop cannot be reached; pay the bill" in next(p for p in result.sources if p.name == "dead").error
    assert exit_code(result.outcome, "table-error") == 1


def test_every_destination_of_a_source_is_cleaned(db, tmp_path):
    more, query = db
    second = {"spec": {"connection_string": str(tmp_path / "two.duckdb")}}
    both = [destination(**more), destination("two", **second)]
    run(source(tables=["shops"], destinations=["db", "two"]), *both)
    run(source(tables=["shops"], destinations=["db", "two"], spec={"shops": [2]}), *both)

    with duckdb.connect(str(tmp_path / "two.duckdb")) as connection:
        assert connection.execute("select id from shops").fetchall() == query("select id from shops") == [(2,)]


def test_cursors_are_saved_and_given_back(db):
    more, query = db
    plugins.seen.clear()
    options = {"backend_options": {"table_name": "state", "connection": "@@plugins.db.connection"}}
    for _ in range(3):
        assert run(source(tables=["events"], **options), destination(**more)).outcome == "complete"

    assert plugins.seen == [None, 2, 5]
    assert query('select count(*), max("at") from events') == [(9, 8)]


def test_a_cursor_is_not_saved_when_its_rows_are_not_in(db):
    more = db[0]
    plugins.seen.clear()
    options = {"backend_options": {"table_name": "state", "connection": "@@plugins.db.connection"}}
    refusing = destination("other", f"{HERE}:Recorder", spec={"refuse": ["events"]}, publish="stream")
    run(source(tables=["events"], destinations=["db", "other"], **options), destination(**more), refusing)
    run(source(tables=["events"], **options), destination(**more))

    assert plugins.seen == [None, None]


def test_transformers_change_what_arrives(db):
    more, query = db
    documents = [source(tables=["shops"]), transformer("doubler", f"{HERE}:Doubler"),
                 destination(**more, transformers=["doubler"])]  # fmt: skip
    assert run(*documents).outcome == "complete"

    assert query("select id, twice from shops_out order by id") == [(1, 2), (2, 4)]


def test_sync_group_id_makes_a_history(db):
    more, query = db
    day = {"write_mode": "overwrite", "sync_group_id": "{{SYNC_ID}}"}
    run(source(tables=["shops"]), destination(**more, **day), invocation_id="one")
    run(source(tables=["shops"]), destination(**more, **day), invocation_id="two")

    assert query("select _cq_sync_group_id, count(*) from shops group by all order by all") == [("one", 2), ("two", 2)]


def test_pk_mode_moves_the_key(db):
    more, query = db
    run(source(tables=["shops"], deterministic_cq_id=True), destination(**more, pk_mode="cq-id-only"))

    assert query("select name from pragma_table_info('shops') where pk") == [("_cq_id",)]


def test_summary_row(db):
    more, query = db
    run(source(tables=["shops"]), destination(**more, send_sync_summary=True), invocation_id="run 1")

    [(name, rows, errors)] = query(
        "select source_name, resources, source_errors from cloudquery_sync_summaries where sync_id is not null"
    )
    assert (name, rows, errors) == ("shop", 2, 0)


def test_on_error_stop_ends_the_sync(db):
    more, _ = db
    result = run(source(spec={"fail": ["shops"]}, on_error="stop"), destination(**more))

    assert result.sources[0].outcome == "failed"


def test_shards_share_the_work_and_their_names_tell_them_apart(db):
    more, query = db
    documents = [source(tables=["test_wide_table_*"], path="test", spec={"tables": 6, "num_rows": 2}),
                 destination(**more)]  # fmt: skip
    for number in (1, 2):
        assert run(*documents, shard=(number, 2)).outcome == "complete"

    names = query("select distinct _cq_source_name from test_wide_table_0")
    found = query("select table_name from duckdb_tables() where table_name like 'test_wide%'")
    assert len(found) == 6
    assert names[0][0] in ("shop_1_2", "shop_2_2")


def test_client_id_column_is_added(db):
    more, query = db
    spec = {"num_clients": 2, "num_rows": 1}
    run(source(tables=["test_paid_table"], path="test", spec=spec, client_id_column=True), destination(**more))

    assert query("select distinct _cq_client_id from test_paid_table order by 1") == [("client_0",), ("client_1",)]


def test_memory_of_waiting_rows_is_bounded(db):
    Recorder.made.clear()
    spec = {"tables": 4, "num_rows": 20_000, "columns": 20}
    slow = destination(path=f"{HERE}:Recorder", spec={"take_s": 0.001}, publish="stream")
    plan = make_plan(load_documents([source(tables=["test_wide_table_*"], path="test", spec=spec), slow]))
    sync = Sync(plan, Options(buffer_bytes=1 << 20))
    highest = []
    budget = sync._budget
    take = budget.take

    def watched(size_bytes):
        take(size_bytes)
        highest.append(budget.used_bytes)

    budget.take = watched  # type: ignore[method-assign]

    assert sync.run().outcome == "complete"
    assert max(highest) <= 1 << 20
    assert sum(rows for kind, _, rows in Recorder.made[-1].calls if kind == "write") == 80_000


def test_a_name_that_two_tables_have_fails_the_source(db):
    result = run(source(tables=["*"], path=f"{HERE}:colliding"), destination(**db[0]))

    assert "duplicate table same" in result.sources[0].error


def test_a_plan_refuses_what_a_destination_cannot_do(tmp_path):
    spec = {"path": str(tmp_path / "{{UUID}}.csv"), "format": "csv"}
    documents = [source(), destination(path="file", write_mode="overwrite", spec=spec)]
    with pytest.raises(SpecError) as refused:
        make_plan(load_documents(documents))

    assert "`file` cannot `overwrite`" in str(refused.value)


@pytest.mark.parametrize(
    ("outcome", "fail_on", "code"),
    [
        ("complete", "table-error", 0),
        ("partial", "table-error", 2),
        ("partial", "error", 0),
        ("failed", "error", 1),
        ("failed", "never", 0),
        ("interrupted", "table-error", 130),
    ],
)
def test_exit_codes(outcome, fail_on, code):
    assert exit_code(outcome, fail_on) == code
