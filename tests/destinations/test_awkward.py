"""The awkward probe: values at the edges of their types arrive as they are, or are refused by their column's name."""

from __future__ import annotations

import datetime
import logging
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema.intervals import month_interval
from catchment.schema.types import inet, json, mac, uuid
from catchment.sdk import Column
from catchment.testing import data
from tests.destinations.conftest import NOW, Staged, people, rows

pytestmark = pytest.mark.usefixtures("database")
BOTH, POSTGRESQL, DUCKDB = ("postgresql", "duckdb"), ("postgresql",), ("duckdb",)
OTHERS = ("clickhouse", "mariadb", "mysql8", "sqlite")

KEPT: dict[str, tuple[pa.DataType, list[Any]]] = {
    "a numeric of 45 digits": (pa.decimal256(45, 5), ["1" * 40 + ".12345", "-" + "9" * 40 + ".99999"]),
    "a numeric of 76 digits": (pa.decimal256(76, 0), ["9" * 76, "-" + "9" * 76]),
    "hundreds": (pa.decimal128(5, -2), ["12300", "-9999900"]),
    "small decimals": (pa.decimal64(15, 2), ["123.45", "-0.01"]),
    "floats": (pa.float64(), ["nan", "inf", "-inf", "-0.0", "5e-324", "1.7976931348623157e+308"]),
    "small floats": (pa.float32(), ["nan", "inf", "-inf", "-0.0", "0.25"]),
    "half floats": (pa.float16(), ["nan", "inf", "65504.0"]),
    "days": (pa.date32(), ["0001-01-01", "9999-12-31", "1969-12-31"]),
    "times": (pa.time64("us"), ["00:00:00", "23:59:59.999999"]),
    "empty and full bytes": (pa.binary(), [b"", b"\0", b"\0\xff"]),
    "views": (pa.binary_view(), [b"", b"\xff", b"a longer one than fits into a view"]),
    "texts": (pa.utf8(), ["", "NULL", "\\N", "a\tb\r\n", "'\"\\", "e\u0301 \U0001f389"]),
    "json": (json(), [b"null", b'""', b"0", b"[]", b'{"a":{"b":[1,null]}}', b"123456789012345678901234567890"]),
    "spans": (pa.month_day_nano_interval(), ['{"months":14,"days":-3,"nanoseconds":1000000001}']),
    "months": (month_interval(), ["-5", "0"]),
    "durations": (pa.duration("ns"), [f"{2**63 - 1}ns", f"{-(2**63)}ns"]),
    "the largest number": (pa.uint64(), [str(2**64 - 1), "0"]),
}
"""Type and values: bytes as they are written, text as Python shows what the driver reads."""
NO_PLACE = {
    **{
        (name, place): "column `v` holds (nan, which MySQL has no number for|NaN, which SQLite would turn into null)"
        for name in ("floats", "small floats", "half floats")
        for place in ("mariadb", "mysql8", "sqlite")
    },
    ("json", "mysql8"): "column `v` holds the JSON number 123456789012345678901234567890, which MySQL would round",
}
"""Which of them a database has no place for, so that the row is refused."""
WRITTEN = {
    "spans": [pa.MonthDayNano([14, -3, 1_000_000_001])],
    "months": [-5, 0],
    "durations": [2**63 - 1, -(2**63)],
    "the largest number": [2**64 - 1, 0],
    "days": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), datetime.date(1969, 12, 31)],
    "times": [datetime.time(0), datetime.time(23, 59, 59, 999_999)],
}


def _written(name):
    kind, texts = KEPT[name]
    if name in WRITTEN:
        return WRITTEN[name]
    if pa.types.is_decimal(kind):
        return [Decimal(text) for text in texts]
    return [float(text) for text in texts] if pa.types.is_floating(kind) else texts


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("way", ["append", "overwrite", "atomic"])
def test_a_value_arrives_as_it_is(database, name, way):
    kind, texts = KEPT[name]
    table = people("t", ("v", kind), keys=() if way == "append" else ("id",))
    batch = rows(table, *((n, "a", value) for n, value in enumerate(_written(name))), (99, "none", None))
    wrong = NO_PLACE.get((name, database.name))
    if wrong:
        with pytest.raises(PluginError, match=f'(?s)"id":[05].*{wrong}'):
            (database.destination.publish if way == "atomic" else database.destination.insert)(table, batch)
        # Those that fit are kept.
        texts = [text for text in texts if text not in (b"123456789012345678901234567890", "nan")]
        if database.name != "sqlite":
            texts = [text for text in texts if text not in ("inf", "-inf")]
        values = _written(name)
        fit = [values[KEPT[name][1].index(text)] for text in texts]
        batch = rows(table, *((n, "a", value) for n, value in enumerate(fit)), (99, "none", None))
        if database.name in ("mariadb", "sqlite"):
            # They have no negative zero.
            texts = [text.replace("-0.0", "0.0") for text in texts]
    if way == "atomic":
        # Twice the same keys, so that the last of them has to be found.
        database.destination.publish(table, batch, batch)
    else:
        database.destination.insert(table, batch)
    got = pa.Table.from_batches(database.destination.plugin.read(table)).select(["id", "v"])
    found = dict(zip(got.column("id").to_pylist(), got.column("v").to_pylist(), strict=True))
    assert [None if found[n] is None else _shown(found[n]) for n in sorted(found)] == [*texts, None]


def _shown(value):
    if isinstance(value, bytes):
        return value.replace(b": ", b":").replace(b", ", b",")
    return format(value, "f") if isinstance(value, Decimal) else str(value).replace("00:00:00.000000", "00:00:00")


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_moments_before_1970_and_at_the_ends_of_the_calendar_are_the_same_in_sql(database, unit, zone):
    table = people("t", ("v", pa.timestamp(unit, zone)))
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ends = [] if unit == "ns" else [-62_135_596_800, 253_402_300_799]
    seconds = [0, -1, -86_400, 4_102_444_800, *ends]
    batch = rows(table, *((n, "a", data.array([s * per_second], pa.int64())[0].as_py()) for n, s in enumerate(seconds)))
    for way in (database.destination.insert, database.destination.publish):
        way(table, batch)
        epoch = datetime.datetime(1970, 1, 1)
        if database.name in ("sqlite", "clickhouse"):
            # SQLite has texts, and the driver of ClickHouse shows moments in a zone, as far as Python has them there.
            shown = "substr(v, 1, 19)" if database.name == "sqlite" else "substring(toString(v, 'UTC'), 1, 19)"
            found = database.query(f"select {shown} from t order by id")
            found = [(datetime.datetime.fromisoformat(text),) for (text,) in found]
        else:
            found = database.query("select v from t order by id")
        assert found == [(epoch + datetime.timedelta(seconds=s),) for s in seconds]


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
def test_json_null_is_not_sql_null(database):
    table = people("t", ("v", json()))
    database.destination.publish(table, rows(table, (1, "a", b"null"), (2, "b", None)))
    assert database.query("select id, v is null from t order by id") == [(1, False), (2, True)]
    database.destination.insert(table, rows(table, (1, "a", None), (2, "b", b"null")))
    assert database.query("select id, v is null from t order by id") == [(1, True), (2, False)]


LISTS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "numbers": (pa.list_(pa.int64()), [[1, None], [], None, [None]]),
    "texts": (pa.list_(pa.utf8()), [["a", None, "NULL", "", 'q"\\,{}'], [], None]),
    "json": (pa.list_(json()), [[b"null", None, b"[1]"], [], None]),
    "bytes": (pa.list_(pa.binary()), [[b"", None, b"\0"], [], None]),
    "flags": (pa.list_(pa.bool_()), [[True, None, False], [], None]),
    "ids": (pa.list_(uuid()), [[bytes(16), None], [], None]),
    "addresses": (pa.list_(mac()), [[b"abcdef", None], [], None]),
    "wide decimals": (pa.list_(pa.decimal256(50, 2)), [[Decimal("9" * 48 + ".99"), None], [], None]),
    "fixed": (pa.list_(pa.int32(), 2), [[1, None], None]),
    "large": (pa.large_list(pa.utf8()), [["a", None], [], None]),
    "lists": (pa.list_(pa.list_(pa.int64())), [[[1, None], None, []], [], None]),
    "structs": (pa.list_(pa.struct([("a", pa.int8())])), [[{"a": 1}, {"a": None}], [], None]),
    "maps": (pa.list_(pa.map_(pa.utf8(), pa.int8())), [[[("a", 1)], []], [], None]),
    "nothing": (pa.list_(pa.null()), [[None], [], None]),
}


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
@pytest.mark.parametrize("name", LISTS)
def test_lists_with_nulls_and_empty_lists_stay_apart(database, name):
    kind, values = LISTS[name]
    table = people("t", ("v", kind))
    if database.name == "clickhouse":
        # It has no lists that are null; the suite has it that those become empty, and the log tells of it.
        assert database.destination.capabilities.empty_for_null(kind)
        values = [value for value in values if value is not None]
    batch = rows(table, *((n, "a", value) for n, value in enumerate(values)))
    database.destination.insert(table, batch)
    database.destination.expect(table, batch)
    database.destination.publish(table, batch)
    database.destination.expect(table, batch)
    assert database.query("select count(*) from t where v is null") == [(values.count(None),)]


REFUSED = {
    "a date of no year": (BOTH, pa.date32(), 2**31 - 1),
    "the day before all days": (BOTH, pa.date32(), -(2**31)),
    "a date with a time of day": (BOTH, pa.date64(), 1),
    "a time that is negative": (BOTH, pa.time32("s"), -1),
    "a time of 25 hours": (BOTH, pa.time32("s"), 90_000),
    "a second too far": (BOTH, pa.timestamp("s"), 10**13),
    "the first moment": (BOTH, pa.timestamp("us"), -(2**63)),
    "the moment that DuckDB takes for infinity": (DUCKDB, pa.timestamp("us"), 2**63 - 1),
    "the nanosecond that DuckDB takes for infinity": (DUCKDB, pa.timestamp("ns", "UTC"), 2**63 - 1),
    "such a moment in a list": (DUCKDB, pa.list_(pa.timestamp("us")), [2**63 - 1]),
    "a NUL in a text": (POSTGRESQL, pa.utf8(), "a\0b"),
    "a NUL in a list": (POSTGRESQL, pa.list_(pa.utf8()), ["a\0b"]),
    "a NUL in JSON": (POSTGRESQL, json(), b'{"a":"\\u0000"}'),
    "broken JSON": (BOTH, json(), b"{"),
    "empty JSON": (BOTH, json(), b""),
    "half a character in JSON": (BOTH, json(), b'"\\ud83d"'),
    "JSON that is no text": (BOTH, json(), b'"\xff"'),
    "an address that is none": (POSTGRESQL, inet(), b"10.0.0.300"),
    "an address that is none in a list": (POSTGRESQL, pa.list_(inet()), [b"10.0.0.1", b"nowhere"]),
    "a hardware address of 8 bytes": (POSTGRESQL, mac(), b"abcdefgh"),
    "a key twice in a map": (DUCKDB, pa.map_(pa.utf8(), pa.int64()), [("a", 1), ("a", 2)]),
}


@pytest.mark.parametrize(
    ("database", "name"),
    [(database, name) for name, (databases, _, _) in REFUSED.items() for database in databases],
    indirect=["database"],
)
@pytest.mark.parametrize("way", ["append", "overwrite", "atomic"])
def test_a_value_that_has_no_place_is_refused_with_its_row_and_column(database, name, way):
    _, kind, value = REFUSED[name]
    table = people("t", ("other", pa.utf8()), ("v", kind), keys=() if way == "append" else ("id",))
    good = rows(table, (1, "a", "x", None))
    bad = rows(table, (2, "b", "x", None), (3, "c", "x", value))
    database.destination.insert(table, good)
    named = "column `v`" if name != "a key twice in a map" else "duplicate key"
    row = '"id":3' if name != "JSON that is no text" or way != "append" else '"id": "3"'
    write = database.destination.publish if way == "atomic" else database.destination.insert
    with pytest.raises(PluginError, match=f"(?s){row}.*{named}"):
        write(table, bad)
    assert database.query("select id from t") == [(1,)]


@pytest.mark.parametrize("database", BOTH, indirect=True)
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_text_that_is_no_utf8_is_refused(database, keys):
    table = people("t", keys=keys)
    text = pa.Array.from_buffers(pa.utf8(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    good = rows(table, (1, "a"))
    bad = pa.RecordBatch.from_arrays([*good.columns[:3], text], names=good.schema.names)
    database.destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match="column `name`") as caught:
        database.destination.write(Insert(table, bad))
    assert "NUL" not in str(caught.value)
    assert database.query("select * from t") == []


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
@pytest.mark.parametrize("keys", [(), ("id",)])
@pytest.mark.parametrize("count", [100, 1_590, 1_600])
def test_wide_tables(database, count, keys):
    more = [("list", pa.list_(uuid())), *((f"c{n}", pa.int16()) for n in range(count - 5))]
    wide = people("t", *more, keys=keys)
    assert len(wide.columns) == count
    if database.name in ("mariadb", "mysql8") and count > 1_017:
        for write in (database.destination.insert, database.destination.publish):
            with pytest.raises(
                PluginError, match=f"table `t` has {count:,} columns, MySQL takes 1,017; leave some out"
            ):
                write(wide)
        return
    batch = rows(wide, (1, "a", [bytes(16)], *range(count - 5)))
    database.destination.insert(wide, batch)
    database.destination.insert(wide, batch)
    assert database.query(f"select id, c{count - 6} from t") == [(1, count - 6)] * (1 if keys else 2)
    database.destination.publish(wide, batch)
    assert database.query(f"select id, c{count - 6} from t") == [(1, count - 6)]


@pytest.mark.parametrize("database", POSTGRESQL, indirect=True)
def test_more_columns_than_postgresql_takes_are_refused_by_the_table_s_name(database):
    wide = people("t", *((f"c{n}", pa.int16()) for n in range(1_597)))
    for write in (database.destination.insert, database.destination.publish):
        with pytest.raises(PluginError, match="table `t` has 1,601 columns, PostgreSQL takes 1,600; leave some out"):
            write(wide)
    assert database.destination.plugin.preview([wide], force=False)[0].action == "refused"


@pytest.mark.parametrize("database", POSTGRESQL, indirect=True)
def test_a_row_that_is_too_long_for_a_page_is_refused_by_its_key(database):
    wide = people("t", *((f"c{n}", uuid()) for n in range(600)))
    database.destination.write(MigrateTable(wide))
    with pytest.raises(PluginError, match=r'(?s)"id":1.*row is too big'):
        database.destination.write(Insert(wide, rows(wide, (1, "a", *[bytes(16)] * 600))))


@pytest.mark.parametrize("database", DUCKDB, indirect=True)
def test_names_that_duckdb_does_not_tell_apart_are_refused(database):
    table = people("t", ("Name", pa.utf8()))
    for write in (database.destination.insert, database.destination.publish):
        with pytest.raises(
            PluginError, match="table `t` has the columns `name` and `Name`, which DuckDB does not tell"
        ):
            write(table)
    small, large = people("people"), people("People")
    database.destination.insert(small, rows(small, (1, "a")))
    for write in (database.destination.insert, database.destination.publish):
        with pytest.raises(PluginError, match="table `People` cannot be told apart from table `people`"):
            write(large, rows(large, (2, "b")))
    assert database.destination.plugin.preview([large], force=False)[0].action == "refused"
    assert database.query("select id from people") == [(1,)]


@pytest.mark.parametrize("database", DUCKDB, indirect=True)
def test_two_tables_of_one_sync_that_duckdb_does_not_tell_apart_are_refused(database):
    staged = Staged(database.destination).add(people("people"), rows(people(), (1, "a")))
    with pytest.raises(PluginError, match="table `People` cannot be told apart from table `people`"):
        staged.add(people("People"), rows(people("People"), (2, "b"))).publish()


@pytest.mark.parametrize("database", BOTH, indirect=True)
def test_structs_without_fields(database):
    table = people("t", ("v", pa.list_(pa.struct([("inner", pa.struct([]))]))))
    if database.name == "duckdb":
        with pytest.raises(PluginError, match="column `v` of table `t` is a struct without fields"):
            database.destination.write(MigrateTable(table))
    else:
        database.destination.insert(table, rows(table, (1, "a", [{"inner": {}}])))
        assert database.query("select v from t") == [(['{"inner":{}}'],)]


@pytest.mark.parametrize("database", BOTH, indirect=True)
@pytest.mark.parametrize("name", ["select", "Über 日本 🎉", "order", 'q"u', "t.dotted", "user", "x" * 63])
def test_odd_names_of_columns_and_tables(database, name):
    table = data.sourced(name, (name, pa.int64()), Column("natural", pa.utf8()), keys=[name])
    batch = data.batch(table, ("suite", NOW, 1, "a"))
    database.destination.insert(table, batch)
    database.destination.publish(table, batch)
    database.destination.expect(table, batch, key=name)


@pytest.mark.parametrize("database", ["clickhouse", "duckdb", "mariadb", "mysql8", "sqlite"], indirect=True)
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_nul_in_a_text_or_in_json_is_kept_where_it_can_be(database, keys):
    table = people("t", ("v", pa.utf8()), ("j", json()), ("l", pa.list_(pa.utf8())), keys=keys)
    batch = rows(table, (1, "a\0b", "\0", b'{"a":"\\u0000"}', ["\0", "x"]))
    database.destination.insert(table, batch)
    database.destination.expect(table, batch)
    database.destination.publish(table, batch)
    database.destination.expect(table, batch)


LIMITS = {"mariadb": 64, "mysql8": 64, "postgresql": 63}
NAMES = [
    "n" * 63,
    "n" * 64,
    "n" * 65,
    "Größe 名前",
    "e\u0301",
    "select",
    "order",
    "table",
    "Group",
    "a.b",
    "a`b\"c'd\\e",
    "1st",
    " x",
]


@pytest.mark.parametrize("database", BOTH + OTHERS, indirect=True)
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]) + str(len(name)))
def test_a_name_is_kept_as_it_is_or_refused_by_name(database, name):
    table = people(name, (name, pa.utf8()))
    batch = rows(table, (1, "a", "x"), (2, "b", None))
    if len(name) > LIMITS.get(database.name, 1_000):
        for write in (database.destination.insert, database.destination.publish):
            with pytest.raises(
                PluginError, match=f"table `{name}`: the name `{name}` has {len(name)} (bytes|character)"
            ):
                write(table, batch)
        return
    for write in (database.destination.insert, database.destination.insert, database.destination.publish):
        write(table, batch)
        database.destination.expect(table, batch)
    quote = "`" if database.name in ("clickhouse", "mariadb", "mysql8") else '"'
    quoted = name.replace("\\", "\\\\") if database.name == "clickhouse" else name
    quoted = quote + quoted.replace(quote, quote * 2) + quote
    assert database.query(f"select id, {quoted} from {quoted} order by id") == [(1, "x"), (2, None)]


@pytest.mark.parametrize("database", ["clickhouse", "duckdb", "mariadb", "mysql8", "sqlite"], indirect=True)
@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_views_of_a_table_that_is_made_anew_are_named(database, staged, caplog):
    before, after = people("t", ("v", pa.utf8())), people("t", ("v", pa.int64()))
    database.destination.insert(before, rows(before, (1, "a", "no number")))
    database.query("create view direct as select id, v from t")
    database.query("create view indirect as select id from direct")
    database.query("create view other as select 1 as n")
    [preview] = database.destination.plugin.preview([after], force=True)
    assert preview.action == "recreate"
    with caplog.at_level(logging.WARNING):
        if staged:
            Staged(database.destination).add(after, rows(after, (2, "b", 7)), force=True).publish()
        else:
            database.destination.write(MigrateTable(after, force=True), Insert(after, rows(after, (2, "b", 7))))
    assert preview.dependents == ("view `direct`", "view `indirect`")
    assert "table `t` is made anew, check what reads it: view `direct`, view `indirect`" in caplog.text
    # Columns of views keep their types in ClickHouse.
    assert database.query("select id, v from direct") == [(2, "7" if database.name == "clickhouse" else 7)]
