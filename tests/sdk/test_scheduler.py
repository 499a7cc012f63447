"""Tables x clients x parents: what is read, in which order of messages, with which ids."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from catchment.errors import PluginError, ProtocolError, SpecError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import SyncRequest
from catchment.schema import internal, types
from catchment.schema.select import Selection
from catchment.schema.table import Column, Table
from catchment.sdk import Discovered
from tests.sdk.made import (
    EVERYTHING,
    Client,
    add,
    counted,
    done,
    errors,
    make_source,
    noting,
    of,
    regions,
    rows,
    run,
)


def test_every_migrate_message_comes_before_the_first_row():
    source = make_source()
    parent = add(source, "a", counted())
    add(source, "b", counted(), parent=parent)
    add(source, "c", counted())

    messages = run(source)

    assert [message.table.name for message in messages[:3]] == ["a", "b", "c"]
    assert len(of(messages, MigrateTable)) == 3
    assert messages[0].table.column_names == ("_cq_id", "_cq_parent_id", "id", "name")


def test_each_table_is_read_once_for_each_client():
    source = make_source()
    add(source, "a", counted(2), multiplex=regions("eu", "us", "ap"), primary_key=["name"])
    add(source, "b", counted(1))

    found = rows(messages := run(source))

    assert Counter(row["name"] for row in found["a"]) == Counter(["eu0", "eu1", "us0", "us1", "ap0", "ap1"])
    assert [row["name"] for row in found["b"]] == ["0"]
    assert done(messages) == {("a", "eu"), ("a", "us"), ("a", "ap"), ("b", "")}


def test_children_are_read_for_each_parent_row_four_levels_deep():
    source = make_source()
    parent = None
    for level in range(4):

        def read(ctx, level=level):
            path = [*ctx.parent.get("path", []), len(ctx.parent)]
            assert bool(ctx.parent) == (level > 0)
            return [{"id": number, "path": [*path[:-1], number]} for number in range(3)]

        schema = pa.schema([("id", pa.int64()), ("path", pa.list_(pa.int64()))])
        options = {"parent": parent} if parent else {"multiplex": regions("eu", "us")}
        parent = add(source, f"level_{level}", read, schema, primary_key=(), **options)

    messages = run(source)
    found = rows(messages)

    assert errors(messages) == []
    assert {name: len(table) for name, table in found.items()} == {f"level_{n}": 2 * 3 ** (n + 1) for n in range(4)}
    for level in range(1, 4):
        above = {row["_cq_id"]: row["path"] for row in found[f"level_{level - 1}"]}
        assert len(above) == 2 * 3**level
        assert all(row["path"][:-1] == above[row["_cq_parent_id"]] for row in found[f"level_{level}"])
    assert {row["_cq_parent_id"] for row in found["level_0"]} == {None}


def test_a_fifth_level_is_refused_with_its_name():
    source = make_source()
    parent = None
    for level in range(4):
        parent = add(source, f"level_{level}", counted(), **({"parent": parent} if parent else {}))

    with pytest.raises(ProtocolError, match=r"table `level_4`: max depth exceeded, max depth is 4"):
        add(source, "level_4", counted(), parent=parent)


def test_the_parent_row_has_values_as_an_author_writes_them():
    seen: list[Any] = []
    source = make_source()
    schema = pa.schema([("id", types.uuid()), ("owner", types.json()), ("at", pa.timestamp("ns", "UTC"))])
    ident = uuid.UUID(int=5)
    row = {"id": ident, "owner": {"login": "x"}, "at": pa.scalar(1, pa.timestamp("ns", "UTC"))}
    parent = add(source, "a", lambda ctx: [row], schema)
    add(source, "b", noting(seen), parent=parent)

    assert errors(run(source)) == []
    assert [ctx.parent for ctx in seen] == [row]


def test_many_parents_in_slices_of_a_batch_keep_their_own_ids():
    source = make_source()
    parent = add(source, "a", counted(1_201))
    add(source, "b", lambda ctx: [{"id": ctx.parent["id"]}], parent=parent)

    found = rows(run(source))

    ids = {row["id"]: row["_cq_id"] for row in found["a"]}
    assert len(found["b"]) == 1_201
    assert all(row["_cq_parent_id"] == ids[row["id"]] for row in found["b"])


def test_children_have_the_client_of_their_parent():
    source = make_source()
    parent = add(source, "a", counted(1), multiplex=regions("eu", "us"))
    add(source, "b", lambda ctx: [{"id": 1, "name": ctx.client.id}], parent=parent)

    messages = run(source, client_id_column=True)

    assert {(row["_cq_client_id"], row["name"]) for row in rows(messages, "b")} == {("eu", "eu"), ("us", "us")}


def test_the_client_column_is_only_there_when_asked_for():
    source = make_source()
    add(source, "a", counted(1), multiplex=regions("eu"))

    assert "_cq_client_id" not in rows(run(source), "a")[0]
    [message] = of(run(source, client_id_column=True), MigrateTable)
    assert message.table.column_names[0] == "_cq_client_id"
    # Rows of syncs without it are in the same table.
    assert not message.table.column("_cq_client_id").not_null


def test_only_selected_tables_are_read():
    read: list[Any] = []
    not_read: list[Any] = []
    source = make_source()
    parent = add(source, "a", noting(read))
    add(source, "a_b", noting(not_read), parent=parent)
    add(source, "c", noting(not_read))

    messages = run(source, selection=Selection(("a",), (), True))

    assert (len(read), len(not_read)) == (1, 0)
    assert [message.table.name for message in of(messages, MigrateTable)] == ["a"]


def test_discovered_tables_are_read_beside_declared_ones():
    source = make_source()
    add(source, "a", counted(1))
    table = Table("found", (Column("id", pa.int64(), primary_key=True),))
    below = Table("found_child", (Column("id", pa.int64()),), parent="found")

    @source.discover
    def find(client):
        assert client == Client()
        yield Discovered(table, lambda ctx: [{"id": 7}])
        yield Discovered(below, lambda ctx: [{"id": ctx.parent["id"] + 1}])

    found = rows(run(source))

    assert {name: [row["id"] for row in table] for name, table in found.items()} == {
        "a": [0], "found": [7], "found_child": [8],
    }  # fmt: skip


def test_discovered_tables_are_asked_for_once():
    calls = []
    source = make_source()

    @source.discover
    def find(client):
        calls.append(client)
        yield Discovered(Table("found", (Column("id", pa.int64()),)), lambda ctx: [])

    host = source.as_plugin()
    host.init({})
    host.tables(EVERYTHING)
    list(host.sync(SyncRequest(EVERYTHING)))

    assert len(calls) == 1


def test_two_tables_of_one_name_are_refused():
    source = make_source()
    add(source, "a", counted())

    with pytest.raises(ProtocolError, match="duplicate table a"):
        add(source, "a", counted())


def test_a_discovered_table_with_a_declared_name_is_refused():
    source = make_source()
    add(source, "a", counted())
    source.discover(lambda client: [Discovered(Table("a", (Column("id", pa.int64()),)), lambda ctx: [])])

    with pytest.raises(ProtocolError, match="duplicate table a"):
        run(source)


def test_no_table_left_is_an_error_with_what_to_look_at():
    source = make_source()
    add(source, "a", counted())

    with pytest.raises(PluginError, match="no tables are left to sync; check `tables` and `skip_tables`"):
        run(source, selection=Selection(("*",), ("a",), True))


def test_a_pattern_without_a_table_is_an_error():
    source = make_source()
    add(source, "github_issues", counted())

    with pytest.raises(SpecError, match="github_isues"):
        run(source, selection=Selection(("github_isues",), (), True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"primary_key": ["nope"]}, "key column `nope` is missing, there are id, name"),
        ({"incremental": "nope"}, "key column `nope` is missing"),
        (
            {"incremental": "flag", "schema": pa.schema([("id", pa.int64()), ("flag", pa.bool_())])},
            "incremental column `flag` is bool",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_is_written(options, message):
    with pytest.raises(PluginError, match=message):
        add(make_source(), "a", counted(), **options)


def test_children_cannot_be_multiplexed():
    source = make_source()
    parent = add(source, "a", counted())

    with pytest.raises(PluginError, match="drop `multiplex`"):
        add(source, "b", counted(), parent=parent, multiplex=regions("eu"))


def test_cursors_by_parent_need_parents_that_can_be_told_apart():
    source = make_source()
    parent = add(source, "a", counted(), primary_key=())

    with pytest.raises(PluginError, match="`a`, which has no primary key"):
        add(source, "b", counted(), parent=parent, incremental="id")


def test_a_source_that_was_not_initialised_says_so():
    source = make_source()
    add(source, "a", counted())

    with pytest.raises(PluginError, match="before `init`"):
        list(source.as_plugin().sync(SyncRequest(EVERYTHING)))


def test_the_client_is_closed_with_the_source():
    closed = []

    class Closing(Client):
        def close(self):
            closed.append(True)

    source = make_source(client=lambda spec: Closing())
    add(source, "a", counted())
    run(source)

    assert closed == [True]


def test_a_row_without_a_key_drops_itself_alone_and_is_counted():
    def read(ctx):
        for start in (0, 3):
            yield [{"id": start}, {"id": None, "name": "x"}, {"id": start + 1}]

    source = make_source()
    parent = add(source, "a", read)
    add(source, "b", lambda ctx: [{"id": ctx.parent["id"]}], parent=parent)

    messages = run(source)

    assert [row["id"] for row in rows(messages, "a")] == [0, 1, 3, 4]
    assert sorted(row["id"] for row in rows(messages, "b")) == [0, 1, 3, 4]
    assert errors(messages) == [("a", "", "2 rows have no value in the primary key (`id`) and are left out")]
    assert done(messages) == set()


def test_every_part_of_a_key_has_to_be_there():
    source = make_source()
    add(source, "a", lambda ctx: [{"id": 1}, {"name": "x"}, {"id": 1, "name": "x"}], primary_key=["id", "name"])

    messages = run(source)

    assert [(row["id"], row["name"]) for row in rows(messages, "a")] == [(1, "x")]
    assert errors(messages)[0][2].startswith("2 rows have no value in the primary key (`id`, `name`)")


def keyed_ids(source, table, **options):
    return {row["id"]: row["_cq_id"] for row in rows(run(source, **options), table)}


def family():
    source = make_source()
    parent = add(source, "keyed", counted())
    add(source, "child", counted(1), parent=parent)
    add(source, "alone", counted())
    keyless = add(source, "keyless", counted(), primary_key=())
    add(source, "keyless_child", counted(1), primary_key=(), parent=keyless)
    return source


@pytest.mark.parametrize(
    ("setting", "steady"), [(None, {"keyed"}), (True, {"keyed", "alone"}), (False, set())]
)  # fmt: skip
def test_ids_stay_the_same_where_it_is_documented(setting, steady):
    source = family()

    found = {
        name
        for name in ("keyed", "alone", "keyless")
        if keyed_ids(source, name, deterministic_cq_id=setting) == keyed_ids(source, name, deterministic_cq_id=setting)
    }

    assert found == steady
    expected = internal.deterministic_ids({"id": pa.array([0])}).storage[0].as_py()
    if steady:
        assert keyed_ids(source, "keyed", deterministic_cq_id=setting)[0] == expected


def test_ids_that_kept_children_refer_to_stay_when_the_children_are_not_selected():
    source = family()

    assert keyed_ids(source, "keyed") == keyed_ids(source, "keyed", selection=Selection(("keyed",), (), True))


def test_components_of_a_key_are_hashed_whatever_the_config_says():
    table = Table("a", (Column("id", pa.int64(), primary_key_component=True), Column("name", pa.utf8())))
    source = make_source()
    source.discover(lambda client: [Discovered(table, lambda ctx: [{"id": 1}, {"id": None}])])
    expected = internal.deterministic_ids({"id": pa.array([1, None])}).storage.to_pylist()

    for setting in (None, True, False):
        messages = run(source, deterministic_cq_id=setting)
        assert [row["_cq_id"] for row in rows(messages, "a")] == expected
        assert errors(messages) == []


def test_own_columns_of_a_source_are_replaced():
    schema = pa.schema(
        [
            ("_cq_id", types.uuid()),
            ("_cq_parent_id", types.uuid()),
            ("_cq_client_id", pa.utf8()),
            ("_cq_sync_time", pa.timestamp("us", "UTC")),
            ("_cq_source_name", pa.utf8()),
            ("id", pa.int64()),
        ]
    )
    old = uuid.UUID(int=1)
    row = {"_cq_id": old, "_cq_parent_id": old, "_cq_client_id": "old", "_cq_source_name": "old", "id": 5}
    source = make_source()
    arrow = pa.RecordBatch.from_arrays(
        [
            pa.ExtensionArray.from_storage(types.uuid(), pa.array([old.bytes], pa.binary(16))),
            pa.nulls(1, types.uuid()),
            pa.array(["old"]),
            pa.nulls(1, pa.timestamp("us", "UTC")),
            pa.array(["old"]),
            pa.array([6]),
        ],
        schema=schema,
    )
    add(source, "a", lambda ctx: [row, arrow, pa.Table.from_batches([arrow])], schema, primary_key=["_cq_id"])

    messages = run(source)

    [migrate] = of(messages, MigrateTable)
    assert migrate.table.column_names == ("_cq_id", "_cq_parent_id", "id")
    assert migrate.table.primary_keys == ("_cq_id",)
    found = rows(messages, "a")
    assert [row["id"] for row in found] == [5, 6, 6]
    assert old.bytes not in {row["_cq_id"] for row in found}
    assert {row["_cq_parent_id"] for row in found} == {None}


def test_arrow_may_be_returned_whole():
    source = make_source()
    add(source, "a", lambda ctx: pa.table({"id": [1, 2], "name": ["x", "y"]}))

    assert [row["id"] for row in rows(run(source), "a")] == [1, 2]


def test_empty_batches_are_not_sent():
    source = make_source()
    add(source, "a", lambda ctx: [[], pa.RecordBatch.from_pydict({"id": pa.array([], pa.int64())})])

    assert of(run(source), Insert) == []


def shard_source():
    source = make_source()
    add(source, "a", counted(1), multiplex=regions("1", "2", "3"))
    parent = add(source, "b", counted(1), multiplex=regions("1", "2"))
    add(source, "b_child", counted(1), parent=parent)
    return source


@pytest.mark.parametrize(
    ("total", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (4, [2, 2, 1, 0]), (5, [1] * 5), (9, [1] * 5 + [0] * 4)]
)  # fmt: skip
def test_shards_are_consecutive_parts_of_tables_and_clients(total, sizes):
    parts = []
    for number in range(1, total + 1):
        messages = run(shard_source(), shard=(number, total))
        assert {message.table.name for message in of(messages, MigrateTable)} == {"a", "b", "b_child"}
        found = done(messages)
        assert {client for table, client in found if table == "b_child"} == {c for t, c in found if t == "b"}
        parts.append([pair for pair in sorted(found) if pair[0] != "b_child"])

    assert [len(part) for part in parts] == sizes
    assert [pair for part in parts for pair in part] == [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "2")]


def test_few_rows_of_each_of_many_parents_leave_in_few_batches():
    source = make_source()
    parent = add(source, "parents", counted(3_000))
    add(source, "children", counted(2), parent=parent)

    messages = [message for message in of(run(source), Insert) if message.table.name == "children"]

    assert sum(message.batch.num_rows for message in messages) == 6_000
    assert len(messages) < 300
