"""The part of the destination suite that deletes rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa

from catchment.messages import DeleteRecord, Insert, MigrateTable, Predicate, PredicateGroup, TableRelation
from catchment.schema import types
from catchment.schema.internal import CQ_CLIENT_ID, CQ_ID, CQ_PARENT_ID
from catchment.schema.table import Table
from catchment.testing import data
from catchment.testing.destination import Harness, SuiteBase, fresh

Needs = Callable[[bool, Callable[[], object]], bool]
NOW = data.SYNC_TIME
SECOND = timedelta(seconds=1)


class DeleteStaleRows(SuiteBase):
    """Rows of a source that are older than a sync."""

    def test_older_rows_of_the_source_go(self, destination: Harness, needs: Needs) -> None:
        """To the microsecond; newer rows and other sources' rows stay."""
        table = data.sourced(fresh("stale"), ("id", pa.int64()))
        rows = [("suite", NOW, 0), ("suite", NOW + timedelta(microseconds=1), 1), ("other", NOW - SECOND, 2)]
        if not needs(_deletes_stale(destination), lambda: destination.delete_stale(table, "suite", NOW)):
            return
        destination.insert(table, data.batch(table, *rows))
        destination.delete_stale(table, "suite", NOW)
        destination.expect(table, data.batch(table, *rows))
        destination.delete_stale(table, "suite", NOW + timedelta(microseconds=1))
        destination.expect(table, data.batch(table, *rows[1:]))

    def test_rows_of_every_type_go(self, destination: Harness, needs: Needs) -> None:
        """Ten rows, ten later ones, and only the later ones stay."""
        wide = data.all_types(fresh("stale_all"))
        table = data.sourced(wide.name, *wide.columns)
        if not needs(_deletes_stale(destination), lambda: destination.delete_stale(table, "suite", NOW)):
            return
        full = data.rows(table, 10)
        later = _at(table, data.rows(table, 10, first_id=11, nulls=True), NOW + SECOND)
        destination.insert(table, full)
        destination.delete_stale(table, "suite", NOW)
        destination.expect(table, full)
        destination.insert(table, later)
        destination.expect(table, full, later)
        destination.delete_stale(table, "suite", NOW + SECOND)
        destination.expect(table, later)

    def test_only_the_named_clients_rows_go(self, destination: Harness, needs: Needs) -> None:
        """With clients, only their slices are deleted; without a client, nothing is."""
        table = data.sourced(fresh("stale_clients"), (CQ_CLIENT_ID, pa.utf8()), ("id", pa.int64()))
        rows = [("suite", NOW, "a", 1), ("suite", NOW, "b", 2), ("suite", NOW, None, 3)]
        able = _deletes_stale(destination) and destination.capabilities.deletes_by_client
        if not needs(able, lambda: destination.delete_stale(table, "suite", NOW, clients=("a",))):
            return
        destination.insert(table, data.batch(table, *rows))
        destination.delete_stale(table, "suite", NOW + SECOND, clients=())
        destination.expect(table, data.batch(table, *rows))
        destination.delete_stale(table, "suite", NOW + SECOND, clients=("a",))
        destination.expect(table, data.batch(table, *rows[1:]))


class DeleteRecords(SuiteBase):
    """Rows that predicates name, and their descendants."""

    def test_rows_that_match_go(self, destination: Harness, needs: Needs) -> None:
        """By equality; what does not match stays."""
        table = data.named(fresh("records"), ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
        if not needs(destination.capabilities.delete_records, lambda: _delete(destination, table, id=1)):
            return
        destination.insert(table, data.batch(table, (0, "a"), (1, "b"), (2, "b")))
        _delete(destination, table, id=7)
        _delete(destination, table, id=0)
        destination.expect(table, data.batch(table, (1, "b"), (2, "b")))
        _delete(destination, table, id=1, name="a")
        destination.expect(table, data.batch(table, (1, "b"), (2, "b")))
        _delete(destination, table, grouping="or", id=1, name="b")
        destination.expect(table)

    def test_without_predicates_every_row_goes(self, destination: Harness, needs: Needs) -> None:
        """And the table takes rows again."""
        table = data.named(fresh("records_all"), ("id", pa.int64()), keys=["id"])
        everything = DeleteRecord(table.name)
        if not needs(destination.capabilities.delete_records,
                     lambda: destination.write(MigrateTable(table), everything)):  # fmt: skip
            return
        destination.insert(table, data.batch(table, (1,), (2,)))
        destination.write(MigrateTable(table), everything)
        destination.expect(table)
        destination.insert(table, data.batch(table, (3,)))
        destination.expect(table, data.batch(table, (3,)))

    def test_rows_of_a_batch_that_waits_go_too(self, destination: Harness, needs: Needs) -> None:
        """A delete comes after the inserts that were sent before it, and before those sent after it."""
        table = data.named(fresh("records_order"), ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
        if not needs(destination.capabilities.delete_records, lambda: _delete(destination, table, id=1)):
            return
        first, second = data.batch(table, (1, "before")), data.batch(table, (1, "after"), (2, "after"))
        destination.write(MigrateTable(table), Insert(table, first), _message(table, id=1), Insert(table, second))
        destination.expect(table, second)

    def test_descendants_go_with_them(self, destination: Harness, needs: Needs) -> None:
        """Children and grandchildren of the deleted rows go, those of others stay."""
        top, child, grandchild = (
            data.named(
                fresh(name), ("id", pa.int64()), (CQ_ID, types.uuid()), (CQ_PARENT_ID, types.uuid()), keys=["id"]
            )
            for name in ("top", "child", "grandchild")
        )
        ids = [bytes([n]) * 16 for n in range(10)]
        relations = (TableRelation(child.name, top.name), TableRelation(grandchild.name, child.name))
        message = _message(top, relations=relations, id=1)
        if not needs(destination.capabilities.delete_records, lambda: destination.write(MigrateTable(top), message)):
            return
        destination.insert(top, data.batch(top, (1, ids[1], None), (2, ids[2], None)))
        destination.insert(child, data.batch(child, (1, ids[3], ids[1]), (2, ids[4], ids[2])))
        destination.insert(grandchild, data.batch(grandchild, (1, ids[5], ids[3]), (2, ids[6], ids[4])))
        destination.write(*(MigrateTable(table) for table in (top, child, grandchild)), message)
        destination.expect(top, data.batch(top, (2, ids[2], None)))
        destination.expect(child, data.batch(child, (2, ids[4], ids[2])))
        destination.expect(grandchild, data.batch(grandchild, (2, ids[6], ids[4])))


def _message(
    table: Table, *, relations: tuple[TableRelation, ...] = (), grouping: str = "and", **values: Any
) -> DeleteRecord:
    predicates = tuple(Predicate(name, data.array([value], table.column(name).type)) for name, value in values.items())
    group = PredicateGroup(predicates, "or" if grouping == "or" else "and")
    return DeleteRecord(table.name, (group,), relations)


def _delete(destination: Harness, table: Table, *, grouping: str = "and", **values: Any) -> None:
    destination.write(MigrateTable(table), _message(table, grouping=grouping, **values))


def _deletes_stale(destination: Harness) -> bool:
    return "overwrite-delete-stale" in destination.capabilities.write_modes


def _at(table: Table, batch: pa.RecordBatch, moment: object) -> pa.RecordBatch:
    index = table.column_names.index("_cq_sync_time")
    return batch.set_column(index, "_cq_sync_time", pa.array([moment] * batch.num_rows, pa.timestamp("us", "UTC")))
