"""A source that only repeats records which were made once, as a plugin: `python served.py serve …`.

What is measured behind it is the wire and the engine, not the making of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from catchment.messages import Cursor, Insert, MigrateTable, SyncMessage
from catchment.plugin import SourcePlugin, SyncRequest
from catchment.schema.internal import add_cq_ids
from catchment.schema.select import Selection
from catchment.schema.table import Column, Table
from catchment.serve import serve


class Repeats:
    """Sends `records` records of `rows` rows, a number, a text, a flag and a time in turn for each of 18 columns."""

    name = "repeats"
    secrets: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._records, self._rows, self._text = 0, 0, "a text of some length"
        kinds = [pa.int64(), pa.utf8(), pa.bool_(), pa.timestamp("us", "UTC")]
        self._table = add_cq_ids(Table("repeated", tuple(Column(f"c{n}", kinds[n % 4]) for n in range(18))))

    @classmethod
    def as_plugin(cls) -> SourcePlugin:
        return cls()

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        self._records, self._rows = spec["records"], spec["rows"]
        self._text = "x" * spec.get("text_bytes", 20)

    def tables(self, selection: Selection) -> Sequence[Table]:
        return [self._table]

    def unreadable(self, selection: Selection) -> Mapping[str, str]:
        return {}

    def sync(self, request: SyncRequest) -> Iterator[SyncMessage]:
        yield MigrateTable(self._table)
        insert = Insert(self._table, self._batch())
        for _ in range(self._records):
            yield insert

    def acknowledge(self, cursors: Sequence[Cursor]) -> None: ...

    def interrupt(self) -> None: ...

    def test_connection(self) -> None: ...

    def close(self) -> None: ...

    def _batch(self) -> pa.RecordBatch:
        arrays = []
        for column in self._table.columns:
            if isinstance(column.type, pa.BaseExtensionType):
                storage = pa.array([bytes(16)] * self._rows, column.type.storage_type)
                arrays.append(pa.ExtensionArray.from_storage(column.type, storage))
            elif pa.types.is_string(column.type):
                arrays.append(pa.array([self._text] * self._rows))
            else:
                arrays.append(pa.array(range(self._rows), pa.int64()).cast(column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._table.arrow_schema)


if __name__ == "__main__":
    serve(Repeats)
