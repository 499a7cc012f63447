"""What the database sources do with types, keys, and values that Arrow cannot hold."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest

from catchment.errors import PluginError
from catchment.messages import Insert, TableError
from catchment.plugin import SyncRequest
from catchment.schema import types
from catchment.schema.select import Selection
from catchment.sources.postgresql import postgresql
from catchment.sources.sqlite import sqlite

ALL = Selection(("*",), ())


def read(source, spec):
    """Tables by name, rows by table, and the errors."""
    plugin = source.as_plugin()
    plugin.init(spec)
    try:
        tables = {table.name: table for table in plugin.tables(ALL)}
        messages = list(plugin.sync(SyncRequest(ALL)))
    finally:
        plugin.close()
    rows: dict[str, list[pa.RecordBatch]] = {}
    for message in messages:
        if isinstance(message, Insert):
            rows.setdefault(message.table.name, []).append(message.batch)
    made = {name: pa.Table.from_batches(batches) for name, batches in rows.items()}
    return tables, made, {m.table_name: m.message for m in messages if isinstance(m, TableError)}


@pytest.fixture
def server(postgresql_url):
    """Runs statements, then reads everything."""

    def run(*statements, **spec):
        with psycopg.connect(postgresql_url) as connection:
            for statement in statements:
                connection.execute(statement)
        return read(postgresql, {"connection_string": postgresql_url, **spec})

    return run


def test_postgresql_types_and_values(server):
    tables, rows, errors = server(
        """create table t (id bigint primary key, n numeric(12,3), any_n numeric, j json, jb jsonb, u uuid,
           ip inet, net cidr, m macaddr, ts timestamp, tz timestamptz, d date, t time, i interval, b bytea,
           ints int[], names varchar(5)[], us uuid[], deep int[][], c char(3), r int4range, x text unique,
           y text not null)""",
        """insert into t values (1, 1.500, 1e30, '{"a": 1}', '[1]', '00000000-0000-0000-0000-0000000000ff',
           '10.0.0.1/8', '10.0.0.0/8', 'aa:bb:cc:dd:ee:ff', '2024-01-02 03:04:05.678901',
           '2024-01-02 03:04:05.678901+02', '0001-01-01', '23:59:59.999999', '1 day', '\\x00ff', '{1,NULL}', '{a,b}',
           '{00000000-0000-0000-0000-0000000000ff}', '{{1,2},{3,4}}', 'ab', '[1,5)', 'x', 'y')""",
    )

    assert errors == {}
    assert tables["t"].primary_keys == ("id",)
    assert tables["t"].column("y").not_null
    assert tables["t"].column("x").unique
    row = {name: types.to_storage(rows["t"].column(name)).to_pylist()[0] for name in rows["t"].column_names}
    assert row["n"] == Decimal("1.500")
    assert row["any_n"] == "1" + "0" * 30
    assert (row["j"], row["jb"]) == (b'{"a": 1}', b"[1]")
    assert row["u"] == bytes(15) + b"\xff"
    assert (row["ip"], row["net"]) == (b"10.0.0.1/8", b"10.0.0.0/8")
    assert row["m"] == bytes.fromhex("aabbccddeeff")
    assert row["tz"] == datetime(2024, 1, 2, 1, 4, 5, 678_901, tzinfo=UTC)
    assert row["ts"] == datetime(2024, 1, 2, 3, 4, 5, 678_901)
    assert (row["d"], row["i"], row["b"]) == (date(1, 1, 1), "1 day", b"\x00\xff")
    assert (row["ints"], row["names"]) == ([1, None], ["a", "b"])
    assert row["us"] == ["00000000-0000-0000-0000-0000000000ff"]
    assert row["deep"] == b"[[1, 2], [3, 4]]"
    assert (row["c"], row["r"]) == ("ab ", "[1,5)")
    assert tables["t"].column("n").type.equals(pa.decimal128(12, 3))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("timestamptz", "infinity", "column `v` holds `infinity`"),
        ("timestamp", "-infinity", "column `v` holds `infinity`"),
        ("date", "infinity", "column `v` holds `infinity`"),
        ("numeric(5,2)", "NaN", "column `v`"),
        ("int[]", "{{1,2}}", "column `v` holds arrays of arrays"),
    ],
)
def test_values_that_arrow_cannot_hold_fail_their_table_by_name(server, kind, value, text):
    _, rows, errors = server(
        f"create table bad (v {kind})", f"insert into bad values ('{value}')",
        "create table good (v int)", "insert into good values (1)",
    )  # fmt: skip

    assert text in errors["bad"]
    assert rows["good"].column("v").to_pylist() == [1]


def test_postgresql_reads_one_snapshot_and_views_on_demand(server):
    tables, _, _ = server("create table a (v int)", "create view w as select 1 as v")
    assert set(tables) == {"a"}
    tables, rows, _ = server("insert into a values (3)", views=True)
    assert set(tables) == {"a", "w"}
    assert rows["w"].column("v").to_pylist() == [1]


def test_postgresql_reads_another_schema(server):
    tables, _, _ = server("create schema other", "create table other.z (v int)", schema_name="other")
    assert set(tables) == {"z"}
    with pytest.raises(PluginError, match="schema 'none' has no tables"):
        server(schema_name="none")


def test_postgresql_that_cannot_be_reached():
    plugin = postgresql.as_plugin()
    plugin.init({"connection_string": "host=127.0.0.1 port=1 user=x password=hidden dbname=y"})
    with pytest.raises(PluginError, match="the database cannot be read") as refused:
        plugin.test_connection()
    assert "hidden" not in str(refused.value)


@pytest.fixture
def file(tmp_path):
    """Runs a script, then reads everything."""

    def run(script, **spec):
        path = tmp_path / "x.sqlite"
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
        return read(sqlite, {"connection_string": str(path), **spec})

    return run


def test_sqlite_types_and_values(file):
    tables, rows, errors = file(
        """create table t (id integer primary key, r real, s varchar(9), b blob, f boolean, d decimal(5,2), mixed,
                           big integer);
           insert into t values (1, 1, 'é', x'00', 1, 1.25, 'a', 9223372036854775807), (2, 2.5, null, null, 0, 3, 7, 0);
           create view v as select 1 as one;"""
    )

    assert errors == {}
    found = rows["t"].select(tables["t"].column_names[2:]).drop_columns([]).to_pylist()
    assert [row["r"] for row in found] == [1.0, 2.5]
    assert [row["f"] for row in found] == [True, False]
    assert [row["d"] for row in found] == [1.25, 3.0]
    assert [row["mixed"] for row in found] == ["a", "7"]
    assert [row["big"] for row in found] == [2**63 - 1, 0]
    assert tables["t"].primary_keys == ("id",)
    assert set(tables) == {"t"}


def test_sqlite_views_on_demand(file):
    tables, rows, _ = file("create table t (a integer); create view v as select 5 as one;", views=True)
    assert set(tables) == {"t", "v"}
    assert rows["v"].column("one").to_pylist() == [5]


def test_sqlite_value_of_another_kind_is_named(file):
    script = "create table t (a integer); insert into t values (1), ('not a number'); create table u (b text);"
    _, _, errors = file(script)

    assert "column `a` of table `t` is int64, but holds the text 'not a number'" in errors["t"]


def test_sqlite_value_of_another_kind_after_many_rows_is_named(file):
    script = (
        "create table t (a integer); insert into t with recursive n(i) as "
        "(select 1 union all select i + 1 from n where i < 100000) select i from n; insert into t values (x'00');"
    )
    _, _, errors = file(script)

    assert "holds the blob" in errors["t"]


def test_sqlite_bytes_in_a_column_of_text_are_bytes(file):
    tables, rows, errors = file(
        "create table t (a text, b text, c varchar); insert into t values (null, 'é', 'x'), (x'f3ff4d', 'z', x'00');"
    )

    assert errors == {}
    assert [(column.name, str(column.type)) for column in tables["t"].columns[-3:]] == [
        ("a", "binary"), ("b", "string"), ("c", "binary"),
    ]  # fmt: skip
    assert [row["a"] for row in rows["t"].to_pylist()] == [None, b"\xf3\xff\x4d"]
    assert [row["b"] for row in rows["t"].to_pylist()] == ["é", "z"]
    assert [row["c"] for row in rows["t"].to_pylist()] == [b"x", b"\x00"]


def test_sqlite_bytes_that_are_no_text_are_named_where_text_was_before(file):
    script = (
        "create table t (a text); insert into t with recursive n(i) as "
        "(select 1 union all select i + 1 from n where i < 2000) select 'x' || i from n; "
        "insert into t values (x'f3ff4d');"
    )
    _, _, errors = file(script)

    assert "column `a` of table `t` is string, but holds the blob 'F3FF4D'" in errors["t"]


def test_sqlite_file_that_is_missing(tmp_path):
    plugin = sqlite.as_plugin()
    plugin.init({"connection_string": str(tmp_path / "none.db")})
    with pytest.raises(PluginError, match="there is no file"):
        plugin.tables(ALL)
