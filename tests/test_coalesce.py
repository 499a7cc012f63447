"""Small records become batches; nothing is lost, turned round, or kept for long."""

from __future__ import annotations

import threading
import time
from typing import Any

import pyarrow as pa
import pytest

from catchment.channel import ChannelClosed
from catchment.coalesce import HELD_BYTES, LARGE_BYTES, LARGE_ROWS, ROWS, Coalescer, size_of
from catchment.errors import PluginError
from catchment.messages import Cursor, DeleteRecord, Insert, MigrateTable, SourceError, TableError
from catchment.testing import data

A, B = (data.named(name, ("id", pa.int64()), ("text", pa.utf8())) for name in "ab")


def coalescer(*arguments: Any, **options: Any) -> Any:
    return Coalescer(*arguments, **options)


def one(table, number, text="x"):
    return Insert(table, data.batch(table, (number, text)))


def told(merged):
    """What comes out: numbers of rows by table, and the other messages."""
    return [
        (message.table.name, message.batch.column(0).to_pylist()) if isinstance(message, Insert) else message
        for message in merged
    ]


def test_rows_of_each_table_come_together_and_in_order():
    merged = coalescer()
    for number in range(10):
        merged.put(one(A, number))
        merged.put(one(B, -number))
    merged.close()

    assert told(merged) == [("a", list(range(10))), ("b", [-number for number in range(10)])]


def test_enough_rows_are_handed_on_at_once():
    merged = coalescer()
    part = data.rows(A, LARGE_ROWS - 1)
    for _ in range(3 * ROWS // part.num_rows):
        merged.put(Insert(A, part))
    merged.close()

    sizes = [message.batch.num_rows for message in merged]
    assert sum(sizes) == 3 * ROWS // part.num_rows * part.num_rows
    assert max(sizes) < ROWS + part.num_rows
    assert len(sizes) <= 4


def test_large_record_passes_as_it_is_behind_what_waited():
    merged = coalescer()
    large = data.rows(A, LARGE_ROWS)
    merged.put(one(A, -1))
    merged.put(Insert(A, large))
    merged.close()

    first, second = merged
    assert first.batch.column(0).to_pylist() == [-1]
    assert second.batch is large


def test_error_comes_behind_the_rows_of_its_table():
    merged = coalescer()
    error = TableError("a", "broke off")
    for message in (one(A, 1), one(B, 2), error, one(A, 3)):
        merged.put(message)
    merged.close()

    assert told(merged) == [("a", [1]), error, ("b", [2]), ("a", [3])]


def test_deletion_comes_behind_all_rows():
    merged = coalescer()
    for message in (one(A, 1), one(B, 2), DeleteRecord("a"), one(A, 3)):
        merged.put(message)
    merged.close()

    assert told(merged) == [("a", [1]), ("b", [2]), DeleteRecord("a"), ("a", [3])]


def test_rows_of_a_table_that_changes_are_not_mixed():
    merged = coalescer()
    wider = data.named("a", ("id", pa.int64()))
    merged.put(one(A, 1))
    merged.put(Insert(wider, data.batch(wider, (2,))))
    merged.close()

    assert [message.batch.num_columns for message in merged] == [2, 1]


def test_rows_do_not_wait_for_more_for_long():
    merged = coalescer()
    merged.put(one(A, 1))
    started = time.monotonic()

    assert next(iter(merged)).batch.num_rows == 1
    assert 0.1 < time.monotonic() - started < 2.0


def test_error_of_the_source_comes_last():
    merged = coalescer()
    merged.put(one(A, 1))
    merged.close(PluginError("gone"))
    found = iter(merged)

    assert next(found).batch.num_rows == 1
    with pytest.raises(PluginError, match="gone"):
        next(found)


def test_silence_is_an_error_where_a_limit_is_set():
    merged = coalescer(idle_s=0.2, what="source plugin `s`")

    with pytest.raises(PluginError, match=r"source plugin `s` sent nothing for 0\.2"):
        next(iter(merged))


def test_reader_that_is_slow_is_no_silence():
    merged = coalescer(idle_s=0.3)
    merged.put(MigrateTable(A))
    found = iter(merged)
    next(found)
    merged.put(MigrateTable(B))
    time.sleep(0.5)

    assert next(found) == MigrateTable(B)


def test_source_waits_while_too_much_is_held():
    merged = coalescer()
    text = "x" * (1 << 20)
    sent = []

    def fill():
        for number in range(3 * HELD_BYTES >> 20):
            merged.put(one(A, number, text))
            sent.append(number)
        merged.close()

    filler = threading.Thread(target=fill)
    filler.start()
    time.sleep(0.5)

    assert HELD_BYTES >> 20 <= len(sent) <= (HELD_BYTES >> 20) + 2
    assert sum(message.batch.num_rows for message in merged) == 3 * HELD_BYTES >> 20
    filler.join()


def test_source_is_told_when_nobody_reads():
    merged = coalescer()
    merged.put(one(A, 1))
    found = iter(merged)
    next(found)
    found.close()

    with pytest.raises(ChannelClosed):
        merged.put(one(A, 2))


def test_many_columns_of_few_rows_count_for_what_they_take():
    wide = data.named("wide", *((f"c{number}", pa.int64()) for number in range(100)))
    batch = data.batch(wide, tuple(range(100)))

    assert batch.nbytes < 2_000
    assert size_of(batch) > 50_000


def test_slice_of_a_large_batch_counts_for_its_rows_only():
    part = data.rows(A, 1_000_000).slice(10, 5)

    assert size_of(part) < 10_000


def test_few_rows_of_many_bytes_pass_as_they_are():
    merged = coalescer()
    first, large = one(A, 1), one(A, 2, "x" * LARGE_BYTES)
    merged.put(first)
    merged.put(large)
    merged.put(one(A, 3))
    merged.close()

    assert [message.batch.column(0).to_pylist() for message in merged] == [[1], [2], [3]]


@pytest.mark.parametrize("message", [Cursor("a", "k", "1"), SourceError("broken")], ids=["cursor", "error"])
def test_what_speaks_for_all_tables_comes_behind_the_rows_of_all(message):
    merged = coalescer()
    merged.put(one(A, 1))
    merged.put(one(B, 2))
    merged.put(message)
    merged.put(one(B, 3))
    merged.close()

    assert told(merged) == [("a", [1]), ("b", [2]), message, ("b", [3])]


def test_columns_of_a_table_come_behind_the_rows_of_those_it_had():
    merged = coalescer()
    merged.put(one(A, 1))
    merged.put(MigrateTable(A))
    merged.close()

    assert told(merged) == [("a", [1]), MigrateTable(A)]
