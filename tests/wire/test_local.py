"""`registry: local` and `grpc` with our own plugins in processes of their own, driven by whole syncs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import psutil
import pytest

from catchment.engine.plan import make_plan
from catchment.engine.sync import Options, Sync
from catchment.errors import SpecError
from catchment.spec.load import load
from catchment.wire.process import socket_folder
from tests.cli.run import warm_process
from tests.wire.serving import served

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, tmp_path):
    """No process, no socket and no folder of ours outlives a test."""
    # Not in the test's own folder, whose path is too long for a socket.
    scratch = Path(tempfile.mkdtemp(prefix="w-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    warm_process()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [(child.pid, child.status(), child.cmdline()) for child in left] == []
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


@pytest.fixture
def launcher(tmp_path: Path):
    """Writes the three lines that make a plugin an executable."""

    def write(target: str, name: str = "plugin", before: str = "") -> Path:
        path = tmp_path / name
        text = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{before}\n"
        path.write_text(f"{text}from catchment.serve import serve\nserve({target!r})\n")
        path.chmod(0o755)
        return path

    return write


def sync(path: Path, **options):
    run = Sync(make_plan(load([path])), Options(**options))
    return run.run()


CONFIG = """
kind: source
spec:
  name: s
  {source}
  tables: ["*"]
  destinations: [d]
  {more}
  spec: {source_spec}
---
kind: destination
spec:
  name: d
  {destination}
  write_mode: {mode}
  {options}
  spec: {destination_spec}
"""


@pytest.fixture
def config(write_config):
    def make(source, destination, source_spec="{}", destination_spec="{}", mode="append", more="", options=""):
        def place(plugin):
            if isinstance(plugin, Path):
                return f"registry: local\n  path: {plugin}"
            return f"registry: grpc\n  path: {plugin}" if "://" in plugin else f"registry: python\n  path: {plugin}"

        return write_config(CONFIG.format(source=place(source), destination=place(destination), more=more,
                                          source_spec=source_spec, destination_spec=destination_spec, mode=mode,
                                          options=options))  # fmt: skip

    return make


def rows_of(database: Path, query: str):
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(query).fetchall()


SHOP, RECORDER = "tests.engine.plugins:shop", "tests.engine.plugins:Recorder"


def test_local_source_into_a_local_destination(config, launcher, tmp_path):
    source = launcher("catchment.sources.test:test", "source")
    destination = launcher("catchment.destinations.duckdb:DuckDB", "destination")
    database = tmp_path / "x.duckdb"

    result = sync(config(source, destination, "{num_rows: 3, num_clients: 2}", f"{{connection_string: {database}}}"))

    assert result.outcome == "complete", result.to_json()
    assert {row.table: row.rows_written for row in result.tables}["test_some_table"] == 6
    assert rows_of(database, "select count(*), count(distinct _cq_source_name) from test_some_table") == [(6, 1)]


def test_stale_rows_go_on_the_same_stream(config, launcher, tmp_path):
    destination = launcher("catchment.destinations.duckdb:DuckDB")
    database = tmp_path / "x.duckdb"

    def run(shops):
        return sync(config(SHOP, destination, f"{{shops: {shops}}}", f"{{connection_string: {database}}}",
                           mode="overwrite-delete-stale"))  # fmt: skip

    assert run([1, 2, 3]).outcome == "complete"
    assert run([2]).outcome == "complete"

    assert rows_of(database, "select id from shops") == [(2,)]


def test_stale_rows_of_a_table_that_failed_are_kept(config, launcher, tmp_path):
    destination, source = launcher("catchment.destinations.duckdb:DuckDB", "d"), launcher(SHOP, "s")
    database = tmp_path / "x.duckdb"

    def run(spec):
        return sync(config(source, destination, spec, f"{{connection_string: {database}}}",
                           mode="overwrite-delete-stale"))  # fmt: skip

    assert run("{shops: [1, 2, 3]}").outcome == "complete"
    result = run("{shops: [2], fail: [orders]}")

    assert result.outcome == "partial"
    assert rows_of(database, "select id from shops") == [(2,)]
    assert rows_of(database, "select count(*) from orders") == [(6,)]
    (orders,) = (row for row in result.tables if row.table == "orders")
    assert "orders broke off" in orders.stale_kept_reason


def test_rows_that_a_source_leaves_out_are_known_from_its_log(config, launcher, tmp_path):
    result = sync(config(launcher(SHOP), "test", "{skip: [shops]}"))

    (shops,) = (row for row in result.tables if row.table == "shops")
    assert shops.rows_rejected == 1
    assert not shops.complete


def test_cursors_are_kept_in_a_destination_of_ours_that_the_engine_serves(config, launcher, tmp_path):
    database = tmp_path / "x.duckdb"
    more = "backend_options: {table_name: cursors, connection: '@@plugins.d.connection'}"

    for _ in range(2):
        path = config(launcher(SHOP), "duckdb", "{}", f"{{connection_string: {database}}}", more=more)
        assert sync(path).outcome == "complete"

    assert rows_of(database, 'select "at" from events order by "at"') == [(n,) for n in range(6)]
    assert rows_of(database, "select count(*) from cursors") == [(1,)]


def test_cursors_of_a_source_of_ours_are_kept_in_a_foreign_destination(config, launcher, tmp_path):
    destination = launcher("catchment.destinations.duckdb:DuckDB")
    database = tmp_path / "x.duckdb"
    more = "backend_options: {table_name: cursors, connection: '@@plugins.d.connection'}"

    for _ in range(2):
        path = config(SHOP, destination, "{}", f"{{connection_string: {database}}}", more=more)
        assert sync(path).outcome == "complete"

    assert rows_of(database, 'select "at" from events order by "at"') == [(n,) for n in range(6)]


def test_both_foreign_keep_cursors_too(config, launcher, tmp_path):
    destination, source = launcher("catchment.destinations.sqlite:SQLite", "d"), launcher(SHOP, "s")
    database = tmp_path / "x.sqlite"
    more = "backend_options: {table_name: cursors, connection: '@@plugins.d.connection'}"

    for _ in range(2):
        path = config(source, destination, "{}", f"{{connection_string: {database}}}", more=more)
        assert sync(path).outcome == "complete"

    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*) from events").fetchall() == [(6,)]
    connection.close()


TWO_SOURCES = """
kind: source
spec:
  name: {name}
  registry: local
  path: {source}
  tables: ["*"]
  destinations: [d]
  backend_options: {{table_name: {cursors}, connection: '@@plugins.d.connection'}}
---
"""


def two_sources(source, destination, database, *cursors):
    names = zip(("a", "b"), cursors, strict=True)
    documents = [TWO_SOURCES.format(name=name, source=source, cursors=table) for name, table in names]
    return "".join(documents) + (
        "kind: destination\n"
        f"spec: {{name: d, registry: local, path: {destination}, spec: {{connection_string: {database}}}}}\n"
    )


def test_sources_share_one_process_of_a_destination_that_also_keeps_their_cursors(write_config, launcher, tmp_path):
    noted = tmp_path / "starts"
    note = f"open({str(noted)!r}, 'a').write(sys.argv[0] + '\\n')"
    source = launcher(SHOP, "s", before=note)
    destination = launcher("catchment.destinations.sqlite:SQLite", "d", before=note)
    database = tmp_path / "x.sqlite"

    result = sync(write_config(two_sources(source, destination, database, "of_a", "of_b")))

    assert result.outcome == "complete", result.to_json()
    assert sorted(Path(line).name for line in noted.read_text().splitlines()) == ["d", "s", "s"]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for table in ("of_a", "of_b"):
            assert connection.execute(f"select count(*) from {table}").fetchall() == [(1,)]


def test_foreign_sources_with_one_table_of_cursors_are_warned_about(write_config, launcher, tmp_path):
    source = launcher(SHOP, "s")

    def told(*cursors):
        plan = make_plan(load([write_config(two_sources(source, source, tmp_path / "x", *cursors))]))
        return [str(warning) for warning in plan.warnings]

    (warning,) = told("cursors", "cursors")
    assert 'source "b": the cursors of source `a` are in the same table' in warning
    assert told("of_a", "of_b") == []


def test_connection_is_put_wherever_a_spec_asks_for_it(config, launcher, tmp_path):
    destination = launcher("catchment.destinations.test:Test")
    path = config(SHOP, destination, "{fail: ['@@plugins.d.connection']}")

    assert sync(path).outcome == "complete"
    with pytest.raises(SpecError, match="destination `other` is not in the config"):
        make_plan(load([config(SHOP, destination, "{fail: ['@@plugins.other.connection']}")]))


def test_transformers_of_other_processes(write_config, launcher, tmp_path):
    database = tmp_path / "x.duckdb"
    path = write_config(f"""
kind: source
spec: {{name: s, registry: python, path: '{SHOP}', tables: ["*"], destinations: [d]}}
---
kind: transformer
spec: {{name: doubler, registry: local, path: {launcher("tests.engine.plugins:Doubler")}}}
---
kind: transformer
spec: {{name: pass, registry: python, path: test}}
---
kind: destination
spec:
  name: d
  registry: python
  path: duckdb
  transformers: [doubler, pass]
  spec: {{connection_string: {database}}}
""")

    result = sync(path)

    assert result.outcome == "complete", result.to_json()
    assert rows_of(database, "select id, twice from shops_out order by id") == [(1, 2), (2, 4)]
    assert rows_of(database, "select count(*) from orders_out") == [(4,)]
    assert rows_of(database, "select count(*) from events_out") == [(3,)]


def test_grpc_registry_finds_what_runs_and_leaves_it_running(config, tmp_path):
    from tests.engine.plugins import Recorder, shop

    with served(shop.as_plugin) as source, served(Recorder.as_plugin) as destination:
        for _ in range(2):
            run = Sync(make_plan(load([config(source, destination)])))
            assert run.run().outcome == "complete"

    assert any("cannot be seen" in str(warning) for warning in run.plan.warnings)


def test_path_that_is_no_executable_is_refused_before_anything_starts(config, tmp_path):
    (tmp_path / "plain").write_text("x")
    for path, text in (
        (tmp_path / "none", "is not there"),
        (tmp_path, "is a folder"),
        (tmp_path / "plain", "is not exec"),
    ):
        with pytest.raises(SpecError, match=text):
            make_plan(load([config(path, "test")]))


def test_plugin_that_dies_at_once_is_told_with_its_last_words(config, tmp_path):
    path = tmp_path / "plugin"
    path.write_text("#!/bin/sh\necho 'no license for you' >&2\nexit 3\n")
    path.chmod(0o755)

    result = sync(config(path, "test"))

    assert result.outcome == "failed"
    assert "did not start: its process ended with status 3" in result.sources[0].error
    assert "no license for you" in result.sources[0].error


def test_plugin_that_never_listens_is_given_up(config, tmp_path):
    path = tmp_path / "plugin"
    path.write_text("#!/bin/sh\nsleep 100 & sleep 100\n")
    path.chmod(0o755)

    started = time.monotonic()
    result = sync(config(path, "test", more="timeouts: {start: 500ms, stop: 200ms}"))

    assert time.monotonic() - started < 5
    assert "did not listen within 0.5 seconds" in result.sources[0].error


def test_plugin_sees_only_the_variables_that_it_may(config, launcher, monkeypatch, tmp_path):
    monkeypatch.setenv("ALLOWED", "1")
    monkeypatch.setenv("FORBIDDEN", "1")
    told = tmp_path / "told"
    before = f"import os; open({str(told)!r}, 'w').write(' '.join(sorted(os.environ)))"

    result = sync(config(launcher(SHOP, before=before), "test", more="env: [ALLOWED]"))

    assert result.outcome == "complete"
    assert "ALLOWED" in told.read_text().split()
    assert "FORBIDDEN" not in told.read_text().split()


def test_log_of_a_plugin_comes_under_its_own_level(config, launcher, caplog):
    caplog.set_level(logging.DEBUG, "catchment")

    sync(config(launcher(SHOP), "test", "{fail: [orders]}"))

    lines = [record for record in caplog.records if record.name == "catchment.plugin.s"]
    assert ("listening", "INFO") in [(line.getMessage(), line.levelname) for line in lines]
    (failed, *_) = (line for line in lines if line.levelname == "ERROR")
    assert getattr(failed, "table", "") == "orders"
    assert getattr(failed, "plugin_module", "") == "shop-source"


def test_sync_that_is_killed_takes_its_plugins_with_it(config, launcher, tmp_path):
    """SIGKILL leaves the engine no chance to stop them: they notice."""
    more = "backend_options: {table_name: cursors, connection: '@@plugins.d.connection'}"
    database = tmp_path / "x.duckdb"
    path = config(launcher("catchment.sources.test:test"), "duckdb", "{num_rows: 1000000, delay: 100ms}",
                  f"{{connection_string: {database}}}", more=more)  # fmt: skip
    scratch = Path(tempfile.gettempdir()) / "killed"
    scratch.mkdir()
    run = subprocess.Popen([sys.executable, "-m", "catchment", "sync", str(path), "--no-log-file"], cwd=tmp_path,
                           stdout=subprocess.DEVNULL, env=os.environ | {"TMPDIR": str(scratch)})  # fmt: skip
    deadline = time.monotonic() + 30
    while len(list(scratch.glob("cq-*/s"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    children = psutil.Process(run.pid).children(recursive=True)
    # The plugin, and what watches over it and over the destination that is served to it.
    assert len(children) == 3

    run.kill()
    run.wait()

    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


def test_socket_has_a_short_path_whatever_the_temporary_folder_is_called(monkeypatch, tmp_path):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    folder = socket_folder()

    assert len(str(folder)) < 30
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(deep.iterdir()) == []
    folder.rmdir()


def test_interrupt_ends_a_silent_foreign_source_at_once(config, launcher, tmp_path):
    path = config(launcher("catchment.sources.test:test"), "test", "{num_rows: 1000000, rows_per_batch: 1, delay: 10s}")
    run = subprocess.Popen([sys.executable, "-m", "catchment", "sync", str(path), "--no-log-file"], cwd=tmp_path,
                           stdout=subprocess.PIPE, text=True, process_group=0)  # fmt: skip
    deadline = time.monotonic() + 30
    while not psutil.Process(run.pid).children(recursive=True) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.0)
    started = time.monotonic()

    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=20)

    assert run.returncode == 130, output
    assert time.monotonic() - started < 8
