"""The two streams that are written to: rows into a destination, and batches through a transformer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import pyarrow as pa

from catchment.channel import Channel, ChannelClosed
from catchment.errors import CatchmentError, PluginError, PluginLost, Unsupported
from catchment.messages import DeleteStale, Insert, WriteMessage
from catchment.plugin import Published, Swap, WriteStats
from catchment.schema.table import Table
from catchment.wire import codec
from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.peer import Connected

AHEAD_BYTES = 8 << 20
"""Bytes that wait to be sent."""
RECORD_BYTES = 1 << 21
"""Bytes of rows in a record that is sent, at most twice as many where rows differ: some servers take 4 MiB only."""


class RemoteSession:
    """The writing of one source's sync into a foreign destination: one stream until `flush`."""

    def __init__(self, shown: str, peer: Connected) -> None:
        self._shown = shown
        self._peer = peer
        self._writer = codec.RecordWriter()
        self._requests: Channel[pb.Write.Request] | None = None
        self._call: Any = None
        self._stats: dict[str, WriteStats] = {}
        self._unconfirmed: dict[str, WriteStats] = {}
        self._lost: PluginError | None = None

    def write(self, message: WriteMessage) -> None:
        """Send a message. Raises `PluginLost` with the server's words once the stream is broken."""
        if self._lost is not None:
            raise self._lost
        if isinstance(message, DeleteStale) and message.clients is not None:
            raise Unsupported(f"{self._shown} cannot delete the stale rows of some clients only")
        started = time.perf_counter()
        table = message.table.name if not hasattr(message, "table_name") else message.table_name
        waiting = self._unconfirmed.setdefault(table, WriteStats())
        requests = self._opened()
        try:
            for request in codec.write_request(message, self._writer, RECORD_BYTES):
                requests.put(request, request.ByteSize())
        except ChannelClosed:
            self._lose()
        stats = self._stats.setdefault(table, WriteStats())
        stats.seconds += time.perf_counter() - started
        if isinstance(message, Insert):
            waiting.rows += message.batch.num_rows
            waiting.size_bytes += message.batch.nbytes
            stats.rows_taken += message.batch.num_rows

    def flush(self) -> None:
        """End the stream; on return the destination has written it all. What is written later opens another."""
        if self._lost is not None:
            raise self._lost
        if self._requests is None:
            return
        self._requests.close()
        started = time.perf_counter()
        try:
            self._call.result()
        except grpc.RpcError:
            self._lose()
        self._requests = self._call = None
        waited = (time.perf_counter() - started) / max(len(self._unconfirmed), 1)
        for table, written in self._unconfirmed.items():
            stats = self._stats[table]
            stats.rows += written.rows
            stats.size_bytes += written.size_bytes
            stats.seconds += waited
        self._unconfirmed = {}

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """The protocol has no word for it."""
        raise Unsupported(f"{self._shown} cannot publish staged tables; use `publish: stream`")

    def stats(self) -> Mapping[str, WriteStats]:
        """What the destination has confirmed, by table."""
        return dict(self._stats)

    def close(self) -> None:
        """Break off what was not flushed."""
        if self._requests is not None:
            self._requests.close(PluginError("the session was closed"))
            self._call.cancel()
            self._requests = self._call = None

    def _opened(self) -> Channel[pb.Write.Request]:
        if self._requests is None:
            requests = self._requests = Channel[pb.Write.Request](AHEAD_BYTES)
            self._call = self._peer.call("Write").future(_sent(requests))  # type: ignore[attr-defined]
            # A server that gives up answers before the stream ends; nobody takes requests from then on.
            self._call.add_done_callback(lambda _: requests.abandon())
        return self._requests

    def _lose(self) -> None:
        """The stream is broken: say why, to this call and all that follow."""
        try:
            self._call.result(timeout=10.0)
            error: PluginError = PluginError(f"{self._shown} ended the stream before it had everything")
        except grpc.RpcError as failure:
            error = self._peer.failure(self._shown, failure)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            error = PluginError(f"{self._shown} broke the stream off")
        self._requests = self._call = None
        self._lost = error if isinstance(error, PluginLost) else PluginLost(str(error))
        raise self._lost


class TransformStream:
    """Batches into a transformer and out of it, in its own order and number."""

    def __init__(self, shown: str, peer: Connected) -> None:
        self._shown = shown
        self._peer = peer
        self._writer = codec.RecordWriter()
        self._requests: Channel[pb.Transform.Request] = Channel(AHEAD_BYTES)
        self._received: list[Insert] = []
        self._error: CatchmentError | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._call = peer.call("Transform")(_sent(self._requests))
        threading.Thread(target=self._receive, name="transformed", daemon=True).start()

    def send(self, table: Table, batch: pa.RecordBatch) -> None:
        """Send rows; blocks while too much waits to be sent. Raises the transformer's error."""
        try:
            for piece in codec.pieces(batch, RECORD_BYTES):
                request = pb.Transform.Request(record=self._writer.to_bytes(table, piece))
                self._requests.put(request, len(request.record))
        except ChannelClosed:
            self._ended.wait()
            raise self._error or PluginError(f"{self._shown} ended the stream before it had everything") from None

    def received(self, *, last: bool) -> Iterator[Insert]:
        """What has come so far; with `last` everything, once the transformer has ended its side."""
        if last:
            self._requests.close()
            self._ended.wait()
        with self._lock:
            received, self._received = self._received, []
        yield from received
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Break it off."""
        self._requests.close(PluginError("the stream was broken off"))
        self._call.cancel()

    def _receive(self) -> None:
        reader = codec.RecordReader()
        try:
            for response in self._call:
                table, batches = reader.from_bytes(response.record)
                with self._lock:
                    self._received += [Insert(table, batch) for batch in batches]
        except grpc.RpcError as error:
            self._error = self._peer.failure(self._shown, error)
        except CatchmentError as error:
            self._error = PluginError(f"{self._shown}: {error}")
            self._call.cancel()
        finally:
            self._ended.set()
            self._requests.abandon()


def _sent(requests: Channel[Any]) -> Iterator[Any]:
    """What gRPC takes the requests from; it ends without a word where they break off."""
    try:
        yield from requests
    except PluginError:
        return
