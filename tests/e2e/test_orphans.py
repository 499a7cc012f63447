"""Rows that stay after a publish though their parent got another id: counted and reported, as they cannot be mended."""

from __future__ import annotations

import pytest

from tests.e2e.documents import HERE, run, source

pytestmark = pytest.mark.parametrize(
    "store", ["clickhouse", "duckdb", "mariadb", "postgresql", "sqlite"], indirect=True
)

REGIONS = {"a": [1, 2], "b": [3, 4, 5]}


def regions(regions=REGIONS, fail_disks=(), **more):
    spec = {"regions": regions, "fail_disks": list(fail_disks)}
    return source("regions", f"{HERE}:regions", ["*"], spec=spec, **more)


def reason(result, table):
    return next(row.stale_kept_reason for row in result.tables if row.table == table)


def test_children_that_stay_and_lost_their_parents_are_counted(store):
    run(regions(deterministic_cq_id=False), store.document())
    result = run(regions(fail_disks="b", deterministic_cq_id=False), store.document())

    assert store.query("select machine from disks order by machine") == [(n,) for n in range(1, 6)]
    lost = store.query("select machine from disks where _cq_parent_id not in (select _cq_id from machines)")
    assert sorted(lost) == [(3,), (4,), (5,)]
    assert reason(result, "disks").endswith("; 3 rows point to a parent that is gone")
    assert reason(result, "machines") == ""


def test_one_is_told_as_one(store):
    run(regions({"a": [1], "b": [2]}, deterministic_cq_id=False), store.document())
    result = run(regions({"a": [1], "b": [2]}, fail_disks="b", deterministic_cq_id=False), store.document())

    assert reason(result, "disks").endswith("; 1 row points to a parent that is gone")


def test_ids_that_are_made_of_keys_lose_nobody(store):
    for broken in ("", "b"):
        result = run(regions(fail_disks=broken), store.document())

    assert store.query("select count(*) from disks where _cq_parent_id not in (select _cq_id from machines)") == [(0,)]
    assert reason(result, "disks")
    assert "point" not in reason(result, "disks")


def test_a_complete_sync_counts_nothing(store):
    for _ in range(2):
        result = run(regions(deterministic_cq_id=False), store.document())

    assert [row.stale_kept_reason for row in result.tables] == ["", ""]
