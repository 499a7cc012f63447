"""The way of one source's rows into one destination: stamp, transformers, staging, and what happens at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from catchment import log_context
from catchment.channel import Budget
from catchment.engine import rejects
from catchment.engine.clock import dated_later
from catchment.engine.expect import Expectations
from catchment.engine.kept import count_kept, few, held_back
from catchment.engine.observe import Steps, WatchedSession
from catchment.engine.result import TableResult
from catchment.engine.stamp import Stamp
from catchment.engine.target import Target
from catchment.errors import CatchmentError, PluginError, PluginLost
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable
from catchment.plugin import DestinationPlugin, Swap, TransformerPlugin, WriteSession
from catchment.schema.internal import CQ_CLIENT_ID, CQ_ID, CQ_PARENT_ID, staging_name
from catchment.schema.table import Table

_NO_CLIENTS: Mapping[str, tuple[str, ...]] = {}


@dataclass(slots=True)
class Pipeline:
    """One source into one destination; used by one thread."""

    destination_name: str
    destination: DestinationPlugin
    stamp: Stamp
    budget: Budget
    transformers: Sequence[TransformerPlugin] = ()
    force: bool = False
    """`migrate_mode: forced`."""
    migrates: bool = True
    """False with `--no-migrate`."""
    atomic: bool = False
    """Whether full tables are staged and published together."""
    run: str = ""
    """What names of staged tables carry so that two runs do not meet."""
    max_rejects: int = 0
    """Rows of a table that may be refused and put aside."""
    expectations: Expectations | None = None
    """What tables have to keep; None where nobody expects anything."""
    has_backend: bool = False
    """Whether incremental tables go on from a saved cursor, so that old rows are no stale rows."""
    lost: PluginError | None = None
    """Why the destination as a whole is gone."""
    broken: PluginError | None = None
    """Why a transformer as a whole is gone; what went through it before is written all the same."""
    targets: dict[str, Target] = field(default_factory=dict)
    """By name of the source's table."""
    steps: Steps = field(default_factory=Steps)
    finished: bool = False
    _session: WriteSession | None = None
    _flushed: bool = False

    @property
    def session(self) -> WriteSession:
        """The open session; opened at first use."""
        if self._session is None:
            with log_context.about(destination=self.destination_name):
                session = self.destination.session(self.budget, max_rejects=self.max_rejects)
            self._session = WatchedSession(session, self.steps, self.destination_name)
        return self._session

    def migrate(self, table: Table) -> None:
        """Make a target for `table`, and have the destination create or change its table."""
        result = TableResult(
            source=self.stamp.source_name, destination=self.destination_name, table=table.name, parent=table.parent
        )
        steps = [self.stamp.table(table)]
        try:
            for transformer in self.transformers:
                steps.append(transformer.transform_table(steps[-1]))
        except CatchmentError as error:
            target = Target(table, tuple(steps), steps[-1], result, cleans=False)
            self.targets[table.name] = target
            self._fail(target, error)
            return
        live = steps[-1]
        keeps_history = self._keeps_history(table)
        cleans = self.stamp.write_mode == "overwrite-delete-stale" and not keeps_history
        result.table = live.name
        written = live
        if self.atomic and cleans:
            written = live.without_keys().renamed(staging_name(self.run, len(self.targets)))
        target = Target(table, tuple(steps), written, result, cleans)
        self.targets[table.name] = target
        if any(other is not target and other.live.name == live.name for other in self.targets.values()):
            target.fail(f"two tables of source `{self.stamp.source_name}` are called `{live.name}` after transformers")
            return
        if not target.staged:
            self._look_at_what_is_there(target)
        if self.migrates or target.staged:
            staged = written if target.staged else None
            self._send(target, MigrateTable(live, force=self.force, staged=staged))

    def _look_at_what_is_there(self, target: Target) -> None:
        """Ask about a live table what cannot be asked any more once it gets rows."""
        try:
            if self.expectations is not None:
                self.expectations.note(target.live)
            if target.cleans:
                stamp = self.stamp
                target.dated_later = dated_later(self.destination, target.live, stamp.source_name, stamp.sync_time)
        except PluginError as error:
            target.fail(str(error))

    def leave(self, table: Table, reason: str = "") -> None:
        """Make a target for a table whose columns the source cannot tell: nothing is made, changed or deleted."""
        result = TableResult(source=self.stamp.source_name, destination=self.destination_name, table=table.name)
        if self.stamp.write_mode == "overwrite-delete-stale":
            result.stale_kept_reason = "its columns cannot be told"
        target = self.targets[table.name] = Target(table, (table,), table, result, cleans=False)
        if reason:
            target.fail(reason)

    def insert(self, table: Table, batch: pa.RecordBatch) -> None:
        """Send rows of a source's table; rows of a table that has failed here are dropped, its error is noted."""
        target = self.targets[table.name]
        if self.lost is not None or target.failed:
            return
        try:
            for reached, transformed in self._transformed(target, self.stamp.batch(target.steps[0], batch)):
                self._insert(reached, transformed)
        except CatchmentError as error:
            self._fail(target, error)

    def delete_record(self, message: DeleteRecord) -> None:
        """Send a deletion to the tables that the source's tables became."""

        def renamed(name: str) -> str:
            return self.targets[name].written.name if name in self.targets else name

        target = self.targets.get(message.table_name)
        if self.lost is not None or target is None or target.failed:
            return
        relations = tuple(
            replace(relation, table_name=renamed(relation.table_name), parent_name=renamed(relation.parent_name))
            for relation in message.relations
        )
        self._send(target, replace(message, table_name=renamed(message.table_name), relations=relations))

    def checkpoint(self) -> None:
        """Have everything sent so far made durable, where that can be done before the end."""
        if not self.destination.capabilities.confirms_at_end:
            self.flush()

    def flush(self) -> None:
        """Have everything sent so far made durable; tables that failed on the way are noted."""
        if self.lost is not None:
            return
        try:
            self.session.flush()
            self._flushed = True
        except PluginError as error:
            self._lose(error)
        self._take_stats()

    def finish(
        self,
        incomplete: Mapping[str, str],
        *,
        clients: Mapping[str, tuple[str, ...]] = _NO_CLIENTS,
        aborted: str = "",
        hurried: bool = False,
    ) -> None:
        """Flush, then publish or delete stale rows.

        `incomplete` has the reason for every source's table that was not read to its end, `clients` those whose share
        of it was; `aborted` says why the whole source was not: nothing is published then and nothing deleted. A
        `hurried` end asks for no numbers of rows.
        """
        staged = [target for target in self.targets.values() if target.staged]
        # Rows that will not be published need not be written to the end.
        if not aborted or len(staged) < len(self.targets):
            self._collect_rest()
            self.checkpoint()
        stats = self._session.stats() if self._session is not None and self.max_rejects else {}
        lacking = rejects.put_aside(self, stats, incomplete)
        incomplete = {**incomplete, **lacking}
        # Whose rows were put aside nobody knows, so that no client's share counts as whole.
        clients = {
            name: done for name, done in clients.items() if not any(above in lacking for above in self.line(name))
        }
        if self.lost is None:
            if staged:
                self._publish(staged, incomplete, aborted)
            self._delete_stale(incomplete, clients, aborted)
            if self.expectations is not None and not aborted:
                self.expectations.look_at(target for target in self.targets.values() if not target.staged)
            if self.destination.capabilities.confirms_at_end:
                self.flush()
        self._take_stats()
        for target in self.targets.values():
            result = target.result
            whole = not (target.failed or aborted or target.source.name in incomplete or self.lost)
            result.complete = whole and (result.published or not target.staged)
            if target.staged and not result.published:
                result.rows_written = result.bytes = 0
            if target.cleans and not result.stale_kept_reason:
                if target.failed or self.lost:
                    result.stale_kept_reason = "writing it failed"
                elif result.rows_stale_deleted is not None:
                    result.rows_stale_kept = result.rows_stale_kept or 0
        if not hurried:
            count_kept(self)
        self.finished = True

    def leave_off(self, reason: str) -> None:
        """Settle the results from another thread, as a plugin keeps `finish` from its end."""
        self._take_stats()
        for target in self.targets.values():
            result = target.result
            result.complete = False
            if target.staged and not result.published:
                result.rows_written = result.bytes = 0
            if target.cleans and not result.stale_kept_reason:
                result.stale_kept_reason = f"as far as it is known: {reason}"

    def close(self) -> None:
        """End the session; staged tables that were not published go."""
        if self._session is not None:
            self._session.close()
        for transformer in self.transformers:
            transformer.close()

    def durable(self, source_table: str) -> bool:
        """Whether all rows of the table that were sent are durable and visible here."""
        target = self.targets.get(source_table)
        if target is None or self.lost is not None or target.failed:
            return False
        if self.destination.capabilities.confirms_at_end and not self._flushed:
            return False
        return target.result.published or not target.staged

    def progress(self) -> dict[str, int]:
        """Rows written so far, staged ones too, by name of the source's table; safe from another thread."""
        if self._session is None:
            return {}
        stats = self._session.stats()
        return {
            name: stats[target.written.name].rows_taken
            for name, target in list(self.targets.items())
            if target.written.name in stats
        }

    def _keeps_history(self, table: Table) -> bool:
        """Whether the table, or one above it, is incremental and continues from a cursor."""
        if not self.has_backend:
            return False
        if table.is_incremental:
            return True
        parent = self.targets.get(table.parent)
        return parent is not None and not parent.cleans and self._keeps_history(parent.source)

    def _transformed(
        self, target: Target, batch: pa.RecordBatch, first: int = 0
    ) -> Iterator[tuple[Target, pa.RecordBatch]]:
        """What the transformers from `first` on make of a batch, and what else came out of them, with its target."""
        if first == len(self.transformers):
            yield target, batch
            return
        transformer = self.transformers[first]
        for made in transformer.transform(target.steps[first], batch):
            yield from self._transformed(target, _fitting(transformer, target.steps[first + 1], made), first + 1)
        yield from self._collected(first)

    def _collected(self, place: int, *, last: bool = False) -> Iterator[tuple[Target, pa.RecordBatch]]:
        """What a transformer gives in its own time, through those behind it."""
        transformer = self.transformers[place]
        for found in transformer.collect(last=last):
            reached = next(
                (
                    t
                    for t in self.targets.values()
                    if t.steps[place + 1 :] and t.steps[place + 1].name == found.table.name
                ),
                None,
            )
            if reached is None:
                name = found.table.name
                raise PluginError(f"transformer `{transformer.name}` gave rows of table `{name}`, which nobody sent it")
            fitting = _fitting(transformer, reached.steps[place + 1], found.batch)
            yield from self._transformed(reached, fitting, place + 1)

    def _collect_rest(self) -> None:
        """Send what the transformers still hold back; if that fails any table may lack rows."""
        for place in range(len(self.transformers)):
            try:
                for reached, batch in self._collected(place, last=True):
                    self._insert(reached, batch)
            except CatchmentError as error:
                for target in self.targets.values():
                    if not target.failed:
                        self._fail(target, error)

    def _fail(self, target: Target, error: CatchmentError) -> None:
        """Note what a transformer raised."""
        target.fail(str(error))
        if isinstance(error, PluginLost) and self.broken is None:
            self.broken = error

    def _insert(self, target: Target, batch: pa.RecordBatch) -> None:
        if not target.failed:
            self._send(target, Insert(target.written, batch))

    def _send(self, target: Target, message: MigrateTable | Insert | DeleteRecord | DeleteStale) -> None:
        if self.lost is not None:
            return
        try:
            self.session.write(message)
        except PluginLost as error:
            self._lose(error)
        except PluginError as error:
            if not target.failed:
                target.fail(str(error))

    def _lose(self, error: PluginError) -> None:
        if self.lost is None:
            self.lost = error
            for target in self.targets.values():
                if not target.failed:
                    target.fail(str(error))

    def _take_stats(self) -> None:
        """Bring counts and errors of the session into the results."""
        if self._session is None:
            return
        stats = self._session.stats()
        for target in self.targets.values():
            found = stats.get(target.written.name)
            if found is None:
                continue
            result = target.result
            result.rows_written, result.bytes, result.seconds_written = found.rows, found.size_bytes, found.seconds
            # Of a staged table, what was deleted after it was published stands under the name of the live one.
            live = stats.get(target.live.name, found)
            if live.stale_deleted is not None:
                result.rows_stale_deleted = live.stale_deleted
            error = found.error or live.error
            if error and not target.failed:
                target.fail(error)
            if not target.staged and not target.failed:
                result.published = True

    def _publish(self, staged: Sequence[Target], incomplete: Mapping[str, str], aborted: str) -> None:
        if aborted:
            for target in staged:
                target.result.stale_kept_reason = f"not published: {aborted}"
            return
        unexpected = self.expectations.unexpected(staged, incomplete) if self.expectations is not None else {}
        held = held_back(self, staged, incomplete, unexpected)
        swaps = []
        for target in staged:
            reason = incomplete.get(target.source.name, "")
            if target.source.name in held:
                target.hold_back(held[target.source.name])
                continue
            target.result.stale_kept_reason = reason
            stamp = self.stamp
            if reason:
                parent = self._parent(target)
                swaps.append(Swap(target.live, target.written, stamp.source_name, stamp.sync_time, "all", parent))
            else:
                swaps.append(Swap(target.live, target.written, stamp.source_name, stamp.sync_time))
        if not swaps:
            return
        try:
            published = self.session.publish(swaps)
        except PluginError as error:
            if isinstance(error, PluginLost):
                self._lose(error)
            for target in staged:
                if target.source.name not in held:
                    target.result.stale_kept_reason = "not published, as publishing failed"
                    if not target.failed:
                        target.fail(f"not published: {error}")
            return
        for target in staged:
            if target.source.name not in held:
                done = published[target.live.name]
                target.result.published = True
                target.result.rows_stale_deleted = done.stale_deleted
                target.result.rows_stale_kept = done.stale_kept
                if done.orphans:
                    rows = f"{done.orphans:,} row{'s point' if done.orphans > 1 else ' points'}"
                    target.result.stale_kept_reason += f"; {rows} to a parent that is gone"

    def _parent(self, target: Target) -> str:
        """The live table that rows which stay may point to in vain: its rows get new ids, unless these come of keys.

        Not where rows of some clients go afterwards, which would be counted with the others.
        """
        parent = self.targets.get(target.source.parent)
        pointed = parent is not None and CQ_PARENT_ID in target.live and CQ_ID in parent.live
        if CQ_CLIENT_ID in target.live and self.destination.capabilities.deletes_by_client:
            return ""
        return parent.live.name if parent is not None and pointed else ""

    def line(self, name: str) -> list[str]:
        """The source's table and those above it, up to its root."""
        parent = self.targets[name].source.parent
        return [name, *(self.line(parent) if parent in self.targets else ())]

    def _delete_stale(
        self, incomplete: Mapping[str, str], clients: Mapping[str, tuple[str, ...]], aborted: str
    ) -> None:
        """Delete stale rows where `publish` did not; of an incomplete table those of the clients read to their end."""
        cleaned = []
        for target in self.targets.values():
            reason = aborted or incomplete.get(target.source.name, "")
            if not target.cleans or target.failed or (target.staged and not (reason and target.result.published)):
                continue
            by_client = CQ_CLIENT_ID in target.live and self.destination.capabilities.deletes_by_client
            done = clients.get(target.source.name, ()) if by_client and not aborted else ()
            if not target.staged:
                target.result.stale_kept_reason = reason or target.dated_later
            if reason and not done:
                continue
            if reason:
                target.result.stale_kept_reason = f"{reason}; only those of {few(done)} are deleted"
            if self.expectations is not None and not reason and self.expectations.keeps_stale(target):
                continue
            message = DeleteStale(
                target.live, self.stamp.source_name, self.stamp.sync_time, clients=done if reason else None
            )
            self._send(target, message)
            cleaned.append(target.result)
        if cleaned:
            self.flush()
        for result in cleaned:
            if result.rows_stale_kept and result.rows_stale_deleted:
                # Counted when it was published, before those of some clients were deleted.
                result.rows_stale_kept -= result.rows_stale_deleted


def _fitting(transformer: TransformerPlugin, result: Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch`, which has the columns of `result`. Raises `PluginError` if it has not."""
    if (batch.schema.names, batch.schema.types) != (result.arrow_schema.names, result.arrow_schema.types):
        raise PluginError(
            f"transformer `{transformer.name}` gave rows of table `{result.name}` that are not what it "
            f"announced: expected {_columns(result.arrow_schema)}, got {_columns(batch.schema)}"
        )
    return batch


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"`{field.name}` {field.type}" for field in schema)
