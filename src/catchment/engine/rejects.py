"""The table `_catchment_rejects`: rows that a destination refused, so that nothing is lost without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from catchment.errors import PluginError
from catchment.messages import Insert, MigrateTable
from catchment.plugin import Reject, WriteStats
from catchment.schema.table import Column, Table

if TYPE_CHECKING:
    from catchment.engine.pipeline import Pipeline

NAME = "_catchment_rejects"
TABLE = Table(
    NAME,
    (
        Column("table_name", pa.utf8(), "Table that the row belongs to", not_null=True),
        Column("key", pa.utf8(), "Keys of the row as a JSON object; null where it has none"),
        Column("column_name", pa.utf8(), "Column at fault; null where that is not known"),
        Column("error", pa.utf8(), "What the destination said", not_null=True),
        Column("row", pa.utf8(), "The row as a JSON object", not_null=True),
    ),
    description="Rows that were refused and put aside",
)
"""Its texts are plain ones, also those that are JSON: what a database refuses in a JSON value must go in here."""


def put_aside(pipeline: Pipeline, stats: Mapping[str, WriteStats], incomplete: Mapping[str, str]) -> dict[str, str]:
    """Keep the rows that were refused; source's tables that lack them, and those below, each with the reason."""
    reasons: dict[str, str] = {}
    found: dict[str, Sequence[Reject]] = {}
    for name, target in pipeline.targets.items():
        refused = stats[target.written.name].rejects if target.written.name in stats else ()
        if refused:
            rows = f"{len(refused)} row{'s' if len(refused) > 1 else ''}"
            found[target.live.name] = refused
            reasons[name] = f"{rows} of it were refused" if len(refused) > 1 else "a row of it was refused"
            target.result.rows_rejected += len(refused)
            text = f"{rows} put aside in `{NAME}`, the first: {refused[0].error}"
            target.result.add_error("", text, refused[0].row, len(refused))
        elif target.source.parent in reasons and name not in incomplete:
            reasons[name] = f"its parent table `{target.source.parent}` is not complete"
    if found and pipeline.lost is None:
        try:
            _write(pipeline, found)
        except PluginError as error:
            for target in pipeline.targets.values():
                if target.live.name in found and not target.failed:
                    target.fail(f"rows that were refused could not be put aside: {error}")
    return reasons


def _write(pipeline: Pipeline, rejects: Mapping[str, Sequence[Reject]]) -> None:
    """Add refused rows, by name of the live table, and wait until they are durable. Raises `PluginError`."""
    table = pipeline.stamp.table(TABLE).without_keys()
    rows = [(name, reject) for name, found in rejects.items() for reject in found]
    columns = (
        [name for name, _ in rows],
        [reject.key or None for _, reject in rows],
        [reject.column or None for _, reject in rows],
        [reject.error for _, reject in rows],
        [reject.row for _, reject in rows],
    )
    arrays = [pa.array(values, pa.utf8()) for values in columns]
    batch = pa.RecordBatch.from_arrays(arrays, schema=TABLE.arrow_schema)
    session = pipeline.destination.session(pipeline.budget)
    try:
        session.write(MigrateTable(table, force=pipeline.force))
        session.write(Insert(table, pipeline.stamp.batch(table, batch)))
        session.flush()
        error = session.stats()[NAME].error
    finally:
        session.close()
    if error:
        raise PluginError(error)
