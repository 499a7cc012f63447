"""Long fault runs (`make soak`): what is killed again and again never leaves a half state behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import clickhouse_connect.driver.exceptions as clickhouse
import psycopg
import pymysql
import pytest

from tests import services
from tests.conftest import needed
from tests.e2e.conftest import at_clickhouse, at_file, at_mysql, at_postgresql, at_sqlite
from tests.faults.soaking import Soak, kill_servers, kill_syncs

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

KILLED_SYNCS = 20
KILLED_SERVERS = 10
SCHEMAS = "select nspname from pg_namespace where nspname like '\\_catchment%'"


def nothing():
    return []


@contextlib.contextmanager
def postgresql(request) -> Iterator[tuple[services.Server, Soak]]:
    with needed(request, "postgresql"), services.postgresql_server("-c shared_buffers=64MB") as server:
        store = at_postgresql(f"{server.url} dbname=postgres")
        folder = request.getfixturevalue("tmp_path")
        yield server, Soak(folder, store, lambda: [name for (name,) in store.query(SCHEMAS)])


@contextlib.contextmanager
def mysql(request) -> Iterator[tuple[services.MySQLServer, Soak]]:
    with needed(request, "mariadb"), services.mariadb() as server:
        server.run("create database x")
        yield server, Soak(request.getfixturevalue("tmp_path"), at_mysql(server.dsn("x")), nothing)


@contextlib.contextmanager
def clickhouse_server(request) -> Iterator[tuple[services.ClickHouseServer, Soak]]:
    with needed(request, "clickhouse"), services.clickhouse() as server:
        at_clickhouse(server.url).query("create database x")
        yield server, Soak(request.getfixturevalue("tmp_path"), at_clickhouse(server.url + "x"), nothing)


SERVERS = {"postgresql": postgresql, "mysql": mysql, "clickhouse": clickhouse_server}
DOWN = (psycopg.OperationalError, pymysql.err.OperationalError, pymysql.err.InterfaceError, clickhouse.Error)
"""What a reader is told while a server is away."""


@pytest.mark.parametrize("options", ["", "?_journal_mode=WAL"])
def test_syncs_into_sqlite_that_are_killed(tmp_path, options):
    def left():
        return [path.name for path in tmp_path.iterdir() if "-catchment-" in path.name]

    store = at_sqlite(str(tmp_path / "x.sqlite"), options)
    soak = Soak(tmp_path, store, left)
    chance = soak.begin()
    with soak.watched():
        kill_syncs(soak, chance, KILLED_SYNCS)
    soak.check_the_end()
    assert store.query("pragma integrity_check") == [("ok",)]


def test_syncs_into_duckdb_that_are_killed(tmp_path):
    # No other process reads a file that DuckDB writes, so nobody looks on.
    soak = Soak(tmp_path, at_file(str(tmp_path / "x.duckdb")), nothing)
    kill_syncs(soak, soak.begin(), KILLED_SYNCS)
    soak.check_the_end()


@pytest.mark.parametrize("name", SERVERS)
def test_syncs_into_a_server_that_are_killed(request, name):
    with SERVERS[name](request) as (_, soak):
        chance = soak.begin()
        with soak.watched():
            kill_syncs(soak, chance, KILLED_SYNCS)
        soak.check_the_end()


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_killed_while_syncs_run(request, name):
    with SERVERS[name](request) as (server, soak):
        chance = soak.begin()
        with soak.watched(absent=DOWN):
            kill_servers(soak, chance, KILLED_SERVERS, server)
        soak.check_the_end()
