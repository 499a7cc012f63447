"""Every option of a source's config, by what it changes in a real database."""

from __future__ import annotations

import pytest

from catchment.errors import SpecError
from tests.e2e.documents import HERE, destination, messages, plan, run, source
from tests.e2e.plugins import cursors

STATE = {"table_name": "state", "connection": "@@plugins.db.connection"}


# tables, skip_tables, skip_dependent_tables


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"tables": ["*"]}, ["events", "orders", "shops"]),
        ({"tables": ["shops"]}, ["shops"]),
        ({"tables": ["shops"], "skip_dependent_tables": False}, ["orders", "shops"]),
        ({"tables": ["orders"]}, ["orders", "shops"]),
        ({"tables": ["*e*s"]}, ["events", "orders", "shops"]),
        ({"tables": ["ev*", "shops"]}, ["events", "shops"]),
        ({"tables": ["*"], "skip_tables": ["orders"]}, ["events", "shops"]),
        ({"tables": ["*"], "skip_tables": ["shops"]}, ["events"]),
        ({"tables": ["*"], "skip_tables": ["*s"], "skip_dependent_tables": False}, []),
    ],
)
def test_which_tables_are_made_and_filled(store, selection, expected):
    result = run(source(**selection), store.document())

    assert store.tables() == expected
    assert result.outcome == ("complete" if expected else "failed")
    for table in expected:
        assert store.query(f"select count(*) > 0 from {table}") in ([(True,)], [(1,)])


@pytest.mark.parametrize("key", ["tables", "skip_tables"])
def test_a_pattern_that_matches_nothing_is_an_error(store, key):
    result = run(source(**{"tables": ["*"], key: ["shosp"]}), store.document())

    assert result.outcome == "failed"
    assert f"{key} include a pattern shosp with no matches; did you mean `shops`?" in result.sources[0].error
    assert store.tables() == []


# destinations


def test_a_source_writes_to_the_destinations_that_it_names(store, duck):
    first, second = source("one", destinations=["db"]), source("two", tables=["events"], destinations=["duck", "db"])
    run(first, second, store.document(), duck.document("duck"))

    assert store.tables() == ["events", "orders", "shops"]
    assert duck.tables() == ["events"]


def test_a_destination_that_no_source_names_is_not_opened(duck, tmp_path):
    unused = destination("unused", spec={"connection_string": str(tmp_path / "unused.duckdb")}, send_sync_summary=True)
    result = run(source(), duck.document(), unused)

    assert result.outcome == "complete"
    assert [part.name for part in result.destinations] == ["db"]
    assert not (tmp_path / "unused.duckdb").exists()


def test_a_destination_that_no_source_names_is_checked_all_the_same(duck):
    with pytest.raises(SpecError, match="connection_string"):
        run(source(), duck.document(), destination("unused", spec={"connection_strnig": "x"}))


# deterministic_cq_id


@pytest.mark.parametrize(
    ("value", "stay"),
    [(True, {"shops", "orders", "events"}), (False, set()), (None, {"shops"})],
)
def test_deterministic_cq_id(store, value, stay):
    more = {} if value is None else {"deterministic_cq_id": value}
    tables = ("shops", "orders", "events")

    def ids():
        assert run(source(tables=["*"], **more), store.document()).outcome == "complete"
        return {table: {str(found) for (found,) in store.query(f"select _cq_id from {table}")} for table in tables}

    first, second = ids(), ids()

    for table in tables:
        assert (first[table] == second[table]) == (table in stay)
        assert first[table] == second[table] or first[table].isdisjoint(second[table])
    assert store.query("select count(*) from orders where _cq_parent_id not in (select _cq_id from shops)") == [(0,)]


# backend_options


def feed(**more):
    return source("feed", f"{HERE}:feed", ["messages"], backend_options=STATE, **more)


def test_cursors_are_kept_in_the_table_that_is_named(store):
    cursors.clear()
    assert run(feed(), store.document()).outcome == "complete"
    assert run(feed(spec={"numbers": [3, 4]}), store.document()).outcome == "complete"

    assert cursors == [None, 3]
    assert store.tables() == ["messages", "state"]
    assert store.query("select key, value, version from state") in (
        [("feed/messages", "4", 2)], [("feed/messages", "4", "2")])  # fmt: skip
    assert store.query("select number from messages order by number") == [(1,), (2,), (3,), (4,)]


def test_cursors_are_kept_in_a_destination_that_the_source_does_not_write_to(store, duck):
    cursors.clear()
    for _ in range(2):
        result = run(feed(destinations=["duck"]), store.document(), duck.document("duck"))
        assert result.outcome == "complete"

    assert cursors == [None, 3]
    assert store.tables() == ["state"]
    assert duck.tables() == ["messages"]


def test_sources_that_share_a_state_table_do_not_skip_each_others_rows(store):
    cursors.clear()
    one = source("one", f"{HERE}:feed", ["messages"], backend_options=STATE, spec={"numbers": [7]})
    two = source("two", f"{HERE}:feed", ["messages"], backend_options=STATE, spec={"numbers": [5]})
    run(one, store.document(), sources_in_parallel=1)
    run(one, two, store.document(), sources_in_parallel=1)

    assert cursors == [None, 7, None]
    assert store.query("select _cq_source_name, number from messages order by 1") == [("one", 7), ("two", 5)]


def test_a_destination_with_a_dot_in_its_name_can_keep_cursors(duck):
    # Upstream has no way to address such a name.
    cursors.clear()
    options = {"table_name": "state", "connection": "@@plugins.my.db.connection"}
    for _ in range(2):
        reading = source("feed", f"{HERE}:feed", ["messages"], ["my.db"], backend_options=options)
        run(reading, duck.document("my.db"))

    assert cursors == [None, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table_name": "s", "connection": "@@plugins.bd.connection"},
         "spec.backend_options.connection: source \"feed\": destination `bd` is not in the config; there are `db`"),
        ({"table_name": "s", "connection": "localhost:7777"},
         "only a destination of this config can keep cursors, got 'localhost:7777'; "
         "write `@@plugins.NAME.connection` with the name of a destination"),
        ({"table_name": "", "connection": "@@plugins.db.connection"},
         "spec.backend_options.table_name: source \"feed\": table_name is required, as there is `connection`"),
    ],
)  # fmt: skip
def test_backend_options_that_cannot_work_are_refused(duck, options, message):
    with pytest.raises(SpecError) as refused:
        plan(source("feed", f"{HERE}:feed", ["messages"], backend_options=options), duck.document())

    assert message in str(refused.value)


def test_a_destination_that_cannot_be_read_keeps_no_cursors():
    with pytest.raises(SpecError, match="destination `db` cannot be read, so it cannot keep cursors"):
        plan(feed(), destination(path="test"))


def test_rows_before_the_cursor_are_stale_only_without_a_backend(store):
    tables = {"tables": ["messages", "replies"]}
    with_backend = source("feed", f"{HERE}:feed", backend_options=STATE, spec={"numbers": [1, 2]}, **tables)
    run(with_backend, store.document())
    later = source("feed", f"{HERE}:feed", backend_options=STATE, spec={"numbers": [2, 3]}, **tables)
    run(later, store.document())
    assert store.query("select number from messages order by 1") == [(1,), (2,), (3,)]
    # A child goes with its parent.
    assert store.query('select "to" from replies order by 1') == [(1,), (2,), (3,)]

    run(source("feed", f"{HERE}:feed", spec={"numbers": [2, 3]}, **tables), store.document())

    assert store.query("select number from messages order by 1") == [(2,), (3,)]
    assert store.query('select "to" from replies order by 1') == [(2,), (3,)]


def test_a_cursor_waits_for_the_children_of_its_rows(store):
    cursors.clear()
    tables = {"tables": ["messages", "replies"], "backend_options": STATE}
    failing = run(source("feed", f"{HERE}:feed", spec={"fail_replies": True}, **tables), store.document())
    assert failing.outcome == "partial"

    run(source("feed", f"{HERE}:feed", **tables), store.document())

    assert cursors == [None, None]
    assert store.query('select "to" from replies order by 1') == [(1,), (2,), (3,)]


# on_error


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_on_error_continue_goes_on_with_the_other_tables(duck, publish):
    result = run(source(tables=["*"], spec={"fail": ["shops"]}), duck.document(publish=publish))

    assert result.outcome == "partial"
    assert duck.query("select count(*) from events") == [(3,)]


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_on_error_stop_leaves_what_was_there(duck, publish):
    run(source(tables=["shops"], spec={"shops": [1, 2]}), duck.document(publish=publish))

    stopping = source(tables=["shops"], spec={"shops": [3], "fail": ["shops"]}, on_error="stop")
    result = run(stopping, duck.document(publish=publish))

    assert result.outcome == "failed"
    assert "table `shops` failed and `on_error: stop` is set: shops broke off" in result.sources[0].error
    found = duck.query("select id from shops order by id")
    assert found[:2] == [(1,), (2,)]
    assert publish == "stream" or len(found) == 2


# client_id_column


def regions(fail=(), fail_disks=(), client_id_column=True, **machines):
    spec = {"regions": machines, "fail": list(fail), "fail_disks": list(fail_disks)}
    return source("cloud", f"{HERE}:regions", ["*"], spec=spec, client_id_column=client_id_column)


def test_client_id_column_tells_where_a_row_comes_from(store):
    assert run(regions(east=[1, 2], west=[3]), store.document()).outcome == "complete"

    expected = [("east", 1), ("east", 2), ("west", 3)]
    assert store.query("select _cq_client_id, id from machines order by id") == expected
    assert store.query("select _cq_client_id, machine from disks order by machine") == expected


def test_there_is_no_client_id_column_unless_it_is_asked_for(store):
    run(regions(east=[1], client_id_column=False), store.document())

    assert store.query("select id from machines") == [(1,)]
    with pytest.raises(Exception, match="_cq_client_id"):
        store.query("select _cq_client_id from machines")


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_client_id_column_can_be_switched_on_and_off_for_tables_that_have_rows(store, publish):
    for wanted in (False, True, False):
        result = run(regions(east=[1, 2], client_id_column=wanted), store.document(publish=publish))
        assert result.outcome == "complete", messages(result)
        if wanted:
            assert store.query("select distinct _cq_client_id from machines") == [("east",)]

    assert store.query("select id from machines order by id") == [(1,), (2,)]


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_stale_rows_go_by_client_when_one_of_them_broke_off(store, publish):
    more = {} if store.plugin == "sqlite" else {"publish": publish}
    run(regions(east=[1, 2], west=[3, 4], north=[5]), store.document(**more))

    result = run(regions(fail=["west"], east=[1], west=[3]), store.document(**more))

    assert result.outcome == "partial"
    assert messages(result) == "region west broke off"
    # What was seen of the east is the east; of the west nothing is known, and the north was not asked for.
    assert store.query("select id from machines order by id") == [(1,), (3,), (4,), (5,)]
    assert store.query("select machine from disks order by machine") == [(1,), (3,), (4,), (5,)]
    rows = {row.table: row for row in result.tables}
    assert rows["machines"].rows_stale_deleted == rows["disks"].rows_stale_deleted == 1
    assert "region west broke off; only those of `east` are deleted" in rows["machines"].stale_kept_reason


def test_stale_rows_of_a_child_go_by_client_too(store):
    run(regions(east=[1, 2], west=[3, 4]), store.document())

    run(regions(fail_disks=["west"], east=[1], west=[3]), store.document())

    assert store.query("select id from machines order by id") == [(1,), (3,)]
    assert store.query("select machine from disks order by machine") == [(1,), (3,), (4,)]


def test_a_complete_table_is_cleaned_of_clients_that_are_gone(store):
    run(regions(east=[1], west=[3]), store.document())
    run(regions(east=[1]), store.document())

    assert store.query("select id from machines") == [(1,)]


def test_without_the_column_every_stale_row_of_a_table_that_broke_off_stays(store):
    run(regions(east=[1, 2], west=[3, 4], client_id_column=False), store.document())
    run(regions(fail=["west"], east=[1], west=[3], client_id_column=False), store.document())

    assert store.query("select id from machines order by id") == [(1,), (2,), (3,), (4,)]
