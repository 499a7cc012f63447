"""Long fault runs (`make soak`): a sync that is killed again and again never leaves a half state behind."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

ROWS = 400_000
KILLS = 20
COUNTS = "select count(*), sum(version) from wide"


def _write(folder: Path, version: int) -> None:
    """A file whose rows all say which version they are of; every fifth key changes from one to the next."""
    ids = [number if number % 5 else number + version * ROWS for number in range(ROWS)]
    table = pa.table({"id": ids, "version": pa.repeat(version, ROWS), "text": pa.repeat("x" * 100, ROWS)})
    pq.write_table(table, folder / "wide.parquet")


def _config(folder: Path, destination: str, connection: str) -> Path:
    path = folder / "config.yml"
    path.write_text(f"""
kind: source
spec:
  name: files
  registry: python
  path: file
  tables: ["*"]
  destinations: [db]
  spec:
    path: {folder}/data
    tables: [{{name: wide, path: wide.parquet, primary_keys: [id]}}]
---
kind: destination
spec:
  name: db
  registry: python
  path: {destination}
  spec: {{connection_string: "{connection}"}}
""")
    return path


def _sync(config: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "catchment", "sync", str(config), "--progress", "none", "--no-log-file"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_again_and_again(folder: Path, config: Path, look: Callable[[], tuple[int, int]]) -> None:
    """Kill syncs at random points; after each, the table holds one whole version."""
    chance = random.Random(7)
    whole = {(ROWS, 0)}
    for version in range(1, KILLS + 1):
        _write(folder / "data", version)
        whole.add((ROWS, ROWS * version))
        process = _sync(config)
        time.sleep(chance.uniform(0.2, 6.0))
        process.kill()
        process.wait()
        assert look() in whole
    assert _sync(config).wait() == 0
    assert look() == (ROWS, ROWS * KILLS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data", 0)
    return tmp_path


def test_killed_syncs_into_duckdb(folder):
    path = folder / "x.duckdb"
    config = _config(folder, "duckdb", str(path))
    assert _sync(config).wait() == 0

    def look() -> tuple[int, int]:
        with duckdb.connect(str(path)) as connection:
            count, total = connection.execute(COUNTS).fetchall()[0]
        return int(count), int(total)

    _kill_again_and_again(folder, config, look)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select table_name from duckdb_tables()").fetchall() == [("wide",)]


@contextlib.contextmanager
def _watched(look: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """A reader that looks on all the while, and must see nothing but whole versions."""
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            seen.add(look())

    reader = threading.Thread(target=poll, daemon=True)
    reader.start()
    try:
        yield
    finally:
        done.set()
        reader.join()
    assert seen <= {(ROWS, ROWS * version) for version in range(KILLS + 1)}


def test_killed_syncs_into_postgresql_while_a_reader_looks_on(folder, postgresql_url):
    config = _config(folder, "postgresql", postgresql_url)
    assert _sync(config).wait() == 0

    def look() -> tuple[int, int]:
        with psycopg.connect(postgresql_url) as connection:
            count, total = connection.execute(COUNTS).fetchall()[0]
        return int(count), int(total)

    with _watched(look):
        _kill_again_and_again(folder, config, look)
    with psycopg.connect(postgresql_url) as connection:
        query = "select count(*) from information_schema.schemata where schema_name = '_catchment_staging'"
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("options", ["", "?_journal_mode=WAL"])
def test_killed_syncs_into_sqlite_while_a_reader_looks_on(folder, options):
    path = folder / "x.sqlite"
    config = _config(folder, "sqlite", f"{path}{options}")
    assert _sync(config).wait() == 0

    def ask(query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            return connection.execute(query).fetchall()

    def look() -> tuple[int, int]:
        count, total = ask(COUNTS)[0]
        return int(count), int(total)

    with _watched(look):
        _kill_again_and_again(folder, config, look)
    assert ask("select name from sqlite_schema where type = 'table'") == [("wide",)]
    assert ask("pragma integrity_check") == [("ok",)]
    assert [found for found in folder.iterdir() if "-catchment-" in found.name] == []
