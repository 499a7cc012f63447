"""Threads and memory: bounded, held up by a slow reader, and gone when the reader is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pyarrow as pa

from catchment.errors import Transient
from catchment.messages import Insert
from catchment.plugin import SyncRequest
from catchment.sdk import scheduler as sdk_scheduler
from tests.sdk.conftest import scheduler_threads
from tests.sdk.made import (
    EVERYTHING,
    add,
    counted,
    failing,
    make_source,
    noting,
    regions,
    rows,
    run,
)


def test_closing_early_stops_functions_that_are_blocked_sending():
    ended = []

    def read(ctx):
        try:
            while True:
                yield pa.RecordBatch.from_pydict({"id": list(range(10_000)), "name": ["x" * 20] * 10_000})
        finally:
            ended.append(ctx.client.id)

    source = make_source()
    parent = add(source, "a", read, multiplex=regions("eu", "us"))
    add(source, "b", read, multiplex=regions("ap"))
    add(source, "c", read, parent=parent)
    host = source.as_plugin()
    host.init({})
    messages = host.sync(SyncRequest(EVERYTHING))
    while not isinstance(next(messages), Insert):
        pass
    time.sleep(0.3)

    started = time.monotonic()
    messages.close()

    assert time.monotonic() - started < 5
    assert scheduler_threads() == []
    assert set(ended) == {"eu", "us", "ap"}, "a function's own clean-up runs"


def test_closing_before_the_first_row_starts_nothing():
    read: list[Any] = []
    source = make_source()
    add(source, "a", noting(read))
    host = source.as_plugin()
    host.init({})
    messages = host.sync(SyncRequest(EVERYTHING))
    next(messages)
    messages.close()

    assert read == []


def test_closing_does_not_wait_out_a_pause_between_tries():
    source = make_source()
    add(source, "a", failing(Transient("busy", retry_after_s=60.0)))
    add(source, "b", counted(1))
    host = source.as_plugin()
    host.init({})
    messages = host.sync(SyncRequest(EVERYTHING))
    while not isinstance(next(messages), Insert):
        pass

    started = time.monotonic()
    messages.close()

    assert time.monotonic() - started < 5


BATCH_BYTES = 1 << 20


def test_a_slow_reader_holds_table_functions_up():
    made = []

    def read(ctx):
        for number in range(100):
            made.append(number)
            yield pa.RecordBatch.from_pydict({"id": pa.array([number]), "name": pa.array(["x" * BATCH_BYTES])})

    source = make_source()
    add(source, "a", read)
    host = source.as_plugin()
    host.init({})
    messages = host.sync(SyncRequest(EVERYTHING))
    taken = 0
    ahead = []
    for message in messages:
        if isinstance(message, Insert):
            taken += 1
            time.sleep(0.02)
            ahead.append(len(made) - taken)

    assert taken == 100
    # What waits in the channel, the one that is blocked on it, and the one the function has begun to make.
    assert max(ahead) <= sdk_scheduler.CHANNEL_BYTES // BATCH_BYTES + 2
    assert max(ahead) > 1, "the function runs ahead of the reader at all"


def test_children_hold_up_their_parents():
    made = []

    def read(ctx):
        for number in range(20):
            made.append(number)
            yield [{"id": number}]

    def child(ctx):
        return [pa.RecordBatch.from_pydict({"id": [1], "name": ["x" * 8 * BATCH_BYTES]})]

    source = make_source()
    parent = add(source, "a", read)
    add(source, "b", child, parent=parent)
    host = source.as_plugin()
    host.init({})
    taken = 0
    for message in host.sync(SyncRequest(EVERYTHING)):
        if isinstance(message, Insert) and message.table.name == "b":
            taken += 1
            time.sleep(0.02)
            assert len(made) <= taken + 3

    assert taken == 20


def test_no_more_table_functions_run_at_once_than_a_level_has_threads():
    lock = threading.Lock()
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def read(name):
        def function(ctx):
            with lock:
                running[name] += 1
                most[name] = max(most[name], running[name])
            time.sleep(0.01)
            with lock:
                running[name] -= 1
            return [{"id": number} for number in range(30)]

        return function

    source = make_source()
    parent = add(source, "a", read("a"), multiplex=regions(*map(str, range(40))))
    add(source, "b", lambda ctx: list(read("b")(ctx))[:1], parent=parent)

    messages = run(source)

    assert len(rows(messages, "b")) == 40 * 30
    assert 1 < most["a"] <= sdk_scheduler.THREADS
    assert 1 < most["b"] <= sdk_scheduler.THREADS


def test_a_function_that_hangs_does_not_keep_the_process_from_ending():
    script = """
import threading, time
import pyarrow as pa
from catchment.plugin import SyncRequest
from catchment.schema.select import Selection
from catchment.sdk import Source, Spec
source = Source("made", spec=Spec, client=lambda spec: None)
reached = threading.Event()

@source.table(pa.schema([("id", pa.int64())]))
def hangs(ctx):
    reached.set()
    time.sleep(60)
    yield {"id": 1}

host = source.as_plugin()
host.init({})
threading.Thread(target=lambda: list(host.sync(SyncRequest(Selection()))), daemon=True).start()
reached.wait(30)
"""
    started = time.monotonic()

    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)

    assert time.monotonic() - started < 40
