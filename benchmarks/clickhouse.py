"""Parquet into ClickHouse, against `insert_arrow` of the same rows into the same table."""

from __future__ import annotations

import atexit
import contextlib
import sys
from typing import TYPE_CHECKING

import psutil
from tests import services
from tests.destinations.clickhouse import asking

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World


class Server:
    """A ClickHouse server that the first job starts and the end of the program stops."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._server: services.ClickHouseServer | None = None

    @property
    def url(self) -> str:
        """The database of the jobs."""
        if self._server is None:
            self._server = self._stack.enter_context(services.clickhouse())
            atexit.register(self._stack.close)
            self.run("create database if not exists bench", "default")
        return self._server.url + "bench"

    @property
    def process(self) -> psutil.Process:
        """What it computes counts."""
        assert self._server is not None
        assert self._server.process is not None
        return psutil.Process(self._server.process.pid)

    def run(self, statement: str, database: str = "bench") -> list[tuple[object, ...]]:
        """A statement, and its rows."""
        assert self._server is not None
        with asking(self._server.url + database) as ask:
            return ask(statement)

    def content(self, table: str) -> tuple[object, ...]:
        """How many rows a table has, and a sum over each column's values, without those that every sync makes up."""
        return self.run(f"select count(), * except '^_cq_' apply cityHash64 apply sum from {table}")[0]


def clickhouse_jobs(world: World) -> list[Job]:
    """First load and re-load."""
    server = Server()
    return [
        _into_clickhouse(world, server, load, most, reload=reload)
        for load in (data.LINEITEM, data.LINEITEM_1M, data.MIXED)
        for reload, most in ((False, 1.2), (True, 1.5))
    ]


def _into_clickhouse(world: World, server: Server, load: data.Load, most: float, *, reload: bool) -> Job:
    from benchmarks.jobs import SCRIPTS, Job, ratio

    name = f"parquet-clickhouse-{'reload' if reload else 'append'}-{load.name}"
    mode = "overwrite-delete-stale" if reload else "append"
    table = load.table
    target: list[str] = []
    compared: list[bool] = []

    def ours() -> measure.Sample:
        destination: dict[str, object] = {"path": "clickhouse", "spec": {"connection_string": server.url}}
        config = data.config(world.folder, name, load.source(), destination, mode)
        if not (reload and target):
            server.run(f"drop table if exists {table} sync")
        if reload and not target:
            world.sync(config)
        sample = measure.run(
            [sys.executable, "-m", "catchment", "sync", str(config), "--progress", "none"], server.process
        )
        target[:] = [str(server.run(f"show create table {table}")[0][0]).replace(f"bench.{table}", "bench.base", 1)]
        return sample

    def baseline() -> measure.Sample:
        server.run("drop table if exists base sync")
        server.run(target[0])
        command = [sys.executable, SCRIPTS, "parquet_clickhouse", str(load.parquet), server.url]
        sample = measure.run(command, server.process)
        if not compared:
            found, expected = server.content("base"), server.content(table)
            assert found == expected, f"{name}: {found} is not {expected}"
            compared.append(True)
        server.run("drop table base sync")
        return sample

    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))
