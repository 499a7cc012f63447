"""What every source has to do, as tests: subclass `SourceSuite` and give it a `SourceCase`.

class TestMine(SourceSuite):
    case = SourceCase("mine", make=lambda folder: (mine.as_plugin(), {"token": "…"}))
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from catchment.errors import CatchmentError
from catchment.messages import Insert, MigrateTable, SyncMessage, TableError
from catchment.plugin import SourcePlugin, SyncRequest
from catchment.schema import types
from catchment.schema.internal import CQ_ID, CQ_PARENT_ID
from catchment.schema.select import Selection
from catchment.schema.table import Table, validate

Made: TypeAlias = tuple[SourcePlugin, Mapping[str, Any]]
EVERYTHING = Selection(("*",), ())
_NAME = re.compile(r"^[a-z_][a-z\d_]*$")


@dataclass(frozen=True)
class SourceCase:
    """One source under test."""

    name: str
    make: Callable[[Path], Made]
    """A plugin that is not initialised yet, and its spec; the folder is the test's own."""
    requires: Sequence[str] = ()
    """Fixtures that have to be there, such as a server."""
    required_key: str = ""
    """A key of the spec without which `init` has to fail; empty if there is none."""
    own_names: bool = False
    """Whether names of tables and columns are the user's own, so that any is fine."""
    empty_columns: frozenset[str] = frozenset()
    """`table.column` of columns that stay null in the test's data."""
    secrets: Sequence[str] = ()
    """Texts of the spec that no log line may hold."""


class SourceSuite:
    """What every source has to do."""

    case: SourceCase

    @pytest.fixture(name="case")
    def _case(self) -> SourceCase:
        """The case of the class."""
        return self.case

    @pytest.fixture
    def made(self, case: SourceCase, tmp_path: Path, request: pytest.FixtureRequest) -> Made:
        """A plugin that is not initialised yet, and its spec."""
        for name in case.requires:
            request.getfixturevalue(name)
        return case.make(tmp_path)

    @pytest.fixture
    def source(self, made: Made) -> Iterator[SourcePlugin]:
        """An initialised source."""
        plugin, spec = made
        plugin.init(spec)
        yield plugin
        plugin.close()

    def test_tables_are_described_and_well_named(self, source: SourcePlugin, case: SourceCase) -> None:
        """Parents before children, names in snake case, no column twice."""
        tables = source.tables(EVERYTHING)
        assert tables
        validate(tables)
        for table in tables:
            assert CQ_ID in table
            assert CQ_PARENT_ID in table
            if not case.own_names:
                assert table.description, f"table `{table.name}` has no description"
                for name in (table.name, *table.column_names):
                    assert _NAME.match(name), f"`{name}` of table `{table.name}` is not in snake case"

    def test_rows_fit_their_tables(self, source: SourcePlugin) -> None:
        """Every table is migrated before its first row, and its batches have its columns and types."""
        messages = _synced(source)
        migrated: dict[str, Table] = {}
        for message in messages:
            if isinstance(message, MigrateTable):
                migrated[message.table.name] = message.table
            elif isinstance(message, Insert):
                assert message.table.name in migrated
                message.batch.validate(full=True)
                wanted = migrated[message.table.name].arrow_schema
                assert message.batch.schema.remove_metadata().equals(wanted), message.batch.schema
        assert set(migrated) == {table.name for table in source.tables(EVERYTHING)}

    def test_nothing_fails(self, source: SourcePlugin) -> None:
        """The test's own data is read without an error."""
        assert [message for message in _synced(source) if isinstance(message, TableError)] == []

    def test_keys_tell_rows_apart(self, source: SourcePlugin) -> None:
        """No key is null, none comes twice."""
        rows = _rows(source)
        keyed = [table for table in source.tables(EVERYTHING) if table.primary_keys and table.name in rows]
        for table in keyed:
            columns = [_values(rows[table.name].column(key)) for key in table.primary_keys]
            counts = Counter(zip(*columns, strict=True))
            assert counts.most_common(1)[0][1] == 1, f"table `{table.name}`: {counts.most_common(1)}"
            assert not any(None in key for key in counts), f"table `{table.name}` has a key that is null"

    def test_ids_are_unique_and_children_have_parents(self, source: SourcePlugin) -> None:
        """`_cq_id` is in every row once; `_cq_parent_id` is an id of the parent table."""
        rows = _rows(source)
        for table in source.tables(EVERYTHING):
            if table.name not in rows:
                continue
            ids = _values(rows[table.name].column(CQ_ID))
            assert None not in ids
            assert len(set(ids)) == len(ids)
            parents = set(_values(rows[table.name].column(CQ_PARENT_ID)))
            above = set(_values(rows[table.parent].column(CQ_ID))) if table.parent else {None}
            assert parents <= above, f"table `{table.name}` has rows without a parent"

    def test_each_column_is_set_at_least_once(self, source: SourcePlugin, case: SourceCase) -> None:
        """A column that never has a value is a column that was forgotten."""
        rows = _rows(source)
        tables = {table.name: table for table in source.tables(EVERYTHING)}
        empty = {
            f"{name}.{column}"
            for name, found in rows.items()
            for column in found.column_names
            if pc.all(pc.is_null(types.to_storage(found.column(column)))).as_py()
            and not (column == CQ_PARENT_ID and not tables[name].parent)
        }
        assert empty == case.empty_columns
        assert set(rows) == set(tables), "a table without a row"

    def test_selected_tables_only(self, source: SourcePlugin) -> None:
        """A selection of one table brings that one and its parents."""
        last = source.tables(EVERYTHING)[-1]
        selection = Selection((last.name,), ())
        wanted = {table.name for table in source.tables(selection)}
        assert last.name in wanted
        messages = source.sync(SyncRequest(selection))
        assert {message.table.name for message in messages if isinstance(message, (Insert, MigrateTable))} == wanted

    def test_synced_twice(self, source: SourcePlugin) -> None:
        """A second sync brings the same rows."""
        first, second = _rows(source), _rows(source)
        assert {name: rows.num_rows for name, rows in first.items()} == {
            name: rows.num_rows for name, rows in second.items()
        }

    def test_mistakes_in_the_spec(self, case: SourceCase, made: Made) -> None:
        """An unknown key is named, and so is a missing one."""
        plugin, spec = made
        with pytest.raises(CatchmentError, match="no_such_key"):
            plugin.init({**spec, "no_such_key": 1})
        if case.required_key:
            with pytest.raises(CatchmentError, match=case.required_key):
                plugin.init({key: value for key, value in spec.items() if key != case.required_key})
        plugin.close()

    def test_connection_can_be_tested(self, source: SourcePlugin) -> None:
        """`test_connection` says nothing when all is well."""
        assert source.test_connection() is None  # type: ignore[func-returns-value]

    def test_no_secret_is_logged(
        self, source: SourcePlugin, case: SourceCase, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even at the lowest level."""
        caplog.set_level(logging.DEBUG)
        _synced(source)
        assert not [secret for secret in case.secrets if secret in caplog.text]


def _synced(source: SourcePlugin) -> list[SyncMessage]:
    return list(source.sync(SyncRequest(EVERYTHING)))


def _rows(source: SourcePlugin) -> dict[str, pa.Table]:
    batches: defaultdict[str, list[pa.RecordBatch]] = defaultdict(list)
    for message in _synced(source):
        if isinstance(message, Insert) and message.batch.num_rows:
            batches[message.table.name].append(message.batch)
    return {name: pa.Table.from_batches(found) for name, found in batches.items()}


def _values(column: pa.ChunkedArray) -> list[Any]:
    return list(types.to_storage(column).to_pylist())
