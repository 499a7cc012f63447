"""The cases of sync and migrate that upstream's command line is tested with, in our words.

Each runs as `catchment sync` does for a user: in a process of its own, as some plugins here end theirs.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.e2e.plugins import until
from tests.e2e.test_sync import catchment

STANDARD = {"test_some_table": 1, "test_sub_table": 10, "test_testdata_table": 1, "test_paid_table": 1}
"""Rows of the `test` source as it is."""


def source(name="test", destinations=("test",), spec="{}", more=""):
    return f"""---
kind: source
spec:
  name: {name}
  registry: python
  path: test
  tables: ["*"]
  destinations: [{", ".join(destinations)}]
  spec: {spec}
  {more}
"""


def destination(name="test", path="test", spec="{}", more=""):
    return f"""---
kind: destination
spec:
  name: {name}
  registry: python
  path: {path}
  spec: {spec}
  {more}
"""


def transformer(spec="{}"):
    return f"---\nkind: transformer\nspec: {{name: test, registry: python, path: test, spec: {spec}}}\n"


def database(tmp_path, name="db", more=""):
    """A SQLite destination, which has rows to look at, and what a query finds in it."""
    path = tmp_path / f"{name}.sqlite"

    def query(text):
        connection = sqlite3.connect(path)
        try:
            return connection.execute(text).fetchall()
        finally:
            connection.close()

    return destination(name, "sqlite", json.dumps({"connection_string": str(path)}), more), query


@pytest.fixture
def sync(write_config):
    """Runs a config; gives the exit code, the result, and what was written to standard error."""

    def run(*documents, flags=(), **environment):
        done = catchment("sync", write_config("".join(documents)), "--output", "json", *flags, **environment)
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


def counts(result, source=None, destination=None, field="rows_written"):
    """Rows by table, of one source and destination."""
    return {
        row["table"]: row[field]
        for row in result["tables"]
        if source in (None, row["source"]) and destination in (None, row["destination"])
    }


def errors(result):
    return [error["message"] for row in result["tables"] for error in row["errors"]]


both_ways = pytest.mark.parametrize("flags", [(), ("--no-migrate",)], ids=["migrated", "no_migrate"])


@both_ways
def test_one_source_and_one_destination(sync, flags):
    code, result, _ = sync(source(), destination(), flags=flags)

    assert code == 0
    assert counts(result) == counts(result, field="rows_read") == STANDARD


@both_ways
def test_several_sources(sync, flags):
    code, result, _ = sync(source("test"), source("test2"), destination(), flags=flags)

    assert code == 0
    assert [part["name"] for part in result["sources"]] == ["test", "test2"]
    assert counts(result, "test") == counts(result, "test2") == STANDARD


@both_ways
def test_several_destinations(sync, flags):
    documents = [source(destinations=["one", "two"]), destination("one"), destination("two")]
    code, result, _ = sync(*documents, flags=flags)

    assert code == 0
    assert counts(result, destination="one") == counts(result, destination="two") == STANDARD


@both_ways
def test_several_destinations_with_each_kind_of_writer(sync, flags):
    kinds = ["batch_writer", "stream_batch_writer", "mixed_batch_writer"]
    documents = [destination(kind, spec=f"{{{kind}: true}}") for kind in kinds]
    code, result, _ = sync(source(destinations=kinds), *documents, flags=flags)

    assert code == 0
    assert all(counts(result, destination=kind) == STANDARD for kind in kinds)


@both_ways
def test_several_sources_each_with_its_destination(sync, flags):
    documents = [
        source("test-1", ["test-1"]),
        source("test-2", ["test-2"]),
        destination("test-1"),
        destination("test-2"),
    ]
    code, result, _ = sync(*documents, flags=flags)

    assert code == 0
    assert {(row["source"], row["destination"]) for row in result["tables"]} == {("test-1",) * 2, ("test-2",) * 2}
    assert counts(result, "test-1") == counts(result, "test-2") == STANDARD


@both_ways
def test_a_backend_that_is_not_the_destination(sync, tmp_path, flags):
    options = "backend_options: {table_name: test_backend, connection: '@@plugins.test2.connection'}"
    backend, query = database(tmp_path, "test2")
    documents = [source(destinations=["test1"], more=options), destination("test1"), backend]
    code, result, _ = sync(*documents, flags=flags)

    assert code == 0
    assert counts(result) == STANDARD
    assert {row["destination"] for row in result["tables"]} == {"test1"}
    assert query("select name from sqlite_master where type = 'table'") == [("test_backend",)]


def summary(query, more=""):
    [row] = query(
        "select source_name, resources, source_errors, destination_errors, sync_id, cli_version, source_tables, "
        f"resources_per_table, errors_per_table, shard_num, shard_total, _cq_source_name {more} "
        "from cloudquery_sync_summaries"
    )
    return [*row[:6], *map(json.loads, row[6:9]), *row[9:]]


def test_a_sync_group_with_a_summary(sync, tmp_path):
    more = "write_mode: append\n  sync_group_id: sync_group_id_test\n  send_sync_summary: true"
    document, query = database(tmp_path, more=more)
    code, result, _ = sync(source(destinations=["db"]), document)

    assert code == 0
    name, resources, source_errors, destination_errors, sync_id, version, tables, rows, wrong, *rest = summary(
        query, ", _cq_sync_group_id"
    )
    assert (name, resources, source_errors, destination_errors) == ("test", 13, 0, 0)
    assert (sync_id, version) == (result["invocation_id"], result["version"])
    assert tables == sorted(STANDARD)
    assert rows == STANDARD
    assert wrong == dict.fromkeys(STANDARD, 0)
    assert rest == [None, None, "test", "sync_group_id_test"]


def test_a_sync_group_with_a_shard(sync, tmp_path):
    """One of two top-level tables goes to each shard; a table's children go where it goes."""
    more = "write_mode: append\n  sync_group_id: sync_group_id_test\n  send_sync_summary: true"
    document, query = database(tmp_path, more=more)
    halves = source(destinations=["db"], more="skip_tables: [test_testdata_table]")
    code, result, _ = sync(halves, document, flags=["--shard", "1/2"])

    assert code == 0
    shard = {"test_some_table": 1, "test_sub_table": 10, "test_paid_table": 0}
    assert counts(result) == shard
    name, resources, *_, tables, rows, _, number, total, own_name, group = summary(query, ", _cq_sync_group_id")
    assert (name, resources, number, total) == ("test", 11, 1, 2)
    assert (own_name, group) == ("test_1_2", "sync_group_id_test")
    assert tables == sorted(shard)
    assert rows == shard


def test_the_shards_of_a_source_are_the_whole_of_it(sync, tmp_path):
    document, query = database(tmp_path, more="write_mode: append")
    first, second = (sync(source(destinations=["db"]), document, flags=["--shard", f"{n}/2"])[1] for n in (1, 2))

    # Three top-level tables are two and one, as upstream's rule has it.
    assert sum(counts(first).values()) == 12
    assert sum(counts(second).values()) == 1
    assert {name: query(f"select count(*) from {name}")[0][0] for name in STANDARD} == STANDARD


@pytest.mark.parametrize("command", ["sync", "migrate"])
def test_a_missing_path(write_config, command):
    done = catchment(command, write_config(source() + destination(path='""')))

    assert done.returncode == 1
    assert 'destination "test": path is required' in done.stderr
    assert "is not installed" not in done.stderr


@both_ways
def test_a_source_that_ends_the_process(sync, flags):
    code, result, said = sync(source(spec="{exit_immediately: true, num_rows: 1000000}"), destination(), flags=flags)

    assert (code, result) == (1, None)
    assert "Traceback" not in said


@both_ways
def test_a_destination_that_ends_the_process(sync, flags):
    code, result, _ = sync(source(), destination(spec="{exit_on_write: true}"), flags=flags)

    assert (code, result) == (1, None)


@both_ways
def test_a_transformer_that_ends_the_process(sync, flags):
    documents = [source(), transformer("{exit_immediately: true}"), destination(more="transformers: [test]")]
    code, result, _ = sync(*documents, flags=flags)

    assert (code, result) == (1, None)


@both_ways
def test_a_transformer_that_fails(sync, flags):
    documents = [source(), transformer("{fail_immediately: true}"), destination(more="transformers: [test]")]
    code, result, _ = sync(*documents, flags=flags)

    assert code == 2
    assert set(errors(result)) == {"failing at the transformer stage according to spec requirements"}
    assert sum(counts(result).values()) == 0


@both_ways
def test_a_transformer_that_passes_rows_on(sync, flags):
    documents = [source(spec="{num_rows: 100}"), transformer(), destination(more="transformers: [test]")]
    code, result, _ = sync(*documents, flags=flags)

    assert code == 0
    assert counts(result) == {**STANDARD, "test_some_table": 100, "test_paid_table": 100, "test_sub_table": 1000}


@pytest.mark.parametrize(("fail_on", "code"), [("table-error", 2), ("error", 0)])
def test_a_source_that_fails(sync, tmp_path, fail_on, code):
    document, query = database(tmp_path, more="send_sync_summary: true")
    failing = source(destinations=["db"], spec="{fail_immediately: true}")
    found, result, _ = sync(failing, document, flags=["--fail-on", fail_on])

    assert found == code
    # The child has no parent row to fail for.
    assert errors(result) == ["failing at the source stage according to spec requirements"] * 3
    name, resources, source_errors, destination_errors, *_, rows, wrong, _, _, _ = summary(query)
    assert (name, resources, source_errors, destination_errors) == ("test", 0, 3, 0)
    assert rows == dict.fromkeys(STANDARD, 0)
    assert wrong == {**dict.fromkeys(STANDARD, 1), "test_sub_table": 0}


@both_ways
@pytest.mark.parametrize("stage", ["write", "insert"])
def test_a_destination_that_fails(sync, stage, flags):
    code, result, _ = sync(source(), destination(spec=f"{{error_on_{stage}: true}}"), flags=flags)

    assert code == 2
    assert set(errors(result)) == {f"error_on_{stage} is true"}
    assert sum(counts(result).values()) == 0


def test_a_destination_that_fails_to_migrate_matters_only_where_it_is_asked_to(sync):
    failing = destination(spec="{error_on_migrate: true}")
    assert sync(source(), failing)[0] == 2

    code, result, _ = sync(source(), failing, flags=["--no-migrate"])

    assert code == 0
    assert counts(result) == STANDARD


@pytest.mark.parametrize(("value", "code"), [("yes", 0), ("no", 1)])
def test_what_a_source_wants_of_its_environment(sync, value, code):
    wanting = source(spec="{required_env: [TEST_KEY=yes, NOT_TEST_ENV=]}")

    assert sync(wanting, destination(), TEST_KEY=value)[0] == code


def test_a_summary_in_files(sync, tmp_path):
    folder = tmp_path / "data"
    spec = json.dumps({"path": f"{folder}/{{{{TABLE}}}}/{{{{UUID}}}}.{{{{FORMAT}}}}", "format": "json"})
    more = "write_mode: append\n  send_sync_summary: true\n  sync_group_id: sync_group_id_test"
    documents = [source(destinations=["files"]), destination("files", "file", spec, more)]

    code, _, said = sync(*documents)

    assert code == 0, said
    [file] = (folder / "cloudquery_sync_summaries").iterdir()
    row = json.loads(file.read_text())
    assert (row["resources"], row["_cq_source_name"], row["_cq_sync_group_id"]) == (13, "test", "sync_group_id_test")
    assert row["source_tables"] == sorted(STANDARD)
    assert row["_cq_sync_time"]


MIGRATIONS = {
    "one": (["test"], ["db"]),
    "several_sources": (["test", "test2"], ["db"]),
    "several_destinations": (["test"], ["db", "db2"]),
    "several_of_both": (["test-1", "test-2"], ["db-1", "db-2"]),
}


@pytest.mark.parametrize("case", MIGRATIONS)
def test_migrate_makes_every_table_and_no_row(write_config, tmp_path, case):
    sources, names = MIGRATIONS[case]
    made = {name: database(tmp_path, name) for name in names}
    documents = [source(name, [names[index]] if case == "several_of_both" else names)
                 for index, name in enumerate(sources)] + [document for document, _ in made.values()]  # fmt: skip

    done = catchment("migrate", write_config("".join(documents)))

    assert done.returncode == 0, done.stderr
    for _, query in made.values():
        tables = {name for (name,) in query("select name from sqlite_master where type = 'table'")}
        assert tables == set(STANDARD)
        assert all(query(f"select count(*) from {name}") == [(0,)] for name in tables)


def test_migrate_then_sync_without_migration(write_config, tmp_path):
    document, query = database(tmp_path)
    config = write_config(source(destinations=["db"]) + document)

    assert catchment("migrate", config).returncode == 0
    assert catchment("sync", config, "--no-migrate").returncode == 0
    assert {name: query(f"select count(*) from {name}")[0][0] for name in STANDARD} == STANDARD


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_process_whose_source_is_stuck(write_config, tmp_path, number, code):
    document, _ = database(tmp_path)
    stuck = source(destinations=["db"], spec="{tables: 1, num_rows: 20, rows_per_batch: 10, delay: 60s}")
    config = write_config(stuck + document)
    command = [sys.executable, "-m", "catchment", "sync", config, "--output", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        # The file that tells the run's staged tables from left-overs is there while it writes.
        until(lambda: list(tmp_path.glob("db.sqlite-catchment-*")))
        started = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate(timeout=50)
    finally:
        process.kill()
        process.wait()

    assert time.monotonic() - started < 10
    assert process.returncode == code
    assert json.loads(said)["outcome"] == "interrupted"
