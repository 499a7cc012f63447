"""`catchment plan`, as a person runs it."""

from __future__ import annotations

import json

import duckdb
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
  spec: {{path: {folder}, tables: [{{name: people, path: people.csv, primary_keys: [id]}}]}}
---
kind: destination
spec:
  name: db
  registry: python
  path: {plugin}
  migrate_mode: {mode}
  write_mode: {write_mode}
  spec: {{connection_string: "{connection}"}}
"""


@pytest.fixture
def shop(tmp_path, write_config):
    """Writes the rows of `people.csv`, and a config that syncs them."""
    (tmp_path / "data").mkdir()

    def make(rows, *, mode="safe", plugin="duckdb", connection=None, write_mode="overwrite-delete-stale"):
        (tmp_path / "data" / "people.csv").write_text(rows)
        return write_config(
            CONFIG.format(
                folder=tmp_path / "data",
                plugin=plugin,
                mode=mode,
                connection=connection or tmp_path / "db.duckdb",
                write_mode=write_mode,
            )
        )

    return make


def plan(config, *options):
    done = catchment("plan", config, "--no-log-file", *options, cwd=config.parent)
    assert "Traceback" not in done.stderr
    return done


def plan_as_json(config):
    done = plan(config, "--output", "json")
    return done.returncode, json.loads(done.stdout)


def test_first_plan_creates_and_makes_nothing(shop, tmp_path):
    config = shop("id,name\n1,Ada\n")
    there = set(tmp_path.rglob("*"))

    done = plan(config)

    assert done.returncode == 2
    assert "+ people: create (6 columns, primary key id)" in done.stdout
    assert "Plan: 1 to create. Nothing was changed." in done.stdout
    assert "overwrite-delete-stale, migrate_mode safe, tables become visible together at the end" in done.stdout
    assert set(tmp_path.rglob("*")) == there


def test_plan_after_a_sync_has_no_change(shop):
    config = shop("id,name\n1,Ada\n")
    assert catchment("sync", config, cwd=config.parent).returncode == 0

    done = plan(config)

    assert (done.returncode, done.stderr) == (0, "")
    assert "= no change: people" in done.stdout
    assert "Plan: 1 without a change. Nothing was changed." in done.stdout


def test_each_change_has_its_safety(shop, tmp_path):
    catchment("sync", shop("id,name\n1,Ada\n"), cwd=tmp_path)

    done = plan(shop("id,name,born\n1,Ada,1815\n"))

    assert done.returncode == 2
    assert "~ people: alter (about 1 row in it)" in done.stdout
    assert "column `born` of type int64 is new [safe]" in done.stdout


def test_a_change_that_needs_force_says_so_and_what_it_costs(shop, tmp_path):
    catchment("sync", shop("id,name\n1,Ada\n"), cwd=tmp_path)
    with duckdb.connect(str(tmp_path / "db.duckdb")) as connection:
        connection.execute("create view names as select name from people")

    safe = plan(shop("id,name\n1,7\n"))
    forced = plan(shop("id,name\n1,7\n", mode="forced"))
    kept = plan(shop("id,name\nx,Ada\n", mode="forced"))

    change = "column `name` changed from utf8 to int64 [needs `migrate_mode: forced`]"
    assert "~ people: alter (about 1 row in it)" in kept.stdout
    assert (safe.returncode, forced.returncode) == (2, 2)
    assert "x people: refused (about 1 row in it; on it hang: view `names`)" in safe.stdout
    assert "run with `migrate_mode: forced` (it may drop the table's rows)" in safe.stdout
    assert "! people: drop and make anew (about 1 row in it; may break: view `names`)" in forced.stdout
    assert change in safe.stdout
    assert change in forced.stdout


def test_json(shop):
    code, document = plan_as_json(shop("id,name\n1,Ada\n"))

    assert code == 2
    assert document["outcome"] == "changes"
    [row] = document["tables"]
    assert (row["source"], row["destination"], row["table"], row["role"]) == ("files", "db", "people", "rows")
    assert (row["action"], row["publish"], row["deletes_stale"], row["rows"]) == ("create", "atomic", True, None)
    assert {"name": "id", "type": "int64", "primary_key": True, "not_null": True} in row["columns"]


def test_json_of_a_change(shop, tmp_path):
    catchment("sync", shop("id,name\n1,Ada\n"), cwd=tmp_path)

    _, document = plan_as_json(shop("id,name,born\n1,Ada,1815\n"))

    [row] = document["tables"]
    assert row["changes"] == [
        {"kind": "add_column", "column": "born", "text": "column `born` of type int64 is new", "safety": "safe"}
    ]
    assert row["rows"] == 1


def test_what_fails_is_told_with_exit_code_1(shop):
    config = shop("id\n1\n", plugin="sqlite", connection="/no/such/folder/x.db")

    done = plan(config)
    code, document = plan_as_json(config)

    assert (done.returncode, code, document["outcome"]) == (1, 1, "failed")
    assert (
        "Error: destination db (python@sqlite): folder '/no/such/folder' of the database does not exist" in done.stdout
    )
    assert "make it first" in document["destinations"][0]["error"]


def test_a_mistake_in_the_config_is_told_as_by_sync(shop):
    done = plan(shop("id\n1\n", write_mode="overwrit"))

    assert done.returncode == 1
    assert "overwrite" in done.stderr


def test_passwords_are_hidden(shop):
    url = "postgresql://me:hunter2-hunter2@127.0.0.1:1/db"

    text = plan(shop("id\n1\n", plugin="postgresql", connection=url))
    as_json = plan(shop("id\n1\n", plugin="postgresql", connection=url), "--output", "json")

    for done in (text, as_json):
        assert done.returncode == 1
        assert "hunter2" not in done.stdout + done.stderr
