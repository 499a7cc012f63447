"""The PostgreSQL destination: migrate, write, delete and read; publishing is in `publish.py`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from catchment.destinations.postgresql import publish, types
from catchment.destinations.postgresql.catalogue import (
    describe,
    estimated_rows,
    hanging,
    is_catalogue,
    key_constraints,
)
from catchment.destinations.postgresql.connection import Connections, execute, explained
from catchment.destinations.postgresql.staging import Staging
from catchment.destinations.postgresql.types import DIALECT, quote
from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    DeleteRecord,
    Destination,
    MigrationRefused,
    PluginError,
    Published,
    RowsRefused,
    Secret,
    Swap,
    Table,
    TablePreview,
    Transient,
    json,
    sql,
)
from catchment.sdk.staging import CQ_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME, is_staging
from catchment.sdk.storage import restore

COPY_ROWS = 8_192
"""Rows that are encoded at once: small enough that the server never waits for the encoder."""


class PostgreSQLSpec(BatchSpec):
    """Spec of the postgresql destination."""

    connection_string: Secret
    """Connection string or URI, as libpq takes it."""
    create_performance_indexes: bool = False
    """Whether tables get an index on `_cq_source_name` and `_cq_sync_time`."""
    retry_on_deadlock: Annotated[int, Field(ge=0)] = 0
    """Accepted as upstream has it; deadlocks are always tried again."""
    pgx_log_level: Literal["trace", "debug", "info", "warn", "error", "none"] = "error"
    """Accepted as upstream has it; there is no such driver here."""


class PostgreSQL(Destination[PostgreSQLSpec]):
    """Writes with binary COPY, merges set-wise, publishes by renaming freshly built tables."""

    name = "postgresql"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique", "move_pk_to_cq_id"}),
        delete_records=True,
        publish="sync",
        rejects=True,
        max_identifier_bytes=types.MAX_NAME_BYTES,
        writers=2,
        parallel_appends=True,
        batch=BatchSize(rows=0, size_bytes=48 << 20, timeout_s=60.0),
        stored_as=types.stored_as,
    )

    def __init__(self, spec: PostgreSQLSpec) -> None:
        super().__init__(spec)
        self._connections = Connections(spec.connection_string.reveal())
        self._staging = Staging(self._connections)
        self._publisher = publish.Publisher(
            self._connections, self._staging, self.capabilities, indexes=spec.create_performance_indexes
        )

    def open(self) -> None:
        """Connect."""
        with self._connections.lent():
            pass

    def close(self) -> None:
        """Close every connection."""
        self._staging.close()
        self._connections.close()

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create or alter in one transaction; what `force` needs beyond that makes the table anew."""
        import psycopg

        types.check_names(table)
        with self._connections.transaction() as connection:
            found = self._migration(connection, table, force=force)
            try:
                keys = key_constraints(connection, table.name) if found.action == "alter" else []
                for statement in _statements(table, found, keys):
                    connection.execute(statement)
                if self.spec.create_performance_indexes and CQ_SOURCE_NAME in table and CQ_SYNC_TIME in table:
                    index = quote(publish.performance_index(table.name))
                    columns = DIALECT.columns([CQ_SOURCE_NAME, CQ_SYNC_TIME])
                    connection.execute(f"create index if not exists {index} on {DIALECT.table(table.name)} ({columns})")
            except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateColumn) as error:
                raise Transient(f"another sync changed the table at the same moment: {explained(error)}") from error

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Asks the catalogue, in a transaction that may not write."""
        with self._connections.transaction() as connection:
            connection.execute("set transaction read only")
            return [self._preview(connection, table, force=force) for table in tables]

    def write(self, table: Table, rows: pa.Table) -> None:
        """COPY in one transaction; with keys through a temporary table, from which the last of equal rows goes in."""
        staged = is_staging(table.name)
        with self._connections.transaction() as connection:
            if staged:
                # Nobody sees a staged table: its rows have to be durable only when it is published.
                connection.execute("set local synchronous_commit = off")
            self._write(connection, table, rows)
        if staged:
            self._staging.count(table, rows.num_rows)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        with contextlib.suppress(_TakenBack), self._connections.transaction() as connection:
            self._write(connection, table, rows)
            raise _TakenBack

    def _write(self, connection: Any, table: Table, rows: pa.Table) -> None:
        wires = [types.wire(column.type) for column in table.columns]
        if not table.primary_keys and not any(wire.casts for wire in wires):
            _copy(connection, DIALECT.table(table.name), table, rows)
            return
        columns = ", ".join(
            f"{quote(column.name)} {wire.type}" for column, wire in zip(table.columns, wires, strict=True)
        )
        connection.execute(
            f"create temporary table _catchment_rows ({columns}, _catchment_order bigserial) on commit drop"
        )
        _copy(connection, "_catchment_rows", table, rows)
        connection.execute(_merge(table, wires))

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        statement, values = sql.delete_stale(
            DIALECT,
            table,
            source_name=source_name,
            sync_time=sync_time.astimezone(UTC).replace(tzinfo=None),
            clients=clients,
        )
        with self._connections.transaction() as connection:
            return int(execute(connection, statement, values).rowcount)

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._connections.transaction() as connection:
            for statement, values in sql.delete_records(DIALECT, message):
                execute(connection, statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """A stream of batches through ADBC."""
        import adbc_driver_postgresql.dbapi as adbc

        with self._connections.transaction() as connection:
            have = describe(connection, table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        expressions = [
            types.select_expression(column, have.column(column.name))
            if column.name in have
            else f"null::text as {quote(column.name)}"
            for column in table.columns
        ]
        query = f"select {', '.join(expressions)} from {DIALECT.table(table.name)}"
        kinds = [types.stored_as(column.type) for column in table.columns]
        with adbc.connect(self.spec.connection_string.reveal()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                arrays = [_restored(array, kind) for array, kind in zip(batch.columns, kinds, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def stored_table(self, name: str) -> Table | None:
        """With the types of the catalogue; those that only PostgreSQL has are read as text."""
        with self._connections.transaction() as connection:
            have = describe(connection, name)
        if have is None:
            return None
        return have.with_columns(
            [replace(c, type=pa.utf8() if types.is_foreign(c.type) else c.type) for c in have.columns]
        )

    def stored_names(self) -> Sequence[str]:
        """Tables and views of the current schema."""
        query = "select table_name from information_schema.tables where table_schema = current_schema()"
        with self._connections.transaction() as connection:
            return [name for (name,) in connection.execute(query).fetchall()]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table in a schema of its own, with the columns that the live one will have."""
        types.check_names(table)
        self._staging.begin(staged)
        with self._connections.transaction() as connection:
            connection.execute("set local synchronous_commit = off")
            found = self._migration(connection, table, force=force)
            self._staging.create(connection, found.table, staged, forced=found.action == "recreate")

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Build the keys, then rename or merge everything in one transaction."""
        return self._publisher.publish(swaps)

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        self._staging.discard(staged)

    def _migration(self, connection: Any, table: Table, *, force: bool) -> sql.Migration:
        """What to do to the live table. Raises `MigrationRefused`, also for a table that cannot be dropped."""
        if is_catalogue(connection, table.name):
            raise MigrationRefused(
                f"table `{table.name}` has the name of one of PostgreSQL's own", hint="rename it with a transformer"
            )
        found = sql.migration(DIALECT, describe(connection, table.name), table, self.capabilities, force=force)
        others = hanging(connection, table.name) if found.action == "recreate" else []
        if others:
            raise sql.hung_on(table.name, others)
        return found

    def _preview(self, connection: Any, table: Table, *, force: bool) -> TablePreview:
        try:
            types.check_names(table)
        except PluginError as error:
            return TablePreview("refused").refused(error)
        found = sql.preview(DIALECT, describe(connection, table.name), table, self.capabilities, force=force)
        if found.action == "create":
            return found
        others = hanging(connection, table.name) if found.action in ("recreate", "refused") else []
        if found.action == "recreate" and others:
            found = found.refused(sql.hung_on(table.name, others))
        return replace(found, rows=estimated_rows(connection, table.name), dependents=tuple(others))

    def test_connection(self) -> None:
        """Connect and ask for the version."""
        try:
            with self._connections.lent() as connection:
                connection.execute("select version()")
        finally:
            self._connections.close()


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""


def _statements(table: Table, found: sql.Migration, keys: Sequence[tuple[str, str, list[str]]]) -> Iterator[str]:
    """What a migration executes."""
    name = DIALECT.table(table.name)
    if found.action == "recreate":
        yield sql.drop_table(DIALECT, table.name)
    if found.action in ("create", "recreate"):
        yield sql.create_table(DIALECT, table)
        return
    for change in found.changes:
        if change.kind == "add_column" and change.current is not None:
            yield sql.add_column(DIALECT, table, table.column(change.column))
        elif change.kind == "remove_unique":
            for constraint, kind, columns in keys:
                if kind == "u" and columns == [change.column]:
                    yield f"alter table {name} drop constraint {quote(constraint)}"
        elif change.kind == "move_pk_to_cq_id":
            yield from _move_key(table, found.table, keys)


def _move_key(table: Table, merged: Table, keys: Sequence[tuple[str, str, list[str]]]) -> Iterator[str]:
    """The primary key on `_cq_id` alone; columns of the old one may be null again."""
    name = DIALECT.table(table.name)
    for constraint, kind, _ in keys:
        if kind == "p":
            yield f"alter table {name} drop constraint {quote(constraint)}"
    for column in merged.columns:
        if column.name != CQ_ID and not column.not_null:
            yield f"alter table {name} alter column {quote(column.name)} drop not null"
    yield f"alter table {name} add primary key ({quote(CQ_ID)})"


def _copy(connection: Any, target: str, table: Table, rows: pa.Table) -> None:
    """COPY rows into `target` in their order."""
    import pgpq
    from pgpq import encoders, schema

    columns = [_wired(column, name) for column, name in zip(rows.columns, table.column_names, strict=True)]
    converted = pa.Table.from_arrays(columns, names=list(table.column_names))
    builders = {
        column.name: encoders.StringEncoderBuilder.new_with_output(converted.schema.field(column.name), schema.Jsonb())
        for column in table.columns
        if column.type.equals(json())
    }
    fresh = pgpq.ArrowToPostgresBinaryEncoder(converted.schema)
    encoder = fresh if not builders else _with_builders(converted.schema, builders)
    statement = f"copy {target} ({DIALECT.columns(table.column_names)}) from stdin (format binary)"
    with connection.cursor().copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in converted.to_batches():
            for start in range(0, batch.num_rows, COPY_ROWS):
                piece = batch.slice(start, COPY_ROWS)
                try:
                    encoded = encoder.write_batch(piece)
                except ValueError as error:
                    raise _misfit(piece) from error
                copy.write(encoded)
        copy.write(encoder.finish())


def _wired(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as the encoder takes it. Raises `RowsRefused` for a value that PostgreSQL has no room for."""
    try:
        return pa.chunked_array([types.to_wire(chunk) for chunk in column.chunks])
    except pa.ArrowInvalid as error:
        text = f"column `{name}` holds a value that is out of range: {error}"
        raise RowsRefused(text, column=name) from error


def _misfit(batch: pa.RecordBatch) -> RowsRefused:
    """The error for rows that cannot be encoded: a date or a time that PostgreSQL has no room for."""
    import pgpq

    for name in batch.schema.names:
        one = batch.select([name])
        try:
            alone = pgpq.ArrowToPostgresBinaryEncoder(one.schema)
            alone.write_header()
            alone.write_batch(one)
        except ValueError as error:
            reason = re.search(r'reason: "([^"]*)"', str(error))
            text = f"column `{name}` holds a value that is out of range: {reason[1] if reason else error}"
            return RowsRefused(text, column=name)
    return RowsRefused("a value is out of range")


def _with_builders(fields: pa.Schema, builders: Mapping[str, Any]) -> Any:
    """An encoder that takes those builders for some columns and its own for the rest."""
    import pgpq
    from pgpq import encoders

    chosen = {field.name: builders.get(field.name) or _builder(encoders, field) for field in fields}
    return pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(fields, chosen)


def _builder(encoders: Any, field: pa.Field) -> Any:
    kind = field.type
    if types.is_list(kind):
        return encoders.ListEncoderBuilder.new_with_inner(field, _builder(encoders, kind.value_field))
    names = {
        pa.bool_(): "Boolean",
        pa.int16(): "Int16",
        pa.int32(): "Int32",
        pa.int64(): "Int64",
        pa.float32(): "Float32",
        pa.float64(): "Float64",
        pa.utf8(): "String",
        pa.string_view(): "StringView",
        pa.binary(): "Binary",
        pa.binary(16): "FixedSizeBinary",
        pa.date32(): "Date32",
        pa.time64("us"): "Time64Microsecond",
        pa.timestamp("us"): "TimestampMicrosecond",
    }
    name = "Decimal128" if pa.types.is_decimal128(kind) else names[kind]
    return getattr(encoders, f"{name}EncoderBuilder")(field)


def _merge(table: Table, wires: Sequence[types.Wire]) -> str:
    """From the temporary table into the real one: casts, the last of equal keys, and replacing what is there."""
    expressions = ", ".join(
        f"{quote(column.name)}::{types.type_name(column.type)}" if wire.casts else quote(column.name)
        for column, wire in zip(table.columns, wires, strict=True)
    )
    names = DIALECT.columns(table.column_names)
    into = f"insert into {DIALECT.table(table.name)} ({names})"
    if not table.primary_keys:
        return f"{into} select {expressions} from _catchment_rows order by _catchment_order"
    keys = DIALECT.columns(table.primary_keys)
    last = f"select distinct on ({keys}) * from _catchment_rows order by {keys}, _catchment_order desc"
    others = [name for name in table.column_names if name not in table.primary_keys]
    updates = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in others)
    action = f"do update set {updates}" if others else "do nothing"
    return f"{into} select {expressions} from ({last}) as last_rows on conflict ({keys}) {action}"


def _restored(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return restore(array, kind)
