"""The options of `sync` and `migrate`, each by what it changes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time

import duckdb
import pytest

from tests.cli.run import TEST_CONFIG, catchment


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, "--no-log-file", cwd=tmp_path, **environment)


@pytest.fixture
def db(tmp_path, write_config):
    """A config of the test source into DuckDB, and a function that asks the database."""
    file = tmp_path / "db.duckdb"
    text = TEST_CONFIG.format(source="{num_rows: 3}", destination=f"{{connection_string: {file}}}")
    text = text.replace("name: d, registry: python, path: test", "name: d, registry: python, path: duckdb")

    def query(statement):
        with duckdb.connect(str(file)) as connection:
            return connection.execute(statement).fetchall()

    return write_config(text), query


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_lines_on_the_terminal(run, config):
    path = config()

    done = run("sync", path)

    first, second, *_, last = done.stdout.splitlines()
    assert first == f"Loading spec(s) from {path}"
    assert second == "Starting sync for: t (python@test) -> [d (python@test)]"
    assert last == "Sync completed successfully. Resources: 13, Errors: 0, Warnings: 0, Time: 0s"


def test_rows_and_errors_are_counted_once_however_many_destinations_there_are(run, write_config):
    text = TEST_CONFIG.format(source="{fail_tables: [test_paid_table]}", destination="{}")
    second = text.partition("---")[2].replace("name: d,", "name: d2,")
    done = run("sync", write_config(text.replace("[d]", "[d, d2]") + "---" + second))

    assert done.stdout.splitlines()[-1] == (
        "Sync completed with errors, see logs for details. Resources: 12, Errors: 1, Warnings: 0, Time: 0s"
    )


def test_no_migrate_makes_no_table(run, db):
    path, query = db

    done = run("sync", path, "--no-migrate")

    assert done.returncode == 2
    assert "test_some_table" in done.stdout
    assert query("select * from information_schema.tables") == []


def test_migrate_says_what_it_does(run, db):
    path, query = db

    done = run("migrate", path, "--license", "x")

    assert f"Loading spec(s) from {path}" in done.stdout
    assert "Starting migration for: t (python@test) -> [d (python@duckdb)]" in done.stdout
    assert "Migration completed successfully." in done.stdout
    assert "--license is ignored" in done.stderr
    assert query("select count(*) from test_some_table") == [(0,)]


@pytest.mark.parametrize("command", ["sync", "migrate"])
@pytest.mark.parametrize(("options", "nullable"), [([], "YES"), (["--cq-columns-not-null"], "NO")])
def test_cq_columns_not_null(run, db, command, options, nullable):
    path, query = db
    run(command, path, *options)

    found = query(
        "select distinct is_nullable from information_schema.columns where table_name = 'test_some_table' "
        "and column_name in ('_cq_sync_time', '_cq_source_name')"
    )
    assert found == [(nullable,)]


def test_a_license_is_ignored_with_a_note(run, config):
    done = run("sync", config(), "--license", "some.file")

    assert done.returncode == 0
    assert done.stderr == "Note: --license is ignored, as nothing here needs one\n"


KEYS = [
    "cli_version", "destination_errors", "destination_name", "destination_path", "destination_version",
    "destination_warnings", "resources", "source_errors", "source_name", "source_path", "source_version",
    "source_warnings", "source_tables", "sync_id", "sync_time", "sync_duration_ms", "resources_per_table",
    "errors_per_table", "durations_per_table_ms",
]  # fmt: skip


def test_the_summary_is_a_line_with_upstreams_keys_in_a_folder_that_is_made(run, config, tmp_path):
    place = tmp_path / "new" / "folder" / "summary.jsonl"
    old = os.umask(0o022)
    try:
        done = run("sync", config(), "--summary-location", place, "--output", "json")
        run("sync", config(), "--summary-location", place)
    finally:
        os.umask(old)

    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    first, second = lines_of(place)
    assert list(first) == KEYS
    assert first["sync_id"] == json.loads(done.stdout)["invocation_id"] != second["sync_id"]
    assert first["resources_per_table"] == {
        "test_paid_table": 1, "test_some_table": 1, "test_sub_table": 10, "test_testdata_table": 1,
    }  # fmt: skip
    assert first["resources"] == 13
    assert first["source_tables"] == list(first["resources_per_table"])
    assert set(first["errors_per_table"].values()) == {0}
    assert set(first["durations_per_table_ms"]) == set(first["resources_per_table"])
    assert (first["source_name"], first["source_path"], first["destination_name"]) == ("t", "test", "d")
    assert first["sync_time"].endswith("Z")
    assert len(first["sync_time"]) == len("2026-01-01T00:00:00.000000Z")


def test_the_summary_has_the_shard_and_the_group_and_is_safe_in_a_web_page(run, write_config, tmp_path):
    text = TEST_CONFIG.format(source="{}", destination="{}").replace("append,", "append, sync_group_id: '<g>&é',")
    done = run("sync", write_config(text), "--summary-location", "s.jsonl", "--shard", "1/2")

    assert done.returncode == 0, done.stderr
    line = (tmp_path / "s.jsonl").read_text()
    assert '"sync_group_id":"\\u003cg\\u003e\\u0026é","shard_num":1,"shard_total":2,"resources_per_table"' in line
    assert json.loads(line)["source_name"] == "t"


def test_the_summary_tells_what_is_durable(run, config, tmp_path):
    run("sync", config(destination="{fail_tables: [test_sub_table]}"), "--summary-location", "s.jsonl")

    (line,) = lines_of(tmp_path / "s.jsonl")
    assert line["resources"] == 3
    assert line["resources_per_table"]["test_sub_table"] == 0
    assert line["destination_errors"] == 1
    assert line["source_errors"] == 0


def test_the_summary_counts_errors_of_the_source(run, config, tmp_path):
    run("sync", config("{fail_tables: [test_paid_table]}"), "--summary-location", "s.jsonl")

    (line,) = lines_of(tmp_path / "s.jsonl")
    assert (line["source_errors"], line["errors_per_table"]["test_paid_table"]) == (1, 1)


def test_a_source_that_failed_has_no_summary(run, config, tmp_path):
    done = run("sync", config("{required_env: ['NO_SUCH=1']}"), "--summary-location", "s.jsonl")

    assert done.returncode == 1
    assert not (tmp_path / "s.jsonl").exists()


@pytest.mark.parametrize("option", ["--summary-location", "--tables-metrics-location"])
@pytest.mark.parametrize(("place", "reason"), [(".", "is a folder, name a file"), ("c.txt/x", "cannot be written")])
def test_a_place_that_cannot_be_written_is_found_before_the_sync(run, config, tmp_path, option, place, reason):
    (tmp_path / "c.txt").write_text("")

    done = run("sync", config(), option, place)

    assert done.returncode == 1
    assert f"{option}: {place!r} {reason}" in done.stderr
    assert "Loading" not in done.stdout


def test_the_metrics_are_a_whole_table(run, config, tmp_path):
    place = tmp_path / "metrics" / "tables.txt"
    place.parent.mkdir()
    place.write_text("x" * 10_000)

    path = config("{fail_tables: [test_paid_table], num_rows: 20000, rows_per_batch: 100, num_sub_rows: 0}")
    run("sync", path, "--tables-metrics-location", place)

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in place.read_text().splitlines() if "|" in line]
    assert rows[0] == ["TABLE", "DURATION", "RESOURCES", "ERRORS", "PANICS"]
    found = {row[0]: row[1:] for row in rows[1:]}
    assert (
        list(found) == sorted(found) == ["test_paid_table", "test_some_table", "test_sub_table", "test_testdata_table"]
    )
    assert found["test_paid_table"] == ["N/A", "0", "1", "0"]
    assert found["test_some_table"][0].endswith("s")
    assert found["test_some_table"][1:] == ["20000", "0", "0"]


def test_the_metrics_name_the_source_where_there_are_several(run, write_config, tmp_path):
    text = TEST_CONFIG.format(source="{}", destination="{}")
    second = text.partition("---")[0].replace("name: t,", "name: t2,")
    run("sync", write_config(text + "---" + second), "--tables-metrics-location", "m.txt")

    assert "| t2/test_sub_table " in (tmp_path / "m.txt").read_text()


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("1", "invalid shard format '1': expected NUM/TOTAL, such as 1/4"),
        ("a/b", "invalid shard format 'a/b': expected NUM/TOTAL"),
        ("0/2", "invalid shard format '0/2': NUM must be from 1 to TOTAL"),
        ("3/2", "invalid shard format '3/2': NUM must be from 1 to TOTAL"),
    ],
)
def test_a_shard_that_is_none(run, config, shard, message):
    done = run("sync", config(), "--shard", shard)

    assert done.returncode == 1
    assert message in done.stderr


def test_shards_together_are_the_whole(run, config):
    whole = [
        json.loads(run("sync", config("{num_clients: 3}"), "--shard", shard, "--output", "json").stdout)["tables"]
        for shard in ("1/1", "1/2", "2/2")
    ]

    total, first, second = (sum(table["rows_read"] for table in tables) for tables in whole)
    assert 0 < first < total
    assert first + second == total


@pytest.fixture
def started(tmp_path):
    """Starts a sync and gives its process once the log has the words; stops it at the end."""
    processes = []

    def start(path, words):
        process = subprocess.Popen(
            [sys.executable, "-m", "catchment", "sync", path], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        log = tmp_path / "catchment.log"
        while not (log.exists() and words in log.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        return process

    yield start
    for process in processes:
        process.kill()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sync_ends_in_order(config, tmp_path, started, number):
    process = started(config("{tables: 1, num_rows: 1000, rows_per_batch: 1, delay: 50ms}"), "Start sync")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 128 + number
    assert "Interrupted: ending in order" in err
    assert out.splitlines()[-1].startswith("Sync was interrupted.")
    assert "End sync" in (tmp_path / "catchment.log").read_text()


def test_a_second_signal_ends_at_once(config, tmp_path, started):
    path = config("{num_rows: 5}", "{delay: 100s, batch_size: 1}")
    process = started(path, "Start sync")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("Interrupted: ending in order")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=10) == 130
    assert "End sync" not in (tmp_path / "catchment.log").read_text()
