"""A table of many kinds of values into PostgreSQL: uuid, jsonb, timestamptz, text[] and what else people have."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World

ROWS = 1_000_000


def mixed() -> Path:
    """A million rows of 16 columns as Parquet, made once."""
    path = data.DATA / "mixed.parquet"
    if path.exists():
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(1)
    numbers = range(ROWS)
    ids = pa.array(numbers, pa.int64())
    moments = [1_600_000_000_000_000 + number * 1_000_000 for number in numbers]
    texts = [f"name of {number % 9973}, and more" for number in numbers]
    table = pa.table(
        {
            "id": ids,
            "uid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(_bytes(chance, 16), pa.binary(16))),
            "payload": pa.ExtensionArray.from_storage(
                pa.json_(),
                pa.array([f'{{"id": {n}, "tags": ["a", "b"], "nested": {{"x": {n % 7}}}}}' for n in numbers]),
            ),
            "created": pa.array(moments, pa.timestamp("us", "UTC")),
            "changed": pa.array(moments, pa.timestamp("us")),
            "tags": pa.array([["red", f"tag-{number % 31}"] for number in numbers]),
            "name": pa.array(texts),
            "note": pa.array([None if number % 10 == 0 else text for number, text in enumerate(texts)]),
            "email": pa.array([f"user{number}@example.org" for number in numbers]),
            "amount": pa.array([number * 12_345 for number in numbers], pa.int64()).cast(pa.decimal128(23, 4)),
            "ratio": pa.array([chance.random() for _ in numbers]),
            "visits": pa.array([None if number % 9 == 0 else number % 1000 for number in numbers], pa.int32()),
            "active": pa.array([number % 3 == 0 for number in numbers]),
            "day": pa.array([18_000 + number % 2000 for number in numbers], pa.int32()).cast(pa.date32()),
            "hash": pa.array(_bytes(chance, 20), pa.binary()),
            "country": pa.array(["ch", "de", "us", "jp"] * (ROWS // 4)),
        }
    )
    pq.write_table(table, path, row_group_size=100_000)
    return path


def _bytes(chance: random.Random, size: int) -> list[bytes]:
    whole = chance.randbytes(size * ROWS)
    return [whole[start : start + size] for start in range(0, size * ROWS, size)]


def mixed_jobs(world: World) -> list[Job]:
    """Append and re-load of the mixed table, and a re-load that is merged into the live one."""
    from benchmarks.jobs import Job, ratio

    def job(name: str, mode: str, most: float, hand: str) -> Job:
        file = str(data.DATA / "mixed.parquet")
        table = {"name": "mixed", "path": file, "primary_keys": ["id"]}
        source: dict[str, object] = {"path": "file", "spec": {"path": file, "tables": [table]}}
        destination: dict[str, object] = {"path": "postgresql", "spec": {"connection_string": world.url()}}
        csv = world.folder / "mixed.csv"
        constraints: list[str] = []

        def ours() -> measure.Sample:
            mixed()
            config = data.config(world.folder, name, source, destination, mode)
            if mode == "append":
                world.sql("drop table if exists mixed")
            elif not _is_keyed(world):
                world.sql("drop table if exists mixed")
                world.sync(config)
            world.sql("checkpoint")
            sample = world.sync(config)
            if not csv.exists():
                world.bash(world.query("\\copy mixed to '" + str(csv) + "' csv"))
            constraints[:] = world.constraints("mixed")
            world.sql("drop table if exists base", "create table base (like mixed)", "truncate base")
            if hand == "merge":
                world.sql(*(f"alter table base add {each}" for each in constraints))
                world.bash(world.query("\\copy base from '" + str(csv) + "' csv"))
            return sample

        def baseline() -> measure.Sample:
            copied = "\\copy {} from '" + str(csv) + "' csv"
            if hand == "merge":
                world.sql("checkpoint", "create table given (like base)")
                columns = world.value(
                    "select string_agg(format('%I = excluded.%I', attname, attname), ', ') from pg_attribute "
                    "where attrelid = 'base'::regclass and attnum > 0 and attname <> 'id'"
                )
                merge = f"insert into base select * from given on conflict (id) do update set {columns}"
                sample = world.bash(f"{world.query(copied.format('given'))}\n{world.query(merge)}")
                world.sql("drop table given")
            else:
                world.sql("truncate base", "checkpoint")
                keys = [world.query(f"alter table base add {each}") for each in constraints if hand == "keys"]
                sample = world.bash("\n".join([world.query(copied.format("base")), *keys]))
            world.sql("drop table base")
            return sample

        return Job(name, ours, baseline, f"<= {most}x wall", ratio(most))

    return [
        job("mixed-postgresql-append-1m", "append", 0.75, ""),
        job("mixed-postgresql-reload-1m", "overwrite-delete-stale", 0.8, "keys"),
        job("mixed-postgresql-merged-1m", "overwrite", 1.3, "merge"),
    ]


def _is_keyed(world: World) -> bool:
    query = "select count(*) from pg_constraint where conrelid = to_regclass('mixed') and contype = 'p'"
    return world.value(query) == "1"
