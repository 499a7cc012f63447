"""The file destination: each option changes what is on disk, and a file is whole or not there."""

from __future__ import annotations

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catchment.channel import Budget
from catchment.destinations.file import File
from catchment.errors import PluginError, SpecError
from catchment.messages import Insert, MigrateTable
from catchment.schema import types
from catchment.testing import data

TABLE = data.named(
    "t", ("id", pa.int64()), ("name", pa.utf8()), ("at", pa.timestamp("us", "UTC")), ("doc", types.json())
)


def write(spec, *batches, table=TABLE):
    plugin = File.as_plugin()
    plugin.init(spec)
    try:
        session = plugin.session(Budget(1 << 24))
        session.write(MigrateTable(table))
        for batch in batches:
            session.write(Insert(table, batch))
        session.flush()
        error = session.stats()[table.name].error
        session.close()
    finally:
        plugin.close()
    if error:
        raise PluginError(error)


@pytest.fixture
def rows():
    return data.batch(TABLE, (1, 'a,"b', 1_700_000_000_000_000, b'{"x":[1]}'), (2, None, None, None))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_csv(tmp_path, rows):
    write({"path": str(tmp_path), "format": "csv", "no_rotate": True}, rows)

    assert (tmp_path / "t.csv").read_text() == (
        '"id","name","at","doc"\n1,"a,""b","2023-11-14T22:13:20.000000Z","{""x"":[1]}"\n2,,,\n'
    )


def test_csv_options(tmp_path, rows):
    spec = {"path": str(tmp_path), "format": "csv", "no_rotate": True,
            "format_spec": {"skip_header": True, "delimiter": "|"}}  # fmt: skip
    write(spec, rows)

    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0].startswith("1|")
    assert lines[1] == "2|||"


def test_json(tmp_path, rows):
    write({"path": str(tmp_path), "format": "json", "no_rotate": True}, rows)

    lines = (tmp_path / "t.json").read_text().splitlines()
    assert lines[0] == '{"at":"2023-11-14T22:13:20Z","doc":{"x":[1]},"id":1,"name":"a,\\"b"}'
    assert json.loads(lines[1]) == {"at": None, "doc": None, "id": 2, "name": None}


def test_parquet_options(tmp_path, rows):
    spec = {"path": str(tmp_path), "format": "parquet", "no_rotate": True,
            "format_spec": {"version": "v1.0", "max_row_group_length": 1}}  # fmt: skip
    write(spec, rows)

    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert (metadata.num_rows, metadata.num_row_groups) == (2, 2)
    assert metadata.format_version == "1.0"
    assert b"ARROW:schema" not in (metadata.metadata or {})
    assert metadata.row_group(0).column(0).compression == "SNAPPY"


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_second_sync_adds_to_the_file(tmp_path, rows, kind):
    spec = {"path": str(tmp_path), "format": kind, "no_rotate": True}
    write(spec, rows)
    write(spec, rows, rows)

    assert files(tmp_path) == [f"t.{kind}"]
    if kind == "parquet":
        assert pq.read_table(tmp_path / "t.parquet").column("id").to_pylist() == [1, 2] * 3
    else:
        text = (tmp_path / f"t.{kind}").read_text()
        assert len(text.splitlines()) == 6 + (kind == "csv")
        assert text.count('"id","name"') == (kind == "csv")


def test_gzip_grows_by_members(tmp_path, rows):
    spec = {"path": str(tmp_path / "{{TABLE}}.{{FORMAT}}"), "format": "csv", "no_rotate": True, "compression": "gzip"}
    write(spec, rows)
    write(spec, rows)

    assert files(tmp_path) == ["t.csv.gz"]
    with gzip.open(tmp_path / "t.csv.gz", "rt") as file:
        assert len(file.read().splitlines()) == 5


def test_path_template(tmp_path, rows):
    spec = {"path": f"{tmp_path}/{{{{YEAR}}}}/{{{{MONTH}}}}-{{{{DAY}}}}/{{{{HOUR}}}}{{{{MINUTE}}}}-{{{{UUID}}}}",
            "format": "json", "batch_size": 1}  # fmt: skip
    write(spec, rows)

    found = files(tmp_path)
    assert len(found) == 2
    assert all(re.fullmatch(r"\d{4}/\d\d-\d\d/\d{4}-[0-9a-f-]{36}/t\.json", name) for name in found)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"path": "x", "format": "csv"}, "must contain {{UUID}}"),
        ({"path": "x/{{UUID}}", "format": "csv", "no_rotate": True}, "must not contain {{UUID}}"),
        ({"path": "x", "format": "csv", "no_rotate": True, "batch_size": 5}, "cannot go with `batch_size`"),
        ({"path": "x/{{UUID}}", "format": "parquet", "compression": "gzip"}, "is for csv and json"),
        ({"path": "x/{{UUID}}", "format": "csv", "format_spec": {"delimiter": "||"}}, "delimiter"),
        ({"path": "x/{{UUID}}", "format": "json", "format_spec": {"delimiter": ","}}, "delimiter"),
        ({"path": "x/{{UUID}}", "format": "xml"}, "format"),
        ({"format": "csv"}, "path"),
    ],
)
def test_mistakes_in_the_spec(spec, text):
    with pytest.raises(SpecError) as refused:
        File.as_plugin().init(spec, no_connection=True)
    assert text in str(refused.value)


def test_what_was_not_flushed_leaves_no_file(tmp_path, rows):
    plugin = File.as_plugin()
    plugin.init({"path": str(tmp_path / "out"), "format": "csv", "no_rotate": True})
    session = plugin.session(Budget(1 << 24))
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, rows))
    session.close()
    plugin.close()

    assert files(tmp_path) == []


def test_table_name_that_leaves_the_folder_is_refused(tmp_path, rows):
    spec = {"path": str(tmp_path / "out"), "format": "csv", "no_rotate": True}
    with pytest.raises(PluginError, match="cannot be part of a path"):
        write(spec, rows, table=TABLE.renamed("../evil"))
    assert files(tmp_path) == []
