"""What a plugin prints: every line is counted by its level, however long, and logged here."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import Any

import pytest

from catchment.wire.output import LINE_BYTES, Logged, Output


@pytest.fixture
def printed():
    """Writes to the standard output of a plugin; gives its reader too."""
    (out, out_end), (error, error_end) = os.pipe(), os.pipe()
    output = Output("p", os.fdopen(out, "rb", 0), os.fdopen(error, "rb", 0))

    def write(*lines: Any, end: int = out_end, newline: bytes = b"\n") -> Any:
        for line in lines:
            data = json.dumps(line).encode() if isinstance(line, dict) else line
            os.write(end, data + newline)
        output.settle()
        return output

    made: Any = write
    made.error_end = error_end
    yield made
    for end in (out_end, error_end):
        os.close(end)
    output.close()


def test_levels_are_counted_and_lines_logged_under_them(printed, caplog):
    caplog.set_level(5)
    levels = ("trace", "debug", "info", "warn", "error")

    output = printed(*({"level": level, "message": f"m {level}", "n": 1} for level in levels))

    assert (output.warnings, output.errors) == (1, 1)
    assert [record.levelno for record in caplog.records] == [5, 10, 20, 30, 40]
    assert caplog.records[0].getMessage() == "m trace"
    assert caplog.records[0].n == 1


def test_errors_are_kept_with_table_and_client(printed):
    line = {"level": "error", "message": "failed", "table": "t", "client": "c", "error": "no rights"}

    assert printed(line).take() == [Logged("failed: no rights", "t", "c")]
    assert printed().take() == []


def test_rows_left_out_are_kept_too(printed):
    line = {"level": "warn", "message": "left out", "table": "t", "rows_skipped": 3}

    assert printed(line).take() == [Logged("left out", "t", "", 3)]


def test_fields_that_logging_has_itself_do_no_harm(printed, caplog):
    caplog.set_level(logging.INFO)

    printed({"level": "info", "message": "m", "name": "n", "args": [1], "module": "x", "levelname": "y", "msg": "z"})

    (record,) = caplog.records
    assert (record.plugin_name, record.plugin_args, record.plugin_module) == ("n", [1], "x")


def test_levels_of_other_loggers_count(printed):
    output = printed({"level": "warning", "event": "a"}, {"level": "critical", "event": "b"}, {"level": "fatal"})

    assert (output.warnings, output.errors) == (1, 2)


def test_line_without_a_level_is_shown_as_an_error_and_not_counted(printed, caplog):
    output = printed({"message": "who am I"})

    assert output.errors == 0
    assert caplog.records[0].getMessage() == "unknown level: who am I"
    assert output.take() == [Logged("who am I")]


def test_line_of_any_length_is_counted(printed):
    long = {"level": "error", "table": "t", "message": "x" * (3 * LINE_BYTES)}
    output = printed()
    writer = threading.Thread(target=lambda: printed(long, {"level": "error", "message": "next"}))
    writer.start()
    writer.join()

    assert output.errors == 2
    first, second = output.take()
    assert first.table == "t"
    assert second == Logged("next")


def test_line_in_pieces_is_one_line(printed):
    text = b'{"level":"error","message":"in pieces"}'
    for place in range(len(text)):
        printed(text[place : place + 1], newline=b"")

    assert printed(b"").take() == [Logged("in pieces")]


def test_standard_error_is_passed_on_and_remembered(printed, caplog):
    caplog.set_level(logging.INFO)

    output = printed(b"Traceback", b"ValueError: x", end=printed.error_end)

    assert list(output.last) == ["Traceback", "ValueError: x"]
    assert [record.getMessage() for record in caplog.records] == ["Traceback", "ValueError: x"]


def test_hostile_lines_do_not_stop_the_reader(printed):
    output = printed(b"[" * 100_000, b"\xff\xfe", b'{"level": 5, "message": {"a": 1}}', b"null", b'{"level":"error"}')

    assert output.errors == 1


def test_settling_is_quick_and_ends_with_the_process(printed):
    output = printed()
    started = time.monotonic()
    for _ in range(20):
        output.settle()

    assert time.monotonic() - started < 1.0
