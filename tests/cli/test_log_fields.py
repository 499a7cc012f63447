"""What log lines are about: run, source, plugin, table, client and destination, also where a driver wrote them."""

from __future__ import annotations

import json
import os

import pytest

from tests.cli.run import catchment

PLUGINS = '''
import logging

import pyarrow as pa

from catchment.destinations.duckdb import DuckDB
from catchment.sdk import Source, Spec

driver = logging.getLogger("some.driver")


class Account:
    def __init__(self, name):
        self.id = name


source = Source("talking", spec=Spec, client=lambda spec: Account(""))
ROW = pa.schema([("id", pa.int64())])


@source.table(ROW, primary_key=["id"], multiplex=lambda client: [Account("north"), Account("south")])
def things(ctx):
    """Things."""
    driver.warning("reading things of %s", ctx.client.id)
    ctx.log.info("said by the author")
    yield [{"id": 1 if ctx.client.id == "north" else 2}]


@source.table(ROW, primary_key=["id"], parent=things)
def parts(ctx):
    """Parts."""
    driver.warning("reading parts")
    yield [{"id": ctx.parent["id"]}]


class Talking(DuckDB):
    name = "talking-db"

    def migrate(self, table, *, force):
        driver.warning("migrating")
        super().migrate(table, force=force)

    def stream(self, table, pieces):
        driver.warning("writing")
        super().stream(table, pieces)

    def write(self, table, rows):
        driver.warning("writing")
        super().write(table, rows)

    def flush(self, tables):
        driver.warning("flushing")
        super().flush(tables)

    def publish(self, swaps):
        driver.warning("publishing")
        return super().publish(swaps)

    def close(self):
        driver.warning("closing")
        super().close()
'''
CONFIG = """
kind: source
spec: {name: shop, registry: python, path: "talking:source", tables: [things, parts], destinations: [db]}
---
kind: destination
spec: {name: db, registry: python, path: "talking:Talking", publish: PUBLISH, spec: {connection_string: out.duckdb}}
"""
RUN = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def log(tmp_path, write_config):
    """Syncs with a source and a destination whose driver says what it does; the lines of the log."""
    (tmp_path / "talking.py").write_text(PLUGINS)

    def lines(*options, publish="atomic"):
        found = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        config = write_config(CONFIG.replace("PUBLISH", publish))
        done = catchment("sync", config, "--invocation-id", RUN, *options, cwd=tmp_path, PYTHONPATH=found)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "catchment.log").read_text().splitlines()

    return lines


def about(line):
    return {key: value for key, value in line.items() if key in ("source", "plugin", "table", "client", "destination")}


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_every_json_line_names_the_run_and_what_it_is_about(log, publish):
    lines = [json.loads(line) for line in log("--log-format", "json", publish=publish)]

    said: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        said.setdefault(line["message"], []).append(about(line))
    assert {line["invocation_id"] for line in lines} == {RUN}
    assert {line["module"] for line in lines} >= {"some.driver", "sync", "cli"}
    for client in ("north", "south"):
        found = {"source": "shop", "plugin": "talking", "table": "things", "client": client}
        assert said[f"reading things of {client}"] == [found]
        assert found in said["said by the author"]
        assert found | {"table": "parts"} in said["reading parts"]
    destination = {"source": "shop", "plugin": "talking-db", "destination": "db"}
    assert {line["table"] for line in said["writing"]} == {"things", "parts"}, "the name that readers know"
    last = "publishing" if publish == "atomic" else "migrating"
    assert said[last]
    for each in ("writing", "flushing", last):
        assert all(line.items() >= destination.items() for line in said.get(each, []))
    assert all("client" not in line for line in said["writing"])
    assert said["Start sync"] == [{"source": "shop", "plugin": "talking:source"}]


def test_text_lines_tell_it_too(log):
    lines = log()

    (line,) = [line for line in lines if "reading things of north" in line]
    assert line.endswith(
        f" WRN reading things of north client=north invocation_id={RUN} module=some.driver plugin=talking source=shop "
        "table=things"
    )


def test_what_one_table_is_about_does_not_stick_to_lines_that_follow(log):
    lines = [json.loads(line) for line in log("--log-format", "json")]

    (last,) = [line for line in lines if line["message"] == "Sync summary"]
    assert about(last) == {}
    (end,) = [line for line in lines if line["message"] == "End sync"]
    assert about(end) == {"source": "shop", "plugin": "talking:source"}
