"""Messages and Arrow values to and from the bytes of the protocol: pure functions and caches, no sockets.

A record travels as an Arrow IPC stream of its schema, one batch and an end mark, so each carries its whole schema
again; writer and reader remember the schemas of a stream, which makes small records several times cheaper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa

from catchment.errors import ProtocolError
from catchment.messages import (
    DeleteRecord,
    DeleteStale,
    Insert,
    MigrateTable,
    Predicate,
    PredicateGroup,
    SyncMessage,
    TableError,
    TableRelation,
    WriteMessage,
)
from catchment.schema.intervals import carried, shown
from catchment.schema.table import Table
from catchment.wire import unpacked
from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.limits import MAX_MESSAGE_BYTES

RECORD_BYTES = 40 << 20
"""Most bytes of rows in one record that is sent: Go plugins drop what is above 100 MiB."""

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_CONTINUATION = b"\xff\xff\xff\xff"
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, StopIteration, OverflowError)
"""What pyarrow raises for bytes that are not what they should be."""
_KNOWN_SCHEMAS = 4096
"""Schemas that a reader remembers."""


def schema_to_bytes(schema: pa.Schema) -> bytes:
    """A schema as an IPC stream without batches."""
    return bytes(carried(schema).serialize().to_pybytes()) + _END


def schema_from_bytes(data: bytes) -> pa.Schema:
    """The schema of an IPC stream. Raises `ProtocolError` for bytes that are none."""
    try:
        with pa.ipc.open_stream(data) as reader:
            return shown(reader.schema)
    except _BROKEN as error:
        raise ProtocolError(f"a schema of {len(data):,} bytes cannot be read: {_text(error)}") from error


def table_to_bytes(table: Table) -> bytes:
    """A table as the schema that describes it."""
    return schema_to_bytes(table.to_schema())


def table_from_bytes(data: bytes) -> Table:
    """The table that a schema describes. Raises `ProtocolError`."""
    return _table_of(schema_from_bytes(data))


def with_types(table: Table, schema: pa.Schema) -> Table:
    """`table` with the types that its columns have in `schema`, by place."""
    return table.with_columns(
        replace(column, type=kind) for column, kind in zip(table.columns, schema.types, strict=True)
    )


def given_back(asked: pa.DataType, stored: pa.DataType) -> pa.DataType:
    """The type that a column travels with when `asked` was asked for and the destination keeps `stored`.

    Peers take a column by the type they asked for. It is given where that is another width or unit of the same thing;
    what is kept as text, or as less than was asked for, travels as it is kept.
    """
    alike = any(kind(asked) and kind(stored) for kind in _ALIKE)
    return asked if alike else stored


def as_asked(table: Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch`, which has the columns of `table` as a destination keeps them, with the types of `given_back`.

    Raises `ProtocolError` for a value that the type which was asked for cannot hold.
    """
    arrays = []
    for column, array in zip(table.columns, batch.columns, strict=True):
        try:
            wanted = given_back(column.type, array.type)
            arrays.append(array if wanted.equals(array.type) else array.cast(wanted))
        except pa.ArrowInvalid as error:
            text = f"table `{table.name}`: column `{column.name}` holds more than was asked for: {_text(error)}"
            raise ProtocolError(text) from error
    return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


_ALIKE = (_is_number, _is_binary, _is_text, pa.types.is_timestamp, pa.types.is_date, pa.types.is_time)


def _table_of(schema: pa.Schema) -> Table:
    try:
        return Table.from_schema(schema)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the metadata of a schema is no text: {_text(error)}") from error


def pieces(batch: pa.RecordBatch, max_bytes: int = RECORD_BYTES) -> Iterator[pa.RecordBatch]:
    """Slices of `batch` of about `max_bytes`; one row is never cut."""
    # Never less than `nbytes`, which takes fifty times as long to tell.
    if batch.num_rows <= 1 or batch.get_total_buffer_size() <= max_bytes:
        yield batch
        return
    rows = max(int(batch.num_rows * max_bytes / max(batch.nbytes, 1)), 1)
    for start in range(0, batch.num_rows, rows):
        yield from _halves(batch.slice(start, rows), max_bytes)


def _halves(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Rows differ in size: a slice that is still twice too large is cut again."""
    if batch.nbytes <= 2 * max_bytes or batch.num_rows <= 1:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _halves(batch.slice(0, middle), max_bytes)
    yield from _halves(batch.slice(middle), max_bytes)


class RecordWriter:
    """Batches to bytes; remembers the schema message of each table."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Table, pa.Schema, bytes]] = {}

    def to_bytes(self, table: Table, batch: pa.RecordBatch) -> bytes:
        """`batch`, which has the columns of `table`. Raises `ProtocolError` if it is more than a peer takes."""
        known = self._known.get(table.name)
        if known is None or (known[0] is not table and known[0] != table):
            schema = table.to_schema()
            known = self._known[table.name] = (table, schema, carried(schema).serialize().to_pybytes())
        body = batch.serialize()
        if body.size > MAX_MESSAGE_BYTES - (1 << 20):
            raise ProtocolError(
                f"table `{table.name}`: a record of {batch.num_rows:,} rows has {body.size:,} bytes, "
                f"the protocol takes {MAX_MESSAGE_BYTES:,}"
            )
        return b"".join((known[2], body, _END))


class RecordReader:
    """Bytes to batches; remembers the schemas that it has seen."""

    def __init__(self) -> None:
        self._known: dict[bytes, Table] = {}

    def from_bytes(self, data: bytes) -> tuple[Table, list[pa.RecordBatch]]:
        """The table and the batches of a record: one, but nothing is lost of a peer that sends more.

        Raises `ProtocolError` for bytes that are no record, or whose values do not fit their buffers.
        """
        try:
            return self._read(data)
        except ProtocolError:
            raise
        except _BROKEN as error:
            raise ProtocolError(f"a record of {len(data):,} bytes cannot be read: {_text(error)}") from error

    def _read(self, data: bytes) -> tuple[Table, list[pa.RecordBatch]]:
        if data[:4] != _CONTINUATION:
            raise ProtocolError(f"a record of {len(data):,} bytes does not begin as an Arrow stream")
        start = 8 + int.from_bytes(data[4:8], "little")
        table = self._known.get(data[:start])
        if table is None:
            table = self._remember(data[:start])
        buffer = pa.py_buffer(data).slice(start)
        message = pa.ipc.read_message(buffer)
        unpacked.check(message)
        if message.type != "record batch" or self._more(message, buffer):
            return table, self._all(data, table)
        return table, [_checked(pa.ipc.read_record_batch(message, table.arrow_schema), table)]

    def _remember(self, head: bytes) -> Table:
        table = table_from_bytes(head + _END)
        if len(self._known) >= _KNOWN_SCHEMAS:
            self._known.clear()
        self._known[head] = table
        return table

    def _more(self, message: pa.ipc.Message, buffer: pa.Buffer) -> bool:
        """Whether another message follows."""
        body = message.body.size if message.body is not None else 0
        rest = buffer.size - 8 - message.metadata.size - body
        return bool(rest > len(_END))

    def _all(self, data: bytes, table: Table) -> list[pa.RecordBatch]:
        """Every batch of a stream; the slow way, for streams with dictionaries or several batches."""
        for message in pa.ipc.MessageReader.open_stream(data):
            unpacked.check(message)
        with pa.ipc.open_stream(data) as reader:
            if reader.schema.types == table.arrow_schema.types:
                return [_checked(batch.cast(table.arrow_schema), table) for batch in reader]
        raise ProtocolError(f"table `{table.name}`: several batches of intervals in one record cannot be read")


def _checked(batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """Offsets and texts of a batch come from outside: what does not fit its buffers must not be read later."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ProtocolError(f"table `{table.name}`: a record holds broken values: {_text(error)}") from error
    return batch


def sync_message(response: pb.Sync.Response, reader: RecordReader) -> Iterator[SyncMessage]:
    """What a source says. Raises `ProtocolError` for a kind of message that is not known."""
    match response.WhichOneof("message"):
        case "insert":
            table, batches = reader.from_bytes(response.insert.record)
            for batch in batches:
                yield Insert(table, batch)
        case "migrate_table":
            yield MigrateTable(table_from_bytes(response.migrate_table.table))
        case "delete_record":
            yield _delete_record(response.delete_record)
        case "error":
            yield TableError(response.error.table_name, response.error.error)
        case unknown:
            raise ProtocolError(f"a source sent a message of an unknown kind ({unknown})")


def sync_response(message: SyncMessage, writer: RecordWriter) -> Iterator[pb.Sync.Response]:
    """What a source says, as it travels; nothing for messages that the protocol has no word for."""
    match message:
        case Insert(table, batch):
            for piece in pieces(batch):
                record = writer.to_bytes(table, piece)
                yield pb.Sync.Response(insert=pb.Sync.MessageInsert(record=record))
        case MigrateTable(table):
            yield pb.Sync.Response(migrate_table=pb.Sync.MessageMigrateTable(table=table_to_bytes(table)))
        case DeleteRecord():
            groups, relations = _where(message)
            yield pb.Sync.Response(
                delete_record=pb.Sync.MessageDeleteRecord(
                    table_name=message.table_name, where_clause=groups, table_relations=relations
                )
            )
        case TableError(name, text):
            yield pb.Sync.Response(error=pb.Sync.MessageError(table_name=name, error=text))


def write_message(request: pb.Write.Request, reader: RecordReader) -> Iterator[WriteMessage]:
    """What a destination is told; nothing for an empty request, which upstream's CLI may send.

    A deletion of stale rows names its table only: it comes back as a table of that name without columns.
    """
    match request.WhichOneof("message"):
        case "insert":
            table, batches = reader.from_bytes(request.insert.record)
            for batch in batches:
                yield Insert(table, batch)
        case "migrate_table":
            migrate = request.migrate_table
            yield MigrateTable(table_from_bytes(migrate.table), force=migrate.migrate_force)
        case "delete":
            stale = request.delete
            yield DeleteStale(Table(stale.table_name, ()), stale.source_name, moment_from(stale))
        case "delete_record":
            yield _delete_record(request.delete_record)


def write_request(
    message: WriteMessage, writer: RecordWriter, max_bytes: int = RECORD_BYTES
) -> Iterator[pb.Write.Request]:
    """What a destination is told, as it travels: rows in records of about `max_bytes`."""
    match message:
        case Insert(table, batch):
            for piece in pieces(batch, max_bytes):
                record = writer.to_bytes(table, piece)
                yield pb.Write.Request(insert=pb.Write.MessageInsert(record=record))
        case MigrateTable(table, force):
            yield pb.Write.Request(
                migrate_table=pb.Write.MessageMigrateTable(table=table_to_bytes(table), migrate_force=force)
            )
        case DeleteStale(table, source_name, sync_time):
            request = pb.Write.MessageDeleteStale(source_name=source_name, table_name=table.name)
            request.sync_time.FromDatetime(sync_time)
            yield pb.Write.Request(delete=request)
        case DeleteRecord():
            groups, relations = _where(message)
            yield pb.Write.Request(
                delete_record=pb.Write.MessageDeleteRecord(
                    table_name=message.table_name, where_clause=groups, table_relations=relations
                )
            )


def moment_from(stale: pb.Write.MessageDeleteStale) -> datetime:
    """The sync time of a deletion of stale rows, to the microsecond. Raises `ProtocolError` for one that is no date."""
    try:
        return stale.sync_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"the sync time of a deletion is no time: {_text(error)}") from error


def _delete_record(message: pb.Sync.MessageDeleteRecord | pb.Write.MessageDeleteRecord) -> DeleteRecord:
    groups = tuple(
        PredicateGroup(
            tuple(Predicate(p.column, _only_value(p)) for p in group.predicates),
            "or" if group.grouping_type == pb.PredicatesGroup.OR else "and",
        )
        for group in message.where_clause
    )
    relations = tuple(TableRelation(r.table_name, r.parent_table) for r in message.table_relations)
    return DeleteRecord(message.table_name, groups, relations)


def _only_value(predicate: pb.Predicate) -> pa.Array:
    """The first value of the first column; its schema needs no table name."""
    try:
        with pa.ipc.open_stream(predicate.record) as stream:
            batch = stream.read_next_batch()
            batch.validate(full=True)
            if batch.num_rows and batch.num_columns:
                return batch.column(0).slice(0, 1)
    except _BROKEN as error:
        raise ProtocolError(f"the value of a predicate on `{predicate.column}` cannot be read: {error}") from error
    raise ProtocolError(f"a predicate on `{predicate.column}` has no value")


def _where(message: DeleteRecord) -> tuple[list[pb.PredicatesGroup], list[pb.TableRelation]]:
    groups = [
        pb.PredicatesGroup(
            grouping_type=pb.PredicatesGroup.OR if group.grouping == "or" else pb.PredicatesGroup.AND,
            predicates=[pb.Predicate(column=p.column, record=_value_record(p)) for p in group.predicates],
        )
        for group in message.where
    ]
    relations = [pb.TableRelation(table_name=r.table_name, parent_table=r.parent_name) for r in message.relations]
    return groups, relations


def _value_record(predicate: Predicate) -> bytes:
    """A record of one column and one row; Go plugins want a table name in its schema."""
    schema = pa.schema([(predicate.column, predicate.value.type)], metadata={"cq:table_name": predicate.column})
    batch = pa.RecordBatch.from_arrays([predicate.value.slice(0, 1)], schema=schema)
    return b"".join((schema.serialize(), batch.serialize(), _END))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
