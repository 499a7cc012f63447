"""The part of the destination suite that writes rows and reads them back."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from catchment.errors import CatchmentError, PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema.table import Column
from catchment.testing import data
from catchment.testing.destination import DestinationCase, Harness, Made, SuiteBase, fresh

Needs = Callable[[bool, Callable[[], object]], bool]


class Inserts(SuiteBase):
    """Tables without keys: rows are added."""

    def test_insert_adds_rows(self, destination: Harness) -> None:
        """The same row twice is two rows."""
        table = data.named(fresh("insert"), Column("id", pa.int64(), not_null=True), ("name", pa.utf8()))
        row = data.batch(table, (1, "foo"))
        destination.insert(table, row)
        destination.expect(table, row)
        destination.insert(table, row)
        destination.expect(table, row, row)

    def test_insert_every_type(self, destination: Harness) -> None:
        """Ten rows of every type, then ten of nulls."""
        table = data.all_types(fresh("insert_all"))
        full, empty = data.rows(table, 10), data.rows(table, 10, first_id=11, nulls=True)
        destination.insert(table, full)
        destination.expect(table, full)
        destination.insert(table, empty)
        destination.expect(table, full, empty)

    def test_values_at_the_edges(self, destination: Harness) -> None:
        """Least and largest values, quotes, line breaks, and all of Unicode."""
        table, rows = data.edges(fresh("edges"))
        destination.insert(table, rows)
        destination.expect(table, rows)

    def test_text_with_nul_is_kept_or_refused(self, destination: Harness, case: DestinationCase) -> None:
        """Never cut, never replaced."""
        table = data.named(fresh("nul"), ("id", pa.int64()), ("name", pa.utf8()))
        rows = data.batch(table, (1, "before\0after"))
        if case.keeps_nul:
            destination.insert(table, rows)
            destination.expect(table, rows)
            return
        with pytest.raises(PluginError):
            destination.insert(table, rows)
        destination.expect(table)

    def test_batch_without_rows(self, destination: Harness) -> None:
        """A batch of no rows changes nothing."""
        table = data.named(fresh("empty"), ("id", pa.int64()), ("name", pa.utf8()))
        row = data.batch(table, (1, "foo"))
        destination.insert(table, row.slice(0, 0))
        destination.insert(table, row, row.slice(0, 0))
        destination.expect(table, row)

    def test_many_rows_in_many_batches(self, destination: Harness) -> None:
        """10,000 rows in batches of odd sizes, cut out of larger ones."""
        table = data.named(fresh("many"), ("id", pa.int64()), ("name", pa.utf8()), ("flags", pa.list_(pa.bool_())))
        rows = data.rows(table, 10_000)
        destination.insert(table, *(rows.slice(start, 777) for start in range(0, 10_000, 777)))
        destination.expect(table, rows)

    def test_odd_names(self, destination: Harness) -> None:
        """Names with spaces, quotes, upper case, reserved words and Unicode are names."""
        columns = ["id", "select", "Upper Case", "quote'and\"quote", "percent%s", "naïve", "semi;colon--"]
        table = data.named(f'{fresh("odd")} "Täble"', *((name, pa.int64()) for name in columns))
        rows = data.batch(table, tuple(range(1, len(columns) + 1)))
        destination.insert(table, rows)
        destination.expect(table, rows)

    def test_tables_side_by_side(self, destination: Harness) -> None:
        """Batches of several tables in turn; each has its own rows."""
        tables = [data.named(fresh("beside"), ("id", pa.int64()), ("name", pa.utf8())) for _ in range(4)]
        batches = [[data.rows(table, 50, first_id=1 + 50 * part) for part in range(5)] for table in tables]
        destination.write(
            *(MigrateTable(table) for table in tables),
            *(Insert(t, parts[part]) for part in range(5) for t, parts in zip(tables, batches, strict=True)),
        )
        for table, parts in zip(tables, batches, strict=True):
            destination.expect(table, *parts)

    def test_read_is_what_the_driver_says(self, destination: Harness, case: DestinationCase) -> None:
        """The database's own driver sees the same rows, without the plugin."""
        table = data.named(fresh("peek"), ("id", pa.int64()), ("name", pa.utf8()))
        destination.insert(table, data.batch(table, (1, "é"), (2, None), (3, "c,\"d'")))
        destination.plugin.close()
        wanted = [(1, "é"), (2, None), (3, "c,\"d'")] if destination.capabilities.readable else []
        assert sorted(case.peek(destination.spec, table.name)) == wanted

    def test_rows_are_there_when_it_is_opened_again(
        self, destination: Harness, case: DestinationCase, made: Made
    ) -> None:
        """Closed and opened by a new plugin, the rows are still there."""
        table = data.named(fresh("again"), ("id", pa.int64()), ("name", pa.utf8()))
        rows = data.rows(table, 20)
        destination.insert(table, rows)
        destination.plugin.close()
        again = made[0]
        again.init(destination.spec)
        try:
            Harness(again, destination.spec).expect(table, rows)
        finally:
            again.close()


class Upserts(SuiteBase):
    """Tables with keys: rows of equal key are replaced."""

    def test_upsert_replaces_by_key(self, destination: Harness, needs: Needs) -> None:
        """The same row twice is one row, and a row of the key with other values replaces it."""
        table = data.named(fresh("upsert"), ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
        if not needs(_overwrites(destination), lambda: destination.insert(table, data.batch(table, (1, "foo")))):
            return
        destination.insert(table, data.batch(table, (1, "foo")))
        destination.insert(table, data.batch(table, (1, "foo")))
        destination.expect(table, data.batch(table, (1, "foo")))
        destination.insert(table, data.batch(table, (1, "bar"), (2, "new")))
        destination.expect(table, data.batch(table, (1, "bar"), (2, "new")))

    def test_upsert_by_two_keys(self, destination: Harness, needs: Needs) -> None:
        """Both keys together tell rows apart."""
        table = data.named(
            fresh("upsert_two"), ("id", pa.int64()), ("part", pa.utf8()), ("n", pa.int32()), keys=["id", "part"]
        )
        rows = data.batch(table, (1, "a", 1), (2, "b", 2))
        if not needs(_overwrites(destination), lambda: destination.insert(table, rows)):
            return
        destination.insert(table, rows)
        destination.insert(table, data.batch(table, (2, "b", 20), (3, "a", 3)))
        destination.expect(table, data.batch(table, (1, "a", 1), (2, "b", 20), (3, "a", 3)))

    def test_upsert_every_type(self, destination: Harness, needs: Needs) -> None:
        """Rows of nulls replace full ones, column by column."""
        full_table = data.all_types(fresh("upsert_all"), keys=["id"])
        full = data.rows(full_table, 10)
        if not needs(_overwrites(destination), lambda: destination.insert(full_table, full)):
            return
        destination.insert(full_table, full)
        destination.expect(full_table, full)
        empty = data.rows(full_table, 10, nulls=True)
        destination.insert(full_table, empty)
        destination.expect(full_table, empty)

    def test_last_of_equal_keys_wins(self, destination: Harness, needs: Needs) -> None:
        """Within one batch, and across batches of one write."""
        table = data.named(fresh("duplicates"), ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
        rows = data.batch(table, *((1, f"foo{n}") for n in range(10)))
        if not needs(_overwrites(destination), lambda: destination.insert(table, rows)):
            return
        destination.insert(table, rows)
        destination.expect(table, data.batch(table, (1, "foo9")))
        destination.insert(table, data.batch(table, (1, "a"), (2, "b")), data.batch(table, (2, "c"), (1, "d")))
        destination.expect(table, data.batch(table, (1, "d"), (2, "c")))

    def test_keys_of_every_keyable_type(self, destination: Harness, needs: Needs) -> None:
        """Text, uuid and time keys tell rows apart as numbers do."""
        wide = data.all_types(fresh("keys"))
        keys = ["string", "uuid", "timestamp_us", "boolean"]
        table = data.named(wide.name, ("id", pa.int64()), *(wide.column(key) for key in keys), keys=keys)
        rows = data.rows(table, 20)
        if not needs(_overwrites(destination), lambda: destination.insert(table, rows)):
            return
        destination.insert(table, rows)
        destination.insert(table, rows)
        destination.expect(table, rows)

    def test_failed_batch_leaves_nothing_of_it(self, destination: Harness, needs: Needs) -> None:
        """A batch whose last row has no key is refused as a whole; what was there stays."""
        if not destination.capabilities.readable:
            return
        table = data.named(fresh("half"), ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
        good = data.batch(table, (1, "kept"), (2, "kept"))
        if not needs(_overwrites(destination), lambda: destination.insert(table, good)):
            return
        destination.insert(table, good)
        broken = data.batch(table, *((n, "lost") for n in range(2, 500)), (None, "no key"))
        with pytest.raises(PluginError):
            destination.insert(table, broken)
        destination.expect(table, good)


class Specs(SuiteBase):
    """How a destination answers mistakes."""

    def test_spec_without_a_required_key(self, case: DestinationCase, made: Made) -> None:
        """The error names the key."""
        plugin, spec = made
        if case.required_key not in spec:
            assert not case.required_key
            return
        with pytest.raises(CatchmentError, match=case.required_key):
            plugin.init({key: value for key, value in spec.items() if key != case.required_key})
        plugin.close()

    def test_spec_with_an_unknown_key(self, made: Made) -> None:
        """The error names the key."""
        plugin, spec = made
        with pytest.raises(CatchmentError, match="no_such_key"):
            plugin.init({**spec, "no_such_key": 1})
        plugin.close()

    def test_connection_can_be_tested(self, made: Made) -> None:
        """`test_connection` says nothing when all is well."""
        plugin, spec = made
        plugin.init(spec, no_connection=True)
        assert plugin.test_connection() is None  # type: ignore[func-returns-value]
        plugin.close()


def _overwrites(destination: Harness) -> bool:
    return "overwrite" in destination.capabilities.write_modes
