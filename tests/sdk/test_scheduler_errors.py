"""What an error takes along, what goes on, and what is tried again."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from catchment.errors import PluginError, Transient
from catchment.messages import RowsSkipped, SyncMessage
from catchment.plugin import SyncRequest
from catchment.sdk import scheduler as sdk_scheduler
from tests.sdk.made import (
    EVERYTHING,
    add,
    counted,
    done,
    errors,
    failing,
    make_source,
    noting,
    of,
    regions,
    rows,
    run,
)


def test_an_error_names_its_table_and_the_others_go_on():
    source = make_source()
    add(source, "a", failing(PluginError("the door is shut", hint="knock")))
    add(source, "b", counted())

    messages = run(source)

    assert errors(messages) == [("a", "", "the door is shut; knock")]
    assert len(rows(messages, "b")) == 3
    assert done(messages) == {("b", "")}


def test_rows_before_an_error_stay_with_their_children():
    source = make_source()
    parent = add(source, "a", failing(PluginError("broken"), after=2))
    add(source, "b", counted(1), parent=parent)

    messages = run(source)

    assert len(rows(messages, "a")) == 2
    assert len(rows(messages, "b")) == 2
    assert [name for name, _, _ in errors(messages)] == ["a"]
    assert done(messages) == set(), "rows below rows that never came are missing too"


def test_single_rows_before_an_error_stay_too():
    def read(ctx):
        yield {"id": 1}
        raise PluginError("broken")

    source = make_source()
    add(source, "a", read)

    messages = run(source)

    assert [row["id"] for row in rows(messages, "a")] == [1]
    assert len(errors(messages)) == 1


def test_an_error_of_one_client_leaves_the_others():
    def read(ctx):
        if ctx.client.id == "us":
            raise PluginError("no access")
        return counted(1)(ctx)

    source = make_source()
    add(source, "a", read, multiplex=regions("eu", "us", "ap"))

    messages = run(source)

    assert errors(messages) == [("a", "us", "no access")]
    assert {row["name"] for row in rows(messages, "a")} == {"eu0", "ap0"}
    assert done(messages) == {("a", "eu"), ("a", "ap")}


def test_an_error_of_a_child_names_the_child_and_leaves_its_siblings():
    def read(ctx):
        if ctx.parent["id"] == 1:
            raise PluginError("gone")
        return [{"id": ctx.parent["id"]}]

    source = make_source()
    parent = add(source, "a", counted(3))
    child = add(source, "b", read, parent=parent)
    add(source, "b_c", counted(1), parent=child)
    add(source, "d", counted(1), parent=parent)

    messages = run(source)

    assert errors(messages) == [("b", "", "gone")]
    assert sorted(row["id"] for row in rows(messages, "b")) == [0, 2]
    assert len(rows(messages, "b_c")) == 2
    assert len(rows(messages, "d")) == 3
    assert done(messages) == {("a", ""), ("d", "")}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("name"), "KeyError: 'name'"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration(), "RuntimeError: generator raised StopIteration"),
    ],
)
def test_whatever_a_table_function_raises_is_the_error_of_its_table(error, text, caplog):
    source = make_source()
    add(source, "a", failing(error, after=1))
    add(source, "b", counted(1))

    messages = run(source)

    assert errors(messages) == [("a", "", text)]
    assert len(rows(messages, "b")) == 1
    assert "Traceback" in caplog.text


def test_notes_on_an_error_are_told():
    error = ValueError("bad page")
    error.add_note("page 7")
    source = make_source()
    add(source, "a", failing(error))

    assert errors(run(source)) == [("a", "", "ValueError: bad page (page 7)")]


def test_a_function_that_returns_nothing_says_so():
    source = make_source()
    add(source, "a", lambda ctx: None)

    [(_, _, text)] = errors(run(source))

    assert text == "the function of table `a` returned None; yield its rows, or return them as a list"


def test_a_value_that_does_not_fit_is_the_error_of_its_table():
    source = make_source()
    add(source, "a", lambda ctx: [{"id": "x"}])

    [(table, _, text)] = errors(run(source))

    assert table == "a"
    assert "column `id` is int64, got 'x' in row 1" in text


def test_clients_that_cannot_be_made_are_the_error_of_their_table():
    def broken(client):
        raise PluginError("no regions")

    source = make_source()
    add(source, "a", counted(), multiplex=broken)
    add(source, "b", counted())

    messages = run(source)

    assert errors(messages) == [("a", "", "no regions")]
    assert len(rows(messages, "b")) == 3
    assert done(messages) == {("b", "")}


def test_clients_of_one_id_are_warned_of_and_all_read(caplog):
    source = make_source()
    add(source, "a", counted(1), multiplex=regions("eu", "us", "eu"))

    with caplog.at_level(logging.WARNING):
        assert len(rows(run(source), "a")) == 3

    assert "table `a`: several clients have the id 'eu'" in caplog.text


def test_a_client_that_cannot_be_made_fails_the_whole_source():
    def connect(spec):
        raise PluginError("no route to host")

    source = make_source(client=connect)
    add(source, "a", counted())

    with pytest.raises(PluginError, match="no route to host"):
        run(source)


def test_stop_on_error_ends_the_sync_and_starts_no_other_table():
    started: list[Any] = []
    source = make_source()
    add(source, "a", failing(PluginError("broken")))
    for number in range(50):
        add(source, f"b{number}", noting(started, pause_s=0.05))
    host = source.as_plugin()
    host.init({})
    messages: list[SyncMessage] = []

    with pytest.raises(PluginError, match="table `a` failed and `on_error: stop` is set: broken"):
        list(map(messages.append, host.sync(SyncRequest(EVERYTHING, stop_on_error=True))))

    assert errors(messages) == [("a", "", "broken")]
    assert len(started) < 50


def test_skipped_rows_are_told_and_leave_the_table_incomplete():
    def read(ctx):
        ctx.skip_rows(2, "line 7: not a number")
        yield {"id": 1}

    source = make_source()
    add(source, "a", read)

    messages = run(source)

    assert of(messages, RowsSkipped) == [RowsSkipped("a", 2, "line 7: not a number", "")]
    assert done(messages) == set()


def flaky(times, error, before=0, page=True):
    """A table function that fails that often, each time after `before` rows, and how often it was called."""
    calls = []

    def read(ctx):
        calls.append(1)
        found = [{"id": number} for number in range(before)]
        if found:
            yield from [found] if page else found
        if len(calls) <= times:
            raise error
        yield {"id": 100}

    return read, calls


BUSY = Transient("busy", retry_after_s=0.01)


@pytest.mark.parametrize(("before", "page"), [(0, True), (2, False)])
def test_a_function_that_fails_for_the_moment_is_called_again_and_no_row_comes_twice(before, page):
    read, calls = flaky(2, BUSY, before, page)
    source = make_source()
    add(source, "a", read)

    messages = run(source)

    assert len(calls) == sdk_scheduler.TRIES == 3
    assert errors(messages) == []
    assert [row["id"] for row in rows(messages, "a")] == [*range(before), 100]
    assert done(messages) == {("a", "")}


def test_a_function_that_sent_rows_is_not_called_again():
    read, calls = flaky(1, BUSY, before=2)
    source = make_source()
    add(source, "a", read)

    messages = run(source)

    assert len(calls) == 1
    assert errors(messages) == [("a", "", "busy")]
    assert [row["id"] for row in rows(messages, "a")] == [0, 1]


def test_a_function_that_stays_busy_fails_and_keeps_the_rows_of_its_last_try():
    read, calls = flaky(9, BUSY, before=2, page=False)
    source = make_source()
    add(source, "a", read)

    messages = run(source)

    assert len(calls) == 3
    assert errors(messages) == [("a", "", "busy")]
    assert [row["id"] for row in rows(messages, "a")] == [0, 1]


def test_skipped_rows_of_a_try_that_failed_are_not_counted_twice():
    calls = []

    def read(ctx):
        calls.append(1)
        ctx.skip_rows(1, "first")
        if len(calls) == 1:
            raise BUSY
        yield {"id": 1}

    source = make_source()
    add(source, "a", read)

    assert [message.count for message in of(run(source), RowsSkipped)] == [1]
