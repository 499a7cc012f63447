"""Every option of a destination's config, by what it changes in a real database or in the batches it receives."""

from __future__ import annotations

import logging
import re
import threading
from datetime import UTC, datetime

import pytest

from catchment.engine import registry
from catchment.engine.sync import Sync
from catchment.errors import SpecError
from tests.e2e.conftest import at_file
from tests.e2e.documents import HERE, destination, made, messages, plan, run, source, transformer
from tests.e2e.plugins import Batches, Pause, until

OVERWRITING = ["overwrite", "overwrite-delete-stale"]


def people(*rows, columns=None, primary_key=("id",)):
    return made(
        people={
            "columns": columns or {"id": "int64", "name": "utf8"},
            "primary_key": list(primary_key),
            "rows": [list(row) for row in rows],
        }
    )


# write_mode


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("append", [(1, "Ann"), (1, "Anna"), (2, "Bo"), (3, "Cy")]),
        ("overwrite", [(1, "Anna"), (2, "Bo"), (3, "Cy")]),
        ("overwrite-delete-stale", [(1, "Anna"), (3, "Cy")]),
    ],
)
def test_write_mode(store, mode, expected):
    assert run(people((1, "Ann"), (2, "Bo")), store.document(write_mode=mode)).outcome == "complete"
    assert run(people((1, "Anna"), (3, "Cy")), store.document(write_mode=mode)).outcome == "complete"

    assert store.query("select id, name from people order by id, name") == expected
    assert store.primary_key("people") == (set() if mode == "append" else {"id"})


def test_write_mode_is_overwrite_delete_stale_by_default(store):
    run(people((1, "Ann"), (2, "Bo")), store.document())
    result = run(people((1, "Anna")), store.document())

    assert store.query("select id, name from people") == [(1, "Anna")]
    assert result.tables[0].rows_stale_deleted == 1


def test_append_takes_rows_of_equal_keys(store):
    assert run(people((1, "Ann"), (1, "Ann")), store.document(write_mode="append")).outcome == "complete"

    assert store.query("select count(*) from people") == [(2,)]


# migrate_mode

KEYED = {"id": "int64", "name": "utf8"}
CHANGES = {
    "add_column": (KEYED, {**KEYED, "age": "int64"}, ("id",)),
    "add_column_not_null": (KEYED, {**KEYED, "age": "int64!"}, ("id",)),
    "remove_column": ({**KEYED, "age": "int64"}, KEYED, ("id",)),
    "remove_column_not_null": ({**KEYED, "age": "int64!"}, KEYED, ("id",)),
    "change_type": ({**KEYED, "age": "int64"}, {**KEYED, "age": "utf8"}, ("id",)),
    "change_not_null": ({**KEYED, "age": "int64"}, {**KEYED, "age": "int64!"}, ("id",)),
    "change_primary_key": (KEYED, KEYED, ("id", "name")),
}
AGES = {"int64": 7, "int64!": 7, "utf8": "seven"}


def before_and_after(change):
    """The config before a change of the table, and the one after it: one row each."""
    before, after, keys = CHANGES[change]
    rows = [[number, text, *([AGES[columns["age"]]] if "age" in columns else [])]
            for number, text, columns in ((1, "Ann", before), (2, "Bo", after))]  # fmt: skip
    return people(rows[0], columns=before), people(rows[1], columns=after, primary_key=keys)


@pytest.mark.parametrize("mode", OVERWRITING)
@pytest.mark.parametrize("change", CHANGES)
def test_migrate_mode_safe_makes_a_safe_change_and_refuses_any_other(store, change, mode):
    before, after = before_and_after(change)
    run(before, store.document(write_mode=mode))
    was = store.query("select * from people")
    safe = change in registry.make_destination("python", store.plugin).capabilities.safe_changes

    result = run(after, store.document(write_mode=mode))

    assert result.outcome == ("complete" if safe else "partial")
    if safe:
        assert (2, "Bo") in store.query("select id, name from people")
        assert ((1, "Ann") in store.query("select id, name from people")) == (mode == "overwrite")
    else:
        assert store.query("select * from people") == was
        assert "`migrate_mode: forced`" in messages(result)


@pytest.mark.parametrize("mode", OVERWRITING)
@pytest.mark.parametrize("change", CHANGES)
def test_migrate_mode_forced_makes_every_change(store, change, mode):
    before, after = before_and_after(change)
    run(before, store.document(write_mode=mode))

    assert run(after, store.document(write_mode=mode, migrate_mode="forced")).outcome == "complete"
    assert (2, "Bo") in store.query("select id, name from people")
    assert store.primary_key("people") == set(CHANGES[change][2])


@pytest.mark.parametrize(
    ("columns", "row"), [({"id": "utf8"}, ["7"]), ({"id": "int64", "age": "int64!"}, [7, 1])], ids=["key", "not null"]
)
@pytest.mark.parametrize("mode", OVERWRITING)
def test_a_table_that_is_made_anew_keeps_no_rows_of_other_sources(store, mode, columns, row):
    other = made(people={"columns": {"id": "int64"}, "primary_key": ["id"], "rows": [[1]]})
    other["spec"]["name"] = "other"
    run(other, store.document(write_mode=mode))
    changed = made(people={"columns": columns, "primary_key": ["id"], "rows": [row]})

    result = run(changed, store.document(write_mode=mode, migrate_mode="forced"))

    assert result.outcome == "complete", messages(result)
    # Where a changed type is no reason to make the table anew, the other's row is in it, with a key of the new type.
    able = registry.make_destination("python", store.plugin).capabilities
    kept = [("1",)] if "change_type" in able.kept_when_forced and "age" not in columns else []
    assert store.query("select id from people order by id") == [*kept, (row[0],)]


def test_a_removed_column_stays_and_is_null_in_new_rows(store):
    before, after = before_and_after("remove_column")
    run(before, store.document(write_mode="overwrite"))
    run(after, store.document(write_mode="overwrite"))

    assert store.query("select id, age from people order by id") == [(1, 7), (2, None)]


def test_forced_is_refused_before_anything_starts_where_the_destination_cannot(tmp_path):
    spec = {"path": str(tmp_path / "out"), "format": "csv", "no_rotate": True}
    files = destination("files", "file", write_mode="append", migrate_mode="forced", spec=spec)

    with pytest.raises(SpecError, match="`file` cannot force a migration; write `safe`"):
        run(source(destinations=["files"]), files)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["append", *OVERWRITING])
def test_the_error_of_a_row_that_cannot_be_written_names_its_column(store, mode):
    people = made(people={"columns": {"id": "int64", "name": "utf8!"}, "primary_key": ["id"], "rows": [[1, None]]})

    result = run(people, store.document(write_mode=mode))

    assert result.outcome == "partial"
    assert "null" in messages(result).lower()
    assert "name" in messages(result)


# from append to the overwriting modes, and back


@pytest.mark.parametrize("mode", OVERWRITING)
def test_a_table_of_append_is_not_overwritten_in_safe_mode(store, mode):
    run(people((1, "Ann")), store.document(write_mode="append"))

    result = run(people((2, "Bo")), store.document(write_mode=mode))

    assert result.outcome == "partial"
    assert (
        "table `people` cannot be migrated in `migrate_mode: safe`: it has no primary key, as `write_mode: append` "
        "makes it, and this write mode needs (`id`); run with `migrate_mode: forced` (it may drop the table's rows), "
        "go back to `write_mode: append`, or rename the table so that a new one is made"
    ) in messages(result)
    assert store.query("select id from people") == [(1,)]


@pytest.mark.parametrize("mode", OVERWRITING)
def test_an_overwritten_table_is_not_appended_to_in_safe_mode(store, mode):
    run(people((1, "Ann")), store.document(write_mode=mode))

    result = run(people((2, "Bo")), store.document(write_mode="append"))

    assert result.outcome == "partial"
    assert (
        "it has the primary key (`id`) of `write_mode: overwrite` or `overwrite-delete-stale`, and "
        "`write_mode: append` needs it to have none; run with `migrate_mode: forced`"
    ) in messages(result)
    assert store.query("select id from people") == [(1,)]


@pytest.mark.parametrize(("first", "second"), [("append", mode) for mode in OVERWRITING]
                         + [(mode, "append") for mode in OVERWRITING])  # fmt: skip
def test_forced_changes_the_table_for_another_write_mode(store, first, second):
    run(people((1, "Ann"), (1, "Ann")), store.document(write_mode=first))

    result = run(people((2, "Bo"), (2, "Bo")), store.document(write_mode=second, migrate_mode="forced"))

    assert result.outcome == "complete"
    # Rows of an append may be twice in the key that they get; without a key there is nothing that they do not fit.
    able = registry.make_destination("python", store.plugin).capabilities
    kept = [(1,)] if second == "append" and "change_primary_key" in able.kept_when_forced else []
    assert store.query("select id from people order by id") == kept + [(2,)] * (2 if second == "append" else 1)
    assert store.primary_key("people") == (set() if second == "append" else {"id"})


# pk_mode


@pytest.mark.parametrize("mode", OVERWRITING)
def test_pk_mode_cq_id_only(store, mode):
    shop = source(deterministic_cq_id=True)
    for _ in range(2):
        assert run(shop, store.document(write_mode=mode, pk_mode="cq-id-only")).outcome == "complete"

    assert store.primary_key("shops") == store.primary_key("orders") == {"_cq_id"}
    assert store.query("select id from shops order by id") == [(1,), (2,)]
    assert store.query("select count(*), count(distinct _cq_id) from orders") == [(4, 4)]


def test_pk_mode_cq_id_only_with_random_ids_piles_rows_up_and_says_so(store, caplog):
    shop = source(deterministic_cq_id=False)
    keyed = store.document(write_mode="overwrite", pk_mode="cq-id-only")
    with caplog.at_level(logging.WARNING, "catchment"):
        for _ in range(2):
            run(shop, keyed)

    assert store.query("select count(*) from shops") == [(4,)]
    assert "`pk_mode: cq-id-only`, but source `shop` gives rows a new `_cq_id` in every sync" in caplog.text
    assert "set `deterministic_cq_id: true` in source `shop`" in caplog.text


@pytest.mark.parametrize("more", [{"pk_mode": "cq-id-only", "write_mode": "append"}, {"write_mode": "overwrite"}])
def test_no_word_about_ids_where_they_are_no_key(more):
    assert plan(source(), destination(path="test", **more)).warnings == ()


def test_pk_mode_of_an_existing_table(store):
    shop = source(tables=["shops"], deterministic_cq_id=True)
    run(shop, store.document(write_mode="overwrite"))
    was = store.query("select id, _cq_id from shops order by id")

    result = run(shop, store.document(write_mode="overwrite", pk_mode="cq-id-only"))

    safe = "move_pk_to_cq_id" in registry.make_destination("python", store.plugin).capabilities.safe_changes
    assert result.outcome == ("complete" if safe else "partial")
    assert store.primary_key("shops") == ({"_cq_id"} if safe else {"id"})
    assert store.query("select id, _cq_id from shops order by id") == was
    forced = store.document(write_mode="overwrite", pk_mode="cq-id-only", migrate_mode="forced")
    assert run(shop, forced).outcome == "complete"
    assert store.primary_key("shops") == {"_cq_id"}


# sync_group_id

ALL_PLACEHOLDERS = "{{SYNC_ID}}/{{YEAR}}-{{MONTH}}-{{DAY}}T{{HOUR}}:{{MINUTE}}/{{OTHER}}"


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_sync_group_id_is_one_value_for_every_table_and_source_of_a_run(store, mode):
    group = store.document(write_mode=mode, sync_group_id=ALL_PLACEHOLDERS)
    before = datetime.now(UTC)
    result = run(source("one"), source("two", tables=["events"]), group, invocation_id="run-7")

    [(value,)] = store.query(
        "select _cq_sync_group_id from shops union select _cq_sync_group_id from orders "
        "union select _cq_sync_group_id from events"
    )
    started = result.started
    assert before <= started <= datetime.now(UTC)
    assert value == f"run-7/{started:%Y-%m-%d}T{started:%H:%M}/{{{{OTHER}}}}"


def test_two_groups_live_side_by_side(store):
    for day in ("monday", "tuesday", "tuesday"):
        group = store.document(write_mode="overwrite", sync_group_id=day)
        assert run(source(deterministic_cq_id=True), group).outcome == "complete"

    assert store.primary_key("shops") == {"_cq_sync_group_id", "id"}
    assert store.query("select _cq_sync_group_id, id from shops order by 1, 2") == [
        ("monday", 1), ("monday", 2), ("tuesday", 1), ("tuesday", 2)]  # fmt: skip
    assert store.query("select count(distinct _cq_id) from shops") == [(2,)]


def test_append_with_a_group_has_no_key(store):
    for _ in range(2):
        run(source(tables=["shops"]), store.document(write_mode="append", sync_group_id="g"))

    assert store.primary_key("shops") == set()
    assert store.query("select _cq_sync_group_id, count(*) from shops group by 1") == [("g", 4)]


def test_with_cq_id_only_the_group_is_no_key(store):
    keyed = store.document(write_mode="overwrite", sync_group_id="g", pk_mode="cq-id-only")
    assert run(source(tables=["shops"], deterministic_cq_id=True), keyed).outcome == "complete"

    assert store.primary_key("shops") == {"_cq_id"}


def test_sync_group_id_is_refused_with_overwrite_delete_stale(store):
    with pytest.raises(SpecError, match="sync_group_id is not supported with write_mode: overwrite-delete-stale"):
        run(source(), store.document(sync_group_id="g"))


# transformers


def test_transformers_run_in_the_order_of_the_destinations_list(store):
    first = transformer("first", f"{HERE}:Mark", text=" one")
    second = transformer("second", f"{HERE}:Mark", text=" two")

    run(source(tables=["shops"]), first, second, store.document(transformers=["second", "first"]))

    assert store.query("select name from shops order by id") == [("shop 1 two one",), ("shop 2 two one",)]


def test_two_destinations_share_a_transformer_and_a_third_has_none(store, duck, tmp_path):
    plain = at_file(str(tmp_path / "plain.duckdb"))
    mark = transformer("mark", f"{HERE}:Mark", text="!", rename=True)
    shop = source(tables=["shops"], destinations=["db", "duck", "plain"])
    result = run(shop, mark, store.document(transformers=["mark"]), duck.document("duck", transformers=["mark"]),
                 plain.document("plain"))  # fmt: skip

    assert result.outcome == "complete"
    query = 'select name from "shops!" order by id'
    assert store.query(query) == duck.query(query) == [("shop 1!",), ("shop 2!",)]
    assert plain.query("select name from shops order by id") == [("shop 1",), ("shop 2",)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Broken", "transformer `broken` failed on table `orders`: KeyError: 'no such column'"),
        ("Twice", "transformer `twice` failed on table `orders`: duplicate column `shop` in table `orders`"),
        ("Liar", "transformer `liar` gave rows of table `orders` that are not what it announced: expected"),
    ],
)
@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_a_transformer_with_a_mistake_fails_its_table_in_its_destination_alone(duck, tmp_path, name, message, publish):
    plain = at_file(str(tmp_path / "plain.duckdb"))
    documents = [source(destinations=["duck", "plain"]), transformer("it", f"{HERE}:{name}"), plain.document("plain")]
    run(source(destinations=["duck"]), duck.document("duck"))

    result = run(*documents, duck.document("duck", transformers=["it"], publish=publish))

    assert result.outcome == "partial"
    assert message in messages(result)
    failed = {row.table: row.errors[0].message for row in result.tables if row.errors}
    held = "not published: it is held back with its relation `orders`: writing table `orders` failed"
    assert failed.pop("shops", held) == held
    assert list(failed) == ["orders"]
    assert plain.query("select count(*) from orders") == [(4,)]
    # What was there is what is there.
    assert duck.query("select count(*) from orders") == [(4,)]


def test_a_transformer_that_fails_after_some_batches_publishes_nothing(store):
    run(source(tables=["shops"], spec={"shops": [7]}), store.document())
    failing = transformer("test", "test", fail_immediately=True)

    result = run(source(tables=["shops"]), failing, store.document(transformers=["test"]))

    assert "failing at the transformer stage according to spec requirements" in messages(result)
    assert store.query("select id from shops") == [(7,)]


# batch_size, batch_size_bytes, batch_timeout


def batches_of(rows, rows_per_batch, delay="0s", row_bytes=0, **limits):
    """Rows in each batch that a destination with these limits was given."""
    spec = {"tables": 1, "num_rows": rows, "rows_per_batch": rows_per_batch, "delay": delay, "columns": 1,
            "row_bytes": row_bytes}  # fmt: skip
    wide = source("test", "test", ["test_wide_table_0"], spec=spec)
    assert run(wide, destination(path=f"{HERE}:Batches", spec=limits)).outcome == "complete"
    return [count for kind, _, count in Batches.made[-1].calls if kind == "write"]


def test_batch_size_in_rows():
    assert batches_of(250, 30, batch_size=100) == [100, 100, 50]
    assert batches_of(250, 250, batch_size=100) == [100, 100, 50]


def test_batch_size_in_bytes():
    # A row is a key of 8 bytes, an id of 16, a text of 1,000, and what stamps it: about 1,060 bytes in memory.
    found = batches_of(100, 10, row_bytes=1000, batch_size_bytes=22_000)

    assert sum(found) == 100
    assert set(found[:-1]) <= {19, 20, 21}, found


def test_batch_timeout():
    found = batches_of(8, 1, delay="150ms", batch_timeout="400ms")

    assert sum(found) == 8
    assert 2 <= len(found) <= 5, found


def test_whichever_limit_comes_first_ends_a_batch():
    few = {"batch_size": 10, "batch_size_bytes": 100_000_000, "batch_timeout": "1h"}
    assert batches_of(25, 5, **few) == [10, 10, 5]
    small = {"batch_size": 100_000, "batch_size_bytes": 11_000, "batch_timeout": "1h"}
    assert set(batches_of(100, 100, row_bytes=1000, **small)[:-1]) <= {9, 10, 11}
    quick = {"batch_size": 100_000, "batch_size_bytes": 100_000_000, "batch_timeout": "200ms"}
    assert len(batches_of(6, 1, delay="150ms", **quick)) > 1


def test_without_limits_the_rows_come_at_once():
    assert batches_of(250, 30, batch_timeout="1h") == [250]


@pytest.mark.parametrize("limits", [{"batch_size": 7}, {"batch_size_bytes": 500}, {"batch_timeout": "1ms"}])
def test_limits_of_a_batch_lose_no_row(store, limits):
    wide = source("test", "test", ["test_wide_table_0"], spec={"tables": 1, "num_rows": 50, "rows_per_batch": 11})
    assert run(wide, store.document(spec=limits)).outcome == "complete"

    assert store.query("select count(*), min(id), max(id) from test_wide_table_0") == [(50, 0, 49)]


# publish


def test_publish_decides_when_rows_are_seen(postgresql_url, request):
    import psycopg

    def ids():
        with psycopg.connect(postgresql_url) as connection:
            return [number for (number,) in connection.execute("select id from steps order by id").fetchall()]

    def seen_on_the_way(**more):
        pause = Pause(request.node.name)
        spec = {"connection_string": postgresql_url, "batch_size": 2}
        stepping = source("paused", f"{HERE}:paused", ["steps"], spec={"pause": request.node.name})
        sync = Sync(plan(stepping, destination(path="postgresql", spec=spec, **more)))
        thread = threading.Thread(target=sync.run)
        thread.start()
        try:
            assert pause.reached.wait(30)
            if more:
                until(lambda: ids() == [1, 2, 9])
            return ids()
        finally:
            pause.over.set()
            thread.join()

    with psycopg.connect(postgresql_url) as connection:
        columns = "_cq_sync_time timestamp, _cq_source_name text, _cq_id uuid not null unique, _cq_parent_id uuid"
        connection.execute(f"create table steps ({columns}, id bigint primary key)")
        connection.execute("insert into steps values ('2020-01-01', 'paused', gen_random_uuid(), null, 9)")

    assert seen_on_the_way(publish="stream") == [1, 2, 9]
    assert ids() == [1, 2, 3, 4]
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("delete from steps where id < 4")
    assert seen_on_the_way() == [4]
    assert ids() == [1, 2, 3, 4]


@pytest.mark.parametrize("plugin", ["file", "test"])
def test_publish_atomic_is_refused_where_it_cannot_be(plugin, tmp_path):
    spec = {"file": {"path": f"{tmp_path}/{{{{UUID}}}}.csv", "format": "csv"}}
    mode = "append" if plugin == "file" else "overwrite-delete-stale"
    document = destination(path=plugin, spec=spec.get(plugin, {}), publish="atomic", write_mode=mode)

    with pytest.raises(SpecError, match=f"`{plugin}` cannot publish all tables at once; write `stream`, or leave it"):
        plan(source(), document)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_publish_atomic_is_refused_for_modes_that_add_to_what_is_there(duck, mode):
    wrong = re.escape(f"`publish: atomic` needs `write_mode: overwrite-delete-stale`, not `{mode}`")

    with pytest.raises(SpecError, match=wrong):
        plan(source(), duck.document(publish="atomic", write_mode=mode))
