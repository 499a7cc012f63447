"""The one bounded queue and the one byte budget: all back-pressure of a run is here.

Both the engine and the SDK wait on them, so they stand below both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """Raised by `put` when the reader has gone; the writer stops its work."""


class Channel(Generic[T]):
    """A queue between threads, bounded by the bytes of its items.

    `put` blocks while the channel is full; iteration ends at `close()`, and raises what `close(error)` was given after
    the items before it. One item larger than the bound passes alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._abandoned = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: T, size_bytes: int = 0) -> None:
        """Add an item; blocks while the channel holds `max_bytes`. Raises `ChannelClosed` once nobody reads."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._abandoned or not self._items or self._bytes + size_bytes <= self._max_bytes
            )
            if self._abandoned or self._closed:
                raise ChannelClosed
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Say that no item follows; the reader sees `error` after the last one. Only the first call counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nobody reads any more: blocked and later `put` calls raise `ChannelClosed`."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._items or self._closed or self._abandoned)
                    if not self._items:
                        if self._error is not None:
                            raise self._error
                        return
                    item, size_bytes = self._items.popleft()
                    self._bytes -= size_bytes
                    self._changed.notify_all()
                yield item
        finally:
            self.abandon()


class Buffer(Protocol):
    """What holds bytes of a budget and can be asked to let go of them."""

    @property
    def size_bytes(self) -> int:
        """Bytes that `release_soon` would free; 0 while they are being written already."""

    def release_soon(self) -> None:
        """Start writing what is held; must not block and must not take the budget's bytes back itself."""


class Budget:
    """The bytes that all writers of a run may hold together; when they are used up the largest buffer is flushed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._used = 0
        self._buffers: set[Buffer] = set()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Bytes held at this moment."""
        return self._used

    def register(self, buffer: Buffer) -> None:
        """Make `buffer` one of those that may be asked to flush."""
        with self._changed:
            self._buffers.add(buffer)

    def unregister(self, buffer: Buffer) -> None:
        """Forget `buffer`."""
        with self._changed:
            self._buffers.discard(buffer)

    def take(self, size_bytes: int) -> None:
        """Hold `size_bytes` more; blocks, and asks the largest buffer to flush, while that would pass the limit.

        An amount above the limit is granted when nothing else is held.
        """
        while True:
            with self._changed:
                if self._used == 0 or self._used + size_bytes <= self.max_bytes:
                    self._used += size_bytes
                    return
                largest = max(self._buffers, key=lambda buffer: buffer.size_bytes, default=None)
            # Asked outside the lock: a flush may finish, and give bytes back, before this call returns.
            if largest is not None and largest.size_bytes > 0:
                largest.release_soon()
            with self._changed:
                if self._used and self._used + size_bytes > self.max_bytes:
                    self._changed.wait(timeout=0.05)

    def give_back(self, size_bytes: int) -> None:
        """Return bytes that `take` granted."""
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()
