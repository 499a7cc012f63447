"""Run a plan: open the destinations, sync the sources side by side, and tell what came of it.

One thread per running source, one more that reads it ahead; what a destination does with its rows is the destination's
affair. A plugin that fails takes down only what needs it.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from catchment import __version__, log_context
from catchment.channel import Budget
from catchment.engine import registry
from catchment.engine.connections import Connections, reached_by
from catchment.engine.expect import Expectations
from catchment.engine.foreign import destination_at
from catchment.engine.giving_up import settled
from catchment.engine.observe import Observer, Steps
from catchment.engine.pipeline import Pipeline
from catchment.engine.plan import Plan, backend_destination, used_destinations
from catchment.engine.result import PluginResult, Result, TableResult
from catchment.engine.source_run import SourceRun
from catchment.engine.stamp import Stamp, sync_group_id
from catchment.engine.summary import Summary, migrate_table
from catchment.errors import CatchmentError, PluginError
from catchment.plugin import Backend, DestinationPlugin, SourcePlugin, SyncRequest, TransformerPlugin
from catchment.schema.internal import add_client_id
from catchment.schema.select import Selection, matches
from catchment.schema.table import Table
from catchment.spec.model import BackendOptions, Config, DestinationConfig, SourceConfig

log = logging.getLogger("catchment.sync")

BUFFER_BYTES = 100 << 20
"""Bytes that the writers of a run may hold together: a slow destination costs this much memory, and what the source
reads ahead. Measured with 10 million rows of Parquet, a sync adds less than 300 MB."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a command line adds to a config."""

    invocation_id: str = ""
    sources_in_parallel: int = 0
    """Sources that run at once; 0 means one per core."""
    migrate: bool = True
    shard: tuple[int, int] | None = None
    columns_not_null: bool = False
    summary_location: str = ""
    """File that gets a line about each source and destination; empty for none."""
    buffer_bytes: int = BUFFER_BYTES


class Sync:
    """One run of a plan. `run` is called once; `interrupt` and `tables` may be called from other threads."""

    what = "sync"
    """What the log calls it."""
    reads = True
    """Whether sources are asked for rows."""

    def __init__(self, plan: Plan, options: Options | None = None, observers: Sequence[Observer] = ()) -> None:
        self.options = options or Options()
        self.plan = plan
        invocation_id = self.options.invocation_id or str(uuid.uuid4())
        self.result = Result(invocation_id, __version__, datetime.now(UTC))
        self._budget = Budget(self.options.buffer_bytes)
        self._destinations: dict[str, DestinationPlugin] = {}
        self._connections = Connections(self._destinations)
        self._results: dict[str, PluginResult] = {}
        self._configs = {destination.name: destination for destination in plan.config.destinations}
        self._unusable: set[str] = set()
        """Destinations that could not be opened or were lost."""
        self._runs: list[SourceRun] = []
        self.notes: list[str] = []
        """What the user is to be told besides the result."""
        self._observers = observers
        self._interrupted = threading.Event()
        self._lock = threading.Lock()

    @property
    def config(self) -> Config:
        """What is run."""
        return self.plan.config

    def run(self) -> Result:
        """Sync every source. Raises nothing for what went wrong in a plugin: that is in the result."""
        with self.plan.redactor.guarding("catchment"):
            self._tell(lambda observer: observer.began(self))
            self._run()
            self.result.redact(self.plan.redactor)
            self._tell(lambda observer: observer.ended())
        return self.result

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                # Rows are not lost because somebody looks on.
                log.warning("telemetry failed", exc_info=True)

    def _run(self) -> None:
        config = self.plan.config
        for warning in self.plan.warnings:
            log.warning("%s", warning)
        try:
            for destination in used_destinations(config):
                self._open(destination)
            workers = self.options.sources_in_parallel or os.cpu_count() or 1
            with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="source") as pool:
                for future in [pool.submit(self._sync, source) for source in config.sources]:
                    future.result()
        finally:
            self._close()
        self.result.tables = self.tables()
        self._note_unmatched()
        self.result.settle()

    def _note_unmatched(self) -> None:
        """Tell of rules that were for no table: a misspelt name would keep nothing."""
        names = {(row.destination, row.table) for row in self.result.tables}
        for config in self.plan.config.destinations:
            for glob in config.expect:
                if not any(config.name == where and matches(glob, name) for where, name in names):
                    note = f"destination `{config.name}`: `expect` has rules for {glob!r}, but no such table"
                    self.notes.append(note)
                    log.warning("%s", note, extra={"destination": config.name, "plugin": config.path})

    def interrupt(self) -> None:
        """Stop reading every source and end the sync in order."""
        with self._lock:
            self._interrupted.set()
            for run in self._runs:
                run.interrupt()

    def give_up(self, waited_s: float) -> Result:
        """Settle an interrupted run that does not end, as a plugin is stuck; its threads are left where they are."""
        self.result = settled(self.result, list(self._runs), waited_s)
        self.result.redact(self.plan.redactor)
        stuck = [part for part in (*self.result.sources, *self.result.destinations) if part.error]
        for part in stuck:
            log.error("%s", part.error, extra={"plugin": part.name})
        if not stuck:
            self.notes.append(
                f"a plugin did not close within {waited_s:.0f} seconds of the interrupt; rows are not at stake"
            )
        telling = threading.Thread(target=self._tell, args=[lambda observer: observer.ended()], daemon=True)
        telling.start()
        telling.join(1.0)
        return self.result

    def tables(self, sources: Collection[str] | None = None) -> list[TableResult]:
        """The tables' results so far; of `sources` only, if they are given."""
        runs = [run for run in self._runs if sources is None or run.name in sources]
        return [row for run in runs for row in run.tables()]

    def _open(self, config: DestinationConfig) -> None:
        result = PluginResult(config.name, config.version_string)
        self._results[config.name] = result
        self.result.destinations.append(result)
        steps = Steps()
        try:
            with steps.take("open"):
                self._init(config)
        except Exception as error:
            known = isinstance(error, CatchmentError)
            result.outcome, result.error = "failed", str(error) if known else f"{type(error).__name__}: {error}"
            self._unusable.add(config.name)
            fields = {"destination": config.name, "plugin": config.path}
            log.error("the destination cannot be used: %s", error, exc_info=not known, extra=fields)
        self._tell(lambda observer: observer.opened(config.name, steps.taken[0]))

    def _init(self, config: DestinationConfig) -> None:
        plugin = registry.destination_for(config)
        self._destinations[config.name] = plugin
        plugin.init(config.spec, invocation_id=self.result.invocation_id)
        if config.publish == "atomic" and plugin.capabilities.publish == "none":
            raise PluginError(
                "its server cannot publish rows that were staged", hint="write `publish: stream`, or leave it out"
            )

    def _sync(self, config: SourceConfig) -> None:
        """Sync one source; the top of its thread."""
        with log_context.about(source=config.name):
            self._sync_source(config)

    def _sync_source(self, config: SourceConfig) -> None:
        now = datetime.now(UTC)
        result = PluginResult(config.name, config.version_string, sync_time=now)
        with self._lock:
            self.result.sources.append(result)
            if self._interrupted.is_set():
                result.outcome = "interrupted"
                return
        source = registry.source_for(config)
        run: SourceRun | None = None
        pipelines: list[Pipeline] = []
        fields = {"source": config.name, "plugin": config.path, "destinations": config.destinations}
        self._tell(lambda observer: observer.source_began(config, result))
        log.info("Start %s", self.what, extra=fields | {"sync_time": now.isoformat()})
        try:
            for destination in self._usable(config):
                pipelines.append(self._pipeline(config, destination, now))
            if not pipelines:
                raise PluginError(f"source `{config.name}`: none of its destinations can be used")
            spec = self._connections.filled(config.spec, reached_by(source))
            source.init(spec, no_connection=not self.reads, invocation_id=self.result.invocation_id)
            run = SourceRun(config.name, source, self._request(config, source), pipelines, result)
            with self._lock:
                self._runs.append(run)
                if self._interrupted.is_set():
                    run.interrupt()
            self._carry_out(config, source, run)
        except CatchmentError as error:
            result.outcome, result.error = "failed", str(error)
            log.error("the source failed: %s", error, extra={"source": config.name, "plugin": config.path})
        except Exception as error:
            result.outcome, result.error = "failed", f"{type(error).__name__}: {error}"
            log.exception("the source failed", extra={"source": config.name, "plugin": config.path})
        finally:
            self._end(source, pipelines)
            self._tell(lambda observer: observer.source_ended(config, result, run))
            log.info("End %s", self.what, extra=fields | {"outcome": result.outcome})

    def _carry_out(self, config: SourceConfig, source: SourcePlugin, run: SourceRun) -> None:
        """Do what the run is for with a source and destinations that are ready."""
        run.run()
        # As upstream, a row in the summaries means that the source was read to its end.
        for pipeline in run.pipelines if run.result.outcome == "complete" else ():
            destination = self._configs[pipeline.destination_name]
            summary = Summary.of(config, destination, run, pipeline, self.result.invocation_id, self.options.shard)
            summary.redact(self.plan.redactor)
            if destination.send_sync_summary and pipeline.lost is None:
                self._summarize(pipeline, functools.partial(summary.write, migrate=self.options.migrate))
            if self.options.summary_location:
                self._append(summary)

    def _append(self, summary: Summary) -> None:
        """Add a line to the summary file; that it cannot be written does not undo the sync."""
        try:
            with self._lock:
                summary.append(Path(self.options.summary_location))
        except OSError as error:
            self.notes.append(f"the sync summary could not be written: {error}")
            log.warning("%s", self.notes[-1])

    def _summarize(self, pipeline: Pipeline, work: Callable[[], None]) -> None:
        """Do something to the table of summaries; a failure is the destination's, and other sources still use it."""
        try:
            work()
        except PluginError as error:
            result = self._results[pipeline.destination_name]
            result.outcome, result.error = "failed", f"the sync summary could not be written: {error}"

    def _end(self, source: SourcePlugin, pipelines: Iterable[Pipeline]) -> None:
        """Close what belongs to one source, and note destinations that got lost, or lost what stands before them."""
        for pipeline in pipelines:
            reason = pipeline.lost or pipeline.broken
            if reason is not None:
                result = self._results[pipeline.destination_name]
                result.outcome, result.error = "failed", str(reason)
            if pipeline.lost is not None:
                self._unusable.add(pipeline.destination_name)
            try:
                pipeline.close()
            except CatchmentError as error:
                fields = {"destination": pipeline.destination_name, "plugin": pipeline.destination.name}
                log.error("destination `%s` did not end cleanly: %s", pipeline.destination_name, error, extra=fields)
        try:
            source.close()
        except CatchmentError as error:
            log.error("source did not end cleanly: %s", error, extra={"plugin": source.name})

    def _usable(self, source: SourceConfig) -> list[DestinationConfig]:
        return [
            destination
            for destination in self.plan.config.destinations
            if destination.name in source.destinations and destination.name not in self._unusable
        ]

    def _pipeline(self, source: SourceConfig, destination: DestinationConfig, now: datetime) -> Pipeline:
        shard = self.options.shard
        stamp = Stamp(
            sync_time=now,
            source_name=f"{source.name}_{shard[0]}_{shard[1]}" if shard else source.name,
            sync_group_id=sync_group_id(
                destination.sync_group_id, invocation_id=self.result.invocation_id, now=self.result.started
            ),
            write_mode=destination.write_mode,
            cq_id_only=destination.pk_mode == "cq-id-only",
            columns_not_null=self.options.columns_not_null,
        )
        return Pipeline(
            destination.name,
            self._destinations[destination.name],
            stamp,
            self._budget,
            transformers=self._transformers(destination),
            force=destination.migrate_mode == "forced",
            migrates=self.options.migrate,
            # To stage rows is to make tables, which `--no-migrate` forbids; what a server can do it has told by now.
            atomic=self.plan.is_atomic(destination)
            and self.options.migrate
            and self._destinations[destination.name].capabilities.publish != "none",
            run=uuid.uuid4().hex[:12],
            max_rejects=destination.max_rejects,
            expectations=self._expectations(source, destination, stamp),
            has_backend=source.backend_options is not None,
        )

    def _expectations(self, source: SourceConfig, destination: DestinationConfig, stamp: Stamp) -> Expectations | None:
        if not destination.expect and destination.max_stale_ratio is None:
            return None
        return Expectations(
            self._destinations[destination.name],
            source.name,
            stamp.sync_time,
            rules=destination.expect,
            max_stale_ratio=destination.max_stale_ratio,
        )

    def _transformers(self, destination: DestinationConfig) -> list[TransformerPlugin]:
        configs = {transformer.name: transformer for transformer in self.plan.config.transformers}
        plugins = []
        for name in destination.transformers:
            plugin = registry.transformer_for(configs[name])
            plugin.init(configs[name].spec, invocation_id=self.result.invocation_id)
            plugins.append(plugin)
        return plugins

    def _request(self, source: SourceConfig, plugin: SourcePlugin) -> SyncRequest:
        backend = None
        if source.backend_options is not None:
            destination = backend_destination(source)
            if destination in self._unusable:
                raise PluginError(
                    f"source `{source.name}`: destination `{destination}` with its cursors cannot be used"
                )
            backend = self._backend(source, source.backend_options, reached_by(plugin))
        return SyncRequest(
            selection=selection(source),
            deterministic_cq_id=source.deterministic_cq_id,
            client_id_column=source.client_id_column,
            backend=backend,
            shard=self.options.shard,
            stop_on_error=source.on_error == "stop",
            idle_s=source.timeouts.idle,
        )

    def _backend(self, source: SourceConfig, options: BackendOptions, reached: Callable[[str], str]) -> Backend:
        name = backend_destination(source)
        if name:
            found = self._destinations[name]
            return Backend(found, options.table_name, source.name, lambda: reached(self._connections.of(name)))
        return Backend(destination_at(options.connection), options.table_name, source.name, lambda: options.connection)

    def _close(self) -> None:
        self._connections.close()
        for name, plugin in self._destinations.items():
            try:
                plugin.close()
            except CatchmentError as error:
                result = self._results[name]
                if result.outcome != "failed":
                    result.outcome, result.error = "failed", f"could not be closed: {error}"


def selection(source: SourceConfig) -> Selection:
    """The tables that a source's config names."""
    return Selection(tuple(source.tables), tuple(source.skip_tables), source.skip_dependent_tables)


def migrate(plan: Plan, options: Options | None = None, observers: Sequence[Observer] = ()) -> Result:
    """Create and change every table as a sync would, and write no rows."""
    options = replace(options or Options(), migrate=True)
    # Staging would leave the live tables as they are until rows come; here they are what it is about.
    streaming = {name: replace(able, publish="none") for name, able in plan.capabilities.items()}
    return _Migration(replace(plan, capabilities=streaming), options, observers).run()


class _Migration(Sync):
    """A run that sends migrate messages only."""

    what = "migration"
    reads = False

    def _carry_out(self, config: SourceConfig, source: SourcePlugin, run: SourceRun) -> None:
        for table in source.tables(selection(config)):
            full = add_client_id(table) if config.client_id_column else table
            for pipeline in run.pipelines:
                pipeline.migrate(full)
        for name, reason in source.unreadable(selection(config)).items():
            for pipeline in run.pipelines:
                pipeline.leave(Table(name, ()), reason)
        for pipeline in run.pipelines:
            pipeline.flush()
            for target in pipeline.targets.values():
                target.result.complete = not target.failed and pipeline.lost is None
            if self._configs[pipeline.destination_name].send_sync_summary and pipeline.lost is None:
                self._summarize(pipeline, functools.partial(migrate_table, pipeline))
