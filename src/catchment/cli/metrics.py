"""The file of `--tables-metrics-location`: a text table of what each table has come to, kept fresh during a sync."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from catchment.cli.output import REDACTOR, say
from catchment.cli.progress import repeating
from catchment.cli.report import go_duration

if TYPE_CHECKING:
    from catchment.engine.result import TableResult
    from catchment.engine.sync import Sync

EVERY_S = 20.0
HEAD = ("TABLE", "DURATION", "RESOURCES", "ERRORS", "PANICS")
"""As upstream has them; a failure of a plugin of ours is an error and no panic, so the last column is always 0."""


@contextlib.contextmanager
def keep_metrics(sync: Sync, location: str) -> Iterator[None]:
    """Write the file at once, every 20 seconds and at the end; an empty `location` means no file."""
    if not location:
        yield
        return
    path = Path(location)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write() -> None:
        # The whole file each time: a table that has become shorter leaves no rest of the longer one.
        path.write_text(REDACTOR.text(render(sync.tables())), encoding="utf-8")

    write()
    with repeating(EVERY_S, write, "metrics"):
        yield
    try:
        write()
    except OSError as error:
        say(f"Warning: the tables' metrics could not be written: {error}", err=True)


def render(tables: Sequence[TableResult]) -> str:
    """The table: what still runs first, then by name; a table in several destinations is one row."""
    several = len({table.source for table in tables}) > 1
    found: dict[str, list[TableResult]] = {}
    for table in tables:
        found.setdefault(f"{table.source}/{table.table}" if several else table.table, []).append(table)
    rows = [
        HEAD,
        *(_row(name, found[name]) for name in sorted(found, key=lambda name: (_has_ended(found[name]), name))),
    ]
    widths = [max(len(row[index]) for row in rows) for index in range(len(HEAD))]
    rule = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    lines = [
        "|".join(["", *(f" {cell:<{width}} " for cell, width in zip(row, widths, strict=True)), ""]) for row in rows
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def _row(name: str, results: Sequence[TableResult]) -> tuple[str, ...]:
    errors = max(sum(group.count for group in result.errors) for result in results)
    seconds = max(result.seconds_read for result in results)
    duration = go_duration(seconds) if seconds else "N/A"
    return name, duration, str(max(result.rows_read for result in results)), str(errors), "0"


def _has_ended(results: Sequence[TableResult]) -> bool:
    return all(result.complete or result.errors for result in results)
