"""Globs and table selection: the worked examples of the protocol's filters."""

from __future__ import annotations

import pytest

from catchment.errors import SpecError
from catchment.schema.select import Selection, matches, select
from catchment.schema.table import Table

FAMILY = [Table("main", ()), Table("sub_1", (), parent="main"), Table("sub_2", (), parent="main")]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("a", "a", True),
        ("a", "ab", False),
        ("a*", "ab", True),
        ("*b", "ab", True),
        ("a*a", "a", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("*ab*ab", "abab", True),
        ("*ü*", "fünf", True),
        ("a?", "ab", False),
        ("[ab]", "a", False),
        ("b", "abc", False),
    ],
)
def test_only_the_star_is_special(pattern, name, expected):
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("tables", "skip", "dependent", "expected"),
    [
        (["main"], [], True, ["main"]),
        (["main"], [], False, ["main", "sub_1", "sub_2"]),
        (["sub_1"], [], True, ["main", "sub_1"]),
        (["sub_1"], [], False, ["main", "sub_1"]),
        (["*"], [], True, ["main", "sub_1", "sub_2"]),
        (["*"], ["main"], True, []),
        (["main"], ["sub_2"], False, ["main", "sub_1"]),
    ],
)
def test_a_family(tables, skip, dependent, expected):
    found = select(FAMILY, Selection(tuple(tables), tuple(skip), dependent))

    assert [table.name for table in found] == expected


def test_a_pattern_without_a_match_is_an_error_that_names_the_nearest_table():
    with pytest.raises(SpecError) as error:
        select(FAMILY, Selection(("mian",), ("sub_9",)))

    assert [str(problem) for problem in error.value.problems] == [
        "spec.tables[0]: tables include a pattern mian with no matches; did you mean `main`?",
        "spec.skip_tables[0]: skip_tables include a pattern sub_9 with no matches; did you mean `sub_2`?",
    ]


def test_many_stars_take_no_time():
    assert not matches("*a" * 200 + "b", "a" * 20_000)
