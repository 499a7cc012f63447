"""Parquet files: types that Arrow has many ways to write, files of different schemas, and broken ones."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catchment.sources.file import file
from tests.sources.reading import read


@pytest.fixture
def sync(tmp_path):
    """Writes tables as Parquet files and reads them all as table `t`."""

    def run(*tables, columns=None, keys=(), options=None, between=None, **spec):
        for number, table in enumerate(tables):
            if isinstance(table, bytes):
                (tmp_path / f"{number}.parquet").write_bytes(table)
            else:
                pq.write_table(table, tmp_path / f"{number}.parquet", **(options or {}))
        wanted = {"name": "t", "path": "*.parquet", "columns": columns or {}, "primary_keys": list(keys)}
        return read(file, {"path": str(tmp_path), "tables": [wanted], **spec}, between=between)

    return run


MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (pa.int8(), 1, "int8"),
        (pa.uint64(), 2**64 - 1, "uint64"),
        (pa.float32(), 1.5, "float32"),
        (pa.float16(), 1.5, "float32"),
        (pa.decimal128(38, 10), Decimal("1.5"), "decimal(38, 10)"),
        (pa.decimal256(50, 10), Decimal("1.5"), "decimal256(50, 10)"),
        (pa.timestamp("s", "UTC"), MOMENT, "timestamp[ms, tz=UTC]"),
        (pa.timestamp("ms"), MOMENT.replace(tzinfo=None), "timestamp[ms]"),
        (pa.timestamp("us", "Europe/Berlin"), MOMENT, "timestamp[us, tz=Europe/Berlin]"),
        (pa.timestamp("ns", "UTC"), MOMENT, "timestamp[ns, tz=UTC]"),
        (pa.date32(), date(2024, 1, 2), "date32"),
        (pa.time64("us"), MOMENT.time(), "time64[us]"),
        (pa.binary(), b"\x00\xff", "binary"),
        (pa.binary(3), b"\x00\xff\x01", "fixed_size_binary[3]"),
        (pa.utf8(), "x", "utf8"),
        (pa.large_utf8(), "x", "large_utf8"),
        (pa.string_view(), "x", "utf8"),
        (pa.dictionary(pa.int32(), pa.utf8()), "x", "utf8"),
        (pa.dictionary(pa.int8(), pa.int64()), 7, "int64"),
        (pa.list_(pa.dictionary(pa.int32(), pa.utf8())), ["x", None], "list<element: utf8, nullable>"),
        (pa.list_(pa.int32()), [1, None], "list<element: int32, nullable>"),
        (pa.struct([("a", pa.list_(pa.struct([("b", pa.utf8())])))]), {"a": [{"b": "x"}]},
         "struct<a: list<element: struct<b: utf8 nullable>, nullable> nullable>"),
        (pa.map_(pa.utf8(), pa.int64()), [("k", 1)], "map<utf8, int64, items_nullable>"),
        (pa.null(), None, "utf8"),
    ],
)  # fmt: skip
def test_types_and_values(sync, kind, value, stored):
    found = sync(pa.table({"v": pa.array([value, None], kind)}))

    assert found.errors == {}
    assert found.kinds("t") == {"v": stored}
    assert found.values("t", "v") == [value, None]


def test_arrows_own_uuid_and_json_become_ours(sync):
    one = uuid.uuid4()
    table = pa.table({"u": pa.array([one], pa.uuid()), "j": pa.array(['{"a": 1}'], pa.json_())})
    found = sync(table)

    assert found.kinds("t") == {"u": "uuid", "j": "json"}
    assert found.rows("t") == [(one.bytes, b'{"a": 1}')]


def test_files_of_different_schemas_are_one_table(sync):
    found = sync(
        pa.table({"id": pa.array([1], pa.int32()), "s": pa.array(["a"]).dictionary_encode(), "d": [Decimal("1.5")],
                  "n": [{"x": 1}]}),
        pa.table({"late": [True], "id": pa.array([2**40], pa.int64()), "d": [Decimal("100.25")],
                  "n": [{"y": "z"}], "s": ["b"]}),
    )  # fmt: skip

    assert found.errors == {}
    kinds = found.kinds("t")
    assert list(kinds) == ["id", "s", "d", "n", "late"]
    assert (kinds["id"], kinds["s"], kinds["d"]) == ("int64", "utf8", "decimal(5, 2)")
    assert found.rows("t") == [
        (1, "a", Decimal("1.50"), {"x": 1, "y": None}, None),
        (2**40, "b", Decimal("100.25"), {"x": None, "y": "z"}, True),
    ]


def test_files_whose_types_do_not_go_together_are_no_table(sync):
    found = sync(pa.table({"v": [1]}), pa.table({"v": ["x"]}))

    assert "table `t`: " in found.error
    assert "1.parquet does not fit the files before it" in found.error
    assert "name the column under `columns`" in found.error


def test_a_declared_type_brings_them_together(sync):
    found = sync(pa.table({"v": [1]}), pa.table({"v": ["x"]}), columns={"v": "string"})

    assert found.errors == {}
    assert found.rows("t") == [("1",), ("x",)]


def test_declared_types_of_texts_and_of_other_values(sync):
    table = pa.table({"u": ["12345678-9abc-def0-1234-56789abcdef0"], "t": ["2024-01-02 03:04:05"], "i": [1.0],
                      "d": [5], "j": [{"a": [1, None]}], "s": pa.array(["7"], pa.large_utf8())})  # fmt: skip
    columns = {"u": "uuid", "t": "timestamp", "i": "int64", "d": "decimal(20,2)", "j": "json", "s": "int64"}
    found = sync(table, columns=columns)

    assert found.errors == {}
    row = found.rows("t")[0]
    assert row[0].hex() == "123456789abcdef0123456789abcdef0"
    assert row[1:] == (MOMENT, 1, Decimal("5.00"), b'{"a":[1,null]}', 7)


def test_a_text_that_is_not_of_its_declared_type_is_told_by_its_row(sync):
    table = pa.table({"v": ["1", "two", "3"], "n": [1, 2, 3]})
    found = sync(table, columns={"v": "int64"}, options={"row_group_size": 1})
    assert "0.parquet:row 2: column `v`: 'two' is no int64" in found.error

    found = sync(table, columns={"v": "int64"}, options={"row_group_size": 1}, on_bad_row="skip", provenance=True)
    assert [row[:2] for row in found.rows("t")] == [(1, 1), (3, 3)]
    assert found.values("t", "_line") == [None, None]
    assert found.skipped["t"][0] == 1


def test_a_value_that_would_change_fails_the_table(sync):
    found = sync(pa.table({"v": [1.5]}), columns={"v": "int64"})

    assert "0.parquet: column `v` is double, which does not go into int64" in found.error
    assert "give the column another type under `columns`" in found.error


def test_a_null_key_is_told_by_its_row(sync):
    found = sync(pa.table({"id": [1, None, 3]}), keys=["id"], options={"row_group_size": 1})

    assert "0.parquet:row 2: key column `id` has no value" in found.error


def test_no_rows_and_no_row_groups(sync):
    found = sync(pa.table({"v": pa.array([], pa.int64())}))

    assert found.errors == {}
    assert found.kinds("t") == {"v": "int64"}
    assert found.rows("t") == []


def test_row_groups_come_in_order_and_large_rows_in_small_batches(sync):
    table = pa.table({"id": range(3000), "text": ["x" * 100_000] * 3000})
    found = sync(table, options={"row_group_size": 1000, "use_dictionary": False})

    assert found.values("t", "id") == list(range(3000))
    assert max(batch.nbytes for batch in found.batches["t"]) < 80 << 20


def test_a_corrupt_file_fails_where_it_breaks(sync, tmp_path):
    pq.write_table(pa.table({"v": range(100_000)}), tmp_path / "x", compression="gzip", row_group_size=10_000)
    raw = bytearray((tmp_path / "x").read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 1000] = bytes(1000)

    found = sync(bytes(raw))
    assert "0.parquet cannot be read to its end" in found.error
    assert 0 < len(found.rows("t")) < 100_000

    found = sync(bytes(raw[:-100]))
    assert "0.parquet is no Parquet file that can be read" in found.error


def test_two_columns_of_one_name_are_a_mistake(sync):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["v", "v"])

    assert "column 'v' is there twice" in sync(table).error


def test_batches_are_the_readers_own(tmp_path):
    """Nothing is copied where the types are plain: the buffers are those that the reader made."""
    from catchment.sources.file.parquet import read as read_parts

    table = pa.table({"i": range(1000), "s": ["x"] * 1000})
    pq.write_table(table, tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    [part] = read_parts(tmp_path / "a.parquet", table.schema, lambda row: None)

    assert part.batch.schema.equals(table.schema)
    assert pa.total_allocated_bytes() - before < 2 * table.nbytes + 100_000
