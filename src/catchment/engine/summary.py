"""What is said of a sync: the row that `send_sync_summary` asks for, and the line that `--summary-location` asks for.

Names, keys and columns are upstream's. Both are written after the sync's own rows are durable, so they say what is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment import __version__
from catchment.engine.pipeline import Pipeline
from catchment.engine.source_run import Reading, SourceRun
from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.redact import Redactor
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


@dataclass(slots=True)
class Summary:
    """What is said of one source's sync into one destination."""

    pipeline: Pipeline
    values: dict[str, Any]
    """By upstream's key, in upstream's order; None where it leaves a key out."""

    @classmethod
    def of(
        cls,
        source: SourceConfig,
        destination: DestinationConfig,
        run: SourceRun,
        pipeline: Pipeline,
        invocation_id: str,
        shard: tuple[int, int] | None,
    ) -> Summary:
        """The summary of a run that has ended; `resources` are the rows that are durable in this destination."""
        readings = {name: run.readings[name] for name in sorted(run.readings)}
        written = {name: pipeline.targets[name].result.rows_written for name in readings}
        values = {
            "cli_version": __version__,
            "destination_errors": sum(target.failed for target in pipeline.targets.values()),
            "destination_name": destination.name,
            "destination_path": destination.path,
            "destination_version": destination.version,
            "destination_warnings": 0,
            "resources": sum(written.values()),
            "source_errors": sum(reading.errors for reading in readings.values()),
            "source_name": source.name,
            "source_path": source.path,
            "source_version": source.version,
            "source_warnings": sum(reading.skipped for reading in readings.values()),
            "source_tables": [pipeline.targets[name].live.name for name in readings],
            "sync_id": invocation_id,
            "sync_time": f"{pipeline.stamp.sync_time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "sync_duration_ms": int(run.result.seconds * 1000),
            "sync_group_id": pipeline.stamp.sync_group_id or None,
            "shard_num": shard[0] if shard else None,
            "shard_total": shard[1] if shard else None,
            "resources_per_table": written or None,
            "errors_per_table": {name: reading.errors for name, reading in readings.items()} or None,
            "durations_per_table_ms": {name: _duration_ms(reading) for name, reading in readings.items()} or None,
        }
        return cls(pipeline, values)

    def redact(self, redactor: Redactor) -> None:
        """Replace secrets in every text."""
        self.values = redactor.value(self.values)

    def append(self, path: Path) -> None:
        """Add a line to a file of JSON lines, with its folders where they are missing. Raises `OSError`."""
        values = {key: value for key, value in self.values.items() if value is not None}
        line = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        for character in "<>&\u2028\u2029":
            # As upstream, so that the line can stand in a web page.
            line = line.replace(character, f"\\u{ord(character):04x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write(self, *, migrate: bool) -> None:
        """Add a row to the destination's table. Raises `PluginError` when it could not be made durable."""
        if migrate:
            migrate_table(self.pipeline)
        table = stamped(self.pipeline)
        _send(self.pipeline, Insert(table, self.pipeline.stamp.batch(table, self._batch())))

    def _batch(self) -> pa.RecordBatch:
        arrays = []
        for column in TABLE.columns:
            value = self.values[column.name]
            if isinstance(column.type, pa.ExtensionType):
                storage = pa.array([_text(value or {})], column.type.storage_type)
                arrays.append(pa.ExtensionArray.from_storage(column.type, storage))
            else:
                arrays.append(pa.array([value], column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=TABLE.arrow_schema)


def migrate_table(pipeline: Pipeline) -> None:
    """Make or change the table as a row needs it. Raises `PluginError` when that is refused."""
    _send(pipeline, MigrateTable(stamped(pipeline), force=pipeline.force))


def stamped(pipeline: Pipeline) -> Table:
    """The table as the destination has it: without keys, as the rows of one sync group would replace each other."""
    return pipeline.stamp.table(TABLE).without_keys()


def _send(pipeline: Pipeline, message: MigrateTable | Insert) -> None:
    session = pipeline.destination.session(pipeline.budget)
    try:
        session.write(message)
        session.flush()
        error = session.stats()[message.table.name].error
    finally:
        session.close()
    if error:
        raise PluginError(error)


def _duration_ms(reading: Reading) -> int:
    return int((reading.last_at - reading.first_at) * 1000)


def _text(counts: dict[str, int]) -> bytes:
    return json.dumps(counts, sort_keys=True, separators=(",", ":")).encode()
