"""What each write mode leaves after each kind of failure, in real databases: the proofs of `docs/guarantees.md`."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import yaml

from catchment.engine.sync import Options, Sync
from tests.cli.run import catchment
from tests.e2e.documents import HERE, destination, made, plan, run, source
from tests.e2e.plugins import until

ROOT = Path(__file__).parent.parent.parent
STATE = {"table_name": "state", "connection": "@@plugins.db.connection"}
ATOMIC = {"write_mode": "overwrite-delete-stale", "publish": "atomic"}
STREAM = {"write_mode": "overwrite-delete-stale", "publish": "stream"}
OVERWRITE, APPEND = {"write_mode": "overwrite"}, {"write_mode": "append"}
MODES = {"atomic": ATOMIC, "stream": STREAM, "overwrite": OVERWRITE, "append": APPEND}
each_mode = pytest.mark.parametrize("mode", MODES)


def ids(store, table="shops"):
    return sorted(number for (number,) in store.query(f"select id from {table}"))


@each_mode
def test_after_a_table_that_broke_off_everything_that_was_there_is_there(store, mode):
    run(source(tables=["shops"], spec={"shops": [1, 2]}), store.document(**MODES[mode]))
    broken = source(tables=["shops"], spec={"shops": [2, 3], "fail": ["shops"]})

    result = run(broken, store.document(**MODES[mode]))

    assert result.outcome == "partial"
    assert ids(store) == ([1, 2, 2, 3] if mode == "append" else [1, 2, 3])


@each_mode
def test_after_a_source_that_died_nothing_that_was_there_is_missing(store, mode):
    run(source(tables=["shops"], spec={"shops": [1, 2]}), store.document(**MODES[mode]))
    dying = source(tables=["shops"], spec={"shops": [2, 3], "fail": ["shops"]}, on_error="stop")

    result = run(dying, store.document(**MODES[mode]))

    assert result.outcome == "failed"
    assert (
        ids(store)
        in {
            "atomic": [[1, 2]],
            "stream": [[1, 2], [1, 2, 3]],
            "overwrite": [[1, 2], [1, 2, 3]],
            "append": [[1, 2], [1, 2, 2, 3]],
        }[mode]
    )


def people(*rows):
    columns = {"id": "int64", "name": "utf8!"}
    return made(shops={"columns": columns, "primary_key": ["id"], "rows": [list(row) for row in rows]})


@each_mode
def test_of_a_batch_with_a_refused_row_nothing_is_written(store, mode):
    run(people((1, "a"), (2, "b")), store.document(**MODES[mode]))

    result = run(people((2, "c"), (3, None), (4, "d")), store.document(**MODES[mode]))

    assert result.outcome == "partial"
    assert sorted(store.query("select id, name from shops")) == [(1, "a"), (2, "b")]


@each_mode
def test_with_max_rejects_every_other_row_arrives_and_nothing_is_deleted(store, mode):
    run(people((1, "a"), (2, "b")), store.document(**MODES[mode]))

    result = run(people((2, None), (3, None), (4, "d")), store.document(**MODES[mode], max_rejects=2))

    assert result.outcome == "partial"
    assert sorted(store.query("select id, name from shops")) == [(1, "a"), (2, "b"), (4, "d")]
    assert store.query("select count(*) from _catchment_rejects") == [(2,)]


@pytest.mark.parametrize("mode", ["stream", "overwrite", "append"])
def test_an_interrupt_keeps_what_was_read_and_what_was_there(store, mode):
    def wide(**more):
        return source("test", "test", ["test_wide_table_0"], spec={"tables": 1, **more})

    run(wide(num_rows=200), store.document(**MODES[mode]))
    slow = wide(num_rows=100_000, rows_per_batch=10, delay="20ms")
    sync = Sync(plan(slow, store.document(**MODES[mode])), Options())
    thread = threading.Thread(target=sync.run)
    thread.start()
    until(lambda: any(row.rows_read > 50 for row in sync.tables()))
    sync.interrupt()
    thread.join(20)

    assert sync.result.outcome == "interrupted"
    [row] = sync.result.tables
    assert row.rows_written == row.rows_read > 50
    found = Counter(ids(store, "test_wide_table_0"))
    assert set(found) >= set(range(200)) or set(found) >= set(range(1, 201))
    assert sum(found.values()) == (200 + row.rows_written if mode == "append" else max(200, row.rows_written))


def sync_and_die(folder, document, **mode):
    """Sync in a process of its own, which is killed at the point that the spec names; its exit code."""
    config = folder / "config.yml"
    shop = source(tables=["shops", "events"], spec={"shops": [2, 3]}, backend_options=STATE)
    config.write_text(yaml.safe_dump_all([shop, document]))
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return catchment("sync", config, "--no-log-file", cwd=folder, PYTHONPATH=found).returncode


POINTS = [
    (mode, point)
    for mode in MODES
    for point in ("after a batch", "before the publish", "after the publish", "before the cursor")
    if mode == "atomic" or "publish" not in point
]


@pytest.mark.parametrize(("mode", "point"), POINTS)
def test_a_killed_process_loses_no_row_and_the_next_sync_repairs_what_it_left(duck, tmp_path, mode, point):
    def shop(*shops):
        return source(tables=["shops", "events"], spec={"shops": list(shops)}, backend_options=STATE)

    def mortal(dies):
        spec = {"connection_string": duck.connection, "dies": dies}
        return destination(path=f"{HERE}:Mortal", spec=spec, **MODES[mode])

    assert run(shop(1, 2), duck.document(**MODES[mode])).outcome == "complete"
    assert duck.query('select "at" from events order by "at"') == [(0,), (1,), (2,)]

    assert sync_and_die(tmp_path, mortal(point)) == -signal.SIGKILL

    # What is killed between its rows and its cursor has its rows; none is half there, and none that was there is gone.
    new, both = [2, 3], [1, 2, 2, 3] if mode == "append" else [1, 2, 3]
    whole = {"atomic": new, "stream": new, "overwrite": both, "append": both}[mode]
    there = {"after a batch": [[1, 2], [1, 2] if mode == "atomic" else both], "before the publish": [[1, 2]]}
    assert ids(duck) in there.get(point, [whole])
    assert {at for (at,) in duck.query('select "at" from events')} in ({0, 1, 2}, {0, 1, 2, 3, 4, 5})

    assert run(shop(2, 3), duck.document(**MODES[mode])).outcome == "complete"

    # The cursor was not saved, so its rows came again: once in the table where there are keys, else at least once.
    times = Counter(at for (at,) in duck.query('select "at" from events'))
    assert set(times) == set(range(6))
    assert set(times.values()) <= ({1, 2} if mode == "append" else {1})
    final = Counter(ids(duck))
    assert set(final) == ({2, 3} if mode in ("atomic", "stream") else {1, 2, 3})
    assert set(final.values()) == {1} or mode == "append"
    assert duck.tables() == ["events", "shops", "state"]
