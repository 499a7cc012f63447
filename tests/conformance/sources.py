"""One case for each registered source, with real data to read."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from catchment.plugin import SourcePlugin
from catchment.sources.file import file
from catchment.sources.postgresql import postgresql
from catchment.sources.sqlite import sqlite
from catchment.sources.test import test
from catchment.testing import SourceCase
from tests.conformance.destinations import url_of

Made = tuple[SourcePlugin, dict[str, Any]]


def _file(folder: Path) -> Made:
    (folder / "people.csv").write_text("id,name,born,score\n1,Ada,1815-12-10,1.5\n2,Grace,1906-12-09,\n")
    (folder / "events.jsonl").write_text('{"id": 1, "tags": ["a"], "at": "2024-01-01T00:00:00Z"}\n{"id": 2}\n')
    tables = [{"name": "people", "path": "people.csv", "primary_keys": ["id"]}]
    return file.as_plugin(), {"path": str(folder), "tables": tables}


def _sqlite(folder: Path) -> Made:
    connection = sqlite3.connect(folder / "x.sqlite")
    connection.executescript(
        """
        create table people (id integer primary key, name text not null, score real, photo blob, is_admin boolean);
        insert into people values (1, 'Ada', 1.5, x'00ff', true), (2, 'Grace', null, null, false);
        create table "order lines" (number integer, line integer, note, primary key (number, line)) without rowid;
        insert into "order lines" values (1, 1, 'text'), (1, 2, 7);
        """
    )
    connection.close()
    return sqlite.as_plugin(), {"connection_string": str(folder / "x.sqlite")}


def _postgresql(folder: Path) -> Made:
    url = url_of(folder)
    with psycopg.connect(url) as connection:
        connection.execute(
            """
            create table people (id bigint primary key, name text not null, score numeric(10,2), born date,
                                 seen timestamptz, extra jsonb, address inet, tags text[], uid uuid);
            insert into people values
                (1, 'Ada', 1.25, '1815-12-10', '2024-01-02 03:04:05.678901+02', '{"a": [1]}', '10.0.0.1/8',
                 '{a,NULL,b}', '00000000-0000-0000-0000-000000000001'),
                (2, 'Grace', null, null, null, null, null, null, null);
            """
        )
    return postgresql.as_plugin(), {"connection_string": f"{url} password=very-secret"}


def _test(folder: Path) -> Made:
    return test.as_plugin(), {"num_clients": 1, "num_rows": 3, "tables": 2, "columns": 12}


CASES = [
    SourceCase("file", _file, required_key="path", own_names=True),
    SourceCase("sqlite", _sqlite, required_key="connection_string", own_names=True),
    SourceCase("postgresql", _postgresql, requires=["postgresql_folder"], required_key="connection_string",
               own_names=True, secrets=["very-secret"]),
    SourceCase("test", _test),
]  # fmt: skip
