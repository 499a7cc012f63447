"""What table functions yield, rid of columns that the sync adds itself and of rows that lack a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.errors import PluginError
from catchment.schema import internal
from catchment.schema.table import Table
from catchment.sdk import rows as row_batches

OWN_COLUMNS = frozenset(
    (internal.CQ_ID, internal.CQ_PARENT_ID, internal.CQ_CLIENT_ID, internal.CQ_SYNC_TIME, internal.CQ_SOURCE_NAME)
)
"""Columns of a source's table that are left out: those of this sync take their place."""


def with_keys(table: Table, batch: pa.RecordBatch, left_out: Counter[str]) -> pa.RecordBatch:
    """The rows whose primary key is whole; the others are counted in `left_out`, by the columns without a value."""
    broken = [name for name in table.primary_keys if batch.column(name).null_count]
    if not broken:
        return batch
    whole = batch.column(broken[0]).is_valid()
    for name in broken[1:]:
        whole = pc.and_(whole, batch.column(name).is_valid())
    kept = batch.filter(whole)
    left_out[", ".join(f"`{name}`" for name in broken)] += batch.num_rows - kept.num_rows
    return kept


def left_out_text(count: int, names: str) -> str:
    """The error of a table that lacks so many rows."""
    rows = "1 row has" if count == 1 else f"{count} rows have"
    return f"{rows} no value in the primary key ({names}) and {'is' if count == 1 else 'are'} left out"


def without_own(table_name: str, rows: row_batches.Rows | None) -> Iterator[Any]:
    """`rows` with Arrow data rid of the columns that this sync adds itself."""
    if rows is None:
        raise PluginError(
            f"the function of table `{table_name}` returned None; yield its rows, or return them as a list"
        )
    for item in [rows] if isinstance(rows, (pa.RecordBatch, pa.Table)) else rows:
        if isinstance(item, (pa.RecordBatch, pa.Table)) and not OWN_COLUMNS.isdisjoint(item.schema.names):
            yield item.select([name for name in item.schema.names if name not in OWN_COLUMNS])
        else:
            yield item
