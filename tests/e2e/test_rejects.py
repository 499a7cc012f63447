"""Rows that a destination refuses: named, put aside under `max_rejects`, and never the loss of another row."""

from __future__ import annotations

import json
import re

import pytest

from catchment.errors import SpecError
from tests.e2e.documents import destination, made, messages, plan, run, source

COLUMNS = {"id": "int64", "name": "utf8!"}
PEOPLE = "select id, name from people order by id"
REJECTS = 'select table_name, "key", "row", error from _catchment_rejects order by "key"'
DATABASES = ["clickhouse", "duckdb", "postgresql", "sqlite"]

pytestmark = pytest.mark.parametrize("store", DATABASES, indirect=True)
MODES = pytest.mark.parametrize("mode", ["atomic", "stream"])


def people(*rows, keys=("id",), **children):
    table = {"columns": COLUMNS, "primary_key": list(keys), "rows": [list(row) for row in rows]}
    return made(people=table, **children)


@MODES
def test_a_refused_row_is_put_aside_and_the_others_arrive(store, mode):
    run(people((1, "Ann"), (2, "Bo"), (9, "Old")), store.document(publish=mode))
    result = run(people((1, "Anna"), (2, None), (3, "Cy")), store.document(max_rejects=1, publish=mode))

    # The last good version of the refused row stays, and so does all that may be stale.
    assert store.query(PEOPLE) == [(1, "Anna"), (2, "Bo"), (3, "Cy"), (9, "Old")]
    [(name, key, row, error)] = store.query(REJECTS)
    assert store.query("select column_name from _catchment_rejects") == [("name",)]
    assert (name, json.loads(key), json.loads(row)["name"]) == ("people", {"id": 2}, None)
    assert "name" in error
    [table] = result.tables
    assert (result.outcome, table.complete, table.rows_written, table.rows_rejected) == ("partial", False, 2, 1)
    assert table.errors[0].message.startswith("1 row put aside in `_catchment_rejects`, the first: ")
    assert table.stale_kept_reason == "a row of it was refused"


@MODES
def test_a_refused_row_ends_its_table_by_default_and_is_named(store, mode):
    run(people((1, "Ann"), (2, "Bo")), store.document(publish=mode))
    result = run(people((1, "Anna"), *((n, "x") for n in range(10, 500)), (2, None)), store.document(publish=mode))

    text = messages(result)
    assert 'the row with key {"id":2}' in text
    assert "column `name`" in text
    assert "staging" not in text
    assert text.endswith("`max_rejects` of the destination says how many such rows are put aside")
    assert "_catchment_rejects" not in store.tables()
    assert store.query(PEOPLE) == [(1, "Ann"), (2, "Bo")]


@MODES
def test_one_more_than_may_be_put_aside_ends_the_table(store, mode):
    rows = [(1, "Ann"), (2, None), (3, None)]
    result = run(people(*rows), store.document(max_rejects=1, publish=mode))

    assert "(more than `max_rejects`, 1, are refused)" in messages(result)
    assert [(json.loads(key), name) for name, key, _, _ in store.query(REJECTS)] == [({"id": 2}, "people")]
    assert result.tables[0].rows_rejected == 1
    assert result.tables[0].published is False or mode == "stream"


def test_rows_of_the_tables_below_are_kept_as_well(store):
    pets = {"columns": {"pet": "int64", "kind": "utf8!"}, "primary_key": ["pet"], "parent": "people"}
    first = people((1, "Ann"), (2, "Bo"), pets={**pets, "rows": [[1, "cat"], [2, "dog"]]})
    then = people((1, "Ann"), (2, None), pets={**pets, "rows": [[1, "cat"]]})
    run(first, store.document())
    result = run(then, store.document(max_rejects=5))

    assert store.query("select pet from pets order by pet") == [(1,), (2,)]
    below = next(row for row in result.tables if row.table == "pets")
    assert below.stale_kept_reason == "its parent table `people` is not complete"


def test_the_last_of_equal_keys_wins_also_around_a_refused_row(store):
    rows = [(1, "first"), (2, None), (1, "second"), (3, None), (1, "third")]
    run(people(*rows), store.document(max_rejects=2))

    assert store.query(PEOPLE) == [(1, "third")]


def test_rejects_of_each_sync_are_added(store):
    for name in ("a", "b"):
        run(people((1, name), (2, None)), store.document(max_rejects=1, write_mode="overwrite"))

    assert store.query("select count(*), count(distinct _cq_sync_time) from _catchment_rejects") == [(2, 2)]
    assert store.query("select distinct _cq_source_name from _catchment_rejects") == [("made",)]


def test_rows_without_a_key_are_named_by_what_they_hold(store):
    result = run(people((1, "Ann"), (2, None), keys=()), store.document(write_mode="append"))

    assert re.search(r'the row \{.*"id":2,"name":null\}', messages(result))


def test_max_rejects_is_refused_where_rows_are_not_told_apart(store):
    with pytest.raises(SpecError, match="`test` does not say which row it refuses; leave it out"):
        plan(source(), destination(path="test", max_rejects=1))
