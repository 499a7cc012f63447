"""SQLite: files that others have locked, forms of the connection string, and odd names and values."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pyarrow as pa
import pytest

from catchment.destinations.sqlite import SQLite
from catchment.errors import PluginError, PluginLost, SpecError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.types import json
from catchment.testing import data
from tests.destinations.conftest import NOW, people, rows

NAMES = [
    'quo"te',
    '"; drop table live; --',
    "per%cent %s ?1 :a @b $c",
    "back\\slash \\'",
    "apo'strophe",
    "bra[ck]et `tick`",
    "semi;colon",
    "Über 日本 🎉",
    "select",
    "new\nline",
    "rowid",
    "dot.ted",
]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.sqlite")


@pytest.fixture
def destination(open_destination, path):
    return open_destination(SQLite, connection_string=path)


def query(path, text, *values):
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(text, values).fetchall()
    finally:
        connection.close()


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
rows = connection.execute(sys.argv[2])
rows.fetchone()
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path, statement):
    """The file, held by another process in the middle of a statement; gives a function that ends it.

    Locks of a process do not bind another copy of SQLite in that process, such as the driver's.
    """
    command = [sys.executable, "-c", LOCK, path, statement]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        yield holder.stdin.close
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def hurry(destination, milliseconds=100):
    """Wait less long for a lock than in earnest."""
    destination.plugin.destination._opened.run(f"pragma busy_timeout = {milliseconds}")


def test_a_locked_file_is_tried_again_until_it_is_free(destination, path):
    hurry(destination)
    with held(path, "begin exclusive") as release:
        timer = threading.Timer(0.8, release)
        timer.start()
        started = time.monotonic()
        destination.insert(people(), rows(people(), (1, "a")))
        assert time.monotonic() - started > 0.5
        timer.join()
    assert query(path, "select id, name from people") == [(1, "a")]


def test_a_file_that_stays_locked_is_told_and_nothing_is_in_it(open_destination, path):
    destination = open_destination(SQLite, connection_string=path, attempts=3)
    hurry(destination)
    with held(path, "begin exclusive"), pytest.raises(PluginLost, match="database is locked"):
        destination.insert(people(), rows(people(), (1, "a")))
    assert query(path, "select * from sqlite_master") == []


def test_a_reader_in_the_middle_of_a_query_keeps_its_rows(destination, path):
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    hurry(destination, 50)
    with held(path, "select id from people order by id") as release:
        timer = threading.Timer(0.5, release)
        timer.start()
        destination.insert(table, rows(table, (3, "c")))
        timer.join()
    assert query(path, "select count(*) from people") == [(3,)]


def test_two_syncs_into_one_file_both_get_in(open_destination, path):
    errors = []

    def load(number):
        destination = open_destination(SQLite, connection_string=path, attempts=60)
        hurry(destination)
        table = people(f"t{number}")
        try:
            for batch in range(15):
                destination.insert(table, rows(table, (batch, "x")))
        except PluginError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [query(path, f"select count(*) from t{number}") for number in range(3)] == [[(15,)]] * 3


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_of_tables_columns_and_sources_are_only_names(destination, path, name):
    destination.insert(people("live"), rows(people("live"), (1, "a")))
    table = data.sourced(name, (name, pa.int64()), ("v", pa.utf8()), keys=[name])
    batch = data.batch(table, (name, NOW, 1, "a"), (name, NOW, 2, name), ("other", NOW, 3, "c"))
    destination.insert(table, batch)
    destination.insert(table, batch)
    destination.expect(table, batch, key=name)
    wider = data.sourced(name, (name, pa.int64()), ("v", pa.utf8()), (f"{name}2", pa.int64()), keys=[name])
    destination.insert(wider, data.batch(wider, (name, NOW, 4, "d", 4)))
    where = (PredicateGroup((Predicate(name, pa.array([3])), Predicate("_cq_source_name", pa.array(["other"])))),)
    destination.write(MigrateTable(table), DeleteRecord(name, where))
    destination.expect(table, batch.slice(0, 2), data.batch(table, (name, NOW, 4, "d")), key=name)
    destination.write(DeleteStale(table, name, NOW + datetime.timedelta(seconds=1)))
    destination.expect(table, batch.slice(0, 0), key=name)
    assert query(path, "select id from live") == [(1,)]


@pytest.mark.parametrize("name", ["sqlite_mine", "SQLite_sequence"])
def test_a_name_that_sqlite_keeps_for_itself_is_refused(destination, name):
    with pytest.raises(PluginError, match=f"object name reserved for internal use: {name}$"):
        destination.insert(people(name), rows(people(name), (1, "a")))


def test_more_columns_than_sqlite_takes_are_an_error_with_both_numbers(destination, path):
    def wide(count):
        return data.sourced(f"wide{count}", ("id", pa.int64()), *((f"c{n}", pa.int64()) for n in range(count - 3)))

    most = wide(2_000)
    destination.insert(most, rows(most, (1, *range(1_997))))
    assert query(path, "select c1996 from wide2000") == [(1_996,)]
    with pytest.raises(PluginError, match="table `wide2001` has 2,001 columns, SQLite takes 2,000"):
        destination.write(MigrateTable(wide(2_001)))


def test_nan_is_refused_by_column_and_infinity_is_kept(destination, path):
    table = people("people", ("v", pa.float64()), ("w", pa.float16()))
    destination.insert(table, rows(table, (1, "a", float("inf"), float("-inf"))))
    assert query(path, "select v, w from people") == [(float("inf"), float("-inf"))]
    for values, column in [((float("nan"), 1.0), "v"), ((1.0, float("nan")), "w")]:
        with pytest.raises(PluginError, match=f"column `{column}` holds NaN"):
            destination.write(Insert(table, rows(table, (2, "a", *values))))
    assert query(path, "select id from people") == [(1,)]


@pytest.mark.parametrize("keys", [("id",), ("id", "name")])
def test_a_key_that_is_null_is_refused_by_name(destination, path, keys):
    table = people(keys=keys)
    destination.insert(table, rows(table, (1, "a")))
    for row, key in [((None, "b"), "id"), ((2, None), "name")]:
        if key in keys:
            with pytest.raises(PluginError, match=f"key column `{key}` of table `people` is null in a row"):
                destination.write(Insert(table, rows(table, (5, "good"), row)))
    assert query(path, "select id from people") == [(1,)]


def test_huge_numbers_arrive_as_they_are(destination, path):
    table = people("people", ("u", pa.uint64()), ("d", pa.decimal256(76, 0)), ("i", pa.int64()), ("f", pa.float64()))
    values = (2**64 - 1, Decimal("9" * 76), -(2**63), 1.7976931348623157e308)
    batch = rows(table, (2**63 - 1, "a", *values), (-(2**63), "b", 0, Decimal(-1), 2**63 - 1, 5e-324))
    destination.insert(table, batch)
    destination.expect(table, batch)
    found = query(path, "select id, u, d, i, f from people order by id desc")[0]
    assert found == (2**63 - 1, str(2**64 - 1), "9" * 76, -(2**63), 1.7976931348623157e308)


def test_texts_that_look_like_numbers_stay_texts(destination, path):
    table = people("people", ("j", json()), ("b", pa.binary()))
    batch = rows(
        table, (1, "0012", b"1", b"12"), (2, "1e5", b'{"a":1}', b""), (3, "", None, b"\0"), (4, "a\0b", None, None)
    )
    destination.insert(table, batch)
    destination.expect(table, batch)
    assert query(path, "select name, typeof(name), typeof(j), typeof(b) from people where id = 1") == [
        ("0012", "text", "text", "blob")
    ]


def test_moments_keep_their_order_and_digits(destination, path):
    table = people("people", ("us", pa.timestamp("us", "UTC")), ("ns", pa.timestamp("ns")), ("s", pa.timestamp("s")))
    first = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
    last = datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC)
    batch = rows(table, (1, "a", first, -1_000, datetime.datetime(1969, 12, 31)), (2, "b", last, 2**62, None))
    destination.insert(table, batch)
    assert query(path, "select us from people order by us") == [
        ("0001-01-01 00:00:00.000000Z",), ("9999-12-31 23:59:59.999999Z",)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "form",
    [
        "{folder}/x.sqlite",
        "x.sqlite",
        "file:{folder}/x.sqlite",
        "file://{folder}/x.sqlite",
        "file:x.sqlite",
        "file:{folder}/x.sqlite?mode=rwc&cache=private",
        "file:{folder}/x.sqlite?_journal_mode=WAL",
        "{folder}/x.sqlite?_journal_mode=WAL&_txlock=immediate",
        "{folder}/x.sqlite?mode=memory",
    ],
)
def test_forms_of_the_connection_string(open_destination, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    text = form.format(folder=tmp_path)
    destination = open_destination(SQLite, connection_string=text)
    destination.insert(people(), rows(people(), (1, "a")))
    destination.plugin.close()
    assert os.listdir(tmp_path) == ["x.sqlite"]
    assert query(str(tmp_path / "x.sqlite"), "select id from people") == [(1,)]


OPTIONS = {
    "_journal_mode=WAL": ("journal_mode", "wal"),
    "_journal=TRUNCATE": ("journal_mode", "truncate"),
    "_busy_timeout=123": ("busy_timeout", 123),
    "_timeout=123": ("busy_timeout", 123),
    "_synchronous=OFF": ("synchronous", 0),
    "_sync=3": ("synchronous", 3),
    "_foreign_keys=true": ("foreign_keys", 1),
    "_fk=1&_defer_fk=no": ("foreign_keys", 1),
    "_cache_size=-1000": ("cache_size", -1000),
    "_auto_vacuum=incremental": ("auto_vacuum", 2),
    "_vacuum=FULL": ("auto_vacuum", 1),
    "_secure_delete=fast": ("secure_delete", 2),
    "_recursive_triggers=on": ("recursive_triggers", 1),
    "_rt=on": ("recursive_triggers", 1),
    "_ignore_check_constraints=yes": ("ignore_check_constraints", 1),
    "_locking=EXCLUSIVE": ("locking_mode", "exclusive"),
    "_cslike=1&_loc=auto&_mutex=no&_txlock=exclusive&_unknown=1&_busy_timeout=": ("busy_timeout", 5000),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("form", ["{}?{}", "file:{}?{}"])
def test_options_of_the_go_driver_are_in_force(open_destination, path, option, form):
    destination = open_destination(SQLite, connection_string=form.format(path, option))
    for number in range(2):
        destination.publish(people(), rows(people(), (number, "a")))
    destination.expect(people(), rows(people(), (1, "a")))
    pragma, value = OPTIONS[option]
    assert destination.plugin.destination._opened.run(f"pragma {pragma}") == [(value,)]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("_journal_mode=wall", "option `_journal_mode` of the connection string is one of `delete`, .*, not 'wall'"),
        ("_fk=maybe", "option `_fk` of the connection string is one of `0`, `no`, .*, not 'maybe'"),
        ("_timeout=5s", "option `_timeout` of the connection string is a whole number, not '5s'"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused_by_name(path, option, words):
    with pytest.raises(SpecError, match=words):
        SQLite.as_plugin().init({"connection_string": f"{path}?{option}"}, no_connection=True)


def test_a_file_that_is_opened_for_queries_only_takes_no_rows(open_destination, destination, path):
    destination.insert(people(), rows(people(), (1, "a")))
    reader = open_destination(SQLite, connection_string=f"{path}?_query_only=true")
    reader.expect(people(), rows(people(), (1, "a")))
    with pytest.raises(PluginError, match="attempt to write a readonly database"):
        reader.write(Insert(people(), rows(people(), (2, "a"))))


def test_a_uri_with_escapes_names_the_file_without_them(open_destination, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    text = f"file:{str(folder).replace(' ', '%20')}/%25x.sqlite"
    destination = open_destination(SQLite, connection_string=text)
    destination.insert(people(), rows(people(), (1, "a")))
    assert os.listdir(folder) == ["%x.sqlite"]


def test_a_file_for_reading_only_takes_no_rows(open_destination, destination, path):
    destination.insert(people(), rows(people(), (1, "a")))
    reader = open_destination(SQLite, connection_string=f"file:{path}?mode=ro")
    reader.expect(people(), rows(people(), (1, "a")))
    with pytest.raises(PluginError, match="readonly database"):
        reader.write(Insert(people(), rows(people(), (2, "a"))))
    with pytest.raises(PluginError, match="cannot be opened: it is missing"):
        open_destination(SQLite, connection_string=f"file:{path}.none?mode=rw")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nowhere/x.sqlite", "folder .*nowhere' of the database does not exist"),
        ("file:nowhere/x.sqlite", "folder 'nowhere' of the database does not exist"),
        (".", "cannot be opened: it is a folder"),
        ("text.txt", "not a database"),
    ],
)
def test_a_place_that_holds_no_database_is_named(open_destination, tmp_path, monkeypatch, where, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("no database at all, but a text that is long enough\n" * 10)
    with pytest.raises(PluginError, match=words):
        open_destination(SQLite, connection_string=where).insert(people(), rows(people(), (1, "a")))


@pytest.mark.parametrize("text", [":memory:", "file::memory:", "file:x?mode=memory"])
def test_a_database_in_memory_leaves_no_file(open_destination, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    destination = open_destination(SQLite, connection_string=text)
    destination.insert(people(), rows(people(), (1, "a")))
    destination.expect(people(), rows(people(), (1, "a")))
    assert os.listdir(tmp_path) == []


def test_values_of_awkward_types_arrive_as_they_are(destination, path):
    nested = pa.list_(pa.struct([("a", pa.list_(pa.int64())), ("b", pa.utf8())]))
    table = data.sourced(
        "t", ("id", pa.int64()), ("d256", pa.decimal256(76, 5)), ("d128", pa.decimal128(38, 10)), ("f", pa.float64()),
        ("ns", pa.timestamp("ns", "UTC")), ("us", pa.timestamp("us")), ("span", pa.month_day_nano_interval()),
        ("bytes", pa.binary()), ("fixed", pa.binary(3)), ("json", json()), ("text", pa.utf8()), ("nested", nested),
        ("select", pa.utf8()), ("Ünï \"x\"", pa.int8()), ("long" * 30, pa.bool_()),
    )  # fmt: skip
    span = pa.MonthDayNano([14, -3, 1_000_000_001])
    values = [
        (1, Decimal("9" * 71 + ".99999"), Decimal("0.0000000001"), float("inf"), -1, datetime.datetime(1, 1, 1), span,
         b"", b"\0\0\0", b"null", "nul \0 in it", [{"a": [1, None], "b": 'q"\\'}, None], "from", -128, True),
        (2, Decimal("-0.00001"), Decimal("-9999999999999999999999999999.9999999999"), -0.0, 2**63 - 1,
         datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999), None, b"\0", None, b'{"a":"\\u0000"}', "", [], None,
         None, None),
        (3, *[None] * 14),
    ]  # fmt: skip
    batch = rows(table, *values)
    destination.publish(table, batch)
    destination.publish(table, batch)
    destination.expect(table, batch)
    destination.insert(table, batch)
    destination.expect(table, batch)
    found = query(path, "select d256, f, ns, span, typeof(bytes), json, typeof(json), nested from t order by id")
    assert found == [
        ("9" * 71 + ".99999", float("inf"), "1969-12-31 23:59:59.999999999Z",
         '{"months":14,"days":-3,"nanoseconds":1000000001}', "blob", "null", "text",
         '[{"a":[1,null],"b":"q\\"\\\\"},null]'),
        ("-0.00001", 0.0, "2262-04-11 23:47:16.854775807Z", None, "blob", '{"a":"\\u0000"}', "text", "[]"),
        (None, None, None, None, "null", None, "null", None),
    ]  # fmt: skip
