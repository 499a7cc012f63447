"""What is seen while a sync runs: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from catchment.cli.output import REDACTOR, say

if TYPE_CHECKING:
    from catchment.engine.result import TableResult
    from catchment.engine.sync import Sync

PLAIN_EVERY_S = 10.0
SHOWN_TABLES = 15
"""Tables of the live table: those that move, then the latest."""


@contextlib.contextmanager
def watch(sync: Sync, how: str) -> Iterator[None]:
    """Show the progress of `sync` while the body runs; all of it goes to standard error."""
    if how == "auto":
        how = "rich" if sys.stderr.isatty() else "plain"
    if how == "none":
        yield
    elif how == "rich":
        with _live(sync):
            yield
    else:
        with _lines(sync):
            yield


@contextlib.contextmanager
def _lines(sync: Sync) -> Iterator[None]:
    started = time.monotonic()

    def tell() -> None:
        tables = sync.tables()
        rows = sum(table.rows_read for table in tables)
        errors = sum(len(table.errors) for table in tables)
        seconds = time.monotonic() - started
        say(
            f"{seconds:.0f}s: {rows:,} rows of {len(tables)} tables read, {rows / seconds:,.0f} rows/s, "
            f"{errors} errors",
            err=True,
        )

    with repeating(PLAIN_EVERY_S, tell, "progress"):
        yield


@contextlib.contextmanager
def repeating(seconds: float, work: Callable[[], None], name: str) -> Iterator[None]:
    """Do `work` every so many seconds, on a thread, while the body runs."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _live(sync: Sync) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live

    view = _View(sync)
    with Live(console=Console(stderr=True), get_renderable=view.render, refresh_per_second=4, transient=True):
        yield


class _View:
    """The live table; remembers the last counts to tell rates."""

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        self._started = time.monotonic()
        self._last: dict[tuple[str, str, str], tuple[float, int, float]] = {}

    def render(self) -> Any:
        """The table as it is now."""
        from rich.table import Table

        rows = self._sync.tables()
        seconds = time.monotonic() - self._started
        view = Table(box=None, pad_edge=False, caption=self._caption(rows, seconds), caption_justify="left")
        view.add_column("table", no_wrap=True, overflow="ellipsis")
        for name in ("read", "written", "rows/s", "MB", "errors"):
            view.add_column(name, justify="right")
        moving = sorted(rows, key=lambda row: self._rate(row, seconds), reverse=True)[:SHOWN_TABLES]
        for row in moving:
            errors = sum(group.count for group in row.errors)
            name = REDACTOR.text(f"{row.source} → {row.destination}  {row.table}")
            view.add_row(
                name,
                f"{row.rows_read:,}",
                f"{row.rows_written:,}",
                f"{self._rate(row, seconds):,.0f}",
                f"{row.bytes / 1e6:,.1f}",
                f"[red]{errors}[/red]" if errors else "0",
            )
        return view

    def _caption(self, rows: list[TableResult], seconds: float) -> str:
        read = sum(row.rows_read for row in rows)
        more = f", {len(rows) - SHOWN_TABLES} more tables" if len(rows) > SHOWN_TABLES else ""
        return f"{read:,} rows read in {seconds:.0f}s{more}"

    def _rate(self, row: TableResult, now: float) -> float:
        """Rows a second since the count was looked at before, a second ago or more."""
        key = (row.source, row.destination, row.table)
        at, rows, rate = self._last.get(key, (0.0, 0, 0.0))
        if now - at >= 1.0:
            rate = (row.rows_read - rows) / (now - at)
            self._last[key] = (now, row.rows_read, rate)
        return rate
