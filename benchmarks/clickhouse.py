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


def clickhouse_jobs(world: World) -> list[Job]:
    """First load and re-load."""
    server = Server()
    return [
        _into_clickhouse(world, server, million, most, reload=reload)
        for million in (6, 1)
        for reload, most in ((False, 1.2), (True, 1.5))
    ]


def _into_clickhouse(world: World, server: Server, million: int, most: float, *, reload: bool) -> Job:
    from benchmarks.jobs import SCRIPTS, Job, ratio

    name = f"parquet-clickhouse-{'reload' if reload else 'append'}-{million}m"
    mode = "overwrite-delete-stale" if reload else "append"
    target: list[str] = []

    def ours() -> measure.Sample:
        destination: dict[str, object] = {"path": "clickhouse", "spec": {"connection_string": server.url}}
        config = data.config(world.folder, name, data.parquet_source(data.lineitem(million)), destination, mode)
        if not (reload and target):
            server.run("drop table if exists lineitem sync")
        if reload and not target:
            world.sync(config)
        sample = measure.run(
            [sys.executable, "-m", "catchment", "sync", str(config), "--progress", "none"], server.process
        )
        target[:] = [str(server.run("show create table lineitem")[0][0]).replace("bench.lineitem", "bench.base", 1)]
        return sample

    def baseline() -> measure.Sample:
        server.run("drop table if exists base sync")
        server.run(target[0])
        command = [sys.executable, SCRIPTS, "parquet_clickhouse", str(data.lineitem(million)), server.url]
        sample = measure.run(command, server.process)
        server.run("drop table base sync")
        return sample

    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))
