"""The ClickHouse destination: migrate, write, delete and read; publishing is in `publish.py`."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from catchment.destinations.clickhouse import catalogue, types
from catchment.destinations.clickhouse.catalogue import Definitions
from catchment.destinations.clickhouse.connection import Connection, Unknown
from catchment.destinations.clickhouse.migrate import COPIED, Migrator
from catchment.destinations.clickhouse.publish import LATEST_FIRST, Publisher, absent, unique
from catchment.destinations.clickhouse.spec import ClickHouseSpec
from catchment.destinations.clickhouse.staging import Staged, Staging
from catchment.destinations.clickhouse.types import DIALECT, MARK, bound, quote
from catchment.sdk import (
    BatchSize,
    Capabilities,
    Column,
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
    Unsupported,
    sql,
)
from catchment.sdk.measures import measured
from catchment.sdk.staging import CQ_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME, STAGING_PREFIX, staging_run

log = logging.getLogger("catchment.clickhouse")

LOOKED_AT = 20
"""Rows of a batch that are looked for when the connection was lost."""


class ClickHouse(Destination[ClickHouseSpec]):
    """Writes Arrow as one block a batch, replaces rows by deleting and inserting, publishes by exchanging tables."""

    name = "clickhouse"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique", "move_pk_to_cq_id"}),
        kept_when_forced=COPIED,
        delete_records=True,
        publish="table",
        rejects=True,
        measures=True,
        writers=2,
        batch=BatchSize(rows=1_000_000, size_bytes=128 << 20, timeout_s=60.0),
        stored_as=types.stored_as,
        empty_for_null=types.is_compound,
    )

    def __init__(self, spec: ClickHouseSpec) -> None:
        super().__init__(spec)
        self._connection = Connection(spec.address(), ca_cert=spec.ca_cert)
        self._definitions = Definitions(spec)
        self._staging = Staging(self._connection, self._definitions)
        self._migrator = Migrator(self._connection, self._definitions, self.capabilities, self._staging.scratch)
        self._publisher = Publisher(self._connection, self._definitions, self._staging, self._migrator)
        self._told: set[tuple[str, str]] = set()
        """Tables and columns of which it was said that nulls become empty."""

    def open(self) -> None:
        """Connect."""
        self._connection.open()

    def close(self) -> None:
        """Clear away what is staged, and let go of the connections."""
        self._staging.close()
        self._connection.close()

    def migrate(self, table: Table, *, force: bool) -> None:
        """Create the table or add columns in place; other changes copy it, and the copy takes its place."""
        if table.primary_keys and self._definitions.is_replicated:
            raise Unsupported(
                f"rows of table `{table.name}` cannot be replaced by key: its engine is replicated, and other replicas "
                "would not see the rows that decide which go",
                hint="use `write_mode: append`, or `overwrite-delete-stale` with `publish: atomic`",
            )
        self._migrator.carry_out(self._migrator.plan(table, force=force))

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """Asks the catalogue."""
        was_open = self._connection.is_open
        try:
            if not was_open:
                self._connection.open()
            return [self._migrator.preview(table, force=force) for table in tables]
        finally:
            if not was_open:
                self._connection.close()

    def write(self, table: Table, rows: pa.Table) -> None:
        """Insert the rows as one block; with keys, the rows of equal keys are deleted first."""
        batches = self._wired(table, rows)
        if table.primary_keys:
            self._replace(table, batches)
        else:
            self._add(table, rows, batches)

    def probe(self, table: Table, rows: pa.Table) -> None:
        """Insert the rows into a table of the same kind, which is then dropped."""
        batches = self._wired(table, rows)
        with self._scratch(lambda name: self._definitions.create_like(name, table.name)) as scratch:
            try:
                self._connection.insert(_into(table, scratch), batches)
            except Unknown as error:
                raise Transient(str(error)) from error

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete to the microsecond."""
        where, values = sql.stale_rows(DIALECT, source_name=source_name, sync_time=sync_time, clients=clients)
        condition = bound(where, values)
        count = int(self._connection.rows(f"select count() from {quote(table.name)} where {condition}")[0][0])
        if count:
            self._connection.run(f"delete from {quote(table.name)} where {condition}")
        return count

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete descendants, then the rows; what is broken off is completed by the same message."""
        for statement, values in sql.delete_records(DIALECT, message):
            self._connection.run(bound(statement, values))

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Batches as ClickHouse sends them."""
        stored = catalogue.look(self._connection, table.name)
        if stored is None:
            raise PluginError(f"table `{table.name}` does not exist")
        have = stored.table
        columns = [
            types.select_expression(column, have.column(column.name) if column.name in have else None)
            for column in table.columns
        ]
        for batch in self._connection.batches(f"select {', '.join(columns)} from {quote(table.name)}"):
            arrays = [types.restored(array, column) for array, column in zip(batch.columns, table.columns, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A query each."""

        def ask(statement: str, values: Sequence[Any]) -> Any:
            return self._connection.rows(bound(statement, values))[0][0]

        def number(measure: Measure) -> int:
            if measure.kind != "absent":
                return measured(DIALECT, table, [measure], keys=keys, source_name=source_name, ask=ask)[0]
            own = f"{quote(CQ_SOURCE_NAME)} = {MARK}" if source_name else "true"
            missing = absent(DIALECT.columns(keys), quote(measure.other))
            values = [source_name] if source_name else []
            return int(ask(f"select count() from {quote(table.name)} where {own} and {missing}", values))

        return [number(measure) for measure in measures]

    def stored_table(self, name: str) -> Table | None:
        """With the types of the catalogue; those that Arrow does not have are read as text."""
        stored = catalogue.look(self._connection, name)
        if stored is None:
            return None
        columns = [replace(c, type=pa.utf8() if types.is_foreign(c.type) else c.type) for c in stored.table.columns]
        return stored.table.with_columns(self._told_apart(name, columns))

    def _told_apart(self, name: str, columns: Sequence[Column]) -> list[Column]:
        """Columns with those as binary whose texts are none: a `String` holds any bytes, and only its values tell."""
        texts = [column for column in columns if types.bytes_for_texts(column.type) != column.type]
        if not texts:
            return list(columns)
        broken = ", ".join(f"countIf(not isValidUTF8(toString({quote(column.name)})))" for column in texts)
        [counts] = self._connection.rows(f"select {broken} from {quote(name)}")
        odd = {column.name for column, count in zip(texts, counts, strict=True) if count}
        return [replace(c, type=types.bytes_for_texts(c.type)) if c.name in odd else c for c in columns]

    def stored_names(self) -> Sequence[str]:
        """Tables and views of the database."""
        return [name for name in catalogue.names(self._connection) if not name.startswith(STAGING_PREFIX)]

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Make the staged table beside the live one, with all that the live one has."""
        plan = self._migrator.plan_staged(table, force=force)
        self._staging.begin(staging_run(staged.name))
        self._staging.drop([staged.name])
        final = plan.found.table.renamed(table.name)
        if _keeps_order(table, self._migrator.sorting(plan)):
            self._migrator.make(plan, staged.name)
            make = None
        else:
            # The last of equal keys could not be told any more.
            self._connection.run(self._definitions.create(final, name=staged.name, plain=True))
            make = functools.partial(self._migrator.make, plan)
        self._staging.add(staged.name, Staged(final, force, make))

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Complete the staged tables, then exchange them with the live ones, each at once."""
        return self._publisher.publish(swaps)

    def discard(self, staged: Sequence[Table]) -> None:
        """Drop staged tables."""
        self._staging.drop(table.name for table in staged)

    def _add(self, table: Table, rows: pa.Table, batches: Sequence[pa.RecordBatch]) -> None:
        """Insert rows once, also when the connection goes away in the middle."""
        staged = self._staging.get(table.name)
        try:
            self._connection.insert(_into(table), batches)
        except Unknown as error:
            before = staged.rows if staged is not None else None
            if not self._went_in(table, rows, before, error):
                raise Transient(str(error)) from error
        if staged is not None:
            staged.rows += rows.num_rows

    def _went_in(self, table: Table, rows: pa.Table, before: int | None, error: Unknown) -> bool:
        """Whether rows are in of which nobody heard; they are one block, so all are or none is.

        `before` is how many a staged table had, to which nobody else writes; None for a live one.
        """
        name = quote(table.name)
        if before is not None:
            found = self._connection.rows(f"select count() from {name}")[0][0]
            if found in (before, before + rows.num_rows):
                return bool(found > before)
        elif CQ_ID in table and CQ_SYNC_TIME in table:
            # Rows out of the whole batch tell: their ids are their own, and they are this sync's.
            step = max(rows.num_rows // LOOKED_AT, 1)
            ids = {types.literal_of(rows.column(CQ_ID).slice(n, 1).chunk(0)) for n in range(0, rows.num_rows, step)}
            moment = types.literal_of(rows.column(CQ_SYNC_TIME).chunk(0))
            where = f"{quote(CQ_SYNC_TIME)} = {moment} and {quote(CQ_ID)} in ({', '.join(sorted(ids))})"
            found = self._connection.rows(f"select uniqExact({quote(CQ_ID)}) from {name} where {where}")[0][0]
            if found in (0, len(ids)):
                return bool(found)
        raise PluginError(
            f"{error}, while {rows.num_rows:,} rows were inserted, and the server does not say whether they are in",
            hint="look at the table before you sync again",
        ) from error

    def _replace(self, table: Table, batches: Sequence[pa.RecordBatch]) -> None:
        """Insert rows, and delete those of equal keys. Broken off anywhere, doing it again makes it whole."""
        live, keys, columns = (
            quote(table.name), DIALECT.columns(table.primary_keys), DIALECT.columns(table.column_names)
        )  # fmt: skip
        # Rows that do not fit are found here, before a row is deleted.
        with self._scratch(lambda name: self._definitions.create(table, name=name, plain=True)) as scratch:
            fresh = quote(scratch)
            try:
                self._connection.insert(_into(table, scratch), batches)
                total, found, there = self._connection.rows(
                    f"select (select count() from {fresh}), ({unique(fresh, keys)}), "
                    f"(select count() from {live} where ({keys}) in (select {keys} from {fresh}))"
                )[0]
                if there:
                    self._connection.run(f"delete from {live} where ({keys}) in (select {keys} from {fresh})")
                last = f" order by {LATEST_FIRST} limit 1 by {keys}" if total > found else ""
                self._connection.move(f"insert into {live} ({columns}) select {columns} from {fresh}{last}")
            except Unknown as error:
                raise Transient(str(error)) from error

    @contextlib.contextmanager
    def _scratch(self, definition: Callable[[str], str]) -> Iterator[str]:
        """A table for a moment."""
        name = self._staging.scratch()
        try:
            self._connection.run(definition(name))
            yield name
        finally:
            # One that stays goes with the run.
            with contextlib.suppress(PluginError):
                self._staging.drop([name])

    def _wired(self, table: Table, rows: pa.Table) -> list[pa.RecordBatch]:
        """Rows as they are sent. Raises `RowsRefused` for those that have no place in the table."""
        staged = self._staging.get(table.name)
        final = staged.final if staged is not None else table
        arrays = []
        for column, array in zip(table.columns, rows.columns, strict=True):
            want = final.column(column.name) if column.name in final else column
            if types.is_compound(column.type):
                self._tell_of_nulls(final.name, column.name, array)
            elif array.null_count and (want.primary_key or want.not_null):
                what = "key column" if want.primary_key else "column"
                raise RowsRefused(f"{what} `{column.name}` is null in a row, and must not be", column=column.name)
            arrays.append(self._wired_column(column.name, array))
        # The server would join pieces into its block at a higher price.
        whole = pa.Table.from_arrays(arrays, names=list(table.column_names)).combine_chunks()
        return list(whole.to_batches())

    def _wired_column(self, name: str, array: pa.ChunkedArray) -> pa.ChunkedArray:
        try:
            chunks = [types.to_wire(chunk) for chunk in array.chunks]
        except pa.ArrowInvalid as error:
            raise RowsRefused(f"column `{name}` holds a value that is out of range: {error}", column=name) from error
        if not self._connection.is_wide:
            for chunk in chunks:
                types.check_days(chunk, name)
        return pa.chunked_array(chunks)

    def _tell_of_nulls(self, table: str, column: str, array: pa.ChunkedArray) -> None:
        """Say once that a column does not keep its nulls."""
        if (table, column) in self._told or not any(types.loses_nulls(chunk) for chunk in array.chunks):
            return
        self._told.add((table, column))
        log.warning(
            "table `%s`: nulls of column `%s` become empty, as ClickHouse has no null lists, structs and maps",
            table,
            column,
        )


def _into(table: Table, name: str = "") -> str:
    """The table and its columns as `insert into` takes them."""
    return f"{quote(name or table.name)} ({DIALECT.columns(table.column_names)})"


def _keeps_order(table: Table, sorting: Sequence[str]) -> bool:
    """Whether rows of equal keys stay in the order in which they came, so that the last one is known."""
    return not table.primary_keys or all(types.unquoted(part) in table.primary_keys for part in sorting)
