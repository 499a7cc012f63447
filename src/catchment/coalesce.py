"""Small batches made into larger ones, table by table; what a source says stays in order for each table.

A batch of one row costs as much on its way through the engine as one of ten thousand, and keeps far more memory than
its values take. Rows gather until they are enough, have waited long enough, or something else is said of their table.
Both the SDK, for tables read row by row, and the wire stand on it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from catchment.channel import ChannelClosed
from catchment.errors import PluginError
from catchment.messages import Cursor, DeleteRecord, Insert, MigrateTable, SourceError, SyncMessage
from catchment.schema.table import Table

ROWS = 10_000
"""Rows of a table that are handed on together."""
SIZE_BYTES = 8 << 20
"""Bytes of a table's rows that are handed on together."""
AGE_S = 0.2
"""Seconds after which the rows of a table are handed on."""
LARGE_ROWS = 1_000
"""Rows of a batch that is handed on as it came."""
LARGE_BYTES = 1 << 20
"""Bytes of a batch that is handed on as it came, however few its rows are."""
HELD_BYTES = 32 << 20
"""Bytes of all tables that may wait; more make the source wait."""
COLUMN_BYTES = 800
"""Bytes that a column of a batch takes besides its values (measured)."""


def size_of(batch: pa.RecordBatch) -> int:
    """Bytes that a batch keeps, with those that it takes however few its rows are."""
    size_bytes = batch.get_total_buffer_size()
    if size_bytes > LARGE_BYTES:
        # It may be a slice of something larger. For the others the exact question would take longer than the rest.
        size_bytes = batch.nbytes
    return int(size_bytes + COLUMN_BYTES * batch.num_columns)


class Silent(PluginError):
    """Raised when nothing was said for as long as `timeouts.idle` allows."""


@dataclass(slots=True)
class _Gathered:
    """Rows of one table that wait."""

    table: Table
    since: float
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0


class Coalescer:
    """Between the thread that receives and the one that hands on."""

    def __init__(self, max_bytes: int = HELD_BYTES, *, idle_s: float | None = None, what: str = "the plugin") -> None:
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._what = what
        self._gathered: dict[str, _Gathered] = {}
        self._ready: deque[tuple[SyncMessage, int]] = deque()
        self._bytes = 0
        self._heard = time.monotonic()
        self._closed = self._abandoned = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, message: SyncMessage) -> None:
        """Take a message; blocks while too much waits. Raises `ChannelClosed` once nobody reads."""
        with self._changed:
            if self._bytes > self._max_bytes:
                self._release(None)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._bytes <= self._max_bytes or self._abandoned)
            self._heard = time.monotonic()
            if self._abandoned or self._closed:
                raise ChannelClosed
            if isinstance(message, Insert):
                self._insert(message)
                return
            # A deletion reaches into other tables, and a cursor speaks for the rows below its own as well.
            if isinstance(message, (DeleteRecord, Cursor, SourceError)):
                self._release(None)
            else:
                self._release(message.table.name if isinstance(message, MigrateTable) else message.table_name)
            self._ready.append((message, 0))
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Say that nothing follows; the reader sees `error` after what came before it. Only the first call counts."""
        with self._changed:
            if not self._closed:
                self._release(None)
                self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nobody reads any more."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[SyncMessage]:
        # Until somebody listens nobody is silent.
        self._heard = time.monotonic()
        try:
            while True:
                found = self._next()
                if found is None:
                    return
                yield found
        finally:
            self.abandon()

    def _next(self) -> SyncMessage | None:
        while True:
            with self._changed:
                if not self._ready and not self._closed:
                    self._changed.wait(self._patience())
                    self._release_old()
                if self._ready:
                    message, size_bytes = self._ready.popleft()
                    self._bytes -= size_bytes
                    self._changed.notify_all()
                    return message
                if self._closed:
                    if self._error is not None:
                        raise self._error
                    return None
                silent = time.monotonic() - self._heard
                if self._idle_s is not None and silent > self._idle_s:
                    raise Silent(f"{self._what} sent nothing for {silent:.1f} seconds, `timeouts.idle` is over")

    def _patience(self) -> float | None:
        """Seconds after which something is due even if nothing is said."""
        now = time.monotonic()
        due = [gathered.since + AGE_S - now for gathered in self._gathered.values()]
        if self._idle_s is not None:
            due.append(self._heard + self._idle_s - now + 0.01)
        return max(min(due), 0.0) if due else None

    def _insert(self, message: Insert) -> None:
        table, batch = message.table, message.batch
        size_bytes = size_of(batch)
        is_large = batch.num_rows >= LARGE_ROWS or size_bytes >= LARGE_BYTES
        self._bytes += size_bytes
        gathered = self._gathered.get(table.name)
        if gathered is not None and (gathered.table is not table or is_large):
            self._release(table.name)
            gathered = None
        if is_large:
            self._ready.append((message, size_bytes))
            self._changed.notify_all()
            return
        if gathered is None:
            gathered = self._gathered[table.name] = _Gathered(table, self._heard)
            if len(self._gathered) == 1:
                # The reader has to look again when the first of them is due.
                self._changed.notify_all()
        gathered.batches.append(batch)
        gathered.rows += batch.num_rows
        gathered.size_bytes += size_bytes
        if gathered.rows >= ROWS or gathered.size_bytes >= SIZE_BYTES:
            self._release(table.name)
            self._changed.notify_all()

    def _release_old(self) -> None:
        now = time.monotonic()
        for name in [name for name, gathered in self._gathered.items() if now - gathered.since >= AGE_S]:
            self._release(name)

    def _release(self, name: str | None) -> None:
        """Hand on what waits of a table, or of all."""
        for each in list(self._gathered) if name is None else [name]:
            gathered = self._gathered.pop(each, None)
            if gathered is not None:
                self._ready.append((Insert(gathered.table, _merged(gathered.batches)), gathered.size_bytes))


def _merged(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of `batches`, which have one schema, in one batch."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
