"""What counts as a change between two runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catchment.engine.comparison import compare
from tests.engine.test_result import FULL, RESULT

CLEAN = replace(FULL, seconds_read=10.0, seconds_written=2.0)


def between(before, after):
    return compare(replace(RESULT, tables=before), replace(RESULT, tables=after))


@pytest.mark.parametrize(
    ("name", "value", "change"),
    [
        ("rows_written", 10, "changed"), ("rows_rejected", 0, "changed"), ("rows_stale_deleted", None, "changed"),
        ("errors", [], "changed"), ("complete", True, "changed"), ("bytes", 1, "same"),
        ("seconds_read", 14.9, "same"), ("seconds_read", 15.0, "changed"), ("seconds_written", 15.0, "changed"),
        ("seconds_read", 6.0, "changed"),
    ],
)  # fmt: skip
def test_what_is_a_change(name, value, change):
    [found] = between([CLEAN], [replace(CLEAN, **{name: value})]).tables

    assert found.change == change


def test_a_table_that_takes_no_time_may_take_twice_as_long():
    quick = replace(CLEAN, seconds_read=0.4, seconds_written=0.0)

    assert between([quick], [replace(quick, seconds_read=1.3)]).tables[0].change == "same"


def test_tables_are_told_by_source_destination_and_name():
    other = replace(CLEAN, destination="lake", rows_written=1_000)
    found = between([CLEAN, replace(CLEAN, table="gone")], [other, CLEAN])

    assert [(table.destination, table.table, table.change) for table in found.tables] == [
        ("lake", "orders", "added"), ("copy", "orders", "same"), ("copy", "gone", "removed"),
    ]  # fmt: skip
    assert [table.more_rows for table in found.changed] == [1_000, -9]
