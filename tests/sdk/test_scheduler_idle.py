"""`timeouts.idle` in process: tables that say nothing for so long have failed, and what was read whole is whole."""

from __future__ import annotations

import threading
import time

import pytest

from catchment.errors import PluginError
from catchment.messages import ClientDone, TableError
from catchment.plugin import SyncRequest
from tests.e2e.conftest import at_file
from tests.e2e.documents import run as run_config
from tests.e2e.documents import source
from tests.sdk.made import EVERYTHING, add, make_source, of, regions, run

HERE = "tests.sdk.test_scheduler_idle"


def some(count):
    """A function with so many rows."""
    return lambda ctx: [{"id": number, "name": "a"} for number in range(count)]


class Stuck:
    """A call that comes back when the test is over."""

    def __init__(self):
        self.over = threading.Event()

    def __call__(self, ctx):
        yield [{"id": 1, "name": "a"}]
        self.over.wait(60)


@pytest.fixture
def stuck():
    made = Stuck()
    yield made
    made.over.set()


def test_a_table_that_is_stuck_is_named_with_its_client_and_the_others_are_whole(stuck):
    made = make_source()
    add(made, "fine", some(3))
    add(made, "slow", lambda ctx: stuck(ctx) if ctx.client.id == "eu" else [], multiplex=regions("eu", "us"))

    started = time.monotonic()
    messages = run(made, idle_s=0.5)

    assert 0.5 < time.monotonic() - started < 5
    [error] = of(messages, TableError)
    assert (error.table_name, error.client) == ("slow", "eu")
    assert error.message.startswith("it was not read to its end: source `made` sent nothing for 0.")
    assert error.message.endswith("seconds, `timeouts.idle` is over")
    assert {(done.table_name, done.client) for done in of(messages, ClientDone)} == {("fine", ""), ("slow", "us")}


def test_a_child_that_is_stuck_is_named_and_so_is_the_table_above(stuck):
    made = make_source()
    above = add(made, "above", some(2))
    add(made, "below", stuck, parent=above)

    messages = run(made, idle_s=0.5)

    assert {error.table_name for error in of(messages, TableError)} == {"above", "below"}
    assert of(messages, ClientDone) == []


def test_what_was_never_begun_behind_stuck_tables_is_named_too(stuck):
    made = make_source()
    for number in range(20):
        add(made, f"t{number:02}", stuck)

    messages = of(run(made, idle_s=0.5), TableError)

    assert {error.table_name for error in messages} == {f"t{number:02}" for number in range(20)}
    assert len([error for error in messages if error.message.startswith("it was not begun: ")]) == 4


def test_a_list_of_clients_that_never_comes_fails_the_source(stuck):
    made = make_source()
    add(made, "a", some(1), multiplex=lambda client: stuck.over.wait(60) and [])

    with pytest.raises(PluginError, match=r"source `made` sent nothing for .* seconds, `timeouts.idle` is over"):
        run(made, idle_s=0.5)


def test_a_slow_reader_is_no_silence():
    made = make_source()
    add(made, "a", some(50_000))
    host = made.as_plugin()
    host.init({})
    found = []
    for message in host.sync(SyncRequest(EVERYTHING, idle_s=1)):
        found.append(message)
        if len(found) < 4:
            time.sleep(1.2)

    assert len(found) > 4
    assert of(found, TableError) == []


HALF = Stuck()
half = make_source()
add(half, "whole", some(3))
add(half, "hangs", HALF)


def test_a_sync_ends_and_publishes_what_was_read_whole(tmp_path):
    store = at_file(str(tmp_path / "x.duckdb"))
    try:
        result = run_config(source("half", f"{HERE}:half", ["*"], timeouts={"idle": "500ms"}), store.document())
    finally:
        HALF.over.set()

    tables = {row.table: row for row in result.tables}
    assert result.outcome == "partial"
    assert (tables["whole"].complete, tables["whole"].rows_written) == (True, 3)
    assert "`timeouts.idle` is over" in tables["hangs"].errors[0].message
    assert store.query("select count(*) from whole") == [(3,)]
