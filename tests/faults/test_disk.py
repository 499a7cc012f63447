"""Disks that are full: under the database, under the files, under what catchment itself writes down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.conftest import Store, at_file, at_postgresql, at_sqlite
from tests.e2e.documents import destination, messages, run
from tests.faults import flood
from tests.faults.flood import FOUND, wanted

ROWS = 500
WIDE = 60_000
"""Bytes of a row of the version that does not fit: 30 MB in all."""


@contextlib.contextmanager
def on_a_tablespace(url, folder):
    """A new database of a running server whose tables are in `folder`."""
    os.chown(folder, 65534, 65534)
    name = "on_a_small_disk"
    server = url.rpartition(" dbname=")[0]
    with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create tablespace small location '{folder}'")
        connection.execute(f"create database {name} tablespace small")
        try:
            yield at_postgresql(f"{server} dbname={name}")
        finally:
            connection.execute(f"drop database {name} with (force)")
            connection.execute("drop tablespace small")


@pytest.fixture(params=["duckdb", "sqlite", "postgresql"])
def cramped(request, small_disk):
    """A database on a disk of 16 MB more than it needs."""
    if request.param == "postgresql":
        # A database has 8 MB before it has a table.
        folder = small_disk("disk", 24)
        with on_a_tablespace(request.getfixturevalue("postgresql_url"), folder) as store:
            yield store
        return
    path = str(small_disk("disk", 16) / f"x.{request.param}")
    yield (at_file if request.param == "duckdb" else at_sqlite)(path)


@pytest.mark.parametrize("publish", ["atomic", pytest.param("stream", marks=pytest.mark.thorough)])
def test_a_full_disk_is_told_and_costs_nothing_that_was_there(cramped: Store, small_disk, publish):
    def sync(version, row_bytes):
        return run(
            flood.document(rows=ROWS, version=version, row_bytes=row_bytes, rows_per_batch=50),
            cramped.document(publish=publish, spec={"batch_size": 50}),
        )

    assert sync(1, 20).outcome == "complete"

    result = sync(2, WIDE)

    assert result.outcome in ("partial", "failed")
    told = messages(result) + "".join(each.error for each in result.destinations)
    assert "full" in told or "no space" in told.lower(), told
    found = sorted(cramped.query(FOUND))
    if publish == "atomic":
        assert found == wanted(ROWS, 1)
    else:
        # Whole batches may have come in the place of old rows; nothing else may be different, and nothing is gone.
        assert {number for number, _, _ in found} >= {number for number, _, _ in wanted(ROWS, 1)}
        assert set(found) <= {*wanted(ROWS, 1), *wanted(ROWS, 2, WIDE)}
    small_disk("disk", 200)
    result = sync(3, WIDE)
    assert result.outcome == "complete", messages(result)
    assert sorted(cramped.query(FOUND)) == wanted(ROWS, 3, WIDE)
    assert cramped.tables() == ["drops"]


@pytest.mark.parametrize("megabytes", [32, *(pytest.param(size, marks=pytest.mark.thorough) for size in (24, 40, 52))])
def test_what_duckdb_says_is_in_is_in_wherever_its_disk_is_full(small_disk, megabytes):
    # Somewhere between there is room for its log and none for the file that the log is put into.
    path = str(small_disk("disk", megabytes) / "x.duckdb")

    def sync(version, row_bytes):
        [row] = run(
            flood.document(rows=ROWS, version=version, row_bytes=row_bytes, rows_per_batch=50),
            at_file(path).document(),
        ).tables
        with duckdb.connect(path, read_only=True) as connection:
            return row, sorted(connection.execute(FOUND).fetchall())

    assert sync(1, 20)[1] == wanted(ROWS, 1)

    row, found = sync(2, WIDE)

    assert found == (wanted(ROWS, 2, WIDE) if row.published else wanted(ROWS, 1))
    assert row.rows_written == (ROWS if row.published else 0)
    small_disk("disk", 200)
    assert sync(3, WIDE)[1] == wanted(ROWS, 3, WIDE)


@pytest.mark.parametrize("no_rotate", [False, True], ids=["new files", "one file that grows"])
def test_a_full_disk_leaves_no_file_that_is_half_written(small_disk, no_rotate):
    folder = small_disk("disk", 8)
    each = {"path": f"{folder}/{{{{TABLE}}}}-{{{{UUID}}}}.parquet", "batch_size": 50}
    spec = {"path": str(folder), "no_rotate": True} if no_rotate else each
    into = destination(path="file", write_mode="append", spec={"format": "parquet", **spec})

    def sync(version, row_bytes):
        return run(flood.document(rows=ROWS, version=version, row_bytes=row_bytes, rows_per_batch=50), into)

    def there():
        return sorted(
            tuple(row.values())
            for path in folder.iterdir()
            for row in pq.read_table(path, columns=["id", "version", "text"]).to_pylist()
        )

    assert sync(1, 20).outcome == "complete"
    (folder / "ballast").write_bytes(bytes(7 << 20))

    result = sync(2, WIDE)

    assert result.outcome == "partial"
    assert "cannot be written: No space left on device" in messages(result)
    (folder / "ballast").unlink()
    found = there()
    assert set(wanted(ROWS, 1)) <= set(found) <= {*wanted(ROWS, 1), *wanted(ROWS, 2, WIDE)}
    assert len(found) == len(set(found))


def test_a_full_disk_under_the_journal_and_the_log_does_not_break_a_sync(small_disk, tmp_path, duck_file):
    folder = small_disk("disk", 1)
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump_all([flood.document(rows=ROWS, version=1), duck_file.document()]))
    command = [sys.executable, "-m", "catchment", "--cq-dir", str(folder / "cq"), "sync", str(config)]

    # The log file is made in the folder that it is started in.
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": os.getcwd()}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "this run is not in the journal" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    assert sorted(duck_file.query(FOUND)) == wanted(ROWS, 1)
