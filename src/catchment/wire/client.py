"""Foreign plugins with the faces of local ones: the engine cannot tell which it drives."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import pyarrow as pa

from catchment.channel import Budget, ChannelClosed
from catchment.coalesce import Coalescer
from catchment.errors import CatchmentError, PluginError, PluginLost, ProtocolError, Unsupported
from catchment.messages import Cursor, Insert, MigrateTable, RowsSkipped, SourceError, SyncMessage, TableError
from catchment.plugin import Capabilities, Kind, Measure, SyncRequest, TablePreview
from catchment.schema.select import Selection
from catchment.schema.table import Table
from catchment.wire import codec
from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.output import Logged
from catchment.wire.peer import Connected
from catchment.wire.streams import RemoteSession, TransformStream

FOREIGN = Capabilities(delete_records=True, deletes_by_client=False, confirms_at_end=True)
"""What is supposed of a destination that the protocol cannot ask."""
_SECRET = re.compile(r"(?i)pass|secret|token|credential|private|api_?key|access_?key|connection_string|dsn")


class _Remote:
    """What all kinds have: a name, a spec, and a peer that is asked when it is first needed."""

    kind: Kind

    def __init__(self, name: str, peer: Connected, *, initialised: bool = False) -> None:
        self.name = name
        self.peer = peer
        self.secrets: frozenset[str] = frozenset()
        """Values of the spec under keys that sound like secrets: the plugin does not say which are."""
        self._spec: Mapping[str, Any] = {}
        self._no_connection = False
        self._invocation_id = ""
        self._initialised = initialised
        self._owns = not initialised
        """Whether it was initialised here, and is to be closed here."""

    @property
    def shown(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind} plugin `{self.name}`"

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Send the spec; with `no_connection` only when something is asked that needs it."""
        self._spec, self._no_connection, self._invocation_id = spec, no_connection, invocation_id
        self.secrets = frozenset(_secrets_in(spec))
        self._initialised = False
        if not no_connection:
            self.ready()

    def ready(self) -> None:
        """Have the plugin initialised. Raises `PluginError` with its own words if it refuses."""
        if self._initialised:
            return
        request = pb.Init.Request(
            spec=self._spec_bytes(), no_connection=self._no_connection, invocation_id=self._invocation_id
        )
        self.call("Init", request)
        self._initialised = True

    def call(self, method: str, request: Any) -> Any:
        """The answer to one question. Raises `PluginError` as `Connected.failure` makes it."""
        asked = self.bound(method)
        try:
            return asked(request)
        except grpc.RpcError as error:
            raise self.peer.failure(self.shown, error) from error

    def bound(self, method: str) -> Callable[..., Any]:
        """What calls a method; the plugin is started if it does not run. Errors of that name it."""
        try:
            return self.peer.call(method)
        except (PluginError, ProtocolError) as error:
            raise type(error)(f"{self.shown}: {error.args[0]}", hint=error.hint) from error

    def spec_schema(self) -> str | None:
        """The JSON Schema of the plugin's spec, for which it need not be initialised; None if it gives none."""
        try:
            answer = self.call("GetSpecSchema", pb.GetSpecSchema.Request())
        except Unsupported:
            return None
        return str(answer.json_schema) or None

    def test_connection(self) -> None:
        """Ask the plugin's own check; where it has none, initialise it."""
        try:
            answer = self.call("TestConnection", pb.TestConnection.Request(spec=self._spec_bytes()))
        except Unsupported:
            self._no_connection = False
            self.ready()
            return
        if not answer.success:
            raise PluginError(f"{self.shown}: {answer.failure_description} ({answer.failure_code or 'UNKNOWN'})")

    def close(self) -> None:
        """Hang up, and stop the process if it was started for us."""
        self._initialised = False
        self.peer.close()

    def _spec_bytes(self) -> bytes:
        return json.dumps(self._spec, ensure_ascii=False, default=str).encode() if self._spec else b"null"


class RemoteSource(_Remote):
    """A source behind the protocol."""

    kind = "source"

    def __init__(self, name: str, peer: Connected, *, idle_s: float | None = None) -> None:
        super().__init__(name, peer)
        self._idle_s = idle_s
        self._merged: Coalescer | None = None

    def tables(self, selection: Selection) -> Sequence[Table]:
        """The selected tables, parents first."""
        self.ready()
        answer = self.call("GetTables", pb.GetTables.Request(**_selected(selection)))
        return [codec.table_from_bytes(table) for table in answer.tables]

    def unreadable(self, selection: Selection) -> Mapping[str, str]:
        """The protocol has no word for it."""
        return {}

    def sync(self, request: SyncRequest) -> Iterator[SyncMessage]:
        """What the source sends, small records gathered; at its end the errors that it only logged."""
        if request.client_id_column:
            raise Unsupported(f"{self.shown} cannot add `_cq_client_id`; leave `client_id_column` out")
        self.ready()
        output = self.peer.output
        if output is not None:
            self.peer.settle()
            output.take()
        call = self.bound("Sync")(_sync_request(request))
        merged = self._merged = Coalescer(idle_s=self._idle_s, what=self.shown)
        threading.Thread(target=self._receive, args=(call, merged), name=f"receive-{self.name}", daemon=True).start()
        tables: dict[str, bool] = {}
        try:
            for message in merged:
                if isinstance(message, MigrateTable):
                    tables.setdefault(message.table.name, True)
                elif isinstance(message, TableError):
                    tables[message.table_name] = False
                yield message
                if request.stop_on_error and isinstance(message, TableError):
                    raise PluginError(f"table `{message.table_name}` failed: {message.message}")
        finally:
            call.cancel()
        if output is not None:
            # Nothing more is asked of it: it may be gone after this.
            self._initialised = False
            self.peer.settle(last=True)
            for hidden in list(_hidden(output.take(), tables)):
                yield hidden
                if isinstance(hidden, TableError):
                    tables[hidden.table_name] = False
            yield from _counted(self.peer.failures(), tables)

    def reached(self, address: str) -> str:
        """Where it reaches what listens at `address` here; asked before it is started."""
        return self.peer.reached(address)

    def acknowledge(self, cursors: Sequence[Cursor]) -> None:
        """Nothing: it keeps its cursors itself."""

    def interrupt(self) -> None:
        """Have whoever waits for the next message wait no more."""
        if self._merged is not None:
            self._merged.close()

    def _receive(self, call: Any, merged: Coalescer) -> None:
        """Take what comes; the top of its thread."""
        reader, tables, checked = codec.RecordReader(), dict[str, Table](), dict[int, Table]()
        try:
            for response in call:
                for message in codec.sync_message(response, reader):
                    if isinstance(message, MigrateTable):
                        tables[message.table.name] = message.table
                    elif isinstance(message, Insert) and id(message.table) not in checked:
                        self._check(message.table, tables.get(message.table.name))
                        checked[id(message.table)] = message.table
                    merged.put(message)
            merged.close()
        except ChannelClosed:
            call.cancel()
        except grpc.RpcError as error:
            merged.close(self.peer.failure(self.shown, error))
        except CatchmentError as error:
            call.cancel()
            merged.close(PluginError(f"{self.shown}: {error}"))
        except Exception as error:
            call.cancel()
            merged.close(PluginError(f"{self.shown}: {type(error).__name__}: {error}"))

    def _check(self, table: Table, announced: Table | None) -> None:
        """Raises `ProtocolError` for rows that are not what was announced."""
        if announced is None:
            raise ProtocolError(f"rows of table `{table.name}` came before its columns")
        if not table.arrow_schema.equals(announced.arrow_schema):
            have, want = (", ".join(str(column) for column in each.columns) for each in (table, announced))
            raise ProtocolError(f"rows of table `{table.name}` are not what it announced: expected {want}, got {have}")


class RemoteDestination(_Remote):
    """A destination behind the protocol."""

    kind = "destination"

    def __init__(self, name: str, peer: Connected, *, initialised: bool = False) -> None:
        super().__init__(name, peer, initialised=initialised)
        self.capabilities = FOREIGN
        self._reading = threading.Lock()

    @property
    def connection(self) -> str:
        """Where another process reaches it."""
        self.peer.channel()
        return self.peer.target

    def session(self, budget: Budget, *, max_rejects: int = 0) -> RemoteSession:
        """Begin to write: one stream for all of it. The protocol has no word for single rows."""
        self.ready()
        return RemoteSession(self.shown, self.peer)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of `table`, one read at a time, as upstream's plugins refuse a second one."""
        self.ready()
        reader = codec.RecordReader()
        with self._reading:
            call = self.bound("Read")(pb.Read.Request(table=codec.table_to_bytes(table)))
            try:
                for response in call:
                    yield from reader.from_bytes(response.record)[1]
            except grpc.RpcError as error:
                raise self.peer.failure(self.shown, error) from error
            finally:
                call.cancel()

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """The protocol has no word for it."""
        raise Unsupported(f"{self.shown} cannot count what it holds")

    def stored_table(self, name: str) -> Table | None:
        """The protocol has no word for it."""
        raise Unsupported(f"{self.shown} cannot tell the columns of its tables")

    def stored_names(self) -> Sequence[str]:
        """The protocol has no word for it."""
        return ()

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """The protocol has no word for it."""
        return [TablePreview("unknown", reason=f"{self.shown} cannot tell what is there") for _ in tables]

    def close(self) -> None:
        """Have the plugin close what it holds, then hang up."""
        try:
            if self._initialised and self._owns:
                self._initialised = False
                self.call("Close", pb.Close.Request())
        except PluginLost:
            # It had nothing more to lose: whoever wrote to it has been told.
            pass
        finally:
            super().close()


class RemoteTransformer(_Remote):
    """A transformer behind the protocol: one stream, on which answers need not match questions."""

    kind = "transformer"

    def __init__(self, name: str, peer: Connected) -> None:
        super().__init__(name, peer)
        self._made: dict[str, tuple[Table, Table]] = {}
        self._stream: TransformStream | None = None

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Keep the spec; the plugin gets it with the first question."""
        super().init(spec, no_connection=True, invocation_id=invocation_id)
        self._no_connection = no_connection

    def transform_table(self, table: Table) -> Table:
        """The plugin's answer, asked once."""
        known = self._made.get(table.name)
        if known is not None and known[0] == table:
            return known[1]
        self.ready()
        answer = self.call("TransformSchema", pb.TransformSchema.Request(schema=codec.table_to_bytes(table)))
        made = codec.table_from_bytes(answer.schema)
        self._made[table.name] = (table, made)
        return made

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Send the batch; what comes out of it is collected."""
        self.ready()
        if self._stream is None:
            self._stream = TransformStream(self.shown, self.peer)
        self._stream.send(table, batch)
        return iter(())

    def collect(self, *, last: bool = False) -> Iterator[Insert]:
        """What has come out; with `last` the stream is half-closed and read to its end."""
        stream = self._stream
        if stream is None:
            return
        if last:
            self._stream = None
        yield from stream.received(last=last)

    def close(self) -> None:
        """Break the stream off and hang up."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        super().close()


def _counted(failures: Mapping[str, int], tables: Mapping[str, bool]) -> Iterator[SyncMessage]:
    """What the metrics say of tables that had no error of their own in the stream."""
    for table, count in failures.items():
        text = f"the source counted {count} error{'s' if count > 1 else ''}, of which its log may say more"
        if table not in tables:
            yield SourceError(text)
        elif tables[table]:
            yield TableError(table, text)


def _hidden(logged: Sequence[Logged], tables: Mapping[str, bool]) -> Iterator[SyncMessage]:
    """What the log says of tables that had no error of their own in the stream."""
    for line in logged:
        if line.rows_skipped:
            if line.table in tables:
                yield RowsSkipped(line.table, line.rows_skipped, line.text, line.client)
        elif line.table in tables:
            if tables[line.table]:
                yield TableError(line.table, line.text, line.client)
        else:
            yield SourceError(line.text)


def _sync_request(request: SyncRequest) -> pb.Sync.Request:
    made = pb.Sync.Request(
        **_selected(request.selection),
        deterministic_cq_id=bool(request.deterministic_cq_id),
        withErrorMessages=True,
    )
    if request.shard is not None:
        made.shard.num, made.shard.total = request.shard
    if request.backend is not None:
        made.backend.table_name = request.backend.table_name
        made.backend.connection = request.backend.connection()
    return made


def _selected(selection: Selection) -> dict[str, Any]:
    return {
        "tables": selection.tables,
        "skip_tables": selection.skip_tables,
        "skip_dependent_tables": selection.skip_dependent_tables,
    }


def _secrets_in(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets_in(item, str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets_in(item, key)
    elif isinstance(value, str) and value and _SECRET.search(key):
        yield value
