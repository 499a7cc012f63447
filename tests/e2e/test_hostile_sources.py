"""Databases that are read, whose tables, columns and schemas have names that want to be statements."""

from __future__ import annotations

import contextlib
import sqlite3

import psycopg
import pytest

from tests.e2e.documents import messages, run, source
from tests.e2e.test_hostile_names import AWKWARD, NAMES

# What a database itself does not take as a name of a table is no danger.
LONG = {name for name in AWKWARD.values() if len(name) > 60 or "\0" in name}
ALL = [*NAMES, *(name for name in AWKWARD.values() if name not in LONG)]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def statements(name, schema=""):
    table = f"{quoted(schema)}.{quoted(name)}" if schema else quoted(name)
    return [
        f"create table {table} ({quoted(name)} varchar(200) primary key, id int)",
        f"insert into {table} values ('{name.replace(chr(39), chr(39) * 2)}', 7)",
    ]


def check(store, document, name):
    for publish in ("atomic", "stream"):
        result = run(document, store.document(publish=publish))
        assert result.outcome == "complete", messages(result) + result.sources[0].error
        [row] = result.tables
        assert (row.table, row.rows_written) == (name, 1)
    assert store.query(f"select {quoted(name)}, id from {quoted(name)}") == [(name, 7)]


@pytest.mark.parametrize("name", ALL)
def test_a_sqlite_file(duck, tmp_path, name):
    path = tmp_path / "shop.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table bystander (id int)")
        for statement in statements(name):
            connection.execute(statement)

    spec = {"connection_string": str(path)}
    check(duck, source("s", "sqlite", ["*"], spec=spec, skip_tables=["bystander"]), name)

    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from bystander").fetchall() == [(0,)]


@pytest.mark.parametrize("name", ALL)
def test_a_postgresql_database(duck, postgresql_url, name):
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("create table bystander (id int)")
        connection.execute(f"create schema {quoted(name)}")
        for statement in statements(name, name):
            connection.execute(statement)

    spec = {"connection_string": postgresql_url, "schema_name": name}
    check(duck, source("s", "postgresql", ["*"], spec=spec), name)

    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("select count(*) from bystander").fetchall() == [(0,)]
