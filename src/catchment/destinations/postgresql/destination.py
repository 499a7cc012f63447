"""The PostgreSQL destination: migrate, write, delete and read; publishing is in `publish.py`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from catchment.destinations.postgresql import migrate, publish, types
from catchment.destinations.postgresql.catalogue import describe, left_out
from catchment.destinations.postgresql.connection import Connections, execute, explained
from catchment.destinations.postgresql.embeddings import Embeddings
from catchment.destinations.postgresql.kin import kin_of
from catchment.destinations.postgresql.login import LAKEBASE_LIFETIME_S, password_of
from catchment.destinations.postgresql.long_keys import long_keys
from catchment.destinations.postgresql.plain import Plain
from catchment.destinations.postgresql.spec import PostgreSQLSpec
from catchment.destinations.postgresql.staging import Staging
from catchment.destinations.postgresql.types import DIALECT, quote
from catchment.sdk import (
    BatchSize,
    Capabilities,
    DeleteRecord,
    Destination,
    Measure,
    PluginError,
    Published,
    RowsRefused,
    Swap,
    Table,
    TablePreview,
    Transient,
    json,
    sql,
)
from catchment.sdk.adopted import read_back, written
from catchment.sdk.measures import measured
from catchment.sdk.staging import CQ_SOURCE_NAME, CQ_SYNC_TIME, is_staging
from catchment.sdk.storage import converted, restore

COPY_ROWS = 8_192
"""Rows that are encoded at once: small enough that the server never waits for the encoder."""


class PostgreSQL(Destination[PostgreSQLSpec]):
    """Writes with binary COPY, merges set-wise, publishes by renaming freshly built tables."""

    name = "postgresql"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique", "move_pk_to_cq_id"}),
        kept_when_forced=migrate.ALTERED,
        delete_records=True,
        publish="sync",
        rejects=True,
        measures=True,
        max_identifier_bytes=types.MAX_NAME_BYTES,
        writers=2,
        parallel_appends=True,
        batch=BatchSize(rows=0, size_bytes=48 << 20, timeout_s=60.0),
        stored_as=types.stored_as,
    )

    def __init__(self, spec: PostgreSQLSpec) -> None:
        super().__init__(spec)
        lifetime_s = LAKEBASE_LIFETIME_S if spec.lakebase is not None else 0
        self._connections = Connections(spec.connection_string.reveal(), password_of(spec), lifetime_s)
        self._staging = Staging(self._connections)
        self._embeddings = Embeddings(spec.pgvector_config) if spec.pgvector_config is not None else None
        self._publisher = publish.Publisher(
            self._connections,
            self._staging,
            self.capabilities,
            indexes=spec.create_performance_indexes,
            embeddings=self._embeddings,
        )
        self._staged: dict[str, str] = {}
        """Name of a staged table → the live one's, where its rows get embeddings."""
        self._finals: dict[str, Table] = {}
        """Name of a staged table → what it has columns for, where upstream's plugin may have made some of them."""
        self._final: dict[str, Table] = {}
        """Name of a staged table → the live one, where that has a key."""
        self._plain: Plain | None = None
        """Does all of the writing where the server is not PostgreSQL itself."""

    def open(self) -> None:
        """Connect, and find out what the server is: one of PostgreSQL's kin can do less."""
        with self._connections.lent():
            kin = kin_of(self._connections.version)
        if kin is None:
            return
        if self._embeddings is not None:
            raise PluginError(f"`pgvector_config` needs PostgreSQL, and the server is {kin.name}")
        self.capabilities = kin.capabilities(self.capabilities)
        self._plain = Plain(self._connections, kin, self.capabilities)

    def close(self) -> None:
        """Close every connection."""
        self._staging.close()
        self._connections.close()

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create or alter in one transaction; with `force` the table is made anew where its rows do not fit."""
        import psycopg

        types.check(table)
        if self._plain is not None:
            self._plain.migrate(table, force=force)
            return
        with self._connections.transaction() as connection:
            have, found, reason = migrate.plan(connection, table, self.capabilities, force=force)
            try:
                migrate.carry_out(connection, have, table, found, reason)
                if self._embeddings is not None and self._embeddings.of(table.name) is not None:
                    self._embeddings.prepare(connection, table)
                if self.spec.create_performance_indexes and CQ_SOURCE_NAME in table and CQ_SYNC_TIME in table:
                    index = quote(publish.performance_index(table.name))
                    columns = DIALECT.columns([CQ_SOURCE_NAME, CQ_SYNC_TIME])
                    connection.execute(f"create index if not exists {index} on {DIALECT.table(table.name)} ({columns})")
            except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateColumn) as error:
                raise Transient(f"another sync changed the table at the same moment: {explained(error)}") from error
            except psycopg.errors.DuplicateObject as error:
                # The table's row type was there: by another sync's table, or somebody's own type of that name.
                with self._connections.transaction() as other:
                    if describe(other, table.name) is None:
                        raise
                raise Transient(f"another sync made the table at the same moment: {explained(error)}") from error

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Asks the catalogue, in a transaction that may not write."""
        if self._plain is not None:
            return self._plain.preview(tables, force=force)
        with self._connections.transaction() as connection:
            connection.execute("set transaction read only")
            return [migrate.preview(connection, table, self.capabilities, force=force) for table in tables]

    def write(self, table: Table, rows: pa.Table) -> None:
        """COPY in one transaction; with keys through a temporary table, from which the last of equal rows goes in."""
        if self._plain is not None:
            self._plain.write(table, rows)
            return
        staged = is_staging(table.name)
        with self._connections.transaction() as connection:
            if staged:
                # Nobody sees a staged table: its rows have to be durable only when it is published.
                connection.execute("set local synchronous_commit = off")
            self._write(connection, table, rows)
            if self._embeddings is not None:
                self._embed(self._embeddings, connection, table, rows)
        if staged:
            self._staging.count(table, rows.num_rows)

    def _embed(self, embeddings: Embeddings, connection: Any, table: Table, rows: pa.Table) -> None:
        """Have embeddings made of rows that were taken, and keep them with the rows."""
        wanted = embeddings.of(self._staged.get(table.name, table.name))
        if wanted is None:
            return
        pieces = embeddings.pieces(wanted, rows)
        into = publish.pieces_of(table) if is_staging(table.name) else "_catchment_pieces"
        if not is_staging(table.name):
            embeddings.create(connection, into, temporary=True)
        embeddings.write(connection, into, rows, pieces)
        if not is_staging(table.name):
            embeddings.publish(connection, table, into)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Write in a transaction that is rolled back."""
        if self._plain is not None:
            self._plain.probe(table, rows)
            return
        with contextlib.suppress(_TakenBack), self._connections.transaction() as connection:
            self._write(connection, table, rows)
            raise _TakenBack

    def _write(self, connection: Any, table: Table, rows: pa.Table) -> None:
        import psycopg

        if sql.may_be_adopted(DIALECT, table):
            have = self._finals.get(table.name) or describe(connection, table.name)
            table = sql.adopted(DIALECT, have, table)
            rows = written(rows, table)
        wires = [types.wire(column.type) for column in table.columns]
        self._check_keys(connection, table, rows)
        if not table.primary_keys and not any(wire.casts for wire in wires):
            _copy(connection, DIALECT.table(table.name), table, rows)
            return
        columns = ", ".join(
            f"{quote(column.name)} {wire.type}" for column, wire in zip(table.columns, wires, strict=True)
        )
        connection.execute(f"create temporary table _catchment_rows ({columns}) on commit drop")
        _copy(connection, "_catchment_rows", table, rows)
        gone = left_out(connection, table.name, table.column_names) if table.primary_keys else ()
        try:
            connection.execute(_merge(table, wires, gone))
        except psycopg.DataError as error:
            raise _not_cast(table, rows, wires, explained(error)) from error

    def _check_keys(self, connection: Any, table: Table, rows: pa.Table) -> None:
        """Have rows refused whose keys would keep the key of a staged table from being built at the end."""
        final = self._final.get(table.name)
        found = long_keys(final, rows) if final is not None else None
        if found is None:
            return
        keys, chosen = found
        columns = ", ".join(f"{quote(column.name)} {types.wire(column.type).type}" for column in keys.columns)
        connection.execute(f"create temporary table _catchment_keys ({columns}) on commit drop")
        _copy(connection, "_catchment_keys", keys, chosen)
        connection.execute(f"create index on _catchment_keys ({DIALECT.columns(keys.column_names)})")

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        if self._plain is not None:
            return self._plain.delete_stale(table, source_name=source_name, sync_time=sync_time, clients=clients)
        statement, values = sql.delete_stale(
            DIALECT,
            table,
            source_name=source_name,
            sync_time=sync_time.astimezone(UTC).replace(tzinfo=None),
            clients=clients,
        )
        with self._connections.transaction() as connection:
            deleted = int(execute(connection, statement, values).rowcount)
            self._clean(connection, table.name)
            return deleted

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        if self._plain is not None:
            self._plain.delete_records(message)
            return
        with self._connections.transaction() as connection:
            for statement, values in sql.delete_records(DIALECT, message):
                execute(connection, statement, values)
            for name in (message.table_name, *(relation.table_name for relation in message.relations)):
                self._clean(connection, name)

    def _clean(self, connection: Any, name: str) -> None:
        """Delete the embeddings of rows that are gone."""
        if self._embeddings is not None and self._embeddings.of(name) is not None:
            self._embeddings.clean(connection, name)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """A stream of batches through ADBC."""
        import adbc_driver_postgresql.dbapi as adbc

        if self._plain is not None:
            yield from self._plain.read(table)
            return
        with self._connections.transaction() as connection:
            have = describe(connection, table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        adopted = sql.adopted(DIALECT, have, table)
        expressions = [
            types.select_expression(column, have.column(column.name))
            if column.name in have
            else f"null::text as {quote(column.name)}"
            for column in adopted.columns
        ]
        query = f"select {', '.join(expressions)} from {DIALECT.table(table.name)}"
        kinds = [types.stored_as(column.type) for column in table.columns]
        with adbc.connect(self._connections.settings()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                arrays = [
                    _restored(array, kind)
                    if there.type.equals(column.type)
                    else read_back(array, there.type, column.type, kind)
                    for array, kind, there, column in zip(
                        batch.columns, kinds, adopted.columns, table.columns, strict=True
                    )
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A query each, all in one transaction."""
        with self._connections.transaction() as connection:

            def ask(statement: str, values: Sequence[Any]) -> Any:
                return execute(connection, statement, values).fetchone()[0]

            return measured(DIALECT, table, measures, keys=keys, source_name=source_name, ask=ask)

    def stored_table(self, name: str) -> Table | None:
        """With the types of the catalogue; those that only PostgreSQL has are read as text."""
        if self._plain is not None:
            have = self._plain.describe(name)
        else:
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
        with self._connections.lent() as connection:
            return [name for (name,) in connection.execute(query).fetchall()]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table in a schema of its own, with the columns that the live one will have."""
        types.check(table)
        if table.primary_keys:
            self._final[staged.name] = table
        self._staging.begin(staged)
        with self._connections.transaction() as connection:
            connection.execute("set local synchronous_commit = off")
            _, found, _ = migrate.plan(connection, table, self.capabilities, force=force)
            self._staging.create(connection, found.table, staged, forced=force)
            self._finals[staged.name] = found.table
            if self._embeddings is not None and self._embeddings.of(table.name) is not None:
                self._embeddings.prepare(connection, table)
                self._embeddings.create(connection, publish.pieces_of(staged))
                self._staged[staged.name] = table.name

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Build the keys, then rename or merge everything in one transaction."""
        return self._publisher.publish(swaps)

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        self._staging.discard(staged)

    def test_connection(self) -> None:
        """Connect and ask for the version."""
        try:
            with self._connections.lent() as connection:
                connection.execute("select version()")
        finally:
            self._connections.close()


class _TakenBack(Exception):
    """Raised to have a transaction rolled back."""


def _copy(connection: Any, target: str, table: Table, rows: pa.Table) -> None:
    """COPY rows into `target` in their order."""
    import pgpq
    from pgpq import encoders, schema

    columns = [
        pa.chunked_array([converted(name, chunk, types.to_wire) for chunk in column.chunks])
        for column, name in zip(rows.columns, table.column_names, strict=True)
    ]
    wired = pa.Table.from_arrays(columns, names=list(table.column_names))
    builders = {
        column.name: encoders.StringEncoderBuilder.new_with_output(wired.schema.field(column.name), schema.Jsonb())
        for column in table.columns
        if column.type.equals(json())
    }
    fresh = pgpq.ArrowToPostgresBinaryEncoder(wired.schema)
    encoder = fresh if not builders else _with_builders(wired.schema, builders)
    statement = f"copy {target} ({DIALECT.columns(table.column_names)}) from stdin (format binary)"
    with connection.cursor().copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in wired.to_batches():
            for start in range(0, batch.num_rows, COPY_ROWS):
                piece = batch.slice(start, COPY_ROWS)
                try:
                    encoded = encoder.write_batch(piece)
                except ValueError as error:
                    raise _misfit(piece) from error
                copy.write(encoded)
        copy.write(encoder.finish())


def _not_cast(table: Table, rows: pa.Table, wires: Sequence[types.Wire], error: PluginError) -> PluginError:
    """`error` with the column whose text could not be cast, which PostgreSQL does not tell: the one that holds it."""
    found = _CAST.search(str(error.args[0]))
    if found is None or not isinstance(error, RowsRefused):
        return error
    for column, wire in zip(table.columns, wires, strict=True):
        if wire.casts and found[1] in types.type_name(column.type):
            texts = pa.chunked_array([types.to_wire(chunk) for chunk in rows.column(column.name).chunks]).to_pylist()
            if any(found[2] in (text if isinstance(text, list) else (text,)) for text in texts):
                return RowsRefused(error.args[0], hint=error.hint, column=column.name)
    return error


_CAST = re.compile(r'for type (\w+): "(.*)" \(SQLSTATE', re.DOTALL)


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


def _merge(table: Table, wires: Sequence[types.Wire], gone: Sequence[str]) -> str:
    """From the temporary table into the real one: casts, the last of equal keys, and replacing what is there.

    A row that is replaced is a new one, so columns that are `gone` from the source get what a new row has in them.
    """
    expressions = ", ".join(
        f"{quote(column.name)}::{types.type_name(column.type)}" if wire.casts else quote(column.name)
        for column, wire in zip(table.columns, wires, strict=True)
    )
    names = DIALECT.columns(table.column_names)
    into = f"insert into {DIALECT.table(table.name)} ({names})"
    if not table.primary_keys:
        return f"{into} select {expressions} from _catchment_rows"
    keys = DIALECT.columns(table.primary_keys)
    # COPY puts rows in the order they came.
    last = f"select distinct on ({keys}) * from _catchment_rows order by {keys}, ctid desc"
    others = [name for name in table.column_names if name not in table.primary_keys]
    updates = [f"{quote(name)} = excluded.{quote(name)}" for name in others]
    updates += [f"{quote(name)} = default" for name in gone]
    action = f"do update set {', '.join(updates)}" if updates else "do nothing"
    return f"{into} select {expressions} from ({last}) as last_rows on conflict ({keys}) {action}"


def _restored(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return restore(array, kind)
