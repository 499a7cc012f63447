"""A collector: takes OTLP over HTTP, reads it with the protocol's own classes, and remembers it."""

from __future__ import annotations

import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span:
    def __init__(self, resource, span):
        self.resource = attributes(resource.attributes)
        self.name = span.name
        self.id, self.parent, self.trace = span.span_id, span.parent_span_id, span.trace_id
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.started, self.ended = span.start_time_unix_nano, span.end_time_unix_nano
        self.about = attributes(span.attributes)
        self.events = [attributes(event.attributes) for event in span.events]
        self.failed, self.message = span.status.code == 2, span.status.message


class Record:
    def __init__(self, record):
        self.text = record.body.string_value
        self.level = record.severity_text
        self.about = attributes(record.attributes)
        self.trace, self.span = record.trace_id, record.span_id


class Collector:
    """Listens on a free port of this machine until `close`."""

    def __init__(self, status=200):
        self.spans: list[Span] = []
        self.records: list[Record] = []
        self.points: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.headers: list[dict[str, str]] = []
        self.kinds: dict[str, tuple[str | None, bool, str]] = {}
        self.bodies = b""
        self.status = status
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.headers.append(dict(self.headers))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                outer.take(self.path, body)
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_): ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def empty(self):
        return not self.requests

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def take(self, path, body):
        self.requests += 1
        self.bodies += body
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [Span(resource.resource, span) for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/logs":
            for logged in ExportLogsServiceRequest.FromString(body).resource_logs:
                self.records += [Record(each) for scope in logged.scope_logs for each in scope.log_records]
        else:
            assert path == "/v1/metrics"
            for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in measured.scope_metrics:
                    for metric in scope.metrics:
                        self.measure(metric)

    def measure(self, metric):
        self.kinds[metric.name] = (metric.WhichOneof("data"), metric.sum.is_monotonic, metric.unit)
        for point in (metric.gauge if metric.WhichOneof("data") == "gauge" else metric.sum).data_points:
            about = tuple(sorted(attributes(point.attributes).items()))
            self.points[metric.name, about] = point.as_int or point.as_double

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def one(self, name):
        (found,) = self.named(name)
        return found

    def measured(self, name):
        """Value by attributes."""
        return {
            frozenset(dict(about).items()): value for (metric, about), value in self.points.items() if metric == name
        }

    def value(self, name, **about):
        """The value of the one point of that table, source or destination: `table` is `sync.table.name`."""
        wanted = {(f"sync.{key}.name", text) for key, text in about.items()}
        (found,) = [value for attributes_of, value in self.measured(name).items() if wanted <= attributes_of]
        return found


class Silent:
    """Takes connections and never answers."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"

    def close(self):
        self.listening.close()


def attributes(found):
    return {each.key: value_of(each.value) for each in found}


def value_of(value):
    kind = value.WhichOneof("value")
    return [value_of(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)
