"""One source's part of a sync: read its messages, send them down every pipeline, and end them all in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from catchment import log_context
from catchment.channel import Channel, ChannelClosed
from catchment.coalesce import size_of
from catchment.engine.pipeline import Pipeline
from catchment.engine.result import PluginResult, TableResult
from catchment.errors import CatchmentError, PluginError
from catchment.messages import (
    ClientDone,
    ClientRead,
    Cursor,
    DeleteRecord,
    Insert,
    MigrateTable,
    RowsSkipped,
    SourceError,
    SyncMessage,
)
from catchment.messages import TableError as TableErrorMessage
from catchment.plugin import SourcePlugin, SyncRequest
from catchment.schema.table import Table, descendants

log = logging.getLogger("catchment.sync")

READ_AHEAD_BYTES = 8 << 20
"""Bytes that a source may be ahead of its destinations."""
CHECKPOINT_S = 60.0
"""Seconds after which a cursor makes the engine flush, so that a long sync of an incremental table saves its way."""
MOST_CLIENTS = 1_000
"""Shares of clients that a source's run remembers for those who look on; an organisation may have many more."""


class Interrupted(CatchmentError):
    """The user asked the sync to end."""


@dataclass(slots=True)
class Reading:
    """What is known of one table while it is read."""

    table: Table
    rows: int = 0
    size_bytes: int = 0
    skipped: int = 0
    errors: int = 0
    first_error: str = ""
    started: datetime | None = None
    first_at: float = 0.0
    last_at: float = 0.0
    clients_done: set[str] = field(default_factory=set)
    clients_failed: set[str] = field(default_factory=set)
    clients_read: list[ClientRead] = field(default_factory=list)
    """How the reading of its clients went; not all of them where there are very many."""

    def note_rows(self, count: int, size_bytes: int) -> None:
        """Count rows and bytes, and the time from the first to the last of them."""
        self.last_at = time.monotonic()
        if self.started is None:
            self.started, self.first_at = datetime.now(UTC), self.last_at
        self.rows += count
        self.size_bytes += size_bytes

    @property
    def reason(self) -> str:
        """Why the table was not read to its end; empty if it was."""
        if self.errors:
            return f"it was read with {self.errors} error{'s' if self.errors > 1 else ''}: {self.first_error}"
        return f"the source left out {self.skipped} row{'s' if self.skipped > 1 else ''}" if self.skipped else ""


class SourceRun:
    """The sync of one source into its destinations; `run` is called once, by one thread."""

    def __init__(
        self, name: str, plugin: SourcePlugin, request: SyncRequest, pipelines: list[Pipeline], result: PluginResult
    ) -> None:
        self.name = name
        self.pipelines = pipelines
        self.result = result
        self.readings: dict[str, Reading] = {}
        self._plugin = plugin
        self._request = request
        self._channel: Channel[SyncMessage] = Channel(READ_AHEAD_BYTES)
        self._cursors: list[Cursor] = []
        self._clients_left = MOST_CLIENTS
        self._saved_at = time.monotonic()
        self._ended = False
        self._doubt = ""
        """An error that names no table, so that it may be any."""
        self._interrupted = threading.Event()

    def run(self) -> None:
        """Sync; what went wrong is in `result` and in the tables' results."""
        started = time.monotonic()
        pump = threading.Thread(target=self._pump, name=f"read-{self.name}", daemon=True)
        pump.start()
        aborted = ""
        try:
            for message in self._channel:
                if self._interrupted.is_set():
                    raise Interrupted("the sync was interrupted")
                self._handle(message)
                if all(pipeline.lost is not None for pipeline in self.pipelines):
                    raise PluginError(f"source `{self.name}` was broken off: none of its destinations is left")
        except Interrupted:
            aborted = "the sync was interrupted"
            self.result.outcome = "interrupted"
        except PluginError as error:
            aborted = f"source `{self.name}` failed"
            self.result.outcome, self.result.error = "failed", str(error)
        finally:
            self._channel.abandon()
            if aborted:
                self._plugin.interrupt()
        self._end(aborted)
        # A source that is stuck must not keep the sync from ending; its thread is a daemon.
        pump.join(timeout=2.0 if self._interrupted.is_set() else 5.0)
        self.result.seconds = time.monotonic() - started

    def interrupt(self) -> None:
        """End the reading; what was accepted is flushed where rows are visible as they come."""
        self._interrupted.set()
        self._channel.close(Interrupted("the sync was interrupted"))

    def leave(self, reason: str) -> set[str]:
        """Settle what is known while a plugin keeps the run from ending; the names of the destinations that do.

        Called from another thread, and nothing follows.
        """
        left = [pipeline for pipeline in self.pipelines if not pipeline.finished]
        for pipeline in left:
            pipeline.leave_off(reason)
        self._ended = True
        return {pipeline.destination_name for pipeline in left}

    def tables(self) -> list[TableResult]:
        """The results so far, one per table and destination; also while `run` runs."""
        rows = []
        for pipeline in self.pipelines:
            written = {} if self._ended else pipeline.progress()
            for name, target in list(pipeline.targets.items()):
                reading, result = self.readings.get(name), target.result
                if reading is not None:
                    result.rows_read, result.started = reading.rows, reading.started
                    result.seconds_read = max(reading.last_at - reading.first_at, 0.0)
                if name in written:
                    result.rows_written = written[name]
                    # What is read shows sooner whether anything moves; at the end it is what was written.
                    result.bytes = reading.size_bytes if reading is not None else 0
                rows.append(result)
        return rows

    def _pump(self) -> None:
        """Move the source's messages into the channel, so that a slow source can be interrupted."""
        messages: Iterable[SyncMessage] | None = None
        try:
            with log_context.about(source=self.name):
                messages = self._plugin.sync(self._request)
                for message in messages:
                    self._channel.put(message, size_of(message.batch) if isinstance(message, Insert) else 0)
            self._channel.close()
        except ChannelClosed:
            pass
        except CatchmentError as error:
            self._channel.close(error if isinstance(error, PluginError) else PluginError(str(error)))
        except Exception as error:
            log.exception("the source failed", extra={"source": self.name, "plugin": self._plugin.name})
            self._channel.close(PluginError(f"source `{self.name}` failed: {type(error).__name__}: {error}"))
        finally:
            close = getattr(messages, "close", None)
            if close is not None:
                close()

    def _handle(self, message: SyncMessage) -> None:
        match message:
            case Insert(table, batch):
                self._known(table.name).note_rows(batch.num_rows, batch.nbytes)
                for pipeline in self.pipelines:
                    pipeline.insert(table, batch)
            case MigrateTable(table):
                if self._is_new(table):
                    for pipeline in self.pipelines:
                        pipeline.migrate(table)
            case DeleteRecord():
                for pipeline in self.pipelines:
                    pipeline.delete_record(message)
            case TableErrorMessage(name, text, client):
                if name not in self.readings and self._is_new(Table(name, ())):
                    for pipeline in self.pipelines:
                        pipeline.leave(self.readings[name].table)
                reading = self._known(name)
                reading.errors += 1
                reading.first_error = reading.first_error or text
                reading.clients_failed.add(client)
                for pipeline in self.pipelines:
                    pipeline.targets[name].result.add_error(client, text)
                log.error("%s", text, extra=self._fields(name, client))
            case RowsSkipped(name, count, example, client):
                reading = self._known(name)
                reading.skipped += count
                reading.clients_failed.add(client)
                for pipeline in self.pipelines:
                    pipeline.targets[name].result.rows_rejected += count
                log.warning("%d rows left out, the first: %s", count, example, extra=self._fields(name, client))
            case SourceError(text):
                self._doubt = self._doubt or text
                self.result.outcome, self.result.error = "partial", f"an error names no table: {self._doubt}"
                log.error("%s", text, extra={"source": self.name, "plugin": self._plugin.name})
            case ClientDone(name, client):
                self._known(name).clients_done.add(client)
            case ClientRead(name):
                self._clients_left -= 1
                if self._clients_left >= 0:
                    self._known(name).clients_read.append(message)
            case Cursor():
                self._cursors.append(message)
                if time.monotonic() - self._saved_at > CHECKPOINT_S:
                    for pipeline in self.pipelines:
                        pipeline.checkpoint()
                    self._acknowledge()

    def _fields(self, table: str, client: str) -> dict[str, str]:
        return {"source": self.name, "plugin": self._plugin.name, "table": table, "client": client}

    def _is_new(self, table: Table) -> bool:
        """Whether this is the first word of the table. Raises `PluginError` if it had other columns before."""
        known = self.readings.get(table.name)
        if known is None:
            self.readings[table.name] = Reading(table)
        elif known.table != table:
            raise PluginError(f"source `{self.name}` sent table `{table.name}` twice, the second time with a change")
        return known is None

    def _known(self, name: str) -> Reading:
        if name not in self.readings:
            raise PluginError(f"source `{self.name}` speaks of table `{name}` before it sent its columns")
        return self.readings[name]

    def _end(self, aborted: str) -> None:
        incomplete = self._incomplete()
        clients = {name: tuple(sorted(self._complete_clients(name))) for name in incomplete}
        for pipeline in self.pipelines:
            pipeline.finish(incomplete, clients=clients, aborted=aborted, hurried=self._interrupted.is_set())
        self._ended = True
        self._acknowledge()

    def _incomplete(self) -> dict[str, str]:
        """Tables that were not read to their end, and those below them, each with the reason."""
        reasons: dict[str, str] = {}
        for name, reading in self.readings.items():
            if reading.reason:
                reasons[name] = reading.reason
            elif reading.table.parent in reasons:
                reasons[name] = f"its parent table `{reading.table.parent}` is not complete"
            elif self._doubt:
                reasons[name] = f"the source had an error that names no table: {self._doubt}"
        return reasons

    def _complete_clients(self, name: str) -> set[str]:
        """The clients whose share of the table, and of every table above it, was read to its end."""
        reading = self.readings[name]
        complete = reading.clients_done - reading.clients_failed
        parent = reading.table.parent
        return complete & self._complete_clients(parent) if parent in self.readings else complete

    def _may_continue(self, name: str) -> bool:
        """Whether the next sync may go on behind the table's rows: they and those below them are durable everywhere.

        A row that is not read again does not get its children read again either.
        """
        below = descendants([reading.table for reading in self.readings.values()], name)
        tables = [name, *(table.name for table in below)]
        return all(pipeline.durable(table) for pipeline in self.pipelines for table in tables)

    def _acknowledge(self) -> None:
        """Have the source save the cursors whose rows are durable in every destination."""
        self._saved_at = time.monotonic()
        safe = [cursor for cursor in self._cursors if self._may_continue(cursor.table_name)]
        if not safe:
            return
        self._cursors = [cursor for cursor in self._cursors if cursor not in safe]
        try:
            self._plugin.acknowledge(safe)
        except CatchmentError as error:
            self.result.outcome = "failed"
            self.result.error = f"the cursors of source `{self.name}` could not be saved: {error}"
