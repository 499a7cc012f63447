"""The `_cq_` columns and ids, against the SDK's pinned values."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from catchment.schema import internal, types
from catchment.schema.table import Column, Table


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
