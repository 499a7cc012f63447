"""From an author's `Destination` to the message-level plugin: order, batches, retries, one lane per table.

The concurrency contract. A session has one lane per table; a lane is a queue of calls that run in order, never two at
once, on a pool of `capabilities.writers` threads shared by all sessions of the destination. With one writer every call
into the destination is made under one lock; with more, calls for one table still never overlap, whichever session they
come from, except that batches of a table without keys may if the destination declares `parallel_appends`. Rows gather
in their lane until a batch is full by rows, bytes or seconds, until the run's byte budget asks for the largest lane, or
until a message of another kind for that table, `flush` or `publish` needs them out.

A failed call ends its table: later rows of it are refused with the same error, what was queued is dropped, and the
error stands in `stats`. Only `Transient` is tried again; when that does not help, the destination counts as lost.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa

from catchment.channel import Budget
from catchment.errors import CatchmentError, PluginError, PluginLost, Transient
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, WriteMessage
from catchment.plugin import BatchSize, Capabilities, Published, Swap, WriteStats
from catchment.schema.table import Table
from catchment.sdk.destination import Destination
from catchment.spec.fields import BatchSpec, parse_spec

log = logging.getLogger("catchment.writer")

R = TypeVar("R")
Call = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a `Transient` failure is tried again."""

    attempts: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0


class DestinationHost:
    """A `Destination` with the face of `DestinationPlugin`."""

    def __init__(self, destination_type: type[Destination[Any]], retries: Retries | None = None) -> None:
        self.name = destination_type.name
        self._type = destination_type
        self._retries = retries or Retries()
        self._destination: Destination[Any] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._one_at_a_time = threading.RLock()
        self._table_locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._sessions: set[Session] = set()
        self._closing = threading.Event()
        self.batch = BatchSize()
        """Limits in force, known after `init`."""

    @property
    def capabilities(self) -> Capabilities:
        """Those of the class before `init`, of the object (which knows its spec) after it."""
        return self._destination.capabilities if self._destination is not None else self._type.capabilities

    @property
    def destination(self) -> Destination[Any]:
        """The author's object; only after `init`."""
        if self._destination is None:
            raise PluginError(f"destination `{self.name}` was used before `init`")
        return self._destination

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Check the spec, make the destination and open it."""
        parsed = parse_spec(self._type.spec_type, spec, where=f"destination `{self.name}`")
        self._destination = self._type(parsed)
        self.batch = _batch_size(parsed, self.capabilities.batch)
        self._pool = ThreadPoolExecutor(self.capabilities.writers, thread_name_prefix=f"write-{self.name}")
        if not no_connection:
            self.attempt(self._destination.open)
        if self.batch.timeout_s:
            threading.Thread(target=self._watch_age, name=f"age-{self.name}", daemon=True).start()

    def session(self, budget: Budget) -> Session:
        """Begin to write."""
        session = Session(self, budget)
        self._sessions.add(session)
        return session

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of `table`, as the author's `read` gives them."""
        yield from self.destination.read(table)

    def test_connection(self) -> None:
        """Ask the author's check; the plugin is initialised with `no_connection` for it."""
        self.destination.test_connection()

    def close(self) -> None:
        """Stop the threads and close the destination."""
        self._closing.set()
        for session in list(self._sessions):
            session.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._destination is not None:
            destination, self._destination = self._destination, None
            destination.close()

    def submit(self, work: Call) -> None:
        """Run `work` on one of the writer threads."""
        if self._pool is None:
            raise PluginError(f"destination `{self.name}` was used before `init`")
        self._pool.submit(work)

    def forget(self, session: Session) -> None:
        """Take a closed session off the list."""
        self._sessions.discard(session)

    def call(self, tables: Sequence[str], work: Callable[[], R]) -> R:
        """Run `work` with the locks that the contract promises for these tables, again if it fails for the moment."""
        with contextlib.ExitStack() as locks:
            if self.capabilities.writers == 1:
                locks.enter_context(self._one_at_a_time)
            else:
                for name in sorted(tables):
                    locks.enter_context(self._table_locks[name])
            return self.attempt(work)

    def attempt(self, work: Callable[[], R]) -> R:
        """Run `work`; `Transient` is tried again with back-off and jitter, then becomes `PluginLost`."""
        try:
            return work()
        except Transient as first:
            return self._attempt_again(work, first)

    def _attempt_again(self, work: Callable[[], R], first: Transient) -> R:
        # Imported where it is needed: most runs never retry, and every run pays for imports.
        import tenacity

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else first
            asked = error.retry_after_s if isinstance(error, Transient) else None
            return asked if asked is not None else back_off(state)

        back_off = tenacity.wait_random_exponential(self._retries.first_wait_s, self._retries.longest_wait_s)
        log.warning("%s, trying again", first, extra={"destination": self.name})
        time.sleep(self._retries.first_wait_s if first.retry_after_s is None else first.retry_after_s)
        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retries.attempts - 1) | tenacity.stop_when_event_set(self._closing),
            wait=wait,
            retry=tenacity.retry_if_exception_type(Transient),
            sleep=tenacity.sleep_using_event(self._closing),
            reraise=True,
        )
        try:
            return again(work)
        except Transient as last:
            raise PluginLost(f"destination `{self.name}` stays away: {last}") from last

    def _watch_age(self) -> None:
        """Cut lanes whose oldest row has waited for `timeout_s`."""
        while not self._closing.wait(min(self.batch.timeout_s / 4, 1.0)):
            for session in list(self._sessions):
                session.cut_older_than(time.monotonic() - self.batch.timeout_s)


@dataclass(slots=True)
class _Queued:
    """A call that waits in a lane."""

    call: Call
    size_bytes: int
    alone: bool


def _nothing() -> None:
    """What is left of a call that was made."""


class Lane:
    """The queue of one table in one session. It is also a `Buffer` of the run's byte budget."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name
        self.stats = WriteStats()
        self.error: PluginError | None = None
        self.table: Table | None = None
        self.oldest = 0.0
        """Monotonic time at which the first row that waits here came."""
        self._lock = threading.Condition(threading.RLock())
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._calls: deque[_Queued] = deque()
        self._running = 0
        self._alone = False
        """Whether what runs must be the only call."""
        self._unflushed = WriteStats()

    @property
    def size_bytes(self) -> int:
        """Bytes that wait to become a batch."""
        return self._waiting_bytes

    def release_soon(self) -> None:
        """Write what waits."""
        self.cut()

    def insert(self, table: Table, batch: pa.RecordBatch) -> None:
        """Add rows, slicing them to the limits in force. Blocks while the run's budget is used up."""
        limits = self.session.host.batch
        start, row_bytes = 0, max(batch.nbytes / batch.num_rows, 1e-9)
        while start < batch.num_rows:
            with self._lock:
                room = _room(limits, row_bytes, self._waiting_rows, self._waiting_bytes)
                if room == 0 or (self._waiting and self.table is not table and self.table != table):
                    self.cut()
                    continue
            piece = batch.slice(start, min(room, batch.num_rows - start))
            size_bytes = max(piece.nbytes, 1)
            self.session.budget.take(size_bytes)
            with self._lock:
                if not self._waiting:
                    self.oldest = time.monotonic()
                self.table = table
                self._waiting.append(piece)
                self._waiting_rows += piece.num_rows
                self._waiting_bytes += size_bytes
                if _room(limits, row_bytes, self._waiting_rows, self._waiting_bytes) == 0:
                    self.cut()
            start += piece.num_rows

    def cut(self) -> None:
        """Make a batch of what waits and queue its write."""
        with self._lock:
            if not self._waiting or self.table is None:
                return
            table, batches, size_bytes = self.table, self._waiting, self._waiting_bytes
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

            def write() -> None:
                # A batch may carry metadata of its own; the rows of one call have one schema.
                rows = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches])
                self.session.host.destination.write(table, rows)
                with self._lock:
                    self._unflushed.rows += rows.num_rows
                    self._unflushed.size_bytes += size_bytes
                    if not self.session.gathers:
                        self.settle()

            ordered = bool(table.primary_keys) or table.name in self.session.ordered
            self.enqueue(write, size_bytes, alone=ordered or not self.session.host.capabilities.parallel_appends)

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
            self.session.host.submit(functools.partial(self._run, queued))

    def wait(self) -> None:
        """Return when no call waits or runs."""
        with self._lock:
            self._lock.wait_for(lambda: not self._running and not self._calls)

    def drop(self) -> None:
        """Forget what waits and what is queued, and wait for the call that runs."""
        with self._lock:
            freed = self._waiting_bytes + sum(queued.size_bytes for queued in self._calls)
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
            self._calls.clear()
        self.session.budget.give_back(freed)
        self.wait()

    def fail(self, error: Exception) -> None:
        """End the table with `error`; the first one stays."""
        if self.error is None:
            if not isinstance(error, CatchmentError):
                log.exception("destination `%s` failed on table `%s`", self.session.host.name, self.name)
                error = PluginError(f"{type(error).__name__}: {error}")
            self.error = error if isinstance(error, PluginError) else PluginError(str(error))
            self.stats.error = str(self.error)
            if isinstance(self.error, PluginLost):
                self.session.lost = self.error

    def _run(self, queued: _Queued) -> None:
        if self.error is None and self.session.lost is None:
            started = time.perf_counter()
            try:
                if queued.alone:
                    self.session.host.call([self.name], queued.call)
                else:
                    self.session.host.attempt(queued.call)
            except Exception as error:
                self.fail(error)
            with self._lock:
                self.stats.seconds += time.perf_counter() - started
        size_bytes = queued.size_bytes
        # Its rows have to be free before others take their place in the budget.
        queued.call = _nothing
        self.session.budget.give_back(size_bytes)
        with self._lock:
            self._running -= 1
            self._start()
            self._lock.notify_all()


class Session:
    """The writing of one source's sync into one destination; a `WriteSession`."""

    def __init__(self, host: DestinationHost, budget: Budget) -> None:
        self.host = host
        self.budget = budget
        self.lost: PluginLost | None = None
        self.gathers = type(host.destination).flush is not Destination.flush
        """Whether rows become durable at `flush` only."""
        self._lanes: dict[str, Lane] = {}
        self._staged: dict[str, Table] = {}
        self.ordered: set[str] = set()
        """Staged tables that will get a key: of equal rows the last one counts, so their batches stay in order."""
        self._closed = False

    def write(self, message: WriteMessage) -> None:
        """Accept a message; see `WriteSession`."""
        if self.lost is not None:
            raise self.lost
        match message:
            case Insert(table, batch):
                lane = self._open_lane(table.name)
                if batch.num_rows:
                    lane.insert(table, batch)
            case MigrateTable(table, force, staged):
                self._migrate(table, force=force, staged=staged)
            case DeleteStale(table):
                self._delete_stale(table, message)
            case DeleteRecord():
                self._delete_records(message)

    def flush(self) -> None:
        """Write what waits, wait for it, and have the destination make it durable."""
        for lane in list(self._lanes.values()):
            lane.cut()
        for lane in list(self._lanes.values()):
            lane.wait()
        lanes = [lane for lane in self._lanes.values() if lane.error is None and lane.table is not None]
        if self.gathers and lanes and self.lost is None:
            tables = [lane.table for lane in lanes if lane.table is not None]
            try:
                self.host.call([table.name for table in tables], lambda: self.host.destination.flush(tables))
            except Exception as error:
                for lane in lanes:
                    lane.fail(error)
            for lane in lanes:
                if lane.error is None:
                    lane.settle()
        if self.lost is not None:
            raise self.lost

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Flush, then make the staged tables visible together."""
        self.flush()
        for swap in swaps:
            self._open_lane(swap.staged.name)
        names = [swap.table.name for swap in swaps]
        published = self.host.call(names, lambda: self.host.destination.publish(swaps))
        for swap in swaps:
            self._staged.pop(swap.staged.name, None)
        return published

    def stats(self) -> Mapping[str, WriteStats]:
        """What is durable so far, by table."""
        return {name: replace(lane.stats) for name, lane in list(self._lanes.items())}

    def close(self) -> None:
        """Drop what is not flushed, remove staged tables that were not published."""
        if self._closed:
            return
        self._closed = True
        for lane in self._lanes.values():
            lane.drop()
            self.budget.unregister(lane)
        if self._staged and self.lost is None:
            staged = list(self._staged.values())
            try:
                self.host.call([table.name for table in staged], lambda: self.host.destination.discard(staged))
            except CatchmentError as error:
                log.warning("staged tables stay until the next run: %s", error, extra={"destination": self.host.name})
        self.host.forget(self)

    def cut_older_than(self, moment: float) -> None:
        """Cut every lane whose oldest waiting row came before `moment` (monotonic seconds)."""
        for lane in list(self._lanes.values()):
            if lane.size_bytes and lane.oldest <= moment:
                lane.cut()

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self, name)
            self.budget.register(lane)
        return lane

    def _open_lane(self, name: str) -> Lane:
        lane = self._lane(name)
        if lane.error is not None:
            raise lane.error
        return lane

    def _migrate(self, table: Table, *, force: bool, staged: Table | None) -> None:
        destination = self.host.destination
        lane = self._open_lane(staged.name if staged is not None else table.name)
        lane.cut()
        lane.table = staged if staged is not None else table
        if staged is None:
            lane.enqueue(lambda: destination.migrate(table, force=force))
        else:
            self._staged[staged.name] = staged
            if table.primary_keys:
                self.ordered.add(staged.name)
            lane.enqueue(lambda: destination.stage(table, staged, force=force))

    def _delete_stale(self, table: Table, message: DeleteStale) -> None:
        lane = self._open_lane(table.name)
        lane.cut()

        def delete() -> None:
            lane.stats.stale_deleted = self.host.destination.delete_stale(
                table, source_name=message.source_name, sync_time=message.sync_time, clients=message.clients
            )

        lane.enqueue(delete)

    def _delete_records(self, message: DeleteRecord) -> None:
        # The rows to delete, and their descendants, may still wait in their lanes: order matters across tables here.
        names = [message.table_name, *(relation.table_name for relation in message.relations)]
        lanes = [self._open_lane(name) for name in names]
        for lane in lanes:
            lane.cut()
        for lane in lanes:
            lane.wait()
        try:
            self.host.call(names, lambda: self.host.destination.delete_records(message))
        except PluginError as error:
            lanes[0].fail(error)
            raise


def _batch_size(spec: object, wished: BatchSize) -> BatchSize:
    """The limits that `spec` sets; if it sets none, those the destination wishes."""
    if not isinstance(spec, BatchSpec):
        return wished
    return BatchSize(
        rows=wished.rows if spec.batch_size is None else spec.batch_size,
        size_bytes=wished.size_bytes if spec.batch_size_bytes is None else spec.batch_size_bytes,
        timeout_s=wished.timeout_s if spec.batch_timeout is None else spec.batch_timeout,
    )


def _room(limits: BatchSize, row_bytes: float, rows: int, size_bytes: int) -> int:
    """Rows that still fit a batch of `rows` and `size_bytes`; an empty batch takes one row however large it is."""
    by_rows = limits.rows - rows if limits.rows else 1 << 62
    by_bytes = int((limits.size_bytes - size_bytes) / row_bytes) if limits.size_bytes else 1 << 62
    room = max(min(by_rows, by_bytes), 0)
    return max(room, 1) if rows == 0 else room
