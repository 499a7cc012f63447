"""The report at the end of a sync, for people."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from catchment.cli.output import say

if TYPE_CHECKING:
    from rich.console import Console

    from catchment.engine.result import Result, TableResult

LISTED_TABLES = 40
"""Complete tables that are listed one by one; with more only those with something to say are."""


def print_report(result: Result, what: str = "Sync") -> None:
    """Print tables, errors with their texts, and a last line that sums up."""
    from rich.console import Console

    # By way of a text, as a reader that has gone away must not end the command.
    text = io.StringIO()
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=text, force_terminal=on_terminal, highlight=False, width=None if on_terminal else 160)
    _print_tables(console, result.tables)
    gone = {part.name: part.error for part in result.destinations}
    for row in result.tables:
        _print_troubles(console, row, gone.get(row.destination, ""))
    for part in (*result.sources, *result.destinations):
        if part.error:
            console.print(f"{part.plugin}: {part.error}", style="red", markup=False, soft_wrap=True)
    console.print(_last_line(result, what), style="bold", markup=False, soft_wrap=True)
    say(text.getvalue().removesuffix("\n"))


def _print_tables(console: Console, tables: list[TableResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = [row for row in tables if row.errors or row.stale_kept_reason or not row.complete]
    if len(tables) <= LISTED_TABLES:
        shown = tables
    if shown:
        table = Table(box=None, pad_edge=False)
        table.add_column("table", overflow="fold")
        table.add_column("from → to", overflow="fold")
        for name in ("read", "written", "stale deleted", "seconds"):
            table.add_column(name, justify="right")
        table.add_column("")
        for row in shown:
            table.add_row(
                Text(row.table),
                Text(f"{row.source} → {row.destination}"),
                f"{row.rows_read:,}",
                f"{row.rows_written:,}",
                "" if row.rows_stale_deleted is None else f"{row.rows_stale_deleted:,}",
                f"{row.seconds_written:.2f}",
                _state(row),
            )
        console.print(table)
    if len(shown) < len(tables):
        console.print(f"… and {len(tables) - len(shown):,} complete tables", markup=False, soft_wrap=True)


def _state(row: TableResult) -> str:
    if row.complete and row.rows_rejected == 0:
        return "[green]complete[/green]"
    if row.published:
        return "[yellow]incomplete[/yellow]"
    return "[red]not published[/red]"


def _print_troubles(console: Console, row: TableResult, gone: str) -> None:
    """Print what a table has to say; `gone` is the error of its destination as a whole, which is said once for all."""
    where = f"{row.source} → {row.destination} {row.table}"
    for group in row.errors:
        if group.message == gone:
            continue
        times = f" ({group.count} times)" if group.count > 1 else ""
        client = f" [{group.client}]" if group.client else ""
        console.print(f"error in {where}{client}: {group.message}{times}", style="red", markup=False, soft_wrap=True)
    if row.rows_rejected:
        console.print(
            f"{where}: {row.rows_rejected:,} rows were left out", style="yellow", markup=False, soft_wrap=True
        )
    for each in row.expectations:
        if not each.ok and each.severity == "warn":
            text = f"{where}: `expect` is not kept: {each.rule}, found {each.found}"
            console.print(text, style="yellow", markup=False, soft_wrap=True)
    if row.stale_kept_reason:
        console.print(
            f"{where}: stale rows are kept: {row.stale_kept_reason}", style="yellow", markup=False, soft_wrap=True
        )


def counts(result: Result) -> dict[str, Any]:
    """What the last line and the log say: rows that were read, each once, however many destinations they went to."""
    read: dict[tuple[str, str], int] = {}
    left_out: dict[tuple[str, str], int] = {}
    for row in result.tables:
        key = (row.source, row.table)
        read[key] = max(read.get(key, 0), row.rows_read)
        left_out[key] = max(left_out.get(key, 0), row.rows_rejected)
    errors = {
        (row.source, row.table, group.client, group.message): group.count
        for row in result.tables
        for group in row.errors
    }
    seconds = (result.ended - result.started).total_seconds() if result.ended else 0.0
    return {
        "resources": sum(read.values()),
        "errors": sum(errors.values()) + sum(1 for part in (*result.sources, *result.destinations) if part.error),
        "warnings": sum(left_out.values()),
        "seconds": seconds,
    }


def _last_line(result: Result, what: str) -> str:
    words = {
        "complete": "completed successfully.",
        "partial": "completed with errors, see logs for details.",
        "failed": "failed.",
        "interrupted": "was interrupted.",
    }
    found = counts(result)
    seconds = found["seconds"]
    rate = f" ({found['resources'] / seconds:,.0f} rows/s)" if seconds >= 1 else ""
    return (
        f"{what} {words[result.outcome]} Resources: {found['resources']}, Errors: {found['errors']}, "
        f"Warnings: {found['warnings']}, Time: {go_duration(int(seconds))}{rate}"
    )


def go_duration(seconds: float) -> str:
    """Seconds as Go writes a duration, to the millisecond: `0s`, `250ms`, `1m5s`, `1h1m40s`."""
    thousandths = round(seconds * 1000)
    if 0 < thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text
