"""The report at the end of a sync, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catchment.engine.result import Result, TableResult

LISTED_TABLES = 40
"""Complete tables that are listed one by one; with more only those with something to say are."""


def print_report(result: Result) -> None:
    """Tables, errors with their texts, and a last line that sums up."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    width = console.width if console.is_terminal else 160
    shown = [row for row in result.tables if row.errors or row.stale_kept_reason or not row.complete]
    if len(result.tables) <= LISTED_TABLES:
        shown = result.tables
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
        Console(highlight=False, width=width).print(table)
    if len(shown) < len(result.tables):
        console.print(f"… and {len(result.tables) - len(shown):,} complete tables", markup=False)
    for row in result.tables:
        _print_troubles(console, row)
    for part in (*result.sources, *result.destinations):
        if part.error:
            console.print(f"{part.plugin}: {part.error}", style="red", markup=False)
    console.print(_last_line(result), style="bold", markup=False)


def _state(row: TableResult) -> str:
    if row.complete and row.rows_rejected == 0:
        return "[green]complete[/green]"
    if row.published:
        return "[yellow]incomplete[/yellow]"
    return "[red]not published[/red]"


def _print_troubles(console: object, row: TableResult) -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    where = f"{row.source} → {row.destination} {row.table}"
    for group in row.errors:
        times = f" ({group.count} times)" if group.count > 1 else ""
        client = f" [{group.client}]" if group.client else ""
        console.print(f"error in {where}{client}: {group.message}{times}", style="red", markup=False)
    if row.rows_rejected:
        console.print(f"{where}: {row.rows_rejected:,} rows were left out", style="yellow", markup=False)
    if row.stale_kept_reason:
        console.print(f"{where}: stale rows are kept: {row.stale_kept_reason}", style="yellow", markup=False)


def _last_line(result: Result) -> str:
    rows = sum(row.rows_written for row in result.tables)
    errors = sum(group.count for row in result.tables for group in row.errors)
    seconds = (result.ended - result.started).total_seconds() if result.ended else 0.0
    words = {
        "complete": "Sync completed successfully.",
        "partial": "Sync completed with errors.",
        "failed": "Sync failed.",
        "interrupted": "Sync was interrupted.",
    }
    rate = f" ({rows / seconds:,.0f}/s)" if seconds >= 1 else ""
    return f"{words[result.outcome]} Rows: {rows:,}{rate}, Errors: {errors}, Time: {seconds:.1f}s"
