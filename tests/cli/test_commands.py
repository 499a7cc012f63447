"""The commands, as a person runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def catchment(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "catchment", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=os.environ | environment, cwd=cwd, check=False,
    )  # fmt: skip


TEST_CONFIG = """
kind: source
spec: {{name: t, registry: python, path: test, tables: ["*"], destinations: [d], spec: {source}}}
---
kind: destination
spec: {{name: d, registry: python, path: test, write_mode: append, spec: {destination}}}
"""


@pytest.fixture
def config(write_config):
    def make(source="{}", destination="{}"):
        return write_config(TEST_CONFIG.format(source=source, destination=destination))

    return make


def test_init_writes_a_config_that_works(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "people.csv").write_text("id,name\n1,Ada\n")
    assert catchment("init", "--source", "file", "--destination", "duckdb", cwd=tmp_path).returncode == 0

    assert catchment("validate-config", "file_to_duckdb.yml", cwd=tmp_path).returncode == 0
    again = catchment("init", "--source", "file", "--destination", "duckdb", cwd=tmp_path)
    assert again.returncode == 1
    assert "file_to_duckdb.yml" in again.stderr


def test_init_with_a_typo(tmp_path):
    done = catchment("init", "--source", "fiel", "--destination", "duckdb", cwd=tmp_path)

    assert done.returncode == 1
    assert "file" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_plugin_list(tmp_path):
    done = catchment("plugin", "list", "--output", "json")

    listed = json.loads(done.stdout)
    names = {(plugin["kind"], plugin["name"]) for plugin in listed}
    wanted = {("source", "file"), ("source", "postgresql"), ("source", "sqlite"), ("destination", "duckdb"),
              ("destination", "postgresql"), ("destination", "sqlite"), ("destination", "file")}  # fmt: skip
    assert wanted <= names


def test_tables(config):
    done = catchment("tables", config(), "--output", "json")

    assert done.returncode == 0, done.stderr
    assert "test_some_table" in done.stdout


def test_migrate_makes_tables_without_rows(write_config, tmp_path):
    import duckdb

    path = tmp_path / "m.duckdb"
    text = TEST_CONFIG.format(source="{}", destination=f"{{connection_string: {path}}}")
    done = catchment("migrate", write_config(text.replace("name: d, registry: python, path: test",
                                                          "name: d, registry: python, path: duckdb")))  # fmt: skip

    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select count(*) from test_some_table").fetchall() == [(0,)]


def test_test_connection(config, write_config, tmp_path):
    assert catchment("test-connection", config()).returncode == 0

    text = TEST_CONFIG.format(source="{}", destination="{connection_string: /no/such/folder/x}")
    of_test, of_sqlite = "name: d, registry: python, path: test", "name: d, registry: python, path: sqlite"
    done = catchment("test-connection", write_config(text.replace(of_test, of_sqlite)))
    assert done.returncode == 1
    assert "does not exist" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        ("{}", [], 0),
        ("{fail_tables: [test_some_table]}", [], 2),
        ("{fail_tables: [test_some_table]}", ["--fail-on", "error"], 0),
        ("{fail_immediately: true}", [], 2),
        ("{required_env: ['NO_SUCH=1']}", [], 1),
        ("{required_env: ['NO_SUCH=1']}", ["--fail-on", "never"], 0),
    ],
)
def test_exit_codes(config, source, options, code):
    done = catchment("sync", config(source), *options)

    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_report_names_the_table_and_its_error(config):
    done = catchment("sync", config("{fail_tables: [test_paid_table], num_rows: 3}"))

    assert "test_paid_table" in done.stdout
    assert "fail_tables has this table" in done.stdout
    assert "Errors: 1" in done.stdout


def test_json_has_every_field_of_the_result(config):
    result = json.loads(catchment("sync", config(), "--output", "json", "--invocation-id", "abc").stdout)

    assert result["invocation_id"] == "abc"
    assert set(result["tables"][0]) == {
        "source", "destination", "table", "parent", "rows_read", "rows_written", "rows_rejected", "rows_stale_deleted",
        "rows_stale_kept", "stale_kept_reason", "expectations", "bytes", "started", "seconds_read", "seconds_written",
        "published", "complete", "errors",
    }  # fmt: skip


def test_other_registries_are_refused_with_what_to_write(write_config):
    text = TEST_CONFIG.format(source="{}", destination="{}").replace(
        "name: d, registry: python, path: test", "name: d, path: cloudquery/duckdb, version: v6.0.0"
    )
    done = catchment("sync", write_config(text))

    assert done.returncode == 1
    assert "registry 'cloudquery' is not supported yet" in done.stderr
    assert "write `registry: python` and `path: duckdb`" in done.stderr


def test_a_command_with_a_typo():
    done = catchment("snyc")

    assert done.returncode == 1
    assert "did you mean `sync`?" in done.stderr
