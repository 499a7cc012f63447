"""What MySQL and MariaDB are given that they may not like: names, values, tables of others, connection strings."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from catchment.destinations.mysql import MySQL
from catchment.errors import PluginError
from catchment.messages import DeleteRecord, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.types import inet, json, uuid
from catchment.sdk import Column
from catchment.testing import data
from tests.destinations.conftest import KEYS, NOW, Staged, people, rows

NAMES = [
    'quo"te',
    "back`tick",
    "`; drop table live; -- ",
    "per%cent %s %(x)s %d %%",
    "back\\slash \\' \\n",
    "sp ace",
    "Über 日本",
    "select",
    "new\nline\ttab",
    "semi;colon /* x */ #",
    "@variable :name ?",
    "123",
]


@pytest.fixture
def destination(open_destination, mysql_dsn):
    return open_destination(MySQL, connection_string=mysql_dsn)


@pytest.mark.parametrize("name", [name.strip() for name in NAMES])
def test_hostile_names_of_tables_columns_and_sources_are_only_names(destination, ask_mysql, name):
    ask_mysql("create table live as select 1 as x")
    unique = Column(f"{name}u", pa.int64(), unique=True)
    table = data.sourced(name, (name, pa.int64()), ("list", pa.list_(json())), unique, keys=[name])
    quoted = "`" + name.replace("`", "``") + "`"
    batch = data.batch(table, (name, NOW, 1, [b"1"], 1), (name, NOW, 2, None, 2), ("other", NOW, 3, None, 3))

    destination.insert(table, batch)
    destination.insert(table, batch)
    later = NOW + datetime.timedelta(seconds=1)
    for hang in (False, True):
        if hang:
            ask_mysql(f"create trigger mine before insert on {quoted} for each row set @x = 1")
        Staged(destination, f"cafe{hang:04}").add(
            table, data.batch(table, (name, later, 2, None, 7)), source=name
        ).publish()
        assert sorted(ask_mysql(f"select * from {quoted}"), key=lambda row: row[2])[0][2:] == (2, None, 7)
        assert len(ask_mysql(f"select * from {quoted}")) == 2
    destination.insert(table, data.batch(table, ("other", NOW, 3, None, 4)))
    destination.delete_stale(table, name, later + datetime.timedelta(seconds=1))
    assert len(ask_mysql(f"select * from {quoted}")) == 1
    where = (PredicateGroup((Predicate(name, pa.array([3])), Predicate("_cq_source_name", pa.array(["other"])))),)
    destination.write(MigrateTable(table), DeleteRecord(name, where))
    assert ask_mysql(f"select * from {quoted}") == []
    assert ask_mysql("select * from live") == [(1,)]
    assert {found for (found,) in ask_mysql("show tables")} == {"live", name}


def test_names_of_64_characters_fit_and_others_are_refused_by_name(destination, ask_mysql):
    name, column = "é" * 64, "日" * 64
    table = data.sourced(
        name, (column, pa.int64()), Column(column[:60] + "xyz", pa.int64(), unique=True), keys=[column]
    )
    for _ in range(2):
        destination.publish(table, data.batch(table, ("suite", NOW, 1, 2)))
    assert ask_mysql("show tables") == [(name,)]
    for wrong, reason in [
        (people("x" * 65), "has 65 characters, MySQL takes 64"),
        (people("people", ("y" * 65, pa.utf8())), "has 65 characters, MySQL takes 64"),
        (people("party 🎉"), "beyond U"),
        (people("people", ("end ", pa.utf8())), "ends in a blank"),
        (people("people", ("Name", pa.utf8())), "`name` and `Name`, which are one name to MySQL"),
        (people("people", *((f"c{number}", pa.int8()) for number in range(1_590))), "1,594 columns, MySQL takes 1,017"),
    ]:
        for write in (lambda t=wrong: destination.write(MigrateTable(t)), lambda t=wrong: destination.publish(t)):
            with pytest.raises(PluginError, match=reason):
                write()
    assert ask_mysql("show tables") == [(name,)]


def test_wide_tables_are_kept_as_long_as_their_rows_fit(destination, ask_mysql):
    table = people("wide", *((f"c{number}", pa.utf8()) for number in range(400)))
    destination.insert(table, rows(table, (1, "a", *(["x"] * 400))))
    destination.publish(table, rows(table, (2, "b", *(["y"] * 400))))
    assert ask_mysql("select id, c399 from wide") == [(2, "y")]
    with pytest.raises(PluginError, match=r'(?s)"id":3.*[Rr]ow size too large'):
        destination.insert(table, rows(table, (3, "c", *(["long" * 100] * 400))))
    assert ask_mysql("select id from wide") == [(2,)]


VALUES = [
    (pa.float64(), 1.7976931348623157e308),
    (pa.float64(), 5e-324),
    (pa.float64(), 0.1 + 0.2),
    (pa.float64(), -1e-7),
    (pa.float32(), 16_777_217.0),
    (pa.float32(), 1.1754943508222875e-38),
    (pa.float16(), 0.333251953125),
    (pa.int64(), -(2**63)),
    (pa.uint64(), 2**64 - 1),
    (pa.decimal128(38, 0), Decimal(10**38 - 1)),
    (pa.decimal256(65, 30), Decimal("-" + "9" * 35 + "." + "9" * 30)),
    (pa.decimal256(76, 40), Decimal("-" + "9" * 36 + "." + "9" * 40)),
    (pa.date32(), datetime.date(1, 1, 1)),
    (pa.date32(), datetime.date(9999, 12, 31)),
    (pa.timestamp("us"), datetime.datetime(1, 1, 1)),
    (pa.timestamp("us"), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)),
    (pa.timestamp("s"), datetime.datetime(1969, 12, 31, 23, 59, 59)),
    (pa.timestamp("ms"), datetime.datetime(1969, 12, 31, 23, 59, 59, 999000)),
    (pa.time64("us"), datetime.time(23, 59, 59, 999999)),
    (pa.binary(), b"\0\xff\\\n\t'\"\x1a"),
    (pa.binary(), b""),
    (pa.binary(300), b"\0" * 300),
    (pa.utf8(), ""),
    (pa.utf8(), "\\N"),
    (pa.utf8(), "NULL"),
    (pa.utf8(), "tab\tline\nreturn\r\nback\\slash \\t \\\\ \0 nul \x1a end"),
    (pa.utf8(), "🎉 é é  "),
    (pa.utf8(), "x" * 70_000),
    (pa.large_utf8(), "long"),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=lambda value: str(value)[:20].encode("unicode_escape").decode())
def test_awkward_values_arrive_as_they_are(destination, kind, value):
    table = people("people", ("v", kind))
    batch = rows(table, (1, "a", value), (2, "b", None))
    destination.insert(table, batch)
    destination.insert(table, batch)
    destination.publish(table.renamed("staged"), batch)
    for name in ("people", "staged"):
        destination.expect(table.renamed(name), batch)


def test_a_text_that_the_driver_reads_is_the_text_that_was_written(destination, ask_mysql):
    text = "tab\tline\nreturn\r\nback\\slash \\t \0 nul \x1a 'quote' \"double\" 🎉"
    table = people()
    destination.insert(table, rows(table, (1, text)))
    assert ask_mysql("select name from people") == [(text,)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("keys", [("id",), ()])
def test_numbers_that_mysql_has_not_are_refused_with_their_column_and_row(destination, ask_mysql, value, keys):
    table = people("people", ("v", pa.float64()), keys=keys)
    with pytest.raises(PluginError, match=rf'(?s)"id":2.*column `v` holds {value}'):
        destination.insert(table, rows(table, (1, "a", 0.5), (2, "b", value)))
    assert ask_mysql("select * from people") == []


@pytest.mark.parametrize("keys", [("id",), ()])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.date32(), 2**31 - 1),
        (pa.timestamp("s"), 2**40),
        (pa.timestamp("us"), -(2**60)),
        (json(), b"{"),
    ],
    ids=str,
)
def test_values_that_there_is_no_room_for_are_refused_and_never_changed(destination, ask_mysql, kind, value, keys):
    table = people("people", ("v", kind), keys=keys)
    destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match=r'(?s)"id":2.*`?v`?'):
        destination.write(Insert(table, rows(table, (1, "a", None), (2, "b", value))))
    with pytest.raises(PluginError, match=r'(?s)"id":2'):
        destination.publish(table, rows(table, (1, "a", None), (2, "b", value)))
    assert ask_mysql("select id from people") == []


@pytest.mark.parametrize("keys", [("id",), ()])
def test_a_null_among_values_is_a_refused_row(destination, ask_mysql, keys):
    table = data.sourced("people", ("id", pa.int64()), Column("name", pa.utf8(), not_null=True), keys=keys)
    batch = data.batch(table, ("suite", NOW, 1, "a"), ("suite", NOW, 2, None), ("suite", NOW, 3, "c"))
    destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match=r'(?s)"id":2.*column.*name'):
        destination.write(Insert(table, batch))
    assert ask_mysql("select id from people") == []


def test_a_column_that_somebody_made_too_narrow_refuses_what_it_would_cut(destination, ask_mysql):
    table = people(keys=())
    destination.write(MigrateTable(table))
    ask_mysql("alter table people modify name varchar(5), add price decimal(4,1)")
    destination.insert(table, rows(table, (1, "fits")))
    with pytest.raises(PluginError, match=r"too long for column 'name'"):
        destination.insert(table, rows(table, (2, "fits"), (3, "fits not")))
    assert ask_mysql("select id from people") == [(1,)]


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("float", "bool", "time ns", "timestamp ns")])
def test_keys_of_every_type_tell_rows_apart(destination, name):
    kind, values = KEYS[name]
    if name == "text":
        values = ["", "a\0b", "a", "A", "á", "a ", "a\t", "\uff41", "ß", "ss", "x" * 700]
        if destination.plugin.destination._connections.server.pads:
            values.remove("a ")
    table = data.sourced("keyed", ("k", kind), ("n", pa.int64()), keys=["k"])
    first = data.batch(table, *(("suite", NOW, value, n) for n, value in enumerate(values)))
    again = data.batch(table, *(("suite", NOW, value, n + 100) for n, value in enumerate(values)))
    destination.insert(table, first)
    destination.insert(table, again)
    destination.expect(table, again, key="n")
    destination.publish(table, first)
    destination.expect(table, first, key="n")
    destination.write(MigrateTable(table))


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.time64("ns")], ids=str)
def test_nanoseconds_are_cut_but_in_a_key_where_they_are_refused(destination, kind):
    plain, keyed = (
        data.sourced(name, ("k", kind), ("n", pa.int64()), keys=keys) for name, keys in (("p", ()), ("q", ["k"]))
    )
    batch = data.batch(plain, ("suite", NOW, 1_999, 1), ("suite", NOW, 1_000, 2), ("suite", NOW, None, 3))
    destination.insert(plain, batch)
    destination.expect(plain, batch, key="n")
    destination.insert(keyed, batch.slice(1, 1))
    with pytest.raises(PluginError, match="key column `k` holds nanoseconds"):
        destination.insert(keyed, batch.slice(0, 2))


@pytest.mark.parametrize(
    "text",
    [b"12345678901234567890123", b'{"a": [0.12345678901234567890123]}', b"18446744073709551616", b"1e400"],
    ids=lambda text: text.decode()[:12],
)
def test_numbers_in_json_are_kept_or_refused_but_never_rounded(destination, ask_mysql, text):
    table = people("people", ("v", json()))
    if destination.plugin.destination._connections.server.is_mariadb:
        destination.insert(table, rows(table, (1, "a", text)))
        assert ask_mysql("select v from people") == [(text.decode(),)]
        return
    with pytest.raises(PluginError, match=r'(?s)"id":2.*(would round|column.*v)'):
        destination.insert(table, rows(table, (1, "a", b'{"id": "12345678901234567890123"}'), (2, "b", text)))


@pytest.mark.parametrize(
    "text",
    [b"18446744073709551615", b"-9223372036854775808", b"0.30000000000000004", b"1e22", b"1.10"],
    ids=bytes.decode,
)
def test_numbers_in_json_that_fit_are_kept(destination, text):
    table = people("people", ("v", json()))
    destination.insert(table, rows(table, (1, "a", text)))
    destination.expect(table, rows(table, (1, "a", text)))


def test_a_key_with_a_blank_at_its_end_is_another_key_or_refused(destination, ask_mysql):
    table = data.sourced("keyed", ("k", pa.utf8()), keys=["k"])
    batch = data.batch(table, ("suite", NOW, "a"), ("suite", NOW, "a "))
    if destination.plugin.destination._connections.server.pads:
        with pytest.raises(PluginError, match="key column `k` holds a text with a blank at its end"):
            destination.insert(table, batch)
        return
    destination.insert(table, batch)
    assert len(ask_mysql("select * from keyed")) == 2


def test_several_text_keys_share_the_room_of_a_key(destination, ask_mysql):
    names = [f"k{number}" for number in range(12)]
    table = data.sourced("keyed", *((name, pa.utf8()) for name in names), ("id", pa.int64()), keys=[*names, "id"])
    destination.insert(table, data.batch(table, ("suite", NOW, *(["é" * 50] * 12), 1)))
    assert len(ask_mysql("select * from keyed")) == 1
    with pytest.raises(PluginError, match="too long for column 'k0'"):
        destination.insert(table, data.batch(table, ("suite", NOW, *(["é" * 80] * 12), 2)))


def test_sources_and_predicates_are_told_apart_by_case(destination, ask_mysql):
    ask_mysql("create table people (_cq_source_name text, _cq_sync_time datetime(6), id bigint primary key, name text) "
              "character set utf8mb4 collate utf8mb4_general_ci")  # fmt: skip
    table = people()
    destination.insert(table, rows(table, (1, "a")), rows(table, (2, "A"), source="SUITE"))
    destination.delete_stale(table, "Suite", NOW + datetime.timedelta(days=1))
    destination.write(
        MigrateTable(table), DeleteRecord("people", (PredicateGroup((Predicate("name", pa.array(["á"])),)),))
    )
    assert len(ask_mysql("select id from people")) == 2
    destination.write(
        MigrateTable(table), DeleteRecord("people", (PredicateGroup((Predicate("name", pa.array(["A"])),)),))
    )
    assert ask_mysql("select id from people") == [(1,)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.utf8(), "x\\y'"), (pa.binary(), b"\0\xff"), (uuid(), bytes(range(16))), (pa.bool_(), True),
        (pa.float32(), 0.1), (pa.decimal128(10, 2), Decimal("1.10")), (pa.date32(), datetime.date(2024, 1, 2)),
        (pa.timestamp("us", "UTC"), NOW), (pa.time64("us"), datetime.time(1, 2, 3, 4)), (inet(), b"10.0.0.1"),
        (pa.uint64(), 2**64 - 1),
    ],
    ids=str,
)  # fmt: skip
def test_records_are_deleted_by_values_of_every_type(destination, ask_mysql, kind, value):
    table = people("people", ("v", kind))
    destination.insert(table, rows(table, (1, "a", value), (2, "b", None)))
    where = (PredicateGroup((Predicate("v", data.array([value], kind)),)),)
    destination.write(MigrateTable(table), DeleteRecord("people", where))
    assert ask_mysql("select id from people") == [(2,)]


def test_json_is_kept_apart_from_null_and_asked_as_json(destination, ask_mysql):
    table = people("people", ("v", json()), ("l", pa.list_(pa.utf8())))
    destination.insert(table, rows(table, (1, "a", b"null", ["x\ty", None]), (2, "b", None, None),
                                   (3, "c", b'{"n": "\\u0000", "deep": [1]}', [])))  # fmt: skip
    found = ask_mysql("select v is null, json_type(v), json_extract(l, '$[0]') from people order by id")
    assert found[0] == (0, "NULL", '"x\\ty"')
    assert found[1] == (1, None, None)
    assert ask_mysql("select json_extract(v, '$.deep[0]') from people where id = 3") == [("1",)]


TABLE_OF_UPSTREAM = """
create table things (
    `_cq_source_name` text, `_cq_sync_time` datetime(6), `id` bigint, `name` text, `flag` tinyint(1), `raw` blob,
    `amount` text, `day` text, `clock` text, `half` text, `tags` json, `pairs` text, `doc` json, `one` binary(16),
    primary key (`id`)
) character set utf8mb4
"""


def test_a_table_that_upstream_made_is_written_as_it_is(destination, ask_mysql):
    ask_mysql(TABLE_OF_UPSTREAM)
    table = data.sourced(
        "things", ("id", pa.int64()), ("name", pa.utf8()), ("flag", pa.bool_()), ("raw", pa.binary()),
        ("amount", pa.decimal128(19, 10)), ("day", pa.date32()), ("clock", pa.time64("us")), ("half", pa.float16()),
        ("tags", pa.list_(pa.utf8())), ("pairs", pa.map_(pa.utf8(), pa.int64())), ("doc", json()), ("one", uuid()),
    )  # fmt: skip
    first, second = data.rows(table, 5), data.rows(table, 5, seed=1)
    destination.insert(table, first)
    destination.expect(table, first)
    destination.publish(table, second)
    destination.expect(table, second)
    kinds = ask_mysql("select column_type from information_schema.columns where table_schema = database() "
                      "and table_name = 'things' and column_name in ('amount', 'day')")  # fmt: skip
    assert kinds == [("text",), ("text",)]


@pytest.mark.parametrize("publish", [False, True])
def test_a_key_that_upstream_made_of_the_beginning_of_a_text_becomes_one_of_all_of_it(destination, ask_mysql, publish):
    ask_mysql("create table people (_cq_source_name text, _cq_sync_time datetime(6), id text, part bigint, name text, "
              "primary key (id(384), part)) character set utf8mb4")  # fmt: skip
    ask_mysql("insert into people values ('other', '2024-01-01', 'a', 1, 'theirs')")
    table = data.sourced("people", ("id", pa.utf8()), ("part", pa.int64()), ("name", pa.utf8()), keys=["id", "part"])
    long = "x" * 500
    batch = rows(table, ("A", 1, "1"), ("á", 1, "2"), (f"{long}a", 1, "3"), (f"{long}b", 1, "4"), ("", 1, "5"))
    if publish:
        destination.publish(table, batch)
    else:
        destination.insert(table, batch)
    assert sorted(name for (name,) in ask_mysql("select name from people")) == ["1", "2", "3", "4", "5", "theirs"]
    shape = ask_mysql("show create table people")
    destination.write(MigrateTable(table))
    assert ask_mysql("show create table people") == shape


def test_a_view_and_a_table_without_transactions_are_refused(destination, ask_mysql):
    ask_mysql("create view people as select 1 as id")
    ask_mysql(
        "create table old (_cq_source_name text, _cq_sync_time datetime(6), id bigint primary key, name text) "
        "engine=MyISAM"
    )
    for name, reason in (("people", "is a view"), ("old", "MyISAM, which has no transactions")):
        for write in (
            lambda n=name: destination.write(MigrateTable(people(n))),
            lambda n=name: destination.publish(people(n)),
        ):
            with pytest.raises(PluginError, match=reason):
                write()


def test_rows_of_a_table_that_others_hang_on_are_changed_where_they_are(destination, ask_mysql):
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b")))
    ask_mysql("create table pets (owner bigint, foreign key (owner) references people (id) on delete cascade)")
    ask_mysql("insert into pets values (1)")
    ask_mysql("alter table people add note varchar(20) default 'x'")
    ask_mysql("update people set note = 'mine' where id = 1")
    destination.insert(table, rows(table, (1, "A"), (3, "c"), (3, "d")))
    # A row that comes again is a new one: only what refers to it stays.
    assert ask_mysql("select id, name, note from people order by id") == [
        (1, "A", "x"),
        (2, "b", "x"),
        (3, "d", "x"),
    ]
    assert ask_mysql("select owner from pets") == [(1,)]


def test_what_is_there_is_read_without_a_source(destination, ask_mysql):
    ask_mysql("create table odd (id bigint, e enum('a','b'), g point, s set('x','y'), y year, b bit(3), "
              "m mediumint unsigned, t timestamp null, c char(3), d decimal(5,2), "
              "z int(5) unsigned zerofill)")  # fmt: skip
    ask_mysql("insert into odd values (1, 'b', null, 'x,y', 2024, b'101', 7, '2024-01-02 03:04:05', 'é', 1.50, 42)")
    table = destination.plugin.stored_table("odd")
    (batch,) = destination.plugin.read(table)
    found = batch.to_pylist()[0]
    assert found == {
        "id": 1, "e": "b", "s": "x,y", "y": "2024", "b": "5", "m": 7, "t": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "c": "é", "d": Decimal("1.50"), "z": "00042", "g": None,
    }  # fmt: skip
    assert destination.plugin.stored_names() == ["odd"]
    assert destination.plugin.stored_table("none") is None


def test_a_row_longer_than_the_servers_packets_is_written_but_named_when_it_is_read(destination, ask_mysql):
    ((before,),) = ask_mysql("select @@max_allowed_packet")
    ask_mysql("set global max_allowed_packet = 1048576")
    try:
        table = people()
        destination.insert(table, rows(table, (1, "x" * (3 << 20))))
        assert ask_mysql("select length(name) from people") == [(3 << 20,)]
        with pytest.raises(PluginError, match="longer than the server's `max_allowed_packet`"):
            list(destination.plugin.read(table))
    finally:
        ask_mysql(f"set global max_allowed_packet = {before}")


@pytest.mark.parametrize("force", [False, True])
def test_a_foreign_key_that_hinders_a_forced_change_is_named(destination, ask_mysql, force):
    before, after = (
        data.sourced("people", ("id", pa.int64()), ("v", kind)) for kind in (pa.utf8(), pa.list_(pa.int64()))
    )
    destination.insert(before, rows(before, (1, "a")))
    ask_mysql("create table pets (owner bigint, foreign key (owner) references people (id))")
    with pytest.raises(PluginError, match="pets" if force else "migrate_mode: forced"):
        destination.write(MigrateTable(after, force=force))
    assert ask_mysql("select v from people") == [("a",)]


def test_rows_of_many_batches_come_in_order_so_that_the_last_of_equal_keys_stays(destination, ask_mysql):
    table = people()
    batches = [rows(table, *((n % 7, f"{part}/{n}") for n in range(50))) for part in range(20)]
    destination.insert(table, *batches)
    assert ask_mysql("select id, name from people order by id")[0] == (0, "19/49")
    staged = Staged(destination).add(table)
    for batch in batches:
        staged.session.write(Insert(staged.swaps[0].staged, batch))
        staged.session.flush()
    staged.publish()
    assert dict(ask_mysql("select id, name from people")) == {n: f"19/{49 - (49 - n) % 7}" for n in range(7)}


def test_the_preview_names_views_and_rows(destination, ask_mysql):
    before, after = (
        data.sourced("people", ("id", pa.int64()), ("v", kind)) for kind in (pa.utf8(), pa.list_(pa.int64()))
    )
    destination.insert(before, rows(before, (1, "a")))
    ask_mysql("create view seen as select v from people")
    ask_mysql("analyze table people")
    (safe,) = destination.plugin.preview([after], force=False)
    (forced,) = destination.plugin.preview([after], force=True)
    assert (safe.action, safe.dependents) == ("refused", ("view `seen`",))
    assert (forced.action, forced.dependents) == ("recreate", ("view `seen`",))
    assert safe.rows in (0, 1)
