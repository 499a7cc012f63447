"""The report at the end of a sync, for people."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catchment.cli.alike import errors_alike, kept_alike, rows_kept
from catchment.cli.output import say

if TYPE_CHECKING:
    from rich.console import Console

    from catchment.engine.result import Result, TableResult

LISTED_TABLES = 40
"""Tables that are listed one by one; with more of them those with something to say go first."""
LISTED_TEXTS = 20
"""Different errors, and different reasons for rows that stay, that are told; a page about the run has more."""


def print_report(result: Result, what: str = "Sync") -> None:
    """Print tables, errors with their texts, and a last line that sums up."""
    from rich.console import Console

    # By way of a text, as a reader that has gone away must not end the command.
    text = io.StringIO()
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=text, force_terminal=on_terminal, highlight=False, width=None if on_terminal else 160)
    _print_tables(console, result.tables)
    _print_errors(console, result)
    _print_left_out(console, result.tables)
    _print_kept(console, result.tables)
    for part in (*result.sources, *result.destinations):
        if part.error:
            console.print(f"{part.plugin}: {part.error}", style="red", markup=False, soft_wrap=True)
    console.print(_last_line(result, what), style="bold", markup=False, soft_wrap=True)
    say(text.getvalue().removesuffix("\n"))


def _print_tables(console: Console, tables: list[TableResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    telling = [row for row in tables if row.errors or row.stale_kept_reason or not row.complete]
    shown = tables if len(tables) <= LISTED_TABLES else telling[:LISTED_TABLES]
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
        others = [f"{len(telling) - len(shown):,} more like these"] if len(telling) > len(shown) else []
        others += [f"{len(tables) - len(telling):,} complete tables"] if len(tables) > len(telling) else []
        _line(console, f"… and {' and '.join(others)}", "")


def _state(row: TableResult) -> str:
    if row.complete and row.rows_rejected == 0:
        return "[green]complete[/green]"
    if row.published:
        return "[yellow]incomplete[/yellow]"
    return "[red]not published[/red]"


def _print_errors(console: Console, result: Result) -> None:
    """Print errors; those that say the same are one, and so is that of a destination as a whole."""
    found = errors_alike(result.tables, {part.name: part.error for part in result.destinations})
    for group in found[:LISTED_TEXTS]:
        if len(group.tables) == 1 and len(group.clients) < 2:
            times = f" ({group.count:,} times)" if group.count > 1 else ""
            _line(console, f"error in {group.place}: {group.text}{times}", "red")
            continue
        tables = f"{len(group.tables):,} tables" if len(group.tables) > 1 else "one table"
        where = f"{tables} and {len(group.clients):,} clients" if len(group.clients) > 1 else tables
        _line(console, f"{group.count:,} errors alike in {where}, the first in {group.place}: {group.text}", "red")
    _print_rest(console, len(found), "errors")


def _print_left_out(console: Console, tables: Sequence[TableResult]) -> None:
    """Print of each table what else went not as it was meant."""
    found = []
    for row in tables:
        where = f"{row.source} → {row.destination} {row.table}"
        if row.rows_rejected:
            found.append(f"{where}: {row.rows_rejected:,} rows were left out")
        for each in row.expectations:
            if not each.ok and each.severity == "warn":
                found.append(f"{where}: `expect` is not kept: {each.rule}, found {each.found}")
    for text in found[:LISTED_TEXTS]:
        _line(console, text, "yellow")
    _print_rest(console, len(found), "of these")


def _print_kept(console: Console, tables: Sequence[TableResult]) -> None:
    """Print which tables kept old rows, how many, and why."""
    found = kept_alike(tables)
    for group in found[:LISTED_TEXTS]:
        where = group.place if group.count == 1 else f"{group.count:,} tables, the first {group.place}"
        _line(console, f"{where}: stale rows are kept ({rows_kept(group)}): {group.text}", "yellow")
    _print_rest(console, len(found), "reasons")


def _print_rest(console: Console, count: int, what: str) -> None:
    if count > LISTED_TEXTS:
        _line(console, f"… and {count - LISTED_TEXTS:,} more {what}; `catchment report` has them", "")


def _line(console: Console, text: str, style: str) -> None:
    console.print(text, style=style or None, markup=False, soft_wrap=True)


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
