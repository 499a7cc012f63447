"""CSV files: types, options, broken rows with their lines, and input made to hurt."""

from __future__ import annotations

import bz2
import gzip
import random
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.sources.file import file
from catchment.sources.file.blocks import BLOCK_BYTES
from catchment.sources.file.csv import _File
from catchment.sources.file.inference import Inference
from catchment.sources.file.records import Records
from catchment.sources.file.spec import CSVSpec
from tests.sources.reading import read


@pytest.fixture
def sync(tmp_path):
    """Writes `t.csv`, or a file of another name, and reads it as table `t`."""

    def run(content, *, name="t.csv", table=None, **spec):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if table is not None:
            spec["tables"] = [{"name": "t", "path": name, **table}]
        return read(file, {"path": str(tmp_path / name) if table is None else str(tmp_path), **spec})

    return run


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (["1", "-2", "0"], "int64", [1, -2, 0]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["1", "9223372036854775808"], "utf8", ["1", "9223372036854775808"]),
        (["007", "1"], "utf8", ["007", "1"]),
        (["-07"], "utf8", ["-07"]),
        (["0x1F"], "utf8", ["0x1F"]),
        (["+5"], "utf8", ["+5"]),
        ([" 5"], "utf8", [" 5"]),
        (["1_000"], "utf8", ["1_000"]),
        (["1", "2.5"], "float64", [1.0, 2.5]),
        (["1e3", "-2.5E-3", ".5", "5.", "0"], "float64", [1000.0, -0.0025, 0.5, 5.0, 0.0]),
        (["00.5"], "utf8", ["00.5"]),
        (["+1.5"], "utf8", ["+1.5"]),
        (["0.1234567890123456789"], "float64", [0.12345678901234568]),
        (["12345678901234567", "0.5"], "utf8", ["12345678901234567", "0.5"]),
        (["0.5", "12345678901234567"], "utf8", ["0.5", "12345678901234567"]),
        (["123456789012345", "0.5"], "float64", [123456789012345.0, 0.5]),
        (["1.5", "inf", "-inf", "Infinity"], "float64", [1.5, float("inf"), float("-inf"), float("inf")]),
        (["nan"], "utf8", ["nan"]),
        (["inf", "-inf"], "utf8", ["inf", "-inf"]),
        (["1e999"], "utf8", ["1e999"]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["true", "1"], "utf8", ["true", "1"]),
        (["yes", "no"], "utf8", ["yes", "no"]),
        (["2024-02-29", "0001-01-01"], "date32", [date(2024, 2, 29), date(1, 1, 1)]),
        (["2024-02-30"], "utf8", ["2024-02-30"]),
        (["2024-1-2"], "utf8", ["2024-1-2"]),
        (["2024-01-02", "5"], "utf8", ["2024-01-02", "5"]),
        (["a", "1", "true"], "utf8", ["a", "1", "true"]),
        (["00000000-0000-0000-0000-000000000001"], "utf8", ["00000000-0000-0000-0000-000000000001"]),
    ],
)
@pytest.mark.parametrize("blocks", ["one block", "a block each"])
def test_a_type_is_found_that_holds_every_text_exactly(sync, monkeypatch, texts, kind, values, blocks):
    if blocks == "a block each":
        monkeypatch.setattr("catchment.sources.file.blocks.BLOCK_BYTES", 2)

    found = sync("v,n\n" + "".join(f"{text},x\n" for text in texts))

    assert found.kinds("t")["v"] == kind
    assert found.values("t", "v") == values


@pytest.mark.parametrize(
    ("blocks", "kind"),
    [
        ([["12345678901234567"], ["0.5"]], pa.utf8()),
        ([["-12345678901234567"], ["0.5"]], pa.utf8()),
        ([["999999999999999"], ["0.5"]], pa.float64()),
        ([["1"], ["0.5"], ["2"]], pa.float64()),
        ([["true"], ["1"]], pa.utf8()),
        ([["2024-01-01"], ["2024-01-01 10:00"], ["2024-01-02"]], pa.timestamp("us", "UTC")),
        ([[""], ["5"]], pa.int64()),
        ([["5"], ["", None]], pa.int64()),
        ([["", "x"], ["5"]], pa.utf8()),
        ([[""], [""]], pa.utf8()),
        ([[None]], pa.utf8()),
    ],
)
def test_blocks_that_were_looked_at_keep_their_say(blocks, kind):
    inference = Inference(nulls=("",))
    for block in blocks:
        inference.look(pa.array(block, pa.utf8()))

    assert inference.type.equals(kind)


@pytest.mark.parametrize("texts", [["1.5", "NaN"], ["NaN", "1"], ["nan", "2e0"]])
def test_not_a_number_is_one_beside_numbers(sync, texts):
    found = sync("v,n\n" + "".join(f"{text},x\n" for text in texts))

    assert found.kinds("t")["v"] == "float64"
    assert sum(value != value for value in found.values("t", "v")) == 1


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-02 03:04", datetime(2024, 1, 2, 3, 4)),
        ("2024-01-02T03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02 03:04:05.5", datetime(2024, 1, 2, 3, 4, 5, 500_000)),
        ("2024-01-02T03:04:05.123456Z", datetime(2024, 1, 2, 3, 4, 5, 123_456)),
        ("2024-01-02T03:04:05+02:00", datetime(2024, 1, 2, 1, 4, 5)),
        ("2024-01-02 03:04:05.678901+02", datetime(2024, 1, 2, 1, 4, 5, 678_901)),
        ("2024-01-02 03:04:05-0330", datetime(2024, 1, 2, 6, 34, 5)),
        ("2024-01-02", datetime(2024, 1, 2)),
    ],
)
def test_moments_have_zones_of_their_own_and_are_utc_without(sync, text, moment):
    found = sync(f"v\n2020-02-02T02:02:02Z\n{text}\n")

    assert found.kinds("t") == {"v": "timestamp[us, tz=UTC]"}
    assert found.values("t", "v")[1] == moment.replace(tzinfo=UTC)


def test_moments_finer_than_a_microsecond_stay_text(sync):
    assert sync("v\n2024-01-02T03:04:05.123456789Z\n").values("t", "v") == ["2024-01-02T03:04:05.123456789Z"]


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ("true", "1", "utf8"),
        ("20240101", "2024-01-01", "utf8"),
        ("1", "1.5", "float64"),
        ("12345678901234567", "1.5", "utf8"),
        ("2024-01-01", "2024-01-01 10:00", "timestamp[us, tz=UTC]"),
        ("1", "01", "utf8"),
        ("", "5", "int64"),
    ],
)
def test_a_text_far_down_decides_as_well_as_the_first(sync, early, late, kind):
    rows = BLOCK_BYTES // 20
    found = sync("v,n\n" + f"{early},{'x' * 20}\n" * rows + f"{late},x\n")

    assert found.errors == {}
    assert found.kinds("t")["v"] == kind
    assert len(found.batches["t"]) > 1
    assert len(found.values("t", "v")) == rows + 1


def test_nulls_are_texts_without_quotes_and_columns_without_values_are_text(sync):
    found = sync('a,b,c\n,"",\nNULL,"NULL",\nx,y,\n', csv={"null_values": ["", "NULL"]})

    assert found.kinds("t") == {"a": "utf8", "b": "utf8", "c": "utf8"}
    assert found.rows("t") == [(None, "", None), (None, "NULL", None), ("x", "y", None)]


def test_a_quoted_null_is_null_where_it_can_be_nothing_else(sync):
    found = sync('i,d,s\n"1","2024-01-01","a"\n"","",""\n"3","2024-01-03","c"\n')

    assert found.kinds("t") == {"i": "int64", "d": "date32", "s": "utf8"}
    assert found.rows("t") == [(1, date(2024, 1, 1), "a"), (None, None, ""), (3, date(2024, 1, 3), "c")]


def test_declared_types(sync):
    columns = {"d": "decimal(10,2)", "u": "uuid", "j": "json", "t": "timestamp", "s": "string", "b": "bool",
               "i": "int64", "f": "float64", "day": "date"}  # fmt: skip
    one = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")
    found = sync(
        "d,u,j,t,s,b,i,f,day\n"
        f'1.5,{one},"{{""a"": [1]}}",2024-01-02,007,1,5,5,2024-01-02\n'
        ",,,,,,,,\n"
        f"-99999999.99,{one.hex.upper()},1e400,2024-01-02T03:04:05Z,x,FALSE, 7 , 1e3 ,0001-01-01\n",
        table={"columns": columns},
    )

    assert found.errors == {}
    assert found.kinds("t") == {
        "d": "decimal(10, 2)", "u": "uuid", "j": "json", "t": "timestamp[us, tz=UTC]", "s": "utf8", "b": "bool",
        "i": "int64", "f": "float64", "day": "date32",
    }  # fmt: skip
    assert found.rows("t") == [
        (Decimal("1.50"), one.bytes, b'{"a": [1]}', datetime(2024, 1, 2, tzinfo=UTC), "007", True, 5, 5.0,
         date(2024, 1, 2)),
        (None,) * 9,
        (Decimal("-99999999.99"), one.bytes, b"1e400", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "x", False, 7, 1e3,
         date(1, 1, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int64", "1.5"),
        ("int64", "9223372036854775808"),
        ("float64", "1,5"),
        ("bool", "maybe"),
        ("date", "2024-02-30"),
        ("timestamp", "yesterday"),
        ("uuid", "12345678-9abc-def0-1234-56789abcdef"),
        ("uuid", "12345678-9abc-def0-1234-56789abcdefg"),
        ("json", "{'a': 1}"),
        ("json", "[NaN]"),
        ("json", "[" * 5000),
        ("decimal(5,2)", "1.234"),
        ("decimal(5,2)", "12345"),
    ],
)
def test_a_text_that_is_not_of_its_declared_type_makes_its_row_bad(sync, kind, text):
    content = f'v;n\n;1\n"{text}";2\n;3\n'
    found = sync(content, table={"columns": {"v": kind}}, csv={"delimiter": ";"})
    assert "t.csv:3: column `v`: " in found.error
    assert repr(text)[:50] in found.error
    assert f"is no {kind}; mend the row, or set `on_bad_row: skip`" in found.error
    assert len(found.error) < 500

    found = sync(content, table={"columns": {"v": kind}}, csv={"delimiter": ";"}, on_bad_row="skip")
    assert found.rows("t") == [(None, 1), (None, 3)]
    assert found.skipped["t"][0] == 1


@pytest.mark.parametrize(
    ("content", "csv", "rows"),
    [
        ("a;b\n1;2\n", {"delimiter": ";"}, [(1, 2)]),
        ("a|b\n'x|y'|2\n", {"delimiter": "|", "quote": "'"}, [("x|y", 2)]),
        ('a,b\n"x,2\n', {"quote": ""}, [('"x', 2)]),
        ("1,x\n2,y\n", {"header": False}, [(1, "x"), (2, "y")]),
        ("a,b\n-,1\n", {"null_values": ["-"]}, [(None, 1)]),
        ("a,b\n,1\n", {"null_values": []}, [("", 1)]),
        ("ä,b\nü,1\n".encode("latin-1"), {"encoding": "latin-1"}, [("ü", 1)]),
        ("ä,b\n日本,1\n".encode("utf-16"), {"encoding": "utf-16"}, [("日本", 1)]),
        ("ä,b\n日本,1\n".encode("utf-16-be"), {"encoding": "utf-16-be"}, [("日本", 1)]),
        (b"\xef\xbb\xbfa,b\n1,2\n", {}, [(1, 2)]),
        (b"\xef\xbb\xbfa,b\n1,2\n", {"encoding": "utf-8-sig"}, [(1, 2)]),
        ("a,b\r\n1,2\r\n\r\n3,4", {}, [(1, 2), (3, 4)]),
        ("a,b\r1,2\r3,4\r", {}, [(1, 2), (3, 4)]),
        ("\n\na,b\n\n\n1,2\n\n", {}, [(1, 2)]),
        ('a,b\n"x""y","q\nr"\n', {}, [('x"y', "q\nr")]),
        ('a,b\n5" disk,"x"y\n', {}, [('5" disk', "xy")]),
        ("a,b\nx\0y,2\n", {}, [("x\0y", 2)]),
    ],
)
def test_options_and_ways_to_write_csv(sync, content, csv, rows):
    found = sync(content, csv=csv)

    assert found.errors == {}
    assert found.rows("t") == rows


def test_columns_without_a_header_and_without_a_name_have_numbers(sync):
    assert list(sync("1,2\n", csv={"header": False}).kinds("t")) == ["f0", "f1"]
    assert list(sync(",a,\n0,1,2\n").kinds("t")) == ["f0", "a", "f2"]


def test_a_tsv_has_tabs_unless_the_spec_says_otherwise(sync):
    assert sync("a\tb\n1\t2\n", name="t.tsv").rows("t") == [(1, 2)]
    assert sync(gzip.compress(b"a\tb\n1\t2\n"), name="u.tsv.gz").rows("u") == [(1, 2)]
    assert sync("a\tb\n-\t2\n", name="t.tsv", table={"csv": {"null_values": ["-"]}}).rows("t") == [(None, 2)]
    assert sync("a;b\n1;2\n", name="t.tsv", csv={"delimiter": ";"}).rows("t") == [(1, 2)]


@pytest.mark.parametrize(
    ("name", "compression", "pack"),
    [
        ("t.csv.gz", None, gzip.compress),
        ("t.csv.GZ", None, gzip.compress),
        ("t.csv.bz2", None, bz2.compress),
        ("t.csv.zst", None, lambda text: pa.compress(text, codec="zstd", asbytes=True)),
        ("t.csv", "gzip", gzip.compress),
        ("t.csv", "bz2", bz2.compress),
        ("t.csv", "zstd", lambda text: pa.compress(text, codec="zstd", asbytes=True)),
        ("t.csv.gz", "none", bytes),
        ("t.csv.gz", None, lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:])),
    ],
)
def test_compression_by_name_and_by_spec(sync, name, compression, pack):
    found = sync(pack(b"a,b\n1,2\n3,4\n"), name=name, **({"compression": compression} if compression else {}))

    assert found.rows("t") == [(1, 2), (3, 4)]


def test_a_file_with_a_header_only_is_a_table_without_rows(sync):
    for content in ("a,b\n", "a,b", "a,b\r\n\r\n", "\na,b\n"):
        found = sync(content)
        assert found.errors == {}
        assert found.kinds("t") == {"a": "utf8", "b": "utf8"}
        assert found.rows("t") == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "has no columns"),
        ("\n\n\n", "has no columns"),
        ("a,b,a\n1,2,3\n", "t.csv:1: column 'a' is there twice; rename one in the header"),
        ("\n\na,a\n", "t.csv:3: column 'a' is there twice"),
        ("a,b\n1,2\n".encode("utf-16"), "set `csv.encoding: utf-16`"),
        ("a,b\n1,2\n".encode("utf-16-le"), "set `csv.encoding`"),
        ("ä,b\n".encode("latin-1"), "t.csv:1: '\\\\xe4,b\\n' is no row of text; set `csv.encoding`"),
        ('a,b\n1,2\n3,"x\n4,5\n', "t.csv:3: the quote of '\"x\\n4,5\\n' is never closed; close it, or set `csv.quote`"),
    ],
)
def test_files_that_cannot_be_read_at_all(sync, content, text):
    for on_bad_row in ("error", "skip"):
        assert text in sync(content, on_bad_row=on_bad_row).error


BAD_ROWS: dict[str, tuple[str | bytes, str]] = {
    "too many values": ("9,x,y,z\n", "4 values, expected 3: '9,x,y,z'"),
    "too few values": ("9\n", "1 value, expected 3: '9'"),
    "no number": ("nine,x,y\n", "column `id`: 'nine' is no int64"),
    "no text": (b"9,\xff\xfe,y\n", "'9,\\\\xff\\\\xfe,y' is not text in utf-8; check `csv.encoding`"),
    "no text and too long": (b"9,\xff,y,z\n", "'9,\\\\xff,y,z' is not text in utf-8"),
    "a line break too many": ('9,"x\ny",z,"a\n"\n', "4 values, expected 3"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_told_by_its_line_wherever_it_is(sync, monkeypatch, fault, place, end):
    monkeypatch.setattr("catchment.sources.file.blocks.BLOCK_BYTES", 10_000)
    check_bad_row(sync, 40_000, fault, place, end)


def test_a_bad_row_is_told_by_its_line_in_the_middle_of_a_big_file(sync):
    check_bad_row(sync, 3 * BLOCK_BYTES, "no number", "middle", "\n")


def check_bad_row(sync, size, fault, place, end):
    good = f'1,"{"x" * 50}{end}{end}{"é" * 40}",y{end}{end}2,a,b{end}'
    total = size // len(good.encode())
    before = {"start": 0, "middle": total // 2, "end": total}[place]
    row, text = BAD_ROWS[fault]
    bad = (row.encode() if isinstance(row, str) else row).replace(b"\n", end.encode())
    content = f"id,n,m{end}".encode() + good.encode() * before + bad + good.encode() * (total - before)
    line = 2 + 5 * before
    shift = bad.count(b"\n")
    lines = [2 + 5 * turn + at + (shift if turn >= before else 0) for turn in range(total) for at in (0, 4)]

    found = sync(content, table={"columns": {"id": "int64"}})
    assert f"t.csv:{line}: {text}" in found.error

    found = sync(content, table={"columns": {"id": "int64"}}, on_bad_row="skip", provenance=True)
    assert found.skipped["t"][0] == 1
    assert f"t.csv:{line}: {text}" in found.skipped["t"][1]
    assert found.values("t", "id") == [1, 2] * total
    assert found.values("t", "_line") == lines


def test_the_first_of_several_bad_rows_is_told_and_all_are_counted(sync):
    content = b"id,n\n1,a\n2,b,c\nx,d\n3,\xff\n4,e\n5\n"

    assert "t.csv:3: 3 values" in sync(content, table={"columns": {"id": "int64"}}).error

    found = sync(content, table={"columns": {"id": "int64"}}, on_bad_row="skip", provenance=True)
    assert found.skipped["t"][0] == 4
    assert "t.csv:3: 3 values" in found.skipped["t"][1]
    assert [row[0] for row in found.rows("t")] == [1, 4]
    assert found.values("t", "_line") == [2, 6]


def test_a_byte_that_is_no_text_in_the_encoding_is_told_by_its_line(sync):
    content = "a,b\n1,x\n2,€\n".encode("cp1252") + b"3,\x81\n4,y\n"
    found = sync(content, csv={"encoding": "cp1252"}, on_bad_row="skip")

    assert found.rows("t") == [(1, "x"), (2, "€"), (4, "y")]
    assert "t.csv:4: " in found.skipped["t"][1]
    assert "is not text in cp1252" in found.skipped["t"][1]


def test_a_truncated_file_fails_and_what_came_before_is_no_whole_table(sync):
    whole = gzip.compress(b"id,n\n" + b"".join(b"%d,%d\n" % (n, n * 7919) for n in range(500_000)))

    found = sync(whole[: len(whole) // 2], name="t.csv.gz")

    assert "t.csv.gz:" in found.error
    assert "or later: cannot be read: Truncated compressed stream" in found.error


def test_a_quoted_value_may_go_over_many_blocks(sync):
    long = "".join(f'line {number}, "quoted"\n' for number in range(600_000))
    found = sync('a,b\n1,"' + long.replace('"', '""') + '"\n2,x\n', provenance=True)

    assert len(long) > 3 * BLOCK_BYTES
    assert found.values("t", "b") == [long, "x"]
    assert found.values("t", "_line") == [2, 600_003]


def test_a_long_line_may_go_over_many_blocks(sync):
    found = sync("a,b\n1," + "x" * (2 * BLOCK_BYTES) + "\n2,y\n")

    assert [len(value) for value in found.values("t", "b")] == [2 * BLOCK_BYTES, 1]


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='ab",\n\r', max_size=60), st.integers(1, 70))
def test_rows_are_where_arrow_finds_them(text, cut):
    """The rows of any text, well formed or not, begin where Arrow's parser begins them; pieces hold whole rows."""
    block = text.encode()
    opened = _File(Path("x.csv"), CSVSpec(), None)
    opened.names = ("f0", "f1", "f2")
    records = Records(",", '"')
    if records.open_quote(block) >= 0:
        return
    wrong: dict[int, str] = {}
    arrays = opened.parse(block, dict.fromkeys(opened.names, pa.utf8()), wrong.__setitem__) if block else [[]]
    offsets, lines = records.starts(block, 1)

    assert len(offsets) == len(arrays[0]) + len(wrong)
    assert lines.to_pylist() == [1 + (block[:at].count(b"\n") or block[:at].count(b"\r") * (b"\n" not in block))
                                 for at in offsets.to_pylist()]  # fmt: skip
    whole = records.whole(block[:cut])
    assert whole == 0 or len(records.starts(block[:whole], 1)[0]) + len(records.starts(block[whole:], 1)[0]) == len(
        offsets
    )


def test_random_tables_come_back_as_pythons_own_reader_reads_them(sync):
    import csv
    import io

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rows = [
        ["".join(chance.choices("ab ,;\"\n\r'é🎉", k=chance.randrange(8))) + "x" for _ in range(4)] for _ in range(500)
    ]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list("abcd"), *rows])

    assert sync(text.getvalue()).rows("t") == [tuple(row) for row in rows]


def test_a_row_that_is_too_long_says_what_may_be_wrong(sync, monkeypatch):
    monkeypatch.setattr("catchment.sources.file.blocks.BLOCK_BYTES", 100)
    monkeypatch.setattr("catchment.sources.file.blocks.ROW_BYTES", 1000)

    text = sync("a\n1\n" + "x" * 2000).error

    assert "t.csv:3: a row of more than 0 MB that starts with 'xxx" in text
    assert "a quote or a bracket may never be closed" in text
