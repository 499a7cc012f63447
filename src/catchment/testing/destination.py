"""What every destination has to do, as tests: subclass `DestinationSuite` and give it a `DestinationCase`.

class TestMine(DestinationSuite):
    case = DestinationCase("mine", make=lambda folder: (Mine.as_plugin(), {"path": str(folder / "db")}), peek=...)

The suite drives messages, as the engine does, so it runs over a plugin in process and over a remote one alike.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.errors import PluginError
from catchment.messages import DeleteStale, Insert, MigrateTable, WriteMessage
from catchment.plugin import DestinationPlugin, Published, Swap, WriteStats
from catchment.schema.internal import staging_name
from catchment.schema.table import Table
from catchment.testing import data
from catchment.testing.compare import difference

Made: TypeAlias = tuple[DestinationPlugin, Mapping[str, Any]]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class DestinationCase:
    """One destination under test."""

    name: str
    make: Callable[[Path], Made]
    """A plugin that is not initialised yet, and its spec; the folder is the test's own."""
    peek: Callable[[Mapping[str, Any], str], Sequence[tuple[Any, Any]]]
    """`(id, name)` of every row of a table by the database's own driver, given the spec and the table's name."""
    requires: Sequence[str] = ()
    """Fixtures that have to be there, such as a server."""
    keeps_nul: bool = True
    """Whether text may hold a NUL character; if not, it has to be refused."""
    required_key: str = "connection_string"
    """A key of the spec without which `init` has to fail."""


class Harness:
    """A destination with short words for what tests do."""

    def __init__(self, plugin: DestinationPlugin, spec: Mapping[str, Any]) -> None:
        self.plugin = plugin
        self.spec = spec
        self.capabilities = plugin.capabilities

    def write(self, *messages: WriteMessage) -> Mapping[str, WriteStats]:
        """Send messages in a session of their own and flush. Raises the first table's error."""
        session = self.plugin.session(Budget(64 << 20))
        try:
            for message in messages:
                session.write(message)
            session.flush()
            stats = session.stats()
        finally:
            session.close()
        for name, found in stats.items():
            if found.error:
                raise PluginError(f"table `{name}`: {found.error}")
        return stats

    def insert(self, table: Table, *batches: pa.RecordBatch) -> None:
        """Migrate and insert."""
        stats = self.write(MigrateTable(table), *(Insert(table, batch) for batch in batches))
        assert stats[table.name].rows == sum(batch.num_rows for batch in batches)

    def expect(self, table: Table, *batches: pa.RecordBatch, key: str = "id") -> None:
        """Check that the table has exactly these rows; a destination that cannot be read has told its count."""
        if not self.capabilities.readable:
            return
        able = self.capabilities
        found = difference(
            table, batches, list(self.plugin.read(table)), able.stored_as, key=key, empty_for_null=able.empty_for_null
        )
        assert not found, found

    def delete_stale(self, table: Table, source: str, moment: datetime.datetime, **options: Any) -> None:
        """Delete a source's rows older than `moment`."""
        self.write(MigrateTable(table), DeleteStale(table, source, moment, **options))

    def publish(self, table: Table, *batches: pa.RecordBatch, source: str = "suite", **options: Any) -> Published:
        """Stage rows, check that the live table is as it was, and publish."""
        staged = table.without_keys().renamed(staging_name("suite", next(_numbers)))
        session = self.plugin.session(Budget(64 << 20))
        try:
            session.write(MigrateTable(table, staged=staged))
            for batch in batches:
                session.write(Insert(staged, batch))
            moment = data.SYNC_TIME + datetime.timedelta(days=1)
            return session.publish([Swap(table, staged, source, moment, **options)])[table.name]
        finally:
            session.close()


class SuiteBase:
    """The fixtures that every part of the suite has."""

    case: DestinationCase

    @pytest.fixture(name="case")
    def _case(self, request: pytest.FixtureRequest) -> DestinationCase:
        """The case of the class."""
        return self.case

    @pytest.fixture
    def made(self, case: DestinationCase, tmp_path: Path, request: pytest.FixtureRequest) -> Made:
        """A plugin that is not initialised yet, and its spec."""
        for name in case.requires:
            request.getfixturevalue(name)
        return case.make(tmp_path)

    @pytest.fixture
    def destination(self, made: Made) -> Iterator[Harness]:
        """An initialised destination."""
        plugin, spec = made
        plugin.init(spec)
        yield Harness(plugin, spec)
        plugin.close()

    @pytest.fixture
    def needs(self, destination: Harness) -> Callable[[bool, Callable[[], object]], bool]:
        """Whether a capability is declared; if it is not, using it has to be refused."""

        def needs(declared: bool, use: Callable[[], object]) -> bool:
            if not declared:
                with pytest.raises(PluginError):
                    use()
            return declared

        return needs


def fresh(prefix: str) -> str:
    """A table name that no other test has."""
    return f"cq_{prefix}_{next(_numbers)}"
