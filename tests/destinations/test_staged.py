"""Staged tables that something is done with before they have a row, as their first rows may make them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from catchment.messages import DeleteRecord, TableRelation
from tests.destinations.conftest import Staged, people, rows


@pytest.mark.parametrize("database", ["clickhouse", "duckdb", "mariadb", "postgresql", "sqlite"], indirect=True)
def test_records_are_deleted_from_staged_tables_that_have_no_rows_yet(database):
    ids = ("_cq_id", pa.int64()), ("_cq_parent_id", pa.int64())
    parent, child = people("parent", *ids), people("child", *ids)
    for table in (parent, child):
        database.destination.publish(table, rows(table, (1, "old", 2, 3)))
    staged = Staged(database.destination).add(parent).add(child)
    above, below = (swap.staged.name for swap in staged.swaps)
    staged.session.write(DeleteRecord(above, relations=(TableRelation(below, above),)))
    staged.session.flush()
    assert [found.error for found in staged.session.stats().values() if found.error] == []
    staged.publish()
    assert list(database.query("select count(*) from parent")) == [(0,)]
    assert list(database.query("select count(*) from child")) == [(0,)]
