"""JSON files: one object a line or an array, types, broken rows with their lines, and input made to hurt."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from catchment.sources.file import file
from tests.sources.reading import read


@pytest.fixture
def sync(tmp_path):
    """Writes `t.jsonl`, or a file of another name, and reads it as table `t`."""

    def run(content, *, name="t.jsonl", columns=None, **spec):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if columns is not None:
            spec["tables"] = [{"name": "t", "path": name, "columns": columns}]
        return read(file, {"path": str(tmp_path / name) if columns is None else str(tmp_path), **spec})

    return run


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "null", "-9223372036854775808"], "int64", [1, None, -(2**63)]),
        (["1", "1.5"], "float64", [1.0, 1.5]),
        (["1.5", "1"], "float64", [1.5, 1.0]),
        (["12345678901234567890", "1"], "json", [b"12345678901234567890", b"1"]),
        (["0.5", "12345678901234567"], "json", [b"0.5", b"12345678901234567"]),
        (["12345678901234567", "0.5"], "json", [b"12345678901234567", b"0.5"]),
        (["12345678901234567", "1"], "int64", [12345678901234567, 1]),
        (["true", "false"], "bool", [True, False]),
        (['"x"', '"1"'], "utf8", ["x", "1"]),
        (['"007"'], "utf8", ["007"]),
        (['"1"'], "utf8", ["1"]),
        (['"true"'], "utf8", ["true"]),
        (['"é\\u00e9\\n\\"\\ud83d\\ude00"'], "utf8", ['éé\n"😀']),
        (['"2024-01-02"', "null"], "date32", [date(2024, 1, 2), None]),
        (['"2024-01-02"', '"x"'], "utf8", ["2024-01-02", "x"]),
        (['"x"', '"2024-01-02"'], "utf8", ["x", "2024-01-02"]),
        (['"2024-01-02"', '"2024-01-02T03:04:05.5+01:00"'], "timestamp[us, tz=UTC]",
         [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 2, 4, 5, 500_000, tzinfo=UTC)]),
        (['"2024-01-02T03:04:05.123456789Z"'], "utf8", ["2024-01-02T03:04:05.123456789Z"]),
        (["null", "null"], "utf8", [None, None]),
        (["[1, null]", "[]", "null"], "list<item: int64, nullable>", [[1, None], [], None]),
        (["[]", "[1.5]"], "list<item: float64, nullable>", [[], [1.5]]),
        (["[]", "[]"], "list<item: utf8, nullable>", [[], []]),
        (["[[1], [2]]"], "list<item: list<item: int64, nullable>, nullable>", [[[1], [2]]]),
        (['{"x": 1}', '{"y": "2024-01-02"}'], "struct<x: int64 nullable, y: utf8 nullable>",
         [{"x": 1, "y": None}, {"x": None, "y": "2024-01-02"}]),
        (['{"x": null}', '{"x": [{"z": 1}]}'], "struct<x: list<item: struct<z: int64 nullable>, nullable> nullable>",
         [{"x": None}, {"x": [{"z": 1}]}]),
        (["{}", '{"x": 1}'], "struct<x: int64 nullable>", [{"x": None}, {"x": 1}]),
        (["{}", "null"], "json", [b"{}", None]),
        (['{"x": {}}'], "json", [b'{"x": {}}']),
        (["1", '"x"'], "json", [b"1", b'"x"']),
        (["1", "true"], "json", [b"1", b"true"]),
        (['"x"', '{"a": 1}', "[1, 2]", "null"], "json", [b'"x"', b'{"a": 1}', b"[1, 2]", None]),
        (['{"a": 1}', '{"a": "x"}'], "json", [b'{"a": 1}', b'{"a": "x"}']),
        (["[1]", '["x"]'], "json", [b"[1]", b'["x"]']),
        (['[1, "x"]', "[]"], "json", [b'[1, "x"]', b"[]"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("blocks", ["one block", "a block each"])
@pytest.mark.parametrize("shape", ["lines", "array"])
def test_types_hold_every_value_exactly(sync, monkeypatch, values, kind, expected, blocks, shape):
    if blocks == "a block each":
        monkeypatch.setattr("catchment.sources.file.blocks.BLOCK_BYTES", 2)
        monkeypatch.setattr("catchment.sources.file.json_values.BLOCK_BYTES", 2)
    rows = [f'{{"n": {number}, "v": {value}}}' for number, value in enumerate(values)]

    found = sync("\n".join(rows) if shape == "lines" else "[" + ",\n".join(rows) + "]")

    assert found.errors == {}
    assert found.kinds("t") == {"n": "int64", "v": kind}
    assert found.rows("t") == list(enumerate(expected))


def test_keys_that_are_missing_are_null_and_keys_that_come_late_are_columns(sync):
    found = sync('{"a": 1}\n\n{"c": {"x": [1, {"y": 2}]}, "b": 2}\n{}\n')

    assert list(found.kinds("t")) == ["a", "c", "b"]
    assert found.rows("t") == [(1, None, None), (None, b'{"x": [1, {"y": 2}]}', 2), (None, None, None)]


def test_an_object_with_endless_keys_is_kept_as_text(sync):
    rows = [f'{{"id": {n}, "by_user": {{"user-{n}": 1}}}}' for n in range(2000)]
    found = sync("\n".join(rows))

    assert found.kinds("t") == {"id": "int64", "by_user": "json"}
    assert found.rows("t")[1999] == (1999, b'{"user-1999": 1}')


def test_declared_types(sync):
    columns = {"d": "decimal(10,2)", "j": "json", "s": "string", "t": "timestamp", "u": "uuid", "f": "float64",
               "day": "date", "i": "int64", "b": "bool"}  # fmt: skip
    found = sync(
        '{"d": 1.5, "j": {"a":  [1, 1e400]}, "s": 5, "t": "2024-01-02T03:04:05Z", "day": "2024-01-02", "f": 1,'
        ' "u": "12345678-9abc-def0-1234-56789abcdef0", "i": "7", "b": "true"}\n'
        '{"d": "-2", "j": "x", "s": {"a": 1}, "f": "1e3"}\n'
        '{"d": null, "j": null, "s": "text"}\n',
        columns=columns,
    )

    assert found.errors == {}
    kinds = found.kinds("t")
    assert (kinds["d"], kinds["j"], kinds["u"], kinds["s"]) == ("decimal(10, 2)", "json", "uuid", "utf8")
    assert found.values("t", "d") == [Decimal("1.50"), Decimal("-2.00"), None]
    assert found.values("t", "j") == [b'{"a":  [1, 1e400]}', b'"x"', None]
    assert found.values("t", "s") == ["5", '{"a": 1}', "text"]
    assert found.values("t", "t")[0] == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found.values("t", "day")[0] == date(2024, 1, 2)
    assert found.values("t", "u")[0].hex() == "123456789abcdef0123456789abcdef0"
    assert found.values("t", "f") == [1.0, 1000.0, None]
    assert (found.values("t", "i")[0], found.values("t", "b")[0]) == (7, True)


BAD_ROWS = [
    ('{"id": 9, "n": ', "expecting value at column"),
    ('{"id": 9 "n": 1}', "expected `,` or `}`"),
    ('{"id": 9,}', "a comma without a key after it"),
    ("{id: 9}", "expected a key in double quotes"),
    ('{"id": 9} {"id": 10}', "text after the end of the object"),
    ('{"id": 9} null', "text after the end of the object"),
    ("null", "expected an object: 'null'"),
    ("[9]", "expected an object: '[9]'"),
    ("9", "expected an object"),
    ("garbage \x01", "expected an object"),
    ('{"id": 9, "id": 10}', "key 'id' is there twice"),
    ('{"id": "nine"}', "column `id`: 'nine' is no int64"),
    ('{"id": 9.5}', "column `id`: '9.5' is no int64"),
    ('{"id": true}', "column `id`: 'true' is no int64"),
    ('{"id": 9, "n": "\\ud800"}', "half of a surrogate pair"),
    (b'{"id": 9, "n": "\xff"}', "no UTF-8 text: '{\"id\": 9, \"n\": \"\\\\xff\"}'"),
    ('{"id": 9, "n": "' + "[" * 100 + '", "deep": ' + "[" * 60 + "]" * 60 + "}", "nested more than 50 levels deep"),
]  # fmt: skip


@pytest.mark.parametrize("place", ["start", "middle", "end"])
@pytest.mark.parametrize(("bad", "text"), BAD_ROWS)
def test_a_bad_row_is_told_by_its_line_wherever_it_is(sync, monkeypatch, bad, text, place):
    monkeypatch.setattr("catchment.sources.file.blocks.BLOCK_BYTES", 1000)
    columns = {"id": "int64"}
    good = b'{"id": 1, "n": "x", "tags": [1, 2]}\r\n\n{"n": "\xc3\xa9", "id": 2}\n'
    before = {"start": 0, "middle": 20, "end": 40}[place]
    content = good * before + (bad if isinstance(bad, bytes) else bad.encode()) + b"\n" + good * (40 - before)
    found = sync(content, columns=columns)
    assert f"t.jsonl:{1 + 3 * before}: " in found.error
    assert text in found.error
    assert len(found.error) < 600

    found = sync(content, columns=columns, on_bad_row="skip", provenance=True)
    assert found.errors == {}
    assert found.skipped["t"][0] == 1
    assert f"t.jsonl:{1 + 3 * before}: " in found.skipped["t"][1]
    assert [row[:2] for row in zip(found.values("t", "id"), found.values("t", "n"), strict=True)] == [
        (1, "x"), (2, "é"),
    ] * 40  # fmt: skip
    lines = [1 + 3 * turn + at + (turn >= before) for turn in range(40) for at in (0, 2)]
    assert found.values("t", "_line") == lines


def test_a_nested_value_that_does_not_fit_is_told_by_its_line(sync, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": [1]}\n' * 3)

    def change():
        (tmp_path / "t.jsonl").write_text('{"a": [1]}\n{"a": ["x"]}\n{"a": [2]}\n')

    found = read(file, {"path": str(tmp_path / "t.jsonl"), "on_bad_row": "skip"}, between=change)

    assert found.rows("t") == [([1],), ([2],)]
    assert 't.jsonl:2: Column(/a/[]) changed from number to string: \'{"a": ["x"]}\'' in found.skipped["t"][1]


def test_a_bad_row_in_the_middle_of_a_big_file(sync):
    good = b'{"id": 1, "text": "' + b"x" * 180 + b'"}\n'
    total = (10 << 20) // len(good)
    found = sync(good * (total // 2) + b'{"id": 2, "text": \n' + good * (total // 2))

    assert f"t.jsonl:{total // 2 + 1}: expecting value at column" in found.error


def test_an_array_is_read_like_lines_with_the_lines_of_its_elements(sync):
    content = '\n[\n  {"a": 1},\n  {\n    "a": 2,\n    "b": "x\\ny"\n  }, {"a": 3}\n]\n'
    found = sync(content, name="t.json", provenance=True)

    assert [row[:2] for row in found.rows("t")] == [(1, None), (2, "x\ny"), (3, None)]
    assert found.values("t", "_line") == [3, 4, 7]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{\n  "a": 1,\n  "b": [\n    1\n  ]\n}\n', [(1, [1])]),
        ('{\n  "a": 1\n}\n{\n  "a": 2\n}\n', [(1,), (2,)]),
        ('\xef\xbb\xbf{"a": 1}\n', None),
        ("[]", None),
    ],
)
def test_objects_over_several_lines(sync, content, rows):
    if rows is None:
        content = content.encode("latin-1")
    found = sync(content, name="t.json")

    if content == b"[]":
        assert "has no columns" in found.error
    else:
        assert found.rows("t") == (rows or [(1,)])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('[\n{"a": 1},\n{"a": }\n]', "t.json:3: Expecting value"),
        ('[{"a": 1}\n{"a": 2}]', "t.json:2: expected `,` or `]`"),
        ('[{"a": 1},\n]', "t.json:2: a comma without an element after it"),
        ('[{"a": 1}', "t.json:1: the array is never closed"),
        ('[\n{"a": 1},\n{"a": [1, 2', "t.json:3: Expecting"),
        ('[{"a": 1}]\nx', "t.json:2: text after the end of the array"),
        (b'[{"a": "\xff"}]', "t.json:1: no UTF-8 text"),
        ("[" * 100_000, "t.json:1: nested too deeply"),
    ],
)
def test_a_broken_array_fails_as_a_whole(sync, content, text):
    for on_bad_row in ("error", "skip"):
        found = sync(content, name="t.json", on_bad_row=on_bad_row)
        assert text in found.error
        assert "write one object on each line" in found.error


def test_an_element_that_is_no_object_is_a_bad_row(sync):
    found = sync('[{"a": 1},\nnull,\n5]', name="t.json", on_bad_row="skip")

    assert found.rows("t") == [(1,)]
    assert found.skipped["t"][0] == 2
    assert "t.json:2: expected an object: 'null'" in found.skipped["t"][1]


def test_an_array_of_many_blocks_comes_whole(sync):
    rows = [{"n": number, "text": "é" * 100} for number in range(60_000)]
    found = sync(json.dumps(rows, ensure_ascii=False, indent=1), name="t.json", provenance=True)

    assert len(found.batches["t"]) > 1
    assert found.values("t", "n") == list(range(60_000))
    assert found.values("t", "_line") == list(range(2, 240_002, 4))


def test_compressed_files(sync):
    assert sync(gzip.compress(b'{"a": 1}\n{"a": 2}\n'), name="t.jsonl.gz").rows("t") == [(1,), (2,)]
    assert "cannot be read: Truncated" in sync(gzip.compress(b'{"a": 1}\n' * 9999)[:-20], name="t.jsonl.gz").error


def test_several_files_are_one_table(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1, "s": {"p": 1}}\n')
    (tmp_path / "b.json").write_text('[{"x": 2.5, "s": {"q": "t"}}]')
    found = read(file, {"path": str(tmp_path), "tables": [{"name": "t", "path": "*.json*"}]})

    assert found.rows("t") == [(1.0, {"p": 1, "q": None}), (2.5, {"p": None, "q": "t"})]
