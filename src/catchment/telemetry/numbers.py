"""The numbers that a run is measured by, as OpenTelemetry and Prometheus are told them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from catchment.engine.result import TableResult


@dataclass(frozen=True, slots=True)
class Number:
    """Something that is counted for each table."""

    name: str
    """What OpenTelemetry calls it."""
    prometheus: str
    """What Prometheus calls it; durations are in seconds there."""
    unit: str
    text: str
    of: Callable[[TableResult], float | None]
    """None where it is not known."""
    grows: bool = False
    """Whether it never falls while a run lasts."""
    scale: int = 1
    """What OpenTelemetry's value is divided by for Prometheus."""


def _errors(row: TableResult) -> int:
    return sum(group.count for group in row.errors)


READ = (
    Number("sync.table.resources", "catchment_table_rows_read", "{row}", "Rows read from the source.",
           lambda row: row.rows_read, grows=True),
    Number("sync.table.errors", "catchment_table_errors", "{error}", "Errors of the table, in whatever destination.",
           _errors, grows=True),
    Number("sync.table.duration", "catchment_table_read_duration_seconds", "ms",
           "Time from the first rows to the last.", lambda row: round(row.seconds_read * 1000), grows=True, scale=1000),
)  # fmt: skip
"""Numbers of a table of a source; the names of the first column are upstream's."""

WRITTEN = (
    Number("sync.destination.rows_written", "catchment_destination_rows_written", "{row}",
           "Rows that are durable; while the run lasts, rows that the destination has taken.",
           lambda row: row.rows_written),
    Number("sync.destination.bytes_written", "catchment_destination_bytes_written", "By",
           "Size in memory of those rows.", lambda row: row.bytes),
    Number("sync.destination.rows_rejected", "catchment_destination_rows_rejected", "{row}",
           "Rows that were left out or put aside.", lambda row: row.rows_rejected),
    Number("sync.destination.rows_stale_deleted", "catchment_destination_rows_stale_deleted", "{row}",
           "Rows of earlier syncs that were deleted.", lambda row: row.rows_stale_deleted),
    Number("sync.destination.rows_stale_kept", "catchment_destination_rows_stale_kept", "{row}",
           "Rows of earlier syncs that stayed, as the table was not read or not written to its end.",
           lambda row: row.rows_stale_kept),
    Number("sync.destination.errors", "catchment_destination_errors", "{error}",
           "Errors of the table in this destination, those of reading it too.", _errors),
    Number("sync.destination.duration", "catchment_destination_write_duration_seconds", "ms",
           "Time spent inside the destination.", lambda row: round(row.seconds_written * 1000), scale=1000),
    Number("sync.destination.complete", "catchment_destination_complete", "1",
           "1 if every row of the table was read and written, else 0.", lambda row: int(row.complete)),
)  # fmt: skip
"""Numbers of a table in a destination."""


def read(number: Number, rows: Iterable[TableResult]) -> Iterator[tuple[tuple[str, str], float]]:
    """Source and table, and the number; a table that goes into several destinations is read once."""
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        value = number.of(row)
        if value is not None:
            key = (row.source, row.table)
            found[key] = max(found.get(key, 0), value)
    yield from found.items()


def written(number: Number, rows: Sequence[TableResult]) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Source, destination and table, and the number."""
    found = {(row.source, row.destination, row.table): number.of(row) for row in rows}
    yield from ((key, value) for key, value in found.items() if value is not None)
