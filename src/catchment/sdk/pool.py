"""A bounded number of daemon threads for table functions.

The standard library's pool is joined when the interpreter ends, so one table function that hangs in a network call
would keep an interrupted process from ending.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Pool:
    """At most `threads` calls run at once, in the order they came; threads are started as they are needed."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._name = name
        self._started: list[threading.Thread] = []
        self._idle = 0
        self._calls: deque[tuple[Future[None], Callable[..., None], tuple[Any, ...]]] = deque()
        self._stopped = False
        self._changed = threading.Condition()

    def submit(self, call: Callable[..., None], *arguments: Any) -> Future[None]:
        """Have a thread make the call; the future tells when it ended, and what it raised."""
        future: Future[None] = Future()
        with self._changed:
            if self._stopped:
                raise RuntimeError("the pool has been stopped")
            self._calls.append((future, call, arguments))
            if len(self._calls) > self._idle and len(self._started) < self._threads:
                name = f"{self._name}-{len(self._started)}"
                self._started.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._started[-1].start()
            self._changed.notify()
        return future

    def stop(self, *, waits: bool = True) -> None:
        """End the threads, and wait until they have ended; no call may be waiting for one of its own by then.

        Without the wait those that are stuck are left behind.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._started if waits else ():
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._calls or self._stopped)
                self._idle -= 1
                if not self._calls:
                    return
                future, call, arguments = self._calls.popleft()
            try:
                call(*arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
            # Nothing of a call, such as a batch, is held while the next one is waited for.
            del future, call, arguments
