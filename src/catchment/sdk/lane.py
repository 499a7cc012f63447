"""The queue of one table in one session: rows gather into batches, calls run in order, long loads become streams."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from catchment import log_context
from catchment.channel import Budget
from catchment.errors import CatchmentError, PluginError, PluginLost, RowsRefused, Transient
from catchment.plugin import BatchSize, Reject, WriteStats
from catchment.schema.table import Table
from catchment.sdk import rejects

if TYPE_CHECKING:
    from catchment.sdk.writer import Session

log = logging.getLogger("catchment.writer")

Call: TypeAlias = Callable[[], None]

SMALL_ROWS = 1_000
"""Pieces with fewer rows, on the average, are made one: each costs a destination more than the copying."""
STREAM_BYTES = 2 << 30
"""Bytes after which a stream ends, so that what is written becomes durable now and then."""
IDLE_S = 0.05
"""Seconds without rows after which a stream gives its thread to whoever waits for one."""


def _nothing() -> None:
    """What is left of a call that was made."""


@dataclass(slots=True)
class _Queued:
    """A call that waits in a lane."""

    call: Call
    size_bytes: int = 0
    """Bytes that go back to the budget after the call."""
    alone: bool = True
    stream: Stream | None = None
    """What the call reads while it runs."""


class Stream:
    """Rows of one table that are written while they still come; its bytes go back to the budget as they are read."""

    def __init__(self, table_name: str, budget: Budget, is_wanted: Callable[[], bool] = lambda: False) -> None:
        self.table_name = table_name
        self._is_wanted = is_wanted
        """Whether others wait for the thread that reads."""
        self.rows = 0
        self.rows_read = 0
        self.size_bytes = 0
        """Bytes that were put in so far."""
        self.ended = False
        self._budget = budget
        self._pieces: deque[tuple[pa.RecordBatch, int]] = deque()
        self._error: PluginError | None = None
        self._changed = threading.Condition()

    def put(self, piece: pa.RecordBatch, size_bytes: int) -> bool:
        """Add rows; False, and nothing is added, once the stream has ended. Never blocks: the budget is the bound."""
        with self._changed:
            if self.ended:
                return False
            self._pieces.append((piece, size_bytes))
            self.rows += piece.num_rows
            self.size_bytes += size_bytes
            self._changed.notify_all()
            return True

    def end(self, error: PluginError | None = None) -> None:
        """Say that nothing follows; with `error` what was not read yet is given up, and reading raises it."""
        with self._changed:
            self.ended = True
            self._error = self._error or error
            self._changed.notify_all()

    def settle(self) -> None:
        """Give back the bytes of what nobody will read."""
        with self._changed:
            self.ended = True
            left = sum(size_bytes for _, size_bytes in self._pieces)
            self._pieces.clear()
        self._budget.give_back(left)

    def read(self) -> Generator[pa.RecordBatch, None, None]:
        """The rows, as they come, until the stream ends."""
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._pieces or self.ended, IDLE_S):
                    self.ended = self._is_wanted()
                if self._error is not None:
                    raise self._error
                if not self._pieces:
                    return
                piece, size_bytes = self._pieces.popleft()
            self.rows_read += piece.num_rows
            try:
                yield piece
            finally:
                del piece
                self._budget.give_back(size_bytes)


class Lane:
    """The queue of one table in one session. It is also a `Buffer` of the run's byte budget."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.rejects: list[Reject] = []
        self.stats = WriteStats(rejects=self.rejects)
        self.error: PluginError | None = None
        self.table: Table | None = None
        self.live: Table | None = None
        """The table as readers know it: its name and its keys are what people are told."""
        self.oldest = 0.0
        """Monotonic time at which the first row that waits here came."""
        self._lock = threading.Condition(threading.RLock())
        self._waiting: list[tuple[pa.RecordBatch, int]] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._stream: Stream | None = None
        """Where rows go while a write of the table takes what comes."""
        self._calls: deque[_Queued] = deque()
        self._running = 0
        self._alone = False
        """Whether what runs must be the only call."""
        self._unflushed = WriteStats()
        self._being_read: Stream | None = None

    def snapshot(self) -> WriteStats:
        """What became of the rows so far."""
        stream = self._being_read
        taken = self.stats.rows + self._unflushed.rows + (stream.rows_read if stream is not None else 0)
        return replace(self.stats, rows_taken=taken)

    @property
    def size_bytes(self) -> int:
        """Bytes that wait to become a batch; 0 while calls wait for a thread, whose bytes come back first."""
        return 0 if self.session.host.is_wanted() else self._waiting_bytes

    def release_soon(self) -> None:
        """Write what waits."""
        with self._lock:
            if self._waiting:
                self._hand_over()

    def waits_since(self, moment: float) -> bool:
        """Whether a row came by `moment` (monotonic seconds) and waits."""
        return bool(self._waiting) and self.oldest <= moment

    def insert(self, table: Table, batch: pa.RecordBatch) -> None:
        """Add rows, slicing them to the limits in force. Blocks while the run's budget is used up."""
        limits = self.session.host.batch
        start, row_bytes = 0, max(batch.nbytes / batch.num_rows, 1e-9)
        while start < batch.num_rows:
            with self._lock:
                if self.table is not table and self.table != table:
                    self.cut()
                left = batch.num_rows - start
                room = left if self._stream else _room(limits, row_bytes, self._waiting_rows, self._waiting_bytes)
                if room == 0:
                    self.cut()
                    continue
            piece = batch.slice(start, min(room, left))
            size_bytes = max(piece.nbytes, 1)
            self.session.budget.take(size_bytes)
            self._add(table, piece, size_bytes, row_bytes)
            start += piece.num_rows

    def _add(self, table: Table, piece: pa.RecordBatch, size_bytes: int, row_bytes: float) -> None:
        # A batch may carry metadata of its own; the rows of one call have one schema.
        piece = piece.replace_schema_metadata(None)
        with self._lock:
            if self._stream is not None and self._stream.put(piece, size_bytes):
                if self._stream.size_bytes > STREAM_BYTES:
                    self.cut()
                return
            self._stream = None
            if not self._waiting:
                self.oldest = time.monotonic()
            self.table = table
            self._waiting.append((piece, size_bytes))
            self._waiting_rows += piece.num_rows
            self._waiting_bytes += size_bytes
            if _room(self.session.host.batch, row_bytes, self._waiting_rows, self._waiting_bytes) == 0:
                self._hand_over()

    def _hand_over(self) -> None:
        """Have what waits written, and with it what comes while it is, where the destination takes that."""
        if self.table is not None and self.session.streams and not self.table.primary_keys:
            self._begin_stream(self.table)
        else:
            self.cut()

    def cut(self) -> None:
        """Make a batch of what waits and queue its write; a stream ends."""
        with self._lock:
            if self._stream is not None:
                self._stream.end()
                self._stream = None
            if not self._waiting or self.table is None:
                return
            table, pieces, size_bytes = self.table, self._waiting, self._waiting_bytes
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

            def write() -> None:
                rows = pa.Table.from_batches([piece for piece, _ in pieces])
                if rows.num_rows < SMALL_ROWS * len(pieces):
                    rows = rows.combine_chunks()
                try:
                    self.session.host.destination.write(table, rows)
                except RowsRefused as error:
                    self._write_around(table, rows, error)
                else:
                    self._count(rows.num_rows, size_bytes)

            ordered = bool(table.primary_keys) or table.name in self.session.ordered
            self.enqueue(write, size_bytes, alone=ordered or not self.session.host.capabilities.parallel_appends)

    def _write_around(self, table: Table, rows: pa.Table, error: RowsRefused) -> None:
        """Write the rows that are not refused. Raises `PluginError` for one more than may be put aside."""
        host, most = self.session.host, self.session.max_rejects

        def probe(part: pa.Table) -> None:
            host.attempt(lambda: host.destination.probe(table, part))

        def write(part: pa.Table) -> None:
            # Tried again by itself: what went in before must not go in again.
            host.attempt(lambda: host.destination.write(table, part))
            self._count(part.num_rows, part.nbytes)

        # Where no row may be missing, none is written either.
        found = [rejects.first_refused(probe, rows)] if not most else rejects.write_around(write, rows, error)
        for row, reason in filter(None, found):
            reason = RowsRefused(self._shown(reason.args[0]), hint=reason.hint, column=reason.column)
            refused = rejects.described(self.live or table, row, reason)
            if len(self.rejects) == most:
                raise rejects.too_many(refused, most, reason)
            self.rejects.append(refused)
        if not most:
            raise error

    def _begin_stream(self, table: Table) -> None:
        """Queue a write of what waits and of what will come."""
        stream = self._stream = Stream(table.name, self.session.budget, self.session.host.is_wanted)
        for piece, size_bytes in self._waiting:
            stream.put(piece, size_bytes)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

        def write() -> None:
            pieces, self._being_read = stream.read(), stream
            try:
                self.session.host.destination.stream(table, pieces)
            except Transient as error:
                # What was handed over cannot be handed over again.
                raise PluginError(str(error)) from error
            finally:
                # An error keeps the frame that reads, and so the rows it had in hand.
                pieces.close()
                self._being_read = None
            self._count(stream.rows, stream.size_bytes)

        self._calls.append(_Queued(write, stream=stream))
        self._start()

    def _count(self, rows: int, size_bytes: int) -> None:
        """Note what a write took."""
        with self._lock:
            self._unflushed.rows += rows
            self._unflushed.size_bytes += size_bytes
            if not self.session.gathers:
                self.settle()

    def settle(self) -> None:
        """Count what was written so far as durable."""
        self.stats.rows += self._unflushed.rows
        self.stats.size_bytes += self._unflushed.size_bytes
        self._unflushed = WriteStats()

    def enqueue(self, call: Call, size_bytes: int = 0, *, alone: bool = True) -> None:
        """Add a call behind those that wait; `size_bytes` go back to the budget after it.

        A call that is `alone` begins when those before it have ended, and those after it when it has.
        """
        with self._lock:
            self._calls.append(_Queued(call, size_bytes, alone))
            self._start()

    def _start(self) -> None:
        """Hand over to the threads what may run now."""
        most = self.session.host.capabilities.writers
        while self._calls and self._running < most and not (self._running and (self._alone or self._calls[0].alone)):
            queued = self._calls.popleft()
            self._running += 1
            self._alone = queued.alone
            self.session.host.submit(functools.partial(self._run, queued), queued.stream)

    def wait(self) -> None:
        """Return when no call waits or runs."""
        with self._lock:
            self._lock.wait_for(lambda: not self._running and not self._calls)

    def drop(self) -> None:
        """Forget what waits and what is queued, and wait for the call that runs."""
        with self._lock:
            if self._stream is not None:
                self._stream.end(PluginError("the session was closed"))
                self._stream = None
            freed = self._waiting_bytes + sum(queued.size_bytes for queued in self._calls)
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
            for queued in self._calls:
                if queued.stream is not None:
                    queued.stream.settle()
            self._calls.clear()
        self.session.budget.give_back(freed)
        self.wait()

    def fail(self, error: Exception) -> None:
        """End the table with `error`; the first one stays."""
        if self.error is None:
            if not isinstance(error, CatchmentError):
                log.exception(
                    "a write failed", extra={"plugin": self.session.host.name, "table": (self.live or self).name}
                )
                error = PluginError(f"{type(error).__name__}: {error}")
            self.error = error if isinstance(error, PluginError) else PluginError(str(error))
            self.stats.error = self._shown(str(self.error))
            if isinstance(self.error, PluginLost):
                self.session.lost = self.error

    def _shown(self, text: str) -> str:
        """What a destination says of a staged table, said of the one that people know."""
        return text.replace(self.name, self.live.name) if self.live is not None else text

    def _run(self, queued: _Queued) -> None:
        if self.error is None and self.session.lost is None:
            started = time.perf_counter()
            try:
                with log_context.about(self.session.about, table=(self.live or self).name):
                    if queued.alone:
                        self.session.host.call([self.name], queued.call, stream=queued.stream)
                    else:
                        self.session.host.attempt(queued.call)
            except Exception as error:
                self.fail(error)
            with self._lock:
                self.stats.seconds += time.perf_counter() - started
                self.stats.ended = time.time()
        if queued.stream is not None:
            queued.stream.settle()
        size_bytes = queued.size_bytes
        # Its rows have to be free before others take their place in the budget.
        queued.call = _nothing
        self.session.budget.give_back(size_bytes)
        with self._lock:
            self._running -= 1
            self._start()
            self._lock.notify_all()


def _room(limits: BatchSize, row_bytes: float, rows: int, size_bytes: int) -> int:
    """Rows that still fit a batch of `rows` and `size_bytes`; an empty batch takes one row however large it is."""
    by_rows = limits.rows - rows if limits.rows else 1 << 62
    by_bytes = int((limits.size_bytes - size_bytes) / row_bytes) if limits.size_bytes else 1 << 62
    room = max(min(by_rows, by_bytes), 0)
    return max(room, 1) if rows == 0 else room
