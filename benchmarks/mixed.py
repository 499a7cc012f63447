"""A table of many kinds of values into PostgreSQL: uuid, jsonb, timestamptz, text[] and what else people have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import data, measure

if TYPE_CHECKING:
    from benchmarks.jobs import Job, World


def mixed_jobs(world: World) -> list[Job]:
    """Append and re-load of the mixed table, and a re-load that is merged into the live one."""
    from benchmarks.jobs import Job, ratio

    def job(name: str, mode: str, most: float, hand: str) -> Job:
        destination: dict[str, object] = {"path": "postgresql", "spec": {"connection_string": world.url()}}
        csv = world.folder / "mixed.csv"
        constraints: list[str] = []

        def ours() -> measure.Sample:
            config = data.config(world.folder, name, data.MIXED.source(), destination, mode)
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
