"""The library as a script and a notebook use it: real configs, real databases."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

import catchment
from catchment.sdk import Context, Rows, Source, Spec
from catchment.spec.load import load
from catchment.spec.model import DestinationConfig, SourceConfig, TransformerConfig
from tests.cli.run import catchment as command
from tests.e2e.conftest import at_file, duck, store
from tests.e2e.documents import destination, source
from tests.e2e.plugins import Mark, Pause, paused, until
from tests.engine.plugins import Recorder, shop

__all__ = ["duck", "store"]

ROOT = Path(__file__).parent.parent
SHOPS = [(1, "shop 1"), (2, "shop 2")]
CONFIG = """
kind: source
spec:
  name: shop
  registry: python
  path: tests.engine.plugins:shop
  tables: [shops]
  destinations: [db]
---
kind: destination
spec:
  name: db
  registry: python
  path: duckdb
  spec:
    connection_string: {path}
"""


@pytest.fixture
def config(write_config, tmp_path):
    """A config file, and the database that it writes."""
    path = tmp_path / "duck.duckdb"
    return write_config(CONFIG.format(path=path)), at_file(str(path))


def shops_of(database):
    return sorted(database.query("select id, name from shops"))


class TestConfigs:
    def test_a_file_is_synced_with_the_result_that_the_command_prints(self, config, tmp_path):
        path, database = config

        result = catchment.sync(str(path))

        assert shops_of(database) == SHOPS
        assert result.outcome == "complete"
        done = command("sync", str(path), "--output", "json", cwd=tmp_path, PYTHONPATH=str(ROOT))
        printed = json.loads(done.stdout)
        made = json.loads(json.dumps(result.to_json()))
        assert printed.keys() == made.keys()
        assert printed["tables"][0].keys() == made["tables"][0].keys()
        assert {t["table"]: t["rows_written"] for t in made["tables"]} == {"shops": 2}

    def test_files_and_folders_make_one_config(self, tmp_path):
        parts = CONFIG.format(path=tmp_path / "duck.duckdb").split("---")
        (tmp_path / "source.yml").write_text(parts[0])
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "db.yml").write_text(parts[1])

        catchment.sync([tmp_path / "source.yml", tmp_path / "folder"])

        assert shops_of(at_file(str(tmp_path / "duck.duckdb"))) == SHOPS

    def test_mappings_make_a_config(self, duck):
        catchment.sync([source(tables=["shops"]), duck.document()])

        assert shops_of(duck) == SHOPS

    def test_config_objects_make_a_config_and_stay_as_they_are(self, duck):
        there = SourceConfig(name="shop", registry="python", path="tests.engine.plugins:shop", version="v1.0.0",
                             tables=["shops"], destinations=["db"])  # fmt: skip
        spec = {"connection_string": duck.connection}

        catchment.sync([there, DestinationConfig(name="db", registry="python", path="duckdb", spec=spec)])

        assert shops_of(duck) == SHOPS
        assert there.version == "v1.0.0"

    def test_a_loaded_config_can_be_looked_through_before_it_is_synced(self, config):
        path, database = config
        loaded = load([path])
        loaded.sources[0].spec["shops"] = [7]

        catchment.sync(loaded)

        assert shops_of(database) == [(7, "shop 7")]

    def test_plugins_are_given_as_python_objects(self, duck):
        mark = {"kind": "transformer", "spec": {"name": "mark", "path": Mark, "spec": {"text": "!"}}}

        result = catchment.sync([source(path=shop, tables=["shops"]), duck.document(transformers=["mark"]), mark])

        assert shops_of(duck) == [(1, "shop 1!"), (2, "shop 2!")]
        assert result.sources[0].plugin == "shop (python@shop)"

    def test_config_objects_take_python_objects_too(self):
        Recorder.made.clear()

        catchment.sync(
            [
                SourceConfig(name="shop", path=shop, tables=["shops"], destinations=["db"]),  # type: ignore[arg-type]
                DestinationConfig(name="db", path=Recorder, transformers=["mark"]),  # type: ignore[arg-type]
                TransformerConfig(name="mark", path=Mark, spec={"text": "!"}),  # type: ignore[arg-type]
            ]
        )

        assert ("write", "shops", 2) in Recorder.made[-1].calls

    def test_a_source_that_no_module_has_can_be_given(self, duck):
        made = Source("made", spec=Spec, client=lambda spec: spec)

        @made.table(pa.schema([("id", pa.int64()), ("name", pa.utf8())]))
        def shops(ctx: Context[Spec]) -> Rows:
            """One shop."""
            yield {"id": 5, "name": "corner"}

        catchment.sync([source(path=made, tables=["shops"]), duck.document()])

        assert shops_of(duck) == [(5, "corner")]

    def test_an_object_of_the_wrong_kind_is_told(self, duck):
        with pytest.raises(catchment.SpecError, match=r"plugin `tests\.engine\.plugins:Recorder` is no source"):
            catchment.sync([source(path=Recorder), duck.document()])

    def test_every_mistake_is_told_and_nothing_is_started(self, duck):
        with pytest.raises(catchment.SpecError) as raised:
            catchment.sync([source(tables=[], spec={"shopz": [1]}), destination(path="dukdb")])

        text = str(raised.value)
        assert len(raised.value.problems) == 3
        assert "tables configuration is required" in text
        assert 'unknown field "shopz"' in text
        assert "did you mean `duckdb`?" in text

    def test_config_objects_are_checked_against_each_other(self, duck):
        one = SourceConfig(
            name="shop", path="tests.engine.plugins:shop", tables=["shops"], destinations=["dbb"], registry="python"
        )

        with pytest.raises(catchment.SpecError, match="references unknown destination dbb; did you mean `db`"):
            catchment.sync([one, one, duck.document()])

        with pytest.raises(catchment.SpecError, match="duplicate source name shop"):
            catchment.sync([one, one, duck.document("dbb")])

    def test_files_and_mappings_together_are_refused(self, config):
        with pytest.raises(catchment.SpecError, match="cannot be mixed"):
            catchment.sync([str(config[0]), source()])

    @pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
    def test_a_shard_that_is_none_is_refused(self, config, shard):
        with pytest.raises(catchment.SpecError, match="the first number must be from 1 to the second"):
            catchment.sync(config[0], shard=shard)

    def test_warnings_of_the_config_are_logged(self, config, caplog):
        path, _ = config
        path.write_text(path.read_text().replace("path: duckdb", "path: duckdb\n  version: v1.0.0"))

        catchment.sync(path)

        assert any("`version` is ignored with `registry: python`" in record.message for record in caplog.records)


class TestOutcomes:
    def test_table_errors_are_in_the_result(self, duck):
        result = catchment.sync([source(spec={"fail": ["orders"]}), duck.document()])

        assert result.outcome == "partial"
        assert [row.table for row in result.tables if row.errors] == ["orders"]

    def test_a_destination_that_cannot_be_opened_is_in_the_result(self, duck, tmp_path):
        missing = {"connection_string": str(tmp_path / "missing" / "db.duckdb")}

        result = catchment.sync([source(), destination(spec=missing)])

        assert result.outcome == "failed"
        assert "does not exist" in result.destinations[0].error

    def test_an_outcome_that_fail_on_names_is_raised_with_its_result(self, duck):
        documents = [source(spec={"fail": ["orders"]}), duck.document()]

        with pytest.raises(
            catchment.SyncFailed, match="the sync is partial: table `orders`: orders broke off"
        ) as raised:
            catchment.sync(documents, fail_on="table-error")

        assert raised.value.result.outcome == "partial"
        assert catchment.sync(documents, fail_on="error").outcome == "partial"
        with pytest.raises(catchment.SyncFailed, match="the sync is failed: `shop`: the shop cannot be reached"):
            catchment.sync([source(spec={"dead": True}), duck.document()], fail_on="error")

    def test_the_options_of_the_command_are_keywords(self, config, tmp_path):
        result = catchment.sync(config[0], invocation_id="it-is-me", summary_location=tmp_path / "summary.jsonl")

        assert result.invocation_id == "it-is-me"
        assert json.loads((tmp_path / "summary.jsonl").read_text())["source_name"] == "shop"

    def test_a_summary_that_cannot_be_written_is_logged(self, config, tmp_path, caplog):
        assert catchment.sync(config[0], summary_location=tmp_path).outcome == "complete"

        assert "the sync summary could not be written" in caplog.text

    def test_migrate_makes_tables_without_rows(self, config):
        path, database = config

        result = catchment.migrate(path)

        assert result.outcome == "complete"
        assert shops_of(database) == []


class TestSurroundings:
    """A notebook's kernel runs cells in whatever thread, and owns signals and logging."""

    def test_a_sync_leaves_signals_logging_and_threads_as_they_were(self, config, postgresql_url):
        path, _ = config
        post = destination(path="postgresql", spec={"connection_string": postgresql_url})
        catchment.sync([source(), post])
        before = (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            list(logging.getLogger().handlers),
            logging.getLogger("catchment").level,
            list(logging.getLogger("catchment").filters),
            threading.excepthook,
        )
        threads = set(threading.enumerate())

        catchment.sync(path)
        catchment.sync([source(), post])
        catchment.read(post, "shops").to_arrow()

        until(lambda: set(threading.enumerate()) <= threads)
        assert before == (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            list(logging.getLogger().handlers),
            logging.getLogger("catchment").level,
            list(logging.getLogger("catchment").filters),
            threading.excepthook,
        )

    def test_syncs_run_in_threads_and_beside_each_other(self, tmp_path):
        pauses = {name: Pause(name) for name in ("first", "second")}
        results = {}

        def run(name):
            documents = [source("paused", paused, ["steps"], spec={"pause": name}),
                         at_file(str(tmp_path / f"{name}.duckdb")).document()]  # fmt: skip
            results[name] = catchment.sync(documents)

        threads = [threading.Thread(target=run, args=(name,)) for name in pauses]
        for thread in threads:
            thread.start()
        # Both are in the middle at once.
        assert all(pause.reached.wait(20) for pause in pauses.values())
        for pause in pauses.values():
            pause.over.set()
        for thread in threads:
            thread.join(20)

        assert {name: result.tables[0].rows_written for name, result in results.items()} == {"first": 4, "second": 4}

    def test_an_interrupt_ends_the_sync_in_order_and_is_raised(self):
        documents = [
            source("s", "tests.e2e.plugins:paused", ["steps"], spec={"pause": "here"}),
            destination(path="tests.engine.plugins:Recorder", write_mode="append"),
        ]
        script = f"""
import os, signal, threading, time, catchment
from tests.e2e.plugins import Pause
from tests.engine.plugins import Recorder
pause = Pause("here")
def interrupt():
    pause.reached.wait()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
    pause.over.set()
threading.Thread(target=interrupt).start()
try:
    catchment.sync({documents})
except KeyboardInterrupt:
    recorder = Recorder.made[-1]
    print("interrupted", recorder.is_open, sum(rows for what, _, rows in recorder.calls if what == "write") > 2)
"""

        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
        )

        assert done.stdout == "interrupted False False\n"
        assert done.stderr == ""

    def test_the_module_loads_nothing_heavy_until_it_is_used(self):
        script = (
            "import sys, catchment\n"
            "print(sorted({'pyarrow', 'pydantic', 'yaml', 'click'} & set(sys.modules)), len(catchment.__version__))\n"
            "catchment.sync\n"
            "print('pyarrow' in sys.modules)\n"
        )

        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert done.stdout.split("\n")[:2] == ["[] 5", "True"]

    def test_a_name_that_is_not_there_is_told(self):
        with pytest.raises(AttributeError, match="module 'catchment' has no attribute 'snyc'"):
            _ = catchment.snyc  # type: ignore[attr-defined]
