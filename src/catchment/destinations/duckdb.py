"""duckdb: an embedded analytical database in one file."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment.sdk import (
    BatchSize,
    BatchSpec,
    Capabilities,
    Column,
    DeleteRecord,
    Destination,
    PluginError,
    Published,
    Swap,
    Table,
    inet,
    json,
    mac,
    sql,
    uuid,
)
from catchment.sdk.json_text import to_text
from catchment.sdk.staging import CQ_SOURCE_NAME, STAGING_PREFIX, staging_run
from catchment.sdk.storage import map_array, map_type, numbered, restore

log = logging.getLogger("catchment.duckdb")


class DuckDBSpec(BatchSpec):
    """Spec of the duckdb destination."""

    connection_string: str
    """Path of the database file, `:memory:`, or `md:` and the name of a MotherDuck database."""
    debug: bool = False
    """Whether every statement is logged."""


class DuckDB(Destination[DuckDBSpec]):
    """Writes Arrow straight into DuckDB; keys are built after the rows are in."""

    name = "duckdb"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}),
        delete_records=True,
        publish="sync",
        # Row groups are 122,880 rows; whole ones go to the file as they come, the rest through the log.
        batch=BatchSize(rows=122_880 * 8, size_bytes=96 << 20, timeout_s=0),
        stored_as=lambda data_type: map_type(data_type, _stored_leaf),
    )

    def __init__(self, spec: DuckDBSpec) -> None:
        super().__init__(spec)
        self._connection: Any = None
        self._cleared = False
        self._ordered: set[str] = set()
        """Staged tables whose rows have to stay in their order, as the last of equal keys is published."""

    def open(self) -> None:
        """Open the file, and make it if it is missing."""
        try:
            import duckdb
        except ImportError as error:
            raise PluginError("the duckdb driver is not installed", hint="pip install 'catchment[duckdb]'") from error
        path = self.spec.connection_string.partition("?")[0]
        if path not in ("", ":memory:") and not path.startswith("md:") and not Path(path).absolute().parent.is_dir():
            raise PluginError(f"folder {str(Path(path).parent)!r} of the database does not exist", hint="make it first")
        try:
            self._connection = duckdb.connect(path or ":memory:", config=_options(self.spec.connection_string))
            self._run("set arrow_lossless_conversion = true")
            self._run("set timezone = 'UTC'")
        except duckdb.Error as error:
            raise PluginError(f"database {path!r} cannot be opened: {error}") from error

    def close(self) -> None:
        """Write the log into the file and close it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table, or add its new columns; anything else needs `force` and makes the table anew."""
        found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        with self._transaction():
            if found.action == "recreate":
                self._run(sql.drop_table(DIALECT, table.name))
            if found.action in ("create", "recreate"):
                self._run(sql.create_table(DIALECT, table))
            for change in found.changes if found.action == "alter" else ():
                if change.kind == "add_column" and change.current is not None:
                    self._run(sql.add_column(DIALECT, table, change.current))

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert the rows in one transaction; with keys, the rows of equal keys go first."""
        stored = _stored(rows, table)
        # Rows that need not stay in their order are inserted by every core.
        self._run(f"set preserve_insertion_order = {str(table.name in self._ordered).lower()}")
        names = DIALECT.columns(table.column_names)
        live = DIALECT.table(table.name)
        # A table would go through pyarrow's scanner; a reader is read once and as it is.
        once = stored if table.primary_keys else stored.to_reader()
        with self._transaction(), self._registered(once) as view:
            if not table.primary_keys:
                self._run(f"insert into {live} ({names}) select {names} from {view}")
                return
            keys = DIALECT.columns(table.primary_keys)
            self._run(f"delete from {live} where ({keys}) in (select {keys} from {view})")
            self._run(
                f"insert into {live} ({names}) select {names} from {view} "
                f"qualify row_number() over (partition by {keys} order by {_ORDER} desc) = 1"
            )

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        statement, values = sql.delete_stale(
            DIALECT, table, source_name=source_name, sync_time=_naive(sync_time), clients=clients
        )
        with self._transaction():
            return int(self._run(statement, values).fetchone()[0])

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows and their descendants in one transaction."""
        with self._transaction():
            for statement, values in sql.delete_records(DIALECT, message):
                self._run(statement, values)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Batches of at most 100,000 rows."""
        have = self._describe(table.name)
        if have is None:
            raise PluginError(f"table `{table.name}` does not exist")
        columns = [
            DIALECT.quote(column.name) if column.name in have else f"null as {DIALECT.quote(column.name)}"
            for column in table.columns
        ]
        cursor = self._connection.cursor()
        rows = cursor.sql(f"select {', '.join(columns)} from {DIALECT.table(table.name)}")
        for batch in rows.to_arrow_reader(100_000):
            arrays = [
                restore(array, self.capabilities.stored_as(column.type))
                for array, column in zip(batch.columns, table.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table beside the live one, with the columns that the live one will have."""
        found = sql.migration(DIALECT, self._describe(table.name), table, self.capabilities, force=force)
        if not self._cleared:
            self._clear(staging_run(staged.name))
        final = found.table.without_keys().renamed(staged.name)
        nullable = [column if column.name in table else _nullable(column) for column in final.columns]
        if table.primary_keys:
            self._ordered.add(staged.name)
        with self._transaction():
            self._run(sql.create_table(DIALECT, final.with_columns(nullable)))

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Complete every staged table, give it its key, and rename it to the live one, in one transaction."""
        with self._transaction():
            return {swap.table.name: self._publish(swap) for swap in swaps}

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        with self._transaction():
            for table in staged:
                self._run(sql.drop_table(DIALECT, table.name))

    def _publish(self, swap: Swap) -> Published:
        keys, staged = swap.table.primary_keys, DIALECT.table(swap.staged.name)
        have = self._describe(swap.table.name)
        done = Published(0, 0)
        if keys:
            self._keep_last(swap)
        if have is not None:
            done = self._keep_live_rows(swap, have)
        if keys:
            self._run(f"alter table {staged} add primary key ({DIALECT.columns(keys)})")
        self._run(sql.drop_table(DIALECT, swap.table.name))
        self._run(f"alter table {staged} rename to {DIALECT.quote(swap.table.name)}")
        return done

    def _keep_last(self, swap: Swap) -> None:
        """Of rows with equal keys keep the one that came last; row ids follow the order of insertion."""
        staged, quoted = DIALECT.table(swap.staged.name), DIALECT.columns(swap.table.primary_keys)
        total, unique = self._run(
            f"select (select count(*) from {staged}), (select count(*) from (select distinct {quoted} from {staged}))"
        ).fetchone()
        if total > unique:
            # A copy, not a delete: a key cannot be built over rows that were deleted in the same transaction.
            copy = f"{swap.staged.name}.unique"
            there = self._describe(swap.staged.name)
            if there is not None:
                self._run(sql.create_table(DIALECT, there.renamed(copy)))
            self._run(
                f"insert into {DIALECT.table(copy)} select * from {staged} "
                f"qualify row_number() over (partition by {quoted} order by rowid desc) = 1"
            )
            self._run(sql.drop_table(DIALECT, swap.staged.name))
            self._run(f"alter table {DIALECT.table(copy)} rename to {DIALECT.quote(swap.staged.name)}")

    def _keep_live_rows(self, swap: Swap, have: Table) -> Published:
        """Copy the live rows that stay into the staged table; how many of this source's went and stayed."""
        live, staged = DIALECT.table(swap.table.name), DIALECT.table(swap.staged.name)
        there = self._describe(swap.staged.name)
        shared = [name for name in have.column_names if there is not None and name in there]
        own = f"{DIALECT.quote(CQ_SOURCE_NAME)} is not distinct from ?" if CQ_SOURCE_NAME in have else "? is null"
        keys = [key for key in swap.table.primary_keys if key in have]
        absent = "true"
        if keys and len(keys) == len(swap.table.primary_keys):
            quoted = DIALECT.columns(keys)
            absent = f"({quoted}) not in (select {quoted} from {staged})"
        elif keys:
            absent = "false"
        count = self._run(f"select count(*) from {live} where {own} and {absent}", (swap.source_name,)).fetchone()[0]
        kept = absent if swap.keep == "all" else f"not ({own}) and {absent}"
        values = () if swap.keep == "all" else (swap.source_name,)
        names = DIALECT.columns(shared)
        self._run(f"insert into {staged} ({names}) select {names} from {live} where {kept}", values)
        return Published(0, count) if swap.keep == "all" else Published(count, 0)

    def _clear(self, run: str) -> None:
        """Drop what runs that were killed left; nobody else can have the file open."""
        rows = self._run(
            "select table_name from duckdb_tables() "
            "where schema_name = current_schema() and starts_with(table_name, ?)",
            (STAGING_PREFIX,),
        ).fetchall()
        for (name,) in rows:
            if staging_run(name) != run:
                self._run(sql.drop_table(DIALECT, name))
        self._cleared = True

    def _describe(self, name: str) -> Table | None:
        """The table as the catalogue has it; None if it is missing."""
        # The catalogue's views list every column of the database at each call; this function looks at one table.
        if not self._exists(name):
            return None
        rows = self._run(f'select name, type, "notnull", pk from pragma_table_info({_literal(DIALECT.quote(name))})')
        return Table(
            name,
            tuple(
                Column(column, _arrow_type(kind), primary_key=key, not_null=strict)
                for column, kind, strict, key in rows.fetchall()
            ),
        )

    def _exists(self, name: str) -> bool:
        """Whether there is a table of this name."""
        import duckdb

        try:
            self._connection.table(DIALECT.quote(name))
        except duckdb.CatalogException:
            return False
        except duckdb.Error as error:
            raise PluginError(f"{type(error).__name__}: {error}") from error
        return True

    def _run(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute a statement; what DuckDB says of a failure becomes a `PluginError`."""
        import duckdb

        if self.spec.debug:
            log.info("%s %s", statement, values)
        try:
            return self._connection.execute(statement, list(values))
        except duckdb.Error as error:
            raise PluginError(f"{type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("begin")
        try:
            yield
        except BaseException:
            with contextlib.suppress(PluginError):
                self._run("rollback")
            raise
        self._run("commit")

    @contextlib.contextmanager
    def _registered(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[str]:
        self._connection.register("_catchment_rows", rows)
        try:
            yield '"_catchment_rows"'
        finally:
            self._connection.unregister("_catchment_rows")


_ORDER = '"_catchment_order"'


def _stored(rows: pa.Table, table: Table) -> pa.Table:
    """Rows as DuckDB takes them; with keys, a number that tells which of equal ones came last."""
    columns = [pa.chunked_array([map_array(chunk, _to_leaf) for chunk in column.chunks]) for column in rows.columns]
    names = list(table.column_names)
    if table.primary_keys:
        columns.append(pa.chunked_array([numbered(rows.num_rows)]))
        names.append("_catchment_order")
    return pa.Table.from_arrays(columns, names=names)


def _literal(text: str) -> str:
    """`text` as an SQL string, where a function takes no bound value."""
    return "'" + text.replace("'", "''") + "'"


def _nullable(column: Column) -> Column:
    return Column(column.name, column.type)


def _naive(moment: datetime) -> datetime:
    """UTC without a zone, as timestamps are stored."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _options(connection_string: str) -> dict[str, Any]:
    """`a=b` pairs behind the `?` of a connection string."""
    pairs = (pair.partition("=") for pair in connection_string.partition("?")[2].split("&") if pair)
    return {key: value for key, _, value in pairs}


def _is_text(data_type: pa.DataType) -> bool:
    """Whether values are stored as text though they are none."""
    return bool(
        pa.types.is_duration(data_type)
        or pa.types.is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
        or (pa.types.is_decimal256(data_type) and data_type.precision > 38)
    )


def _stored_leaf(data_type: pa.DataType) -> pa.DataType:
    """The type that comes back: exact but for durations and intervals, which are text."""
    return pa.utf8() if _is_text(data_type) else data_type


def _to_leaf(array: pa.Array) -> pa.Array:
    """Values as DuckDB's Arrow reader takes them without changing them."""
    kind = array.type
    if kind.equals(uuid()):
        return pa.ExtensionArray.from_storage(pa.uuid(), array.storage)
    if kind.equals(inet()) or kind.equals(mac()) or kind.equals(json()) or _is_text(kind):
        return to_text(array)
    if pa.types.is_timestamp(kind) and kind.tz:
        return array.cast(pa.timestamp(kind.unit))
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal256(kind):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    return array


_TYPES: Sequence[tuple[pa.DataType, str]] = (
    (pa.bool_(), "BOOLEAN"),
    (pa.int8(), "TINYINT"),
    (pa.int16(), "SMALLINT"),
    (pa.int32(), "INTEGER"),
    (pa.int64(), "BIGINT"),
    (pa.uint8(), "UTINYINT"),
    (pa.uint16(), "USMALLINT"),
    (pa.uint32(), "UINTEGER"),
    (pa.uint64(), "UBIGINT"),
    (pa.float32(), "FLOAT"),
    (pa.float64(), "DOUBLE"),
    (pa.utf8(), "VARCHAR"),
    (pa.binary(), "BLOB"),
    (pa.date32(), "DATE"),
    (pa.time64("us"), "TIME"),
    (pa.time64("ns"), "TIME_NS"),
    (pa.timestamp("us"), "TIMESTAMP"),
    (pa.timestamp("ns"), "TIMESTAMP_NS"),
    (uuid(), "UUID"),
    (json(), "JSON"),
)
"""Arrow types and the DuckDB types that show them again."""
_NAMES = dict(_TYPES)
_BACK = {name: data_type for data_type, name in _TYPES}


def _type_name(data_type: pa.DataType) -> str:
    """The DuckDB type for an Arrow type."""
    if data_type in _NAMES:
        return str(_NAMES[data_type])
    if (
        _is_text(data_type)
        or data_type.equals(inet())
        or data_type.equals(mac())
        or pa.types.is_large_string(data_type)
    ):
        return "VARCHAR"
    if pa.types.is_map(data_type):
        return f"MAP({_type_name(data_type.key_type)}, {_type_name(data_type.item_type)})"
    if pa.types.is_struct(data_type):
        fields = ", ".join(f"{DIALECT.quote(field.name)} {_type_name(field.type)}" for field in data_type)
        return f"STRUCT({fields})"
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type):
        return f"{_type_name(data_type.value_type)}[]"
    if pa.types.is_decimal(data_type):
        return f"DECIMAL({data_type.precision},{max(data_type.scale, 0)})"
    if pa.types.is_timestamp(data_type):
        return "TIMESTAMP_NS" if data_type.unit == "ns" else "TIMESTAMP"
    if pa.types.is_date(data_type):
        return "DATE"
    if pa.types.is_time(data_type):
        return "TIME"
    if pa.types.is_float16(data_type):
        return "FLOAT"
    return "BLOB" if pa.types.is_large_binary(data_type) or pa.types.is_fixed_size_binary(data_type) else "VARCHAR"


def _arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a DuckDB type as the catalogue names it; nested and foreign types are kept by name."""
    decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", name)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _BACK[name] if name in _BACK else sql.Opaque(re.sub(r'"(\w+)"', r"\1", name))


DIALECT = sql.Dialect(type_name=_type_name, arrow_type=_arrow_type, inline_unique=False)
