"""Rows of every shape become batches: how many rows each has, in which order, and what is no row."""

from __future__ import annotations

import collections
import time

import pyarrow as pa
import pytest

from catchment.errors import PluginError, Transient
from catchment.sdk import rows as sdk_rows
from catchment.sdk.rows import batches
from tests.sdk.row_kinds import TABLE, Model, Named, Row, read


def test_rows_of_every_shape_may_come_mixed():
    arrow = pa.RecordBatch.from_pydict({"name": ["f"], "id": [6]})
    yielded = [
        {"id": 1, "name": "a"},
        Row(2, "b"),
        Model(id=3),
        Named(4, "d"),
        [{"id": 5}, Row(51, "e"), collections.ChainMap({"id": 52})],
        arrow,
        pa.Table.from_batches([arrow, arrow]),
        None,
        (Row(7),),
        [],
        Row(8),
    ]

    assert [tuple(row.values()) for row in read(yielded)] == [
        (1, "a"), (2, "b"), (3, None), (4, "d"), (5, None), (51, "e"), (52, None), (6, "f"), (6, "f"), (6, "f"),
        (7, ""), (8, ""),
    ]  # fmt: skip


def test_missing_keys_are_null_and_unknown_ones_left_out():
    assert read([{"id": 1, "more": 2}, {}]) == [{"id": 1, "name": None}, {"id": None, "name": None}]


@pytest.mark.parametrize("item", ["text", 7, object(), [1, 2], [None], iter([]), [pa.nulls(1)]])
def test_what_is_no_row_is_an_error_and_not_a_row_of_nulls(item):
    with pytest.raises(PluginError, match="for a row; yield mappings"):
        read([item])


def test_a_long_value_is_shown_in_part():
    with pytest.raises(PluginError, match=r"x{199}…") as caught:
        read(["x" * 10_000])

    assert len(str(caught.value)) < 500


def test_a_generator_is_asked_for_no_more_than_a_batch_needs():
    asked = []

    def rows():
        for number in range(10 * sdk_rows.GATHER_ROWS):
            asked.append(number)
            yield {"id": number}

    made = batches(TABLE, rows())

    sizes = []
    for batch in made:
        sizes.append(batch.num_rows)
        assert len(asked) == sum(sizes)
    assert sizes[0] == sdk_rows.FIRST_ROWS
    assert max(sizes) == sdk_rows.GATHER_ROWS
    assert len(sizes) < 20


def test_batches_of_large_rows_are_of_few_rows():
    text = "x" * (3 << 20)
    sizes = [batch.num_rows for batch in batches(TABLE, ({"name": text} for _ in range(30)))]

    assert sizes[0] == sdk_rows.FIRST_ROWS
    assert set(sizes[1:]) == {2}


def test_batches_grow_again_when_rows_shrink():
    rows = ({"name": "x" * ((3 << 20) if number < 10 else 10)} for number in range(20_000))
    sizes = [batch.num_rows for batch in batches(TABLE, rows)]

    assert sizes[:3] == [sdk_rows.FIRST_ROWS, 2, 2]
    assert max(sizes) == sdk_rows.GATHER_ROWS


def test_long_pages_are_cut_into_batches():
    page = [{"id": number} for number in range(sdk_rows.GATHER_ROWS + 1)]

    assert [batch.num_rows for batch in batches(TABLE, [page])] == [sdk_rows.GATHER_ROWS, 1]


def test_rows_of_a_slow_source_do_not_wait_for_a_full_batch(monkeypatch):
    monkeypatch.setattr(sdk_rows, "GATHER_S", 0.02)

    def rows():
        for number in range(4):
            time.sleep(0.03)
            yield {"id": number}

    assert [batch.num_rows for batch in batches(TABLE, rows())] == [2, 2]


def test_order_is_kept_between_single_rows_and_pages():
    yielded = [{"id": 1}, [{"id": 2}, {"id": 3}], {"id": 4}, pa.RecordBatch.from_pydict({"id": [5]}), {"id": 6}]

    assert [row["id"] for row in read(yielded)] == [1, 2, 3, 4, 5, 6]


def test_rows_before_an_error_are_sent_before_it():
    def rows():
        yield {"id": 1}
        yield {"id": 2}
        raise KeyError("next_page")

    found: list[pa.RecordBatch] = []
    with pytest.raises(KeyError, match="next_page"):
        list(map(found.append, batches(TABLE, rows())))

    assert [batch.num_rows for batch in found] == [2]


def test_rows_that_will_come_again_are_not_sent_twice():
    def rows():
        yield {"id": 1}
        raise Transient("busy")

    def after_a_page():
        yield [{"id": 1}]
        yield from rows()

    def sent(yielded):
        found: list[pa.RecordBatch] = []
        with pytest.raises(Transient):
            list(map(found.append, batches(TABLE, yielded, retried=Transient)))
        return [batch.num_rows for batch in found]

    assert sent(rows()) == []
    assert sent(after_a_page()) == [1, 1]
