"""The bounded queue and the byte budget."""

from __future__ import annotations

import threading
import time

import pytest

from catchment.channel import Budget, Channel, ChannelClosed


def test_items_come_in_order_and_the_error_after_them():
    channel: Channel[int] = Channel(100)
    for number in range(3):
        channel.put(number, 10)
    channel.close(ValueError("end"))
    found: list[int] = []

    with pytest.raises(ValueError, match="end"):
        found.extend(channel)
    assert found == [0, 1, 2]


def test_put_blocks_while_the_channel_is_full():
    channel: Channel[int] = Channel(100)
    channel.put(1, 60)
    done = threading.Event()

    def put() -> None:
        channel.put(2, 60)
        done.set()

    thread = threading.Thread(target=put)
    thread.start()

    assert not done.wait(0.1)
    items = iter(channel)
    assert next(items) == 1
    assert done.wait(5)
    assert next(items) == 2
    thread.join()


def test_one_item_above_the_bound_passes_alone():
    channel: Channel[str] = Channel(10)
    channel.put("large", 1_000)
    channel.close()

    assert list(channel) == ["large"]


def test_a_writer_whose_reader_is_gone_is_told():
    channel: Channel[int] = Channel(10)
    channel.abandon()

    with pytest.raises(ChannelClosed):
        channel.put(1)


def test_a_budget_blocks_until_bytes_come_back():
    budget = Budget(100)
    budget.take(80)
    threading.Timer(0.1, lambda: budget.give_back(80)).start()
    started = time.monotonic()
    budget.take(50)

    assert time.monotonic() - started > 0.05
    assert budget.used_bytes == 50


def test_more_than_the_budget_is_granted_alone():
    budget = Budget(100)
    budget.take(500)

    assert budget.used_bytes == 500
