"""`expect` and `max_stale_ratio` into MariaDB: as into the others, and with texts that a collation mixes up."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import at_mysql
from tests.e2e.documents import messages, run
from tests.e2e.test_expect import (  # noqa: F401
    expecting,
    people,
    test_a_broken_rule_is_told_and_keeps_the_table_as_it_was,
    test_fresh_asks_for_the_newest_row,
    test_no_more_than_a_share_of_a_table_is_deleted,
    test_relations_of_a_held_back_table_are_held_back_too,
    test_rows_of_other_sources_do_not_count,
    test_rows_without_keys_of_their_own_are_told_apart_by_their_number,
    test_rules_that_are_kept_change_nothing,
)


@pytest.fixture
def store(mariadb_dsn):
    """One database in the place of all the others."""
    return at_mysql(mariadb_dsn)


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_texts_that_a_collation_takes_for_equal_are_told_apart(store, publish):
    into = expecting(
        store, {"unique": ["name"], "values": {"name": ["ann", "Ann", "Ann "]}}, publish=publish, max_stale_ratio=0.1
    )
    rows = [(1, "ann"), (2, "Ann"), (3, "Ann ")]
    other = people((9, "ann"))
    other["spec"]["name"] = "MADE"

    assert run(people(*rows), into).outcome == "complete"
    # As many rows as of the other source would be a tenth too many, if their names were the same.
    result = run(other, into)

    assert result.outcome == "complete", messages(result)
    assert store.query("select count(*) from people") == [(4,)]
    wrong = run(people(*rows, (4, "ANN")), into)
    assert "`expect` is broken: values name, found 1 row with another value" in messages(wrong)
