"""Plugins that die, hang, flood and lie end in an error that names plugin and, where it can be known, table."""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path

import pytest

from catchment.cli.report import print_report
from catchment.wire.telemetry import Receiver
from tests.wire.test_local import ROOT, SHOP, config, nothing_is_left, sync

__all__ = ["config", "nothing_is_left"]


@pytest.fixture
def bad(tmp_path):
    """Writes an executable that makes one mistake."""

    def write(mistake):
        path = tmp_path / f"bad-{mistake}"
        text = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.wire.plugins import main\nmain()\n"
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
        return path

    return write


LIMITS = "timeouts: {start: 20s, idle: 2s, stop: 1s}"


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("exit-init", "ended with status 7.*I am about to die"),
        ("kill-init", "killed by SIGKILL"),
        ("refuse-init", "no such account"),
        ("exit-sync", "ended with status 7"),
        ("exit-rows", "ended with status 7"),
        ("kill-rows", "killed by SIGKILL"),
        ("hang-rows", "sent nothing for"),
        ("hang-sync", "sent nothing for"),
        ("garbage", "cannot be read"),
        ("half-record", "cannot be read|broken values"),
        ("wrong-schema", "rows of table `t` are not what it announced"),
        ("unknown-table", "rows of table `never_announced` came before"),
        ("no-table-name", "missing table name"),
        ("nothing-set", "unknown kind"),
        ("table-twice", "table `t` twice"),
        ("status", "the account is gone"),
        ("old", "upgrade the plugin"),
        ("half-a-server", "no plugin answers"),
    ],
)
def test_source_that_fails_is_named_with_the_reason(config, bad, mistake, text):
    limits = LIMITS.replace("20s", "3s") if mistake == "half-a-server" else LIMITS
    started = time.monotonic()

    result = sync(config(bad(mistake), "test", more=limits))

    (source,) = result.sources
    assert result.outcome == "failed"
    assert "source plugin `s`" in source.error or "source `s`" in source.error
    assert re.search(text, source.error, re.DOTALL), source.error
    assert time.monotonic() - started < 15
    assert all(not row.complete for row in result.tables)


def test_source_that_does_not_end_when_told_is_killed(config, bad, caplog):
    result = sync(config(bad("ignores-signals"), "test", more="timeouts: {stop: 500ms}"))

    assert result.outcome == "complete"
    assert "did not end within 0.5 seconds and was killed" in caplog.text


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("exit-write", "ended with status 7"),
        ("kill-write-rows", "killed by SIGKILL"),
        ("exit-write-end", "ended with status 7"),
        ("refuse-write", "disk full"),
        ("fail-at-end", "constraint violated"),
        ("exit-init", "ended with status 7"),
        ("refuse-init", "no such account"),
    ],
)
def test_destination_that_fails_is_named_with_the_reason(config, bad, mistake, text):
    result = sync(config(SHOP, bad(mistake)))

    (destination,) = result.destinations
    assert result.outcome == "failed"
    assert "destination plugin `d`" in destination.error
    assert text in destination.error
    assert all(not row.complete for row in result.tables)
    assert all(row.rows_written == 0 for row in result.tables)


def test_why_a_destination_is_lost_is_reported_once_however_many_tables_it_had(config, bad, capsys):
    result = sync(config(SHOP, bad("refuse-write")))
    print_report(result)

    said = capsys.readouterr().out
    assert sum(bool(row.errors) for row in result.tables) == 3
    assert said.count("disk full") == 1
    assert all(re.search(rf"{row.table}.*not published", said) for row in result.tables)


def test_destination_that_answers_before_it_has_everything_is_not_believed(config, bad):
    result = sync(config("test", bad("end-early"), "{num_rows: 20000, num_clients: 4}"))

    assert result.outcome == "failed"
    assert "before it had everything" in result.destinations[0].error


def test_destination_that_dies_when_it_is_closed_has_its_rows(config, bad):
    result = sync(config(SHOP, bad("exit-close")))

    assert all(row.complete for row in result.tables)


@pytest.mark.parametrize("mistake", ["hidden", "flood", "long-line"])
def test_error_that_is_only_logged_makes_the_table_incomplete(config, bad, mistake):
    # Rows stop for as long as the flood takes.
    limits = LIMITS.replace("idle: 2s", "idle: 60s")
    result = sync(config(bad(mistake), "test", more=limits, mode="overwrite-delete-stale"))

    (table,) = result.tables
    assert result.outcome == "partial"
    assert not table.complete
    assert table.errors
    assert table.rows_read == 6
    assert table.stale_kept_reason


def test_error_that_names_no_table_makes_the_whole_source_incomplete(config, bad):
    result = sync(config(bad("nameless"), "test", more=LIMITS, mode="overwrite-delete-stale"))

    (table,) = result.tables
    assert result.outcome == "partial"
    assert (table.complete, table.errors) == (False, [])
    assert "names no table: panic somewhere" in table.stale_kept_reason
    assert "panic somewhere" in result.sources[0].error


def test_errors_that_only_the_metrics_count_make_the_table_incomplete(config, bad):
    result = sync(config(bad("counts"), "test", more=LIMITS, mode="overwrite-delete-stale"))

    (table,) = result.tables
    assert (result.outcome, table.complete) == ("partial", False)
    assert [error.message for error in table.errors] == ["the source counted 3 errors, of which its log may say more"]
    assert table.stale_kept_reason


def test_metrics_of_a_table_that_nobody_announced_make_the_whole_source_incomplete(config, bad):
    result = sync(config(bad("counts-elsewhere"), "test", more=LIMITS, mode="overwrite-delete-stale"))

    (table,) = result.tables
    assert (result.outcome, table.complete, table.errors) == ("partial", False, [])
    assert "the source counted 1 error" in table.stale_kept_reason


def test_metrics_go_where_the_config_says(config, bad):
    receiver = Receiver()
    more = f"{LIMITS}\n  otel_endpoint: {receiver.endpoint}\n  otel_endpoint_insecure: true"
    try:
        result = sync(config(bad("counts"), "test", more=more, mode="overwrite-delete-stale"))
    finally:
        receiver.close()

    assert result.outcome == "complete"
    assert receiver.failures() == {"t": 3}


def test_lines_that_are_no_log_lines_are_logged_all_the_same(config, bad, caplog):
    caplog.set_level(logging.DEBUG, "catchment.plugin")

    sync(config(bad("odd-lines"), "test", more=LIMITS))

    lines = [
        (record.getMessage(), record.levelname) for record in caplog.records if record.name == "catchment.plugin.s"
    ]
    assert ("not json", "INFO") in lines
    assert ("[1, 2]", "INFO") in lines
    assert ("unknown level: no level", "ERROR") in lines
    assert ("from a vendor", "ERROR") in lines


TRANSFORMED = """
kind: source
spec: {{name: s, registry: python, path: '{source}', tables: ["*"], destinations: [d]}}
---
kind: transformer
spec: {{name: t, registry: local, path: {path}}}
---
kind: destination
spec: {{name: d, registry: python, path: test, transformers: [t], write_mode: append}}
"""


@pytest.mark.parametrize(
    ("mistake", "text", "outcome"),
    [
        ("exit-transform", "ended with status 7", "failed"),
        ("kill-transform-rows", "killed by SIGKILL", "failed"),
        ("exit-transform-schema", "ended with status 7", "failed"),
        ("transform-garbage", "does not begin as an Arrow stream", "partial"),
    ],
)
def test_transformer_that_fails_is_named_with_the_reason(write_config, bad, mistake, text, outcome):
    result = sync(write_config(TRANSFORMED.format(source=SHOP, path=bad(mistake))))

    errors = [group.message for row in result.tables for group in row.errors]
    assert result.outcome == outcome
    assert len(errors) == 3
    assert all("transformer plugin `t`" in error and text in error for error in errors), errors


def test_transformer_that_holds_rows_back_loses_none(write_config, bad):
    result = sync(write_config(TRANSFORMED.format(source=SHOP, path=bad("transform-holds"))))

    assert result.outcome == "complete", result.to_json()
    assert {row.table: row.rows_written for row in result.tables} == {"shops": 2, "orders": 4, "events": 3}


def test_this_file_names_every_mistake():
    text = (Path(__file__).parent / "plugins.py").read_text()
    cases = set(re.findall(r'case "([a-z-]+)":', text))
    assert cases <= set(re.findall(r'"([a-z-]+)"', Path(__file__).read_text()))
