"""One case for each registered destination."""

from __future__ import annotations

import csv
import glob
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catchment.destinations.clickhouse import ClickHouse
from catchment.destinations.duckdb import DuckDB
from catchment.destinations.file import File
from catchment.destinations.mysql import MySQL
from catchment.destinations.mysql.place import parse
from catchment.destinations.postgresql import PostgreSQL
from catchment.destinations.sqlite import SQLite
from catchment.destinations.test import Test
from catchment.testing import DestinationCase
from catchment.testing.destination import Made

Spec = Mapping[str, Any]
Peeked = Sequence[tuple[Any, Any]]


def _peek_clickhouse(spec: Spec, table: str) -> Peeked:
    import clickhouse_connect

    with clickhouse_connect.get_client(dsn=spec["connection_string"], dedicated_pool=True) as client:
        return [(row[0], row[1]) for row in client.query(f"select id, name from `{table}`").result_rows]


def _peek_duckdb(spec: Spec, table: str) -> Peeked:
    import duckdb

    with duckdb.connect(spec["connection_string"]) as connection:
        return connection.execute(f'select id, name from "{table}"').fetchall()


def _peek_postgresql(spec: Spec, table: str) -> Peeked:
    import psycopg

    with psycopg.connect(spec["connection_string"]) as connection:
        return connection.execute(f'select id, name from "{table}"').fetchall()


def _peek_mysql(spec: Spec, table: str) -> Peeked:
    import pymysql

    place = parse(spec["connection_string"])
    with (
        pymysql.connect(
            host=place.host, port=place.port, user=place.user, database=place.database, ssl_disabled=True
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"select id, name from `{table}`")
        return list(cursor.fetchall())


def _peek_sqlite(spec: Spec, table: str) -> Peeked:
    connection = sqlite3.connect(spec["connection_string"])
    try:
        return connection.execute(f'select id, name from "{table}"').fetchall()
    finally:
        connection.close()


def _peek_csv(spec: Spec, table: str) -> Peeked:
    with open(Path(spec["path"]) / f"{table}.csv", newline="") as file:
        return [(int(row["id"]), row["name"] or None) for row in csv.DictReader(file)]


def _peek_json(spec: Spec, table: str) -> Peeked:
    found = []
    for path in glob.glob(spec["path"].replace("{{TABLE}}", table).replace("{{UUID}}", "*")):
        with open(path) as file:
            found += [(row["id"], row["name"]) for row in map(json.loads, file)]
    return found


def _peek_parquet(spec: Spec, table: str) -> Peeked:
    import pyarrow.parquet as pq

    rows = pq.read_table(Path(spec["path"]) / f"{table}.parquet").to_pylist()
    return [(row["id"], row["name"]) for row in rows]


def _postgresql(folder: Path) -> Made:
    return PostgreSQL.as_plugin(), {"connection_string": _urls[folder]}


def _clickhouse(folder: Path) -> Made:
    return ClickHouse.as_plugin(), {"connection_string": _clickhouse_urls[folder]}


def _mysql(folder: Path) -> Made:
    return MySQL.as_plugin(), {"connection_string": _mysql_dsns[folder]}


_urls: dict[Path, str] = {}
_mysql_dsns: dict[Path, str] = {}
_clickhouse_urls: dict[Path, str] = {}


def use_clickhouse(folder: Path, url: str) -> None:
    """Tell which ClickHouse database a test's folder goes with."""
    _clickhouse_urls[folder] = url


def use_mysql(folder: Path, dsn: str) -> None:
    """Tell which MariaDB or MySQL database a test's folder goes with."""
    _mysql_dsns[folder] = dsn


def use_postgresql(folder: Path, url: str) -> None:
    """Tell which database a test's folder goes with."""
    _urls[folder] = url


def url_of(folder: Path) -> str:
    """The database that a test's folder goes with."""
    return _urls[folder]


CASES = [
    DestinationCase("clickhouse", _clickhouse, _peek_clickhouse, requires=["clickhouse_folder"]),
    DestinationCase(
        "duckdb", lambda folder: (DuckDB.as_plugin(), {"connection_string": str(folder / "x.duckdb")}), _peek_duckdb
    ),
    DestinationCase("mysql-mariadb", _mysql, _peek_mysql, requires=["mariadb_folder"]),
    DestinationCase("mysql-8", _mysql, _peek_mysql, requires=["mysql8_folder"]),
    DestinationCase("postgresql", _postgresql, _peek_postgresql, requires=["postgresql_folder"], keeps_nul=False),
    DestinationCase(
        "postgresql-debian", _postgresql, _peek_postgresql, requires=["debian_postgresql_folder"], keeps_nul=False
    ),
    DestinationCase(
        "sqlite", lambda folder: (SQLite.as_plugin(), {"connection_string": str(folder / "x.sqlite")}), _peek_sqlite
    ),
    DestinationCase(
        "file-csv",
        lambda folder: (File.as_plugin(), {"path": str(folder / "out"), "format": "csv", "no_rotate": True}),
        _peek_csv,
        required_key="path",
    ),
    DestinationCase(
        "file-json",
        lambda folder: (File.as_plugin(), {"path": f"{folder}/{{{{TABLE}}}}/{{{{UUID}}}}.jsonl", "format": "json"}),
        _peek_json,
        required_key="path",
    ),
    DestinationCase(
        "file-parquet",
        lambda folder: (File.as_plugin(), {"path": str(folder / "out"), "format": "parquet", "no_rotate": True}),
        _peek_parquet,
        required_key="path",
    ),
    DestinationCase("test", lambda folder: (Test.as_plugin(), {}), lambda spec, table: [], required_key=""),
]
