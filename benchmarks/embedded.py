"""Parquet, and PostgreSQL, into databases that are a file: DuckDB and SQLite."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World


def embedded_jobs(world: World) -> list[Job]:
    """First load and re-load of every set of rows."""
    return [
        _into_duckdb(world, data.LINEITEM, 1.2, start="postgresql"),
        *(
            _into_duckdb(world, load, most, reload=reload)
            for load in (data.LINEITEM, data.MIXED)
            for reload, most in ((False, 1.2), (True, 1.4))
        ),
        *(
            _into_sqlite(world, load, most, reload=reload)
            for load in (data.LINEITEM, data.LINEITEM_1M, data.MIXED)
            for reload, most in ((False, 1.3), (True, 2.5))
        ),
    ]


def _into_duckdb(world: World, load: data.Load, most: float, *, start: str = "parquet", reload: bool = False) -> Job:
    """Against DuckDB inserting from an Arrow reader of the same rows, into a table as the sync left it."""
    from benchmarks.jobs import SCRIPTS, Job, origin, ratio

    name = f"{start}-duckdb-{'reload' if reload else 'append'}-{load.name}"
    mine, theirs = world.folder / f"{name}.duckdb", world.folder / f"{name}-base.duckdb"
    target: list[str] = []
    compared: list[bool] = []

    def ours() -> measure.Sample:
        source = load.source()
        if start == "postgresql":
            origin(world)
            source = {"path": "postgresql", "spec": {"connection_string": world.url("origin")}}
        sample = _synced(world, name, source, mine, reload=reload)
        target[:] = [_definition(mine, load.table)]
        return sample

    def baseline() -> measure.Sample:
        theirs.unlink(missing_ok=True)
        where = str(load.parquet) if start == "parquet" else world.url("origin")
        command = [sys.executable, SCRIPTS, f"{start}_duckdb", where, str(theirs), load.table, target[0]]
        sample = measure.run(command, world.process)
        if not compared:
            found, expected = _content(theirs, load.table), _content(mine, load.table)
            assert found == expected, f"{name}: {found} is not {expected}"
            compared.append(True)
        theirs.unlink()
        return sample

    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))


def _into_sqlite(world: World, load: data.Load, most: float, *, reload: bool) -> Job:
    """Against ADBC ingesting the same rows in one transaction, into a table without a key."""
    from benchmarks.jobs import SCRIPTS, Job, ratio

    name = f"parquet-sqlite-{'reload' if reload else 'append'}-{load.name}"
    mine, theirs = world.folder / f"{name}.sqlite", world.folder / f"{name}-base.sqlite"
    stored = world.folder / f"{name}-stored.parquet"

    def ours() -> measure.Sample:
        return _synced(world, name, load.source(), mine, reload=reload)

    def baseline() -> measure.Sample:
        parquet = load.parquet
        if load is data.MIXED:
            # ADBC takes neither lists nor uuids: it is given the values that stand for them.
            parquet = stored
            if not stored.exists():
                _read_back(mine, load.table, stored)
        theirs.unlink(missing_ok=True)
        sample = measure.run([sys.executable, SCRIPTS, "parquet_sqlite", str(parquet), str(theirs), load.table])
        theirs.unlink()
        return sample

    return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))


def _synced(world: World, name: str, source: dict[str, object], file: Path, *, reload: bool) -> measure.Sample:
    """A sync into a new database, or another one into that of the sync before."""
    destination: dict[str, object] = {"path": file.suffix[1:], "spec": {"connection_string": str(file)}}
    mode = "overwrite-delete-stale" if reload else "append"
    config = data.config(world.folder, name, source, destination, mode)
    if not reload:
        file.unlink(missing_ok=True)
    elif not file.exists():
        world.sync(config)
    return world.sync(config)


def _definition(file: Path, table: str) -> str:
    """The statement that makes a table as it is in the file."""
    import duckdb

    with duckdb.connect(str(file), read_only=True) as connection:
        row = connection.execute("select sql from duckdb_tables() where table_name = ?", [table]).fetchone()
    assert row is not None
    return re.sub(r"(?i)create table (if not exists )?", "create table ", row[0])


def _content(file: Path, table: str) -> tuple[object, ...]:
    """How many rows a table has, and a sum over each column's values, without those that every sync makes up."""
    import duckdb

    with duckdb.connect(str(file), read_only=True) as connection:
        row = connection.execute(
            f"select count(*), sum(hash(columns(lambda c: not starts_with(c, '_cq_')))::hugeint) from {table}"
        ).fetchone()
    assert row is not None
    return tuple(row)


def _read_back(file: Path, table: str, parquet: Path) -> None:
    """What SQLite holds in a table, as Parquet."""
    import adbc_driver_sqlite.dbapi as adbc
    import pyarrow.parquet as pq

    with adbc.connect(str(file)) as connection, connection.cursor() as cursor:
        # The driver takes a column's type from the first batch, where all may be null.
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
        cursor.execute(f"select * from {table}")
        reader = cursor.fetch_record_batch()
        with pq.ParquetWriter(parquet, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
