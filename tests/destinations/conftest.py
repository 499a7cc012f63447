"""Destinations that tests drive by messages, and a look into the database behind them."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.clickhouse import ClickHouse
from catchment.destinations.duckdb import DuckDB
from catchment.destinations.mysql import MySQL
from catchment.destinations.mysql.place import parse
from catchment.destinations.postgresql import PostgreSQL
from catchment.destinations.sqlite import SQLite
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Swap
from catchment.schema.internal import staging_name
from catchment.schema.types import inet, json, mac, uuid
from catchment.sdk.writer import DestinationHost, Retries
from catchment.testing import data
from catchment.testing.destination import Harness
from tests.destinations.clickhouse import asking

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


@dataclass(frozen=True)
class Database:
    """A destination, and its database by the database's own driver."""

    name: str
    destination: Harness
    query: Callable[[str], Sequence[tuple[Any, ...]]]


@pytest.fixture(params=["duckdb", "postgresql"])
def database(request, open_destination, tmp_path):
    """Each of those two, with nothing in it; tests name others in their own parameters."""
    name = request.param
    path = str(tmp_path / f"x.{name}")
    kind: Any
    connect: Callable[[], Any]
    match name:
        case "duckdb":
            kind, place, connect = DuckDB, path, lambda: duckdb.connect(path)
        case "sqlite":
            kind, place, connect = SQLite, path, lambda: contextlib.closing(sqlite3.connect(path, isolation_level=None))
        case "postgresql":
            place = request.getfixturevalue("postgresql_url")
            kind, connect = PostgreSQL, lambda: psycopg.connect(place, autocommit=True)
        case "clickhouse":
            place = request.getfixturevalue("clickhouse_url")
            with asking(place) as ask:
                yield Database(name, open_destination(ClickHouse, connection_string=place), ask)
            return
        case _:
            place = request.getfixturevalue(f"{name}_dsn")
            kind, connect = MySQL, lambda: connected_to(place)

    def query(text):
        with connect() as connection:
            cursor = connection.cursor()
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []

    yield Database(name, open_destination(kind, connection_string=place), query)


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


WIDE = """
kind: source
spec:
  name: made
  registry: python
  path: test
  tables: [test_wide_table_*]
  destinations: [db]
  spec: {{tables: 3, columns: 6, num_rows: 20000, rows_per_batch: 500, delay: {delay}, seed: 1}}
---
kind: destination
spec: {{name: db, registry: python, path: {plugin}, write_mode: overwrite-delete-stale, spec: {spec}}}
"""
"""A config whose sync takes a moment: three tables of 20,000 rows."""

KEYS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "bool": (pa.bool_(), [True, False]),
    "int8": (pa.int8(), [-128, 127]),
    "int64": (pa.int64(), [-(2**63), 2**63 - 1]),
    "uint64": (pa.uint64(), [0, 2**64 - 1]),
    "float": (pa.float64(), [0.5, float("inf")]),
    "float16": (pa.float16(), [0.5, 1.0]),
    "decimal": (pa.decimal128(38, 10), [Decimal("0.1"), Decimal("-1")]),
    "decimal256": (pa.decimal256(30, 2), [Decimal("0.1"), Decimal("-1")]),
    "wide decimal": (pa.decimal256(76, 2), [Decimal("0.1"), Decimal("-1")]),
    "text": (pa.utf8(), ["", "a\0b"]),
    "large text": (pa.large_utf8(), ["", "é"]),
    "bytes": (pa.binary(), [b"", b"\0"]),
    "fixed bytes": (pa.binary(3), [b"abc", b"\0\0\0"]),
    "date": (pa.date32(), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "time": (pa.time64("us"), [datetime.time(0), datetime.time(23, 59, 59, 999999)]),
    "time ns": (pa.time64("ns"), [1, 86_399_999_999_999]),
    "timestamp": (pa.timestamp("us", "UTC"), [NOW, NOW + datetime.timedelta(microseconds=1)]),
    "timestamp ns": (pa.timestamp("ns"), [1, 2]),
    "uuid": (uuid(), [bytes(16), bytes(15) + b"\1"]),
    "json": (json(), [b"1", b'{"a":1}']),
    "inet": (inet(), [b"10.0.0.1", b"::1"]),
    "mac": (mac(), [bytes(6), b"abcdef"]),
    "duration": (pa.duration("us"), [0, 5]),
}
"""Two values of every type that a key may have."""


@pytest.fixture(params=["mariadb", "mysql8"])
def mysql_dsn(request):
    """A new, empty database of MariaDB, then one of MySQL."""
    return request.getfixturevalue(f"{request.param}_dsn")


@pytest.fixture
def ask_mysql(mysql_dsn):
    """Runs a statement in the test's database of MariaDB or MySQL; its rows, if it has any."""
    with connected_to(mysql_dsn) as connection:

        def ask(statement, *values):
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall())

        yield ask


def connected_to(dsn):
    """A connection of the driver's own, in autocommit mode."""
    import pymysql

    place = parse(dsn)
    return pymysql.connect(
        host=place.host, port=place.port, user=place.user, database=place.database, charset="utf8mb4", autocommit=True,
        ssl_disabled=True,
    )  # fmt: skip
