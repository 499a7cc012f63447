"""Tables that a source cannot describe are named by every command that speaks of tables, and the others go on."""

from __future__ import annotations

import json

import pytest

from tests.cli.run import catchment

CONFIG = """
kind: source
spec:
  name: files
  registry: python
  path: file
  tables: ["*"]
  destinations: [db]
  spec: {{path: {folder}}}
---
kind: destination
spec:
  name: db
  registry: python
  path: duckdb
  spec: {{connection_string: "{folder}/../x.duckdb"}}
"""


@pytest.fixture
def run(tmp_path):
    return lambda *arguments: catchment(*arguments, "--no-log-file", cwd=tmp_path)


@pytest.fixture
def config(tmp_path, write_config):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "good.csv").write_text("id\n1\n")
    (folder / "broken.parquet").write_bytes(b"no parquet")
    return write_config(CONFIG.format(folder=folder))


def test_plan_refuses_them(run, config):
    done = run("plan", config, "--output", "json")

    rows = {row["table"]: row for row in json.loads(done.stdout)["tables"]}
    assert done.returncode == 1
    assert rows["good"]["action"] == "create"
    assert rows["broken"]["action"] == "refused"
    assert "broken.parquet" in rows["broken"]["reason"]


def test_migrate_makes_the_others_and_reports_them(run, config):
    done = run("migrate", config, "--output", "json")

    rows = {row["table"]: row for row in json.loads(done.stdout)["tables"]}
    assert done.returncode == 2
    assert rows["good"]["complete"]
    assert "broken.parquet" in rows["broken"]["errors"][0]["message"]


def test_tables_describes_the_others_and_names_them(run, config):
    done = run("tables", config, "--output", "json")

    assert done.returncode == 1
    assert [table["name"] for table in json.loads(done.stdout)["files"]] == ["good"]
    assert "Error: table `broken` of source `files` cannot be described" in done.stderr
