"""A config file, `catchment sync`, and what is then in the database, read with the database's own driver."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from tests.cli.run import catchment as run_catchment


def catchment(*arguments, **environment):
    """Runs the command in the folder of its config, where the log then is."""
    folder = next((argument.parent for argument in arguments if isinstance(argument, Path)), None)
    return run_catchment(*arguments, cwd=folder, **environment)


CONFIG = """
kind: source
spec:
  name: files
  registry: python
  path: file
  tables: ["*"]
  destinations: [db]
  spec:
    path: {folder}
    tables: [{{name: people, path: people.csv, primary_keys: [id]}}]
---
kind: destination
spec:
  name: db
  registry: python
  path: {path}
  {more}
  spec:
    connection_string: {connection}
"""


@pytest.fixture(params=["duckdb", "postgresql"])
def database(request, tmp_path):
    """Name of the plugin, its connection string, and a function that runs a query with the database's own driver."""
    if request.param == "duckdb":
        path = str(tmp_path / "db.duckdb")

        def query(text):
            with duckdb.connect(path) as connection:
                return connection.execute(text).fetchall()

        return "duckdb", path, query
    import psycopg

    url = request.getfixturevalue("postgresql_url")

    def query_server(text):
        with psycopg.connect(url) as connection:
            return connection.execute(text).fetchall()

    return "postgresql", url, query_server


@pytest.fixture
def sync(database, tmp_path, write_config):
    """Runs a sync of the folder `data` in one go; gives exit code and result."""
    path, connection, _ = database
    (tmp_path / "data").mkdir(exist_ok=True)

    def run(more=""):
        config = write_config(
            CONFIG.format(folder=tmp_path / "data", path=path, connection=json.dumps(connection), more=more)
        )
        done = catchment("sync", config, "--output", "json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


def write(tmp_path, text, name="people.csv"):
    (tmp_path / "data" / name).write_text(text)


def test_rows_arrive_and_stale_ones_go(sync, database, tmp_path):
    query = database[2]
    write(tmp_path, "id,name\n1,Ann\n2,Bo\n3,Cy\n")
    assert sync()[0] == 0
    assert query("select id, name from people order by id") == [(1, "Ann"), (2, "Bo"), (3, "Cy")]

    write(tmp_path, "id,name\n1,Ann\n3,Cyrus\n")
    code, result = sync()

    assert code == 0
    assert query("select id, name from people order by id") == [(1, "Ann"), (3, "Cyrus")]
    [row] = result["tables"]
    assert (row["rows_written"], row["rows_stale_deleted"], row["published"], row["complete"]) == (2, 1, True, True)


def test_a_broken_row_fails_its_table_and_nothing_that_was_there_goes(sync, database, tmp_path):
    query = database[2]
    write(tmp_path, "id,name\n1,Ann\n2,Bo\n")
    write(tmp_path, "x\n1\n", "other.csv")
    assert sync()[0] == 0

    write(tmp_path, "id,name\n1,Anna\n2,Bo,too much\n")
    write(tmp_path, "x\n2\n", "other.csv")
    code, result = sync()

    assert code == 2
    assert query("select id, name from people order by id") == [(1, "Ann"), (2, "Bo")]
    assert query("select x from other") == [(2,)]
    tables = {row["table"]: row for row in result["tables"]}
    [error] = tables["people"]["errors"]
    assert "people.csv:3: 3 values, expected 2" in error["message"]
    assert tables["other"]["complete"]


def test_the_last_of_equal_keys_wins(sync, database, tmp_path):
    query = database[2]
    write(tmp_path, "id,name\n1,first\n2,Bo\n1,last\n")

    assert sync()[0] == 0
    assert query("select id, name from people order by id") == [(1, "last"), (2, "Bo")]


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_other_sources_rows_stay(sync, database, tmp_path, publish):
    query = database[2]
    write(tmp_path, "id,name\n1,Ann\n2,Bo\n")
    assert sync()[0] == 0
    if database[0] == "duckdb":
        with duckdb.connect(database[1]) as connection:
            connection.execute("update people set _cq_source_name = 'someone else' where id = 2")
    else:
        import psycopg

        with psycopg.connect(database[1]) as connection:
            connection.execute("update people set _cq_source_name = 'someone else' where id = 2")

    write(tmp_path, "id,name\n7,Di\n")
    assert sync(f"publish: {publish}")[0] == 0

    assert query("select id, _cq_source_name from people order by id") == [(2, "someone else"), (7, "files")]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("append", [(1, "Ann"), (1, "Anna"), (2, "Bo")]),
        ("overwrite", [(1, "Anna"), (2, "Bo")]),
        ("overwrite-delete-stale", [(1, "Anna")]),
    ],
)
def test_write_modes(sync, database, tmp_path, mode, expected):
    query = database[2]
    write(tmp_path, "id,name\n1,Ann\n2,Bo\n")
    assert sync(f"write_mode: {mode}")[0] == 0
    write(tmp_path, "id,name\n1,Anna\n")
    assert sync(f"write_mode: {mode}")[0] == 0

    assert query("select id, name from people order by id, name") == expected


def test_a_new_column_is_added_and_a_gone_one_stays(sync, database, tmp_path):
    query = database[2]
    write(tmp_path, "id,name\n1,Ann\n")
    assert sync()[0] == 0
    write(tmp_path, "id,age\n1,41\n2,7\n")

    assert sync()[0] == 0
    assert query("select id, name, age from people order by id") == [(1, None, 41), (2, None, 7)]


def test_a_changed_type_is_refused_in_safe_mode_and_made_in_forced(sync, database, tmp_path):
    query = database[2]
    write(tmp_path, "id,name\n1,41\n")
    assert sync()[0] == 0
    write(tmp_path, "id,name\n1,Ann\n")

    code, result = sync()
    assert code == 2
    assert "column `name` changed from int64 to utf8" in result["tables"][0]["errors"][0]["message"]
    assert query("select id, name from people") == [(1, 41)]

    assert sync("migrate_mode: forced")[0] == 0
    assert query("select id, name from people") == [(1, "Ann")]


def test_no_trace_of_staging_is_left(sync, database, tmp_path):
    write(tmp_path, "id,name\n1,Ann\n")
    assert sync()[0] == 0
    query = database[2]

    found = query("select table_schema, table_name from information_schema.tables where table_name <> 'people'")

    assert not [row for row in found if "catchment" in row[0] + row[1]]


def test_a_config_with_mistakes_starts_nothing_and_tells_them_all(write_config, tmp_path):
    config = write_config(
        CONFIG.format(folder=tmp_path, path="duckdb", connection=tmp_path / "never.duckdb", more="wrte_mode: append")
        .replace("path: file", "path: fiel")
    )  # fmt: skip

    done = catchment("sync", config)

    assert done.returncode == 1
    assert f'{config}:18:3 spec.wrte_mode: unknown field "wrte_mode"; did you mean `write_mode`?' in done.stderr
    assert " spec.path: " not in done.stderr
    assert "source plugin 'fiel' is not installed; did you mean `file`?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "never.duckdb").exists()
