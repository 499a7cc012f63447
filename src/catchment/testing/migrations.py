"""The part of the destination suite that changes tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pytest

from catchment.errors import MigrationRefused, PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema import types
from catchment.schema.changes import ChangeKind
from catchment.schema.internal import CQ_ID
from catchment.schema.table import Column, Table
from catchment.sdk.json_text import to_text
from catchment.testing import data
from catchment.testing.destination import Harness, SuiteBase, fresh


@dataclass(frozen=True)
class Migration:
    """A table before and after, and the kind of change that it is."""

    kind: ChangeKind | None
    before: tuple[Column, ...]
    after: tuple[Column, ...]


_ID, _UUID = Column("id", pa.int64()), Column("uuid_column", types.uuid())
_FLAG, _STRICT = Column("flag", pa.bool_()), Column("flag", pa.bool_(), not_null=True)
_CQ = Column(CQ_ID, types.uuid(), unique=True, not_null=True)
_KEY = Column("id", pa.int64(), primary_key=True, not_null=True)
_CQ_KEY = Column(CQ_ID, types.uuid(), primary_key=True, not_null=True)

MIGRATIONS: dict[str, Migration] = {
    "add_column": Migration("add_column", (_ID, _UUID), (_ID, _UUID, _FLAG)),
    "add_column_not_null": Migration("add_column_not_null", (_ID, _UUID), (_ID, _UUID, _STRICT)),
    "remove_column": Migration("remove_column", (_ID, _UUID, _FLAG), (_ID, _UUID)),
    "remove_column_not_null": Migration("remove_column_not_null", (_ID, _UUID, _STRICT), (_ID, _UUID)),
    "change_column": Migration(
        "change_type", (_ID, _UUID, _STRICT), (_ID, _UUID, Column("flag", pa.utf8(), not_null=True))
    ),
    "remove_unique_constraint_only": Migration(
        "remove_unique", (_CQ, _ID, _UUID, _STRICT), (replace(_CQ, unique=False), _ID, _UUID, _STRICT)
    ),
    "move_to_cq_id_only": Migration("move_pk_to_cq_id", (_CQ, _KEY, _UUID, _STRICT), (_CQ_KEY, _ID, _UUID, _STRICT)),
    "move_to_cq_id_only_adding_pkc": Migration(
        "move_pk_to_cq_id",
        (_CQ, _KEY, _UUID, replace(_STRICT, primary_key_component=True)),
        (_CQ_KEY, _ID, _UUID, replace(_STRICT, primary_key_component=True)),
    ),
    "double_migration": Migration(None, data.all_types("").columns, data.all_types("").columns),
}


class Migrations(SuiteBase):
    """Each change, safe and forced."""

    @pytest.mark.parametrize("name", MIGRATIONS)
    def test_migrate_safe(self, destination: Harness, name: str) -> None:
        """A change that is declared safe keeps every row; any other is refused, and nothing is touched."""
        before, after, batch, later = _prepared(destination, name)
        if before is None:
            return
        if not _is_safe(destination, MIGRATIONS[name]):
            with pytest.raises(MigrationRefused, match=r"migrate_mode: forced|cannot be migrated here"):
                _migrate(destination, after, force=False)
            destination.expect(before, batch)
            return
        destination.write(MigrateTable(after), Insert(after, later))
        destination.expect(after, _as(after, batch, before), later)
        again = data.rows(after, 10, first_id=21)
        destination.write(MigrateTable(after), Insert(after, again))
        destination.expect(after, _as(after, batch, before), later, again)

    @pytest.mark.parametrize("name", MIGRATIONS)
    def test_migrate_forced(self, destination: Harness, name: str) -> None:
        """A forced change is made; rows stay where that is declared, and the table is made anew elsewhere."""
        before, after, batch, later = _prepared(destination, name)
        if before is None:
            return
        kind = MIGRATIONS[name].kind
        forced = destination.capabilities.forced_changes
        if forced is not None and kind is not None and kind not in forced | destination.capabilities.safe_changes:
            with pytest.raises(MigrationRefused):
                _migrate(destination, after, force=True)
            destination.expect(before, batch)
            return
        destination.write(MigrateTable(after, force=True), Insert(after, later))
        kept = _is_safe(destination, MIGRATIONS[name]) or kind in destination.capabilities.kept_when_forced
        destination.expect(after, *([_as(after, batch, before)] if kept else []), later)

    def test_two_changes_at_once(self, destination: Harness) -> None:
        """A column that is new and one that is gone, in one migration."""
        if not {"add_column", "remove_column"} <= destination.capabilities.safe_changes:
            return
        name = fresh("two_changes")
        before = data.named(name, _ID, ("gone", pa.utf8()))
        after = data.named(name, _ID, ("new", pa.float64()))
        old, new = data.rows(before, 3), data.rows(after, 3, first_id=4)
        destination.insert(before, old)
        destination.insert(after, new)
        destination.expect(after, _as(after, old, before), new)

    def test_columns_in_another_order(self, destination: Harness) -> None:
        """The order of columns is no change; values go by name."""
        name = fresh("reordered")
        first = data.named(name, _ID, ("a", pa.utf8()), ("b", pa.utf8()))
        second = data.named(name, ("b", pa.utf8()), _ID, ("a", pa.utf8()))
        destination.insert(first, data.batch(first, (1, "a1", "b1")))
        destination.insert(second, data.batch(second, ("b2", 2, "a2")))
        destination.expect(first, data.batch(first, (1, "a1", "b1"), (2, "a2", "b2")))

    def test_row_that_comes_again_has_nothing_in_a_column_that_is_gone(self, destination: Harness) -> None:
        """A row that is replaced by key is a new one: what the source no longer has does not stay from an older one."""
        able = destination.capabilities
        if "overwrite" not in able.write_modes or "remove_column" not in able.safe_changes:
            return
        name = fresh("gone")
        before = data.sourced(name, ("id", pa.int64()), ("name", pa.utf8()), ("gone", pa.utf8()))
        after = data.sourced(name, ("id", pa.int64()), ("name", pa.utf8()))
        old = [("suite", data.SYNC_TIME, n, "old", "here") for n in range(1, 5)]
        destination.insert(before, data.batch(before, *old))
        new = ("suite", data.SYNC_TIME, 1, "new")
        destination.insert(after, data.batch(after, new))
        destination.expect(before, data.batch(before, (*new, None), *old[1:]))
        if able.publish == "none":
            return
        merged = ("suite", data.SYNC_TIME, 2, "merged")
        destination.publish(after, data.batch(after, merged), keep="all")
        destination.expect(before, data.batch(before, (*new, None), (*merged, None), *old[2:]))


def _prepared(
    destination: Harness, name: str
) -> tuple[Table | None, Table, pa.RecordBatch | None, pa.RecordBatch | None]:
    """The table as it was, with ten rows in it, and as it will be, with ten more."""
    migration = MIGRATIONS[name]
    table = data.named(fresh(f"migrate_{name}"), *migration.before)
    after = table.with_columns(migration.after)
    if table.primary_keys and "overwrite" not in destination.capabilities.write_modes:
        with pytest.raises(PluginError):
            destination.write(MigrateTable(table))
        return None, after, None, None
    batch = data.rows(table, 10)
    destination.insert(table, batch)
    return table, after, batch, data.rows(after, 10, first_id=11)


def _migrate(destination: Harness, table: Table, *, force: bool) -> None:
    session_error: list[PluginError] = []
    try:
        destination.write(MigrateTable(table, force=force))
    except PluginError as error:
        session_error.append(error)
    if session_error:
        raise MigrationRefused(str(session_error[0]))


def _is_safe(destination: Harness, migration: Migration) -> bool:
    return migration.kind is None or migration.kind in destination.capabilities.safe_changes


def _as(table: Table, batch: pa.RecordBatch, before: Table) -> pa.RecordBatch:
    """Rows of the table as it was, with the columns it has now."""
    arrays = []
    for column in table.columns:
        if column.name not in before:
            arrays.append(pa.nulls(batch.num_rows, column.type))
        elif before.column(column.name).type.equals(column.type):
            arrays.append(batch.column(column.name))
        else:
            arrays.append(to_text(batch.column(column.name)))
    return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))
