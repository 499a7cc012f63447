"""The jobs: what we do, what it is held against, and how much it may take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks import data, measure
from benchmarks.clickhouse import clickhouse_jobs
from benchmarks.embedded import embedded_jobs
from benchmarks.mixed import mixed_jobs
from benchmarks.mysql import mysql_jobs
from benchmarks.wire import wire_jobs

SCRIPTS = str(Path(__file__).with_name("scripts.py"))
MEMORY = str(Path(__file__).with_name("memory.py"))
Step = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    name: str
    ours: Callable[[], measure.Sample]
    baseline: Callable[[], measure.Sample] | None = None
    goal: str = ""
    figure: Callable[[measure.Sample, measure.Sample | None], tuple[str, bool]] | None = None
    """What is compared, as text, and whether the goal is met."""


class World:
    """Folder, database server and commands that jobs share."""

    def __init__(self, folder: Path, server: str, binaries: Path) -> None:
        self.folder, self.server = folder, server
        self.psql = str(binaries / "psql")
        with psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection:
            for name in ("bench", "origin"):
                connection.execute(f"create database {name}")
            row = connection.execute("show data_directory").fetchone()
        assert row is not None
        self.process = psutil.Process(int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0]))

    def url(self, database: str = "bench") -> str:
        return f"{self.server} dbname={database}"

    def sql(self, *statements: str, database: str = "bench") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def value(self, query: str) -> str:
        with psycopg.connect(self.url()) as connection:
            row = connection.execute(query).fetchone()
        return str(row[0]) if row else ""

    def constraints(self, table: str) -> list[str]:
        """Primary key and unique constraints that a sync left."""
        query = (
            f"select pg_get_constraintdef(oid) from pg_constraint where conrelid = '{table}'::regclass "
            "and contype in ('p', 'u') order by contype"
        )
        with psycopg.connect(self.url()) as connection:
            return [row[0] for row in connection.execute(query).fetchall()]

    def sync(self, config: Path) -> measure.Sample:
        return measure.run([sys.executable, "-m", "catchment", "sync", str(config), "--progress", "none"], self.process)

    def bash(self, script: str) -> measure.Sample:
        return measure.run(["bash", "-ec", script], self.process)

    def query(self, statement: str, database: str = "bench") -> str:
        """A psql command line for one statement."""
        return f'{self.psql} -qX "{self.url(database)}" -v ON_ERROR_STOP=1 -c "{statement}"'


def ratio(most: float, of: str = "wall_s") -> Callable[[measure.Sample, measure.Sample | None], tuple[str, bool]]:
    """Ours by the baseline, at most `most`."""

    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        assert baseline is not None
        found = getattr(ours, of) / getattr(baseline, of)
        return f"{found:.2f}x {'CPU' if of == 'cpu_s' else 'wall'}", found <= most

    return figure


def both(wall: float, cpu: float) -> Callable[[measure.Sample, measure.Sample | None], tuple[str, bool]]:
    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        by_wall, by_cpu = ratio(wall)(ours, baseline), ratio(cpu, "cpu_s")(ours, baseline)
        return f"{by_wall[0]}, {by_cpu[0]}", by_wall[1] and by_cpu[1]

    return figure


def per_second(
    count: int, unit: str, least: float
) -> Callable[[measure.Sample, measure.Sample | None], tuple[str, bool]]:
    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        return f"{count / ours.wall_s:,.0f} {unit}/s", count / ours.wall_s >= least

    return figure


def slower_by(seconds: float) -> Callable[[measure.Sample, measure.Sample | None], tuple[str, bool]]:
    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        assert baseline is not None
        more = ours.wall_s - baseline.wall_s
        return f"+{more:.2f} s", more <= seconds

    return figure


def parquet_postgresql(world: World, load: data.Load, mode: str, most: float, *, reload: bool = False) -> Job:
    """Parquet into PostgreSQL, against psql's `\\copy` of the very rows that the sync left."""
    name = f"parquet-postgresql-{mode}-{load.name}{'-reload' if reload else ''}"
    destination: dict[str, object] = {"path": "postgresql", "spec": {"connection_string": world.url()}}
    table, csv = load.table, world.folder / f"{load.table}-{load.name}.csv"

    def ours() -> measure.Sample:
        config = data.config(world.folder, name, load.source(), destination, mode)
        if not reload:
            world.sql(f"drop table if exists {table}")
        elif world.value(f"select to_regclass('{table}')") == "None":
            world.sync(config)
        world.sql("checkpoint")
        sample = world.sync(config)
        if not csv.exists():
            world.bash(world.query(f"\\copy {table} to '{csv}' csv"))
        constraints[:] = world.constraints(table)
        world.sql("drop table if exists base", f"create table base (like {table})", "truncate base")
        return sample

    def baseline() -> measure.Sample:
        world.sql("truncate base", "checkpoint")
        copy = world.query("\\copy base from '" + str(csv) + "' csv")
        keys = [world.query(f"alter table base add {definition}") for definition in constraints]
        sample = world.bash("\n".join([copy, *keys]))
        world.sql("drop table base")
        return sample

    constraints: list[str] = []
    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))


_PLAIN_COLUMNS = (
    "l_orderkey bigint not null, l_partkey bigint, l_suppkey bigint, l_linenumber integer not null, "
    "l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2), "
    "l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, l_receiptdate date, "
    "l_shipinstruct text, l_shipmode text, l_comment text, primary key (l_orderkey, l_linenumber)"
)


def origin(world: World) -> None:
    """Lineitem in a database of its own, without `_cq_` columns."""
    with psycopg.connect(world.url("origin"), autocommit=True) as connection:
        row = connection.execute("select to_regclass('lineitem')::text").fetchone()
        if row is not None and row[0]:
            return
        connection.execute(f"create table lineitem ({_PLAIN_COLUMNS})")
        import pgpq
        import pyarrow.parquet as pq

        file = pq.ParquetFile(data.LINEITEM.parquet)
        encoder = None
        with connection.cursor().copy("copy lineitem from stdin (format binary)") as copy:
            for batch in file.iter_batches(65_536):
                if encoder is None:
                    encoder = pgpq.ArrowToPostgresBinaryEncoder(batch.schema)
                    copy.write(encoder.write_header())
                copy.write(encoder.write_batch(batch))
            if encoder is not None:
                copy.write(encoder.finish())
        connection.execute("vacuum analyze lineitem")


def postgresql_postgresql(world: World) -> Job:
    """PostgreSQL to PostgreSQL, against a binary COPY piped from one psql to another."""
    source: dict[str, object] = {"path": "postgresql", "spec": {"connection_string": world.url("origin")}}
    destination: dict[str, object] = {"path": "postgresql", "spec": {"connection_string": world.url()}}
    config = data.config(world.folder, "pgpg", source, destination, "append")

    def ours() -> measure.Sample:
        origin(world)
        world.sql("drop table if exists lineitem", "checkpoint")
        sample = world.sync(config)
        constraints[:] = world.constraints("lineitem")
        world.sql("drop table if exists base", "create table base (like lineitem)")
        for definition in constraints:
            world.sql(f"alter table base add {definition}")
        return sample

    def baseline() -> measure.Sample:
        world.sql("truncate base", "checkpoint")
        # The rows that the sync left, `_cq_` columns and all: nothing has to be made up on the way.
        read = world.query("copy lineitem to stdout binary")
        return world.bash(f"{read} | {world.query('copy base from stdin binary')}")

    constraints: list[str] = []
    return Job("postgresql-postgresql-append-6m", ours, baseline, "<= 1.5x wall, 1.4x CPU", both(1.5, 1.4))


def wide(world: World, destination_name: str, least: float) -> Job:
    """500 tables of 200 rows and 30 columns."""
    path = world.folder / "wide.duckdb"
    spec = str(path) if destination_name == "duckdb" else world.url()
    source: dict[str, object] = {"path": "test", "skip_tables": ["test_some_table", "test_paid_table"],
                                 "skip_dependent_tables": True,
                                 "spec": {"tables": 500, "num_rows": 200, "columns": 30}}  # fmt: skip
    destination: dict[str, object] = {"path": destination_name, "spec": {"connection_string": spec}}
    config = data.config(world.folder, f"wide-{destination_name}", source, destination, "overwrite-delete-stale")

    def ours() -> measure.Sample:
        path.unlink(missing_ok=True)
        if destination_name == "postgresql":
            with psycopg.connect(world.url(), autocommit=True) as connection:
                found = connection.execute("select tablename from pg_tables where tablename like 'test_wide%'")
                for (name,) in found.fetchall():
                    connection.execute(f'drop table "{name}"')
        return world.sync(config)

    return Job(
        f"500-tables-{destination_name}", ours, None, f">= {least:.0f} tables/s", per_second(500, "tables", least)
    )


def test_to_test(world: World) -> Job:
    """20 columns from the test source to the test destination, 10 million rows."""
    source: dict[str, object] = {
        "path": "test", "skip_tables": ["test_some_table", "test_paid_table"], "skip_dependent_tables": True,
        "spec": {"tables": 1, "num_rows": 10_000_000, "columns": 20},
    }  # fmt: skip
    config = data.config(world.folder, "test-test", source, {"path": "test"}, "append")
    return Job("test-test-10m-rows", lambda: world.sync(config), None, ">= 1,000,000 rows/s",
               per_second(10_000_000, "rows", 1e6))  # fmt: skip


def slow_destination(world: World) -> Job:
    """10 million rows of lineitem into a destination that sleeps at each batch: how much memory the sync adds."""
    paths = [str(data.LINEITEM.parquet)]
    for number in range(4):
        part = world.folder / f"part-{number}.parquet"
        part.symlink_to(data.LINEITEM_1M.parquet)
        paths.append(str(part))
    table = {"name": "lineitem", "path": paths}
    source: dict[str, object] = {"path": "file", "spec": {"path": paths, "tables": [table]}}
    destination: dict[str, object] = {"path": "test", "spec": {"delay": "50ms"}}
    config = data.config(world.folder, "slow", source, destination, "append")
    added: list[float] = []

    def ours() -> measure.Sample:
        done = subprocess.run(
            [sys.executable, MEMORY, str(config)],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"added (\d+) MB", done.stdout)
        added.append(float(found[1]) if found else float("inf"))
        return measure.Sample(0.0, 0.0, sorted(added)[len(added) // 2])

    def figure(ours: measure.Sample, baseline: measure.Sample | None) -> tuple[str, bool]:
        return f"+{ours.peak_mb:.0f} MB", ours.peak_mb <= 300

    return Job("10m-rows-slow-destination", ours, None, "<= +300 MB", figure)


def start_up(world: World) -> list[Job]:
    """What every run pays."""
    one = world.folder / "one.duckdb"
    source: dict[str, object] = {"path": "test", "skip_tables": ["test_some_table"], "skip_dependent_tables": True,
                                 "tables": ["test_paid_table"]}  # fmt: skip
    destination: dict[str, object] = {"path": "duckdb", "spec": {"connection_string": str(one)}}
    config = data.config(world.folder, "one-row", source, destination, "overwrite-delete-stale")

    def one_row() -> measure.Sample:
        one.unlink(missing_ok=True)
        return world.sync(config)

    def bare() -> measure.Sample:
        return measure.run([sys.executable, "-c", "pass"])

    script = str(Path(sys.executable).with_name("catchment"))
    script = script if Path(script).exists() else shutil.which("catchment") or script
    return [
        Job("help", lambda: measure.run([script, "--help"]), bare, "<= +0.12 s", slower_by(0.12)),
        Job("one-row-test-duckdb", one_row, bare, "<= +0.8 s", slower_by(0.8)),
    ]


def all_jobs(world: World) -> list[Job]:
    """Every line of the table, in order."""
    return [
        parquet_postgresql(world, data.LINEITEM, "append", 0.65),
        parquet_postgresql(world, data.LINEITEM_1M, "append", 0.85),
        parquet_postgresql(world, data.LINEITEM, "overwrite-delete-stale", 0.8),
        parquet_postgresql(world, data.LINEITEM, "overwrite-delete-stale", 0.8, reload=True),
        postgresql_postgresql(world),
        *embedded_jobs(world),
        *clickhouse_jobs(world),
        *mysql_jobs(world),
        *mixed_jobs(world),
        wide(world, "duckdb", 60),
        wide(world, "postgresql", 40),
        test_to_test(world),
        slow_destination(world),
        *start_up(world),
        *wire_jobs(world),
    ]
