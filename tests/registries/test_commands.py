"""The commands with plugins of the registries: the archives hold launchers of our own plugins, which are then run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

import catchment
from catchment.engine.plan import make_plan
from catchment.engine.sync import Sync
from catchment.spec.load import load
from tests.cli.run import catchment as run_catchment
from tests.registries.server import TARGET, Reply, hub_path, publish, zipped

ROOT = Path(__file__).parents[2]

CONFIG = """
kind: source
spec:
  name: s
  {source}
  tables: ["test_some_table"]
  destinations: [d]
  spec: {{num_rows: 3}}
---
kind: destination
spec:
  name: d
  {destination}
  write_mode: append
  spec: {destination_spec}
"""
HUB = "path: acme/thing\n  version: v1.2.3"
IN_PROCESS = "registry: python\n  path: test"


def launcher(target):
    text = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    return f"{text}from catchment.serve import serve\nserve({target!r})\n".encode()


@pytest.fixture
def config(write_config):
    def make(source=HUB, destination=IN_PROCESS, destination_spec="{}"):
        return write_config(CONFIG.format(source=source, destination=destination, destination_spec=destination_spec))

    return make


@pytest.fixture
def command(tmp_path, server):
    """Runs the command in a folder of its own."""

    def run(*arguments, **environment):
        return run_catchment(*arguments, cwd=tmp_path, **environment)

    return run


def publish_source(server):
    return publish(server, launcher("catchment.sources.test:test"))


def test_a_sync_downloads_runs_and_finds_again_what_it_needs(server, command, config, tmp_path):
    publish_source(server)
    asset = f"/acme/cq-destination-store/releases/download/v2.0.0/cq-destination-store_{TARGET}.zip"
    program = launcher("catchment.destinations.duckdb:DuckDB")
    server.put(asset, Reply(zipped(("cq-destination-store", program))))
    database = tmp_path / "x.duckdb"
    path = config(destination="registry: github\n  path: acme/store\n  version: v2.0.0",
                  destination_spec=f"{{connection_string: {database}}}")  # fmt: skip

    first = command("sync", path)
    asked = len(server.asked)
    second = command("sync", path, CLOUDQUERY_API_URL="http://127.0.0.1:1", CATCHMENT_GITHUB_URL="http://127.0.0.1:1")

    assert first.returncode == 0, first.stderr
    assert f"Downloading {server.url}/files/thing.zip" in first.stdout
    assert "registry `github` is deprecated" in first.stderr
    assert "the registry tells no checksum" in first.stderr
    assert second.returncode == 0, second.stderr
    assert "Downloading" not in second.stdout
    assert len(server.asked) == asked
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("select count(*) from test_some_table").fetchall() == [(6,)]


def test_what_cannot_be_had_keeps_everything_from_starting(server, command, config, tmp_path):
    path = config(destination="path: acme/other\n  version: v1.0.0")

    done = command("sync", path, CLOUDQUERY_API_URL="http://127.0.0.1:1")

    assert done.returncode == 1
    assert 'spec.path: source "s": source plugin `acme/thing` v1.2.3: http://127.0.0.1:1/' in done.stderr
    assert 'spec.path: destination "d": destination plugin `acme/other` v1.0.0: http://127.0.0.1:1/' in done.stderr
    assert f"{path}:5:3 spec.path" in done.stderr
    assert "Starting sync" not in done.stdout


def test_install_fetches_every_plugin_once(server, command, config):
    publish_source(server)
    publish(server, b"#!/bin/sh\n", name="store", kind="destination")
    path = config(destination="path: acme/store\n  version: v1.2.3")

    first = command("plugin", "install", path, "--cq-dir", "plugins", "--output", "json")
    second = command("plugin", "install", path, "--cq-dir", "plugins", CLOUDQUERY_API_URL="http://127.0.0.1:1")

    assert first.returncode == 0, first.stderr
    plugins = json.loads(first.stdout)["plugins"]
    assert [(each["kind"], each["state"], each["missing"]) for each in plugins] == [
        ("source", "downloaded", ""),
        ("destination", "downloaded", ""),
    ]
    assert all(Path(each["place"]).is_file() for each in plugins)
    assert "Downloading" in first.stderr
    assert second.returncode == 0
    assert second.stdout.splitlines()[1:] == [
        "source s (acme/thing@v1.2.3): installed",
        "destination d (acme/store@v1.2.3): installed",
    ]


def test_install_tells_of_each_plugin_that_cannot_be_had(server, command, config):
    publish_source(server)
    path = config(destination="path: acme/store\n  version: v1.2.3")

    done = command("plugin", "install", path, "--output", "json")

    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert [each["state"] for each in document["plugins"]] == ["downloaded", "missing"]
    assert "is not on the hub" in document["plugins"][1]["missing"]
    assert document["error"] == "1 of 2 plugins cannot be used"


def test_a_plugin_that_is_an_image_is_for_the_docker_engine(server, command, config):
    server.put_json(hub_path(), {"package_type": "docker"})
    no_engine = {"DOCKER_HOST": "unix:///no/such/engine"}

    installed = command("plugin", "install", config(), "--output", "json", **no_engine)
    synced = command("sync", config(), **no_engine)

    plugin = json.loads(installed.stdout)["plugins"][0]
    assert installed.returncode == 1
    assert plugin["state"] == "missing"
    assert "/no/such/engine" in plugin["missing"]
    assert synced.returncode == 1
    assert "/no/such/engine" in synced.stdout
    assert server.paths() == [hub_path()]


def test_the_built_in_twin_is_told_of_once_and_never_in_the_document(server, command, write_config):
    twins = "path: cloudquery/test\n  version: v1.0.0"
    text = CONFIG.format(source=twins, destination=twins, destination_spec="{}")

    done = command("validate-config", write_config(text), "--output", "json")

    assert json.loads(done.stdout)["valid"] is True
    lines = "\n  registry: python\n  path: test\n"
    note = f"Note: `cloudquery/test` is built in here and needs no download, if you write{lines}"
    assert done.stderr.count(note) == 1
    assert server.asked == []


@pytest.mark.parametrize("path", ["acme/test", "cloudquery/no-such"])
def test_no_twin_is_told_of_where_there_is_none(server, command, config, path):
    done = command("validate-config", config(f"path: {path}\n  version: v1.0.0"))

    assert done.returncode == 0
    assert "Note" not in done.stderr


def test_a_wrong_path_is_a_mistake_of_the_config(server, command, config):
    done = command("validate-config", config("path: thing\n  version: v1.0.0"))

    assert done.returncode == 1
    assert "expected team/name, got 'thing'" in done.stderr


def test_tables_and_test_connection_fetch_what_they_need(server, command, config, tmp_path):
    publish_source(server)

    tables = command("tables", config(), "--filter", "spec")
    connection = command("test-connection", config(destination="path: acme/none\n  version: v1.0.0"))

    assert tables.returncode == 0, tables.stderr
    assert (tmp_path / "cq-docs" / "s" / "__tables.json").exists()
    assert connection.returncode == 1
    assert re.search(r"source +s \(acme/thing@v1\.2\.3\) +Success", connection.stdout)
    assert "is not on the hub" in connection.stdout


def test_no_secret_is_printed_or_logged(server, command, config, tmp_path):
    publish_source(server)
    path = server.paths
    document = server.replies[f"/plugins/acme/source/thing/versions/v1.2.3/assets/{TARGET}"]
    server.put(f"/teams/mine/plugins/acme/source/thing/versions/v1.2.3/assets/{TARGET}", *document)

    done = command("sync", config(), "--log-level", "trace", "--output", "json",
                   CLOUDQUERY_API_KEY="cqsr_hush-hush", _CQ_TEAM_NAME="mine")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert any(each.startswith("/teams/mine") for each in path())
    log = (tmp_path / "catchment.log").read_text()
    assert "fetched source plugin `acme/thing` v1.2.3" in log
    for text in (done.stdout, done.stderr, log):
        assert "hush-hush" not in text
        assert "signature" not in text


@pytest.mark.parametrize("cached", [False, True])
def test_what_speaks_http_is_loaded_for_a_download_only(server, config, tmp_path, cached):
    publish_source(server)
    path = config() if cached else config(IN_PROCESS)
    script = (
        "import sys\nfrom catchment.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('LOADED', sorted({'httpx', 'tenacity'} & set(sys.modules)))\n"
    )
    if cached:
        assert run_catchment("plugin", "install", path, cwd=tmp_path).returncode == 0

    done = subprocess.run([sys.executable, "-c", script, "sync", str(path)], cwd=tmp_path, capture_output=True,
                          text=True, check=True)  # fmt: skip

    assert "LOADED []" in done.stdout


def test_an_interrupt_breaks_a_download_off(server, config, tmp_path):
    archive = publish(server, os.urandom(100_000))
    server.put("/files/thing.zip", Reply(archive, pieces=200, pause_s=0.2))
    process = subprocess.Popen(
        [sys.executable, "-m", "catchment", "sync", str(config())], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.sent.wait(30)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert "Error: aborted" in errors
    assert not list((tmp_path / ".cq").rglob("plugin"))


def test_the_library_has_the_same_cache(server, config, tmp_path):
    publish_source(server)
    folder = tmp_path / "elsewhere"

    result = catchment.sync(config(), cq_dir=folder)
    again = catchment.sync(config(), cq_dir=folder)

    assert result.outcome == again.outcome == "complete"
    assert server.paths().count("/files/thing.zip") == 1


def test_a_run_without_its_plugins_says_what_fetches_them(server, config):
    result = Sync(make_plan(load([config()]))).run()

    assert result.outcome == "failed"
    assert result.sources[0].error == (
        "source plugin `s`: acme/thing v1.2.3 was not fetched yet; `catchment plugin install` does"
    )
