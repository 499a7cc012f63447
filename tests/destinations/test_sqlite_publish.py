"""SQLite: staged tables that are published together, what hangs on live tables, and changes that keep the rows."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sqlite3

import pyarrow as pa
import pytest

from catchment.destinations.sqlite import SQLite
from catchment.errors import MigrationRefused, PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema.table import Column
from catchment.schema.types import uuid
from catchment.testing import data
from tests.destinations.conftest import KEYS, NOW, Staged, people, rows

LATER = NOW + datetime.timedelta(seconds=1)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.sqlite")


@pytest.fixture
def destination(open_destination, path):
    return open_destination(SQLite, connection_string=path)


def run(path, *statements):
    """Rows of the last statement, by the standard library's driver."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def tables(path):
    return [name for (name,) in run(path, "select name from sqlite_schema where type = 'table' order by name")]


def is_whole(path):
    return run(path, "pragma integrity_check") == [("ok",)] and run(path, "pragma foreign_key_check") == []


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_kind_replace_and_publish(destination, path, kind):
    data_type, values = KEYS[kind]
    one, two = values
    table = data.sourced("t", ("k", data_type), ("v", pa.int64()), keys=["k"])
    for _ in range(2):
        destination.publish(table, rows(table, (one, 1), (two, 2), (two, 3)))
        destination.expect(table, rows(table, (one, 1), (two, 3)), key="v")
    destination.insert(table, rows(table, (one, 4), (one, 5)))
    destination.expect(table, rows(table, (two, 3), (one, 5)), key="v")
    destination.publish(table, rows(table, (two, 6)))
    destination.expect(table, rows(table, (two, 6)), key="v")
    assert is_whole(path)
    assert run(path, "select name from pragma_table_info('t') where pk") == [("k",)]


def test_the_last_of_equal_keys_stays_over_many_batches_in_random_order(destination, path):
    table = data.sourced("t", ("k", uuid()), ("v", pa.int64()), keys=["k"])
    keys = [bytes([n * 37 % 251]) * 16 for n in range(251)]
    batches = [rows(table, *((key, 1_000 * number + n) for n, key in enumerate(keys))) for number in range(5)]
    Staged(destination).add(table, *batches).publish()
    destination.expect(table, batches[-1], key="v")
    assert is_whole(path)
    # The key is a real one: for SQLite itself, and for a file that is written anew.
    assert run(path, "select origin from pragma_index_list('t')") == [("pk",)]
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
        run(path, "insert into t select * from t limit 1")
    run(path, "vacuum")
    destination.expect(table, batches[-1], key="v")


def test_key_columns_that_come_in_another_order_than_before(destination, path):
    first, second = ((name, pa.utf8()) for name in ("a", "b"))
    for number, columns in enumerate([(first, second), (second, first), (first, second)]):
        table = data.sourced("t", *columns, ("v", pa.int64()), keys=["a", "b"])
        batch = rows(table, *((f"x{n % 7}", f"y{n % 5}", number) for n in range(35)))
        Staged(destination, f"cafe000{number}").add(table, batch).publish()
        destination.expect(table, batch, key="v")
        assert is_whole(path)


@pytest.mark.parametrize("names", [["rowid"], ["ROWID", "_rowid_"], ["rowid", "_rowid_", "oid"]])
def test_columns_with_the_names_of_sqlites_row_number(destination, path, names):
    table = people("people", *((name, pa.utf8()) for name in names), keys=("name",))
    more = ["z"] * len(names), ["a"] * len(names)
    destination.publish(table, rows(table, (1, "k", *more[0]), (2, "k", *more[1]), (3, "l", *more[0])))
    destination.expect(table, rows(table, (2, "k", *more[1]), (3, "l", *more[0])))
    assert is_whole(path)


@pytest.mark.parametrize("keys", [("id",), ("name",), ("id", "name")])
def test_a_staged_key_that_is_null_is_named(destination, path, keys):
    table = people(keys=keys)
    destination.publish(table, rows(table, (1, "a")))
    row = (None, "b") if "id" in keys else (2, None)
    with pytest.raises(PluginError, match=f"key column `{keys[0]}` of table `people` is null in a row"):
        Staged(destination).add(table, rows(table, (5, "good"), row)).publish()
    assert run(path, "select id, name from people") == [(1, "a")]
    assert tables(path) == ["people"]


def test_nothing_is_published_when_the_third_of_five_tables_fails(destination, path):
    made = [people(f"t{number}") for number in range(5)]
    for table in made:
        destination.publish(table, rows(table, (1, "old")))
    run(path, "create unique index mine on t2 (name)")
    staged = Staged(destination)
    for table in made:
        staged.add(table, rows(table, (2, "new"), (3, "new")))
    with pytest.raises(PluginError, match=r"UNIQUE constraint failed: t2\.name"):
        staged.publish()
    for table in made:
        assert run(path, f"select id, name from {table.name}") == [(1, "old")]
    assert tables(path) == [table.name for table in made]
    Staged(destination, "cafe0002").add(made[2], rows(made[2], (3, "again"))).publish()
    assert run(path, "select id from t2") == [(3,)]


HANGING = {
    "index": "create index mine on people (name desc)",
    "unique index": "create unique index mine on people (name)",
    "partial index": "create index mine on people (lower(name)) where id > 1",
    "trigger": "create trigger mine after insert on people begin update people set name = 't' where id = 0; end",
    "view": "create view mine as select id, name from people",
    "view of a view": "create view one as select * from people; create view mine as select id from one",
    "foreign key": "create table mine (owner integer references people (id) on delete cascade)",
    "trigger of another": "create table other (x); create trigger mine after insert on other "
    "begin delete from people where id = new.x; end",
}


@pytest.mark.parametrize("kind", HANGING)
def test_what_hangs_on_a_live_table_survives_a_publish(destination, path, kind):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")), data.batch(table, ("other", NOW, 9, "theirs")))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(HANGING[kind])
    before = run(path, "select type, name, sql from sqlite_schema where tbl_name <> 'people' or name = 'mine'")
    for number in range(2):
        staged = Staged(destination, f"cafe000{number}")
        done = staged.add(table, data.batch(table, ("suite", LATER, 2, "c"), ("suite", LATER, 3, "d"))).publish()
        destination.expect(
            table,
            data.batch(table, ("suite", LATER, 2, "c"), ("suite", LATER, 3, "d"), ("other", NOW, 9, "theirs")),
        )
        assert done["people"].stale_deleted == 1 - number
    assert run(path, "select type, name, sql from sqlite_schema where tbl_name <> 'people' or name = 'mine'") == before
    if kind.startswith("view"):
        assert run(path, "select id from mine order by id") == [(2,), (3,), (9,)]
    assert is_whole(path)


DEFINITIONS = {
    "check": '"id" integer not null check (id > 0), "name" text',
    "default": '"id" integer not null, "name" text, mine text default (\'m\' || 1)',
    "generated": '"id" integer not null, "name" text, mine text generated always as (name || id) stored',
    "collation": '"id" integer not null, "name" text collate nocase',
    "own foreign key": '"id" integer not null, "name" text, mine integer references other (x)',
}


@pytest.mark.parametrize("kind", DEFINITIONS)
@pytest.mark.parametrize("options", ["", " strict", " without rowid"])
def test_a_table_that_somebody_else_made_keeps_how_it_was_made(destination, path, kind, options):
    stamp = '"_cq_source_name" text, "_cq_sync_time" timestamp'
    text = f"CREATE TABLE people ({stamp}, {DEFINITIONS[kind]}, primary key (id)){options}"
    if "strict" in options:
        text = text.replace("timestamp", "text")
    table = people()
    if "strict" in options:
        # A strict table knows no `timestamp`.
        table = data.named("people", ("_cq_source_name", pa.utf8()), ("_cq_sync_time", pa.utf8()),
                           ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])  # fmt: skip
    run(path, "create table other (x integer primary key)", text)
    moment = "2024" if "strict" in options else NOW
    destination.publish(table, data.batch(table, ("suite", moment, 1, "a"), ("suite", moment, 2, "b")))
    destination.publish(table, data.batch(table, ("suite", moment, 2, "c"), ("suite", moment, 3, "d")))
    assert run(path, "select id, name from people order by id") == [(2, "c"), (3, "d")]
    assert run(path, "select sql from sqlite_schema where name = 'people'") == [(text,)]
    if kind == "generated":
        assert run(path, "select mine from people order by id") == [("c2",), ("d3",)]
    if kind == "default":
        assert run(path, "select mine from people") == [("m1",), ("m1",)]
    assert is_whole(path)


UPSTREAM = (
    'CREATE TABLE IF NOT EXISTS "people" ("_cq_source_name" text,"_cq_sync_time" timestamp,"id" integer NOT NULL,'
    '"name" text, CONSTRAINT "people_cqpk" PRIMARY KEY ("id"))'
)


@pytest.mark.parametrize("statement", [None, UPSTREAM])
def test_a_table_that_a_sync_made_is_swapped_by_its_root_page_also_with_new_columns(destination, path, statement):
    page = "select rootpage from sqlite_schema where name = 'people'"
    if statement:
        run(path, statement)
    destination.insert(people(), rows(people(), (1, "a")))
    wider = people("people", ("more", pa.float64()), ("and more", pa.utf8()))
    for number, table in enumerate((people(), wider, people(), wider)):
        before, more = run(path, page), [None] * (len(table.columns) - 4)
        Staged(destination, f"cafe000{number}").add(table, rows(table, (2, "b", *more))).publish()
        assert run(path, page) != before
        destination.expect(table, rows(table, (2, "b", *more)))
        destination.plugin.destination.migrate(wider, force=False)
    assert is_whole(path)


def test_triggers_see_what_a_publish_changes(destination, path):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    run(path, "create table log (what, id)")
    for what, row in (("insert", "new"), ("update", "new"), ("delete", "old")):
        run(path, f"create trigger {what}_it after {what} on people begin "
                  f"insert into log values ('{what}', {row}.id); end")  # fmt: skip
    Staged(destination).add(table, rows(table, (2, "c"), (3, "d"))).publish()
    assert run(path, "select what, id from log order by id") == [("delete", 1), ("update", 2), ("insert", 3)]


def test_children_that_a_foreign_key_binds_stay_with_their_parents(open_destination, path):
    destination = open_destination(SQLite, connection_string=f"{path}?_foreign_keys=on")
    parents, children = people("parents"), data.sourced("children", ("id", pa.int64()), ("parent", pa.int64()))
    destination.publish(parents, rows(parents, (1, "stale"), (2, "b")))
    run(path, "create table children (_cq_source_name text, _cq_sync_time timestamp, id integer not null, "
              "parent integer references parents (id) on delete cascade, primary key (id))")  # fmt: skip
    run(path, "create table notes (parent integer references parents (id) on delete cascade, note text)")
    run(path, "insert into notes values (1, 'goes'), (2, 'stays')")
    destination.insert(children, rows(children, (1, 1), (2, 2)))
    staged = Staged(destination).add(children, rows(children, (1, 3), (2, 2)))
    staged.add(parents, rows(parents, (2, "c"), (3, "new"))).publish()
    assert run(path, "select id, name from parents order by id") == [(2, "c"), (3, "new")]
    assert run(path, "select id, parent from children order by id") == [(1, 3), (2, 2)]
    assert run(path, "select * from notes") == [(2, "stays")]
    with pytest.raises(PluginError, match="FOREIGN KEY constraint failed"):
        Staged(destination, "cafe0002").add(children, rows(children, (1, 77))).publish()
    assert run(path, "select id, parent from children order by id") == [(1, 3), (2, 2)]
    assert is_whole(path)


@pytest.mark.parametrize(("mine", "theirs"), [(10, 3), (3, 10), (3, 0)])
def test_rows_of_other_sources_stay_however_many_they_are(destination, path, mine, theirs):
    table = people()
    old = [("suite", NOW, n, "old") for n in range(mine)]
    others = [("other", NOW, 100 + n, "theirs") for n in range(theirs)]
    destination.insert(table, data.batch(table, *old, *others))
    new = [("suite", LATER, n, "new") for n in range(1, mine + 1)] + [("suite", LATER, 100, "taken")]
    done = Staged(destination).add(table, data.batch(table, *new)).publish()
    destination.expect(table, data.batch(table, *new, *others[1:]))
    assert done["people"].stale_deleted == 1
    assert is_whole(path)


def test_a_table_without_source_names_loses_nothing(destination, path):
    run(path, "create table people (id integer, name text, primary key (id))")
    run(path, "insert into people values (1, 'mine'), (2, 'old')")
    table = people()
    Staged(destination).add(table, rows(table, (2, "new"))).publish()
    assert run(path, "select id, name from people order by id") == [(1, "mine"), (2, "new")]


def test_wide_tables_and_long_names_are_published(destination, path):
    names = [f"c{n}" for n in range(1_590)]
    table = data.sourced("wide" + "é" * 100, ("id", pa.int64()), *((n, pa.utf8()) for n in names), keys=["id", "c0"])
    batch = rows(table, (1, *names), (2, *names))
    for _ in range(3):
        destination.publish(table, batch)
        destination.expect(table, batch)
        run(path, f'create index if not exists "mine" on "{table.name}" (c1)')
    assert is_whole(path)


@pytest.mark.parametrize("kind", ["view people as select 1 as id", "index people on other (x)"])
def test_a_name_that_something_else_has_is_refused_for_that_table_alone(destination, path, kind):
    run(path, "create table other (x)", f"create {kind}")
    what = kind.partition(" ")[0]
    staged = Staged(destination).add(people("good"), rows(people("good"), (1, "a")))
    staged.session.write(MigrateTable(people(), staged=people(keys=()).renamed("_catchment_staging.cafe0001.9")))
    staged.session.flush()
    assert f"`people`, as there is a{'n' if what == 'index' else ''} {what} of that name; drop it, or rename" in str(
        staged.session.stats()["_catchment_staging.cafe0001.9"].error
    )
    staged.publish()
    assert run(path, "select id from good") == [(1,)]
    later = Staged(destination, "cafe0002").add(people("late"), rows(people("late"), (1, "a")))
    later.session.flush()
    run(path, f"create {kind.replace('people', 'late')}")
    with pytest.raises(PluginError, match="there can be no table `late`"):
        later.publish()
    assert is_whole(path)


CHANGES = [
    (pa.bool_(), pa.utf8(), [True, False, None], ["true", "false", None]),
    (pa.bool_(), pa.int64(), [True, False, None], [1, 0, None]),
    (pa.int64(), pa.utf8(), [-(2**63), 2**63 - 1, None], [str(-(2**63)), str(2**63 - 1), None]),
    (pa.int64(), pa.float64(), [1, -(2**53), None], [1.0, -(2.0**53), None]),
    (pa.int64(), pa.bool_(), [1, 0, None], [1, 0, None]),
    (pa.float64(), pa.utf8(), [0.1, 1e300, None], ["0.1", "1.0e+300", None]),
    (pa.float64(), pa.int64(), [1.0, -5.0, None], [1, -5, None]),
    (pa.utf8(), pa.int64(), ["1", "-5", None], [1, -5, None]),
    (pa.utf8(), pa.float64(), ["1", "-5.25", None], [1.0, -5.25, None]),
    (pa.utf8(), pa.bool_(), ["true", "false", None], [1, 0, None]),
    (pa.timestamp("us"), pa.utf8(), [0, 1, None], ["1970-01-01 00:00:00.000000Z", "1970-01-01 00:00:00.000001Z", None]),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
@pytest.mark.parametrize("staged", [False, True])
def test_a_forced_change_of_a_type_keeps_the_rows(destination, path, number, staged):
    before, after, values, wanted = CHANGES[number]
    tables = [people("people", ("v", kind)) for kind in (before, after)]
    destination.insert(tables[0], data.batch(tables[0], *(("other", NOW, n, "x", v) for n, v in enumerate(values))))
    run(path, "create index mine on people (name)")
    new = rows(tables[1], (7, "new", None))
    with pytest.raises(MigrationRefused, match="migrate_mode: forced"):
        destination.plugin.destination.migrate(tables[1], force=False)
    if staged:
        Staged(destination).add(tables[1], new, force=True).publish()
    else:
        destination.write(MigrateTable(tables[1], force=True), Insert(tables[1], new))
    assert run(path, "select v from people where id < 7 order by id") == [(value,) for value in wanted]
    assert run(path, "select typeof(v) from people where id = 0") == [
        ("text" if pa.types.is_string(after) else "real" if pa.types.is_floating(after) else "integer",)
    ]
    assert run(path, "select name from sqlite_schema where type = 'index' and sql is not null") == [("mine",)]
    assert is_whole(path)


MISFITS = [
    (pa.utf8(), pa.int64(), "12a", "column `v` holds '12a', which is no integer"),
    (pa.utf8(), pa.float64(), "nan", "column `v` holds 'nan', which is no real"),
    (pa.utf8(), pa.timestamp("us"), "soon", "column `v` holds 'soon', which is no timestamp"),
    (pa.int64(), pa.float64(), 2**53 + 1, "column `v` holds '9007199254740993', which is no real"),
    (pa.int64(), pa.bool_(), 2, "column `v` holds '2', which is no boolean"),
    (pa.float64(), pa.int64(), 0.5, "column `v` holds '0.5', which is no integer"),
    (pa.float64(), pa.timestamp("us"), 0.5, "column `v` cannot be turned from real into timestamp"),
]


@pytest.mark.parametrize("number", range(len(MISFITS)))
def test_a_forced_change_that_a_value_does_not_fit_makes_the_table_anew_and_says_why(destination, path, number, caplog):
    before, after, value, words = MISFITS[number]
    tables = [people("people", ("v", kind)) for kind in (before, after)]
    destination.insert(tables[0], rows(tables[0], (1, "a", value)))
    run(path, "create view mine as select id from people", "create index by_name on people (name)")
    assert destination.plugin.preview([tables[1]], force=True)[0].action == "recreate"
    with caplog.at_level(logging.WARNING):
        destination.write(MigrateTable(tables[1], force=True), Insert(tables[1], rows(tables[1], (2, "new", None))))
    assert run(path, "select id from mine") == [(2,)]
    for part in (words, "view `mine`", "index `by_name`"):
        assert part in caplog.text


def test_a_forced_move_of_the_key_keeps_rows_that_are_unique_in_it(destination, path, caplog):
    before = people("people", ("_cq_id", uuid()))
    after = people("people", ("_cq_id", uuid()), keys=("_cq_id",))
    destination.insert(before, rows(before, (1, "a", bytes(16)), (2, "b", bytes(15) + b"x")))
    destination.write(MigrateTable(after, force=True))
    assert run(path, "select id, name from people order by name") == [(1, "a"), (2, "b")]
    assert run(path, "select name from pragma_table_info('people') where pk") == [("_cq_id",)]
    other = people("other", ("_cq_id", uuid()))
    moved = people("other", ("_cq_id", uuid()), keys=("_cq_id",))
    destination.insert(other, rows(other, (1, "a", bytes(16)), (2, "b", bytes(16))))
    assert destination.plugin.preview([moved], force=True)[0].action == "recreate"
    with caplog.at_level(logging.WARNING):
        destination.write(MigrateTable(moved, force=True))
    assert "rows are not unique in `_cq_id`" in caplog.text
    assert run(path, "select * from other") == []


def test_a_column_that_must_no_longer_be_null_keeps_rows_where_it_is_none(destination, path, caplog):
    before, after = people(), data.sourced("people", ("id", pa.int64()), Column("name", pa.utf8(), not_null=True))
    destination.insert(before, rows(before, (1, "a")))
    destination.write(MigrateTable(after, force=True))
    strict = "select \"notnull\" from pragma_table_info('people') where name = 'name'"
    assert run(path, strict) == [(1,)]
    destination.write(MigrateTable(before, force=True), Insert(before, rows(before, (2, None))))
    assert run(path, strict) == [(0,)]
    assert run(path, "select id, name from people order by id") == [(1, "a"), (2, None)]
    with caplog.at_level(logging.WARNING):
        destination.write(MigrateTable(after, force=True))
    assert "column `name` is null in a row" in caplog.text
    assert run(path, "select * from people") == []


def test_a_preview_that_keeps_the_rows_says_alter(destination):
    before, after = (people("people", ("v", kind)) for kind in (pa.int64(), pa.utf8()))
    destination.insert(before, rows(before, (1, "a", 5)))
    assert destination.plugin.preview([after], force=True)[0].action == "alter"
    assert destination.plugin.preview([after], force=False)[0].action == "refused"
