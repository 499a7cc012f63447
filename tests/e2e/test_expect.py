"""`expect` and `max_stale_ratio`: rules are asked of the database, and a broken one keeps the last good state."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from catchment.cli.report import print_report
from catchment.engine.result import Expectation
from catchment.errors import SpecError
from catchment.sdk import Column, Discovered, Source, Spec, Table
from tests.e2e.documents import destination, made, messages, plan, run, source

COLUMNS = {"id": "int64", "name": "utf8"}
PEOPLE = "select id, name from people order by id"
MODES = pytest.mark.parametrize("publish", ["atomic", "stream"])
HERE = "tests.e2e.test_expect"


def people(*rows, keys=("id",), **others):
    table = {"columns": COLUMNS, "primary_key": list(keys), "rows": [list(row) for row in rows]}
    return made(people=table, **others)


def expecting(store, rules, **more):
    return store.document(expect={"people": rules}, **more)


def answers(result, table="people"):
    [row] = [row for row in result.tables if row.table == table]
    return {each.rule: (each.ok, each.found) for each in row.expectations}


GOOD: list[tuple[int, str | None]] = [(1, "Ann"), (2, "Bo")]
BROKEN: dict[str, tuple[dict[str, Any], list[tuple[int, str | None]], str]] = {
    "rows min 3": ({"rows": {"min": 3}}, GOOD, "2 rows"),
    "rows max 1": ({"rows": {"max": 1}}, GOOD, "2 rows"),
    "rows change 50%": ({"rows": {"change": "50%"}}, [(1, "Ann")], "1 row, 4 before"),
    "not_null name": ({"not_null": ["id", "name"]}, [(1, "Ann"), (2, None)], "1 row without a value"),
    "unique name": (
        {"unique": ["id", "name"]},
        [(1, "Ann"), (2, "Ann"), (3, "Cy")],
        "2 rows with a value of another row",
    ),
    "values name": (
        {"values": {"name": ["Ann", "Cy"], "id": [1, 2]}},
        [(1, "Ann"), (2, "Bo")],
        "1 row with another value",
    ),
}
BEFORE = [(1, "A"), (2, "B"), (3, "C"), (4, "D")]


@MODES
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_told_and_keeps_the_table_as_it_was(store, rule, publish):
    rules, rows, found = BROKEN[rule]
    run(people(*BEFORE), store.document(publish=publish))
    result = run(people(*rows), expecting(store, rules, publish=publish))

    assert answers(result)[rule] == (False, found)
    assert f"`expect` is broken: {rule}, found {found}" in messages(result)
    assert result.outcome == "partial"
    [table] = result.tables
    assert table.published is (publish == "stream")
    expected = BEFORE if publish == "atomic" else [tuple(row) for row in rows]
    assert store.query(PEOPLE) == expected


@MODES
def test_rules_that_are_kept_change_nothing(store, publish):
    rules = {
        "rows": {"min": 1, "max": 4, "change": "60%"},
        "not_null": ["id"],
        "unique": ["name"],
        "values": {"name": ["Ann", "Bo", "Cy"]},
    }
    first = run(people(*GOOD), expecting(store, rules, publish=publish))
    # Equal keys are one row in the end.
    result = run(
        people((1, "Bo"), (1, "Ann"), (2, "Bo"), (3, "Cy")), expecting(store, rules | {"unique": []}, publish=publish)
    )

    assert (first.outcome, result.outcome) == ("complete", "complete")
    assert answers(first)["rows change 60%"] == (True, "2 rows, 0 before")
    assert answers(result)["rows change 60%"] == (True, "3 rows, 2 before")
    assert all(ok for ok, _ in answers(result).values())
    assert store.query(PEOPLE) == [(1, "Ann"), (2, "Bo"), (3, "Cy")]


def test_a_warning_is_told_and_holds_nothing_back(store):
    result = run(people(*GOOD), expecting(store, {"rows": {"min": 3}, "severity": "warn"}))

    assert result.outcome == "complete"
    assert result.tables[0].expectations == [Expectation("rows min 3", ok=False, severity="warn", found="2 rows")]
    assert store.query(PEOPLE) == GOOD


def test_relations_of_a_held_back_table_are_held_back_too(store):
    pets = {"columns": {"pet": "int64"}, "primary_key": ["pet"], "parent": "people", "rows": [[1]]}
    result = run(people(*GOOD, pets=pets), expecting(store, {"rows": {"min": 3}}))

    assert [row.published for row in result.tables] == [False, False]
    assert all("`expect` is broken" in row.stale_kept_reason for row in result.tables)


def test_rows_of_other_sources_do_not_count(store):
    run(people(*BEFORE), store.document(write_mode="overwrite"))
    other = people((9, "Zoe"))
    other["spec"]["name"] = "other"
    result = run(other, expecting(store, {"rows": {"max": 1}, "values": {"name": ["Zoe"]}}, write_mode="overwrite"))

    assert result.outcome == "complete"


moments = Source("moments", spec=Spec, client=lambda spec: spec)
NOW = datetime.now(UTC)


@moments.discover
def _moments(spec):
    for name, age in (("old", timedelta(hours=30)), ("young", timedelta(hours=2))):
        columns = (Column("id", pa.int64(), primary_key=True, not_null=True), Column("at", pa.timestamp("us", "UTC")),
                   Column("day", pa.date32()))  # fmt: skip
        rows = [
            {"id": 1, "at": NOW - timedelta(days=90), "day": None},
            {"id": 2, "at": NOW - age, "day": (NOW - age).date()},
        ]
        yield Discovered(Table(name, columns), partial(_given, rows))


def _given(rows, ctx):
    return rows


def test_fresh_asks_for_the_newest_row(store):
    rules = {"fresh": {"column": "at", "within": "24h"}}
    result = run(source("m", f"{HERE}:moments", ["*"]), store.document(expect={"*": rules}))

    [(rule, old)] = answers(result, "old").items()
    assert rule == "fresh at within 1 day, 0:00:00"
    assert old[0] is False
    assert old[1].startswith("0 rows from 20")
    assert answers(result, "young")[rule][0] is True
    assert "old" not in store.tables() or store.query("select count(*) from old") == [(0,)]


def test_fresh_takes_dates_and_refuses_texts(store):
    by_day = {"fresh": {"column": "day", "within": "24h"}}
    result = run(source("m", f"{HERE}:moments", ["young"]), store.document(expect={"young": by_day}))
    assert result.outcome == "complete"

    result = run(people(*GOOD), expecting(store, {"fresh": {"column": "name", "within": "24h"}}))
    assert "column `name` is string, which is no time or date" in messages(result)


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"not_null": ["nmae"]}, "table `people` has no column `nmae`; did you mean `name`?"),
        ({"values": {"id": ["one"]}}, "`values` of column `id` has 'one', which is no int64"),
    ],
)
def test_a_rule_that_cannot_be_checked_is_a_broken_one(store, rules, text):
    result = run(people(*GOOD), expecting(store, rules))

    assert text in messages(result)
    assert result.tables[0].published is False


def test_rules_for_no_table_are_told(store, caplog):
    caplog.set_level(logging.WARNING)
    run(people(*GOOD), store.document(expect={"poeple": {"not_null": ["id"]}}))

    assert "`expect` has rules for 'poeple', but no such table" in caplog.text


# max_stale_ratio


@MODES
@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_no_more_than_a_share_of_a_table_is_deleted(store, publish, ratio):
    run(people(*BEFORE), store.document(publish=publish))
    result = run(people((1, "Ann"), (2, "Bo"), (5, "Ed")), store.document(publish=publish, max_stale_ratio=ratio))

    [table] = result.tables
    if ratio == 0.5:
        assert result.outcome == "complete"
        assert store.query(PEOPLE) == [(1, "Ann"), (2, "Bo"), (5, "Ed")]
        return
    assert result.outcome == "partial"
    there = 4 if publish == "atomic" else 5
    text = f"2 of its {there} rows would be deleted as stale, more than `max_stale_ratio` 0.25 allows"
    assert text in messages(result)
    assert "raise it for one sync" in table.stale_kept_reason
    merged = [(1, "Ann"), (2, "Bo"), (3, "C"), (4, "D"), (5, "Ed")]
    assert store.query(PEOPLE) == (BEFORE if publish == "atomic" else merged)


def test_a_share_is_asked_for_while_other_tables_are_cleaned(duck):
    others = {f"t{number}": {"columns": {"id": "int64"}, "primary_key": ["id"], "rows": [[1]]} for number in range(20)}
    for rows in (BEFORE, BEFORE[:3]):
        result = run(people(*rows, **others), duck.document(publish="stream", max_stale_ratio=0.5))

        assert result.outcome == "complete", messages(result)

    assert duck.query(PEOPLE) == BEFORE[:3]


def test_rows_without_keys_of_their_own_are_told_apart_by_their_number(store):
    run(people(*BEFORE, keys=()), store.document())
    fewer = run(people((1, "A"), keys=()), store.document(max_stale_ratio=0.5))
    enough = run(people((1, "A"), (2, "B"), keys=()), store.document(max_stale_ratio=0.5))

    assert (fewer.outcome, enough.outcome) == ("partial", "complete")
    assert store.query(PEOPLE) == [(1, "A"), (2, "B")]


def test_an_empty_result_of_a_source_is_what_it_is_for(store):
    run(people(*BEFORE), store.document())
    run(people(), store.document(max_stale_ratio=0.9))

    assert store.query(PEOPLE) == BEFORE


@pytest.mark.parametrize(("key", "value"), [("max_stale_ratio", 0.5), ("expect", {"*": {"rows": {"min": 1}}})])
def test_what_a_destination_cannot_count_is_refused(key, value):
    with pytest.raises(SpecError, match="`test` cannot count the rows that it holds; leave it out"):
        plan(source(), destination(path="test", **{key: value}))


def test_a_warning_stands_in_the_report_for_people(store, capsys):
    print_report(run(people(*GOOD), expecting(store, {"rows": {"min": 3}, "severity": "warn"})), "Sync")

    assert "people: `expect` is not kept: rows min 3, found 2 rows" in capsys.readouterr().out
