"""The test source: every key of its spec changes what it sends."""

from __future__ import annotations

import subprocess
import sys
import time

import duckdb
import pytest

from catchment.errors import PluginError, SpecError
from catchment.schema.select import Selection
from catchment.sdk.types import all_types_columns
from catchment.sources.test import test as source
from tests.e2e.test_sync import catchment
from tests.sources.reading import ALL, read

WIDE = Selection(("test_wide_table_*",), ())


def test_the_spec_may_be_empty():
    found = read(source, {})

    assert found.errors == {}
    assert set(found.tables) == {"test_some_table", "test_sub_table", "test_paid_table", "test_testdata_table"}
    assert found.rows("test_some_table") == [(0, "test_column_data_0", "client_0")]
    assert found.tables["test_some_table"].primary_keys == ("resource_id", "client_id")
    assert [row[:3] for row in found.rows("test_sub_table")] == [(0, n, "test_sub_column_data") for n in range(10)]
    assert list(found.kinds("test_sub_table")) == [
        "parent_resource_id", "sub_resource_id", "data_column", "extra_column_0",
    ]  # fmt: skip
    assert found.tables["test_sub_table"].parent == "test_some_table"
    assert found.count("test_testdata_table") == 1
    assert len(found.kinds("test_testdata_table")) == 1 + len(all_types_columns())


def test_num_clients_and_num_rows():
    found = read(source, {"num_clients": 3, "num_rows": 4})

    for table in ("test_some_table", "test_paid_table"):
        keys = sorted((client, number) for number, _, client in found.rows(table))
        assert keys == [(f"client_{client}", number) for client in range(3) for number in range(4)]
    assert found.count("test_testdata_table") == 1


def test_num_rows_may_be_none():
    found = read(source, {"num_rows": 0, "tables": 1})

    assert found.errors == {}
    assert found.rows("test_some_table") == found.rows("test_sub_table") == found.rows("test_wide_table_0") == []


def test_num_sub_rows_and_num_sub_cols():
    found = read(source, {"num_rows": 2, "num_sub_rows": 3, "num_sub_cols": 2})

    assert sorted(row[:2] for row in found.rows("test_sub_table")) == [(p, n) for p in range(2) for n in range(3)]
    assert list(found.kinds("test_sub_table"))[3:] == ["extra_column_0", "extra_column_1"]
    assert read(source, {"num_sub_rows": 0}).rows("test_sub_table") == []
    assert "extra_column_0" not in read(source, {"num_sub_cols": 0}).kinds("test_sub_table")


def test_sub_rows_point_to_their_parents():
    found = read(source, {"num_rows": 2, "num_clients": 2})

    ids = found.values("test_some_table", "_cq_id")
    assert sorted(set(found.values("test_sub_table", "_cq_parent_id"))) == sorted(ids)


@pytest.mark.parametrize(
    ("entries", "environment", "text"),
    [
        (["CATCHMENT_X=1"], {"CATCHMENT_X": "1"}, None),
        (["CATCHMENT_X=1"], {"CATCHMENT_X": "2"}, "`CATCHMENT_X` is not as the spec wants it"),
        (["CATCHMENT_X=1"], {}, "`CATCHMENT_X` is not as the spec wants it"),
        (["CATCHMENT_X="], {}, None),
        (["CATCHMENT_X="], {"CATCHMENT_X": "1"}, "`CATCHMENT_X` is not as the spec wants it"),
        (["CATCHMENT_X=a=b"], {"CATCHMENT_X": "a=b"}, None),
        (["CATCHMENT_X"], {}, "expected `KEY=VALUE`, got 'CATCHMENT_X'"),
    ],
)
def test_required_env(monkeypatch, entries, environment, text):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    if text is None:
        assert read(source, {"required_env": entries}).errors == {}
    else:
        with pytest.raises(PluginError, match=text):
            read(source, {"required_env": entries})


def test_fail_immediately_fails_every_table():
    found = read(source, {"fail_immediately": True, "tables": 1})

    # A sub-table is read once for each parent row, and there is none.
    assert set(found.errors) == set(found.tables) - {"test_sub_table"}
    assert all("failing at the source stage" in text for text in found.errors.values())
    assert found.batches == {}


def test_exit_immediately_ends_the_process():
    script = (
        "from catchment.sources.test import test; from catchment.schema.select import Selection\n"
        "plugin = test.as_plugin()\n"
        "plugin.init({'exit_immediately': True})\n"
        "print('still here', flush=True)\n"
        "plugin.tables(Selection(('*',), ()))\n"
        "print('too far', flush=True)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (1, "still here")


def test_delete_records_sends_one_deletion_after_the_rows():
    found = read(source, {"num_rows": 5, "delete_records": [1, 3]})

    [deletion] = found.deletions
    assert deletion.table_name == "test_some_table"
    [group] = deletion.where
    assert group.grouping == "or"
    assert [(p.column, p.value.to_pylist()) for p in group.predicates] == [("resource_id", [1]), ("resource_id", [3])]
    assert [(r.table_name, r.parent_name) for r in deletion.relations] == [("test_sub_table", "test_some_table")]
    assert len(found.rows("test_some_table")) == 5
    assert read(source, {}).deletions == []


def test_deletions_leave_tables_out_that_are_not_synced():
    spec = {"delete_records": [0]}

    assert read(source, spec, Selection(("test_paid_table",), ())).deletions == []
    skipping = Selection(("test_some_table",), ("test_sub_table",))
    assert [deletion.relations for deletion in read(source, spec, skipping).deletions] == [()]


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_deleted_records_are_not_in_the_destination(tmp_path, write_config, publish):
    database = tmp_path / "db.duckdb"
    config = write_config(
        f"""
kind: source
spec:
  {{name: made-up, registry: python, path: test, tables: ["test_some_table", "test_sub_table"], destinations: [db],
    spec: {{num_rows: 4, num_sub_rows: 2, delete_records: [1, 2]}}}}
---
kind: destination
spec: {{name: db, registry: python, path: duckdb, publish: {publish}, spec: {{connection_string: "{database}"}}}}
"""
    )

    done = catchment("sync", config)

    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(database)) as connection:
        parents = connection.execute("select resource_id from test_some_table order by 1").fetchall()
        below = connection.execute("select distinct parent_resource_id from test_sub_table order by 1").fetchall()
    assert parents == below == [(0,), (3,)]


def test_tables_and_columns_make_plain_tables():
    found = read(source, {"tables": 3, "columns": 7, "num_rows": 2}, WIDE)

    assert set(found.tables) == {f"test_wide_table_{n}" for n in range(3)}
    assert list(found.kinds("test_wide_table_2")) == ["id", *(f"column_{n}" for n in range(1, 7))]
    assert found.tables["test_wide_table_0"].primary_keys == ("id",)
    assert found.values("test_wide_table_1", "id") == [0, 1]
    assert list(read(source, {"tables": 1, "columns": 1}, WIDE).kinds("test_wide_table_0")) == ["id"]


def test_rows_per_batch():
    found = read(source, {"tables": 1, "num_rows": 2_500, "rows_per_batch": 1_000})

    for table in ("test_wide_table_0", "test_some_table"):
        assert [batch.num_rows for batch in found.batches[table]] == [1_000, 1_000, 500]
    assert found.values("test_wide_table_0", "id") == list(range(2_500))
    assert found.values("test_some_table", "resource_id") == list(range(2_500))


def test_delay_is_waited_for_at_each_batch():
    spec = {"tables": 1, "num_rows": 3, "rows_per_batch": 1}

    started = time.monotonic()
    read(source, {**spec, "delay": "0.1s"}, WIDE)

    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("table", ["test_some_table", "test_paid_table", "test_wide_table_1"])
def test_fail_tables_and_fail_after_rows(table):
    spec = {"tables": 2, "num_rows": 10, "rows_per_batch": 4, "fail_tables": [table]}

    found = read(source, spec)
    assert found.errors == {table: f"`fail_tables` has table `{table}`, and `fail_after_rows` is 0"}
    assert table not in found.batches

    found = read(source, {**spec, "fail_after_rows": 6})
    assert set(found.errors) == {table}
    assert len(found.rows(table)) == 6
    assert len(found.rows("test_wide_table_0")) == 10

    found = read(source, {**spec, "fail_after_rows": 100})
    assert set(found.errors) == {table}
    assert len(found.rows(table)) == 10


def test_fail_tables_takes_globs():
    found = read(source, {"tables": 12, "fail_tables": ["test_wide_table_1*", "test_sub_*"]})

    assert set(found.errors) == {"test_sub_table", "test_wide_table_1", "test_wide_table_10", "test_wide_table_11"}


def test_row_bytes_is_the_size_of_a_column_of_its_own():
    found = read(source, {"tables": 1, "num_rows": 2, "row_bytes": 1000}, WIDE)

    assert [len(text) for text in found.values("test_wide_table_0", "payload")] == [1000, 1000]
    assert "payload" not in read(source, {"tables": 1}, WIDE).kinds("test_wide_table_0")


def test_seed_makes_other_values_and_the_same_ones_again():
    def values(seed):
        return read(source, {"tables": 1, "num_rows": 5, "seed": seed}, WIDE).rows("test_wide_table_0")

    assert values(1) == values(1)
    assert values(1) != values(2)
    assert [row[0] for row in values(1)] == [row[0] for row in values(2)]


@pytest.mark.parametrize(
    "spec",
    [{"num_clients": 0}, {"num_rows": -1}, {"columns": 0}, {"rows_per_batch": 0}, {"delay": 5}, {"num_row": 1},
     {"fail_tables": "x"}, {"seed": "1"}, {"row_bytes": -1}],
)  # fmt: skip
def test_a_wrong_spec_is_refused(spec):
    with pytest.raises(SpecError, match=next(iter(spec))):
        read(source, spec, ALL)
