"""The `_cq_` columns and ids, against the SDK's pinned values."""

from __future__ import annotations

import datetime
import hashlib
import struct
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.schema import internal, types
from catchment.schema.intervals import day_time_interval, month_interval
from catchment.schema.table import Column, Table
from tests import strategies


def extension(kind: pa.DataType, value: bytes) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array([value], kind.storage_type))


MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=datetime.UTC)
VECTORS = [
    ({"a": pa.array(["x"])}, "b0245f43-902e-5d90-886c-dc3f58bb2f93"),
    ({"b": pa.array([1]), "a": pa.array(["x"])}, "bead7d69-c3a7-5835-ac00-6f0764fe1f4b"),
    ({"a": pa.array([None], pa.utf8())}, "687cd119-acc3-5a8b-a445-82e11c1106f1"),
    ({"test_column": pa.array([3])}, "c25355aa-b52c-5b70-a4e0-c9991f5a3b87"),
    ({"a": pa.array([MOMENT], pa.timestamp("us", "UTC"))}, "18941956-1be4-5959-82a5-fdd0fc32403c"),
    ({"a": extension(types.json(), b'{"a":[1,"<&>"],"z":1}')}, "ac8656b6-4b88-513b-a305-af1c6da3a870"),
    ({"a": pa.array([["p", "q"]])}, "265fd061-0959-5eb9-9c6b-54b66c0ecc83"),
    (
        {
            "a": pa.array([True]),
            "f": pa.array([1e21]),
            "u": extension(types.uuid(), uuid.UUID("AABBCCDD-0000-1111-2222-333344445555").bytes),
        },
        "6e13e495-3236-5a94-8af1-9c78e16007b8",
    ),
    (
        {
            "i": extension(types.inet(), b"10.1.2.3/8"),
            "m": extension(types.mac(), bytes.fromhex("AABBCCDDEEFF")),
            "b": pa.array([b"raw"]),
            "d": pa.array([datetime.date(2024, 2, 3)]),
            "x": pa.array([Decimal("1.5")], pa.decimal128(19, 10)),
        },
        "f5762434-7b82-52a4-a5c7-6ab7723d3f81",
    ),
]


@pytest.mark.parametrize(("columns", "expected"), VECTORS)
def test_ids_are_those_of_the_sdk(columns, expected):
    [found] = internal.deterministic_ids(columns).storage.to_pylist()

    assert str(uuid.UUID(bytes=found)) == expected


def test_ids_of_many_rows_are_those_of_each_row():
    column = pa.array([*range(1000), None])

    together = internal.deterministic_ids({"id": column}).storage.to_pylist()

    assert together == [internal.deterministic_ids({"id": column.slice(i, 1)}).storage[0].as_py() for i in range(1001)]


def test_ids_of_a_sliced_column_are_those_of_its_rows():
    column = pa.array(["a", "b", "c"])

    assert internal.deterministic_ids({"k": column.slice(1)}).storage.to_pylist() == (
        internal.deterministic_ids({"k": pa.array(["b", "c"])}).storage.to_pylist()
    )


@pytest.mark.parametrize("count", [0, 1, 65_536, 65_537])
def test_random_ids_are_different_uuids_of_version_4(count):
    ids = internal.random_ids(count).storage.to_pylist()

    assert len(set(ids)) == count
    assert all(uuid.UUID(bytes=raw).version == 4 and uuid.UUID(bytes=raw).variant == uuid.RFC_4122 for raw in ids[:99])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e21, b"1000000000000000000000"),
        (1.5, b"1.5"),
        (100.0, b"100"),
        (1e-7, b"0.0000001"),
        (0.0, b"0"),
        (float("nan"), b"NaN"),
        (float("inf"), b"+Inf"),
        (float("-inf"), b"-Inf"),
    ],
)
def test_floats_have_no_exponent(value, text):
    assert internal.value_texts(pa.array([value])).to_pylist() == [text]


def test_cq_ids_come_first_and_are_the_key_of_a_table_without_one():
    keyless = Table("t", (Column("a", pa.int64()),))
    keyed = Table("t", (Column("a", pa.int64(), primary_key=True),))

    assert internal.add_cq_ids(keyless).column_names == ("_cq_id", "_cq_parent_id", "a")
    assert internal.add_cq_ids(keyless).primary_keys == ("_cq_id",)
    assert internal.add_cq_ids(keyed).primary_keys == ("a",)


@pytest.mark.parametrize(
    ("columns", "deterministic", "expected"),
    [
        ([Column("a", pa.int64(), primary_key=True)], True, ("a",)),
        ([Column("a", pa.int64(), primary_key=True)], False, ()),
        ([Column("a", pa.int64(), primary_key_component=True)], False, ("a",)),
        ([Column("a", pa.int64())], True, ()),
        ([Column("_cq_id", types.uuid(), primary_key=True)], True, ()),
    ],
)
def test_what_an_id_is_made_of(columns, deterministic, expected):
    assert internal.hash_columns(Table("t", tuple(columns)), deterministic=deterministic) == expected


EPOCH = datetime.datetime(1970, 1, 1)


def moment_text(value, unit):
    places = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    seconds, rest = divmod(value, 10**places)
    return (EPOCH + datetime.timedelta(seconds=seconds)).isoformat(), f".{rest:0{places}}" if places else ""


def float_text(value):
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    text = f"{Decimal(repr(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def text_of(value, kind):
    """What the SDK writes for one value: the reference, value by value."""
    if value is None:
        return "(null)"
    if isinstance(kind, types.UUIDType):
        return str(uuid.UUID(bytes=value))
    if isinstance(kind, types.MACType):
        return ":".join(f"{byte:02x}" for byte in value)
    if kind.equals(month_interval()):
        return f'{{"months":{value}}}'
    if kind.equals(day_time_interval()):
        days, milliseconds = struct.unpack("<ii", value.to_bytes(8, "little", signed=True))
        return f'{{"days":{days},"milliseconds":{milliseconds}}}'
    if isinstance(value, bytes):
        return value
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    if pa.types.is_floating(kind):
        return float_text(value)
    if pa.types.is_decimal(kind):
        return f"{value:f}"
    if pa.types.is_timestamp(kind):
        return moment_text(value, kind.unit)[0] + "Z"
    if pa.types.is_time(kind):
        moment, fraction = moment_text(value, kind.unit)
        return moment.removeprefix("1970-01-01T") + fraction
    if pa.types.is_duration(kind):
        return f"{value}{kind.unit}"
    if isinstance(value, pa.MonthDayNano):
        return f'{{"months":{value.months},"days":{value.days},"nanoseconds":{value.nanoseconds}}}'
    if pa.types.is_nested(kind):
        texts = [text_of(inner, kind.value_type) for inner in value]
        return b"[" + b", ".join(text if isinstance(text, bytes) else text.encode() for text in texts) + b"]"
    return str(value)


LEAF_KINDS = st.sampled_from(list(strategies.LEAVES))
HASHED = st.one_of(LEAF_KINDS, LEAF_KINDS.map(pa.list_), LEAF_KINDS.map(pa.list_).map(pa.list_))


@pytest.mark.parametrize(
    "nest", [lambda kind: kind, pa.list_, lambda kind: pa.list_(pa.list_(kind))], ids=["plain", "list", "lists"]
)
@pytest.mark.parametrize("kind", list(strategies.LEAVES), ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_texts_by_column_are_those_of_each_value_of_any_slice(nest, kind, data):
    array, values = data.draw(strategies.slices(st.just(nest(kind))))

    expected = [text_of(value, array.type) for value in values]

    assert internal.value_texts(array).to_pylist() == [
        text if isinstance(text, bytes) else text.encode() for text in expected
    ]


@given(st.data(), st.lists(HASHED, min_size=1, max_size=3))
def test_ids_by_column_are_the_documented_hash_of_each_row(data, kinds):
    names = data.draw(
        st.lists(st.text("aZ_é\U0001f389", min_size=1), min_size=len(kinds), max_size=len(kinds), unique=True)
    )
    drawn = [data.draw(strategies.slices(st.just(kind))) for kind in kinds]
    count = min(len(array) for array, _ in drawn)
    rows = zip(*(values[:count] for _, values in drawn), strict=True)

    ids = internal.deterministic_ids({n: array.slice(0, count) for n, (array, _) in zip(names, drawn, strict=True)})

    assert ids.storage.to_pylist() == [
        documented_id(dict(zip(names, zip(row, kinds, strict=True), strict=True))) for row in rows
    ]


def documented_id(row):
    parts = []
    for name in sorted(row, key=str.encode):
        text = text_of(*row[name])
        parts += [name.encode(), text if isinstance(text, bytes) else text.encode()]
    digest = hashlib.sha256(b"".join(parts)).digest()
    raw = bytearray(hashlib.sha1(bytes(16) + digest).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def test_structs_are_json_as_go_writes_it():
    array = pa.array([{"z": "<é&>\u2028", "a": 1}, None])

    assert internal.value_texts(array).to_pylist() == [
        '{"a":1,"z":"\\u003cé\\u0026\\u003e\\u2028"}'.encode(), b"(null)",
    ]  # fmt: skip


def test_dictionaries_are_hashed_as_their_values():
    array = pa.array(["x", "y", "x"])

    assert internal.value_texts(array.dictionary_encode().slice(1)).to_pylist() == [b"y", b"x"]


def test_columns_in_chunks_are_hashed_as_one():
    column = pa.chunked_array([["a"], [], ["b", None]], pa.utf8())

    assert internal.deterministic_ids({"k": column}).equals(internal.deterministic_ids({"k": column.combine_chunks()}))
    assert len(internal.deterministic_ids({"k": pa.chunked_array([], pa.utf8())})) == 0


def test_timestamps_are_cut_to_the_second_before_them_over_the_whole_range():
    array = pa.array([-(2**63), -1, 0, 999_999_999, 2**63 - 1], pa.timestamp("ns", "UTC"))

    assert internal.value_texts(array).to_pylist() == [
        b"1677-09-21T00:12:43Z", b"1969-12-31T23:59:59Z", b"1970-01-01T00:00:00Z", b"1970-01-01T00:00:00Z",
        b"2262-04-11T23:47:16Z",
    ]  # fmt: skip
