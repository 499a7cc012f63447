"""Destinations that tests drive by messages, and a look into the database behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Swap
from catchment.schema.internal import staging_name
from catchment.sdk.writer import DestinationHost, Retries
from catchment.testing import data
from catchment.testing.destination import Harness

NOW = data.SYNC_TIME


@pytest.fixture
def open_destination() -> Iterator[Callable[..., Harness]]:
    """Opens a destination of a class with a spec; all are closed at the end. Tries again sooner than in earnest."""
    with contextlib.ExitStack() as stack:

        def open_it(kind, attempts=8, **spec):
            plugin = DestinationHost(kind, Retries(attempts=attempts, first_wait_s=0.05, longest_wait_s=0.5))
            stack.callback(plugin.close)
            plugin.init(spec)
            return Harness(plugin, spec)

        yield open_it


@pytest.fixture
def ask(postgresql_url):
    """Runs a statement in the test's database; its rows, if it has any."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:

        def ask(statement, *values):
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

        yield ask


def people(name="people", *more, keys=("id",)):
    """A table that the engine's columns are in."""
    return data.sourced(name, ("id", pa.int64()), ("name", pa.utf8()), *more, keys=keys)


def rows(table, *rows, source="suite"):
    """Rows of a table that begins with the engine's columns."""
    return data.batch(table, *((source, NOW, *row) for row in rows))


class Staged:
    """Tables that are staged in one session, then published together."""

    def __init__(self, destination, run="cafe0001"):
        self.session = destination.plugin.session(Budget(256 << 20))
        self.run = run
        self.swaps = []

    def add(self, table, *batches, source="suite", force=False, **options):
        """Stage a table with its rows."""
        staged = table.without_keys().renamed(staging_name(self.run, len(self.swaps)))
        self.session.write(MigrateTable(table, staged=staged, force=force))
        for batch in batches:
            self.session.write(Insert(staged, batch))
        self.swaps.append(Swap(table, staged, source, NOW, **options))
        return self

    def publish(self):
        """What publishing did, by table."""
        try:
            return self.session.publish(self.swaps)
        finally:
            self.session.close()
