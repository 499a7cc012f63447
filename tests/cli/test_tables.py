"""`catchment tables`: the files and documents about the tables of a source."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from catchment.cli.pages import page
from catchment.schema.table import Column, Table
from tests.cli.run import TEST_CONFIG, catchment


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, "--no-log-file", cwd=tmp_path, **environment)


def test_json_is_written_for_each_source_in_upstreams_shape(run, write_config, tmp_path):
    text = TEST_CONFIG.format(source="{}", destination="{}")
    path = write_config(text + "---" + text.partition("---")[0].replace("name: t,", "name: t2,"))

    done = run("tables", path)

    assert 'Generating docs for "t" to directory "cq-docs/t"' in done.stdout
    assert 'Done generating docs for "t2": 4 tables' in done.stdout
    assert (tmp_path / "cq-docs/t2/__tables.json").exists()
    document = (tmp_path / "cq-docs/t/__tables.json").read_text()
    tables = json.loads(document)
    assert document.startswith('[\n  {\n    "name": "test_paid_table",\n    "title": "",\n    "description": ')
    assert [table["name"] for table in tables] == ["test_paid_table", "test_some_table", "test_testdata_table"]
    assert list(tables[1]) == ["name", "title", "description", "columns", "relations"]
    assert tables[0]["relations"] == []
    (child,) = tables[1]["relations"]
    columns = {column.pop("name"): column for column in child["columns"]}
    assert columns["_cq_id"] == {"type": "uuid"}
    assert columns["parent_resource_id"] == {"type": "int64", "is_primary_key": True}
    assert columns["data_column"] == {"type": "utf8"}
    types = {column["name"]: column["type"] for column in tables[2]["columns"]}
    assert types["json"] == "json"
    assert types["int64_list"] == "list<item: int64, nullable>"


PLUGIN = '''
import pyarrow as pa

from catchment.sdk import Column, Discovered, Source, Spec, Table


class PagesSpec(Spec):
    """Nothing."""


pages = Source("pages", spec=PagesSpec, client=lambda spec: spec)
ID = Column("id", pa.int64(), primary_key=True)
HASHED = Column("a|b", pa.map_(pa.utf8(), pa.int64()), primary_key_component=True)


@pages.discover
def find(client):
    yield Discovered(Table("../up", (ID,), title="Things", is_paid=True), lambda ctx: [])
    yield Discovered(
        Table("plain", (HASHED,), is_incremental=True, permissions_needed=("read",), sensitive_columns=("a|b",)),
        lambda ctx: [],
    )
    yield Discovered(
        Table(
            "child",
            (Column("at", pa.timestamp("us"), incremental_key=True), Column("j", pa.utf8(), type_schema='"x"')),
            parent="plain", is_incremental=True, description="Of a plain one.",
        ),
        lambda ctx: [],
    )
'''


@pytest.fixture
def pages(write_config, tmp_path):
    (tmp_path / "pages.py").write_text(PLUGIN)
    text = TEST_CONFIG.format(source="{}", destination="{}").replace(
        "path: test, tables", "path: 'pages:pages', tables"
    )
    return write_config(text)


def test_every_mark_of_a_table_and_its_columns(run, pages, tmp_path):
    done = run("tables", pages, "--output", "json", PYTHONPATH=str(tmp_path))

    assert not (tmp_path / "cq-docs").exists()
    up, plain = json.loads(done.stdout)["t"]
    assert (up["name"], up["title"], up["is_paid"]) == ("../up", "Things", True)
    assert (plain["is_incremental"], plain["permissions_needed"], plain["sensitive_columns"]) == (
        True,
        ["read"],
        ["a|b"],
    )
    marked = {column.pop("name"): column for column in plain["columns"]}
    assert marked["a|b"] == {
        "type": "map<utf8, int64, items_nullable>", "is_primary_key": True, "is_primary_key_component": True,
    }  # fmt: skip
    assert "is_primary_key" not in marked["_cq_id"]
    child = {column.pop("name"): column for column in plain["relations"][0]["columns"]}
    assert child["at"] == {"type": "timestamp[us]", "is_incremental_key": True}
    assert child["j"] == {"type": "utf8", "type_schema": '"x"'}


def test_markdown_has_a_page_for_each_table_and_an_overview(run, pages, tmp_path):
    run("tables", pages, "--format", "markdown", "--output-dir", "out", PYTHONPATH=str(tmp_path))

    folder = tmp_path / "out" / "t"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "_.._up.md", "child.md", "plain.md"]
    assert (folder / "README.md").read_text() == (
        "# Source Plugin: pages\n\n## Tables\n\n"
        "- [../up](_.._up.md)\n- [plain](plain.md) (Incremental)\n  - [child](child.md) (Incremental)\n"
    )
    up = (folder / "_.._up.md").read_text()
    assert up.startswith(
        "# Table: ../up\n\nThis table is part of a paid offer.\n\nThis table shows data for Things.\n\n"
        "Its primary key is **id**.\n\n## Columns\n"
    )
    assert "|id (PK)|`int64`|" in up
    plain = (folder / "plain.md").read_text()
    assert "Its primary key is **_cq_id**." in plain
    assert "These columns together make `_cq_id`: (**a|b**)." in plain
    assert "## Relations\n\nThese tables depend on it:\n  - [child](child.md)\n" in plain
    assert "|a\\|b|`map<utf8, int64, items_nullable>`|" in plain
    child = (folder / "child.md").read_text()
    assert "Of a plain one.\n\nIts primary key is **_cq_id**.\n" in child
    assert "It is synced incrementally by (**at**)." in child
    assert "This table depends on [plain](plain.md)." in child
    assert "|at (Incremental Key)|`timestamp[us]`|" in child


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ((), "It has no primary key."),
        (("a",), "Its primary key is **a**."),
        (("a", "b"), "Its composite primary key is (**a**, **b**)."),
    ],
)
def test_the_keys_of_a_table_of_any_plugin(keys, sentence):
    table = Table("t", tuple(Column(name, pa.int64(), primary_key=name in keys) for name in "ab"))

    assert f"\n\n{sentence}\n\n" in page(table, [table])


@pytest.mark.parametrize(("which", "names"), [("all", 3), ("spec", 1)])
def test_filter(run, config, which, names):
    path = config()
    path.write_text(path.read_text().replace('["*"]', "[test_paid_table]"))

    done = run("tables", path, "--filter", which, "--output", "json", "--output-dir", "both")

    assert len(json.loads(done.stdout)["t"]) == names
    assert len(json.loads((path.parent / "both/t/__tables.json").read_text())) == names


def test_the_name_of_a_source_leads_to_no_other_folder(run, config, tmp_path):
    path = config()
    path.write_text(path.read_text().replace("name: t,", "name: ../../t,"))

    run("tables", path)

    assert [folder.name for folder in (tmp_path / "cq-docs").iterdir()] == ["_.._.._t"]
