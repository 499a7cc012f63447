"""The part of the destination suite that stages tables and publishes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Swap
from catchment.schema.internal import staging_name
from catchment.testing import data
from catchment.testing.destination import Harness, SuiteBase, fresh

Needs = Callable[[bool, Callable[[], object]], bool]
NOW = data.SYNC_TIME


class Publishing(SuiteBase):
    """Rows that wait beside the live table, and become visible at once."""

    def test_first_load(self, destination: Harness, needs: Needs) -> None:
        """The table appears with its rows and its key."""
        table = data.sourced(fresh("publish"), ("id", pa.int64()), ("name", pa.utf8()))
        rows = data.batch(table, ("suite", NOW, 1, "a"), ("suite", NOW, 2, "b"))
        if not needs(_publishes(destination), lambda: destination.publish(table, rows)):
            return
        destination.publish(table, rows)
        destination.expect(table, rows)
        destination.insert(table, data.batch(table, ("suite", NOW, 2, "by key")))
        destination.expect(table, data.batch(table, ("suite", NOW, 1, "a"), ("suite", NOW, 2, "by key")))

    def test_stale_rows_of_the_source_go_and_others_stay(self, destination: Harness) -> None:
        """Rows of this source that did not come again go; other sources' rows stay unless their key came."""
        if not _publishes(destination):
            return
        table = data.sourced(fresh("publish_stale"), ("id", pa.int64()), ("name", pa.utf8()))
        old = [("suite", NOW, 1, "stale"), ("suite", NOW, 2, "old"), ("other", NOW, 3, "kept"), ("other", NOW, 4, "x")]
        destination.insert(table, data.batch(table, *old))
        later = NOW + timedelta(seconds=1)
        new = [("suite", later, 2, "new"), ("suite", later, 4, "taken over")]
        published = destination.publish(table, data.batch(table, *new))
        destination.expect(table, data.batch(table, *new, old[2]))
        assert published.stale_deleted in (1, None)

    def test_everything_stays_when_the_fetch_had_errors(self, destination: Harness) -> None:
        """With `keep="all"` new rows are merged by key, and nothing is deleted."""
        if not _publishes(destination):
            return
        table = data.sourced(fresh("publish_keep"), ("id", pa.int64()), ("name", pa.utf8()))
        destination.insert(table, data.batch(table, ("suite", NOW, 1, "kept"), ("suite", NOW, 2, "old")))
        new = ("suite", NOW + timedelta(seconds=1), 2, "new")
        destination.publish(table, data.batch(table, new), keep="all")
        destination.expect(table, data.batch(table, ("suite", NOW, 1, "kept"), new))

    def test_tables_without_keys(self, destination: Harness) -> None:
        """This source's rows are replaced as a whole."""
        if not _publishes(destination):
            return
        table = data.sourced(fresh("publish_keyless"), ("id", pa.int64()), keys=[])
        destination.insert(table, data.batch(table, ("suite", NOW, 1), ("other", NOW, 2)))
        new = data.batch(table, ("suite", NOW, 3), ("suite", NOW, 3))
        destination.publish(table, new)
        destination.expect(table, new, data.batch(table, ("other", NOW, 2)))

    def test_last_of_equal_staged_keys_wins(self, destination: Harness) -> None:
        """Of staged rows with equal keys the last one is published."""
        if not _publishes(destination):
            return
        table = data.sourced(fresh("publish_twice"), ("id", pa.int64()), ("name", pa.utf8()))
        rows = data.batch(table, *(("suite", NOW, n % 3, f"v{n}") for n in range(30)))
        destination.publish(table, rows)
        destination.expect(table, rows.slice(27))

    def test_equal_staged_keys_leave_nested_columns_as_they_are(self, destination: Harness) -> None:
        """What is done about equal keys changes no type."""
        if not _publishes(destination):
            return
        nested = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.utf8())]))
        table = data.sourced(fresh("publish_nested"), ("id", pa.int64()), ("nested", nested))
        value = [{"a": 1, "b": "x"}, None]
        rows = data.batch(table, ("suite", NOW, 1, None), ("suite", NOW, 1, value), ("suite", NOW, 2, None))
        destination.publish(table, rows)
        destination.expect(table, rows.slice(1))
        destination.insert(table, rows.slice(1))

    def test_nested_columns_that_are_gone_stay_what_they_are(self, destination: Harness) -> None:
        """A column that the source no longer has keeps its type and other sources' values."""
        if not _publishes(destination) or "remove_column" not in destination.capabilities.safe_changes:
            return
        name = fresh("publish_gone")
        nested = ("nested", pa.list_(pa.struct([("a", pa.int64())])))
        before, after = data.sourced(name, ("id", pa.int64()), nested), data.sourced(name, ("id", pa.int64()))
        destination.insert(before, data.batch(before, ("other", NOW, 1, [{"a": 1}])))
        destination.publish(after, data.batch(after, ("suite", NOW, 2)))
        # The source may have it again.
        destination.insert(before, data.batch(before, ("suite", NOW, 3, [{"a": 3}])))
        both = data.batch(before, ("other", NOW, 1, [{"a": 1}]), ("suite", NOW, 2, None), ("suite", NOW, 3, [{"a": 3}]))
        destination.expect(before, both)

    def test_every_type_is_published(self, destination: Harness) -> None:
        """Twice, so that a first load and a re-load are both seen."""
        if not _publishes(destination):
            return
        wide = data.all_types(fresh("publish_all"))
        table = data.sourced(wide.name, *wide.columns)
        destination.publish(table, data.rows(table, 10))
        destination.expect(table, data.rows(table, 10))
        rows = data.rows(table, 10, nulls=True)
        destination.publish(table, rows)
        destination.expect(table, rows)

    def test_columns_that_are_gone_stay_with_other_rows(self, destination: Harness) -> None:
        """A table that lost a column and got one keeps the old one, null in new rows."""
        if not _publishes(destination) or not {"add_column", "remove_column"} <= destination.capabilities.safe_changes:
            return
        name = fresh("publish_migrate")
        before = data.sourced(name, ("id", pa.int64()), ("gone", pa.utf8()))
        after = data.sourced(name, ("id", pa.int64()), ("new", pa.utf8()))
        destination.insert(before, data.batch(before, ("other", NOW, 1, "kept")))
        destination.publish(after, data.batch(after, ("suite", NOW, 2, "n")))
        destination.expect(after, data.batch(after, ("other", NOW, 1, None), ("suite", NOW, 2, "n")))
        destination.expect(before, data.batch(before, ("other", NOW, 1, "kept"), ("suite", NOW, 2, None)))

    def test_columns_that_another_sync_brought_meanwhile_stay(self, destination: Harness) -> None:
        """Two sources stage rows of one new table with different columns: the one that publishes last loses nothing."""
        if not _publishes(destination):
            return
        name = fresh("publish_race")
        mine = data.sourced(name, ("id", pa.int64()), ("a", pa.list_(pa.int64())))
        theirs = data.sourced(name, ("id", pa.int64()), ("b", pa.list_(pa.int64())))
        rows = {"suite": data.batch(mine, ("suite", NOW, 1, [1])), "other": data.batch(theirs, ("other", NOW, 2, [2]))}
        sessions = []
        for number, (table, source) in enumerate(((mine, "suite"), (theirs, "other"))):
            session = destination.plugin.session(Budget(1 << 20))
            staged = table.without_keys().renamed(staging_name(f"race{number}", 9_000_300))
            session.write(MigrateTable(table, staged=staged))
            session.write(Insert(staged, rows[source]))
            session.flush()
            sessions.append((session, Swap(table, staged, source, NOW + timedelta(days=1))))
        for session, swap in sessions:
            session.publish([swap])
            session.close()
        both = mine.with_columns([*mine.columns, theirs.column("b")])
        destination.expect(both, data.batch(both, ("suite", NOW, 1, [1], None), ("other", NOW, 2, None, [2])))

    def test_staged_rows_are_seen_by_nobody(self, destination: Harness) -> None:
        """Until `publish` the live table is as it was; a session that is closed leaves nothing."""
        if not _publishes(destination):
            return
        table = data.sourced(fresh("unpublished"), ("id", pa.int64()))
        live = data.batch(table, ("suite", NOW, 1))
        destination.insert(table, live)
        staged = table.without_keys().renamed(staging_name("suite", 9_000_001))
        session = destination.plugin.session(Budget(1 << 20))
        session.write(MigrateTable(table, staged=staged))
        session.write(Insert(staged, data.batch(table, ("suite", NOW, 2))))
        session.flush()
        destination.expect(table, live)
        session.close()
        destination.expect(table, live)
        with pytest.raises(PluginError):
            list(destination.plugin.read(staged))

    def test_tables_of_a_sync_appear_together(self, destination: Harness) -> None:
        """If one of them cannot be published, none is."""
        if destination.capabilities.publish != "sync":
            return
        good = data.sourced(fresh("together"), ("id", pa.int64()))
        bad = data.sourced(fresh("together_bad"), ("id", pa.int64()))
        live = data.batch(good, ("suite", NOW, 1))
        destination.insert(good, live)
        session = destination.plugin.session(Budget(1 << 20))
        swaps = []
        for number, (table, rows) in enumerate(
            [(good, data.batch(good, ("suite", NOW, 2))), (bad, data.batch(bad, ("suite", NOW, None)))]
        ):
            staged = table.without_keys().renamed(staging_name("suite", 9_000_100 + number))
            session.write(MigrateTable(table, staged=staged))
            session.write(Insert(staged, rows))
            swaps.append(Swap(table, staged, "suite", NOW + timedelta(days=1)))
        with pytest.raises(PluginError):
            session.publish(swaps)
        session.close()
        destination.expect(good, live)

    def test_change_that_needs_force_is_refused_at_once(self, destination: Harness) -> None:
        """Staging checks what publishing would change, before a row is written."""
        if not _publishes(destination) or "change_type" in destination.capabilities.safe_changes:
            return
        name = fresh("publish_refused")
        before, after = (data.sourced(name, ("id", pa.int64()), ("value", kind)) for kind in (pa.int64(), pa.utf8()))
        live = data.batch(before, ("suite", NOW, 1, 5))
        destination.insert(before, live)
        session = destination.plugin.session(Budget(1 << 20))
        staged = after.without_keys().renamed(staging_name("suite", 9_000_200))
        session.write(MigrateTable(after, staged=staged))
        session.flush()
        assert "migrate_mode: forced" in session.stats()[staged.name].error
        session.close()
        destination.expect(before, live)


def _publishes(destination: Harness) -> bool:
    return destination.capabilities.publish != "none"
