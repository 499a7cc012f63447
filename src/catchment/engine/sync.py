"""Run a plan: open the destinations, sync the sources side by side, and tell what came of it.

One thread per running source, one more that reads it ahead; what a destination does with its rows is the destination's
affair. A plugin that fails takes down only what needs it.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from catchment import __version__
from catchment.channel import Budget
from catchment.engine import registry
from catchment.engine.pipeline import Pipeline
from catchment.engine.plan import Plan, backend_destination
from catchment.engine.result import PluginResult, Result, TableResult
from catchment.engine.source_run import SourceRun
from catchment.engine.stamp import Stamp, sync_group_id
from catchment.engine.summary import Summary
from catchment.errors import CatchmentError, PluginError
from catchment.plugin import Backend, DestinationPlugin, SourcePlugin, SyncRequest, TransformerPlugin
from catchment.schema.select import Selection
from catchment.spec.model import DestinationConfig, SourceConfig

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
    buffer_bytes: int = BUFFER_BYTES


class Sync:
    """One run of a plan. `run` is called once; `interrupt` and `tables` may be called from other threads."""

    def __init__(self, plan: Plan, options: Options | None = None) -> None:
        self.options = options or Options()
        self.plan = plan
        invocation_id = self.options.invocation_id or str(uuid.uuid4())
        self.result = Result(invocation_id, __version__, datetime.now(UTC))
        self._budget = Budget(self.options.buffer_bytes)
        self._destinations: dict[str, DestinationPlugin] = {}
        self._results: dict[str, PluginResult] = {}
        self._runs: list[SourceRun] = []
        self._interrupted = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> Result:
        """Sync every source. Raises nothing for what went wrong in a plugin: that is in the result."""
        config = self.plan.config
        try:
            for destination in config.destinations:
                self._open(destination)
            workers = self.options.sources_in_parallel or os.cpu_count() or 1
            with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="source") as pool:
                for future in [pool.submit(self._sync, source) for source in config.sources]:
                    future.result()
        finally:
            self._close()
        self.result.tables = self.tables()
        self.result.settle(interrupted=self._interrupted.is_set())
        return self.result

    def interrupt(self) -> None:
        """Stop reading every source and end the sync in order."""
        with self._lock:
            self._interrupted.set()
            for run in self._runs:
                run.interrupt()

    def tables(self) -> list[TableResult]:
        """The tables' results so far."""
        return [row for run in list(self._runs) for row in run.tables()]

    def _open(self, config: DestinationConfig) -> None:
        result = PluginResult(config.name, config.version_string)
        self._results[config.name] = result
        self.result.destinations.append(result)
        try:
            plugin = registry.make_destination(config.registry, config.path)
            self._destinations[config.name] = plugin
            plugin.init(config.spec, invocation_id=self.result.invocation_id)
        except CatchmentError as error:
            result.outcome, result.error = "failed", str(error)
            log.error("destination `%s` cannot be used: %s", config.name, error)

    def _sync(self, config: SourceConfig) -> None:
        """Sync one source; the top of its thread."""
        result = PluginResult(config.name, config.version_string)
        with self._lock:
            self.result.sources.append(result)
            if self._interrupted.is_set():
                result.outcome = "interrupted"
                return
        source = registry.make_source(config.registry, config.path)
        pipelines: list[Pipeline] = []
        now = datetime.now(UTC)
        result.sync_time = now
        try:
            for destination in self._usable(config):
                pipelines.append(self._pipeline(config, destination, now))
            if not pipelines:
                raise PluginError(f"source `{config.name}`: none of its destinations can be used")
            source.init(config.spec, invocation_id=self.result.invocation_id)
            run = SourceRun(config.name, source, self._request(config), pipelines, result)
            with self._lock:
                self._runs.append(run)
                if self._interrupted.is_set():
                    run.interrupt()
            run.run()
            self._summarize(config, run, now)
        except CatchmentError as error:
            result.outcome, result.error = "failed", str(error)
            log.error("source `%s` failed: %s", config.name, error)
        except Exception as error:
            result.outcome, result.error = "failed", f"{type(error).__name__}: {error}"
            log.exception("source `%s` failed", config.name)
        finally:
            self._end(source, pipelines)

    def _end(self, source: SourcePlugin, pipelines: Iterable[Pipeline]) -> None:
        """Close what belongs to one source, and note destinations that got lost."""
        for pipeline in pipelines:
            if pipeline.lost is not None:
                result = self._results[pipeline.destination_name]
                result.outcome, result.error = "failed", str(pipeline.lost)
            try:
                pipeline.close()
            except CatchmentError as error:
                log.error("destination `%s` did not end cleanly: %s", pipeline.destination_name, error)
        try:
            source.close()
        except CatchmentError as error:
            log.error("source did not end cleanly: %s", error)

    def _usable(self, source: SourceConfig) -> list[DestinationConfig]:
        return [
            destination
            for destination in self.plan.config.destinations
            if destination.name in source.destinations and self._results[destination.name].outcome != "failed"
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
            atomic=self.plan.is_atomic(destination),
            run=uuid.uuid4().hex[:12],
            has_backend=source.backend_options is not None,
        )

    def _transformers(self, destination: DestinationConfig) -> list[TransformerPlugin]:
        configs = {transformer.name: transformer for transformer in self.plan.config.transformers}
        plugins = []
        for name in destination.transformers:
            plugin = registry.make_transformer(configs[name].registry, configs[name].path)
            plugin.init(configs[name].spec, invocation_id=self.result.invocation_id)
            plugins.append(plugin)
        return plugins

    def _request(self, source: SourceConfig) -> SyncRequest:
        backend = None
        if source.backend_options is not None:
            destination = backend_destination(source)
            if self._results[destination].outcome == "failed":
                raise PluginError(
                    f"source `{source.name}`: destination `{destination}` with its cursors cannot be used"
                )
            backend = Backend(self._destinations[destination], source.backend_options.table_name)
        return SyncRequest(
            selection=selection(source),
            deterministic_cq_id=source.deterministic_cq_id,
            client_id_column=source.client_id_column,
            backend=backend,
            shard=self.options.shard,
            stop_on_error=source.on_error == "stop",
        )

    def _summarize(self, source: SourceConfig, run: SourceRun, now: datetime) -> None:
        """Write a row about the sync into every destination that wants one."""
        wanted = {d.name for d in self.plan.config.destinations if d.send_sync_summary}
        for pipeline in run.pipelines:
            if pipeline.destination_name in wanted and pipeline.lost is None:
                summary = Summary(source, self._config_of(pipeline), run, self.result.invocation_id, now)
                try:
                    summary.write(pipeline, self.options.shard, migrate=self.options.migrate)
                except PluginError as error:
                    result = self._results[pipeline.destination_name]
                    result.outcome, result.error = "failed", f"the sync summary could not be written: {error}"

    def _config_of(self, pipeline: Pipeline) -> DestinationConfig:
        return next(d for d in self.plan.config.destinations if d.name == pipeline.destination_name)

    def _close(self) -> None:
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


def migrate(plan: Plan, options: Options | None = None) -> Result:
    """Create and change every table as a sync would, and write no rows."""
    options = replace(options or Options(), migrate=True)
    # Staging would leave the live tables as they are until rows come; here they are what it is about.
    streaming = Plan(plan.config, {name: replace(able, publish="none") for name, able in plan.capabilities.items()})
    return _Migration(streaming, options).run()


class _Migration(Sync):
    """A run that sends migrate messages only."""

    def _sync(self, config: SourceConfig) -> None:
        result = PluginResult(config.name, config.version_string, sync_time=datetime.now(UTC))
        self.result.sources.append(result)
        source = registry.make_source(config.registry, config.path)
        pipelines: list[Pipeline] = []
        try:
            source.init(config.spec, invocation_id=self.result.invocation_id)
            now = datetime.now(UTC)
            pipelines = [self._pipeline(config, destination, now) for destination in self._usable(config)]
            run = SourceRun(config.name, source, self._request(config), pipelines, result)
            with self._lock:
                self._runs.append(run)
            for table in source.tables(selection(config)):
                for pipeline in pipelines:
                    pipeline.migrate(table)
            for pipeline in pipelines:
                pipeline.flush()
                for target in pipeline.targets.values():
                    target.result.complete = not target.failed and pipeline.lost is None
        except CatchmentError as error:
            result.outcome, result.error = "failed", str(error)
        finally:
            self._end(source, pipelines)
