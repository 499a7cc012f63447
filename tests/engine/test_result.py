"""The result as JSON: its published schema holds for what is written, and what was written is read again."""

from __future__ import annotations

from datetime import UTC, datetime

import jsonschema
import pytest

from catchment.engine.result import ErrorGroup, Expectation, PluginResult, Result, TableResult, result_schema

MOMENT = datetime(2026, 8, 1, 3, 15, 0, 123456, tzinfo=UTC)
FULL = TableResult(
    "shop", "copy", "orders", parent="customers", rows_read=10, rows_written=9, rows_rejected=1, rows_stale_deleted=2,
    rows_stale_kept=3, stale_kept_reason="it was read with 1 error", bytes=800, started=MOMENT, seconds_read=1.5,
    seconds_written=0.5, published=True, complete=False, errors=[ErrorGroup("eu", "no", 2, "no: at row 7")],
    expectations=[Expectation("rows min 10", ok=False, severity="warn", found="9 rows")],
)  # fmt: skip
RESULT = Result(
    "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "0.1.0", MOMENT, ended=MOMENT, outcome="partial", tables=[FULL],
    sources=[PluginResult("shop", "shop (python@postgresql)", sync_time=MOMENT)],
    destinations=[PluginResult("copy", "copy (python@duckdb)", "failed", "gone", 2.5)],
)  # fmt: skip
EMPTY = Result(RESULT.invocation_id, "0.1.0", MOMENT, tables=[TableResult("shop", "copy", "orders")])


def validator():
    return jsonschema.Draft202012Validator(result_schema(), format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("result", [RESULT, EMPTY], ids=["full", "empty"])
def test_what_is_written_keeps_the_schema_and_is_read_again(result):
    document = result.to_json()

    validator().validate(document)
    assert Result.from_json(document) == result


def parts(document):
    """The objects of a result, each with what the schema calls it."""
    yield "", document
    for kind, rows in (("PluginResult", document["sources"]), ("TableResult", document["tables"])):
        yield from ((kind, row) for row in rows)
    [table] = document["tables"]
    yield from (("ErrorGroup", each) for each in table["errors"])
    yield from (("Expectation", each) for each in table["expectations"])


def test_the_schema_names_every_field_and_requires_it():
    schema = result_schema()

    found = dict(parts(RESULT.to_json()))
    assert set(found) == {"", *schema["$defs"]}
    for kind, each in found.items():
        definition = schema["$defs"][kind] if kind else schema
        assert list(each) == list(definition["properties"]) == definition["required"]
    assert schema["$defs"]["TableResult"]["properties"]["complete"]["description"]
    assert schema["$defs"]["PluginResult"]["properties"]["plugin"]["description"]


@pytest.mark.parametrize("wrong", [{"outcome": "good"}, {"tables": [{}]}, {"started": None}, {"version": 1}])
def test_the_schema_bites(wrong):
    assert not validator().is_valid(RESULT.to_json() | wrong)


def test_a_result_of_another_version_is_read():
    document = RESULT.to_json()
    del document["tables"][0]["expectations"]
    document["sources"][0]["colour"] = "red"

    read = Result.from_json(document)

    assert read.tables[0].expectations == []
    assert read.tables[0].errors == FULL.errors
    assert read.sources == RESULT.sources
