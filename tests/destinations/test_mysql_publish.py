"""What readers of MySQL and MariaDB see of a publish, and what of a live table survives it."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from catchment.destinations.mysql import MySQL
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.sdk import Column
from catchment.testing import data
from tests.destinations.conftest import Staged, connected_to, people, rows


@pytest.fixture
def destination(open_destination, mysql_dsn):
    return open_destination(MySQL, connection_string=mysql_dsn)


def test_a_reload_takes_the_place_of_the_table_with_all_that_somebody_gave_it(destination, ask_mysql, mysql_dsn):
    table = people("people", Column("u", pa.int64(), unique=True))
    destination.publish(table, rows(table, (1, "a", 5), (2, "b", 6)))
    database = ask_mysql("select database()")[0][0]
    ask_mysql("alter table people comment 'mine', add index by_name (name(10)), "
              "add column note varchar(9) default 'x', add column twice bigint as (id * 2) stored, "
              "add constraint small check (id < 1000)")  # fmt: skip
    ask_mysql("create view seen as select id, name from people")
    ask_mysql(f"create user if not exists 'reader_{database}'@'%'")
    ask_mysql(f"grant select on {database}.people to 'reader_{database}'@'%'")
    shape = ask_mysql("show create table people")
    for value in ("c", "d"):
        done = destination.publish(table, rows(table, (1, value, 6), (3, value, 7)))
        assert done.stale_deleted == 1
        assert ask_mysql("show create table people") == shape
        assert ask_mysql("select id, name, u, note, twice from people order by id") == [
            (1, value, 6, "x", 2),
            (3, value, 7, "x", 6),
        ]
        assert ask_mysql("select * from seen where id = 1") == [(1, value)]
        destination.insert(table, rows(table, (2, "stale", 8)))
    assert ask_mysql(f"show grants for 'reader_{database}'@'%'")[1:]
    assert {name for name, *_ in ask_mysql("show full tables")} == {"people", "seen"}
    ask_mysql(f"drop user 'reader_{database}'@'%'")


@pytest.mark.parametrize("others", [0, 1, 50])
@pytest.mark.parametrize("triggers", [False, True])
def test_rows_of_other_sources_are_kept_however_many_they_are(destination, ask_mysql, others, triggers):
    table = people()
    live = rows(table, *((100 + n, "theirs") for n in range(others)), source="Suite ") if others else None
    destination.insert(table, rows(table, (1, "old"), (2, "stale")), *([live] if live else []))
    if triggers:
        ask_mysql("create trigger mine before insert on people for each row set @x = 1")
    done = destination.publish(table, rows(table, (1, "new"), (100, "taken over")))
    assert ask_mysql("select count(*) from people where name = 'theirs'") == [(max(others - 1, 0),)]
    assert ask_mysql("select id, name from people where name <> 'theirs' order by id") == [
        (1, "new"),
        (100, "taken over"),
    ]
    assert done.stale_deleted == 1
    assert ask_mysql("select count(*) from information_schema.triggers where trigger_schema = database()") == [
        (triggers,)
    ]


@pytest.mark.parametrize("triggers", [False, True])
def test_a_table_that_was_fetched_with_errors_loses_nothing(destination, ask_mysql, triggers):
    table = people()
    destination.insert(table, rows(table, (1, "old"), (2, "stays")))
    if triggers:
        ask_mysql("create trigger mine before insert on people for each row set @x = 1")
    done = destination.publish(table, rows(table, (1, "new"), (3, "new")), keep="all")
    assert ask_mysql("select id, name from people order by id") == [(1, "new"), (2, "stays"), (3, "new")]
    assert (done.stale_deleted, done.stale_kept) == (0, 1)


def test_a_table_that_nobody_signed_keeps_its_rows(destination, ask_mysql):
    ask_mysql("create table people (id bigint primary key, name longtext)")
    ask_mysql("insert into people values (1, 'mine'), (2, 'mine')")
    table = people()
    destination.publish(table, rows(table, (2, "new"), (3, "new")))
    found = ask_mysql("select id, name, _cq_source_name from people order by id")
    assert found == [(1, "mine", None), (2, "new", "suite"), (3, "new", "suite")]


HANGING = {
    "foreign key to it": [
        "create table pets (owner bigint, foreign key (owner) references people (id) on delete cascade)",
        "insert into pets values (1)",
    ],
    "foreign key of it": [
        "create table towns (id bigint primary key)",
        "insert into towns values (1), (2), (3)",
        "alter table people add constraint lives foreign key (id) references towns (id)",
    ],
    "trigger": [
        "create table log (id bigint)",
        "create trigger mine after insert on people for each row insert into log values (new.id)",
    ],
}


@pytest.mark.parametrize("what", HANGING)
def test_what_hangs_on_a_live_table_survives_and_the_rows_are_right(destination, ask_mysql, what):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    for statement in HANGING[what]:
        ask_mysql(statement)
    shape = ask_mysql("show create table people")
    done = destination.publish(table, rows(table, (1, "c"), (3, "b")))
    assert ask_mysql("show create table people") == shape
    assert ask_mysql("select id, name from people order by id") == [(1, "c"), (3, "b")]
    assert done.stale_deleted == 1
    if what == "foreign key to it":
        assert ask_mysql("select owner from pets") == [(1,)]
    if what == "trigger":
        assert (3,) in ask_mysql("select id from log")
    assert not [name for (name,) in ask_mysql("show tables") if name.startswith("_catchment")]


def test_tables_that_refer_to_each_other_are_merged_parents_first(destination, ask_mysql):
    # By name, children come first.
    parents, children = people("z_parents"), people("a_children", ("parent", pa.int64()))
    first = Staged(destination).add(parents, rows(parents, (1, "a"), (2, "b")))
    first.add(children, rows(children, (10, "x", 1), (20, "y", 2))).publish()
    ask_mysql("alter table a_children add foreign key (parent) references z_parents (id)")
    second = Staged(destination, "cafe0002").add(parents, rows(parents, (2, "B"), (3, "c")))
    second.add(children, rows(children, (20, "y", 3), (30, "z", 2))).add(people("new"), rows(people("new"), (1, "n")))
    second.publish()
    assert ask_mysql("select id, name from z_parents order by id") == [(2, "B"), (3, "c")]
    assert ask_mysql("select id, parent from a_children order by id") == [(20, 3), (30, 2)]
    assert ask_mysql("select id, name from new") == [(1, "n")]


def test_when_one_of_several_cannot_be_merged_none_is(destination, ask_mysql):
    parents, children = people("parents"), people("children", ("parent", pa.int64()))
    first = Staged(destination).add(parents, rows(parents, (1, "a")))
    first.add(children, rows(children, (10, "x", 1))).publish()
    ask_mysql("alter table children add foreign key (parent) references parents (id)")
    second = Staged(destination, "cafe0002").add(parents, rows(parents, (2, "B")))
    second.add(children, rows(children, (20, "y", 3)))
    with pytest.raises(PluginError, match="foreign key constraint fails"):
        second.publish()
    assert ask_mysql("select id, name from parents") == [(1, "a")]
    assert ask_mysql("select id, parent from children") == [(10, 1)]


@pytest.mark.parametrize("tied", ["", "create trigger mine before insert on people for each row set @x = 1",
                                  "create table pets (owner bigint, foreign key (owner) references people (id))"],
                         ids=["renamed", "merged", "referenced"])  # fmt: skip
def test_a_column_that_is_new_and_one_that_is_gone(destination, ask_mysql, tied):
    before, after = people("people", ("gone", pa.utf8())), people("people", ("new", pa.int32()))
    destination.publish(before, rows(before, (1, "a", "g")))
    destination.insert(before, data.batch(before, ("other", data.SYNC_TIME, 9, "theirs", "kept")))
    if tied:
        ask_mysql(tied)
    destination.publish(after, rows(after, (1, "b", 5), (2, "c", 6)))
    found = ask_mysql("select id, name, gone, new from people order by id")
    assert found == [(1, "b", None, 5), (2, "c", None, 6), (9, "theirs", "kept", None)]


def test_a_row_that_comes_again_gets_the_defaults_of_columns_that_are_not_the_source_s(destination, ask_mysql):
    table = people()
    destination.write(MigrateTable(table))
    ask_mysql("alter table people add mood varchar(9) default 'good', add half bigint as (id * 2), "
              "add number bigint not null auto_increment unique")  # fmt: skip
    # As with `--no-migrate`: a migration does not put up with columns that must not be null.
    destination.write(Insert(table, rows(table, (1, "a"), (2, "b"))))
    ask_mysql("update people set mood = 'bad'")
    destination.write(Insert(table, rows(table, (1, "c"), (2, "b"))))
    found = ask_mysql("select id, name, mood, half, number from people order by id")
    assert found == [(1, "c", "good", 2, 1), (2, "b", "good", 4, 2)]


def test_a_column_that_came_to_the_live_table_after_staging_is_kept(destination, ask_mysql):
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    staged = Staged(destination).add(table, rows(table, (1, "c"), (2, "c"), (3, "c")))
    staged.session.flush()
    wider = people("people", ("mood", pa.utf8()))
    destination.insert(wider, data.batch(wider, ("other", data.SYNC_TIME, 9, "theirs", "good")))
    staged.publish()
    assert ask_mysql("select id, mood from people where id > 2 order by id") == [(3, None), (9, "good")]


def test_a_live_table_that_was_made_anew_after_staging_is_not_dropped(destination, ask_mysql):
    table = people()
    staged = Staged(destination).add(table, rows(table, (1, "c")))
    staged.session.flush()
    ask_mysql("create table people (id varchar(9) primary key, name longtext)")
    with pytest.raises(PluginError, match="cannot be migrated"):
        staged.publish()
    assert ask_mysql("select count(*) from people") == [(0,)]


def test_forced_changes_make_the_table_anew_in_the_same_publish(destination, ask_mysql):
    before, after = (
        data.sourced("people", ("id", pa.int64()), ("v", kind)) for kind in (pa.utf8(), pa.list_(pa.int8()))
    )
    destination.publish(before, rows(before, (1, "a")))
    with pytest.raises(PluginError, match="migrate_mode: forced"):
        Staged(destination).add(after, rows(after, (1, [5]))).publish()
    Staged(destination).add(after, rows(after, (1, [5])), force=True).publish()
    assert ask_mysql("select id, v from people") == [(1, "[5]")]
    assert [name for (name,) in ask_mysql("show tables")] == ["people"]


def test_rows_that_are_not_unique_are_told_and_nothing_is_published(destination, ask_mysql):
    table = people("people", Column("u", pa.int64(), unique=True))
    destination.publish(table, rows(table, (1, "a", 1)))
    with pytest.raises(PluginError, match="Duplicate entry '7' for key"):
        destination.publish(table, rows(table, (2, "b", 7), (3, "c", 7)))
    assert ask_mysql("select id from people") == [(1,)]


def test_an_empty_load_empties_the_table_and_a_first_one_makes_it(destination, ask_mysql):
    table = people()
    destination.publish(table)
    assert ask_mysql("select count(*) from people") == [(0,)]
    destination.publish(table, rows(table, (1, "a")))
    destination.publish(table)
    assert ask_mysql("select count(*) from people") == [(0,)]


@pytest.mark.parametrize("triggers", [False, True], ids=["renamed", "merged"])
def test_readers_never_see_half_a_publish_or_an_empty_table(destination, ask_mysql, mysql_dsn, triggers):
    tables = [people("one"), people("two")]
    count = 2_000

    def load(run, value):
        staged = Staged(destination, run)
        for table in tables:
            staged.add(table, rows(table, *((n, str(value)) for n in range(count))))
        staged.publish()

    load("cafe0000", 0)
    if triggers:
        ask_mysql("create trigger mine before insert on one for each row set @x = 1")
    seen, done = set(), threading.Event()

    def poll(query):
        with connected_to(mysql_dsn) as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute(query)
                seen.add((query, cursor.fetchall()))

    counted = "select count(*), count(distinct name), sum(id) from {}"
    together = "select (select name from one where id = 0) = (select name from two where id = 1)"
    readers = [
        threading.Thread(target=poll, args=(query,))
        for query in (counted.format("one"), counted.format("two"), together)
    ]
    for reader in readers:
        reader.start()
    for number in range(1, 6):
        load(f"cafe000{number}", number)
    done.set()
    for reader in readers:
        reader.join()
    assert {row for query, row in seen if query != together} == {((count, 1, count * (count - 1) // 2),)}
    assert {row for query, row in seen if query == together} == {((1,),)}


def test_a_reader_that_holds_the_table_is_waited_for(destination, mysql_dsn, ask_mysql):
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    with connected_to(mysql_dsn) as reader, reader.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("select name from people")
        waiting = threading.Timer(1.0, cursor.execute, ["commit"])
        waiting.start()
        destination.publish(table, rows(table, (1, "b")))
        waiting.join()
    assert ask_mysql("select name from people") == [("b",)]


def test_two_syncs_that_publish_the_same_table_lose_no_row(open_destination, mysql_dsn, ask_mysql):
    failed = []

    def load(source, first):
        destination = open_destination(MySQL, connection_string=mysql_dsn)
        try:
            for number in range(6):
                batch = rows(people(), *((first + n, str(number)) for n in range(50)), source=source)
                Staged(destination, f"{source}{number:07}").add(people(), batch, source=source).publish()
        except PluginError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=load, args=(source, first)) for source, first in (("a", 0), ("b", 1_000))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert ask_mysql("select _cq_source_name, count(*), max(name) from people group by 1 order by 1") == [
        ("a", 50, "5"),
        ("b", 50, "5"),
    ]


def test_a_write_during_a_publish_waits_and_stays(open_destination, mysql_dsn, ask_mysql):
    publishing, streaming = (open_destination(MySQL, connection_string=mysql_dsn) for _ in range(2))
    table = people()
    publishing.publish(table, rows(table, (1, "a")))
    done = threading.Event()
    written: list[int] = []

    def stream():
        while not done.is_set():
            key = 10_000 + len(written)
            streaming.write(MigrateTable(table))
            streaming.insert(table, rows(table, (key, "theirs"), source="other"))
            written.append(key)

    writer = threading.Thread(target=stream)
    writer.start()
    for number in range(10):
        Staged(publishing, f"cafe{number:04}").add(table, rows(table, (1, str(number)))).publish()
    done.set()
    writer.join()
    assert len(written) > 3
    assert [key for (key,) in ask_mysql("select id from people where id >= 10000 order by id")] == written
