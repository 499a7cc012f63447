"""What PostgreSQL's readers see of a publish, and what of a live table survives it."""

from __future__ import annotations

import threading
import time

import psycopg
import pyarrow as pa
import pytest

from catchment.destinations.postgresql import PostgreSQL, publish
from catchment.errors import PluginError
from catchment.messages import MigrateTable
from catchment.sdk import Column
from catchment.testing import data
from tests.destinations.conftest import Staged, people, rows


@pytest.fixture
def destination(open_destination, postgresql_url):
    return open_destination(PostgreSQL, connection_string=postgresql_url)


def oid(ask, name="people"):
    return ask("select to_regclass(%s)::oid", name)[0][0]


def test_a_reload_takes_the_place_of_the_table_with_its_keys_under_their_names(destination, ask):
    table = people(keys=("id", "name"))
    unique = table.with_columns([*table.columns, Column("u", pa.int64(), unique=True)])
    found = []
    for number in range(3):
        destination.publish(unique, rows(unique, (1, "a", number), (2, "a", number + 5)))
        found.append(oid(ask))
        keys = "select conname from pg_constraint where conrelid = 'people'::regclass and contype in ('p', 'u')"
        assert sorted(ask(keys)) == [("people_pkey",), ("people_u_key",)]
        assert ask("select reloptions from pg_class where oid = 'people'::regclass") == [(None,)]
    assert len(set(found)) == 3, "it was not replaced by renaming"


@pytest.mark.parametrize(("others", "replaced"), [(0, True), (1, True), (50, False)], ids=["none", "some", "most"])
def test_rows_of_other_sources_are_kept_however_many_they_are(destination, ask, others, replaced):
    table = people()
    live = rows(table, *((100 + n, "theirs") for n in range(others)), source="other") if others else None
    destination.insert(table, rows(table, (1, "old"), (2, "stale")), *([live] if live else []))
    before = oid(ask)
    done = destination.publish(table, rows(table, (1, "new"), (100, "taken over")))
    assert ask("select count(*) from people where name = 'theirs'") == [(max(others - 1, 0),)]
    assert ask("select id, name from people where name <> 'theirs' order by id") == [(1, "new"), (100, "taken over")]
    assert done.stale_deleted == 1
    assert (oid(ask) != before) is replaced


def test_a_table_that_nobody_signed_keeps_its_rows(destination, ask):
    ask("create table people (id bigint primary key, name text)")
    ask("insert into people values (1, 'mine'), (2, 'mine')")
    table = people()
    destination.publish(table, rows(table, (2, "new"), (3, "new")))
    found = ask("select id, name, _cq_source_name from people order by id")
    assert found == [(1, "mine", None), (2, "new", "suite"), (3, "new", "suite")]


HANGING = {
    "view": "create view v as select count(*) as n from people",
    "materialized view": "create materialized view v as select count(*) as n from people",
    "function": "create function f() returns bigint begin atomic select count(*) from people; end",
    "row type": "create table notes (about people)",
    "foreign key to it": "create table pets (owner bigint references people on delete cascade); "
    "insert into pets values (1)",
    "foreign key of it": "create table towns (name text primary key); insert into towns values ('a'), ('b'), ('c'); "
    "alter table people add foreign key (name) references towns",
    "grant": "create role reader_{db}; grant select on people to reader_{db}",
    "column grant": "create role reader_{db}; grant select (id) on people to reader_{db}",
    "trigger": "create function note() returns trigger language plpgsql as 'begin return new; end'; "
    "create trigger t after insert on people for each row execute function note()",
    "comment": "comment on table people is 'mine'",
    "column comment": "comment on column people.id is 'mine'",
    "row security": "alter table people enable row level security; create policy p on people using (true)",
    "index": "create index mine on people (name)",
    "unique index": "create unique index mine on people (name, id)",
    "unique constraint": "alter table people add constraint mine unique (name, id)",
    "check": "alter table people add constraint mine check (id > 0)",
    "exclusion": "alter table people add constraint mine exclude (id with =)",
    "default": "alter table people add column note text default 'x'",
    "generated column": "alter table people add column twice bigint generated always as (id * 2) stored",
    "rule": "create rule mine as on delete to people where old.id = -1 do instead nothing",
    "insert rule": "create table log (id bigint); "
    "create rule mine as on insert to people do also insert into log values (new.id)",
    "publication": "create publication pub_{db} for table people",
    "statistics": "create statistics mine on id, name from people",
    "fillfactor": "alter table people set (fillfactor = 50)",
    "replica identity": "alter table people replica identity full",
    "column statistics": "alter table people alter name set statistics 500",
    "column option": "alter table people alter name set (n_distinct = 5)",
    "collation": 'alter table people alter name type text collate "C"',
    "storage": "alter table people alter name set storage external",
    "unlogged": "alter table people set unlogged",
    "inheritance": "create table elders () inherits (people)",
}  # fmt: skip


@pytest.mark.parametrize("what", HANGING)
def test_what_hangs_on_a_live_table_survives_and_the_rows_are_right(destination, ask, what):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    before = oid(ask)
    database = ask("select current_database()")[0][0]
    ask(HANGING[what].replace("{db}", database))
    try:
        shape = _shape(ask)
        done = destination.publish(table, rows(table, (1, "c"), (3, "b")))
        assert oid(ask) == before, "the table was replaced"
        assert _shape(ask) == shape
        assert ask("select id, name from people order by id") == [(1, "c"), (3, "b")]
        assert done.stale_deleted == 1
        if what == "foreign key to it":
            assert ask("select owner from pets") == [(1,)]
        if what == "default":
            assert ask("select distinct note from people where id = 3") == [("x",)]
        if what == "generated column":
            assert ask("select twice from people order by id") == [(2,), (6,)]
        if what == "insert rule":
            assert (3,) in ask("select id from log")
    finally:
        if "reader_" in HANGING[what]:
            ask(f"drop owned by reader_{database}; drop role reader_{database}")


def _shape(ask):
    """What the catalogue has about the table."""
    return [
        ask("select relacl::text, reloptions, relreplident, relpersistence, relrowsecurity, relhasrules from pg_class "
            "where oid = 'people'::regclass"),
        ask("select attname, attacl::text, attstattarget, attstorage, attcollation, atthasdef from pg_attribute "
            "where attrelid = 'people'::regclass and attnum > 0 order by attnum"),
        ask("select indexrelid::regclass::text from pg_index where indrelid = 'people'::regclass order by 1"),
        ask("select conname, contype from pg_constraint where conrelid = 'people'::regclass order by 1"),
        ask("select tgname from pg_trigger where tgrelid = 'people'::regclass and not tgisinternal"),
        ask("select obj_description('people'::regclass), col_description('people'::regclass, 3)"),
        ask("select pubname from pg_publication_tables where tablename = 'people'"),
        ask("select stxname from pg_statistic_ext where stxrelid = 'people'::regclass"),
        ask("select to_regclass('v')::oid, to_regproc('f')::oid"),
    ]  # fmt: skip


def test_a_partition_and_a_partitioned_table_stay_what_they_are(destination, ask):
    for name, of in [("people", ""), ("part", "partition of people for values from (0) to (1000)")]:
        columns = (
            "(_cq_source_name text, _cq_sync_time timestamp, id bigint primary key, name text) partition by range (id)"
        )
        ask(f"create table {name} {of or columns}")
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    destination.publish(table, rows(table, (2, "c")))
    assert ask("select id, name from part") == [(2, "c")]
    assert ask("select relkind::text from pg_class where oid = 'people'::regclass") == [("p",)]


def test_tables_that_refer_to_each_other_are_merged_parents_first(destination, ask):
    # By name, children come first.
    parents, children = people("z_parents"), people("a_children", ("parent", pa.int64()))
    first = Staged(destination).add(parents, rows(parents, (1, "a"), (2, "b")))
    first.add(children, rows(children, (10, "x", 1), (20, "y", 2))).publish()
    ask("alter table a_children add foreign key (parent) references z_parents")
    second = Staged(destination, "cafe0002").add(parents, rows(parents, (2, "B"), (3, "c")))
    second.add(children, rows(children, (20, "y", 3), (30, "z", 2))).publish()
    assert ask("select id, name from z_parents order by id") == [(2, "B"), (3, "c")]
    assert ask("select id, parent from a_children order by id") == [(20, 3), (30, 2)]


@pytest.mark.parametrize("tied", ["", "create view v as select id from people",
                                  "create table pets (owner bigint references people (id))"],
                         ids=["renamed", "merged", "referenced"])  # fmt: skip
def test_a_column_that_is_new_and_one_that_is_gone(destination, ask, tied):
    before, after = people("people", ("gone", pa.utf8())), people("people", ("new", pa.int32()))
    destination.publish(before, rows(before, (1, "a", "g")))
    destination.insert(before, data.batch(before, ("other", data.SYNC_TIME, 9, "theirs", "kept")))
    if tied:
        ask(tied)
    destination.publish(after, rows(after, (1, "b", 5), (2, "c", 6)))
    found = ask("select id, name, gone, new from people order by id")
    assert found == [(1, "b", None, 5), (2, "c", None, 6), (9, "theirs", "kept", None)]


@pytest.mark.parametrize("tied", [False, True], ids=["streamed", "published"])
def test_a_row_that_comes_again_gets_the_defaults_of_columns_that_are_not_the_source_s(destination, ask, tied):
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    ask("create sequence numbers")
    ask("alter table people add mood text default 'good', add number bigint default nextval('numbers'), "
        "add half bigint generated always as (id * 2) stored")  # fmt: skip
    if tied:
        ask("create table pets (owner bigint references people (id))")
    numbers = ask("select id, number from people order by id")
    ask("update people set mood = 'bad'")
    (destination.publish if tied else destination.insert)(table, rows(table, (1, "c"), (2, "b")))
    assert ask("select id, name, mood, half from people order by id") == [(1, "c", "good", 2), (2, "b", "good", 4)]
    assert ask("select id, number from people order by id") == numbers


def test_columns_of_types_that_only_postgresql_has_keep_them(destination, ask):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    ask("alter table people add tags tsvector, add price money, add code varchar(7), add spans int4range[]")
    destination.insert(table, data.batch(table, ("other", data.SYNC_TIME, 9, "theirs")))
    ask("update people set tags = 'cat', price = 5, code = 'x', spans = '{\"[1,2)\"}' where id = 9")
    before = oid(ask)
    destination.publish(table, rows(table, (1, "b"), (2, "b")))
    assert oid(ask) != before
    kinds = ask("select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'people'::regclass "
                "and attname in ('tags', 'price', 'code', 'spans') order by attnum")  # fmt: skip
    assert kinds == [("tsvector",), ("money",), ("character varying(7)",), ("int4range[]",)]
    assert ask("select tags::text, code, spans::text from people where id = 9") == [("'cat'", "x", '{"[1,2)"}')]


def test_a_column_that_came_to_the_live_table_after_staging_is_kept(destination, ask):
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    staged = Staged(destination).add(table, rows(table, (1, "c"), (2, "c"), (3, "c")))
    staged.session.flush()
    wider = people("people", ("mood", pa.utf8()))
    destination.insert(wider, data.batch(wider, ("other", data.SYNC_TIME, 9, "theirs", "good")))
    staged.publish()
    assert ask("select id, mood from people where id > 2 order by id") == [(3, None), (9, "good")]


def test_a_live_table_that_was_made_anew_after_staging_is_not_dropped(destination, ask):
    table = people()
    staged = Staged(destination).add(table, rows(table, (1, "c")))
    staged.session.flush()
    ask("create table people (id uuid primary key, name text)")
    with pytest.raises(PluginError, match="cannot be migrated"):
        staged.publish()
    assert ask("select count(*) from people") == [(0,)]


def test_forced_changes_make_the_table_anew_in_the_same_publish(destination, ask):
    before, after = (data.sourced("people", ("id", pa.int64()), ("v", kind)) for kind in (pa.utf8(), pa.int64()))
    destination.publish(before, rows(before, (1, "a")))
    destination.insert(before, data.batch(before, ("other", data.SYNC_TIME, 9, "theirs")))
    with pytest.raises(PluginError, match="migrate_mode: forced"):
        Staged(destination).add(after, rows(after, (1, 5))).publish()
    Staged(destination).add(after, rows(after, (1, 5)), force=True).publish()
    assert ask("select id, v from people") == [(1, 5)]


def test_a_view_that_hinders_a_forced_change_is_named_before_a_row_is_written(destination, ask):
    before, after = (data.sourced("people", ("id", pa.int64()), ("v", kind)) for kind in (pa.utf8(), pa.int64()))
    destination.publish(before, rows(before, (1, "a")))
    ask('create view "Old View" as select v from people')
    with pytest.raises(PluginError, match="Old View"):
        Staged(destination).add(after, rows(after, (1, 5)), force=True).publish()
    with pytest.raises(PluginError, match="Old View"):
        destination.write(MigrateTable(after, force=True))
    assert ask('select v from "Old View"') == [("a",)]


def test_readers_never_see_half_a_publish_or_an_empty_table(destination, ask, postgresql_url):
    tables = [people("one"), people("two")]
    count = 5_000

    def load(run, value):
        staged = Staged(destination, run)
        for table in tables:
            staged.add(table, rows(table, *((n, str(value)) for n in range(count))))
        staged.publish()

    load("cafe0000", 0)
    seen, done = set(), threading.Event()

    def poll(query):
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            while not done.is_set():
                seen.add((query, connection.execute(query).fetchone()))

    query = "select count(*), count(distinct name), sum(id) from {}"
    readers = [threading.Thread(target=poll, args=(query.format(name),)) for name in ("one", "two")]
    for reader in readers:
        reader.start()
    for number in range(1, 8):
        if number == 5:
            ask("create view v as select * from one")
        load(f"cafe000{number}", number)
    done.set()
    for reader in readers:
        reader.join()
    assert {row for _, row in seen} == {(count, 1, count * (count - 1) // 2)}


def test_both_tables_of_a_publish_change_at_the_same_moment(destination, postgresql_url):
    tables = [people("one"), people("two")]

    def load(number):
        staged = Staged(destination, f"cafe{number:04}")
        for table in tables:
            staged.add(table, rows(table, (1, str(number))))
        staged.publish()

    load(0)
    torn, done = [], threading.Event()

    def poll():
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            while not done.is_set():
                row = connection.execute("select (select name from one), (select name from two)").fetchone()
                torn.extend([row] if row is None or row[0] != row[1] else [])

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(1, 20):
        load(number)
    done.set()
    reader.join()
    assert torn == []


def test_a_publish_waits_for_a_reader_and_lets_others_read_meanwhile(destination, ask, postgresql_url, monkeypatch):
    monkeypatch.setattr(publish, "READERS_TIMEOUT_S", 0.2)
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    waits = []
    with psycopg.connect(postgresql_url) as reader:
        reader.execute("select * from people")
        threading.Timer(1.5, reader.rollback).start()
        thread = threading.Thread(target=lambda: destination.publish(table, rows(table, (1, "b"))))
        thread.start()
        while thread.is_alive():
            started = time.monotonic()
            ask("select * from people")
            waits.append(time.monotonic() - started)
            time.sleep(0.02)
        thread.join()
    assert ask("select name from people") == [("b",)]
    assert max(waits) < 1.0


def test_a_reader_that_never_ends_is_named(destination, ask, postgresql_url, monkeypatch):
    monkeypatch.setattr(publish, "READERS_TIMEOUT_S", 0.1)
    monkeypatch.setattr(publish, "READERS_TRIES", 3)
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    with psycopg.connect(postgresql_url, application_name="dashboard") as reader:
        reader.execute("select * from people")
        pid = reader.info.backend_pid
        with pytest.raises(PluginError, match=rf"`people` .*process {pid} \(dashboard, idle in transaction\)"):
            destination.publish(table, rows(table, (1, "b")))
    assert ask("select name from people") == [("a",)]


def test_a_writer_in_the_way_is_waited_for_by_a_new_try(destination, ask, postgresql_url, monkeypatch):
    monkeypatch.setattr(publish, "WRITERS_TIMEOUT_S", 0.2)
    table = people()
    destination.publish(table, rows(table, (1, "a"), (1, "twice")))
    with psycopg.connect(postgresql_url) as writer:
        writer.execute("update people set name = 'x'")
        threading.Timer(0.8, writer.rollback).start()
        destination.publish(table, rows(table, (1, "b"), (1, "c")))
    assert ask("select name from people") == [("c",)]


def test_a_deadlock_is_tried_again(destination, ask, postgresql_url):
    ask(f"alter database {ask('select current_database()')[0][0]} set deadlock_timeout = '100ms'")
    one, two = people("one"), people("two")
    Staged(destination).add(one, rows(one, (1, "a"))).add(two, rows(two, (1, "a"))).publish()
    met = []

    def cross():
        with psycopg.connect(postgresql_url) as other:
            other.execute("lock table two in row exclusive mode")
            time.sleep(0.5)
            try:
                other.execute("lock table one in row exclusive mode")
            except psycopg.errors.DeadlockDetected:
                met.append("the other one")
            other.rollback()

    thread = threading.Thread(target=cross)
    thread.start()
    time.sleep(0.2)
    Staged(destination, "cafe0002").add(one, rows(one, (1, "b"))).add(two, rows(two, (1, "b"))).publish()
    thread.join()
    assert ask("select (select name from one), (select name from two)") == [("b", "b")]


def test_two_sources_that_publish_one_table_at_the_same_time_both_get_in(open_destination, postgresql_url, ask):
    table = people()
    sources = [f"source {number}" for number in range(4)]
    errors = []

    def load(number, run):
        destination = open_destination(PostgreSQL, connection_string=postgresql_url, attempts=30)
        source = sources[number]
        batch = data.batch(table, *((source, data.SYNC_TIME, number * 1000 + n, run) for n in range(200)))
        try:
            Staged(destination, f"{run}{number:04}").add(table, batch, source=source).publish()
        except PluginError as error:
            errors.append(str(error))

    for run in ("aaaa", "bbbb"):
        threads = [threading.Thread(target=load, args=(number, run)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert ask("select _cq_source_name, count(*), min(name) from people group by 1 order by 1") == [
            (source, 200, run) for source in sources
        ]


def test_tables_that_several_syncs_create_at_once_are_created(open_destination, postgresql_url, ask):
    errors = []
    start = threading.Barrier(4)

    def create(destination):
        start.wait()
        try:
            for number in range(15):
                destination.write(MigrateTable(people(f"t{number}", ("extra", pa.int64()))))
        except PluginError as error:
            errors.append(str(error))

    made = [open_destination(PostgreSQL, connection_string=postgresql_url, attempts=20) for _ in range(4)]
    threads = [threading.Thread(target=create, args=(destination,)) for destination in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ask("select count(*) from pg_class where relkind = 'r' and relname ~ '^t[0-9]+$'") == [(15,)]


def test_performance_indexes_are_there_after_every_way_of_writing(open_destination, postgresql_url, ask):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url, create_performance_indexes=True)
    indexes = "select indexrelid::regclass::text from pg_index where indrelid = 'people'::regclass order by 1"
    found = []
    for number in range(3):
        destination.publish(people(), rows(people(), (number, "a")))
        assert ask(indexes) == [("people_cqpi",), ("people_pkey",)]
        found.append(oid(ask))
    assert len(set(found)) == 3
    destination.insert(people("streamed"), rows(people(), (1, "a")))
    assert ask("select to_regclass('streamed_cqpi') is not null") == [(True,)]


def test_a_name_that_something_else_has_already_is_not_in_the_way(destination, ask):
    ask("create table people_pkey (x int); create table people_pkey1 (x int)")
    for number in range(2):
        destination.publish(people(), rows(people(), (number, "a")))
    assert ask("select conname from pg_constraint where conrelid = 'people'::regclass and contype = 'p'") == [
        ("people_pkey2",)
    ]


def test_rows_that_break_a_unique_column_fail_the_publish_by_name(destination, ask):
    table = people()
    unique = table.with_columns([*table.columns, Column("code", pa.int64(), unique=True)])
    with pytest.raises(PluginError, match='table `people`: the rows of this sync are not unique in "code"'):
        destination.publish(unique, rows(unique, (1, "a", 5), (2, "b", 5)))
    assert ask("select to_regclass('people')") == [(None,)]
