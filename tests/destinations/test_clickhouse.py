"""ClickHouse: odd names and values, what the spec asks for, and tables of others."""

from __future__ import annotations

import datetime
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catchment.destinations.clickhouse import ClickHouse, types
from catchment.errors import MigrationRefused, PluginError, RowsRefused, SpecError, Unsupported
from catchment.messages import DeleteRecord, Insert, MigrateTable, Predicate, PredicateGroup, TableRelation
from catchment.schema import types as schema_types
from catchment.schema.internal import CQ_CLIENT_ID, CQ_ID, CQ_PARENT_ID
from catchment.schema.table import Column
from catchment.sdk.writer import DestinationHost
from catchment.testing import data
from tests.destinations.clickhouse import asking
from tests.destinations.conftest import KEYS, NOW, people, rows
from tests.destinations.test_forced import CHANGES, MISFITS, Forced
from tests.destinations.test_sqlite import NAMES


@pytest.fixture
def ask(clickhouse_url):
    with asking(clickhouse_url) as ask:
        yield ask


@pytest.fixture
def destination(open_destination, clickhouse_url):
    return open_destination(ClickHouse, connection_string=clickhouse_url)


@pytest.fixture
def opened(open_destination, clickhouse_url):
    """Opens a destination with more keys in its spec."""
    return lambda **spec: open_destination(ClickHouse, connection_string=clickhouse_url, **spec)


@pytest.mark.parametrize("name", [*NAMES, "n" * 100])
def test_hostile_names_of_tables_columns_sources_and_values_are_only_names(destination, name):
    struct = pa.struct([(name, pa.int64())])
    table = data.sourced(f"{name} t", ("id", pa.int64()), (name, pa.utf8()), ("inner", struct), keys=["id", name])
    batch = data.batch(table, (name, NOW, 1, name, {name: 1}), ("other", NOW, 2, name, {name: None}))
    destination.insert(table, batch)
    destination.insert(table, batch)
    destination.expect(table, batch)
    assert f"{name} t" in destination.plugin.stored_names()
    destination.publish(table, batch.slice(0, 1), source=name)
    destination.expect(table, batch)
    group = PredicateGroup((Predicate(name, pa.array([name])), Predicate("id", pa.array([2]))))
    destination.write(MigrateTable(table), DeleteRecord(table.name, (group,)))
    destination.expect(table, batch.slice(0, 1))
    destination.delete_stale(table, name, NOW + datetime.timedelta(seconds=1))
    destination.expect(table)


@pytest.mark.parametrize("kind", KEYS)
def test_rows_are_replaced_and_deleted_by_keys_of_every_type(destination, kind):
    arrow_type, values = KEYS[kind]
    table = data.named("keyed", ("id", arrow_type), ("name", pa.utf8()), keys=["id"])
    first, second = (data.batch(table, *((value, name) for value in values)) for name in ("old", "new"))
    destination.insert(table, first)
    destination.insert(table, second)
    destination.expect(table, second)
    group = PredicateGroup((Predicate("id", first.column("id").slice(0, 1)),))
    destination.write(MigrateTable(table), DeleteRecord(table.name, (group,)))
    destination.expect(table, second.slice(1))


PROBES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "40 digits": (
        pa.decimal256(45, 5),
        [Decimal("1234567890123456789012345678901234567890.12345"), Decimal("-1.00001")],
    ),
    "76 digits": (pa.decimal256(76, 0), [Decimal("9" * 76), Decimal("-" + "9" * 76)]),
    "small decimal": (pa.decimal128(5, 5), [Decimal("0.99999"), Decimal("-0.00001")]),
    "tens": (pa.decimal128(5, -2), [Decimal("1200"), Decimal("-100")]),
    "not finite": (pa.float64(), [float("inf"), float("-inf"), -0.0, 5e-324]),
    "half": (pa.float16(), [0.5, 65504.0, None]),
    "before the epoch": (pa.timestamp("ns"), [-1, -(1 << 63) + 1, (1 << 63) - 1]),
    "seconds": (pa.timestamp("s", "Europe/Berlin"), [-62_135_596_800, 253_402_300_799, 0]),
    "an offset": (pa.timestamp("us", "+05:30"), [-1, 1]),
    "days": (pa.date64(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "midnight": (pa.time32("s"), [0, 86_399]),
    "nanoseconds of a day": (pa.time64("ns"), [1, 86_399_999_999_999]),
    "interval": (pa.month_day_nano_interval(), [pa.MonthDayNano([-1, 2, -3]), None]),
    "empty bytes": (pa.binary(), [b"", None, b"\0"]),
    "large": (pa.large_utf8(), ["", "x" * 100_000, None]),
    "view": (pa.string_view(), ["a", None, "longer than twelve bytes"]),
    "fixed": (pa.binary(3), [b"\0\0\0", b"abc", None]),
    "json null": (schema_types.json(), [b"null", None, b'"\\u0000"', b"[1.0, 1e400]"]),
    "long mac": (schema_types.mac(), [bytes(20), bytes(8), None]),
    "inet": (schema_types.inet(), [b"10.1.2.3/8", b"::1", None]),
    "list with nulls": (pa.list_(pa.int64()), [[1, None], [], [None]]),
    "lists of lists": (pa.list_(pa.list_(pa.utf8())), [[["a", None], []], []]),
    "large list": (pa.large_list(schema_types.uuid()), [[bytes(16), None], []]),
    "fixed list": (pa.list_(pa.int8(), 2), [[1, None], [2, 3]]),
    "struct of nothing": (pa.struct([]), [{}, None]),
    "map by day": (pa.map_(pa.date32(), pa.int8()), [[(datetime.date(2020, 1, 1), 1)], []]),
    "map by float": (pa.map_(pa.float64(), pa.int8()), [[(0.5, 1)], None]),
    "map with a key twice": (pa.map_(pa.utf8(), pa.int8()), [[("a", 1), ("a", 2)], []]),
    "null": (pa.null(), [None, None]),
}


@pytest.mark.parametrize("probe", PROBES)
def test_awkward_values_arrive_as_they_are(destination, probe):
    kind, values = PROBES[probe]
    table = data.named("probe", ("id", pa.int64()), ("value", kind))
    value = pa.array(values, kind) if kind == pa.null() or pa.types.is_string_view(kind) else data.array(values, kind)
    batch = pa.RecordBatch.from_arrays([pa.array(range(len(values))), value], names=["id", "value"])
    for _ in range(2):
        destination.insert(table, batch.slice(1))
        destination.insert(table, batch.slice(0, 1))
        destination.expect(table, batch)
        destination.write(MigrateTable(table), DeleteRecord(table.name))


def test_nan_stays_nan(destination, ask):
    table = data.named("nan", ("id", pa.int64()), ("value", pa.float64()))
    destination.insert(table, data.batch(table, (1, float("nan")), (2, None)))
    assert ask("select id, isNaN(value) from nan order by id") == [(1, 1), (2, None)]


def test_nulls_that_become_empty_are_told_once_for_each_column(destination, ask, caplog):
    inner = pa.struct([("tags", pa.list_(pa.utf8()))])
    table = data.named("empties", ("id", pa.int64()), ("tags", pa.list_(pa.utf8())), ("inner", inner))
    for number in range(2):
        destination.insert(table, data.batch(table, (number, None, {"tags": ["a"]})))
    destination.insert(table, data.batch(table, (3, ["a"], {"tags": None}), (4, [], None)))
    assert caplog.text.count("nulls of column `tags` become empty") == 1
    assert caplog.text.count("nulls of column `inner` become empty") == 1
    assert ask("select tags, inner.tags from empties order by id") == [([], ["a"]), ([], ["a"]), (["a"], []), ([], [])]


def test_a_null_where_none_may_be_is_refused_by_column_and_row(destination):
    table = people("people", Column("age", pa.int64(), not_null=True))
    good = rows(table, (1, "a", 5))
    destination.insert(table, good)
    with pytest.raises(PluginError, match=r'the row with key \{"id":3\}.* was refused: column `age` is null'):
        destination.insert(table, rows(table, (2, "b", 1), (3, "c", None)))
    with pytest.raises(PluginError, match="key column `id` is null"):
        destination.publish(table, rows(table, (None, "b", 1)))
    destination.expect(table, good)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.date32(), datetime.date(1899, 12, 31)),
        (pa.timestamp("us", "UTC"), datetime.datetime(2300, 1, 1, tzinfo=datetime.UTC)),
        (pa.timestamp("s"), datetime.datetime(1, 1, 1)),
        (pa.list_(pa.date32()), [datetime.date(2300, 1, 1)]),
        (pa.map_(pa.utf8(), pa.date32()), [("a", datetime.date(2300, 1, 1))]),
        (pa.struct([("a", pa.date32())]), {"a": datetime.date(2300, 1, 1)}),
    ],
    ids=str,
)
def test_days_that_an_older_server_would_change_are_refused(kind, value):
    fine = pa.array([None, datetime.date(1900, 1, 1), datetime.date(2299, 12, 31)], pa.date32())
    types.check_days(fine, "day")
    with pytest.raises(RowsRefused, match="column `day` holds a day outside 1900-01-01 to 2299-12-31"):
        types.check_days(types.to_wire(pa.array([None, value], kind)), "day")


def test_a_table_of_1590_columns(destination, ask):
    table = people("wide", *((f"column_{number}", pa.int64()) for number in range(1_586)))
    batch = rows(table, (1, "a", *range(1_586)))
    destination.publish(table, batch)
    destination.publish(table, batch)
    destination.expect(table, batch)
    assert ask("select count() from system.columns where database = currentDatabase() and table = 'wide'") == [(1590,)]


def test_the_spec_says_how_tables_are_made(opened, ask):
    destination = opened(
        engine={"name": "ReplacingMergeTree"},
        partition=[{"partition_by": "toYYYYMM(_cq_sync_time)", "skip_tables": ["plain"]}],
        order=[{"tables": ["peo*"], "order_by": ["`name`", "toDate(_cq_sync_time)"]}],
        ttl=[{"ttl": "interval 10 year"}],
    )
    for table in (people(), people("plain", keys=())):
        table = table.with_columns([c if c.name != "name" else Column("name", pa.utf8()) for c in table.columns])
        destination.insert(table, rows(table, (1, "a")))
        destination.publish(table, rows(table, (2, "b")))
    shown = {name: text for name, text in ask(
        "select name, engine_full from system.tables where database = currentDatabase() and name in ('people', 'plain')"
    )}  # fmt: skip
    ttl = "TTL toDateTime(ifNull(_cq_sync_time, toDateTime64(0, 6))) + (toIntervalYear(10))"
    settings = "SETTINGS allow_nullable_key = 1, index_granularity = 8192"
    assert shown == {
        "people": "ReplacingMergeTree PARTITION BY toYYYYMM(_cq_sync_time) "
        f"ORDER BY (name, toDate(_cq_sync_time)) {ttl} {settings}",
        "plain": f"ReplacingMergeTree ORDER BY tuple() {ttl} {settings}",
    }


def test_incremental_tables_can_be_left_out_of_an_entry_for_partitions(opened, ask):
    destination = opened(partition=[{"partition_by": "toYYYYMM(_cq_sync_time)", "skip_incremental_tables": True}])
    destination.write(MigrateTable(people("whole")), MigrateTable(replace(people("growing"), is_incremental=True)))
    query = "select name, partition_key from system.tables where database = currentDatabase() order by name"
    assert ask(query) == [("growing", ""), ("whole", "toYYYYMM(_cq_sync_time)")]


def test_rows_are_sorted_by_the_key_and_else_by_what_is_not_null(destination, ask):
    table = people("keyed", Column(CQ_ID, schema_types.uuid(), not_null=True), Column("b", pa.int8(), not_null=True))
    destination.write(MigrateTable(table), MigrateTable(table.without_keys().renamed("keyless")))
    query = "select name, sorting_key from system.tables where database = currentDatabase() and name like 'key%'"
    assert sorted(ask(query)) == [("keyed", "(id)"), ("keyless", "id, b, _cq_id")]


def test_two_entries_for_one_table_are_named(opened):
    destination = opened(order=[{"tables": ["p*"], "order_by": ["id"]}, {"order_by": ["name"]}])
    with pytest.raises(PluginError, match=r"table `people` fits 2 entries of `order`: `tables: \['p\*'\]`, `tables: "):
        destination.write(MigrateTable(people()))


def test_another_order_is_refused_and_forced_by_copying_the_rows(opened, ask):
    table = people(keys=())
    opened().insert(table, rows(table, (2, "a"), (1, "b")))
    changed = opened(order=[{"order_by": ["name"]}], partition=[{"partition_by": "id"}])
    with pytest.raises(PluginError, match=r"sorted by `name`, and are by ``; partitions are to be `id`, and are ``"):
        changed.write(MigrateTable(table))
    (found,) = changed.plugin.preview([table], force=False)
    assert (found.action, [change.safety for change in found.changes]) == ("refused", ["forced"] * 2)
    assert found.hint.startswith("run once with `migrate_mode: forced`, which copies the rows; or with")
    assert found.when_published.action == "alter"
    (found,) = changed.plugin.preview([table], force=True)
    assert (found.action, found.when_published) == ("alter", None)
    assert [change.text for change in found.changes] == [
        "rows are to be sorted by `name`, and are by ``", "partitions are to be `id`, and are ``",
    ]  # fmt: skip
    changed.write(MigrateTable(table, force=True))
    changed.expect(table, rows(table, (2, "a"), (1, "b")))
    query = (
        "select sorting_key, partition_key from system.tables where database = currentDatabase() and name = 'people'"
    )
    assert ask(query) == [("(name)", "id")]
    changed.write(MigrateTable(table))


def test_another_order_comes_with_the_next_publish(opened, ask):
    table = people()
    opened().publish(table, rows(table, (2, "a"), (1, "b")))
    changed = opened(order=[{"order_by": ["name", "id"]}], ttl=[{"ttl": "interval 9 year"}])
    (found,) = changed.plugin.preview([table], force=False)
    assert (found.when_published.action, [change.safety for change in found.when_published.changes]) == (
        "alter", ["safe"],
    )  # fmt: skip
    for _ in range(2):
        changed.publish(table, rows(table, (1, "a"), (1, "b")))
    assert changed.plugin.preview([table], force=False)[0].action == "none"
    assert ask("select id, name from people") == [(1, "b")]
    assert ask(
        "select sorting_key, position(create_table_query, 'toIntervalYear(9)') > 0 from system.tables "
        "where database = currentDatabase() and name = 'people'"
    ) == [("name, id", 1)]


def test_a_time_to_live_is_set_on_a_table_that_is_there(opened, ask):
    table = people(keys=())
    opened().insert(table, rows(table, (1, "a")))
    destination = opened(ttl=[{"ttl": "INTERVAL 9 YEAR"}])
    for _ in range(2):
        destination.insert(table, rows(table, (2, "b")))
    ((shown,),) = ask("show create table people")
    assert "toIntervalYear(9)" in shown
    assert ask("select count() from system.mutations where database = currentDatabase() and table = 'people'") == [(1,)]


def test_a_table_that_upstream_made_is_taken_over(destination, ask):
    ask(
        "create table people (_cq_sync_time Nullable(DateTime64(6)), _cq_source_name Nullable(String), _cq_id UUID, "
        "_cq_parent_id Nullable(UUID), id Int64, name Nullable(String), tags Array(Nullable(String))) "
        "engine MergeTree order by (id, _cq_id) settings allow_nullable_key = 1"
    )
    ask("insert into people (id, name, _cq_source_name) values (1, 'twice', 'suite'), (1, 'twice', 'suite')")
    table = people("people", Column(CQ_ID, schema_types.uuid(), not_null=True, unique=True),
                   (CQ_PARENT_ID, schema_types.uuid()), ("tags", pa.list_(pa.utf8())))  # fmt: skip
    (found,) = destination.plugin.preview([table], force=False)
    assert (found.action, found.rows) == ("none", 2)
    batch = rows(table, (1, "a", bytes(16), None, ["x"]), (2, "b", bytes(16), None, []))
    destination.insert(table, batch)
    destination.expect(table, batch)
    for _ in range(2):
        destination.publish(table, rows(table, (2, "b", bytes(16), None, []), (2, "c", bytes(16), None, [])))
    assert ask("select id, name from people") == [(2, "c")]


def test_a_switch_to_append_is_refused(destination):
    table = people()
    destination.insert(table, rows(table, (1, "a")))
    with pytest.raises(PluginError, match="go back to `write_mode: overwrite` or `overwrite-delete-stale`"):
        destination.insert(table.without_keys(), rows(table, (1, "a")))


def test_client_ids_can_be_added_to_a_table_that_has_none(destination):
    before = people()
    after = people("people", Column(CQ_CLIENT_ID, pa.utf8(), not_null=True))
    destination.insert(before, rows(before, (1, "a")))
    batch = rows(after, (2, "b", "client"))
    destination.insert(after, batch)
    destination.insert(after, batch)
    destination.expect(after, rows(after, (1, "a", None)), batch)


def test_forced_changes_keep_what_fits_and_say_what_does_not(destination, ask, caplog):
    before = data.named("changed", ("id", pa.int64()), ("a", pa.utf8()), Column("b", pa.int64(), not_null=True))
    after = data.named("changed", ("id", pa.int32()), Column("a", pa.int8(), not_null=True))
    destination.insert(before, data.batch(before, (1, "5", 1), (2, "-6", 2)))
    (found,) = destination.plugin.preview([after], force=True)
    assert (found.action, found.rows) == ("alter", 2)
    destination.write(MigrateTable(after, force=True))
    destination.expect(after, data.batch(after, (1, 5), (2, -6)))
    assert ask("select b from changed order by id") == [(1,), (2,)]
    narrow = data.named("changed", ("id", pa.int32()), Column("a", pa.uint8(), not_null=True))
    (found,) = destination.plugin.preview([narrow], force=True)
    assert found.action == "recreate"
    destination.write(MigrateTable(narrow, force=True))
    destination.expect(narrow)
    assert "column `a` holds '-6', which is no UInt8" in caplog.text


def is_told(before, after):
    """Whether ClickHouse has two types for the two, and keeps the nulls of the first."""
    return types.type_name(before) != types.type_name(after) and not types.is_compound(before)


@pytest.mark.parametrize("change", [change for change in CHANGES if is_told(*change[:2])], ids=str)
def test_rows_that_fit_another_type_stay(destination, ask, change):
    before, after, values, wanted, new = change
    staged = len(values) % 2 == 0
    Forced("clickhouse", destination, ask).change(
        people("t", ("v", before)), people("t", ("v", after)), values, new, staged=staged
    )
    assert ask("select v from t where id < 77 order by id") == [(value,) for value in wanted]
    assert ask("select count() from t where id = 77 and v is not null") == [(1,)]
    destination.write(MigrateTable(people("t", ("v", after))))


ARRAYS = [change for change in CHANGES if pa.types.is_list(change[0]) and pa.types.is_list(change[1])]


@pytest.mark.parametrize("change", ARRAYS, ids=str)
def test_arrays_become_arrays_of_another_type(destination, ask, change):
    before, after, values, wanted, new = change
    Forced("clickhouse", destination, ask).change(
        people("t", ("v", before)), people("t", ("v", after)), values, new, staged=False
    )
    # A list that is null is an empty one there.
    assert ask("select v from t where id < 77 order by id") == [(value or [],) for value in wanted]
    destination.write(MigrateTable(people("t", ("v", after))))


def test_an_array_with_an_element_that_does_not_fit_makes_the_table_anew(destination, ask, caplog):
    before, after = people("t", ("v", pa.list_(pa.int64()))), people("t", ("v", pa.list_(pa.int8())))
    Forced("clickhouse", destination, ask).change(before, after, [[1, None], [2, 300]], [7], staged=False)
    assert ask("select id, v from t") == [(77, [7])]
    assert "column `v` holds '[2,300]'" in caplog.text


@pytest.mark.parametrize("misfit", [misfit for misfit in MISFITS if is_told(*misfit[:2])], ids=str)
def test_a_value_that_does_not_fit_makes_the_table_anew_and_is_named(destination, ask, misfit, caplog):
    before, after, value, new = misfit
    Forced("clickhouse", destination, ask).change(
        people("t", ("v", before)), people("t", ("v", after)), [value], new, staged=False
    )
    assert ask("select id from t") == [(77,)]
    assert "table `t` is made anew, without the rows that were in it: column `v` holds" in caplog.text


def test_descendants_are_deleted_to_the_last_level(destination):
    columns = (("id", pa.int64()), (CQ_ID, schema_types.uuid()), (CQ_PARENT_ID, schema_types.uuid()))
    tables = [data.named(f"level_{level}", *columns, keys=["id"]) for level in range(4)]
    for level, table in enumerate(tables):
        ids = [(n, bytes([level + 1, n]) * 8, bytes([level, n]) * 8) for n in range(3)]
        destination.insert(table, data.batch(table, *ids))
    relations = tuple(TableRelation(tables[n].name, tables[n - 1].name) for n in (2, 1, 3))
    where = (PredicateGroup((Predicate("id", pa.array([1])),)),)
    destination.write(*map(MigrateTable, tables), DeleteRecord(tables[0].name, where, relations))
    for table in tables:
        assert sorted(row["id"] for b in destination.plugin.read(table) for row in b.to_pylist()) == [0, 2]


def test_tables_of_others_are_read_with_text_for_types_that_arrow_lacks(destination, ask):
    ask(
        "create table theirs (a Enum8('x' = 1), b IPv4, c LowCardinality(Nullable(String)), d Date, e Int128, "
        "f Tuple(Int8, String), g DateTime('Europe/Berlin'), h Array(Array(UUID)), i Tuple(`a b` UUID, c UInt8), "
        "j Decimal(9, 2), k DateTime64(3, 'Europe/Berlin'), l Int8 alias 5) engine MergeTree order by a"
    )
    ask(
        "insert into theirs values ('x', '1.2.3.4', null, '2020-01-02', 5, (1, 'y'), '2020-01-02 03:04:05', "
        "[['00112233-4455-6677-8899-aabbccddeeff']], ('00112233-4455-6677-8899-aabbccddeeff', 7), 1.5, "
        "'2020-01-02 03:04:05.678')"
    )
    table = destination.plugin.stored_table("theirs")
    raw = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert table.column_names == tuple("abcdefghijk")
    (batch,) = destination.plugin.read(table)
    assert [batch.column(name).to_pylist()[0] for name in "abcdefgj"] == [
        "x", "1.2.3.4", None, "2020-01-02", "5", "(1,'y')", "2020-01-02 03:04:05", Decimal("1.50")
    ]  # fmt: skip
    assert batch.column("h").to_pylist()[0][0][0] == raw
    assert batch.column("i").to_pylist()[0] == {"a b": raw, "c": 7}
    assert batch.column("k")[0].as_py().isoformat() == "2020-01-02T03:04:05.678000+01:00"
    assert destination.plugin.stored_table("nobody's") is None


def test_a_view_is_not_written_to(destination, ask):
    ask("create view people as select 1 as id")
    with pytest.raises(MigrationRefused, match="its engine is `View`"):
        destination.plugin.destination.migrate(people(), force=True)


def test_keyed_tables_of_a_replicated_engine_are_refused_before_a_row_is_sent(opened):
    destination = opened(engine={"name": "ReplicatedMergeTree"})
    with pytest.raises(Unsupported, match="`overwrite-delete-stale` with `publish: atomic`"):
        destination.plugin.destination.migrate(people(), force=False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"engine": {"name": "Log"}}, r"engine\.name"),
        ({"order": [{"order_by": []}]}, "order_by"),
        ({"partition": [{"tables": ["*"]}]}, "partition_by"),
        ({"ca_cert": "no certificate"}, "expected certificates in PEM form"),
        ({"connection_string": "localhost"}, "expected a DSN such as 'clickhouse://user:password@host:9000/database'"),
        ({"http_port": 0}, "http_port"),
    ],
)
def test_mistakes_in_the_spec_are_named(spec, message):
    with pytest.raises(SpecError, match=message):
        DestinationHost(ClickHouse).init({"connection_string": "clickhouse://localhost", **spec}, no_connection=True)


def test_another_host_is_taken_where_one_does_not_answer(open_destination, clickhouse_url):
    destination = open_destination(ClickHouse, connection_string=clickhouse_url.replace("@", "@127.0.0.1:1,"))
    destination.insert(people(), rows(people(), (1, "a")))

    with asking(clickhouse_url) as ask:
        assert ask("select id, name from people") == [(1, "a")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda url: url.replace("rather-secret", "guessed"),
            "Authentication failed.*look at the user and the password",
        ),
        (lambda url: url + "_missing", "does not exist.*make the database first"),
        (lambda url: "clickhouse://u:very-secret@127.0.0.1:1/x", "127.0.0.1:1 cannot be reached.*refused.*`http_port`"),
    ],
    ids=["password", "database", "server"],
)
def test_a_server_that_cannot_be_used_is_told_with_what_to_do(clickhouse_url, change, message):
    plugin = DestinationHost(ClickHouse)
    try:
        plugin.init({"connection_string": change(clickhouse_url)}, no_connection=True)
        with pytest.raises(PluginError, match=message) as caught:
            plugin.test_connection()
        assert "secret" not in str(caught.value)
    finally:
        plugin.close()


def test_inserts_of_two_writers_of_one_table_all_arrive(destination):
    table = people(keys=())
    destination.write(MigrateTable(table), *(Insert(table, rows(table, (n, "same"))) for n in range(30)))
    destination.expect(table, rows(table, *((n, "same") for n in range(30))))
