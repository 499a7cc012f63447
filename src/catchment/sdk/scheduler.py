"""From an author's `Source` to the plugin: tables x clients x parents on threads, batches and messages out.

Top-level tables run side by side, one task per table and client; children run on a pool of their own level, one task
per parent row, and a parent's next batch waits for them. Everything leaves through one bounded channel, so a slow
reader holds up every table function.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from catchment.channel import Channel, ChannelClosed
from catchment.errors import CatchmentError, PluginError, Transient
from catchment.messages import ClientDone, Cursor, Insert, MigrateTable, RowsSkipped, SyncMessage, TableError
from catchment.plugin import SyncRequest
from catchment.schema import internal
from catchment.schema.select import Selection, select
from catchment.schema.table import MAX_DEPTH, Table, children_of, validate
from catchment.sdk import rows as row_batches
from catchment.sdk.source import Context, Source, TableFunction
from catchment.sdk.state import StateTable
from catchment.spec.fields import Spec, parse_spec

log = logging.getLogger("catchment.source")

C = TypeVar("C")
S = TypeVar("S", bound=Spec)

THREADS = 16
"""Table functions that run at once on each level."""
CHANNEL_BYTES = 8 << 20
"""Bytes of batches that may wait for the reader."""
TRIES = 3
"""Times that a table function is called while it raises `Transient` before it yielded anything."""
OWN_COLUMNS = frozenset(
    (internal.CQ_ID, internal.CQ_PARENT_ID, internal.CQ_CLIENT_ID, internal.CQ_SYNC_TIME, internal.CQ_SOURCE_NAME)
)
"""Columns of a source's table that are left out: those of this sync take their place."""


class SourceHost(Generic[S, C]):
    """A `Source` with the face of `SourcePlugin`."""

    def __init__(self, source: Source[S, C]) -> None:
        self.name = source.name
        self._source = source
        self._spec: S | None = None
        self._client: C | None = None
        self._functions: list[TableFunction[C]] | None = None
        self._state: StateTable | None = None

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Check the spec; the client is made when it is first needed."""
        self._spec = parse_spec(self._source.spec_type, spec, where=f"source `{self.name}`")

    def tables(self, selection: Selection) -> Sequence[Table]:
        """The selected tables with their `_cq_` columns."""
        found = select([function.table for function in self._all()], selection)
        return [internal.add_cq_ids(table) for table in found]

    def sync(self, request: SyncRequest) -> Iterator[SyncMessage]:
        """Every migrate message, then rows as they come."""
        functions = {function.table.name: function for function in self._all()}
        selected = select([function.table for function in functions.values()], request.selection)
        if not selected:
            raise PluginError("no tables are left to sync; check `tables` and `skip_tables`")
        cursors: Mapping[str, str] = {}
        if request.backend is not None:
            self._state = StateTable(request.backend)
            cursors = self._state.load()
        run = _Run(request, [functions[table.name] for table in selected], self._made_client(), self._spec, cursors)
        yield from run.messages()

    def acknowledge(self, cursors: Sequence[Cursor]) -> None:
        """Save the cursors."""
        if self._state is not None:
            self._state.save({cursor.key: cursor.value for cursor in cursors})

    def test_connection(self) -> None:
        """Make the client and list the tables."""
        self._all()

    def close(self) -> None:
        """Close the client, if it can be closed."""
        client, self._client = self._client, None
        close = getattr(client, "close", None)
        if close is not None:
            close()

    def _made_client(self) -> C:
        if self._spec is None:
            raise PluginError(f"source `{self.name}` was used before `init`")
        if self._client is None:
            self._client = self._source.make_client(self._spec)
        return self._client

    def _all(self) -> list[TableFunction[C]]:
        """Every table function, those found at run time too."""
        if self._functions is None:
            functions = list(self._source.functions)
            if self._source.discoverer is not None:
                functions += [
                    TableFunction(found.table, found.read) for found in self._source.discoverer(self._made_client())
                ]
            self._functions = [
                TableFunction(
                    function.table.with_columns(c for c in function.table.columns if c.name not in OWN_COLUMNS),
                    function.read,
                    function.incremental,
                    function.multiplex,
                )
                for function in functions
            ]
            validate([function.table for function in self._functions])
        return self._functions


@dataclass(slots=True)
class _Share(Generic[C]):
    """One client's share of one table: what a task works on."""

    function: TableFunction[C]
    client: C
    client_id: str
    failed: set[str] = field(default_factory=set)
    """Tables of this share's tree that had an error."""


class _Run(Generic[C]):
    """One sync of a source."""

    def __init__(
        self,
        request: SyncRequest,
        functions: Sequence[TableFunction[C]],
        client: C,
        spec: Any,
        cursors: Mapping[str, str],
    ) -> None:
        self._request = request
        self._functions = functions
        self._client = client
        self._spec = spec
        self._cursors = cursors
        self._channel: Channel[SyncMessage] = Channel(CHANNEL_BYTES)
        self._stopping = threading.Event()
        own = [function.table for function in functions]
        self._full = {table.name: self._with_own_columns(table) for table in own}
        self._children = {
            table.name: [function for function in functions if function.table.parent == table.name] for table in own
        }
        self._hashed = {table.name: self._hash_columns(table, own) for table in own}
        self._pools = [ThreadPoolExecutor(THREADS, thread_name_prefix=f"tables-{level}") for level in range(MAX_DEPTH)]

    def messages(self) -> Iterator[SyncMessage]:
        """Everything the sync has to say; closing the iterator early stops the threads."""
        top = threading.Thread(target=self._work, name="scheduler", daemon=True)
        for function in self._functions:
            yield MigrateTable(self._full[function.table.name])
        top.start()
        try:
            yield from self._channel
        finally:
            self._stopping.set()
            self._channel.abandon()
            top.join()
            for pool in self._pools:
                pool.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        try:
            futures = [self._pools[0].submit(self._run_share, share) for share in self._shares()]
            wait(futures)
            for future in futures:
                future.result()
            self._channel.close()
        except ChannelClosed:
            pass
        except Exception as error:
            self._channel.close(error if isinstance(error, CatchmentError) else _explained(error))

    def _shares(self) -> list[_Share[C]]:
        """Top-level tables x clients, table by table; this shard's part of them."""
        pairs = [
            share for function in self._functions if not function.table.parent for share in self._clients(function)
        ]
        if self._request.shard is None or not pairs:
            return pairs
        number, total = self._request.shard
        size = -(-len(pairs) // total)
        return pairs[(number - 1) * size : number * size]

    def _clients(self, function: TableFunction[C]) -> list[_Share[C]]:
        if function.multiplex is None:
            return [_Share(function, self._client, _client_id(self._client, ""))]
        return [
            _Share(function, client, _client_id(client, str(number)))
            for number, client in enumerate(function.multiplex(self._client))
        ]

    def _run_share(self, share: _Share[C]) -> None:
        """A top-level table of one client, with all below it."""
        self._read(share, share.function, {}, None, 0)
        for function in self._below(share.function):
            if function.table.name not in share.failed:
                self._channel.put(ClientDone(function.table.name, share.client_id))

    def _below(self, function: TableFunction[C]) -> Iterator[TableFunction[C]]:
        yield function
        for child in self._children[function.table.name]:
            yield from self._below(child)

    def _read(
        self,
        share: _Share[C],
        function: TableFunction[C],
        parent: Mapping[str, Any],
        parent_id: pa.Scalar | None,
        level: int,
    ) -> None:
        """Call a table function and send what it yields; errors become messages."""
        name = function.table.name
        context = Context(
            client=share.client, spec=self._spec, log=log, parent=parent, cursor=self._cursor(share, function, parent)
        )
        largest: pa.Scalar | None = None
        try:
            for batch in self._batches(function, context):
                if self._stopping.is_set():
                    raise ChannelClosed
                if batch.num_rows == 0:
                    continue
                largest = _larger(largest, batch, function.incremental)
                self._send(share, function, batch, parent_id, level)
        except ChannelClosed:
            raise
        except Exception as error:
            self._fail(share, name, _explained(error))
        for count, example in context.skipped:
            share.failed.add(name)
            self._channel.put(RowsSkipped(name, count, example, share.client_id))
        if largest is not None and name not in share.failed:
            key = _cursor_key(share, function, parent, self._full.get(function.table.parent))
            self._channel.put(Cursor(name, key, str(largest.as_py())))

    def _batches(self, function: TableFunction[C], context: Context[C]) -> Iterator[pa.RecordBatch]:
        """What the function yields as batches; it is called again while it fails for the moment before any row."""
        for attempt in range(1, TRIES + 1):
            sent = False
            try:
                for batch in row_batches.batches(function.table, _without_own(function.read(context))):
                    sent = True
                    yield batch
                return
            except Transient as error:
                if sent or attempt == TRIES:
                    raise
                delay_s = error.retry_after_s if error.retry_after_s is not None else 0.5 * 4 ** (attempt - 1)
                if self._stopping.wait(delay_s):
                    raise ChannelClosed from None

    def _send(
        self,
        share: _Share[C],
        function: TableFunction[C],
        batch: pa.RecordBatch,
        parent_id: pa.Scalar | None,
        level: int,
    ) -> None:
        name = function.table.name
        batch, missing = _with_keys(function.table, batch)
        if missing:
            self._fail(share, name, PluginError(missing))
        if batch.num_rows == 0:
            return
        full = self._completed(share, name, batch, parent_id)
        self._channel.put(Insert(self._full[name], full), full.nbytes)
        children = self._children[name]
        if children:
            ids = full.column(internal.CQ_ID)
            for start in range(0, batch.num_rows, 500):
                self._descend(share, children, batch.slice(start, 500), ids.slice(start, 500), level + 1)

    def _descend(
        self, share: _Share[C], children: Sequence[TableFunction[C]], parents: pa.RecordBatch, ids: pa.Array, level: int
    ) -> None:
        """Read every child table of every parent row, and wait for them."""
        futures: list[Future[None]] = [
            self._pools[level].submit(self._read, share, child, row, ids[index], level)
            for index, row in enumerate(parents.to_pylist())
            for child in children
        ]
        wait(futures)
        for future in futures:
            future.result()

    def _completed(
        self, share: _Share[C], name: str, batch: pa.RecordBatch, parent_id: pa.Scalar | None
    ) -> pa.RecordBatch:
        """`batch` with the ids, as a batch of the full table."""
        table = self._full[name]
        hashed = self._hashed[name]
        own: dict[str, pa.Array] = {
            internal.CQ_ID: internal.deterministic_ids({column: batch.column(column) for column in hashed})
            if hashed
            else internal.random_ids(batch.num_rows),
            internal.CQ_PARENT_ID: pa.nulls(batch.num_rows, internal.PARENT_ID.type)
            if parent_id is None
            else pa.repeat(parent_id, batch.num_rows),
        }
        if internal.CQ_CLIENT_ID in table:
            own[internal.CQ_CLIENT_ID] = pa.repeat(share.client_id, batch.num_rows)
        arrays = [own[c.name] if c.name in own else batch.column(c.name) for c in table.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=table.arrow_schema)

    def _fail(self, share: _Share[C], table_name: str, error: PluginError) -> None:
        share.failed.add(table_name)
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        self._channel.put(TableError(table_name, f"{error}{notes}", share.client_id))
        if self._request.stop_on_error:
            self._stopping.set()
            self._channel.close(PluginError(f"table `{table_name}` failed and `on_error: stop` is set: {error}"))

    def _with_own_columns(self, table: Table) -> Table:
        full = internal.add_cq_ids(table)
        return internal.add_client_id(full) if self._request.client_id_column else full

    def _hash_columns(self, table: Table, selected: Iterable[Table]) -> tuple[str, ...]:
        """What `_cq_id` is made of: keys where the config says so, and where children refer to keyed rows."""
        wanted = self._request.deterministic_cq_id
        if wanted is None:
            wanted = bool(children_of(selected, table.name))
        return internal.hash_columns(table, deterministic=wanted)

    def _cursor(self, share: _Share[C], function: TableFunction[C], parent: Mapping[str, Any]) -> Any:
        if not function.incremental:
            return None
        key = _cursor_key(share, function, parent, self._full.get(function.table.parent))
        text = self._cursors.get(key)
        if text is None:
            return None
        return pa.scalar(text).cast(function.table.column(function.incremental).type).as_py()


def _client_id(client: object, otherwise: str) -> str:
    found = getattr(client, "id", otherwise)
    return str(found() if callable(found) else found)


def _cursor_key(
    share: _Share[C], function: TableFunction[C], parent: Mapping[str, Any], parent_table: Table | None
) -> str:
    """The cursor's name: table, client, and the parent row's keys."""
    keys = parent_table.primary_keys if parent_table is not None else ()
    return "/".join([function.table.name, share.client_id, *(str(parent.get(key)) for key in keys)]).rstrip("/")


def _larger(so_far: pa.Scalar | None, batch: pa.RecordBatch, column: str) -> pa.Scalar | None:
    """The larger of `so_far` and the largest value of `column`."""
    if not column:
        return None
    found = pc.max(batch.column(column))
    if not found.is_valid:
        return so_far
    return found if so_far is None or found.as_py() > so_far.as_py() else so_far


def _with_keys(table: Table, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, str]:
    """The rows whose primary key is whole, and what is to be said of the others."""
    broken = [name for name in table.primary_keys if batch.column(name).null_count]
    if not broken:
        return batch, ""
    whole = batch.column(broken[0]).is_valid()
    for name in broken[1:]:
        whole = pc.and_(whole, batch.column(name).is_valid())
    kept = batch.filter(whole)
    names = ", ".join(f"`{name}`" for name in broken)
    return kept, f"{batch.num_rows - kept.num_rows} rows have no value in the primary key ({names}) and are left out"


def _without_own(rows: row_batches.Rows) -> Iterator[Any]:
    """`rows` with Arrow data rid of the columns that this sync adds itself."""
    for item in rows:
        if isinstance(item, (pa.RecordBatch, pa.Table)) and not OWN_COLUMNS.isdisjoint(item.schema.names):
            yield item.select([name for name in item.schema.names if name not in OWN_COLUMNS])
        else:
            yield item


def _explained(error: Exception) -> PluginError:
    """`error` as a `PluginError`; a stranger's error keeps its type in the text, and its traceback in the log."""
    if isinstance(error, PluginError):
        return error
    log.error("a table function failed", exc_info=error)
    made = PluginError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
