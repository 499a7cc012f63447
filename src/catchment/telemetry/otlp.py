"""The way to a collector: OpenTelemetry's own exporters, bounded in time, and with a word on what did not arrive.

Nothing here is global: a program that uses catchment as a library, and OpenTelemetry itself, is not meddled with.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import (
    CardinalityLimits,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Tracer

from catchment import __version__
from catchment.redact import Redactor, fields_of
from catchment.telemetry.collectors import Collector, Signal

FLUSH_S = 5.0
"""Seconds that what is left may take to be sent at the end: a collector that is away holds up no run for longer."""
METRICS_EVERY_MS = 15_000.0
"""As upstream's plugins have it; `OTEL_METRIC_EXPORT_INTERVAL` names another interval."""
MOST_SERIES = 100_000
"""Tables times destinations that a metric may have; beyond the SDK's 2,000 it would put them all into one."""
QUEUE = 16_384
"""Spans and log records that may wait: those of all tables of a source end at the same moment."""
SCOPE = "catchment"
_ABOUT_EXPORT = ("opentelemetry", "urllib3", "requests")
"""Loggers that speak of exporting itself; to export what they say would go on for ever."""
_PATH = re.compile(r" with url: \S+")
"""Some backends are given their key in the query of a URL."""
_RETRIED = re.compile(r"Transient error (.+) encountered while exporting", re.DOTALL)
_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL, "FATAL"),
    (logging.ERROR, SeverityNumber.ERROR, "ERROR"),
    (logging.WARNING, SeverityNumber.WARN, "WARN"),
    (logging.INFO, SeverityNumber.INFO, "INFO"),
    (logging.DEBUG, SeverityNumber.DEBUG, "DEBUG"),
    (0, SeverityNumber.TRACE, "TRACE"),
)

# What an exporter still says when it was given up goes where its user wants it, and not to standard error by itself.
logging.getLogger("opentelemetry").addHandler(logging.NullHandler())


class Exporter:
    """One collector, and what is sent to it by one run; `close` sends the rest."""

    def __init__(self, collector: Collector, redactor: Redactor, invocation_id: str) -> None:
        self.redactor = redactor
        self.invocation_id = invocation_id
        self.tracer: Tracer | None = None
        self.meter: Meter | None = None
        self.handler: LogHandler | None = None
        """What a logger is given so that its records are sent; None where logs are not asked for."""
        self._collector = collector
        self._delivery = _Delivery()
        self._closers: list[Callable[[], None]] = []
        self._exporters: list[Any] = []
        self._resource = Resource.create(_resource(invocation_id))
        for signal, url in collector.urls.items():
            self._add(signal, {"endpoint": url or None, "compression": _compression(signal)})
        logging.getLogger("opentelemetry").addHandler(self._delivery)

    def close(self) -> str:
        """Send what waits, for at most `FLUSH_S` seconds; what did not get through and why, empty if all did."""
        threads = [threading.Thread(target=closer, name="telemetry", daemon=True) for closer in self._closers]
        deadline = time.monotonic() + FLUSH_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        late = any(thread.is_alive() for thread in threads)
        logging.getLogger("opentelemetry").removeHandler(self._delivery)
        if late:
            for exporter in self._exporters:
                # Whoever waits to try again waits no more.
                exporter.shutdown()
        if not late and not self._delivery.failed:
            return ""
        why = self._delivery.reason or f"no answer within {FLUSH_S:g} seconds"
        what = ", ".join(sorted(self._delivery.failed or self._collector.urls))
        return self.redactor.text(f"telemetry ({what}) did not get through to {self._collector.shown}: {why}")

    def _add(self, signal: Signal, options: Mapping[str, Any]) -> None:
        exporter: Any
        if signal == "traces":
            exporter = _Spans(self._delivery, options)
            tracers = TracerProvider(resource=self._resource, shutdown_on_exit=False)
            tracers.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_queue("BSP")))
            self.tracer = tracers.get_tracer(SCOPE, __version__)
            self._closers.append(tracers.shutdown)
        elif signal == "metrics":
            exporter = _Metrics(self._delivery, options)
            every = None if os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") else METRICS_EVERY_MS
            limits: CardinalityLimits = {
                ObservableCounter: MOST_SERIES,
                ObservableUpDownCounter: MOST_SERIES,
                ObservableGauge: MOST_SERIES,
            }
            reader = PeriodicExportingMetricReader(exporter, every, cardinality_limits=limits)
            meters = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
            self.meter = meters.get_meter(SCOPE, __version__)
            self._closers.append(meters.shutdown)
        else:
            exporter = _Logs(self._delivery, options)
            loggers = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
            loggers.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=_queue("BLRP")))
            self.handler = LogHandler(loggers.get_logger(SCOPE, __version__), self.redactor, self.invocation_id)
            self._closers.append(loggers.shutdown)
        self._exporters.append(exporter)


class LogHandler(logging.Handler):
    """Sends log records, without the secrets in them, in the trace of what they are about."""

    def __init__(self, logger: Logger, redactor: Redactor, invocation_id: str) -> None:
        super().__init__()
        self.sources: Mapping[str, str] | None = None
        """Names and plugins of the sources whose records are sent; None means all records."""
        self.context_of: Callable[[str], Context | None] = lambda source: None
        """The span that a record about a source belongs to."""
        self._logger = logger
        self._redactor = redactor
        self._invocation_id = invocation_id

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record over; it is sent later, with others."""
        if record.name.partition(".")[0] in _ABOUT_EXPORT:
            return
        fields = {name: value for name, value in fields_of(record).items() if value not in ("", None)}
        source = fields.get("source")
        if not self._is_wanted(source, fields.get("plugin")):
            return
        _, number, name = next(each for each in _SEVERITIES if record.levelno >= each[0])
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            fields["exception.stacktrace"] = record.exc_text
        fields |= {"invocation_id": self._invocation_id, "module": record.name.removeprefix("catchment.")}
        self._logger.emit(
            timestamp=int(record.created * 1e9),
            observed_timestamp=time.time_ns(),
            context=self.context_of(str(source or "")),
            severity_number=number,
            severity_text=name,
            body=self._redactor.text(record.getMessage()),
            attributes={key: _plain(self._redactor.value(value), self._redactor) for key, value in fields.items()},
        )

    def _is_wanted(self, source: object, plugin: object) -> bool:
        if self.sources is None or source in self.sources:
            return True
        # What a plugin says itself names no source.
        return source is None and plugin in self.sources.values()


class _Delivery(logging.Handler):
    """Whether what was sent has arrived, and what the exporters say where it has not."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.failed: set[str] = set()
        self.reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first reason, without what the exporter is going to do about it."""
        message = record.getMessage()
        found = _RETRIED.match(message)
        self.reason = self.reason or _PATH.sub("", found[1] if found else message)

    def note(self, signal: Signal, arrived: bool) -> None:
        """Tell what became of one request."""
        if not arrived:
            self.failed.add(signal)


class _Spans(OTLPSpanExporter):
    def __init__(self, delivery: _Delivery, options: Mapping[str, Any]) -> None:
        super().__init__(**options)
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._delivery.note("traces", result is SpanExportResult.SUCCESS)
        return result


class _Metrics(OTLPMetricExporter):
    def __init__(self, delivery: _Delivery, options: Mapping[str, Any]) -> None:
        super().__init__(**options)
        self._delivery = delivery

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = None, **kwargs: Any
    ) -> MetricExportResult:
        # What counts is the last of them: it has all that those before it had.
        self._delivery.failed.discard("metrics")
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self._delivery.note("metrics", result is MetricExportResult.SUCCESS)
        return result


class _Logs(OTLPLogExporter):
    def __init__(self, delivery: _Delivery, options: Mapping[str, Any]) -> None:
        super().__init__(**options)
        self._delivery = delivery

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = super().export(batch)
        self._delivery.note("logs", result is LogRecordExportResult.SUCCESS)
        return result


def _resource(invocation_id: str) -> dict[str, str]:
    """Who speaks; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` may give it another name."""
    about = {"service.version": __version__, "service.instance.id": invocation_id}
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return about if named else {"service.name": "catchment", **about}


def _compression(signal: Signal) -> Compression | None:
    """Gzip, as upstream, unless the environment says something else."""
    names = ("OTEL_EXPORTER_OTLP_COMPRESSION", f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION")
    return None if any(os.environ.get(name) for name in names) else Compression.Gzip


def _queue(kind: str) -> int | None:
    return None if os.environ.get(f"OTEL_{kind}_MAX_QUEUE_SIZE") else QUEUE


def _plain(value: Any, redactor: Redactor) -> Any:
    """`value` as an attribute can have it."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return redactor.text(str(value))
