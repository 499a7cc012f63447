"""`send_sync_summary`: the rows about syncs, in real databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.e2e.documents import HERE, destination, run, source, transformer
from tests.engine.plugins import Recorder

SUMMARY_COLUMNS = [
    "_cq_sync_time", "_cq_source_name", "cli_version", "destination_errors", "destination_name", "destination_path",
    "destination_version", "destination_warnings", "resources", "source_errors", "source_name", "source_path",
    "source_version", "source_warnings", "source_tables", "sync_id", "sync_duration_ms", "shard_num", "shard_total",
    "resources_per_table", "errors_per_table", "durations_per_table_ms",
]  # fmt: skip


def summaries(store, order="source_name"):
    """The rows of the summary table as mappings; JSON and lists as Python values."""
    rows = store.query(f"select {', '.join(SUMMARY_COLUMNS)} from cloudquery_sync_summaries order by {order}")
    found = [dict(zip(SUMMARY_COLUMNS, row, strict=True)) for row in rows]
    for row in found:
        for name in ("source_tables", "resources_per_table", "errors_per_table", "durations_per_table_ms"):
            if isinstance(row[name], str):
                row[name] = json.loads(row[name])
    return found


def test_send_sync_summary_has_all_columns_with_the_right_values(store):
    spec = {"shops": [1, 2, 3], "orders": [10], "fail": ["orders"]}
    result = run(source(spec=spec), store.document(send_sync_summary=True), invocation_id="run-8")

    [row] = summaries(store)
    assert datetime.fromisoformat(str(row.pop("_cq_sync_time"))).replace(tzinfo=UTC) == result.sources[0].sync_time
    duration = row.pop("sync_duration_ms")
    assert 0 <= duration <= 60_000
    durations = row.pop("durations_per_table_ms")
    assert set(durations) == {"shops", "orders"}
    assert all(0 <= value <= 60_000 for value in durations.values())
    assert row == {
        "_cq_source_name": "shop",
        "cli_version": result.version,
        "destination_errors": 0,
        "destination_name": "db",
        "destination_path": store.plugin,
        "destination_version": "",
        "destination_warnings": 0,
        "resources": 6,
        "source_errors": 3,
        "source_name": "shop",
        "source_path": "tests.engine.plugins:shop",
        "source_version": "",
        "source_warnings": 0,
        "source_tables": ["orders", "shops"],
        "sync_id": "run-8",
        "shard_num": None,
        "shard_total": None,
        "resources_per_table": {"shops": 3, "orders": 3},
        "errors_per_table": {"shops": 0, "orders": 3},
    }


def test_one_summary_for_each_source_and_destination(store, duck):
    both = ["db", "duck"]
    first, second = source("one", destinations=both), source("two", tables=["events"], destinations=["db"])
    run(first, second, store.document(send_sync_summary=True), duck.document("duck", send_sync_summary=True))

    assert [(row["source_name"], row["destination_name"]) for row in summaries(store)] == [("one", "db"), ("two", "db")]
    assert [(row["source_name"], row["destination_name"]) for row in summaries(duck)] == [("one", "duck")]


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_summaries_of_one_group_do_not_replace_each_other(store, mode):
    group = store.document(write_mode=mode, sync_group_id="week", send_sync_summary=True)
    for _ in range(2):
        assert run(source("one"), source("two", tables=["events"]), group).outcome == "complete"

    found = store.query("select _cq_sync_group_id, source_name from cloudquery_sync_summaries order by 2")
    assert found == [("week", "one"), ("week", "one"), ("week", "two"), ("week", "two")]


def test_summaries_pile_up_and_are_never_stale(store):
    for _ in range(3):
        run(source(), store.document(send_sync_summary=True))

    assert store.query("select count(*) from cloudquery_sync_summaries") == [(3,)]


def test_no_summary_unless_it_is_asked_for(store):
    run(source(), store.document())

    assert store.tables() == ["orders", "shops"]


def test_a_shard_is_in_the_summary_and_only_in_one_of_the_names(store):
    run(source(), store.document(send_sync_summary=True), shard=(2, 3))

    [row] = summaries(store)
    assert (row["_cq_source_name"], row["source_name"]) == ("shop_2_3", "shop")
    assert (row["shard_num"], row["shard_total"]) == (2, 3)


def test_transformers_change_the_names_in_a_summary_but_not_its_row(store):
    renaming = transformer("mark", f"{HERE}:Mark", text="_x", rename=True)
    result = run(source(tables=["shops"]), renaming, store.document(transformers=["mark"], send_sync_summary=True))

    assert result.outcome == "complete"
    assert store.tables() == ["cloudquery_sync_summaries", "shops_x"]
    [row] = summaries(store)
    assert row["source_tables"] == ["shops_x"]
    assert row["resources_per_table"] == {"shops": 2}


def test_a_summary_counts_a_destination_that_failed_at_its_last_flush():
    gathers = destination("db", f"{HERE}:Gathers", spec={"refuse": ["shops"]}, send_sync_summary=True)
    result = run(source(tables=["shops"]), gathers)

    assert result.outcome == "partial"
    calls = Recorder.made[-1].calls
    # The summary comes behind what it tells of.
    assert calls.index(("write", "shops", 2)) < calls.index(("write", "cloudquery_sync_summaries", 1))


def test_a_source_that_failed_leaves_no_summary(store):
    run(source(spec={"fail": ["shops"]}, on_error="stop"), store.document(send_sync_summary=True))

    assert "cloudquery_sync_summaries" not in store.tables()
