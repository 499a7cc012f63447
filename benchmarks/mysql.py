"""Parquet into MariaDB, against `load data local infile` of the CSV of the rows that the sync left, without a key."""

from __future__ import annotations

import atexit
import contextlib
import shlex
import sys
from typing import TYPE_CHECKING

import psutil
import pymysql
from tests import services

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World

CSV = "character set binary fields terminated by ',' optionally enclosed by '\"'"


class Server:
    """A MariaDB server that the first job starts and the end of the program stops."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._server: services.MySQLServer | None = None

    @property
    def started(self) -> services.MySQLServer:
        """The server, with a database for the jobs."""
        if self._server is None:
            self._server = self._stack.enter_context(services.mariadb("--innodb-buffer-pool-size=512M"))
            atexit.register(self._stack.close)
            self._server.run("create database bench")
        return self._server

    @property
    def process(self) -> psutil.Process:
        """What it computes counts."""
        assert self.started.process is not None
        return psutil.Process(self.started.process.pid)

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        """Execute statements; the rows of the last."""
        with (
            pymysql.connect(
                host="127.0.0.1", port=self.started.port, user="root", database="bench", autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def client(self, statement: str) -> list[str]:
        """The command line of MariaDB's own client for one statement."""
        options = f"--no-defaults --local-infile=1 -h127.0.0.1 -P{self.started.port} -uroot bench"
        return ["mariadb", *shlex.split(options), "-e", statement]


def mysql_jobs(world: World) -> list[Job]:
    """First load and re-load."""
    server = Server()
    return [
        _into_mysql(world, server, load, most, reload=reload)
        for load in (data.LINEITEM, data.LINEITEM_1M, data.MIXED)
        for reload, most in ((False, 1.3), (True, 2.0))
    ]


def _into_mysql(world: World, server: Server, load: data.Load, most: float, *, reload: bool) -> Job:
    from benchmarks.jobs import Job, ratio

    name = f"parquet-mysql-{'reload' if reload else 'append'}-{load.name}"
    mode = "overwrite-delete-stale" if reload else "append"
    table = load.table
    loaded: list[bool] = []

    def ours() -> measure.Sample:
        destination: dict[str, object] = {"path": "mysql", "spec": {"connection_string": server.started.dsn("bench")}}
        config = data.config(world.folder, name, load.source(), destination, mode)
        if not (reload and loaded):
            server.run(f"drop table if exists {table}")
        if reload and not loaded:
            world.sync(config)
        loaded[:] = [True]
        return measure.run(
            [sys.executable, "-m", "catchment", "sync", str(config), "--progress", "none"], server.process
        )

    def baseline() -> measure.Sample:
        csv = server.started.root / f"{name}.csv"
        csv.unlink(missing_ok=True)
        server.run(
            f"select * into outfile '{csv}' {CSV} from {table}",
            "drop table if exists base",
            f"create table base like {table}",
        )
        for (key,) in set(server.run("select distinct index_name from information_schema.statistics "
                                     "where table_schema = 'bench' and table_name = 'base'")):  # fmt: skip
            server.run(f"alter table base drop {'primary key' if key == 'PRIMARY' else f'index `{key}`'}")
        sample = measure.run(server.client(f"load data local infile '{csv}' into table base {CSV}"), server.process)
        assert server.run("select count(*) from base") == server.run(f"select count(*) from {table}")
        server.run("drop table base")
        csv.unlink()
        return sample

    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))
