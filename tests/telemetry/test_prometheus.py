"""Files for node_exporter, read by Prometheus' own parser."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import catchment as library
from catchment.errors import SpecError
from tests.cli.run import catchment

HOSTILE = ['a"b', "back\\slash", "new\nline", "{curly}", "ünï", "} 1\ncatchment_run_outcome 7"]


def read(path):
    """Value by name of the metric and its labels."""
    found = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(found, name, **labels):
    (only,) = [
        number for (metric, *about), number in found.items() if metric == name and labels.items() <= dict(about).items()
    ]
    return only


def outcome(found):
    return [
        dict(about)["outcome"] for (name, *about), number in found.items() if name == "catchment_run_outcome" and number
    ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "nightly.prom"


@pytest.fixture
def sync(tmp_path, file):
    def run(path, *options):
        return catchment("sync", path, "--prometheus-file", file, *options, cwd=tmp_path)

    return run


def test_a_complete_run_tells_its_times_and_the_numbers_of_every_table(sync, config, file):
    before = time.time()

    done = sync(config(), "--invocation-id", "3f2504e0-4f89-41d3-9a0c-0305e82c3301")

    assert (done.returncode, done.stderr) == (0, "")
    found = read(file)
    assert outcome(found) == ["complete"]
    assert before < value(found, "catchment_run_start_timestamp_seconds", sync="nightly")
    ended = value(found, "catchment_run_end_timestamp_seconds")
    assert ended < time.time()
    assert value(found, "catchment_last_complete_run_timestamp_seconds") == ended
    assert 0 < value(found, "catchment_run_duration_seconds") < time.time() - before
    about = {"invocation_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "version": library.__version__}
    assert value(found, "catchment_run_info", **about) == 1
    assert value(found, "catchment_table_rows_read", source="shop", table="test_sub_table") == 24
    written = {"source": "shop", "destination": "db", "table": "test_sub_table"}
    assert value(found, "catchment_destination_rows_written", **written) == 24
    assert value(found, "catchment_destination_complete", **written) == 1
    assert value(found, "catchment_source_outcome", source="shop", plugin="shop (python@test)", outcome="complete") == 1
    assert value(found, "catchment_destination_outcome", destination="db", outcome="failed") == 0
    assert {dict(about)["sync"] for _, *about in found} == {"nightly"}


def test_durations_are_seconds(sync, config, file):
    sync(config(source="{tables: 1, num_rows: 10, rows_per_batch: 1, delay: 100ms}"))

    seconds = value(read(file), "catchment_table_read_duration_seconds", table="test_wide_table_0")
    assert 0.5 < seconds < 10


def test_a_run_with_errors_keeps_when_one_was_complete(sync, config, file):
    sync(config())
    complete = value(read(file), "catchment_last_complete_run_timestamp_seconds")

    done = sync(config(source="{tables: 1, fail_tables: ['*wide*']}"))

    found = read(file)
    assert done.returncode == 2
    assert outcome(found) == ["partial"]
    assert value(found, "catchment_table_errors", table="test_wide_table_0") == 1
    assert value(found, "catchment_destination_complete", table="test_wide_table_0") == 0
    assert value(found, "catchment_last_complete_run_timestamp_seconds") == pytest.approx(complete)
    assert value(found, "catchment_run_end_timestamp_seconds") > complete


def test_a_run_that_never_began_has_failed_and_leaves_no_old_numbers(sync, config, write_config, file):
    sync(config())

    done = sync(write_config("kind: source\nspec: {name: x, registry: python, path: nothere, destinations: [y]}"))

    found = read(file)
    assert done.returncode == 1
    assert outcome(found) == ["failed"]
    assert not [name for name, *_ in found if name.startswith(("catchment_table", "catchment_destination"))]


def test_a_killed_run_leaves_running_and_no_old_numbers(sync, config, file, tmp_path):
    sync(config())
    slow = config(source="{tables: 1, num_rows: 1000, rows_per_batch: 1, delay: 100ms}")

    with subprocess.Popen(
        [sys.executable, "-m", "catchment", "sync", str(slow), "--prometheus-file", str(file)], cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while outcome(read(file)) != ["running"]:
            time.sleep(0.05)
        process.kill()

    found = read(file)
    assert outcome(found) == ["running"]
    assert not [name for name, *_ in found if name.startswith(("catchment_table", "catchment_run_end"))]
    assert value(found, "catchment_last_complete_run_timestamp_seconds") > 0


def test_an_interrupted_run_says_so(config, file, tmp_path):
    slow = config(source="{tables: 1, num_rows: 1000, rows_per_batch: 1, delay: 100ms}")

    with subprocess.Popen(
        [sys.executable, "-m", "catchment", "sync", str(slow), "--prometheus-file", str(file), "--progress", "none"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while "Starting sync" not in process.stdout.readline():
            pass
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate()

    assert process.returncode == 143
    assert outcome(read(file)) == ["interrupted"]


def test_names_of_tables_cannot_break_out_of_their_labels(tmp_path, write_config, file, sync):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.csv").write_text("id\n1\n")
    tables = [{"name": name, "path": str(folder / "x.csv")} for name in HOSTILE]
    documents = [
        {"kind": "source", "spec": {"name": 'so"urce', "registry": "python", "path": "file", "tables": ["*"],
                                    "destinations": ["d"], "spec": {"path": str(folder), "tables": tables}}},
        {"kind": "destination", "spec": {"name": "d", "registry": "python", "path": "test", "write_mode": "append"}},
    ]  # fmt: skip
    path = tmp_path / "hostile.json"
    path.write_text("\n---\n".join(json.dumps(document) for document in documents))

    result = library.sync(path, prometheus_file=file)

    assert {row.table for row in result.tables} == set(HOSTILE)
    found = read(file)
    assert outcome(found) == [result.outcome]
    read_rows = {dict(about)["table"]: n for (name, *about), n in found.items() if name == "catchment_table_rows_read"}
    assert read_rows == dict.fromkeys(HOSTILE, 1)
    assert {dict(about)["source"] for (name, *about) in found if name == "catchment_table_rows_read"} == {'so"urce'}


def test_the_file_is_whole_for_all_to_read_and_nothing_is_beside_it(sync, config, file, tmp_path):
    old = os.umask(0o077)
    try:
        sync(config())
    finally:
        os.umask(old)

    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir() if "prom" in path.name] == ["nightly.prom"]


@pytest.mark.parametrize(
    "rubbish", [b"\xff\xfe", b'catchment_last_complete_run_timestamp_seconds{sync="', b"x 1 2 3 4\n", b""]
)
def test_a_file_that_cannot_be_understood_is_replaced(sync, config, file, rubbish):
    file.write_bytes(rubbish)

    done = sync(config())

    assert done.returncode == 0
    assert outcome(read(file)) == ["complete"]


def test_a_name_that_node_exporter_passes_over_is_warned_of(config, tmp_path):
    done = catchment("sync", config(), "--prometheus-file", "metrics.txt", cwd=tmp_path)

    assert done.returncode == 0
    assert "node_exporter reads files that end in `.prom`, and not 'metrics.txt'" in done.stderr
    assert outcome(read(tmp_path / "metrics.txt")) == ["complete"]


def test_a_place_that_cannot_be_written_ends_the_command_before_the_sync(config, tmp_path):
    done = catchment("sync", config(), "--prometheus-file", "/proc/x.prom", cwd=tmp_path)

    assert done.returncode == 1
    assert "--prometheus-file: '/proc/x.prom' cannot be written" in done.stderr
    assert not (tmp_path / "out.duckdb").exists()


def test_a_missing_package_is_named(config, tmp_path):
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('not installed')")

    done = catchment("sync", config(), "--prometheus-file", "x.prom", cwd=tmp_path, PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert "pip install 'catchment[prometheus]'" in done.stderr


def test_a_library_call_writes_it_too(config, file):
    result = library.sync(config(), prometheus_file=file)

    found = read(file)
    assert outcome(found) == ["complete"]
    assert value(found, "catchment_run_info", invocation_id=result.invocation_id) == 1


def test_a_library_call_refuses_a_place_that_cannot_be_written(config):
    with pytest.raises(SpecError, match="`prometheus_file` cannot be written"):
        library.sync(config(), prometheus_file="/proc/x.prom")
