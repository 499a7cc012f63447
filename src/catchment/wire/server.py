"""A plugin of ours behind the protocol: one servicer for sources, destinations and transformers.

Calls that change what a plugin holds (`Init`, `Sync`, `Close`) take a lock that never waits, as upstream's do; writes
and reads may run side by side, as several sources may keep their cursors in one destination.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc

from catchment.channel import Budget
from catchment.errors import CatchmentError, PluginError, ProtocolError, SpecError
from catchment.messages import Cursor, DeleteStale, Insert, MigrateTable, RowsSkipped, SyncMessage, TableError
from catchment.plugin import (
    Backend,
    DestinationPlugin,
    Kind,
    Plugin,
    SourcePlugin,
    SyncRequest,
    TransformerPlugin,
    WriteSession,
    kind_of,
)
from catchment.schema.select import Selection
from catchment.schema.table import Table
from catchment.wire import codec, service
from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.service import METHODS

log = logging.getLogger("catchment.serve")

BUFFER_BYTES = 100 << 20
"""Bytes that one Write call may hold before the destination has taken them."""
STATUS_CHARACTERS = 4000
"""Longest text of a status: it travels in a header, and peers refuse large ones."""

Context = grpc.ServicerContext


@dataclass(frozen=True, slots=True)
class About:
    """What a plugin says of itself."""

    name: str
    version: str
    spec_schema: str | None = None
    """JSON Schema of the spec."""


class Servicer:
    """Answers the calls of one plugin."""

    def __init__(
        self,
        make: Callable[[], Plugin],
        about: About,
        connect: Callable[[str], DestinationPlugin],
        *,
        shared: Plugin | None = None,
        on_init: Callable[[str], None] = lambda invocation_id: None,
    ) -> None:
        self._make = make
        self._about = about
        self._connect = connect
        """A destination at a connection string, for a source's cursors."""
        self._plugin = shared
        self._is_shared = shared is not None
        """Whether the plugin belongs to somebody else, who opened it and will close it."""
        self._on_init = on_init
        self._kind: Kind = kind_of(shared if shared is not None else make())
        self._busy = threading.Lock()
        self._stopping = threading.Event()
        self._running: set[Context] = set()
        self._changed = threading.Condition()

    @property
    def kind(self) -> Kind:
        """What the plugin is."""
        return self._kind

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a server has to be given."""
        functions: Mapping[service.Method, Callable[..., Any]] = {
            service.VERSIONS: lambda request, context: pb.GetVersions.Response(versions=[service.VERSION]),
            service.VERSION_NAMES: lambda request, context: pb.GetVersionNames.Response(
                versions=[f"v{service.VERSION}"]
            ),
            METHODS["GetName"]: lambda request, context: pb.GetName.Response(name=self._about.name),
            METHODS["GetVersion"]: lambda request, context: pb.GetVersion.Response(version=self._about.version),
            METHODS["GetSpecSchema"]: lambda request, context: pb.GetSpecSchema.Response(
                json_schema=self._about.spec_schema
            ),
            METHODS["Init"]: self.init,
            METHODS["GetTables"]: self.tables,
            METHODS["Sync"]: self.sync,
            METHODS["Read"]: self.read,
            METHODS["Write"]: self.write,
            METHODS["Transform"]: self.transform,
            METHODS["TransformSchema"]: self.transform_schema,
            METHODS["Close"]: self.close,
            METHODS["TestConnection"]: self.test_connection,
        }
        return service.handlers(functions)

    def stop(self, timeout_s: float) -> None:
        """Have running calls end: what was written is flushed, sources stop; then let go of the plugin."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            for context in self._running:
                context.cancel()
            self._changed.wait_for(lambda: not self._running, timeout=timeout_s)
        plugin, self._plugin = self._plugin, None
        if plugin is not None and not self._is_shared:
            closing = threading.Thread(target=_closed, args=(plugin,), daemon=True)
            closing.start()
            closing.join(max(deadline - time.monotonic(), 0.1))

    def init(self, request: pb.Init.Request, context: Context) -> pb.Init.Response:
        """Make the plugin anew with the spec."""
        self._own(context)
        with self._alone(context), _explained(context, "failed to init plugin", grpc.StatusCode.INTERNAL):
            self._on_init(request.invocation_id)
            spec = _spec(request.spec)
            if self._plugin is not None:
                self._plugin.close()
            self._plugin = plugin = self._make()
            if self._kind == "transformer":
                cast(TransformerPlugin, plugin).init(spec, invocation_id=request.invocation_id)
            else:
                connected = cast(SourcePlugin | DestinationPlugin, plugin)
                connected.init(spec, no_connection=request.no_connection, invocation_id=request.invocation_id)
        return pb.Init.Response()

    def tables(self, request: pb.GetTables.Request, context: Context) -> pb.GetTables.Response:
        """The selected tables, parents first."""
        source = cast(SourcePlugin, self._initialised("source", context))
        with _explained(context, "failed to get tables", grpc.StatusCode.INTERNAL):
            found = source.tables(_selection(request))
            return pb.GetTables.Response(tables=[codec.table_to_bytes(table) for table in found])

    def sync(self, request: pb.Sync.Request, context: Context) -> Iterator[pb.Sync.Response]:
        """Everything the source says; cursors are saved once it has said it all."""
        source = cast(SourcePlugin, self._initialised("source", context))
        with self._alone(context), self._noted(context), _explained(context, "failed to sync records"):
            writer, cursors = codec.RecordWriter(), []
            messages = source.sync(self._sync_request(request))
            try:
                for message in messages:
                    if self._stopping.is_set():
                        raise PluginError("the plugin was told to stop")
                    _note(message)
                    if isinstance(message, Cursor):
                        cursors.append(message)
                    elif request.withErrorMessages or not isinstance(message, TableError):
                        yield from codec.sync_response(message, writer)
            finally:
                close = getattr(messages, "close", None)
                if close is not None:
                    close()
            source.acknowledge(cursors)

    def read(self, request: pb.Read.Request, context: Context) -> Iterator[pb.Read.Response]:
        """Rows of a table."""
        destination = cast(DestinationPlugin, self._initialised("destination", context))
        with self._noted(context), _explained(context, "failed to read records"):
            table, writer = codec.table_from_bytes(request.table), codec.RecordWriter()
            for batch in destination.read(table):
                given = codec.as_asked(table, batch)
                for piece in codec.pieces(given):
                    yield pb.Read.Response(record=writer.to_bytes(codec.with_types(table, given.schema), piece))

    def write(self, requests: Iterator[pb.Write.Request], context: Context) -> pb.Write.Response:
        """Messages in order; the answer comes once all of it is durable."""
        destination = cast(DestinationPlugin, self._initialised("destination", context))
        with self._noted(context), _explained(context, "write failed", grpc.StatusCode.INTERNAL):
            session = destination.session(Budget(BUFFER_BYTES))
            try:
                self._write_all(requests, session)
            finally:
                session.close()
        return pb.Write.Response()

    def _write_all(self, requests: Iterator[pb.Write.Request], session: WriteSession) -> None:
        """Write until the client has said all, or is gone, or a table fails; what was taken by then is flushed."""
        reader, tables = codec.RecordReader(), dict[str, Table]()
        try:
            for request in _until_broken(requests):
                for message in codec.write_message(request, reader):
                    if isinstance(message, (MigrateTable, Insert)):
                        tables[message.table.name] = message.table
                    elif isinstance(message, DeleteStale):
                        # The message names its table only; its columns came before.
                        known = tables.get(message.table.name, message.table)
                        message = DeleteStale(known, message.source_name, message.sync_time)
                    with _named(message):
                        session.write(message)
        finally:
            session.flush()
        errors = [_of_table(name, stats.error) for name, stats in session.stats().items() if stats.error]
        if errors:
            raise PluginError("; ".join(errors))
        if self._stopping.is_set():
            raise PluginError("the plugin was told to stop; what it had taken is written")

    def transform(self, requests: Iterator[pb.Transform.Request], context: Context) -> Iterator[pb.Transform.Response]:
        """What the transformer makes of each record."""
        transformer = cast(TransformerPlugin, self._initialised("transformer", context))
        with self._noted(context), _explained(context, "failed to transform", grpc.StatusCode.INTERNAL):
            reader, writer = codec.RecordReader(), codec.RecordWriter()
            for request in _until_broken(requests):
                table, batches = reader.from_bytes(request.record)
                made = transformer.transform_table(table)
                for batch in batches:
                    for transformed in transformer.transform(table, batch):
                        yield from _transformed(made, transformed, writer)
            for late in transformer.collect(last=True):
                yield from _transformed(late.table, late.batch, writer)

    def transform_schema(self, request: pb.TransformSchema.Request, context: Context) -> pb.TransformSchema.Response:
        """The table that comes out for a table."""
        transformer = cast(TransformerPlugin, self._initialised("transformer", context))
        with _explained(context, "failed to transform schema", grpc.StatusCode.INTERNAL):
            made = transformer.transform_table(codec.table_from_bytes(request.schema))
            return pb.TransformSchema.Response(schema=codec.table_to_bytes(made))

    def close(self, request: pb.Close.Request, context: Context) -> pb.Close.Response:
        """Let go of what the plugin holds."""
        self._own(context)
        with self._alone(context), _explained(context, "failed to close"):
            plugin, self._plugin = self._plugin, None
            if plugin is not None:
                plugin.close()
        return pb.Close.Response()

    def test_connection(self, request: pb.TestConnection.Request, context: Context) -> pb.TestConnection.Response:
        """Whether the plugin reaches what it is for; a plugin of its own is made for the question."""
        if self._kind == "transformer":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "a transformer has no connection")
        plugin = cast(SourcePlugin | DestinationPlugin, self._make())
        try:
            plugin.init(_spec(request.spec), no_connection=True)
            plugin.test_connection()
        except SpecError as error:
            return pb.TestConnection.Response(failure_code="INVALID_SPEC", failure_description=str(error))
        except Exception as error:
            text = str(error) if isinstance(error, CatchmentError) else f"{type(error).__name__}: {error}"
            return pb.TestConnection.Response(failure_code="CONNECTION_FAILED", failure_description=text)
        finally:
            _closed(plugin)
        return pb.TestConnection.Response(success=True)

    @contextlib.contextmanager
    def _alone(self, context: Context) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            context.abort(grpc.StatusCode.UNKNOWN, "plugin already in use")
        try:
            yield
        finally:
            self._busy.release()

    @contextlib.contextmanager
    def _noted(self, context: Context) -> Iterator[None]:
        """Have `stop` end the call, and wait for it."""
        if self._stopping.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the plugin was told to stop")
        with self._changed:
            self._running.add(context)
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(context)
                self._changed.notify_all()

    def _own(self, context: Context) -> None:
        if self._is_shared:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the engine that runs this plugin opens and closes it")

    def _initialised(self, kind: Kind, context: Context) -> Plugin:
        """The plugin, if it is a `kind`; ends the call if it is none, or if `Init` did not come first."""
        if self._kind != kind:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"`{self._about.name}` is a {self._kind}, no {kind}")
        if self._plugin is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "plugin is not initialized; call Init first")
        assert self._plugin is not None
        return self._plugin

    def _sync_request(self, request: pb.Sync.Request) -> SyncRequest:
        backend = None
        options = request.backend
        if options.connection or options.table_name:
            if not (options.connection and options.table_name):
                raise SpecError("`backend_options` needs both `table_name` and `connection`")
            backend = Backend(self._connect(options.connection), options.table_name)
        return SyncRequest(
            selection=_selection(request),
            # The wire cannot say "not set": false is what upstream sends for that too.
            deterministic_cq_id=True if request.deterministic_cq_id else None,
            backend=backend,
            shard=(request.shard.num, request.shard.total) if request.HasField("shard") else None,
        )


@contextlib.contextmanager
def _explained(context: Context, what: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> Iterator[None]:
    """End the call with a status that says what went wrong; a stranger's traceback goes to the log."""
    try:
        yield
    except ProtocolError as error:
        status, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
    except CatchmentError as error:
        status, text = code, str(error)
    except Exception as error:
        log.exception("%s", what)
        status, text = code, f"{type(error).__name__}: {error}"
    else:
        return
    log.error("%s: %s", what, text)
    context.abort(status, f"{what}: {text}"[:STATUS_CHARACTERS])


@contextlib.contextmanager
def _named(message: Any) -> Iterator[None]:
    """Put the table's name in front of an error that does not have it."""
    try:
        yield
    except PluginError as error:
        name = message.table_name if hasattr(message, "table_name") else message.table.name
        raise PluginError(_of_table(name, str(error))) from error


def _of_table(name: str, text: str) -> str:
    return text if f"`{name}`" in text else f"table `{name}`: {text}"


def _until_broken(requests: Iterator[Any]) -> Iterator[Any]:
    """The requests of a stream; it also ends where the client is gone or the plugin is told to stop."""
    try:
        yield from requests
    except grpc.RpcError:
        log.warning("the stream was broken off by the other side")


def _transformed(table: Table, batch: Any, writer: codec.RecordWriter) -> Iterator[pb.Transform.Response]:
    for piece in codec.pieces(batch):
        yield pb.Transform.Response(record=writer.to_bytes(table, piece))


def _note(message: SyncMessage) -> None:
    """Log what the protocol has no word for, and what an engine counts by its log lines."""
    match message:
        case TableError(table, text, client):
            log.error("%s", text, extra={"table": table, "client": client})
        case RowsSkipped(table, count, example, client):
            fields = {"table": table, "client": client, "rows_skipped": count}
            log.warning("rows left out, the first: %s", example, extra=fields)


def _spec(data: bytes) -> Mapping[str, Any]:
    """The spec of an `Init`: nothing, `null` and `{}` are all empty. Raises `SpecError` for what is no object."""
    try:
        spec = json.loads(data) if data.strip() else None
    except ValueError as error:
        raise SpecError(f"the spec is no JSON: {error}") from error
    if spec is None:
        return {}
    if not isinstance(spec, dict):
        raise SpecError(f"the spec is no JSON object but {type(spec).__name__}")
    return spec


def _selection(request: pb.GetTables.Request | pb.Sync.Request) -> Selection:
    return Selection(tuple(request.tables), tuple(request.skip_tables), request.skip_dependent_tables)


def _closed(plugin: Plugin) -> None:
    try:
        plugin.close()
    except Exception as error:
        log.warning("the plugin did not close cleanly: %s", error)
