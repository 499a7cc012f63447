"""A run as a trace and as metrics: what the engine tells, in OpenTelemetry's words, without the secrets in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

from catchment.engine.observe import Running, Step
from catchment.engine.pipeline import Pipeline
from catchment.engine.result import ErrorGroup, PluginResult, TableResult
from catchment.engine.source_run import Reading, SourceRun
from catchment.engine.target import Target
from catchment.spec.model import SourceConfig
from catchment.telemetry import numbers
from catchment.telemetry.otlp import Exporter

MOST_ERRORS = 10
"""Different errors of a table that its span tells."""
_SNAPSHOT_S = 0.5
"""Seconds for which what the tables have come to is asked for once: a collection asks for each metric."""


class Telemetry:
    """Tells one collector of a run, or of some sources of it."""

    def __init__(self, exporter: Exporter, sources: Collection[str] | None = None) -> None:
        self._exporter = exporter
        self._sources = sources
        self._run: Running | None = None
        self._root: Span | None = None
        self._spans: dict[str, Span] = {}
        """The open spans of sources, by name."""
        self._lock = threading.Lock()
        self._rows: list[TableResult] = []
        self._asked_at = float("-inf")

    def began(self, run: Running) -> None:
        """Open the run's span, and let its numbers be asked for."""
        self._run = run
        id_of_run = {"sync.invocation.id": run.result.invocation_id}
        self._root = self._open("sync", None, run.result.started, id_of_run)
        if self._exporter.handler is not None:
            self._exporter.handler.context_of = self._context
        self._measure()

    def opened(self, destination: str, step: Step) -> None:
        """A span for the opening of a destination that is among ours."""
        assert self._run is not None
        reached = {name for source in self._run.config.sources if self._has(source) for name in source.destinations}
        if destination in reached:
            self._step(f"sync.open.{destination}", self._root, step, self._about_destination(destination))

    def source_began(self, source: SourceConfig, result: PluginResult) -> None:
        """Open the source's span; log records about it belong there."""
        if not self._has(source):
            return
        about = {"sync.source.name": source.name, "sync.source.plugin": source.version_string}
        span = self._open(f"sync.source.{source.name}", self._root, result.sync_time or datetime.now(UTC), about)
        if span is not None:
            self._spans[source.name] = span

    def source_ended(self, source: SourceConfig, result: PluginResult, run: SourceRun | None) -> None:
        """Spans for its tables, its clients, and what was done in its destinations."""
        span = self._spans.get(source.name)
        if span is None:
            return
        began = result.sync_time or datetime.now(UTC)
        for reading in list(run.readings.values()) if run is not None else ():
            self._table(span, run, reading, began)
        for pipeline in run.pipelines if run is not None else ():
            self._destination(span, pipeline)
        error = result.error or ("" if result.outcome == "complete" else result.outcome)
        rows = run.tables() if run is not None else []
        self._close(span, datetime.now(UTC), {"sync.outcome": result.outcome, **_sums(rows)}, error)

    def ended(self) -> None:
        """Close the run's span."""
        assert self._run is not None
        result, rows = self._run.result, self._run.tables(self._sources)
        errors = [group.message for row in rows for group in row.errors]
        reasons = [part.error for part in (*result.sources, *result.destinations) if part.error] + errors
        facts = {"sync.outcome": result.outcome, **_sums(rows)}
        failed = result.outcome != "complete"
        self._close(
            self._root, result.ended or datetime.now(UTC), facts, [*reasons, result.outcome][0] if failed else ""
        )

    def _has(self, source: SourceConfig) -> bool:
        return self._sources is None or source.name in self._sources

    def _context(self, source: str) -> Context | None:
        span = self._spans.get(source, self._root)
        return set_span_in_context(span) if span is not None else None

    def _table(self, parent: Span, run: SourceRun | None, reading: Reading, began: datetime) -> None:
        """The reading of a table, and of each client's share of it."""
        name = reading.table.name
        shares = reading.clients_read
        times = [_moment(share.started) for share in shares] + [reading.started or began]
        last = reading.started + timedelta(seconds=reading.last_at - reading.first_at) if reading.started else began
        started, ended = min(times), max([_moment(share.ended) for share in shares] + [last])
        groups = _groups(run, name)
        facts = {
            "sync.table.name": name,
            "sync.resources": reading.rows,
            "sync.bytes": reading.size_bytes,
            "sync.errors": reading.errors,
            "sync.rows_rejected": reading.skipped,
        }
        clients = reading.clients_done | reading.clients_failed
        if len(clients) == 1:
            facts["sync.client.id"] = next(iter(clients))
        several = shares if len(clients) > 1 else []
        if len(several) < len(clients) and len(clients) > 1:
            facts["sync.clients_without_span"] = len(clients) - len(several)
        span = self._open(f"sync.table.{name}", parent, started, facts)
        for share in several:
            own = [group for group in groups if group.client == share.client]
            about = {"sync.table.name": name, "sync.client.id": share.client, "sync.resources": share.rows}
            made = self._open(f"sync.table.{name}", span, _moment(share.started), about)
            self._close(made, _moment(share.ended), {}, own[0].message if own else "", own)
        self._close(span, ended, {}, reading.first_error, groups if reading.errors else ())

    def _destination(self, parent: Span, pipeline: Pipeline) -> None:
        """The writing of each table, and what was done for all of them."""
        steps, now = pipeline.steps, datetime.now(UTC)
        starts = [*steps.first_rows.values(), *(step.started for step in steps.taken)]
        about = self._about_destination(pipeline.destination_name)
        span = self._open(f"sync.destination.{pipeline.destination_name}", parent, min(starts, default=now), about)
        for target in list(pipeline.targets.values()):
            self._write(span, pipeline, target, about, now)
        for step in steps.taken:
            self._step(f"sync.{step.what}.{pipeline.destination_name}", span, step, about)
        reason = pipeline.lost or pipeline.broken
        self._close(span, max([step.ended for step in steps.taken], default=now), {}, str(reason or ""))

    def _write(
        self, parent: Span | None, pipeline: Pipeline, target: Target, about: Mapping[str, Any], now: datetime
    ) -> None:
        steps, result, name = pipeline.steps, target.result, target.written.name
        if name not in steps.first_rows and not target.failed:
            return
        stats = steps.stats.get(name)
        started = steps.first_rows.get(name, now)
        ended = max(_moment(stats.ended), started) if stats is not None and stats.ended else now
        facts = {
            "sync.table.name": result.table,
            "sync.rows_written": result.rows_written,
            "sync.bytes": result.bytes,
            "sync.rows_rejected": result.rows_rejected,
            "sync.rows_stale_deleted": result.rows_stale_deleted,
            "sync.rows_stale_kept": result.rows_stale_kept,
            "sync.stale_kept_reason": result.stale_kept_reason or None,
            "sync.seconds_written": round(result.seconds_written, 6),
            "sync.published": result.published,
            "sync.complete": result.complete,
        }
        known = {key: value for key, value in facts.items() if value is not None}
        span = self._open(f"sync.write.{result.table}", parent, started, {**about, **known})
        failed = target.failed and bool(result.errors)
        self._close(span, ended, {}, result.errors[-1].message if failed else "", result.errors[-1:] if failed else ())

    def _step(self, name: str, parent: Span | None, step: Step, about: Mapping[str, Any]) -> None:
        self._close(self._open(name, parent, step.started, about), step.ended, {}, step.error)

    def _about_destination(self, name: str) -> dict[str, str]:
        assert self._run is not None
        plugins = {config.name: config.version_string for config in self._run.config.destinations}
        return {"sync.destination.name": name, "sync.destination.plugin": plugins[name]}

    def _open(self, name: str, parent: Span | None, started: datetime, facts: Mapping[str, Any]) -> Span | None:
        """A span that began then; None where traces are not asked for."""
        if self._exporter.tracer is None:
            return None
        context = set_span_in_context(parent) if parent is not None else None
        return self._exporter.tracer.start_span(
            self._shown(name), context=context, start_time=_nanoseconds(started), attributes=self._clean(facts)
        )

    def _close(
        self,
        span: Span | None,
        ended: datetime,
        facts: Mapping[str, Any],
        error: str,
        groups: Iterable[ErrorGroup] = (),
    ) -> None:
        """End a span then; with `error` as a failed one."""
        if span is None:
            return
        span.set_attributes(self._clean(facts))
        for _, group in zip(range(MOST_ERRORS), groups, strict=False):
            told = {"exception.message": group.first_example, "sync.client.id": group.client, "count": group.count}
            span.add_event("exception", self._clean(told), timestamp=_nanoseconds(ended))
        if error:
            span.set_status(Status(StatusCode.ERROR, self._shown(error)))
        span.end(_nanoseconds(ended))

    def _shown(self, text: str) -> str:
        return self._exporter.redactor.text(text)

    def _clean(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._shown(value) if isinstance(value, str) else value for name, value in facts.items()}

    def _measure(self) -> None:
        """Let the exporter ask for the numbers now and then: the engine counts them anyway."""
        meter = self._exporter.meter
        if meter is None:
            return
        for number in (*numbers.READ, *numbers.WRITTEN):
            make = meter.create_observable_counter if number.grows else meter.create_observable_up_down_counter
            make(number.name, [self._observer(number)], number.unit, number.text)
        meter.create_observable_gauge("sync.source.duration", [self._sources_ended], "s", "Time that a source took.")
        meter.create_observable_gauge("sync.duration", [self._run_ended], "s", "Time that the run took.")

    def _observer(self, number: numbers.Number) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            if number in numbers.READ:
                for (source, table), value in numbers.read(number, self._snapshot()):
                    about = {"sync.source.name": source, "sync.table.name": table, "sync.client.id": ""}
                    yield Observation(value, self._clean(about))
            else:
                for (source, destination, table), value in numbers.written(number, self._snapshot()):
                    about = {
                        "sync.source.name": source, "sync.destination.name": destination, "sync.table.name": table,
                    }  # fmt: skip
                    yield Observation(value, self._clean(about))

        return observe

    def _snapshot(self) -> list[TableResult]:
        assert self._run is not None
        with self._lock:
            over = self._run.result.ended is not None
            if over or time.monotonic() - self._asked_at > _SNAPSHOT_S:
                self._rows, self._asked_at = self._run.tables(self._sources), time.monotonic()
            return self._rows

    def _sources_ended(self, options: CallbackOptions) -> Iterator[Observation]:
        assert self._run is not None
        for part in list(self._run.result.sources):
            if part.seconds and (self._sources is None or part.name in self._sources):
                about = {
                    "sync.source.name": part.name, "sync.source.plugin": part.plugin, "sync.outcome": part.outcome,
                }  # fmt: skip
                yield Observation(part.seconds, self._clean(about))

    def _run_ended(self, options: CallbackOptions) -> Iterator[Observation]:
        assert self._run is not None
        result = self._run.result
        if result.ended is not None:
            yield Observation((result.ended - result.started).total_seconds(), {"sync.outcome": result.outcome})


def _sums(rows: Sequence[TableResult]) -> dict[str, int]:
    """Rows read and errors, as the report sums them up."""
    counts = [sum(value for _, value in numbers.read(number, rows)) for number in numbers.READ[:2]]
    return {"sync.resources": int(counts[0]), "sync.errors": int(counts[1])}


def _groups(run: SourceRun | None, source_table: str) -> list[ErrorGroup]:
    """The errors of a source's table, as its first destination has them."""
    targets = (
        [pipeline.targets[source_table] for pipeline in run.pipelines if source_table in pipeline.targets]
        if run
        else []
    )
    return targets[0].result.errors if targets else []


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
