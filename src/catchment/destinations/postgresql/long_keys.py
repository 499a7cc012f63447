"""Keys that are too long for an index.

The key of a staged table is built when all rows are in, and one row that no index takes would keep every table of the
sync from being published. So the rows with long keys are put into an index of their own when they come.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.postgresql.types import wire
from catchment.sdk import Table

FITTING_BYTES = 2_000
"""Bytes of texts that fit into any index: a third of a page of 8 kB, without what stands around them. Longer ones may
fit as well, as PostgreSQL packs them
(https://www.postgresql.org/docs/current/btree.html#BTREE-IMPLEMENTATION)."""


def long_keys(table: Table, rows: pa.Table) -> tuple[Table, pa.Table] | None:
    """The keys of those rows that may be too long for the key of `table`, as a table of its own; None if none is."""
    keys = [column for column in table.columns if column.primary_key]
    # What is cast on its way in, such as an address, is short.
    texts = [column.name for column in keys if _is_text(column.type) and not wire(column.type).casts]
    lengths = None
    for name in texts:
        found = pc.fill_null(pc.cast(pc.binary_length(_plain(rows.column(name))), pa.int64()), 0)
        lengths = found if lengths is None else pc.add(lengths, found)
    if lengths is None or (pc.max(lengths).as_py() or 0) <= FITTING_BYTES:
        return None
    chosen = rows.select(texts).filter(pc.greater(lengths, pa.scalar(FITTING_BYTES, pa.int64())))
    named = tuple(column for column in keys if column.name in texts)
    return Table("_catchment_keys", named).without_keys(), chosen


def _is_text(kind: pa.DataType) -> bool:
    stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return any(
        is_kind(stored) for is_kind in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string,
                                        pa.types.is_large_binary)
    )  # fmt: skip


def _plain(column: pa.ChunkedArray) -> Any:
    kind = column.type
    return column.cast(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else column
