"""Rows, models, pages and Arrow to batches: every type, and no value that is wrapped, cut or lost."""

from __future__ import annotations

import collections
import datetime
import decimal
import ipaddress
import math
import uuid
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.errors import PluginError
from catchment.schema import types
from catchment.schema.table import Column, Table
from catchment.sdk import rows as sdk_rows
from catchment.sdk.json_text import to_json_text
from catchment.sdk.rows import batches, to_rows
from tests import strategies
from tests.sdk.row_kinds import MOMENT, Color, Model, Row


def column(kind, *values):
    """One column of `kind` filled from rows."""
    table = Table("t", (Column("value", kind),))
    [batch] = batches(table, [[{"value": value} for value in values]])
    batch.validate(full=True)
    return batch.column(0)


def same(found, expected):
    """Whether two arrays hold the same, NaN being NaN, whatever lies under their nulls."""
    return found.type.equals(expected.type) and to_json_text(found).equals(to_json_text(expected))


def stored(kind, *values):
    return types.to_storage(column(kind, *values)).to_pylist()


def refused(kind, *values):
    """The text of the error that values of one column give."""
    with pytest.raises(PluginError) as caught:
        column(kind, *values)
    return str(caught.value)


# ---- values of each type


@given(st.data(), strategies.kinds())
def test_values_of_any_type_arrive_as_arrow_itself_would_take_them(data, kind):
    values = data.draw(st.lists(st.none() | strategies.values(kind), max_size=5))
    expected = types.from_storage(pa.array(values, types.storage_type(kind)), kind)

    found = column(kind, *values) if values else pa.nulls(0, kind)

    assert same(found, expected)


def test_values_of_python_types_become_their_columns():
    ident = uuid.UUID(int=7)

    assert stored(pa.timestamp("us", "UTC"), MOMENT, MOMENT.replace(tzinfo=None), None) == [MOMENT, MOMENT, None]
    assert stored(pa.timestamp("us", "UTC"), MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=5)))) == [
        MOMENT
    ]
    assert stored(pa.date32(), MOMENT.date(), datetime.datetime(2024, 1, 2)) == [MOMENT.date(), MOMENT.date()]
    assert stored(pa.time64("us"), MOMENT.time()) == [MOMENT.time()]
    assert stored(pa.duration("us"), datetime.timedelta(days=-1)) == [datetime.timedelta(days=-1)]
    assert stored(types.uuid(), ident, ident.hex, str(ident).upper(), ident.bytes) == [ident.bytes] * 4
    assert stored(types.mac(), "AA-BB-CC-DD-EE-FF", "aabb.ccdd.eeff", bytes(6)) == [
        bytes.fromhex("aabbccddeeff"), bytes.fromhex("aabbccddeeff"), bytes(6)
    ]  # fmt: skip
    assert stored(pa.decimal128(38, 10), decimal.Decimal("1.5"), 2) == [decimal.Decimal("1.5"), 2]
    assert stored(pa.int64(), 1, 2.0, decimal.Decimal(3), True.__index__()) == [1, 2, 3, 1]
    assert stored(pa.binary(), b"\0", "é") == [b"\0", "é".encode()]


def test_addresses_keep_their_prefix_and_host_bits():
    values = ["10.1.2.3/8", "10.1.2.3", ipaddress.IPv4Address("10.0.0.1"), ipaddress.ip_interface("::1/64"),
              ipaddress.ip_network("10.0.0.0/8"), b"1.2.3.4/5"]  # fmt: skip

    assert stored(types.inet(), *values) == [
        b"10.1.2.3/8", b"10.1.2.3/32", b"10.0.0.1/32", b"::1/64", b"10.0.0.0/8", b"1.2.3.4/5",
    ]  # fmt: skip


def test_json_takes_whatever_json_has_a_word_for():
    @dataclass
    class Part:
        at: datetime.datetime = MOMENT
        parts: list[Any] = field(default_factory=lambda: [Model(id=1)])

    values = [
        {"a": [1, None, 1.5, True]}, "text", 1, b' {"kept": "as it is"} ', Part(), Model(id=2), Color.RED,
        {1, 2}, (1, 2), collections.OrderedDict(a=1), collections.ChainMap({"b": 2}), decimal.Decimal("1.10"),
        uuid.UUID(int=1), datetime.date(2024, 1, 2), {"raw": b"\xff"}, "é🎉\n", PurePosixPath("/a"),
        collections.deque([1]),
    ]  # fmt: skip

    assert [text.decode() for text in stored(types.json(), *values)] == [
        '{"a":[1,null,1.5,true]}', '"text"', "1", ' {"kept": "as it is"} ',
        '{"at":"2024-01-02T03:04:05.678901+00:00","parts":[{"id":1,"name":null}]}', '{"id":2,"name":null}', '"red"',
        "[1,2]", "[1,2]", '{"a":1}', '{"b":2}', '"1.10"', '"00000000-0000-0000-0000-000000000001"', '"2024-01-02"',
        '{"raw":"/w=="}', '"é🎉\\n"', '"/a"', "[1]",
    ]  # fmt: skip


def test_values_in_lists_structs_and_maps_are_made_like_those_of_columns():
    ident = uuid.UUID(int=7)
    kind = pa.struct([pa.field("ids", pa.list_(types.uuid())), pa.field("at", pa.timestamp("us", "UTC"))])

    assert stored(pa.list_(types.inet()), [ipaddress.ip_address("1.2.3.4"), None], (), None) == [
        [b"1.2.3.4/32", None], [], None,
    ]  # fmt: skip
    assert stored(kind, {"ids": [str(ident)], "at": "2024-01-02T03:04:05.678901Z"}, None, {}) == [
        {"ids": [ident.bytes], "at": MOMENT}, None, {"ids": None, "at": None},
    ]  # fmt: skip
    assert stored(pa.map_(pa.utf8(), types.json()), {"a": [1]}, [("b", None)], None) == [
        [("a", b"[1]")], [("b", None)], None,
    ]  # fmt: skip
    assert stored(pa.struct([("id", pa.int64()), ("name", pa.utf8())]), Row(1, "a")) == [{"id": 1, "name": "a"}]
    assert stored(pa.list_(pa.int8(), 2), [1, 2], None) == [[1, 2], None]
    assert stored(pa.large_list(pa.int8()), {3}, range(2)) == [[3], [0, 1]]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (pa.timestamp("us", "UTC"), "2024-01-02T03:04:05.678901Z", MOMENT),
        (pa.timestamp("us", "UTC"), "2024-01-02 05:04:05.678901+02:00", MOMENT),
        (pa.timestamp("us", "UTC"), "2024-01-02T03:04:05.678901", MOMENT),
        (pa.timestamp("s", "UTC"), "2024-01-02T03:04Z", MOMENT.replace(second=0, microsecond=0)),
        (pa.timestamp("us"), "2024-01-02T03:04:05.678901", MOMENT.replace(tzinfo=None)),
        (pa.date32(), "2024-01-02", MOMENT.date()),
        (pa.date64(), "2024-01-02", MOMENT.date()),
        (pa.time64("us"), "03:04:05.678901", MOMENT.time()),
        (pa.decimal128(38, 10), "-1.25", decimal.Decimal("-1.25")),
    ],
)
def test_times_dates_and_decimals_may_be_text(kind, text, expected):
    other = {pa.date64(): MOMENT.date()}.get(kind, expected)

    assert stored(kind, text, None, text) == [expected, None, expected]
    assert stored(kind, other, text) == [expected, expected], "mixed with values"


class TestValuesThatDoNotFit:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (pa.int8(), 128),
            (pa.int64(), 2**63),
            (pa.uint8(), -1),
            (pa.uint64(), 2**64),
            (pa.int64(), "12"),
            (pa.int64(), 1.5),
            (pa.int64(), math.nan),
            (pa.int64(), math.inf),
            (pa.int64(), 1e300),
            (pa.int64(), decimal.Decimal("1.5")),
            (pa.int64(), True),
            (pa.int64(), []),
            (pa.float64(), 2**53 + 1),
            (pa.float64(), True),
            (pa.float64(), "1"),
            (pa.float32(), 1e300),
            (pa.float32(), 2**25 + 1),
            (pa.bool_(), 1),
            (pa.bool_(), "true"),
            (pa.utf8(), 1),
            (pa.utf8(), b"\xff"),
            (pa.utf8(), "\ud800"),
            (pa.binary(), 1),
            (pa.binary(4), b"abc"),
            (pa.decimal128(5, 2), decimal.Decimal("1.234")),
            (pa.decimal128(5, 2), decimal.Decimal(1000)),
            (pa.decimal128(5, 2), 1.5),
            (pa.decimal128(5, 2), "1.234"),
            (pa.decimal128(5, 2), "x"),
            (pa.date32(), datetime.datetime(2024, 1, 2, 3)),
            (pa.date64(), datetime.datetime(2024, 1, 2, 3)),
            (pa.date32(), "2024-01-02T00:00:00"),
            (pa.timestamp("s"), MOMENT),
            (pa.timestamp("ms", "UTC"), MOMENT),
            (pa.timestamp("ms", "UTC"), "2024-01-02T03:04:05.678901Z"),
            (pa.timestamp("us", "UTC"), "2024-01-02T03:04:05.678901234Z"),
            (pa.timestamp("us", "UTC"), "yesterday"),
            (pa.timestamp("us", "UTC"), datetime.date(2024, 1, 2)),
            (pa.timestamp("us", "UTC"), 1.5),
            (pa.timestamp("us"), "2024-01-02T03:04:05Z"),
            (pa.timestamp("ns", "UTC"), datetime.datetime(9999, 1, 1)),
            (pa.time32("s"), datetime.time(1, 2, 3, 4)),
            (pa.time32("ms"), "01:02:03.4567"),
            (pa.duration("s"), datetime.timedelta(microseconds=1)),
            (pa.duration("ns"), datetime.timedelta(days=999_999)),
            (pa.duration("s"), "1s"),
            (types.uuid(), "1234"),
            (types.uuid(), b"1234"),
            (types.uuid(), 5),
            (types.mac(), "aa:bb"),
            (types.mac(), b"12345"),
            (types.mac(), "zz:zz:zz:zz:zz:zz"),
            (types.inet(), "10.0.0.300"),
            (types.inet(), b"junk"),
            (types.inet(), 5),
            (types.json(), b"{"),
            (types.json(), {"a": math.nan}),
            (types.json(), {("a", "b"): 1}),
            (types.json(), object()),
            (types.json(), "\ud800"),
            (pa.list_(pa.int64()), 5),
            (pa.list_(pa.utf8()), "abc"),
            (pa.list_(pa.utf8()), {"a": 1}),
            (pa.list_(pa.int64()), [1.5]),
            (pa.list_(pa.int8()), [128]),
            (pa.list_(pa.int64(), 2), [1]),
            (pa.struct([("a", pa.int8())]), {"a": 1.5}),
            (pa.struct([("a", pa.int8())]), 5),
            (pa.map_(pa.utf8(), pa.int8()), {"a": 1000}),
            (pa.map_(pa.utf8(), pa.int8()), [1, 2]),
        ],
    )  # fmt: skip
    def test_the_error_names_table_column_and_value(self, kind, value):
        good = {"value": None}
        table = Table("things", (Column("value", kind),))

        with pytest.raises(PluginError) as caught:
            list(batches(table, [[good, {"value": value}]]))

        text = str(caught.value)
        assert text.startswith(f"table `things`: column `value` is {types.type_string(kind)}, got ")
        assert f"got {value!r} in row 2 of a batch: " in text

    def test_the_first_of_several_is_named(self):
        assert "got 1.5 in row 3 of a batch" in refused(pa.int64(), 1, 2.0, 1.5, 2.5)


# ---- Arrow


WIDE = Table(
    "w",
    (
        Column("a", pa.int64()),
        Column("b", pa.utf8()),
        Column("c", types.json()),
        Column("d", pa.list_(types.uuid())),
    ),
)


def arrow(data, table=WIDE):
    return [row for batch in sdk_rows.from_arrow(table, data) for row in types_to_rows(batch)]


def types_to_rows(batch):
    columns = [types.to_storage(found).to_pylist() for found in batch.columns]
    return list(zip(*columns, strict=True))


def test_arrow_that_fits_is_handed_through_untouched():
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1]), pa.array(["x"]), column(types.json(), {}), column(pa.list_(types.uuid()), [])],
        schema=WIDE.arrow_schema,
    )

    [found] = sdk_rows.from_arrow(WIDE, batch)

    for index in range(3):
        assert found.column(index).buffers()[-1].address == batch.column(index).buffers()[-1].address


def test_columns_are_found_by_name_and_missing_ones_null():
    assert arrow(pa.table({"b": ["x", "y"], "a": [1, 2]})) == [(1, "x", None, None), (2, "y", None, None)]


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (pa.array([9, 1, None], pa.int8()), pa.array([1, None], pa.int64())),
        (pa.array([9, 2**63 - 1, None]), pa.array([2**63 - 1, None], pa.uint64())),
        (pa.array([9.0, 1.0, None]), pa.array([1, None], pa.int64())),
        (pa.array([9.0, 0.25, math.nan, None]), pa.array([0.25, math.nan, None], pa.float32())),
        (pa.array(["x", "y", None], pa.large_utf8()), pa.array(["y", None])),
        (pa.array(["x", "y", None]).dictionary_encode(), pa.array(["y", None])),
        (pa.array([9, 1, None]).dictionary_encode(), pa.array([1, None], pa.int16())),
        (pa.array([0, 1_000, None], pa.timestamp("ms")), pa.array([1, None], pa.timestamp("s", "UTC"))),
        (
            pa.array([0, 1, None], pa.timestamp("s", "Europe/Berlin")),
            pa.array([10**6, None], pa.timestamp("us", "UTC")),
        ),
        (pa.array([0, 86_400, None], pa.timestamp("s")), pa.array([1, None], pa.date32())),
        (pa.array(["", "2024-01-02", None]), pa.array([datetime.date(2024, 1, 2), None])),
        (pa.array([[9], [1, None], None], pa.list_(pa.int8())), pa.array([[1, None], None], pa.large_list(pa.int64()))),
        (
            pa.array([{"a": 9, "b": "x"}, {"a": 1, "b": "y"}]),
            pa.array([{"b": "y", "a": 1}], pa.struct([("b", pa.utf8()), ("a", pa.int8())])),
        ),
        (pa.nulls(2), pa.nulls(1, pa.int64())),
    ],
)  # fmt: skip
def test_slices_are_cast_where_no_value_changes(have, want):
    table = Table("t", (Column("value", want.type),))

    [found] = sdk_rows.from_arrow(table, pa.RecordBatch.from_arrays([have], ["value"]).slice(1))

    found.validate(full=True)
    assert found.column(0).type.equals(want.type)
    assert str(found.column(0)) == str(want)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (pa.array([300]), pa.int8()),
        (pa.array([-1]), pa.uint64()),
        (pa.array([1.5]), pa.int64()),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([0.1]), pa.float32()),
        (pa.array([1e300]), pa.float32()),
        (pa.array([5]), pa.bool_()),
        (pa.array([5]), types.uuid()),
        (pa.array(["x"]), pa.int64()),
        (pa.array([1_500], pa.timestamp("ms")), pa.timestamp("s")),
        (pa.array([1], pa.timestamp("s")), pa.date32()),
        (pa.array([1], pa.timestamp("s")), pa.date64()),
        (pa.array([[0.1]]), pa.list_(pa.float32())),
        (pa.array([[1], [2, 3]]), pa.list_(pa.int64(), 1)),
        (pa.array([{"a": 1, "b": 2}]), pa.struct([("a", pa.int64())])),
        (pa.array([{"a": 1}]), pa.struct([("a", pa.int64()), ("b", pa.int64())])),
        (pa.array([[1]]), pa.map_(pa.utf8(), pa.int64())),
        (pa.array([[1]]), pa.int64()),
        (pa.array([1]), pa.list_(pa.int64())),
        (pa.array(["a" * 16]), types.uuid()),
        (pa.array(["12:34"]), types.mac()),
    ],
)  # fmt: skip
def test_arrow_that_would_change_is_refused_with_both_types(have, want):
    table = Table("t", (Column("value", want),))

    with pytest.raises(PluginError) as caught:
        list(sdk_rows.from_arrow(table, pa.RecordBatch.from_arrays([have], ["value"])))

    assert f"table `t`: column `value` is {types.type_string(want)}, got {types.type_string(have.type)}" in str(
        caught.value
    )


def test_text_becomes_ids_addresses_and_json():
    data = pa.table({"c": ['{"a":1}', None], "d": [["00000000-0000-0000-0000-000000000007"], None]})

    assert [row[2:] for row in arrow(data)] == [(b'{"a":1}', [uuid.UUID(int=7).bytes]), (None, None)]
    assert arrow(pa.table({"m": ["aa:bb:cc:dd:ee:ff"]}), Table("t", (Column("m", types.mac()),))) == [
        (bytes.fromhex("aabbccddeeff"),)
    ]


def test_arrows_own_extension_types_become_those_of_the_protocol():
    table = Table("t", (Column("u", types.uuid()), Column("j", types.json())))
    ours = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16)))
    data = pa.RecordBatch.from_arrays([ours, pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[1]"]))], ["u", "j"])

    assert arrow(data, table) == [(bytes(16), b"[1]")]


def test_unknown_and_doubled_columns_are_named():
    with pytest.raises(PluginError, match=r"table `w` has no column `aa`; "):
        arrow(pa.table({"aa": [1]}))
    with pytest.raises(PluginError, match="column `a` twice"):
        arrow(pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]))


@given(strategies.slices(strategies.kinds()))
def test_any_slice_of_a_fitting_type_arrives_as_it_is(sliced):
    array, _ = sliced
    table = Table("t", (Column("value", array.type), Column("other", pa.int8())))

    [found] = sdk_rows.from_arrow(table, pa.RecordBatch.from_arrays([array], ["value"]))

    assert same(found.column(0), array)
    assert found.column(1).null_count == len(array)


# ---- back to rows


def test_rows_given_back_have_values_as_an_author_writes_them():
    kinds = {
        "u": types.uuid(), "j": types.json(), "i": types.inet(), "m": types.mac(), "n": pa.int64(),
        "t": pa.timestamp("us", "UTC"), "l": pa.list_(pa.int64()),
    }  # fmt: skip
    row = {
        "u": uuid.UUID(int=1), "j": {"a": [1]}, "i": ipaddress.ip_interface("10.1.2.3/8"), "m": bytes(6), "n": 5,
        "t": MOMENT, "l": [1],
    }  # fmt: skip
    table = Table("t", tuple(Column(name, kind) for name, kind in kinds.items()))
    [batch] = batches(table, [row, {}, row])

    assert to_rows(batch.slice(1)) == [dict.fromkeys(kinds), row]


def test_nanoseconds_are_given_back_whole_and_taken_again():
    kinds = {"t": pa.timestamp("ns", "UTC"), "c": pa.time64("ns"), "d": pa.duration("ns")}
    table = Table("t", tuple(Column(name, kind) for name, kind in kinds.items()))
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1, None], kind) for kind in kinds.values()], schema=table.arrow_schema
    )

    rows = to_rows(batch)

    assert {name: value.value for name, value in rows[0].items()} == {"t": 1, "c": 1, "d": 1}
    assert rows[1] == dict.fromkeys(kinds)
    [again] = batches(table, rows)
    assert again.equals(batch)
