"""SQL that destinations share, run in SQLite and DuckDB: hostile names, deletes with relations, migrations."""

from __future__ import annotations

import datetime
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.strategies  # noqa: F401  (sets the profile of hypothesis)
from catchment.errors import MigrationRefused, PluginError
from catchment.messages import DeleteRecord, Predicate, PredicateGroup, TableRelation
from catchment.plugin import Capabilities
from catchment.schema.table import Column, Table
from catchment.sdk import sql
from catchment.testing import data

_NAMES = {pa.int64(): "bigint", pa.utf8(): "varchar", pa.timestamp("us", "UTC"): "varchar"}
DIALECT = sql.Dialect(
    type_name=lambda kind: _NAMES.get(kind, "varchar"),
    arrow_type={"bigint": pa.int64(), "varchar": pa.utf8()}.__getitem__,
)


@pytest.fixture(params=["sqlite", "duckdb"])
def database(request):
    """A function that runs a statement in an empty database and gives the rows."""
    opened: Any = sqlite3.connect(":memory:") if request.param == "sqlite" else duckdb.connect(":memory:")
    with closing(opened):
        yield lambda statement, values=(): opened.execute(statement, values).fetchall()


def table(name, *columns, keys=()):
    return data.named(name, *((column, pa.int64()) for column in columns), keys=keys)


# Names


HOSTILE = [
    'a"b',
    '"',
    '""; drop table x; --',
    "it's",
    "a.b",
    "a b",
    "select",
    "é日本🎉",
    "`tick`",
    "%s ? :x $1",
    "\\",
    "\n\t",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_only_ever_a_name(database, name):
    made = table(name, name, "other", keys=[name])

    database(sql.create_table(DIALECT, made, constraint=f"{name} pk"))
    database(f"insert into {DIALECT.table(name)} values (1, 2)")
    database(sql.add_column(DIALECT, made, Column(f"{name}2", pa.utf8())))
    database(sql.create_table(DIALECT, table("copy", name, "other")))
    database(sql.insert_select(DIALECT, "copy", [name, "other"], DIALECT.table(name)))
    [(statement, values)] = sql.delete_records(DIALECT, deletion(name, {name: 1}))
    database(statement, values)

    assert database(f"select {DIALECT.columns([name, 'other'])} from copy") == [(1, 2)]
    assert database(f"select count(*) from {DIALECT.table(name)}") == [(0,)]
    database(sql.drop_table(DIALECT, name))
    database(sql.drop_table(DIALECT, name))
    with pytest.raises((sqlite3.OperationalError, duckdb.CatalogException)):
        database(f"select * from {DIALECT.table(name)}")


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_quoted_name_reads_back_as_the_name(name):
    with closing(sqlite3.connect(":memory:")) as connection:
        cursor = connection.execute(f"select 1 as {DIALECT.quote(name)}")

        assert cursor.description[0][0] == name


def test_a_nul_in_a_name_is_refused():
    for make in (DIALECT.quote, DIALECT.table, lambda name: DIALECT.columns(["a", name])):
        with pytest.raises(PluginError, match=r"name 'a\\x00b' holds a NUL character; rename it"):
            make("a\0b")


def test_the_quote_and_the_place_of_a_dialect_are_used():
    ticks = replace(DIALECT, quote_char="`", qualify=lambda name: f"`my`.`{name}`")

    assert ticks.quote("a`b") == "`a``b`"
    assert ticks.table("t") == "`my`.`t`"


# Tables


def test_keys_and_columns_that_may_not_be_null_are_declared(database):
    made = Table(
        "t",
        (
            Column("a", pa.int64(), primary_key=True),
            Column("b", pa.int64(), primary_key=True, unique=True),
            Column("c", pa.int64(), not_null=True),
            Column("d", pa.int64(), unique=True),
            Column("e", pa.int64()),
        ),
    )
    database(sql.create_table(DIALECT, made))
    database("insert into t values (1, 2, 3, 4, null), (1, 3, 3, 5, null)")

    for broken in ("(1, 2, 3, 6, null)", "(null, 9, 3, 7, null)", "(2, 2, null, 8, null)", "(3, 3, 3, 4, null)"):
        with pytest.raises((sqlite3.IntegrityError, duckdb.ConstraintException)):
            database(f"insert into t values {broken}")
    assert "unique" not in sql.create_table(replace(DIALECT, inline_unique=False), made)


def test_a_table_that_is_there_is_left_alone(database):
    database(sql.create_table(DIALECT, table("t", "a")))
    database("insert into t values (1)")
    database(sql.create_table(DIALECT, table("t", "a", "b")))

    assert database("select * from t") == [(1,)]


# Deletes


def deletion(name, *groups, relations=()):
    """A message whose groups are dicts of column to value; a dict with the key `or` is joined by that."""
    made = []
    for group in groups:
        tests = {column: value for column, value in group.items() if column != "or"}
        made.append(
            PredicateGroup(
                tuple(Predicate(column, pa.array([value])) for column, value in tests.items()),
                "or" if "or" in group else "and",
            )
        )
    return DeleteRecord(name, tuple(made), tuple(TableRelation(*relation) for relation in relations))


def delete(database, message):
    for statement, values in sql.delete_records(DIALECT, message):
        database(statement, values)


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        ([], set()),
        ([{}], set()),
        ([{"a": 1}], {3, 4, 5}),
        ([{"a": 1, "b": 1}], {2, 3, 4, 5}),
        ([{"a": 1, "b": 1, "or": True}], {4, 5}),
        ([{"a": 1}, {"b": 1}], {2, 3, 4, 5}),
        ([{"a": 1, "b": 2, "or": True}, {"b": 1}], {2, 3, 4, 5}),
        ([{"b": None}], {1, 2, 3, 4}),
        ([{"a": 2, "b": None}], {1, 2, 3, 4}),
        ([{"a": 1, "b": None, "or": True}, {}], {3, 4}),
        ([{"a": 9}], {1, 2, 3, 4, 5}),
    ],
)
def test_rows_that_match_every_group_are_deleted(database, groups, left):
    database(sql.create_table(DIALECT, table("t", "id", "a", "b")))
    database("insert into t values (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2), (5, 2, null)")

    delete(database, deletion("t", *groups))

    assert {row[0] for row in database("select id from t")} == left


def family(database, *names):
    """Tables of which each hangs on the one before it; ids tell whose descendants they are."""
    for level, name in enumerate(names):
        database(f"create table {DIALECT.table(name)} (_cq_id varchar, _cq_parent_id varchar, id bigint)")
        for root in ("x", "y"):
            parent = None if level == 0 else f"{root}{level - 1}"
            database(f"insert into {DIALECT.table(name)} values (?, ?, ?)", [f"{root}{level}", parent, ord(root)])


def left_in(database, name):
    return {row[0] for row in database(f"select _cq_id from {DIALECT.table(name)}")}


@pytest.mark.parametrize("order", [1, -1])
def test_descendants_go_with_their_ancestor_in_whatever_order_they_are_named(database, order):
    family(database, "a", 'b"', "c", "d")
    relations = [('b"', "a"), ("c", 'b"'), ("d", "c")][::order]

    delete(database, deletion("a", {"id": ord("x")}, relations=relations))

    assert [left_in(database, name) for name in ("a", 'b"', "c", "d")] == [{"y0"}, {"y1"}, {"y2"}, {"y3"}]


def test_two_children_of_one_table_both_go(database):
    family(database, "a", "b")
    database("create table c as select * from b")

    delete(database, deletion("a", {"id": ord("x")}, relations=[("b", "a"), ("c", "a")]))

    assert [left_in(database, name) for name in ("a", "b", "c")] == [{"y0"}, {"y1"}, {"y1"}]


def test_relations_that_lead_nowhere_are_named():
    message = deletion("a", {"id": 1}, relations=[("b", "a"), ("d", "c"), ("e", "d")])

    with pytest.raises(PluginError, match="cannot delete records of `d`, `e`: their parent tables are not part"):
        sql.delete_records(DIALECT, message)


SYNC = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("clients", "left"), [(None, {3, 4}), (("eu",), {2, 3, 4}), (("eu", "us"), {3, 4}), ((), {1, 2, 3, 4})]
)
def test_stale_rows_of_one_source_are_deleted(database, clients, left):
    database("create table t (id bigint, _cq_source_name varchar, _cq_sync_time varchar, _cq_client_id varchar)")
    database(
        "insert into t values (1, 's''', '2024-01-01', 'eu'), (2, 's''', '2024-01-01', 'us'), "
        "(3, 'other', '2024-01-01', 'eu'), (4, 's''', '2024-01-02', 'eu')"
    )

    statement, values = sql.delete_stale(
        DIALECT, table("t", "id"), source_name="s'", sync_time=SYNC, clients=clients
    )  # fmt: skip
    database(
        statement, [value.date().isoformat() if isinstance(value, datetime.datetime) else value for value in values]
    )

    assert {row[0] for row in database("select id from t")} == left


# Migrations


SAFE = Capabilities(safe_changes=frozenset({"add_column", "remove_column"}))
HAVE = Table("t", (Column("id", pa.int64(), primary_key=True, not_null=True), Column("name", pa.utf8())))


def migrated(want, capabilities=SAFE, have: Table | None = HAVE, *, force=False):
    return sql.migration(DIALECT, have, want, capabilities, force=force)


def test_a_missing_table_is_created_as_it_is_wanted():
    assert migrated(HAVE, have=None) == sql.Migration("create", HAVE)


def test_an_equal_table_is_left_alone_in_its_own_order():
    found = migrated(HAVE.with_columns(HAVE.columns[::-1]))

    assert found.action == "none"
    assert found.table.column_names == ("id", "name")


def test_types_that_the_database_cannot_tell_apart_are_no_change():
    moments = HAVE.with_columns([HAVE.columns[0], Column("name", pa.timestamp("us", "UTC"))])

    assert migrated(moments).action == "none"
    assert migrated(moments).table.column("name").type == pa.timestamp("us", "UTC")


def test_safe_changes_alter_the_table_and_keep_what_is_gone():
    want = HAVE.with_columns([HAVE.columns[0], Column("more", pa.int64())])

    found = migrated(want)

    assert found.action == "alter"
    assert [change.kind for change in found.changes] == ["add_column", "remove_column"]
    assert found.table.column_names == ("id", "name", "more")


CHANGED = HAVE.with_columns([HAVE.columns[0], Column("name", pa.int64())])


def test_a_change_that_loses_data_is_refused_with_what_to_do():
    with pytest.raises(MigrationRefused, match=r"column `name` changed from utf8 to int64.*`migrate_mode: forced`"):
        migrated(CHANGED)


def test_a_forced_change_makes_the_table_anew():
    found = migrated(CHANGED, force=True)

    assert (found.action, found.table) == ("recreate", CHANGED)


def test_a_forced_change_that_keeps_the_rows_alters():
    kept = replace(SAFE, kept_when_forced=frozenset({"change_type"}))

    assert migrated(CHANGED, kept, force=True).action == "alter"
    with pytest.raises(MigrationRefused):
        migrated(CHANGED, kept)


def test_a_change_that_cannot_even_be_forced_is_refused():
    stiff = replace(SAFE, forced_changes=frozenset({"change_not_null"}))

    with pytest.raises(MigrationRefused, match="table `t` cannot be migrated here"):
        migrated(CHANGED, stiff, force=True)
