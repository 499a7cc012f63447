"""The file source: which files make which table, keys, and what becomes of a table whose files cannot be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import duckdb
import pytest

from catchment.errors import PluginError, SpecError
from catchment.sources.file import file
from tests.e2e.test_sync import catchment
from tests.sources.reading import read


@pytest.fixture
def sync(tmp_path):
    """Writes files into a folder and reads it."""

    def run(files=None, *, path=None, between=None, **spec):
        for name, content in (files or {}).items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(file, {"path": path or str(tmp_path), **spec}, between=between)

    return run


def test_a_folder_gives_a_table_per_file_named_in_snake_case(sync):
    found = sync(
        {
            "OrderLines.csv": "a\n1\n",
            "Ünïcode näme (1).tsv": "a\tb\n1\t2\n",
            'it\'s "quoted".JSONL': '{"a": 1}\n',
            "x.csv.gz": gzip.compress(b"a\n7\n"),
            "notes.txt": "not data",
            ".hidden.csv": "a\n1\n",
            "deeper/y.csv": "a\n1\n",
        }
    )

    assert found.errors == {}
    assert set(found.tables) == {"order_lines", "ünïcode_näme_1", "it_s_quoted", "x"}
    assert found.rows("ünïcode_näme_1") == [(1, 2)]
    assert found.rows("x") == [(7,)]


@pytest.mark.parametrize(
    ("path", "tables"),
    [
        ("a.csv", {"a"}),
        ("sub", {"b"}),
        ("*.csv", {"a"}),
        ("**/*.csv", {"a", "b", "c"}),
        (["a.csv", "sub/deep/*.csv"], {"a", "c"}),
        (["a.csv", "a.csv", "*.csv"], {"a"}),
    ],
)
def test_a_path_is_a_file_a_folder_a_glob_or_a_list(sync, tmp_path, path, tables):
    paths = [str(tmp_path / one) for one in ([path] if isinstance(path, str) else path)]
    for name in ("a.csv", "sub/b.csv", "sub/deep/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")

    found = sync(path=paths[0] if isinstance(path, str) else paths)

    assert set(found.tables) == tables
    assert all(found.rows(name) == [(1,)] for name in tables)


def test_a_named_pattern_is_one_table_with_the_union_of_columns(sync):
    found = sync(
        {
            "2023/sales-1.csv": "id,amount\n1,5\n",
            "2024/sales-2.csv": "amount,id,note\n1.5,2,x\n",
            "other.csv": "z\n1\n",
        },
        tables=[{"name": "sales", "path": "**/sales-*.csv", "primary_keys": ["id"]}],
    )

    assert set(found.tables) == {"sales", "other"}
    assert found.kinds("sales") == {"id": "int64", "amount": "float64", "note": "utf8"}
    assert found.rows("sales") == [(1, 5.0, None), (2, 1.5, "x")]
    assert found.tables["sales"].primary_keys == ("id",)
    assert found.tables["sales"].column("id").not_null


def test_a_folder_with_glob_characters_in_its_name_is_no_pattern(sync, tmp_path):
    found = sync(
        {"[x] *?/a-1.csv": "a\n1\n", "[x] *?/a-2.csv": "a\n2\n"},
        path=str(tmp_path / "[x] *?"),
        tables=[{"name": "a", "path": "a-*.csv"}],
    )

    assert found.rows("a") == [(1,), (2,)]


def test_links_are_followed_and_no_file_is_read_twice(sync, tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "same.csv").symlink_to("a.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "sub" / "linked.csv").symlink_to("../a.csv")

    found = sync(path=str(tmp_path / "**" / "*.csv"))

    assert set(found.tables) == {"a"}
    assert found.rows("a") == [(1,)]


def test_two_files_of_one_table_name_are_a_mistake(sync):
    with pytest.raises(PluginError, match=r"A\.jsonl and .*a\.csv are both table `a`; give one of them a name"):
        sync({"a.csv": "x\n1\n", "A.jsonl": '{"x": 1}\n'})


def test_a_path_without_data_is_a_mistake(sync, tmp_path):
    with pytest.raises(PluginError, match="no file matches"):
        sync(path=str(tmp_path / "nothing-*.csv"))
    with pytest.raises(PluginError, match="no CSV, JSON or Parquet file"):
        sync({"readme.txt": "x"})


def test_a_format_that_is_set_goes_before_the_name(sync):
    found = sync({"data.txt": "a;b\n1;2\n"}, format="csv", csv={"delimiter": ";"})
    assert found.rows("data_txt") == [(1, 2)]

    found = sync({"data.txt": '{"a": 5}\n'}, tables=[{"name": "t", "path": "data.txt", "format": "json"}])
    assert found.rows("t") == [(5,)]


def test_a_format_that_nobody_tells_fails_its_table_only(sync):
    found = sync({"data.txt": "a\n1\n", "b.csv": "a\n1\n"}, tables=[{"name": "t", "path": "data.txt"}])

    assert "the format of" in found.errors["t"]
    assert "set `format` to `csv`, `json` or `parquet`" in found.errors["t"]
    assert found.rows("b") == [(1,)]


def test_files_of_two_formats_are_no_table(sync):
    found = sync({"a.csv": "x\n1\n", "a.jsonl": '{"x": 1}\n'}, tables=[{"name": "t", "path": "a.*"}])

    assert "the format of" in found.error


def test_a_pattern_without_a_file_fails_its_table_only(sync):
    found = sync({"b.csv": "a\n1\n"}, tables=[{"name": "t", "path": "none-*.csv"}])

    assert "table `t`: no file matches" in found.errors["t"]
    assert found.rows("b") == [(1,)]


def test_a_key_that_is_no_column_fails_its_table_and_says_what_there_is(sync):
    tables = [{"name": "t", "path": "a.csv", "primary_keys": ["idd"]}]
    found = sync({"a.csv": "id,x\n1,2\n", "b.csv": "a\n1\n"}, tables=tables)

    assert "table `t`: key column `idd` is missing in " in found.errors["t"]
    assert "did you mean `id`?" in found.errors["t"]
    assert "t" not in found.tables
    assert found.rows("b") == [(1,)]


def test_a_type_for_a_column_that_is_not_there_fails_its_table(sync):
    found = sync({"a.csv": "id\n1\n"}, tables=[{"name": "t", "path": "a.csv", "columns": {"ID": "string"}}])

    assert "column `ID` of `columns` is missing" in found.error


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", "id,n\n1,x\n,y\n3,z\n", "a.csv:3"),
        ("a.jsonl", '{"id": 1, "n": "x"}\n{"n": "y"}\n{"id": 3, "n": "z"}\n', "a.jsonl:2"),
    ],
)
def test_a_row_without_its_key_is_bad(sync, name, content, place):
    table = {"name": "t", "path": name, "primary_keys": ["id"]}
    found = sync({name: content}, tables=[table])
    assert f"{place}: key column `id` has no value" in found.error

    found = sync(tables=[table], on_bad_row="skip")
    assert found.errors == {}
    assert found.rows("t") == [(1, "x"), (3, "z")]
    assert found.skipped["t"][0] == 1
    assert f"{place}: key column `id` has no value" in found.skipped["t"][1]


def test_rows_of_one_key_are_sent_as_they_are(sync):
    found = sync({"a.csv": "id\n1\n1\n"}, tables=[{"name": "a", "path": "a.csv", "primary_keys": ["id"]}])

    assert found.rows("a") == [(1,), (1,)]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"csv": {"delimiter": ";;"}}, "delimiter"),
        ({"csv": {"delimiter": "é"}}, "ASCII"),
        ({"csv": {"delimiter": "\n"}}, "ASCII"),
        ({"csv": {"delimiter": '"'}}, "are both"),
        ({"csv": {"encoding": "utf-99"}}, "'utf-99' is no text encoding"),
        ({"csv": {"encoding": "base64"}}, "'base64' is no text encoding"),
        ({"compression": "rar"}, "'none', 'gzip', 'bz2' or 'zstd'"),
        ({"format": "xml"}, "'csv', 'json' or 'parquet'"),
        ({"on_bad_row": "ignore"}, "'error' or 'skip'"),
        ({"tables": [{"name": "t", "path": "x", "columns": {"a": "integer"}}]}, "'integer' is no column type"),
        ({"tables": [{"name": "t", "path": "x", "columns": {"a": "decimal(39,2)"}}]}, "is no column type"),
        ({"tables": [{"name": "t"}]}, "path"),
        ({"tabels": []}, "did you mean `tables`"),
    ],
)
def test_a_wrong_spec_is_found_before_any_file_is_opened(spec, text):
    plugin = file.as_plugin()

    with pytest.raises(SpecError) as caught:
        plugin.init({"path": "/nowhere", **spec})

    assert text in str(caught.value)


def test_every_row_tells_its_file_and_line_on_demand(sync, tmp_path):
    found = sync(
        {"a.csv": 'x,y\n1,"two\nlines"\n\n2,b\n', "b.jsonl": '{"x": 1}\n\n{"x": 2}\n'},
        provenance=True,
    )

    a, b = (str(tmp_path / name) for name in ("a.csv", "b.jsonl"))
    assert found.rows("a") == [(1, "two\nlines", a, 2), (2, "b", a, 5)]
    assert found.rows("b") == [(1, b, 1), (2, b, 3)]


def test_a_column_of_the_file_does_not_meet_one_of_ours(sync):
    assert sync({"a.csv": "_line\n7\n"}).rows("a") == [(7,)]

    found = sync(provenance=True)

    assert "has a column `_line` of its own; set `provenance: false`" in found.error


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_vanishes_fails_its_table(sync, tmp_path, name):
    write(tmp_path / name, [1, 2])
    write(tmp_path / "other.csv", [5])

    found = sync(between=(tmp_path / name).unlink)

    assert f"{name}: cannot be read" in found.errors["a"]
    assert found.rows("other") == [(5,)]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_shrinks_fails_its_table(sync, tmp_path, name):
    write(tmp_path / name, list(range(1000)))

    found = sync(between=lambda: os.truncate(tmp_path / name, 100))

    assert f"{name}: became smaller while it was read; run the sync again" in found.error
    assert found.rows("a") == []


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_whose_columns_change_fails_its_table(sync, tmp_path, name):
    write(tmp_path / name, [1])

    found = sync(between=lambda: write(tmp_path / name, list(range(1000)), column="other_name"))

    assert f"{name}: the columns changed while it was read" in found.error


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz", "a.csv.zst"])
@pytest.mark.parametrize("content", [b"", os.urandom(10_000), b"\x89PNG\r\n\x1a\n" + bytes(1000)])
def test_what_is_no_data_fails_its_table_and_leaves_the_others(sync, name, content):
    found = sync({name: content, "other.csv": "x\n1\n"})

    assert name in found.errors["a"]
    assert "a" not in found.tables
    assert found.rows("other") == [(1,)]


def write(path: Path, numbers: list[int], column: str = "x") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: numbers}), path)
    elif path.suffix == ".csv":
        path.write_text(f"{column}\n" + "".join(f"{number}\n" for number in numbers))
    else:
        path.write_text("".join(f'{{"{column}": {number}}}\n' for number in numbers))


CONFIG = """
kind: source
spec:
  name: files
  registry: python
  path: file
  tables: ["*"]
  destinations: [db]
  spec: {spec}
---
kind: destination
spec:
  name: db
  registry: python
  path: duckdb
  {more}
  spec: {{connection_string: {database}}}
"""


@pytest.mark.parametrize("more", ["publish: atomic", "publish: stream", "migrate_mode: forced"])
def test_tables_that_cannot_be_read_keep_their_rows_and_the_others_go_on(tmp_path, write_config, more):
    folder, database = tmp_path / "data", tmp_path / "db.duckdb"
    folder.mkdir()
    good = {"broken.csv": "id,v\n1,a\n2,b\n", "corrupt.csv.gz": gzip.compress(b"id\n1\n"), "good.csv": "id\n1\n"}
    keyed = [{"name": "keyed", "path": "keyed.jsonl", "primary_keys": ["id"]}]
    spec = json.dumps({"path": str(folder), "tables": keyed})
    config = write_config(CONFIG.format(spec=spec, database=json.dumps(str(database)), more=more))

    def run(files):
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        done = catchment("sync", config, "--output", "json")
        result = {row["table"]: row for row in json.loads(done.stdout)["tables"]}
        with duckdb.connect(str(database)) as connection:
            names = [name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()]
            rows = {
                name: connection.execute(f'select * exclude (_cq_id, _cq_parent_id, _cq_sync_time, _cq_source_name) '
                                         f'from "{name}" order by all').fetchall()
                for name in names
            }  # fmt: skip
        return done.returncode, result, rows

    assert run(good | {"keyed.jsonl": '{"id": 1}\n{"id": 2}\n'})[0] == 0
    code, result, rows = run(
        {
            "broken.csv": 'id,v\n1,A\n2,"b',
            "corrupt.csv.gz": gzip.compress(b"id\n1\n2\n" * 100)[:-15],
            "good.csv": "id\n5\n",
            "keyed.jsonl": '{"id": 1}\n{"id": \n{"id": 3}\n',
        }
    )

    assert code == 2
    assert rows == {
        "broken": [(1, "a"), (2, "b")],
        "corrupt": [(1,)],
        "good": [(5,)],
        "keyed": [(1,), (2,)],
    }
    assert {name for name, row in result.items() if not row["complete"]} == {"broken", "corrupt", "keyed"}
    messages = {name: row["errors"][0]["message"] for name, row in result.items() if row["errors"]}
    assert "broken.csv:3: the quote of '\"b' is never closed" in messages["broken"]
    assert "corrupt.csv.gz:1 or later: cannot be read" in messages["corrupt"]
    assert "keyed.jsonl:2: expecting value at column 8: '{\"id\":'" in messages["keyed"]
    assert "mend the row, or set `on_bad_row: skip`" in messages["keyed"]

    code, result, rows = run(good | {"keyed.jsonl": '{"id": 3}\n', "good.csv": "id\n6\n"})

    assert code == 0
    assert rows == {"broken": [(1, "a"), (2, "b")], "corrupt": [(1,)], "good": [(6,)], "keyed": [(3,)]}


def test_left_out_rows_are_counted_and_old_rows_stay(tmp_path, write_config):
    folder, database = tmp_path / "data", tmp_path / "db.duckdb"
    folder.mkdir()
    tables = [{"name": "a", "path": "a.csv", "primary_keys": ["id"], "columns": {"id": "int64"}}]
    spec = json.dumps({"path": str(folder), "tables": tables, "on_bad_row": "skip"})
    config = write_config(CONFIG.format(spec=spec, database=json.dumps(str(database)), more=""))
    (folder / "a.csv").write_text("id,v\n1,a\n2,b\n")
    assert catchment("sync", config).returncode == 0

    (folder / "a.csv").write_text("id,v\n1,A\ntwo,b\n3,c\n")
    done = catchment("sync", config, "--output", "json")

    [row] = json.loads(done.stdout)["tables"]
    assert row["rows_rejected"] == 1
    with duckdb.connect(str(database)) as connection:
        assert connection.execute("select id, v from a order by id").fetchall() == [(1, "A"), (2, "b"), (3, "c")]
