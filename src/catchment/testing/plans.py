"""The part of the destination suite that asks what a migration would do, and then does it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import TablePreview
from catchment.schema.table import Table
from catchment.testing import data
from catchment.testing.destination import DestinationCase, Harness, Made, SuiteBase, fresh
from catchment.testing.migrations import MIGRATIONS


class Previews(SuiteBase):
    """What is foretold comes true, and foretelling does nothing."""

    @pytest.mark.parametrize("force", [False, True], ids=["safe", "forced"])
    @pytest.mark.parametrize("name", MIGRATIONS)
    def test_preview_tells_what_migrate_does(
        self, case: DestinationCase, made: Made, tmp_path: Path, name: str, force: bool
    ) -> None:
        """The action that is foretold is the one that is seen: by an error, by the rows, by the next preview."""
        before = data.named(fresh(f"plan_{name}"), *MIGRATIONS[name].before)
        after = before.with_columns(MIGRATIONS[name].after)
        batch = data.rows(before, 10)
        with _opened(case, tmp_path) as destination:
            if before.primary_keys and "overwrite" not in destination.capabilities.write_modes:
                assert _asked(case, tmp_path, after if after.primary_keys else before).action in ("refused", "unknown")
                return
            destination.insert(before, batch)

        found = _asked(case, tmp_path, after, force=force)

        with _opened(case, tmp_path) as destination:
            destination.expect(before, batch)
            if found.action == "unknown":
                return
            if found.action == "refused":
                with pytest.raises(PluginError):
                    destination.write(MigrateTable(after, force=force))
                destination.expect(before, batch)
                assert found.reason
                assert any(change.safety != "safe" for change in found.changes)
                return
            destination.write(MigrateTable(after, force=force))
            _expect_ids(destination, after, batch, kept=found.action != "recreate")
            destination.write(Insert(after, data.rows(after, 3, first_id=11)))
        assert _asked(case, tmp_path, after).action == "none"

    def test_preview_of_each_change_names_it(self, case: DestinationCase, made: Made, tmp_path: Path) -> None:
        """Kind, column and safety are those of the capabilities."""
        for name, migration in MIGRATIONS.items():
            before = data.named(fresh(f"plan_named_{name}"), *migration.before)
            with _opened(case, tmp_path) as destination:
                able = destination.capabilities
                if before.primary_keys and "overwrite" not in able.write_modes:
                    continue
                destination.insert(before, data.rows(before, 1))
            found = _asked(case, tmp_path, before.with_columns(migration.after))
            for change in found.changes:
                assert change.column in change.text
                safe = "forced" if able.forced_changes is None or change.kind in able.forced_changes else "impossible"
                assert change.safety == ("safe" if change.kind in able.safe_changes else safe)
            if found.action in ("alter", "recreate", "refused"):
                assert found.changes, name
            if found.action == "refused":
                assert {change.kind for change in found.changes} - able.safe_changes, name

    def test_preview_of_a_table_that_is_missing(self, case: DestinationCase, made: Made, tmp_path: Path) -> None:
        """It would be made; asking makes nothing, not even the database."""
        table = data.all_types(fresh("plan_missing"))
        there = _files(tmp_path)
        found = _asked(case, tmp_path, table)
        assert found.action in ("create", "unknown")
        assert _files(tmp_path) == there
        if found.action == "unknown":
            return
        with _opened(case, tmp_path) as destination:
            if destination.capabilities.readable:
                with contextlib.suppress(PluginError):
                    assert list(destination.plugin.read(table)) == []
            destination.insert(table, data.rows(table, 2))
        assert _asked(case, tmp_path, table).action == "none"

    def test_preview_through_an_open_connection(self, case: DestinationCase, made: Made, tmp_path: Path) -> None:
        """A plugin that is connected answers as one that is not, and goes on working."""
        table = data.named(fresh("plan_open"), ("id", pa.int64()), ("name", pa.utf8()))
        with _opened(case, tmp_path) as destination:
            destination.insert(table, data.batch(table, (1, "a")))
            connected = list(destination.plugin.preview([table, table.renamed(fresh("plan_open"))], force=False))
            destination.insert(table, data.batch(table, (2, "b")))
            destination.expect(table, data.batch(table, (1, "a"), (2, "b")))
        assert connected[0].action == _asked(case, tmp_path, table).action
        assert [found.action for found in connected] in (["none", "create"], ["unknown", "unknown"])


@contextlib.contextmanager
def _opened(case: DestinationCase, folder: Path) -> Iterator[Harness]:
    """The destination, open while the body runs: an embedded database may be open once only."""
    plugin, spec = case.make(folder)
    plugin.init(spec)
    try:
        yield Harness(plugin, spec)
    finally:
        plugin.close()


def _asked(case: DestinationCase, folder: Path, table: Table, *, force: bool = False) -> TablePreview:
    """What a plugin says that has not connected before."""
    plugin, spec = case.make(folder)
    try:
        plugin.init(spec, no_connection=True)
        (found,) = plugin.preview([table], force=force)
        return found
    finally:
        plugin.close()


def _expect_ids(destination: Harness, table: Table, batch: pa.RecordBatch, *, kept: bool) -> None:
    """Whether the ids that were there still are."""
    if destination.capabilities.readable:
        # As text, which is what some destinations keep.
        found = {str(row) for rows in destination.plugin.read(table) for row in rows.column("id").to_pylist()}
        assert found == {str(row) for row in batch.column("id").to_pylist() if kept}


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
