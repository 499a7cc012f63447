"""Listens to a source's metrics: errors that it counts may stand nowhere else.

A source made with the vendor's Go SDK sends OTLP over HTTP every fifteen seconds and when it ends. Only its counts of
errors are read; traces and logs are taken and forgotten, as a refusal would become a warning in its log.
"""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from google.protobuf.message import DecodeError

from catchment.wire._pb import otlp_pb2 as otlp

log = logging.getLogger("catchment.process")

COUNTED = ("sync.table.errors", "sync.table.panics")
"""Metrics whose sums tell of a table that was not read to its end."""
_TABLE = "sync.table.name"
_DELTA = 1
_MOST_BYTES = 32 << 20


class Receiver:
    """An OTLP endpoint on a free port of this machine, until `close`."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()
        kind = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="otlp", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """`host:port`, as `--otel-endpoint` takes it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def failures(self) -> Mapping[str, int]:
        """Errors and panics counted so far, by table; only tables that had some."""
        found: dict[str, int] = {}
        with self._lock:
            for (_, table, *_), count in self._sums.items():
                if count:
                    found[table] = found.get(table, 0) + count
        return found

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: bytes) -> None:
        """Count what one request says. Raises `DecodeError` for what is no request."""
        request = otlp.ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name in COUNTED:
                        self._add(metric)

    def _add(self, metric: otlp.Metric) -> None:
        for point in metric.sum.data_points:
            attributes = {each.key: each.value.string_value for each in point.attributes}
            others = sorted(f"{key}={value}" for key, value in attributes.items() if key != _TABLE)
            series = (metric.name, attributes.get(_TABLE, ""), *others)
            with self._lock:
                before = self._sums.get(series, 0) if metric.sum.aggregation_temporality == _DELTA else 0
                self._sums[series] = before + int(point.as_int or point.as_double)


class _Handler(BaseHTTPRequestHandler):
    receiver: ClassVar[Receiver]
    timeout = 10

    def do_POST(self) -> None:
        """Take what is sent."""
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MOST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(size)
        try:
            if self.path == "/v1/metrics":
                self.receiver.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        except (DecodeError, OSError, EOFError) as error:
            log.warning("metrics of a plugin cannot be read: %s", error)
            self.send_error(400)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep requests out of standard error."""
