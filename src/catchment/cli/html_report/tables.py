"""Every table of a run with its numbers as bars, and those that differ from the run before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catchment.cli.html_report.elements import Html, badge, section, size, span, table, tag
from catchment.engine.comparison import error_count, seconds

if TYPE_CHECKING:
    from catchment.engine.comparison import Comparison, TableChange
    from catchment.engine.result import Result, TableResult

CHANGES_SHOWN = 15
FIRST_SHOWN = 50
"""Tables that are shown at once where there are more; a click shows the rest, and the filter looks at all."""

_HEAD = (
    ("table", "text"), ("state", "text"), ("read", "number"), ("written", "number"), ("size", "number"),
    ("seconds", "number"), ("stale deleted", "number"), ("since before", "number"),
)  # fmt: skip


def tables(result: Result, comparison: Comparison | None) -> Html:
    """The section: tables with something to say first, then those with the most rows."""
    rows = sorted(result.tables, key=lambda row: (_is_good(row), -row.rows_written, row.table))
    changed = {} if comparison is None else {(it.source, it.destination, it.table): it for it in comparison.tables}
    most = (
        max((row.rows_written for row in rows), default=0),
        max((row.bytes for row in rows), default=0),
        max((seconds(row) for row in rows), default=0.0),
    )
    routes = {(row.source, row.destination) for row in rows}
    lines = [
        _row(row, changed.get((row.source, row.destination, row.table)), most, len(routes) > 1, number >= FIRST_SHOWN)
        for number, row in enumerate(rows)
    ]
    heads = [
        tag("th", tag("button", name, type="button"), class_=kind, data_sort=str(number))
        for number, (name, kind) in enumerate(_HEAD)
    ]
    tools = tag(
        "p",
        tag("input", type="search", id="filter", placeholder="Filter by name", aria_label="Filter by name"),
        tag("label", tag("input", type="checkbox", id="only"), " only those with something to say"),
        tag("button", f"Show all {len(rows):,}", type="button", id="all") if len(rows) > FIRST_SHOWN else "",
        tag("span", class_="dim", id="shown"),
        class_="tools",
    )
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), id="rows")
    return section(f"Tables ({len(rows):,})", tools, tag("div", body, class_="scroll"), id_="tables")


def _is_good(row: TableResult) -> bool:
    return row.complete and not (row.rows_rejected or row.errors or row.stale_kept_reason)


def _row(
    row: TableResult, change: TableChange | None, most: tuple[int, int, float], shows_route: bool, is_later: bool
) -> Html:
    name = [tag("b", row.table)]
    notes = ([f"{row.source} → {row.destination}"] if shows_route else []) + (
        [f"of {row.parent}"] if row.parent else []
    )
    if notes:
        name.append(tag("small", ", ".join(notes)))
    stale = row.rows_stale_deleted
    times = f"read for {span(row.seconds_read)}, written for {span(row.seconds_written)}"
    return tag(
        "tr",
        tag("td", *name),
        tag("td", _state(row)),
        tag("td", f"{row.rows_read:,}", data_v=str(row.rows_read)),
        tag("td", f"{row.rows_written:,}", _bar(row.rows_written, most[0]), data_v=str(row.rows_written)),
        tag("td", size(row.bytes), _bar(row.bytes, most[1]), data_v=str(row.bytes)),
        tag("td", span(seconds(row)), _bar(row.seconds_read, most[2], "read"),
            _bar(row.seconds_written, most[2], "written"), data_v=f"{seconds(row):.3f}", title=times),
        tag("td", "" if stale is None else f"{stale:,}", data_v=str(stale or 0)),
        _since(change),
        class_=" ".join(word for word, holds in (("more", is_later), ("say", not _is_good(row))) if holds) or None,
    )  # fmt: skip


def _bar(value: float, most: float, kind: str = "written") -> Html:
    if not value or not most:
        return Html("")
    return tag("i", class_=kind, style=f"width:{max(value / most * 100, 0.5):.1f}%")


def _state(row: TableResult) -> Html:
    if row.complete and not row.rows_rejected:
        return badge("complete", "good") if _is_good(row) else badge("complete", "warn")
    return badge("incomplete", "warn") if row.published else badge("not published", "bad")


def _since(change: TableChange | None) -> Html:
    if change is None:
        return tag("td", "", data_v="0")
    text = "new" if change.change == "added" else f"{change.more_rows:+,}" if change.more_rows else "="
    return tag("td", text, data_v=str(change.more_rows), class_=None if change.more_rows else "dim")


def changes(changed: Sequence[TableChange]) -> Html:
    """A table of what differs."""
    return table(
        ("table", "", "rows written", "seconds", "errors", "stale deleted"),
        [_changed(row) for row in changed],
        "numbers",
    )


def _changed(change: TableChange) -> Sequence[str]:
    name = f"{change.table} ({change.source} → {change.destination})"
    before, after = change.before, change.after
    if before is None or after is None:
        row = after or before
        assert row is not None
        word = badge(change.change, "good" if after is not None else "warn")
        stale = "" if row.rows_stale_deleted is None else f"{row.rows_stale_deleted:,}"
        return name, word, f"{row.rows_written:,}", span(seconds(row)), f"{error_count(row):,}", stale
    word = Html("")
    if before.complete != after.complete:
        word = badge("complete now", "good") if after.complete else badge("incomplete now", "bad")
    more = f" ({change.more_rows:+,})" if change.more_rows else ""
    return (
        name,
        word,
        _both(f"{before.rows_written:,}", f"{after.rows_written:,}") + more,
        _both(span(seconds(before)), span(seconds(after))),
        _both(f"{error_count(before):,}", f"{error_count(after):,}"),
        _both(f"{before.rows_stale_deleted or 0:,}", f"{after.rows_stale_deleted or 0:,}"),
    )


def _both(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"
