"""`registry: docker` with a real engine: our own plugins in containers, driven by whole syncs."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import psutil
import pytest

from catchment.engine.plan import make_plan
from catchment.engine.sync import Options, Sync
from catchment.spec.load import load
from catchment.wire.containers import pull
from catchment.wire.relay import Relay
from tests.cli.run import catchment as run_catchment
from tests.cli.run import warm_process
from tests.wire import images
from tests.wire.registry import IMAGE, serving

SHOP, KEEPER, HIDER, SLOW = (f"catchment-test-{name}:1" for name in ("shop", "keeper", "hider", "slow"))
BACKEND = "backend_options: {table_name: cursors, connection: '@@plugins.d.connection'}"


@pytest.fixture(scope="module")
def engine(docker_engine) -> Iterator[images.Engine]:
    """An engine with the images of the plugins."""
    client = images.Engine(docker_engine)
    images.base_image(client)
    # Not as root: nobody's user has to reach what it may.
    images.plugin_image(client, SHOP, "tests.engine.plugins:shop", user="65534:65534")
    images.plugin_image(client, KEEPER, "tests.wire.docker_plugins:Keeper")
    images.plugin_image(client, HIDER, "tests.wire.docker_plugins:hider")
    images.plugin_image(client, SLOW, "catchment.sources.test:test")
    yield client
    client.client.close()


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, tmp_path, docker_engine, engine):
    """No container, no process and no folder of ours outlives a test."""
    # Not in the test's own folder, whose path is too long for a socket.
    scratch = Path(tempfile.mkdtemp(prefix="w-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("DOCKER_HOST", docker_engine)
    warm_process()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    assert [(found["Names"], found["Status"]) for found in engine.containers()] == []
    # What the engine itself runs is not ours.
    before |= {child.pid for child in process_of(docker_engine).children(recursive=True)}
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child.cmdline() for child in left] == []
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


CONFIG = """
kind: source
spec: {{name: s, {source}, tables: ["*"], destinations: [d], spec: {source_spec}, {more}}}
---
kind: destination
spec: {{name: d, {destination}, write_mode: append, spec: {destination_spec}}}
"""


@pytest.fixture
def config(write_config):
    def make(source, destination="registry: python, path: test", source_spec="{}", destination_spec="{}", more=""):
        return write_config(CONFIG.format(source=source, destination=destination, source_spec=source_spec,
                                          destination_spec=destination_spec, more=more))  # fmt: skip

    return make


@pytest.fixture
def launcher(tmp_path: Path):
    """Writes the three lines that make a plugin an executable."""

    def write(target: str) -> Path:
        path = tmp_path / "plugin"
        path.write_text(f"#!{sys.executable}\nfrom catchment.serve import serve\nserve({target!r})\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def start(tmp_path):
    """Starts a sync in a process of its own."""
    with contextlib.ExitStack() as ends:

        def begin(path: Path) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "catchment", "sync", str(path), "--no-log-file"]
            run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   process_group=0, env=os.environ | {"TMPDIR": tempfile.gettempdir()})  # fmt: skip
            ends.enter_context(run)
            ends.callback(run.kill)
            return run

        yield begin


def process_of(engine: str) -> psutil.Process:
    """The process of an engine, by its address."""
    return psutil.Process(int(Path(engine.removeprefix("unix://")).with_name("pid").read_text()))


def image(name: str) -> str:
    return f"registry: docker, path: '{name}'"


def sync(path: Path, **options):
    return Sync(make_plan(load([path])), Options(**options)).run()


def kept(caplog) -> dict[str, list[dict[str, object]]]:
    """What a destination in a container had in the end."""
    (line,) = (record for record in caplog.records if record.getMessage().startswith("kept "))
    rows: dict[str, list[dict[str, object]]] = json.loads(line.getMessage().removeprefix("kept "))
    return rows


def test_source_in_a_container(config, tmp_path):
    database = tmp_path / "x.duckdb"

    result = sync(config(image(SHOP), "registry: python, path: duckdb",
                         destination_spec=f"{{connection_string: {database}}}"))  # fmt: skip

    assert result.outcome == "complete", result.to_json()
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("select id from shops order by id").fetchall() == [(1,), (2,)]
        assert connection.execute("select count(*) from orders").fetchall() == [(4,)]


def test_engine_is_reached_over_a_port_of_this_machine_too(config, docker_engine, monkeypatch):
    relay = Relay(docker_engine)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{relay.port}")

    result = sync(config(image(SHOP)))

    relay.close()
    assert result.outcome == "complete", result.to_json()


def test_destination_in_a_container(config, caplog):
    caplog.set_level(logging.INFO, "catchment")

    result = sync(config("registry: python, path: 'tests.engine.plugins:shop'", image(KEEPER)))

    assert result.outcome == "complete", result.to_json()
    rows = kept(caplog)
    assert [row["id"] for row in rows["shops"]] == [1, 2]
    assert len(rows["orders"]) == 4


def test_both_in_containers(config, caplog):
    caplog.set_level(logging.INFO, "catchment")

    assert sync(config(image(SHOP), image(KEEPER))).outcome == "complete"

    assert [row["id"] for row in kept(caplog)["shops"]] == [1, 2]


def test_error_that_is_only_logged_at_the_very_end_is_seen_however_late_the_log_comes(config, docker_engine):
    process = process_of(docker_engine)
    run = Sync(make_plan(load([config(image(HIDER), source_spec="{pause_s: 1.5}")])))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run.run)
        wait_for(lambda: [row for row in run.tables() if row.rows_read])
        # What the plugin prints passes through the engine; its rows do not.
        process.suspend()
        try:
            time.sleep(3.0)
        finally:
            process.resume()
        result = running.result()

    assert result.outcome == "partial"
    (numbers,) = (row for row in result.tables if row.table == "numbers")
    assert not numbers.complete
    assert "one is missing" in numbers.errors[0].message


def test_log_of_a_container_comes_under_its_own_level(config, caplog):
    caplog.set_level(logging.DEBUG, "catchment")

    assert sync(config(image(HIDER), source_spec="{lines: 5, level: warn}")).outcome == "complete"

    lines = [(line.getMessage(), line.levelname) for line in caplog.records if line.name == "catchment.plugin.s"]
    assert ("line 4", "DEBUG") in lines
    assert ("one is missing", "WARNING") in lines


def test_variables_reach_a_container_only_by_name(config, monkeypatch, tmp_path):
    monkeypatch.setenv("ALLOWED", "yes")
    monkeypatch.setenv("FORBIDDEN", "yes")
    for more, expected in (("env: [ALLOWED, UNSET]", [("ALLOWED", "yes")]), ("", [])):
        database = tmp_path / f"{len(more)}.duckdb"
        path = config(image(HIDER), "registry: python, path: duckdb", "{lines: 0, level: info}",
                      f"{{connection_string: {database}}}", more)  # fmt: skip

        assert sync(path).outcome == "complete"

        query = "select name, value from variables where name in ('ALLOWED', 'FORBIDDEN', 'UNSET')"
        with duckdb.connect(str(database), read_only=True) as connection:
            assert connection.execute(query).fetchall() == expected


def test_cursors_are_kept_in_a_destination_of_this_process(config, tmp_path):
    database = tmp_path / "x.duckdb"

    for _ in range(2):
        path = config(
            image(SHOP), "registry: python, path: duckdb", "{}", f"{{connection_string: {database}}}", BACKEND
        )
        assert sync(path).outcome == "complete"

    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute('select "at" from events order by "at"').fetchall() == [(n,) for n in range(6)]
        assert connection.execute("select count(*) from cursors").fetchall() == [(1,)]


def test_cursors_are_kept_in_a_local_plugin(config, launcher, tmp_path):
    database = tmp_path / "x.sqlite"
    destination = launcher("catchment.destinations.sqlite:SQLite")

    for _ in range(2):
        path = config(image(SHOP), f"registry: local, path: {destination}", "{}", f"{{connection_string: {database}}}",
                      BACKEND)  # fmt: skip
        assert sync(path).outcome == "complete"

    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute('select "at" from events order by "at"').fetchall() == [(n,) for n in range(6)]


def test_cursors_are_kept_in_another_container(config, caplog):
    caplog.set_level(logging.INFO, "catchment")
    assert sync(config(image(SHOP), image(KEEPER), more=BACKEND)).outcome == "complete"
    rows = kept(caplog)
    assert [row["at"] for row in rows["events"]] == [0, 1, 2]
    caplog.clear()

    earlier = json.dumps({"rows": {"cursors": rows["cursors"]}})
    assert sync(config(image(SHOP), image(KEEPER), destination_spec=earlier, more=BACKEND)).outcome == "complete"

    assert [row["at"] for row in kept(caplog)["events"]] == [3, 4, 5]


def test_connection_in_a_spec_is_one_that_the_container_can_dial(config, caplog):
    caplog.set_level(logging.INFO, "catchment")

    result = sync(config(image(SHOP), image(KEEPER), "{fail: ['@@plugins.d.connection']}"))

    assert result.outcome == "complete"


def test_image_that_ends_at_once_is_told_with_its_last_words(config, engine):
    path = config(image(images.python_image(engine, "broken:1", "import sys; sys.exit('no license for you')")))

    result = sync(path)

    assert result.outcome == "failed"
    assert "source plugin `s`: `broken:1` did not start: its container ended with status 1" in result.sources[0].error
    assert "no license for you" in result.sources[0].error


def test_image_that_never_listens_is_given_up(config, engine):
    name = images.python_image(engine, "silent:1", "import time; print('hm', flush=True); time.sleep(99)")
    path = config(image(name), more="timeouts: {start: 1s, stop: 1s}")

    started = time.monotonic()
    result = sync(path)

    assert time.monotonic() - started < 8
    assert "`silent:1` did not listen within 1 seconds; its last lines:\nhm" in result.sources[0].error


def test_image_that_cannot_be_started_is_told_in_the_words_of_the_engine(config):
    result = sync(config(image(images.BASE)))

    assert f"`{images.BASE}` cannot be started: " in result.sources[0].error
    assert "serve" in result.sources[0].error


def test_container_that_dies_in_a_sync_is_told(config, engine):
    path = config(image(SLOW), source_spec="{num_rows: 1000000, rows_per_batch: 1, delay: 1s}")
    run = Sync(make_plan(load([path])))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run.run)
        (container,) = wait_for(engine.containers)
        wait_for(lambda: [row for row in run.tables() if row.rows_read])
        engine.ask("POST", f"/containers/{container['Id']}/kill")
        result = running.result()

    assert "source plugin `s` is gone: its container ended with status 137" in result.sources[0].error


def test_interrupt_ends_a_silent_container_in_order(config, engine, start, tmp_path):
    run = start(config(image(SLOW), source_spec="{num_rows: 1000000, rows_per_batch: 1, delay: 10s}"))
    wait_for(engine.containers)
    time.sleep(2.0)
    since = time.monotonic()

    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=20)

    assert run.returncode == 130, output
    assert time.monotonic() - since < 8


def test_sync_that_is_killed_leaves_no_container(config, engine, start, tmp_path):
    run = start(config(image(SLOW), "registry: python, path: duckdb", "{num_rows: 1000000, delay: 100ms}",
                         f"{{connection_string: {tmp_path / 'x.duckdb'}}}", BACKEND))  # fmt: skip
    wait_for(lambda: [found for found in engine.containers() if found["State"] == "running"])
    time.sleep(1.0)
    children = psutil.Process(run.pid).children(recursive=True)

    run.kill()
    run.communicate()

    wait_for(lambda: not engine.containers())
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_next_run_removes_what_a_killed_one_left_behind(config, engine, start, tmp_path):
    run = start(config(image(SLOW), source_spec="{num_rows: 1000000, delay: 100ms}"))
    wait_for(lambda: [found for found in engine.containers() if found["State"] == "running"])
    before = engine.containers()
    # A run that still goes on keeps its own.
    assert sync(config(image(SHOP))).outcome == "complete"
    assert [found["Id"] for found in engine.containers()] == [found["Id"] for found in before]
    for process in [*psutil.Process(run.pid).children(recursive=True), run]:
        process.kill()
    run.communicate()
    assert len(engine.containers()) == 1

    assert sync(config(image(SHOP))).outcome == "complete"

    assert engine.containers() == []


def test_image_is_pulled_when_it_is_missing_and_only_then(engine):
    with serving() as registry:
        pull(f"{registry.name}:1")
        asked = list(registry.asked)
        pull(f"{registry.name}:1")

    assert f"/v2/{IMAGE}/manifests/1" in asked
    assert registry.asked == asked
    assert engine.ask("GET", f"/images/{registry.name}:1/json")["RepoTags"] == [f"{registry.name}:1"]


def test_image_without_a_tag_is_the_latest(engine):
    with serving() as registry:
        pull(registry.name)

    assert f"/v2/{IMAGE}/manifests/latest" in registry.asked
    assert not [path for path in registry.asked if path.endswith("/tags/list")]


def test_registry_is_shown_the_token(config, engine):
    token = base64.b64encode(b'{"username": "me", "password": "rather-secret-42"}').decode()
    with serving("me:rather-secret-42") as registry:
        path = config(image(f"{registry.name}:1"))
        denied = sync(path).sources[0].error
        path = config(image(f"{registry.name}:1"), more=f"docker_registry_auth_token: {token}")
        result = sync(path)

    assert f"source plugin `s`: image `{registry.name}:1` cannot be pulled: " in denied
    assert "docker_registry_auth_token" in denied
    # It is there now; that nothing in it can be started is another matter.
    assert "cannot be started" in result.sources[0].error
    assert engine.ask("GET", f"/images/{registry.name}:1/json")


def test_image_that_the_registry_does_not_have_is_told(config):
    with serving() as registry:
        result = sync(config(image(f"{registry.name}:none")))

    assert f"image `{registry.name}:none` cannot be pulled: " in result.sources[0].error
    assert "manifest unknown" in result.sources[0].error


def catchment(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    done: subprocess.CompletedProcess[str] = run_catchment(*arguments, "--no-log-file")
    return done


def test_plugin_install_pulls_images_and_tells_which_it_cannot(config):
    with serving() as registry:
        path = config(image(f"{registry.name}:2"), image(f"{registry.name}:none"))
        done = catchment("plugin", "install", path)

    assert done.returncode == 1
    assert f"source s@docker ({registry.name}:2): installed" in done.stdout
    assert f"destination d@docker ({registry.name}:none): image `{registry.name}:none` cannot be pulled" in done.stdout


def test_commands_that_ask_a_plugin_start_a_container(config):
    path = config(image(SHOP), image(KEEPER))

    listed = catchment("tables", path, "--output", "json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "shops" in listed.stdout
    done = catchment("test-connection", path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_validate_config_needs_no_engine(config, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")

    done = catchment("validate-config", config(image(SHOP), image(KEEPER)))

    assert done.returncode == 0, done.stderr
    assert f"source s@docker ({SHOP})" in done.stdout


def wait_for(look, timeout_s: float = 30.0):
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)
    return found
