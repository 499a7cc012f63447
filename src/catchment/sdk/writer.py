"""From an author's `Destination` to the message-level plugin: order, batches, retries, one lane per table.

The concurrency contract. A session has one lane per table; a lane is a queue of calls that run in order, never two at
once, on a pool of `capabilities.writers` threads shared by all sessions of the destination. With one writer every call
into the destination is made under one lock; with more, calls for one table still never overlap, whichever session they
come from, except that batches of a table without keys may if the destination declares `parallel_appends`. Rows gather
in their lane until a batch is full by rows, bytes or seconds, until the run's byte budget asks for the largest lane, or
until a message of another kind for that table, `flush` or `publish` needs them out. A stream keeps its thread for as
long as it has rows to read.

A failed call ends its table: later rows of it are refused with the same error, what was queued is dropped, and the
error stands in `stats`. Only `Transient` is tried again; when that does not help, the destination counts as lost.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from catchment import log_context
from catchment.channel import Budget
from catchment.errors import CatchmentError, PluginError, PluginLost, Transient
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, WriteMessage
from catchment.plugin import BatchSize, Capabilities, Measure, Published, Swap, TablePreview, WriteStats
from catchment.schema.table import Table
from catchment.sdk.destination import Destination
from catchment.sdk.lane import Call, Lane, Stream
from catchment.spec.fields import BatchSpec, parse_spec, secrets_of

log = logging.getLogger("catchment.writer")

R = TypeVar("R")


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
        self._streams: list[Stream] = []
        self._streams_lock = threading.Lock()
        self._waiting = 0
        """Calls that wait for a thread or for others to end."""
        self._closing = threading.Event()
        self.batch = BatchSize()
        """Limits in force, known after `init`."""
        self.streams = False
        """Whether what follows a full batch is written in the same call; known after `init`."""
        self.secrets: frozenset[str] = frozenset()
        """What must not be shown of the spec, known after `init`."""

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
        self.secrets = secrets_of(parsed)
        self._destination = self._type(parsed)
        self.batch = _batch_size(parsed, self.capabilities.batch)
        # Limits that the spec sets are obeyed; a stream would pass them.
        self.streams = self._type.stream is not Destination.stream and self.batch == self.capabilities.batch
        self._pool = ThreadPoolExecutor(self.capabilities.writers, thread_name_prefix=f"write-{self.name}")
        if not no_connection:
            self.attempt(self._destination.open)
        if self.batch.timeout_s and not no_connection:
            threading.Thread(target=self._watch_age, name=f"age-{self.name}", daemon=True).start()

    def session(self, budget: Budget, *, max_rejects: int = 0) -> Session:
        """Begin to write."""
        session = Session(self, budget, max_rejects)
        self._sessions.add(session)
        return session

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of `table`, as the author's `read` gives them."""
        yield from self.destination.read(table)

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """What migrating each table would do, as the author's `preview` has it."""
        return self.attempt(lambda: self.destination.preview(tables, force=force))

    def stored_table(self, name: str) -> Table | None:
        """The table that is there, as the author's `stored_table` gives it."""
        return self.call([name], lambda: self.destination.stored_table(name))

    def stored_names(self) -> Sequence[str]:
        """Names of the tables that are there, as far as the author's `stored_names` knows them."""
        return self.call([], self.destination.stored_names)

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """The numbers that the author's `measure` gives."""
        names = [table.name, *(measure.other for measure in measures if measure.other)]

        def ask() -> Sequence[int]:
            return self.destination.measure(table, measures, keys=keys, source_name=source_name)

        return self.call(names, ask)

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

    def submit(self, work: Call, stream: Stream | None = None) -> None:
        """Run `work`, which writes `stream` if there is one, on a writer thread."""
        if self._pool is None:
            raise PluginError(f"destination `{self.name}` was used before `init`")
        with self._streams_lock:
            self._waiting += 1
        self._pool.submit(self._begin, work, stream)

    def _begin(self, work: Call, stream: Stream | None) -> None:
        with self._streams_lock:
            self._waiting -= 1
            if stream is not None:
                self._streams.append(stream)
        try:
            work()
        finally:
            if stream is not None:
                with self._streams_lock:
                    self._streams.remove(stream)

    def is_wanted(self) -> bool:
        """Whether calls wait; a stream without rows gives way to them."""
        return self._waiting > 0

    def forget(self, session: Session) -> None:
        """Take a closed session off the list."""
        self._sessions.discard(session)

    def call(self, tables: Sequence[str], work: Callable[[], R], *, stream: Stream | None = None) -> R:
        """Run `work` with the locks that the contract promises for these tables, again if it fails for the moment.

        Streams that hold one of those locks end, but for `stream`, which `work` itself reads.
        """
        with contextlib.ExitStack() as locks:
            with self._streams_lock:
                self._waiting += 1
                for other in self._streams:
                    if other is not stream and (self.capabilities.writers == 1 or other.table_name in tables):
                        other.end()
            try:
                if self.capabilities.writers == 1:
                    locks.enter_context(self._one_at_a_time)
                else:
                    for name in sorted(tables):
                        locks.enter_context(self._table_locks[name])
            finally:
                with self._streams_lock:
                    self._waiting -= 1
            return self.attempt(work)

    def attempt(self, work: Callable[[], R]) -> R:
        """Run `work`; `Transient` is tried again with back-off and jitter, then becomes `PluginLost`.

        What is not ours becomes a `PluginError`, its traceback goes to the log: all of the author's code runs in here.
        """
        try:
            with log_context.about(plugin=self.name):
                try:
                    return work()
                except Transient as first:
                    return self._attempt_again(work, first)
        except CatchmentError:
            raise
        except Exception as error:
            log.exception("a call failed", extra={"plugin": self.name})
            raise PluginError(f"{type(error).__name__}: {error}") from error

    def _attempt_again(self, work: Callable[[], R], first: Transient) -> R:
        # Imported where it is needed: most runs never retry, and every run pays for imports.
        import tenacity

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else first
            asked = error.retry_after_s if isinstance(error, Transient) else None
            return asked if asked is not None else back_off(state)

        back_off = tenacity.wait_random_exponential(self._retries.first_wait_s, self._retries.longest_wait_s)
        log.warning("%s, trying again", first, extra={"plugin": self.name})
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


class Session:
    """The writing of one source's sync into one destination; a `WriteSession`."""

    def __init__(self, host: DestinationHost, budget: Budget, max_rejects: int = 0) -> None:
        self.host = host
        self.about = log_context.current()
        """What is known of the session where it was begun; its writes run on threads of their own."""
        self.budget = budget
        self.max_rejects = max_rejects
        self.lost: PluginLost | None = None
        self.gathers = type(host.destination).flush is not Destination.flush
        """Whether rows become durable at `flush` only."""
        # What was handed to a stream is gone, so a refused row could not be looked for.
        self.streams = host.streams and not max_rejects
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
        return {name: lane.snapshot() for name, lane in list(self._lanes.items())}

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
                log.warning("staged tables stay until the next run: %s", error, extra={"plugin": self.host.name})
        self.host.forget(self)

    def cut_older_than(self, moment: float) -> None:
        """Cut every lane whose oldest waiting row came before `moment` (monotonic seconds)."""
        for lane in list(self._lanes.values()):
            if lane.waits_since(moment):
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
        lane.live = table
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
