"""The report on the terminal: short however much went wrong, and what fails alike is told once."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from catchment.cli.report import print_report
from catchment.engine.result import Expectation, PluginResult, Result, TableResult

MOMENT = datetime(2026, 8, 1, tzinfo=UTC)


def result(*tables, outcome="partial"):
    made = Result("x", "1", MOMENT, MOMENT, outcome)
    made.sources = [PluginResult("aws", "aws (python@aws)")]
    made.destinations = [PluginResult("pg", "pg (python@postgresql)")]
    made.tables = list(tables)
    return made


def table(name, *errors, reason="", kept=None, destination="pg"):
    """A table with errors, each a client and a message; whole if there is none."""
    row = TableResult("aws", destination, name, rows_read=5, published=True, complete=not (errors or reason))
    row.stale_kept_reason, row.rows_stale_kept = reason, kept
    for client, message in errors:
        row.add_error(client, message)
    return row


@pytest.fixture
def shown(capsys):
    def show(made):
        print_report(made)
        return capsys.readouterr().out

    return show


def account(number):
    return f"{100_000_000_000 + number}:eu-west-1"


def test_3000_failures_that_say_the_same_are_a_few_lines(shown):
    tables = []
    for number in range(600):
        clients = [account(client) for client in range(5)]
        errors = [(name, f"access denied to {name.partition(':')[0]}, request {uuid.uuid4()}") for name in clients]
        tables.append(
            table(f"aws_t{number}", *errors, reason=f"it was read with 5 errors: {errors[0][1]}", kept=number)
        )

    out = shown(result(*tables))

    lines = out.splitlines()
    assert len(lines) < 50
    first = tables[0].errors[0]
    where = f"the first in aws → pg aws_t0 [{account(0)}]"
    assert f"3,000 errors alike in 600 tables and 5 clients, {where}: {first.message}" in lines
    assert out.count("access denied") == 2
    assert "600 tables, the first aws → pg aws_t0: stale rows are kept (179,700 rows): it was read with 5 errors" in out
    assert "… and 560 more like these" in lines


def test_many_different_errors_are_counted_and_the_rest_is_elsewhere(shown):
    words = [f"{first}{second} is wrong" for first in "abcdefghij" for second in "klmnopqrst"]
    tables = [table(f"t{number}", ("", text), reason=text) for number, text in enumerate(words)]

    lines = shown(result(*tables)).splitlines()

    assert len([line for line in lines if line.startswith("error in aws → pg t")]) == 20
    assert "… and 80 more errors; `catchment report` has them" in lines
    assert "… and 80 more reasons; `catchment report` has them" in lines
    assert len(lines) < 90


def test_what_fails_differently_is_told_apart(shown):
    denied, missing = "status 403 of eu-west-1", "status 404 of us-east-1"
    out = shown(result(table("a", ("eu-west-1", denied), ("us-east-1", missing))))

    assert f"error in aws → pg a [eu-west-1]: {denied}" in out
    assert f"error in aws → pg a [us-east-1]: {missing}" in out


def test_an_error_at_the_source_counts_once_for_all_destinations(shown):
    rows = [table("a", ("eu", "denied"), destination=name) for name in ("pg", "lake")]

    out = shown(result(*rows))
    assert "error in aws → pg a [eu]: denied" in out
    assert out.count("denied") == 1


def test_a_single_error_and_a_reason_are_plain_lines(shown):
    row = table("a", ("eu", "denied"), ("eu", "denied"), reason="it was read with 2 errors: denied", kept=1)

    out = shown(result(row, table("b"))).splitlines()

    assert "error in aws → pg a [eu]: denied (2 times)" in out
    assert "aws → pg a: stale rows are kept (1 row): it was read with 2 errors: denied" in out


def test_tables_with_something_to_say_come_before_the_complete_ones(shown):
    rows = [table(f"fine_{number}") for number in range(100)] + [table("bad", ("", "denied"))]

    out = shown(result(*rows))

    assert "fine_" not in out
    assert "… and 100 complete tables" in out


def test_rules_and_rows_that_were_left_out_are_bounded_too(shown):
    rows = [table(f"t{number}") for number in range(50)]
    for row in rows:
        row.rows_rejected = 3
        row.expectations.append(Expectation("rows min 9", ok=False, severity="warn", found="5 rows"))

    lines = shown(result(*rows)).splitlines()

    assert "aws → pg t0: 3 rows were left out" in lines
    assert "aws → pg t0: `expect` is not kept: rows min 9, found 5 rows" in lines
    assert "… and 80 more of these; `catchment report` has them" in lines
