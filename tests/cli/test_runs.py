"""`catchment runs`: what a sync leaves in the journal, and how it is listed, shown and compared."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time

import pytest

from catchment import sync
from tests.cli.run import TEST_CONFIG, catchment

IDS = [f"{number}f2504e0-4f89-41d3-9a0c-0305e82c3301" for number in range(1, 5)]


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, "--no-log-file", cwd=tmp_path, **environment)


@pytest.fixture
def listed(run):
    """The runs in the journal, latest first."""
    return lambda *options: json.loads(run("runs", "--output", "json", *options).stdout)["runs"]


def test_a_sync_is_noted_with_its_result(run, config, listed, tmp_path):
    path = config()
    result = json.loads(run("sync", path.name, "--output", "json", "--invocation-id", IDS[0]).stdout)

    [noted] = listed()
    assert (noted["invocation_id"], noted["outcome"], noted["exit_code"]) == (IDS[0], "complete", 0)
    assert (noted["config"], noted["rows"], noted["errors"]) == ([str(path)], 13, 0)
    assert json.loads(run("runs", "show", "--output", "json").stdout) == {**noted, "result": result}
    assert stat.S_IMODE((tmp_path / ".cq" / "journal.sqlite").stat().st_mode) == 0o600


def test_a_sync_that_is_not_complete_is_noted_too(run, config, listed, tmp_path):
    run("sync", config("{fail_tables: [test_paid_table]}"))
    (tmp_path / "folder").mkdir()
    text = TEST_CONFIG.format(source="{}", destination="{connection_string: folder}")
    (tmp_path / "failed.yml").write_text(text.replace("name: d, registry: python, path: test", "name: d, path: duckdb, "
                                                      "registry: python"))  # fmt: skip
    assert run("sync", "failed.yml", "--fail-on", "never").returncode == 0

    failed, partial = listed()
    assert (partial["outcome"], partial["exit_code"], partial["errors"]) == ("partial", 2, 1)
    assert (failed["outcome"], failed["exit_code"]) == ("failed", 0)


def test_an_interrupted_sync_is_noted(config, tmp_path, listed):
    path = config("{tables: 1, num_rows: 1000, rows_per_batch: 1, delay: 50ms}")
    with subprocess.Popen(
        [sys.executable, "-m", "catchment", "sync", path], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        log = tmp_path / "catchment.log"
        while not (log.exists() and "Start sync" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    [noted] = listed()
    assert (noted["outcome"], noted["exit_code"]) == ("interrupted", 143)


def test_what_is_no_run_is_not_noted(run, config, tmp_path):
    path = config()
    (tmp_path / "wrong.yml").write_text("kind: source\nspec: {}\n")

    for words in (["sync", "wrong.yml"], ["sync", path, "--no-journal"], ["migrate", path]):
        run(*words)
    assert sync(path, cq_dir=tmp_path / ".cq").outcome == "complete"

    assert not (tmp_path / ".cq").exists()
    done = run("runs")
    assert (done.returncode, done.stdout) == (
        0, f"No run is in the journal {tmp_path / '.cq' / 'journal.sqlite'}; `catchment sync` writes one at its end\n"
    )  # fmt: skip


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_journal_that_cannot_be_written_is_a_note(run, config, tmp_path, output):
    (tmp_path / "file").touch()

    done = run("sync", config(), "--cq-dir", "file/below", "--output", output)

    assert done.returncode == 0
    assert "Warning: this run is not in the journal: " in done.stderr
    assert "not a directory; `--no-journal` keeps none" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_are_not_in_the_journal(run, chatty, tmp_path):
    path, environment = chatty("{password: '${PASSWORD}', fails: table}")

    assert run("sync", path, PASSWORD="k3ep-me-s3cret", **environment).returncode == 2

    assert b"k3ep-me" not in (tmp_path / ".cq" / "journal.sqlite").read_bytes()
    assert "bad answer to '**********'" in run("runs", "show").stdout


@pytest.fixture
def three(run, config):
    """A journal of three runs: complete; with an error, more rows and a table less; and as the one before."""
    first = config("{num_rows: 3, tables: 1}")
    run("sync", first, "--invocation-id", IDS[0])
    second = config("{num_rows: 5, fail_tables: [test_paid_table]}")
    for each in IDS[1:3]:
        run("sync", second, "--invocation-id", each)
    return first


def test_the_list_is_a_table_latest_first(run, three, listed):
    lines = run("runs", "--limit", "2").stdout.splitlines()

    assert lines[0].split() == ["id", "started", "took", "outcome", "exit", "rows", "errors", "config"]
    rows = [line.split() for line in lines[1:] if not line.startswith(" ")]
    assert [row[0] for row in rows] == [IDS[2][:8], IDS[1][:8]]
    assert rows[0][5:9] == ["partial", "2", "56", "1"]
    assert [each["invocation_id"] for each in listed("--limit", "1")] == [IDS[2]]
    assert run("runs", "--limit", "0").returncode == 1


def test_a_run_is_shown_as_it_was_reported(run, three):
    done = run("runs", "show", IDS[0][:4])

    assert done.returncode == 0
    assert done.stdout.startswith(f"Run {IDS[0]} of {three}\nfrom 20")
    assert "exit code 0" in done.stdout
    assert "Sync completed successfully. Resources: 40, Errors: 0" in done.stdout
    unknown = run("runs", "show", "beef")
    assert unknown.returncode == 1
    assert "Error: no run 'beef' is in the journal" in unknown.stderr


def test_two_runs_are_compared_table_by_table(run, three):
    text = run("runs", "compare", IDS[0][:2], IDS[1][:2]).stdout

    assert [line.split()[:2] for line in text.splitlines()[:2]] == [["before", IDS[0][:8]], ["after", IDS[1][:8]]]
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()[3:-1]}
    assert rows["test_some_table"].startswith("t → d 3 → 5 (+2) ")
    assert rows["test_paid_table"].startswith("t → d 3 → 0 (-3) ")
    assert rows["test_paid_table"].endswith(" incomplete now")
    assert rows["test_wide_table_0"].endswith(" removed")
    assert text.splitlines()[-1] == "3 changed, 1 removed, 1 the same"


def test_a_comparison_is_a_document_too(run, three):
    found = json.loads(run("runs", "compare", IDS[1], IDS[2], "--output", "json").stdout)
    assert {table["change"] for table in found["tables"]} == {"same"}

    found = json.loads(run("runs", "compare", IDS[1], IDS[0], "--output", "json").stdout)

    assert (found["before"]["invocation_id"], found["after"]["invocation_id"]) == (IDS[1], IDS[0])
    tables = {table["table"]: table for table in found["tables"]}
    assert tables["test_paid_table"]["errors"] == {"before": 1, "after": 0}
    assert tables["test_paid_table"]["complete"] == {"before": False, "after": True}
    assert tables["test_wide_table_0"]["change"] == "added"
    assert tables["test_wide_table_0"]["rows_written"] == {"before": None, "after": 3}


def test_a_run_that_is_the_same_as_before_says_so(run, three):
    assert run("runs", "compare", IDS[1], IDS[2]).stdout.splitlines()[2:] == ["4 the same"]


def test_output_stands_where_it_counts(run, three):
    done = run("runs", "--output", "json", "show")

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "--output stands behind `show`"


def test_a_sync_from_a_folder_that_is_gone_is_only_not_noted(config, tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$0" -m catchment sync "$1" --no-log-file'

    done = subprocess.run(
        ["sh", "-c", script, sys.executable, config()], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Sync completed successfully." in done.stdout
    assert "Warning: this run is not in the journal: " in done.stderr
