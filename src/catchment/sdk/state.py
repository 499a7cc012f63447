"""Cursors of incremental tables, kept in a table of a destination.

Table and rules are the protocol's: columns `key`, `value` and `version`; of several rows with one key the highest
version counts, so that a destination that can only append works too. Keys start with the name of the source, so that
sources may share the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from catchment.channel import Budget
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Backend
from catchment.schema.internal import cursor_table


class StateTable:
    """The saved cursors of a source."""

    def __init__(self, backend: Backend) -> None:
        self._destination = backend.destination
        table = cursor_table(backend.table_name)
        appends = "overwrite" not in self._destination.capabilities.write_modes
        self._table = table.without_keys() if appends else table
        self._prefix = f"{backend.scope}/" if backend.scope else ""
        self._versions: dict[str, int] = {}
        self._values: dict[str, str] = {}

    def load(self) -> Mapping[str, str]:
        """Make the table if it is missing and read every cursor of this source."""
        self._write(None)
        for batch in self._destination.read(self._table):
            for row in batch.to_pylist():
                if row["key"] is None or row["value"] is None or not row["key"].startswith(self._prefix):
                    continue
                key, version = row["key"].removeprefix(self._prefix), int(row["version"] or 0)
                if version >= self._versions.get(key, 0):
                    self._versions[key], self._values[key] = version, row["value"]
        return dict(self._values)

    def save(self, cursors: Mapping[str, str]) -> None:
        """Keep the cursors that changed; on return they are durable. Raises `PluginError` if they are not."""
        changed = {key: value for key, value in cursors.items() if self._values.get(key) != value}
        if not changed:
            return
        for key in changed:
            self._versions[key] = self._versions.get(key, 0) + 1
        arrays = [
            pa.array([self._prefix + key for key in changed], pa.utf8()),
            pa.array(list(changed.values()), pa.utf8()),
            pa.array([self._versions[key] for key in changed], pa.uint64()),
        ]
        self._write(pa.RecordBatch.from_arrays(arrays, schema=self._table.arrow_schema))
        self._values.update(changed)

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
