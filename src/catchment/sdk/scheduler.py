"""From an author's `Source` to the plugin: tables x clients x parents on threads, batches and messages out.

Top-level tables run side by side, one task per table and client; children run on a pool of their own level, one task
per parent row, and a parent's next batch waits for them. Everything leaves through one bounded queue, which makes the
few rows of each parent into batches of many; a slow reader holds up every table function.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from concurrent.futures import wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import pyarrow as pa

from catchment import log_context
from catchment.channel import ChannelClosed
from catchment.coalesce import Coalescer, Silent
from catchment.errors import CatchmentError, PluginError, Transient
from catchment.messages import (
    ClientDone,
    ClientRead,
    Cursor,
    DeleteRecord,
    Insert,
    MigrateTable,
    RowsSkipped,
    SyncMessage,
    TableError,
)
from catchment.plugin import SyncRequest
from catchment.schema import internal
from catchment.schema.select import Selection, select
from catchment.schema.table import MAX_DEPTH, Table, validate
from catchment.sdk import cursors
from catchment.sdk import rows as row_batches
from catchment.sdk.pool import Pool
from catchment.sdk.source import Context, FieldLog, Source, TableFunction
from catchment.sdk.state import StateTable
from catchment.sdk.yielded import OWN_COLUMNS, left_out_text, with_keys, without_own
from catchment.spec.fields import Spec, parse_spec, secrets_of

log = logging.getLogger("catchment.source")

C = TypeVar("C")
S = TypeVar("S", bound=Spec)

THREADS = 16
"""Table functions that run at once on each level."""
CHANNEL_BYTES = 16 << 20
"""Bytes of batches that may wait for the reader."""
TRIES = 3
"""Times that a table function is called while it raises `Transient` before it yielded anything."""


class SourceHost(Generic[S, C]):
    """A `Source` with the face of `SourcePlugin`."""

    def __init__(self, source: Source[S, C]) -> None:
        self.name = source.name
        self._source = source
        self._spec: S | None = None
        self._client: C | None = None
        self._functions: list[TableFunction[C]] | None = None
        self._state: StateTable | None = None
        self.secrets: frozenset[str] = frozenset()
        """What must not be shown of the spec, known after `init`."""

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Check the spec; the client is made when it is first needed."""
        self._spec = parse_spec(self._source.spec_type, spec, where=f"source `{self.name}`")
        self.secrets = secrets_of(self._spec)

    def tables(self, selection: Selection) -> Sequence[Table]:
        """The selected tables with their `_cq_` columns; those whose columns cannot be told are logged and left out."""
        broken = self.unreadable(selection)
        for name, reason in broken.items():
            log.error("%s", reason, extra={"plugin": self.name, "table": name})
        found = select([function.table for function in self._all()], selection)
        return [internal.add_cq_ids(table) for table in found if table.name not in broken]

    def unreadable(self, selection: Selection) -> Mapping[str, str]:
        """The selected tables that were found but whose columns cannot be told."""
        errors = {function.table.name: function.error for function in self._all() if function.error is not None}
        found = select([function.table for function in self._all()], selection)
        return {table.name: str(errors[table.name]) for table in found if table.name in errors}

    def sync(self, request: SyncRequest) -> Iterator[SyncMessage]:
        """Every migrate message, then rows as they come."""
        functions = {function.table.name: function for function in self._all()}
        selected = select([function.table for function in functions.values()], request.selection)
        if not selected:
            raise PluginError("no tables are left to sync; check `tables` and `skip_tables`")
        saved: Mapping[str, str] = {}
        if request.backend is not None:
            self._state = StateTable(request.backend)
            saved = self._state.load()
        functions_selected = [functions[table.name] for table in selected]
        run = _Run(self.name, request, functions_selected, self._made_client(), self._spec, saved, self._parents())
        yield from run.messages()
        if not run.stuck:
            yield from self._deletions({table.name for table in selected})

    def acknowledge(self, cursors: Sequence[Cursor]) -> None:
        """Save the cursors."""
        if self._state is not None:
            self._state.save({cursor.key: cursor.value for cursor in cursors})

    def interrupt(self) -> None:
        """Nothing: to close the iterator is enough."""

    def test_connection(self) -> None:
        """Make the client and list the tables."""
        self._all()

    def close(self) -> None:
        """Close the client, if it can be closed."""
        client, self._client = self._client, None
        close = getattr(client, "close", None)
        if close is not None:
            close()

    def _deletions(self, selected: set[str]) -> Iterator[DeleteRecord]:
        """What the source wants deleted, in tables of this sync."""
        if self._source.deleter is None:
            return
        for record in self._source.deleter(self._made_client()):
            if record.table_name in selected:
                relations = tuple(relation for relation in record.relations if relation.table_name in selected)
                yield replace(record, relations=relations)

    def _made_client(self) -> C:
        if self._spec is None:
            raise PluginError(f"source `{self.name}` was used before `init`")
        if self._client is None:
            self._client = self._source.make_client(self._spec)
        return self._client

    def _parents(self) -> frozenset[str]:
        """Names of the tables that have child tables, selected or not."""
        return frozenset(function.table.parent for function in self._all()) - {""}

    def _all(self) -> list[TableFunction[C]]:
        """Every table function, those found at run time too."""
        if self._functions is None:
            functions = list(self._source.functions)
            if self._source.discoverer is not None:
                functions += [
                    TableFunction(found.table, found.read, error=found.error)
                    for found in self._source.discoverer(self._made_client())
                ]
            self._functions = [
                TableFunction(
                    function.table.with_columns(c for c in function.table.columns if c.name not in OWN_COLUMNS),
                    function.read,
                    function.incremental,
                    function.multiplex,
                    function.error,
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
    rows: Counter[str] = field(default_factory=Counter)
    """Rows sent, by table."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    reads: list[str] = field(default_factory=list)
    """Tables whose functions run at this moment."""
    ended: bool = False

    @contextmanager
    def reading(self, table_name: str) -> Iterator[None]:
        """Have it known that this table's function runs."""
        self.reads.append(table_name)
        try:
            yield
        finally:
            self.reads.remove(table_name)


class _Run(Generic[C]):
    """One sync of a source."""

    def __init__(
        self,
        plugin: str,
        request: SyncRequest,
        functions: Sequence[TableFunction[C]],
        client: C,
        spec: Any,
        saved: Mapping[str, str],
        parents: Set[str],
    ) -> None:
        self._plugin = plugin
        self._request = request
        self._functions = functions
        self._client = client
        self._spec = spec
        self._saved = saved
        self._channel = Coalescer(CHANNEL_BYTES, idle_s=request.idle_s, what=f"source `{plugin}`")
        self._begun: list[_Share[C]] = []
        self.stuck = False
        """Whether a table function said nothing for so long that nobody waits for it any more."""
        self._about = log_context.current()
        self._stopping = threading.Event()
        own = [function.table for function in functions]
        self._full = {table.name: self._with_own_columns(table) for table in own}
        self._children = {
            table.name: [function for function in functions if function.table.parent == table.name] for table in own
        }
        self._hashed = {table.name: self._hash_columns(table, parents) for table in own}
        self._pools = [Pool(THREADS, f"tables-{level}") for level in range(MAX_DEPTH)]

    def messages(self) -> Iterator[SyncMessage]:
        """Everything the sync has to say; closing the iterator early stops the threads."""
        top = threading.Thread(target=self._work, name="scheduler", daemon=True)
        for function in self._functions:
            if function.error is None:
                yield MigrateTable(self._full[function.table.name])
        top.start()
        try:
            yield from self._channel
        except Silent as silent:
            self.stuck = True
            left = [share for share in self._begun if not share.ended]
            if not left:
                raise
            for share in left:
                yield from _silenced(share, silent)
        finally:
            self._stopping.set()
            self._channel.abandon()
            if not self.stuck:
                top.join()
            for pool in self._pools:
                pool.stop(waits=not self.stuck)

    def _work(self) -> None:
        try:
            self._begun = self._shares()
            futures = [self._pools[0].submit(self._run_share, share) for share in self._begun]
            wait(futures)
            for future in futures:
                future.result()
            self._channel.close()
        except ChannelClosed:
            pass
        except BaseException as error:
            self._channel.close(error if isinstance(error, CatchmentError) else _explained(error, log))

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
        name = function.table.name
        try:
            shares = [
                _Share(function, client, _client_id(client, str(number)))
                for number, client in enumerate(function.multiplex(self._client))
            ]
        except Exception as error:
            self._fail(_Share(function, self._client, ""), name, _explained(error, log))
            return []
        twice = sorted(client for client, count in Counter(s.client_id for s in shares).items() if count > 1)
        if twice:
            # As upstream: they are all read, for the ids alone may be wrong.
            log.warning("table `%s`: several clients have the id %s", name, ", ".join(map(repr, twice)))
        return shares

    def _run_share(self, share: _Share[C]) -> None:
        """A top-level table of one client, with all below it."""
        started = time.time()
        self._read(share, share.function, {}, None, 0)
        ended = time.time()
        whole = {""}
        for function in self._below(share.function):
            name = function.table.name
            self._channel.put(ClientRead(name, share.client_id, started, ended, share.rows[name]))
            # The rows below a row that never came are missing as well.
            if function.table.parent in whole and name not in share.failed:
                whole.add(name)
                self._channel.put(ClientDone(name, share.client_id))
        share.ended = True

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
        if self._stopping.is_set():
            raise ChannelClosed
        name = function.table.name
        about = {"plugin": self._plugin, "table": name, "client": share.client_id}
        context = Context(
            client=share.client,
            spec=self._spec,
            log=FieldLog(log, about),
            parent=parent,
        )
        keyless: Counter[str] = Counter()
        key, saved, largest = self._cursor_key(share, function, parent), None, None
        try:
            if key in self._saved:
                saved = largest = cursors.from_text(self._saved[key], function.table.column(function.incremental), key)
                context.cursor = cursors.to_value(saved)
            with (
                log_context.about(self._about, **about),
                share.reading(name),
                closing(self._batches(function, context)) as batches,
            ):
                for batch in batches:
                    if self._stopping.is_set():
                        raise ChannelClosed
                    if function.incremental:
                        largest = cursors.larger(largest, batch.column(function.incremental))
                    self._send(share, function, batch, parent_id, level, keyless)
        except ChannelClosed:
            raise
        except BaseException as error:
            # A table function that exits the interpreter (`SystemExit`) ends its table as well, not the thread.
            self._fail(share, name, _explained(error, context.log))
        for names, count in keyless.items():
            self._fail(share, name, PluginError(left_out_text(count, names)))
        for count, example in context.skipped:
            share.failed.add(name)
            self._channel.put(RowsSkipped(name, count, example, share.client_id))
        if largest is not None and largest is not saved and self._is_whole(share, function):
            self._channel.put(Cursor(name, key, cursors.to_text(largest)))

    def _is_whole(self, share: _Share[C], function: TableFunction[C]) -> bool:
        """Whether nothing failed so far: rows below a row are read with it, and not again once its cursor is saved."""
        return share.failed.isdisjoint(below.table.name for below in self._below(function))

    def _batches(self, function: TableFunction[C], context: Context[C]) -> Generator[pa.RecordBatch, None, None]:
        """What the function yields as batches; it is called again while it fails for the moment before any row."""
        for attempt in range(1, TRIES + 1):
            sent = False
            retried: type[Exception] | tuple[()] = Transient if attempt < TRIES else ()
            try:
                rows = without_own(function.table.name, function.read(context))
                for batch in row_batches.batches(function.table, rows, retried=retried):
                    sent = True
                    yield batch
                return
            except Transient as error:
                if sent or attempt == TRIES:
                    raise
                delay_s = error.retry_after_s if error.retry_after_s is not None else 0.5 * 4 ** (attempt - 1)
                context.skipped.clear()
                if self._stopping.wait(delay_s):
                    raise ChannelClosed from None

    def _send(
        self,
        share: _Share[C],
        function: TableFunction[C],
        batch: pa.RecordBatch,
        parent_id: pa.Scalar | None,
        level: int,
        keyless: Counter[str],
    ) -> None:
        name = function.table.name
        batch = with_keys(function.table, batch, keyless)
        if batch.num_rows == 0:
            return
        full = self._completed(share, name, batch, parent_id)
        self._channel.put(Insert(self._full[name], full))
        with share.lock:
            # Rows below several rows are read at once.
            share.rows[name] += batch.num_rows
        children = self._children[name]
        if children:
            ids = full.column(internal.CQ_ID)
            for start in range(0, batch.num_rows, 500):
                self._descend(share, children, batch.slice(start, 500), ids.slice(start, 500), level + 1)

    def _descend(
        self, share: _Share[C], children: Sequence[TableFunction[C]], parents: pa.RecordBatch, ids: pa.Array, level: int
    ) -> None:
        """Read every child table of every parent row, and wait for them."""
        reads = iter([(child, row, ids[i]) for i, row in enumerate(row_batches.to_rows(parents)) for child in children])

        def read() -> None:
            # Threads take from one list: a task for each read would cost as much as a short read does.
            for child, row, row_id in reads:
                self._read(share, child, row, row_id, level)

        count = min(parents.num_rows * len(children), THREADS)
        futures = [self._pools[level].submit(read) for _ in range(count)]
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

    def _hash_columns(self, table: Table, parents: Set[str]) -> tuple[str, ...]:
        """What `_cq_id` is made of: keys where the config says so, and where children refer to keyed rows."""
        wanted = self._request.deterministic_cq_id
        if wanted is None:
            # Children that are not selected now may have been, and stay.
            wanted = table.name in parents
        return internal.hash_columns(table, deterministic=wanted)

    def _cursor_key(self, share: _Share[C], function: TableFunction[C], parent: Mapping[str, Any]) -> str:
        """Name of the function's cursor for this client and parent row; empty where it has none."""
        if not function.incremental:
            return ""
        above = self._full.get(function.table.parent)
        keys = [parent[key] for key in above.primary_keys] if above is not None else []
        return cursors.cursor_key(function.table.name, share.client_id, keys)


def _silenced(share: _Share[Any], silent: Silent) -> Iterator[TableError]:
    """What is said of a share that came to no end: its table lacks rows, and so does each that is being read."""
    top = share.function.table.name
    for name in dict.fromkeys([top, *share.reads]):
        text = f"it was not read to its end: {silent}" if name in share.reads else f"it was not begun: {silent}"
        yield TableError(name, text, share.client_id)


def _client_id(client: object, otherwise: str) -> str:
    found = getattr(client, "id", otherwise)
    return str(found() if callable(found) else found)


def _explained(error: BaseException, log: FieldLog | logging.Logger) -> PluginError:
    """`error` as a `PluginError`; a stranger's error keeps its type in the text, and its traceback in the log."""
    if isinstance(error, PluginError):
        return error
    log.error("a table function failed", exc_info=error)
    made = PluginError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
