"""sqlite: an embedded database in one file that everything can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    Column,
    DeleteRecord,
    Destination,
    PluginError,
    Table,
    sql,
)
from catchment.sdk.json_text import to_text
from catchment.sdk.sqlite import Connection, quote
from catchment.sdk.storage import restore


class SQLiteSpec(BatchSpec):
    """Spec of the sqlite destination."""

    connection_string: str
    """Path of the database file."""


class SQLite(Destination[SQLiteSpec]):
    """Binds Arrow columns to one prepared statement a batch, in one transaction."""

    name = "sqlite"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}),
        delete_records=True,
        batch=BatchSize(rows=0, size_bytes=32 << 20, timeout_s=60.0),
        stored_as=lambda data_type: stored_as(data_type),
    )

    def __init__(self, spec: SQLiteSpec) -> None:
        super().__init__(spec)
        self._connection: Connection | None = None

    def open(self) -> None:
        """Open the file, and make it if it is missing."""
        path = Path(self.spec.connection_string.removeprefix("file:").partition("?")[0])
        if self.spec.connection_string != ":memory:" and not path.absolute().parent.is_dir():
            raise PluginError(f"folder {str(path.parent)!r} of the database does not exist", hint="make it first")
        self._connection = Connection(self.spec.connection_string)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force` and makes the table anew."""
        with self._opened.transaction():
            found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
            if found.action == "recreate":
                self._opened.run(sql.drop_table(DIALECT, table.name))
            if found.action in ("create", "recreate"):
                self._opened.run(sql.create_table(DIALECT, table, constraint=f"{table.name}_cqpk"))
            for change in found.changes if found.action == "alter" else ():
                if change.kind == "add_column" and change.current is not None:
                    self._opened.run(sql.add_column(DIALECT, table, change.current))

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert or replace the rows in one transaction."""
        verb = "insert or replace" if table.primary_keys else "insert"
        marks = ", ".join("?" * len(table.columns))
        statement = f"{verb} into {DIALECT.table(table.name)} ({DIALECT.columns(table.column_names)}) values ({marks})"
        arrays = [
            pa.chunked_array([_bound(chunk, column) for chunk in array.chunks])
            for array, column in zip(rows.columns, table.columns, strict=True)
        ]
        for key in table.primary_keys:
            # SQLite would make a number up for a key that is null.
            if rows.column(key).null_count:
                raise PluginError(f"key column `{key}` of table `{table.name}` is null in a row")
        with self._opened.transaction():
            self._opened.run_for_each(statement, pa.Table.from_arrays(arrays, names=list(table.column_names)))

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond: the texts of equal form compare as the times do."""
        statement, (source, moment, *rest) = sql.delete_stale(
            DIALECT, table, source_name=source_name, sync_time=sync_time, clients=clients
        )
        with self._opened.transaction():
            self._opened.run(statement, (source, _moment(moment), *rest))
            return int(self._opened.run("select changes()")[0][0])

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._opened.transaction():
            for statement, values in sql.delete_records(DIALECT, message):
                self._opened.run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """A stream of batches."""
        have = self._describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        columns = [(column.name, _kept_as(column.type)) for column in table.columns]
        expressions = [quote(column.name) if column.name in have else "null" for column in table.columns]
        for batch in self._opened.select(table.name, columns, expressions=expressions):
            arrays = [_restored(array, column) for array, column in zip(batch.columns, table.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    @property
    def _opened(self) -> Connection:
        assert self._connection is not None, "open() comes first"
        return self._connection

    def _describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        rows = self._opened.run('select name, type, "notnull", pk from pragma_table_info(?)', (name,))
        columns = [
            Column(str(column), _arrow_type(str(kind)), primary_key=bool(key), not_null=bool(strict or key))
            for column, kind, strict, key in rows
        ]
        return Table(name, tuple(columns)) if columns else None


def _kept_as(data_type: pa.DataType) -> pa.DataType:
    """What SQLite itself keeps: int64, float64, utf8 or binary."""
    if pa.types.is_boolean(data_type) or (pa.types.is_integer(data_type) and not data_type.equals(pa.uint64())):
        return pa.int64()
    if pa.types.is_floating(data_type):
        return pa.float64()
    if _is_binary(data_type):
        return pa.binary()
    return pa.utf8()


def _is_binary(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type) or pa.types.is_fixed_size_binary(data_type)
    )


def stored_as(data_type: pa.DataType) -> pa.DataType:
    """What comes back: exact but for durations, intervals and anything nested, which are text."""
    if pa.types.is_nested(data_type) and not isinstance(data_type, pa.BaseExtensionType):
        return pa.utf8()
    if (
        pa.types.is_duration(data_type)
        or pa.types.is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
    ):
        return pa.utf8()
    return data_type


def _bound(array: pa.Array, column: Column) -> pa.Array:
    """Values as the driver binds them."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _timestamp_text(array)
    kept = _kept_as(kind)
    if kept.equals(pa.utf8()):
        return to_text(array)
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(array)).as_py():
        raise PluginError(
            f"column `{column.name}` holds NaN, which SQLite would turn into null",
            hint="make it null or a number before it is written",
        )
    return array.cast(kept)


def _timestamp_text(array: pa.Array) -> pa.Array:
    """`2024-01-02 03:04:05.678901Z`, with as many digits as the unit has."""
    naive = array.cast(pa.timestamp(array.type.unit)) if array.type.tz else array
    return pc.binary_join_element_wise(naive.cast(pa.utf8()), "Z", "")


def _restored(array: pa.Array, column: Column) -> pa.Array:
    """Values of `_kept_as` as `stored_as` declares them."""
    want = stored_as(column.type)
    if pa.types.is_timestamp(want):
        naive = pc.replace_substring(array, "Z", "").cast(pa.timestamp(want.unit))
        return restore(naive, want)
    return restore(array, want)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")


def _parameter(scalar: pa.Scalar) -> Any:
    """A predicate's value in the form that its column has."""
    return _bound(pa.repeat(scalar, 1), Column("predicate", scalar.type))[0].as_py()


def _type_name(data_type: pa.DataType) -> str:
    """The declared type, the same that upstream's plugin makes, but for uint64."""
    if pa.types.is_boolean(data_type):
        return "boolean"
    if pa.types.is_timestamp(data_type):
        return "timestamp"
    kept = _kept_as(data_type)
    return {pa.int64(): "integer", pa.float64(): "real"}.get(kept, "text")


def _arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a declared type; foreign ones are kept by name."""
    known = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "real": pa.float64(),
        "text": pa.utf8(),
        "timestamp": pa.timestamp("us"),
    }
    return known.get(name.lower(), sql.Opaque(name))


DIALECT = sql.Dialect(type_name=_type_name, arrow_type=_arrow_type, inline_unique=False, to_parameter=_parameter)
