"""Empty PostgreSQL databases, used again: to make one and to drop it takes longer than most tests."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator

import psycopg

_numbers = itertools.count(1)
_FIRST_OID_OF_USERS = 16_384
_RELEASE_WITH_THIS_PUBLIC_SCHEMA = 150_000

OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
"""
SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
EMPTY = """
{schemas};
create schema public authorization pg_database_owner;
grant usage on schema public to public;
comment on schema public is 'standard public schema'
"""
CATALOGUES = """
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'oid'
where c.relkind = 'r' and not c.relisshared and c.relnamespace = 'pg_catalog'::regnamespace
"""
SETTINGS = """
select (select count(*) from pg_db_role_setting where setdatabase = d.oid)
     + (d.datacl is not null)::int + (d.datconnlimit <> -1)::int + (pg_get_userbyid(d.datdba) <> current_user)::int
from pg_database d where d.datname = current_database()
"""


class Pool:
    """The databases of one server that nothing is in."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._empty: list[str] = []

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A connection string of an empty database, whose name none had before."""
        name = f"catchment_{next(_numbers)}"
        used = f'alter database "{self._empty.pop()}" rename to' if self._empty else "create database"
        self._run(f'{used} "{name}"')
        url = f"{self._server} dbname={name}"
        yield url
        if _is_emptied(url):
            self._empty.append(name)
        else:
            self._run(f'drop database "{name}" with (force)')

    def _run(self, statement: str) -> None:
        with psycopg.connect(f"{self._server} dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)


@functools.cache
def pool(server: str) -> Pool:
    """The pool of a server."""
    return Pool(server)


def _are_ended(connection: psycopg.Connection) -> bool:
    """Whether all other sessions of the database are ended; the server's own way looks ten times a second only."""
    until = time.monotonic() + 5
    while connection.execute(OTHERS).fetchall():
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def _is_emptied(url: str) -> bool:
    """Drop what is in a database; whether it is now as a new one is, in everything that a database has of its own."""
    try:
        with psycopg.connect(url, autocommit=True, options="-c lock_timeout=2s") as connection:
            if connection.info.server_version < _RELEASE_WITH_THIS_PUBLIC_SCHEMA:
                return False
            if not _are_ended(connection):
                return False
            schemas = [psycopg.sql.Identifier(name) for (name,) in connection.execute(SCHEMAS)]
            drop = psycopg.sql.SQL("drop schema {} cascade").format(psycopg.sql.SQL(", ").join(schemas))
            connection.execute(psycopg.sql.SQL(EMPTY).format(schemas=drop) if schemas else "select 1")
            catalogues = [name for (name,) in connection.execute(CATALOGUES)]
            counts = " + ".join(
                f"(select count(*) from {name} where oid >= {_FIRST_OID_OF_USERS})" for name in catalogues
            )
            # The new schema `public` is the one object there.
            return connection.execute(f"select ({counts}), ({SETTINGS})").fetchall() == [(1, 0)]
    except psycopg.Error:
        return False
