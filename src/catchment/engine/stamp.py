"""What the engine does to a source's tables and batches before a destination sees them.

It adds `_cq_sync_time`, `_cq_source_name` and `_cq_sync_group_id` in front, each only if the source did not, and makes
the keys fit the write mode and `pk_mode`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from catchment.plugin import WriteMode
from catchment.schema.internal import CQ_ID, SOURCE_NAME, SYNC_GROUP_ID, SYNC_TIME
from catchment.schema.table import Column, Table


@dataclass(slots=True)
class Stamp:
    """The constants of one source's sync into one destination."""

    sync_time: datetime
    """UTC, whole microseconds."""
    source_name: str
    sync_group_id: str = ""
    write_mode: WriteMode = "overwrite-delete-stale"
    cq_id_only: bool = False
    """Whether `_cq_id` is to be the only primary key (`pk_mode: cq-id-only`)."""
    columns_not_null: bool = False
    _arrays: dict[str, pa.Array] = field(default_factory=dict)

    def table(self, table: Table) -> Table:
        """`table` as the destination is to make it."""
        added = [column for column in self._columns() if column.name not in table.column_names]
        return table.with_columns([self._keyed(column) for column in (*added, *table.columns)])

    def batch(self, stamped: Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with the constant columns in front, as columns of `stamped`; nothing is copied."""
        present = set(batch.schema.names)
        arrays = [
            batch.column(column.name) if column.name in present else self._constant(column, batch.num_rows)
            for column in stamped.columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=stamped.arrow_schema)

    def _columns(self) -> list[Column]:
        columns = [
            replace(SYNC_TIME, not_null=self.columns_not_null),
            replace(SOURCE_NAME, not_null=self.columns_not_null),
        ]
        return [*columns, SYNC_GROUP_ID] if self.sync_group_id else columns

    def _keyed(self, column: Column) -> Column:
        if self.write_mode == "append":
            return replace(column, primary_key=False, unique=False)
        if self.cq_id_only:
            column = replace(column, primary_key=column.name == CQ_ID)
        if self.sync_group_id and column.name == CQ_ID:
            # Every group holds each row again, so its id cannot be unique in the table.
            column = replace(column, unique=False)
        return column

    def _constant(self, column: Column, count: int) -> pa.Array:
        array = self._arrays.get(column.name)
        if array is None or len(array) < count:
            values = {
                SYNC_TIME.name: self.sync_time,
                SOURCE_NAME.name: self.source_name,
                SYNC_GROUP_ID.name: self.sync_group_id,
            }
            array = pa.repeat(pa.scalar(values[column.name], column.type), max(count, 1024))
            self._arrays[column.name] = array
        return array.slice(0, count)


def sync_group_id(template: str, *, invocation_id: str, now: datetime) -> str:
    """`template` with its placeholders filled from the run's id and start (UTC)."""
    values = {
        "{{SYNC_ID}}": invocation_id,
        "{{YEAR}}": f"{now:%Y}",
        "{{MONTH}}": f"{now:%m}",
        "{{DAY}}": f"{now:%d}",
        "{{HOUR}}": f"{now:%H}",
        "{{MINUTE}}": f"{now:%M}",
    }
    for placeholder, value in values.items():
        template = template.replace(placeholder, value)
    return template
