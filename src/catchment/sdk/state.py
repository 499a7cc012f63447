"""Cursors of incremental tables, kept in a table of a destination.

Table and rules are the protocol's: columns `key`, `value` and `version`; of several rows with one key the highest
version counts, so that a destination that can only append works too.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from catchment.channel import Budget
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Backend
from catchment.schema.table import Column, Table


class StateTable:
    """The saved cursors of a source."""

    def __init__(self, backend: Backend) -> None:
        self._destination = backend.destination
        self._table = Table(
            backend.table_name,
            (
                Column("key", pa.utf8(), primary_key=True, not_null=True),
                Column("value", pa.utf8()),
                Column("version", pa.uint64()),
            ),
        )
        self._versions: dict[str, int] = {}
        self._values: dict[str, str] = {}

    def load(self) -> Mapping[str, str]:
        """Make the table if it is missing and read every cursor."""
        self._write(None)
        for batch in self._destination.read(self._table):
            for row in batch.to_pylist():
                version = int(row["version"] or 0)
                if version >= self._versions.get(row["key"], 0):
                    self._versions[row["key"]], self._values[row["key"]] = version, row["value"]
        return dict(self._values)

    def save(self, cursors: Mapping[str, str]) -> None:
        """Keep the cursors that changed; on return they are durable. Raises `PluginError` if they are not."""
        changed = {key: value for key, value in cursors.items() if self._values.get(key) != value}
        if not changed:
            return
        self._values.update(changed)
        for key in changed:
            self._versions[key] = self._versions.get(key, 0) + 1
        arrays = [
            pa.array(list(changed), pa.utf8()),
            pa.array(list(changed.values()), pa.utf8()),
            pa.array([self._versions[key] for key in changed], pa.uint64()),
        ]
        self._write(pa.RecordBatch.from_arrays(arrays, schema=self._table.arrow_schema))

    def _write(self, batch: pa.RecordBatch | None) -> None:
        session = self._destination.session(Budget(1 << 20))
        try:
            session.write(MigrateTable(self._table) if batch is None else Insert(self._table, batch))
            session.flush()
            error = session.stats()[self._table.name].error
        finally:
            session.close()
        if error:
            raise PluginError(f"cursors cannot be kept in table `{self._table.name}`: {error}")
