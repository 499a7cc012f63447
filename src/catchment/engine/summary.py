"""The row about a sync that `send_sync_summary` asks for, in the table `cloudquery_sync_summaries`.

Name and columns are upstream's. It is written after the sync's own rows are durable, so it says what is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from catchment import __version__
from catchment.engine.pipeline import Pipeline
from catchment.engine.source_run import SourceRun
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.schema import types
from catchment.schema.table import Column, Table
from catchment.spec.model import DestinationConfig, SourceConfig

TABLE_NAME = "cloudquery_sync_summaries"

TABLE = Table(
    name=TABLE_NAME,
    columns=(
        Column("cli_version", pa.utf8()),
        Column("destination_errors", pa.int64()),
        Column("destination_name", pa.utf8()),
        Column("destination_path", pa.utf8()),
        Column("destination_version", pa.utf8()),
        Column("destination_warnings", pa.int64()),
        Column("resources", pa.int64()),
        Column("source_errors", pa.int64()),
        Column("source_name", pa.utf8()),
        Column("source_path", pa.utf8()),
        Column("source_version", pa.utf8()),
        Column("source_warnings", pa.int64()),
        Column("source_tables", pa.list_(pa.utf8())),
        Column("sync_id", pa.utf8()),
        Column("sync_duration_ms", pa.int64()),
        Column("shard_num", pa.int64()),
        Column("shard_total", pa.int64()),
        Column("resources_per_table", types.json(), type_schema='{"utf8":"int64"}'),
        Column("errors_per_table", types.json(), type_schema='{"utf8":"int64"}'),
        Column("durations_per_table_ms", types.json(), type_schema='{"utf8":"int64"}'),
    ),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is said of one source's sync into one destination."""

    source: SourceConfig
    destination: DestinationConfig
    run: SourceRun
    invocation_id: str
    started: datetime

    def write(self, pipeline: Pipeline, shard: tuple[int, int] | None, *, migrate: bool) -> None:
        """Add the row. Raises `PluginError` when it could not be made durable."""
        table = pipeline.stamp.table(TABLE)
        session = pipeline.destination.session(pipeline.budget)
        try:
            if migrate:
                session.write(MigrateTable(table))
            session.write(Insert(table, pipeline.stamp.batch(table, self._batch(pipeline, shard))))
            session.flush()
            error = session.stats()[table.name].error
            if error:
                raise PluginError(error)
        finally:
            session.close()

    def _batch(self, pipeline: Pipeline, shard: tuple[int, int] | None) -> pa.RecordBatch:
        readings = self.run.readings
        values: dict[str, Any] = {
            "cli_version": __version__,
            "destination_errors": sum(target.failed for target in pipeline.targets.values()),
            "destination_name": self.destination.name,
            "destination_path": self.destination.path,
            "destination_version": self.destination.version,
            "destination_warnings": 0,
            "resources": sum(reading.rows for reading in readings.values()),
            "source_errors": sum(reading.errors for reading in readings.values()),
            "source_name": self.source.name,
            "source_path": self.source.path,
            "source_version": self.source.version,
            "source_warnings": sum(reading.skipped for reading in readings.values()),
            "source_tables": [pipeline.targets[name].live.name for name in sorted(readings)],
            "sync_id": self.invocation_id,
            "sync_duration_ms": int((datetime.now(UTC) - self.started).total_seconds() * 1000),
            "shard_num": shard[0] if shard else None,
            "shard_total": shard[1] if shard else None,
            "resources_per_table": _text({name: reading.rows for name, reading in readings.items()}),
            "errors_per_table": _text({name: reading.errors for name, reading in readings.items()}),
            "durations_per_table_ms": _text(
                {name: int((reading.last_at - reading.first_at) * 1000) for name, reading in readings.items()}
            ),
        }
        arrays = []
        for column in TABLE.columns:
            if isinstance(column.type, pa.ExtensionType):
                storage = pa.array([values[column.name]], column.type.storage_type)
                arrays.append(pa.ExtensionArray.from_storage(column.type, storage))
            else:
                arrays.append(pa.array([values[column.name]], column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=TABLE.arrow_schema)


def _text(counts: dict[str, int]) -> bytes:
    return json.dumps(counts, sort_keys=True, separators=(",", ":")).encode()
