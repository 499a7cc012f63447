"""DuckDB: files that others hold, runs that are killed, publishes that fail half-way, and odd names and values."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from catchment.destinations.duckdb import DuckDB
from catchment.errors import PluginError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.types import uuid
from catchment.testing import data
from tests.destinations.conftest import KEYS, NOW, WIDE, Staged, people, rows

NAMES = [
    'quo"te',
    '"; drop table live; --',
    "per%cent %s",
    "back\\slash \\'",
    "apo'strophe",
    "semi;colon",
    "quest? ?ion $1",
    "Über 日本 🎉",
    "select",
    "new\nline",
    "dot.ted",
    "duckdb_mine",
]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.duckdb")


@pytest.fixture
def destination(open_destination, path):
    return open_destination(DuckDB, connection_string=path)


def query(path, text):
    """Rows of a query by the database's own driver; also while the destination has the file open."""
    with duckdb.connect(path) as connection:
        return connection.execute(text).fetchall()


def tables(path):
    return sorted(name for (name,) in query(path, "select table_name from duckdb_tables()"))


def test_a_file_that_another_process_holds_is_told(path):
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        plugin = DuckDB.as_plugin()
        with pytest.raises(PluginError, match=rf"x.duckdb' is held by another program \(PID {holder.pid}\); end it"):
            plugin.init({"connection_string": path})
        plugin.close()
    finally:
        holder.communicate()


def test_a_sync_that_is_killed_leaves_live_tables_whole_and_the_next_one_sweeps(path, write_config):
    spec = f'{{connection_string: "{path}", batch_size: 4000}}'
    config = write_config(WIDE.format(plugin="duckdb", delay="10ms", spec=spec))
    command = [sys.executable, "-m", "catchment", "sync", str(config)]
    log = config.with_suffix(".log")

    def sync():
        with log.open("w") as file:
            return subprocess.Popen(command, cwd=config.parent, stdout=file, stderr=file)

    def written():
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"{path}.wal")
            return found.st_mtime_ns, found.st_size
        return None

    assert sync().wait(timeout=60) == 0, log.read_text()
    names = tables(path)
    counts = [(20_000, 1)] * 3
    left = 0
    for number in range(12):
        # The log of a run that was killed may still be there.
        before, run = written(), sync()
        while run.poll() is None and written() in (None, before):
            time.sleep(0.01)
        time.sleep(0.1 * (number % 4))
        run.send_signal(signal.SIGKILL)
        run.wait()
        left += tables(path) != names
        assert [query(path, f"select count(*), count(distinct _cq_sync_time) from {n}")[0] for n in names] == counts
        if number > 2 and left:
            break
    assert left, "no run was killed while it had staged tables"
    assert sync().wait(timeout=60) == 0, log.read_text()
    assert tables(path) == names


def test_nothing_is_published_when_the_third_of_five_tables_fails(destination, path):
    made = [people(f"t{number}") for number in range(5)]
    for table in made:
        destination.publish(table, rows(table, (1, "old")))
    staged = Staged(destination)
    for number, table in enumerate(made):
        staged.add(table, rows(table, (None if number == 2 else 2, "new")))
    with pytest.raises(PluginError, match=r"(?i)not null"):
        staged.publish()
    for table in made:
        assert query(path, f"select id, name from {table.name}") == [(1, "old")]
    assert tables(path) == [table.name for table in made]
    Staged(destination, "cafe0002").add(made[2], rows(made[2], (3, "again"))).publish()
    assert query(path, "select id from t2") == [(3,)]


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_kind_replace_and_publish(destination, kind):
    data_type, values = KEYS[kind]
    one, two = values
    table = data.sourced("t", ("k", data_type), ("v", pa.int64()), keys=["k"])
    destination.publish(table, rows(table, (one, 1), (two, 2), (two, 3)))
    destination.expect(table, rows(table, (one, 1), (two, 3)), key="v")
    destination.insert(table, rows(table, (one, 4), (one, 5)))
    destination.expect(table, rows(table, (two, 3), (one, 5)), key="v")
    destination.publish(table, rows(table, (two, 6)))
    destination.expect(table, rows(table, (two, 6)), key="v")


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_of_tables_columns_and_sources_are_only_names(destination, path, name):
    other = people("live")
    destination.insert(other, rows(other, (1, "a")))
    table = data.sourced(name, (name, pa.int64()), ("inside", pa.struct([(name, pa.int64())])), keys=[name])
    batch = data.batch(table, (name, NOW, 1, {name: 1}), (name, NOW, 2, None), ("other", NOW, 3, {name: 3}))
    destination.insert(table, batch)
    destination.insert(table, batch)
    destination.expect(table, batch, key=name)
    later = NOW + datetime.timedelta(seconds=1)
    new = data.batch(table, (name, later, 2, {name: 7}))
    for number in range(2):
        Staged(destination, f"cafe{number:04}").add(table, new, source=name).publish()
        destination.expect(table, new, batch.slice(2), key=name)
    where = (PredicateGroup((Predicate(name, pa.array([3])), Predicate("_cq_source_name", pa.array(["other"])))),)
    destination.write(MigrateTable(table), DeleteRecord(name, where))
    destination.write(MigrateTable(table), DeleteStale(table, name, later + datetime.timedelta(seconds=1)))
    destination.expect(table, batch.slice(0, 0), key=name)
    assert query(path, "select id from live") == [(1,)]


def test_a_view_goes_on_after_a_publish_and_one_that_a_forced_change_breaks_is_named(destination, path, caplog):
    before, after = (data.sourced("t", ("id", pa.int64()), ("old", kind)) for kind in (pa.utf8(), pa.int64()))
    destination.publish(before, rows(before, (1, "a")))
    duckdb.connect(path).execute('create view "My View" as select old from t').close()
    destination.publish(before, rows(before, (1, "b")))
    assert query(path, 'select * from "My View"') == [("b",)]
    with caplog.at_level(logging.WARNING):
        Staged(destination).add(after, rows(after, (1, 5)), force=True).publish()
    assert query(path, 'select old from "My View"') == [(5,)]
    assert "view `My View`" in caplog.text
    assert "column `old` holds 'b', which is no BIGINT" in caplog.text


def test_a_foreign_key_that_hinders_is_named(destination, path):
    table = people()
    destination.publish(table, rows(table, (1, "a")))
    with duckdb.connect(path) as connection:
        connection.execute("create table pets (owner bigint references people (id))")
        connection.execute("insert into pets values (1)")
    with pytest.raises(PluginError, match="foreign key of table `pets`"):
        Staged(destination).add(table, rows(table, (2, "a"))).publish()
    assert query(path, "select id from people") == [(1,)]


OPTIONS = {
    "threads=1": "threads",
    "memory_limit=300MB": "memory_limit",
    "default_null_order=nulls_first": "default_null_order",
    "temp_directory={folder}/spill": "temp_directory",
    "access_mode=read_write&threads=2": "threads",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_connection_string_are_in_force(open_destination, path, tmp_path, option):
    name = OPTIONS[option]
    given = option.replace("{folder}", str(tmp_path))
    plain = open_destination(DuckDB, connection_string=path)
    setting = f"select current_setting('{name}')"
    usual = plain.plugin.destination._run(setting).fetchone()[0]
    plain.plugin.close()
    destination = open_destination(DuckDB, connection_string=f"{path}?{given}")
    found = destination.plugin.destination._run(setting).fetchone()[0]
    wanted = dict(pair.split("=") for pair in given.split("&"))[name]
    assert str(found).lower() != str(usual).lower() or name == "threads"
    assert str(found).lower().startswith(wanted.lower()) or name == "memory_limit"
    destination.insert(people(), rows(people(), (1, "a")))


def test_an_option_that_does_not_exist_is_named(path):
    plugin = DuckDB.as_plugin()
    with pytest.raises(PluginError, match="no_such_option"):
        plugin.init({"connection_string": f"{path}?no_such_option=1"})
    plugin.close()


def test_a_file_opened_for_reading_only_takes_no_rows(open_destination, path):
    first = open_destination(DuckDB, connection_string=path)
    first.insert(people(), rows(people(), (1, "a")))
    first.plugin.close()
    destination = open_destination(DuckDB, connection_string=f"{path}?access_mode=read_only")
    destination.expect(people(), rows(people(), (1, "a")))
    with pytest.raises(PluginError, match="read-only"):
        destination.write(Insert(people(), rows(people(), (2, "a"))))


@pytest.mark.skipif(os.geteuid() == 0, reason="rights do not bind root")
def test_a_file_that_may_not_be_written_is_told(path):
    duckdb.connect(path).close()
    os.chmod(path, 0o400)
    plugin = DuckDB.as_plugin()
    with pytest.raises(PluginError, match=r"x.duckdb' cannot be opened"):
        plugin.init({"connection_string": path})
    plugin.close()


@pytest.mark.parametrize(
    ("where", "words"),
    [("nowhere/x.duckdb", "folder .*nowhere' of the database does not exist"), ("", "cannot be opened"),
     ("text.txt", "cannot be opened")],
)  # fmt: skip
def test_a_place_that_holds_no_database_is_named(tmp_path, where, words):
    (tmp_path / "text.txt").write_text("no database at all, but a text that is long enough\n" * 10)
    plugin = DuckDB.as_plugin()
    with pytest.raises(PluginError, match=words):
        plugin.init({"connection_string": f"{tmp_path}/{where}"})
    plugin.close()


def test_a_database_in_memory_goes_with_its_destination(open_destination):
    for spec in (":memory:", ""):
        destination = open_destination(DuckDB, connection_string=spec)
        destination.publish(people(), rows(people(), (1, "a")))
        destination.expect(people(), rows(people(), (1, "a")))
        other = open_destination(DuckDB, connection_string=spec)
        with pytest.raises(PluginError, match="does not exist"):
            list(other.plugin.read(people()))


def test_debug_logs_statements(open_destination, path, caplog):
    for debug in (False, True):
        destination = open_destination(DuckDB, connection_string=path, debug=debug)
        with caplog.at_level(logging.INFO, "catchment.duckdb"):
            destination.insert(people(), rows(people(), (1, "a")))
        destination.plugin.close()
        assert ('insert into "people"' in caplog.text) is debug


def test_two_destinations_on_one_file_leave_each_others_staged_tables(open_destination, path):
    one, two = (open_destination(DuckDB, connection_string=path) for _ in range(2))
    first = Staged(one, "aaaa0001").add(people(), rows(people(), (1, "one")))
    first.session.flush()
    other = people("other")
    Staged(two, "bbbb0001").add(other, rows(other, (1, "two"))).publish()
    first.publish()
    assert query(path, "select name from people") == [("one",)]
    assert tables(path) == ["other", "people"]


def test_two_destinations_on_one_file_both_write_one_table(open_destination, path):
    table = people()
    for number, destination in enumerate(open_destination(DuckDB, connection_string=path) for _ in range(2)):
        batch = data.batch(table, (f"s{number}", NOW, number, "x"))
        Staged(destination, f"aaaa000{number}").add(table, batch, source=f"s{number}").publish()
    assert query(path, "select id from people order by id") == [(0,), (1,)]


def test_values_of_awkward_types_arrive_as_they_are(destination):
    nested = pa.list_(pa.struct([("a", pa.list_(pa.int64())), ("b", pa.map_(pa.utf8(), pa.timestamp("ns")))]))
    table = data.sourced(
        "t", ("id", pa.int64()), ("wide", pa.decimal256(76, 5)), ("narrow", pa.decimal256(38, 5)),
        ("ns", pa.timestamp("ns")), ("nested", nested), ("no", pa.null()), ("list", pa.list_(pa.list_(uuid()))),
        ("fixed", pa.list_(pa.int32(), 2)), ("large", pa.large_list(pa.utf8())),
    )  # fmt: skip
    values = [
        (1, Decimal("9" * 71 + ".99999"), Decimal("-" + "9" * 33 + ".99999"), -1_000,
         [{"a": None, "b": [("k", -1_000)]}, None], None, [[bytes(16), None], None, []], [1, None], ["a", None]),
        (2, None, None, 9_000_000_000_000_000_000, [], None, None, None, None),
        (3, Decimal("-0.00001"), Decimal(0), -9_000_000_000_000_000_000, [{"a": [None, 1], "b": None}],
         None, [], [3, 4], []),
        (4, None, None, None, None, None, None, None, None),
    ]  # fmt: skip
    whole = rows(table, *values)
    destination.insert(table, whole.slice(1, 2))
    destination.expect(table, whole.slice(1, 2))
    other = table.renamed("other")
    destination.publish(other, whole.slice(0, 1), whole.slice(1, 3))
    destination.expect(other, whole)


def test_a_key_that_is_null_is_named(destination, path):
    table = people()
    destination.insert(table, rows(table, (1, "a")))
    with pytest.raises(PluginError, match=r"(?i)not null constraint failed: people\.id"):
        destination.write(Insert(table, rows(table, (None, "b"))))
    assert query(path, "select id from people") == [(1,)]


def test_what_a_user_set_on_a_live_table_survives_a_publish(destination, path):
    table = people()
    destination.publish(table, rows(table, (1, "a"), (2, "b")))
    with duckdb.connect(path) as connection:
        connection.execute("comment on table people is 'mine'")
        connection.execute("create index mine on people (name)")
    Staged(destination).add(table, rows(table, (2, "c"), (3, "d"))).publish()
    assert query(path, "select id, name from people order by id") == [(2, "c"), (3, "d")]
    assert query(path, "select index_name from duckdb_indexes()") == [("mine",)]
    assert query(path, "select comment from duckdb_tables()") == [("mine",)]


@pytest.mark.parametrize("name", ["duckdb_tables", "sqlite_master"])
def test_a_table_with_the_name_of_a_system_view_is_refused(destination, name):
    table = people(name)
    with pytest.raises(PluginError, match=f"`{name}` has the name of one of DuckDB's own"):
        destination.insert(table, rows(table, (1, "a")))
    with pytest.raises(PluginError, match=f"`{name}` has the name of one of DuckDB's own"):
        destination.publish(table, rows(table, (1, "a")))


def test_columns_that_are_gone_keep_their_types_whatever_they_are(destination, path):
    nested = pa.list_(pa.struct([("select", pa.int64())]))
    before = people("people", ("gone", nested), ("too", pa.map_(pa.utf8(), pa.int8())))
    destination.insert(before, data.batch(before, ("other", NOW, 9, "theirs", [{"select": 1}], [("a", 1)])))
    with duckdb.connect(path) as connection:
        connection.execute("alter table people add column mood enum('good', 'bad'); update people set mood = 'bad'")
    after = people()
    for number in range(2):
        destination.publish(after, rows(after, (number, "a"), (number, "b")))
    kinds = query(path, "select name, type from pragma_table_info('people') where name in ('gone', 'too', 'mood')")
    assert kinds == [
        ("gone", 'STRUCT("select" BIGINT)[]'),
        ("too", "MAP(VARCHAR, TINYINT)"),
        ("mood", "ENUM('good', 'bad')"),
    ]
    assert query(path, "select mood::text, gone[1]['select'] from people where id = 9") == [("bad", 1)]


def test_nested_columns_keep_their_types_where_staged_keys_come_twice(destination):
    table = people("people", ("list", pa.list_(pa.int64())), ("struct", pa.struct([("a", pa.utf8())])))
    batch = rows(table, (1, "a", [1], {"a": "x"}), (1, "b", [2, None], None), (2, "c", None, {"a": None}))
    destination.publish(table, batch)
    destination.expect(table, batch.slice(1))
