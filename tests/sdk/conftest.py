"""No test of the SDK may leave a thread of the scheduler behind."""

from __future__ import annotations

import threading
import time

import pytest


def scheduler_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("tables-", "scheduler"))]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    until = time.monotonic() + 5
    while scheduler_threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert scheduler_threads() == []
