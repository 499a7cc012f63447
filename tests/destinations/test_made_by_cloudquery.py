"""Tables that CloudQuery's plugins made are gone on with in `migrate_mode: safe`: nobody who switches loses a row."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema.types import inet, json, mac, uuid
from catchment.testing import data
from tests.destinations.conftest import NOW, people, rows

DATABASES = ("clickhouse", "duckdb", "mariadb", "mysql8", "postgresql", "sqlite")
SLOW = ("clickhouse", "mysql8")
"""Those that take half a second for a type."""
_ID = bytes(range(16))
_STRUCT = pa.struct([("a", pa.int64()), ("b", pa.utf8())])

TYPES: dict[str, tuple[pa.DataType, Any, tuple[str, str, str, str, str]]] = {
    "bool": (pa.bool_(), True, ("Bool", "boolean", "tinyint(1)", "boolean", "boolean")),
    "int8": (pa.int8(), -128, ("Int8", "tinyint", "tinyint", "smallint", "integer")),
    "int16": (pa.int16(), -5, ("Int16", "smallint", "smallint", "smallint", "integer")),
    "int32": (pa.int32(), -5, ("Int32", "integer", "int", "int", "integer")),
    "int64": (pa.int64(), -(2**63), ("Int64", "bigint", "bigint", "bigint", "integer")),
    "uint8": (pa.uint8(), 255, ("UInt8", "uinteger", "tinyint unsigned", "smallint", "integer")),
    "uint16": (pa.uint16(), 65_535, ("UInt16", "uinteger", "smallint unsigned", "int", "integer")),
    "uint32": (pa.uint32(), 2**32 - 1, ("UInt32", "uinteger", "int unsigned", "bigint", "integer")),
    "uint64": (pa.uint64(), 2**63 - 1, ("UInt64", "ubigint", "bigint unsigned", "numeric(20,0)", "integer")),
    "float16": (pa.float16(), 0.5, ("Float32", "varchar", "text", "text", "real")),
    "float32": (pa.float32(), 0.25, ("Float32", "float", "float", "real", "real")),
    "float64": (pa.float64(), 0.1, ("Float64", "double", "double", "double precision", "real")),
    "decimal": (
        pa.decimal128(19, 10),
        Decimal("1.0000000001"),
        ("Decimal(19, 10)", "varchar", "text", "numeric(19,10)", "text"),
    ),
    "wide decimal": (
        pa.decimal256(50, 2),
        Decimal("9" * 48 + ".25"),
        ("Decimal(50, 2)", "varchar", "text", "numeric(50,2)", "text"),
    ),
    "text": (pa.utf8(), "ä", ("String", "varchar", "text", "text", "text")),
    "large text": (pa.large_utf8(), "ä", ("String", "varchar", "text", "text", "text")),
    "bytes": (pa.binary(), b"\0\xff", ("String", "blob", "blob", "bytea", "text")),
    "large bytes": (pa.large_binary(), b"\0\xff", ("String", "blob", "blob", "bytea", "text")),
    "fixed bytes": (pa.binary(3), b"\0\xff\1", ("FixedString(3)", "varchar", "text", "text", "text")),
    "date32": (pa.date32(), datetime.date(1969, 12, 31), ("Date32", "timestamp", "text", "date", "text")),
    "date64": (pa.date64(), datetime.date(1970, 1, 2), ("DateTime", "timestamp", "text", "date", "text")),
    "time32[s]": (
        pa.time32("s"),
        datetime.time(1, 2, 3),
        ("DateTime64(0)", "varchar", "text", "time without time zone", "text"),
    ),
    "time32[ms]": (
        pa.time32("ms"),
        datetime.time(1, 2, 3, 4_000),
        ("DateTime64(3)", "varchar", "text", "time without time zone", "text"),
    ),
    "time64[us]": (
        pa.time64("us"),
        datetime.time(1, 2, 3, 4),
        ("DateTime64(6)", "varchar", "text", "time without time zone", "text"),
    ),
    "time64[ns]": (
        pa.time64("ns"),
        datetime.time(1, 2, 3, 4),
        ("DateTime64(9)", "varchar", "text", "time without time zone", "text"),
    ),
    "timestamp[s]": (
        pa.timestamp("s", "UTC"),
        NOW.replace(microsecond=0),
        ("DateTime64(0)", "timestamp", "datetime(6)", "timestamp without time zone", "timestamp"),
    ),
    "timestamp[ms]": (
        pa.timestamp("ms", "UTC"),
        NOW.replace(microsecond=0),
        ("DateTime64(3)", "timestamp", "datetime(6)", "timestamp without time zone", "timestamp"),
    ),
    "timestamp[us]": (
        pa.timestamp("us", "UTC"),
        NOW,
        ("DateTime64(6)", "timestamp", "datetime(6)", "timestamp without time zone", "timestamp"),
    ),
    "timestamp[ns]": (
        pa.timestamp("ns", "UTC"),
        NOW,
        ("DateTime64(9)", "timestamp", "datetime(6)", "timestamp without time zone", "timestamp"),
    ),
    "duration": (pa.duration("ms"), 5, ("String", "varchar", "text", "text", "text")),
    "interval": (
        pa.month_day_nano_interval(),
        pa.MonthDayNano([1, 2, 3]),
        ("String", "varchar", "text", "text", "text"),
    ),
    "uuid": (uuid(), _ID, ("UUID", "uuid", "binary(16)", "uuid", "text")),
    "json": (json(), b'{"a":1}', ("String", "json", "json", "jsonb", "text")),
    "inet": (inet(), b"10.0.0.1/32", ("String", "varchar", "text", "inet", "text")),
    "mac": (mac(), b"abcdef", ("String", "varchar", "text", "macaddr", "text")),
    "list of text": (
        pa.list_(pa.utf8()),
        ["a", None],
        ("Array(Nullable(String))", "varchar[]", "json", "text[]", "text"),
    ),
    "list of uint8": (
        pa.list_(pa.uint8()),
        [1, 255],
        ("Array(Nullable(UInt8))", "uinteger[]", "json", "smallint[]", "text"),
    ),
    "list of days": (
        pa.list_(pa.date32()),
        [datetime.date(1969, 12, 31)],
        ("Array(Nullable(Date32))", "timestamp[]", "json", "date[]", "text"),
    ),
    "list of moments": (
        pa.list_(pa.timestamp("ns", "UTC")),
        [NOW],
        ("Array(Nullable(DateTime64(9)))", "timestamp[]", "json", "timestamp without time zone[]", "text"),
    ),
    "list of decimals": (
        pa.list_(pa.decimal128(19, 10)),
        [Decimal("1.0000000001")],
        ("Array(Nullable(Decimal(19, 10)))", "varchar[]", "json", "numeric(19,10)[]", "text"),
    ),
    "list of ids": (pa.list_(uuid()), [_ID], ("Array(Nullable(UUID))", "uuid[]", "json", "uuid[]", "text")),
    "list of structs": (
        pa.list_(_STRUCT),
        [{"a": 1, "b": "x"}],
        ("Array(Tuple(`a` Nullable(Int64), `b` Nullable(String)))", "json[]", "json", "text[]", "text"),
    ),
    "large list": (
        pa.large_list(pa.int64()),
        [1, 2],
        ("Array(Nullable(Int64))", "bigint[]", "text", "bigint[]", "text"),
    ),
    "fixed list": (pa.list_(pa.int64(), 2), [1, 2], ("Array(Nullable(Int64))", "bigint[]", "text", "bigint[]", "text")),
    "struct": (
        _STRUCT,
        {"a": 1, "b": "x"},
        ("Tuple(`a` Nullable(Int64), `b` Nullable(String))", "json", "json", "text", "text"),
    ),
    "map": (
        pa.map_(pa.utf8(), pa.int64()),
        [("a", 1)],
        ("Map(String, Nullable(Int64))", "json", "text", "text", "text"),
    ),
}
"""Arrow type, a value, and what the column is in ClickHouse, DuckDB, MySQL, PostgreSQL and SQLite."""
_PLACES = {"clickhouse": 0, "duckdb": 1, "mariadb": 2, "mysql8": 2, "postgresql": 3, "sqlite": 4}


def made(database, kind):
    """Make a table by the statement that CloudQuery's plugin sends, with a row of last week."""
    match database.name:
        case "clickhouse":
            is_compound = kind.startswith(("Array", "Map", "Tuple"))
            column = kind if is_compound else f"Nullable({kind})"
            database.query(
                "create table `t` (`_cq_source_name` Nullable(String), `_cq_sync_time` Nullable(DateTime64(6)), "
                f"`id` Int64, `name` Nullable(String), `v` {column}) engine = MergeTree order by (`id`) "
                "settings allow_nullable_key = 1"
            )
        case "duckdb":
            database.query(
                'create table if not exists "t" ("_cq_source_name" varchar,"_cq_sync_time" timestamp,"id" bigint NOT '
                f'NULL,"name" varchar,"v" {kind}, PRIMARY KEY ("id"))'
            )
        case "postgresql":
            database.query(
                'create table if not exists "t" ("_cq_source_name" text, "_cq_sync_time" timestamp without time zone, '
                f'"id" bigint NOT NULL, "name" text, "v" {kind}, PRIMARY KEY ("id"))'
            )
        case "sqlite":
            database.query(
                'CREATE TABLE IF NOT EXISTS "t" ("_cq_source_name" text,"_cq_sync_time" timestamp,"id" integer NOT '
                f'NULL,"name" text,"v" {kind}, CONSTRAINT t_cqpk PRIMARY KEY ("id"))'
            )
        case _:
            database.query(
                "CREATE TABLE `t` (`_cq_source_name` text, `_cq_sync_time` datetime(6), `id` bigint, `name` text, "
                f"`v` {kind}, PRIMARY KEY (`id`)) CHARACTER SET utf8mb4"
            )
    database.query("insert into t (id, name) values (1, 'last week'), (2, 'last week')")


def declared(database):
    """The type of the column as the catalogue has it."""
    match database.name:
        case "clickhouse":
            return database.query("select type from system.columns where database = currentDatabase() and table = 't' "
                                  "and name = 'v'")  # fmt: skip
        case "duckdb":
            return database.query("select type from pragma_table_info('t') where name = 'v'")
        case "postgresql":
            return database.query("select format_type(atttypid, atttypmod) from pg_attribute "
                                  "where attrelid = 't'::regclass and attname = 'v'")  # fmt: skip
        case "sqlite":
            return database.query("select type from pragma_table_info('t') where name = 'v'")
    return database.query("select column_type from information_schema.columns where table_schema = database() "
                          "and table_name = 't' and column_name = 'v'")  # fmt: skip


NEEDS_FORCE = {("date64", "clickhouse")}
"""`DateTime` has no day before 1970."""


@pytest.mark.parametrize(
    "database",
    [pytest.param(name, marks=pytest.mark.thorough if name in SLOW else ()) for name in DATABASES],
    indirect=True,
)
@pytest.mark.parametrize("name", TYPES)
def test_every_column_goes_on_as_it_is(database, name):
    kind, value, types = TYPES[name]
    table = people("t", ("v", kind))
    made(database, types[_PLACES[database.name]])
    if (name, database.name) in NEEDS_FORCE:
        with pytest.raises(PluginError, match="column `v` changed from sql:DateTime to date32"):
            database.destination.write(MigrateTable(table))
        return
    before = declared(database)
    database.destination.insert(table, rows(table, (1, "streamed", value)))
    assert declared(database) == before
    old = database.query("select name from t where id = 2")
    assert old == [("last week",)]
    # A list of a fixed length that is null has another one in ClickHouse.
    empty = value if name == "fixed list" else None
    database.destination.publish(table, rows(table, (2, "published", value), (3, "published", empty)), keep="all")
    assert declared(database) == before
    database.destination.expect(
        table, rows(table, (1, "streamed", value), (2, "published", value), (3, "published", empty))
    )
    database.destination.publish(table, rows(table, (4, "alone", value)))
    assert declared(database) == before
    database.destination.expect(table, rows(table, (4, "alone", value)))


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
@pytest.mark.parametrize(
    ("database", "theirs", "kind", "value"),
    [
        ("sqlite", "integer", pa.uint64(), 2**63),
        ("duckdb", "timestamp", pa.timestamp("ns"), 1),
        ("duckdb", "timestamp[]", pa.list_(pa.timestamp("ns")), [1]),
    ],
    indirect=["database"],
)
def test_a_value_that_such_a_column_has_no_place_for_is_refused_and_forced_makes_room(
    database, theirs, kind, value, staged
):
    table = people("t", ("v", kind))
    made(database, theirs)
    write = database.destination.publish if staged else database.destination.insert
    with pytest.raises(PluginError, match=r'(?s)"id":2.*column `v` holds a value that has no place.*forced'):
        write(table, rows(table, (1, "good", None), (2, "bad", value)))
    assert database.query("select id, name from t order by id") == [(1, "last week"), (2, "last week")]
    database.destination.write(MigrateTable(table, force=True), Insert(table, rows(table, (2, "good", value))))
    if pa.types.is_list(kind):
        # Python has no value for such a moment.
        assert database.query("select id, epoch_ns(v[1]) from t order by id") == [(1, None), (2, 1)]
        return
    database.destination.expect(
        table, data.batch(table, (None, None, 1, "last week", None)), rows(table, (2, "good", value))
    )


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_numbers_that_cloudquery_let_wrap_around_are_read_as_what_they_were(database):
    table = people("t", ("v", pa.uint64()))
    made(database, "integer")
    database.query("update t set v = -1 where id = 1")
    got = pa.Table.from_batches(database.destination.plugin.read(table))
    assert got.column("v").to_pylist() == [2**64 - 1, None]


@pytest.mark.parametrize("database", DATABASES, indirect=True)
@pytest.mark.parametrize("name", ["uint64", "decimal", "date32", "struct"])
def test_a_preview_of_such_a_table_has_nothing_to_change(database, name):
    kind, _, types = TYPES[name]
    made(database, types[_PLACES[database.name]])
    [preview] = database.destination.plugin.preview([people("t", ("v", kind))], force=False)
    assert (preview.action, preview.changes) == ("none", ())
