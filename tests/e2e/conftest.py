"""The real databases that a test's rows land in, each read with its own driver."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.destinations.clickhouse import asking
from tests.destinations.conftest import connected_to
from tests.e2e.documents import destination


@dataclass(frozen=True)
class Store:
    """A database: which plugin writes to it, and how a test looks inside."""

    plugin: str
    connection: str
    query: Callable[[str], list[tuple[Any, ...]]]

    def document(self, name: str = "db", **more: Any) -> dict[str, Any]:
        """The destination of a config."""
        spec = {"connection_string": self.connection, **more.pop("spec", {})}
        return destination(name, self.plugin, spec=spec, **more)

    def tables(self) -> list[str]:
        """Names of every table, sorted."""
        names = {
            "clickhouse": "select name from system.tables where database = currentDatabase()",
            "mysql": "select table_name from information_schema.tables where table_schema = database()",
            "sqlite": "select name from sqlite_master where type = 'table'",
            "duckdb": "select table_name from duckdb_tables()",
            "postgresql": "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'",
        }
        return sorted(name for (name,) in self.query(names[self.plugin]))

    def primary_key(self, table: str) -> set[str]:
        """Names of the primary key's columns, as the catalogue has them."""
        if self.plugin == "clickhouse":
            # Its comment says it: the database itself knows no keys.
            [(comment,)] = self.query(
                f"select comment from system.tables where database = currentDatabase() and name = '{table}'"
            )
            return set(json.loads(comment.removeprefix("catchment key: ")))
        if self.plugin == "postgresql":
            query = (
                "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid "
                f"and a.attnum = any(i.indkey) where i.indisprimary and i.indrelid = '{table}'::regclass"
            )
        else:
            query = f"select name from pragma_table_info('{table}') where pk"
        return {name for (name,) in self.query(query)}


def at_file(path: str) -> Store:
    """A DuckDB database in a file."""

    def query(text: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(path) as connection:
            return connection.execute(text).fetchall()

    return Store("duckdb", path, query)


def at_clickhouse(url: str) -> Store:
    """A ClickHouse database."""

    def query(text: str) -> list[tuple[Any, ...]]:
        with asking(url) as ask:
            return ask(text)

    return Store("clickhouse", url, query)


def at_postgresql(url: str) -> Store:
    """A PostgreSQL database."""
    import psycopg

    def query(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as connection:
            return connection.execute(text).fetchall()

    return Store("postgresql", url, query)


def at_mysql(dsn: str) -> Store:
    """A MariaDB or MySQL database."""

    def query(text: str) -> list[tuple[Any, ...]]:
        with connected_to(dsn) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    return Store("mysql", dsn, query)


def at_sqlite(path: str, options: str = "") -> Store:
    """A SQLite database in a file."""

    def query(text: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            return connection.execute(text).fetchall()

    return Store("sqlite", path + options, query)


@pytest.fixture(params=[pytest.param("clickhouse", marks=pytest.mark.thorough), "duckdb", "postgresql", "sqlite"])
def store(request: pytest.FixtureRequest) -> Store:
    """A new, empty database of each kind; tests ask for `mariadb` in their own parameters."""
    if request.param == "postgresql":
        return at_postgresql(request.getfixturevalue("postgresql_url"))
    if request.param == "clickhouse":
        return at_clickhouse(request.getfixturevalue("clickhouse_url"))
    if request.param == "mariadb":
        return at_mysql(request.getfixturevalue("mariadb_dsn"))
    folder = request.getfixturevalue("tmp_path")
    if request.param == "duckdb":
        return at_file(str(folder / "db.duckdb"))
    return at_sqlite(str(folder / "db.sqlite"))


@pytest.fixture(
    params=[pytest.param("clickhouse", marks=pytest.mark.thorough), "duckdb", "mysql", "postgresql", "sqlite"]
)
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Every built-in database."""
    match request.param:
        case "clickhouse":
            return at_clickhouse(request.getfixturevalue("clickhouse_url"))
        case "mysql":
            return at_mysql(request.getfixturevalue("mariadb_dsn"))
        case "postgresql":
            return at_postgresql(request.getfixturevalue("postgresql_url"))
        case "sqlite":
            return at_sqlite(str(tmp_path / "db.sqlite"))
    return at_file(str(tmp_path / "db.duckdb"))


@pytest.fixture
def duck(tmp_path) -> Store:
    """One database, where the kind does not matter."""
    return at_file(str(tmp_path / "duck.duckdb"))
