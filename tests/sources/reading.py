"""Reads everything that a source has, as the engine would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from catchment.messages import DeleteRecord, Insert, MigrateTable, RowsSkipped, TableError
from catchment.plugin import SyncRequest
from catchment.schema import types
from catchment.schema.select import Selection
from catchment.schema.table import Table

ALL = Selection(("*",), ())


@dataclass
class Found:
    """What a source sent."""

    tables: dict[str, Table] = field(default_factory=dict)
    batches: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, tuple[int, str]] = field(default_factory=dict)
    deletions: list[DeleteRecord] = field(default_factory=list)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """The rows without `_cq_` columns; uuid and json as their bytes."""
        names = [name for name in self.tables[table].column_names if not name.startswith("_cq_")]
        return [
            row
            for batch in self.batches.get(table, [])
            for row in zip(*(types.to_storage(batch.column(name)).to_pylist() for name in names), strict=True)
        ]

    def count(self, table: str) -> int:
        """How many rows there are."""
        return sum(batch.num_rows for batch in self.batches.get(table, []))

    def values(self, table: str, column: str) -> list[Any]:
        """One column's values."""
        return [v for b in self.batches.get(table, []) for v in types.to_storage(b.column(column)).to_pylist()]

    def kinds(self, table: str) -> dict[str, str]:
        """Name and type of each column of the source's own."""
        columns = self.tables[table].columns
        return {c.name: types.type_string(c.type) for c in columns if not c.name.startswith("_cq_")}

    @property
    def error(self) -> str:
        """The only error."""
        [text] = self.errors.values()
        return text


def read(source, spec, selection=ALL, between=None):
    """Everything; `between` is called after the tables were found and before their rows are read."""
    plugin = source.as_plugin()
    plugin.init(spec)
    found = Found()
    try:
        found.tables = {table.name: table for table in plugin.tables(selection)}
        if between is not None:
            between()
        for message in plugin.sync(SyncRequest(selection)):
            if isinstance(message, Insert):
                found.batches.setdefault(message.table.name, []).append(message.batch)
            elif isinstance(message, TableError):
                found.errors[message.table_name] = message.message
            elif isinstance(message, RowsSkipped):
                found.skipped[message.table_name] = (message.count, message.first_example)
            elif isinstance(message, DeleteRecord):
                found.deletions.append(message)
            elif isinstance(message, MigrateTable):
                assert message.table == found.tables[message.table.name]
    finally:
        plugin.close()
    return found
