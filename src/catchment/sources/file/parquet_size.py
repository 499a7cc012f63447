"""How many rows of a Parquet file are read at once: encodings make a few bytes of a file into any number in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catchment.sdk import PluginError
from catchment.sources.file.blocks import ROW_BYTES

BATCH_ROWS = 65_536
BATCH_BYTES = 64 << 20
"""Bytes of a batch, where rows are so large that `BATCH_ROWS` of them are more."""
WORST_BYTES = 128 << 20
"""Bytes of a batch whose every text were the longest of its dictionary."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 4}


class Sizes:
    """The sizes of one file's batches."""

    def __init__(self, path: Path, opened: pq.ParquetFile) -> None:
        self._path = path
        self._metadata = opened.metadata
        schema = opened.schema
        leaves = [schema.column(place) for place in range(len(schema))]
        self._texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]

    def of(self, group: int) -> int:
        """Rows of a batch of the row group. Raises `PluginError` for rows that are too large by far."""
        found = self._metadata.row_group(group)
        if not found.num_rows:
            return BATCH_ROWS
        columns = [found.column(place) for place in range(found.num_columns)]
        sizes = [max(c.total_uncompressed_size, c.num_values * _WIDTHS.get(c.physical_type, 1)) for c in columns]
        each = sum(sizes) / found.num_rows
        if each > ROW_BYTES:
            raise PluginError(
                f"{self._path}: rows of {int(each) >> 20:,} MB on the average, at most {ROW_BYTES >> 20} MB are read"
            )
        most = max(c.num_values for c in columns) / found.num_rows
        worst = each + self._longest(group) * max(most, 1)
        return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(each, 1)), int(WORST_BYTES / max(worst, 1))))

    def _longest(self, group: int) -> int:
        """Bytes of the longest texts in the dictionaries of all columns: one entry may stand in every row."""
        if not self._texts:
            return 0
        with pq.ParquetFile(
            self._path, metadata=self._metadata, read_dictionary=self._texts, pre_buffer=False
        ) as opened:
            first = next(opened.iter_batches(batch_size=1, row_groups=[group], columns=self._texts), None)
        return 0 if first is None else sum(length for column in first.columns for length in _lengths(column))


def _lengths(array: pa.Array) -> Iterator[int]:
    """The longest entry of each dictionary inside of `array`."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _lengths(array.storage)
    elif pa.types.is_dictionary(kind):
        if len(array.dictionary) and not pa.types.is_primitive(kind.value_type):
            yield pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from _lengths(array.field(place))
    elif pa.types.is_map(kind):
        yield from _lengths(array.keys)
        yield from _lengths(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _lengths(array.values)
