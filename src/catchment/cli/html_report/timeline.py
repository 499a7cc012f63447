"""When which table was read: bars on lanes, as many lanes as tables ran side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catchment.cli.html_report.elements import Html, join, section, span, tag
from catchment.cli.report import go_duration

if TYPE_CHECKING:
    from catchment.engine.result import Result

_STEPS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Seconds between the lines of longer syncs; below a minute the steps are 1, 2 and 5 times a power of ten."""
NARROWEST = 0.4
"""Per cent of the width that a bar has at least, so that it can be seen."""
LABELLED = 5.0
"""Per cent of the width from which a bar has its name in it."""
_HEIGHTS = ((12, 26), (30, 16), (10**6, 7))
"""Up to so many lanes, a lane is so many pixels high."""


@dataclass(slots=True)
class _Bar:
    name: str
    start: float
    """Seconds from the start of the sync."""
    read: float
    written: float
    errors: bool
    lane: int = 0


def timeline(result: Result) -> Html:
    """The section; tables without rows have no place in time."""
    bars = _bars(result)
    total = (result.ended - result.started).total_seconds() if result.ended is not None else 0.0
    if not bars or total <= 0:
        return Html("")
    legend = tag(
        "p",
        tag("i", class_="key read"), "reading, from the first rows to the last ",
        tag("i", class_="key written"), "seconds of writing, drawn from the same start",
        class_="dim",
    )  # fmt: skip
    parts = [_lanes(name, source, total) for name, source in bars.items()]
    unseen = len({(row.source, row.table) for row in result.tables}) - sum(len(source) for source in bars.values())
    if unseen:
        words = "1 table gave no rows and is" if unseen == 1 else f"{unseen:,} tables gave no rows and are"
        parts.append(tag("p", f"{words} not shown.", class_="dim"))
    return section("Timeline", legend, *parts, id_="timeline")


def _bars(result: Result) -> dict[str, list[_Bar]]:
    """The tables of each source, by their start; of several destinations the slowest counts."""
    found: dict[tuple[str, str], _Bar] = {}
    for row in result.tables:
        if row.started is None:
            continue
        start = max((row.started - result.started).total_seconds(), 0.0)
        bar = found.setdefault((row.source, row.table), _Bar(row.table, start, row.seconds_read, 0.0, False))
        bar.written = max(bar.written, row.seconds_written)
        bar.errors = bar.errors or bool(row.errors)
    sources: dict[str, list[_Bar]] = {}
    for (source, _), bar in sorted(found.items(), key=lambda item: item[1].start):
        sources.setdefault(source, []).append(bar)
    return sources


def _lanes(source: str, bars: list[_Bar], total: float) -> Html:
    free: list[float] = []
    for bar in bars:
        # A bar goes onto the first lane that is free by then, which keeps the picture low.
        end = bar.start + max(bar.read, bar.written, total * NARROWEST / 100)
        bar.lane = next((lane for lane, until in enumerate(free) if until <= bar.start), len(free))
        free[bar.lane : bar.lane + 1] = [end]
    height = next(height for lanes, height in _HEIGHTS if len(free) <= lanes)
    drawn = join((*_ticks(total), *(_drawn(bar, total, height) for bar in bars)))
    return join(
        (
            tag("h3", source),
            tag(
                "div",
                tag("div", drawn, class_="lanes", style=f"height:{len(free) * height + 22}px"),
                class_="chart",
            ),
        )
    )


def _drawn(bar: _Bar, total: float, height: int) -> Html:
    longest = max(bar.read, bar.written)
    width = max(longest / total * 100, NARROWEST)
    left = min(bar.start / total * 100, 100 - NARROWEST)
    title = f"{bar.name}: from {span(bar.start)}, read for {span(bar.read)}, written for {span(bar.written)}"
    parts = [
        tag("i", class_=word, style=f"width:{seconds / longest * 100 if longest else 100:.1f}%")
        for word, seconds in (("read", bar.read), ("written", bar.written))
    ]
    if width >= LABELLED and height >= 16:
        parts.append(tag("span", bar.name))
    place = f"top:{bar.lane * height}px;height:{height - 2}px;left:{left:.2f}%;width:{min(width, 100 - left):.2f}%"
    return tag("div", *parts, class_="bar failed" if bar.errors else "bar", title=title, style=place)


def _ticks(total: float) -> Iterator[Html]:
    """Lines at round times, about six of them."""
    step = _step(total / 6)
    for number in range(int(total / step) + 1):
        text = f"{number * step:g} s" if number * step < 60 else go_duration(number * step).replace("m0s", "m")
        yield tag("span", text, class_="tick", style=f"left:{number * step / total * 100:.2f}%")


def _step(least: float) -> float:
    """Seconds of the smallest round step that is `least` or more."""
    if least > 20:
        return next((step for step in _STEPS if step >= least), math.ceil(least / _STEPS[-1]) * _STEPS[-1])
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
