"""The page about a run: what came of it, what needs a look, when which table ran, and every table."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from catchment.cli.html_report.elements import Html, badge, folded, join, section, size, span, tag
from catchment.cli.html_report.tables import CHANGES_SHOWN, changes, tables
from catchment.cli.html_report.timeline import timeline
from catchment.cli.html_report.troubles import kept_rules, troubles
from catchment.cli.report import counts
from catchment.engine.comparison import compare

if TYPE_CHECKING:
    from catchment.engine.comparison import Comparison
    from catchment.engine.journal import Run
    from catchment.engine.result import PluginResult, Result

TONES = {"complete": "good", "partial": "warn", "failed": "bad", "interrupted": "warn"}
_WORDS = {
    "complete": "The sync is complete",
    "partial": "The sync ended, and some tables are incomplete",
    "failed": "The sync failed",
    "interrupted": "The sync was interrupted",
}
_HERE = files("catchment.cli.html_report")


def render(run: Run, result: Result, before: Result | None) -> str:
    """The whole page; `before` is the run of the same config before it, None for the first."""
    comparison = None if before is None else compare(before, result)
    script = Html(_HERE.joinpath("script.js").read_text(encoding="utf-8"))
    body = tag(
        "main",
        _head(run, result),
        _tiles(result, before),
        troubles(result),
        _since(comparison),
        timeline(result),
        tables(result, comparison),
        kept_rules(result),
        section("Plugins", _plugins(result), id_="plugins"),
        tag("footer", f"Written by catchment from its journal; run {run.invocation_id}, catchment {run.version}."),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        # Whatever may have found its way into the page, the browser runs this script alone and fetches nothing.
        tag("meta", http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{result.outcome}: sync {run.invocation_id[:8]}, {_when(result.started)}"),
        tag("style", Html(_HERE.joinpath("style.css").read_text(encoding="utf-8"))),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, tag('body', body, tag('script', script)), lang='en')}\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment is not None else "?"


def _head(run: Run, result: Result) -> Html:
    seconds = _seconds(result)
    rate = f"{counts(result)['resources'] / max(seconds, 1.0):,.0f} rows/s"
    facts = [
        ("started", _when(result.started)),
        ("took", f"{span(seconds)} ({rate})" if seconds >= 1 else span(seconds)),
        ("run", run.invocation_id),
        ("exit code", str(run.exit_code)),
        ("config", ", ".join(run.config)),
    ]
    return tag(
        "header",
        badge(result.outcome, TONES[result.outcome]),
        tag("h1", _WORDS[result.outcome]),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts)),
    )


def _seconds(result: Result) -> float:
    return (result.ended - result.started).total_seconds() if result.ended is not None else 0.0


def _tiles(result: Result, before: Result | None) -> Html:
    """The numbers of the whole run, each with its difference from the run before."""
    now, then = _totals(result), {} if before is None else _totals(before)
    whole = sum(row.complete and not row.rows_rejected for row in result.tables)
    shown = {
        "tables complete": f"{whole:,} of {len(result.tables):,}",
        "rows read": f"{int(now['rows read']):,}",
        "rows written": f"{int(now['rows written']):,}",
        "written": size(int(now["written"])),
        "seconds": span(now["seconds"]),
        "errors": f"{int(now['errors']):,}",
        "stale rows deleted": f"{int(now['stale rows deleted']):,}",
        "rows left out": f"{int(now['rows left out']):,}",
    }
    tiles = []
    for name, text in shown.items():
        is_bad = name in ("errors", "rows left out") and now[name] > 0
        inner = [tag("b", text), tag("span", name)]
        if name in then:
            inner.append(tag("small", _difference(now[name], then[name]), class_="delta"))
        tiles.append(tag("li", *inner, class_="bad" if is_bad else None))
    return tag("ul", *tiles, class_="tiles")


def _totals(result: Result) -> dict[str, float]:
    found = counts(result)
    return {
        "rows read": found["resources"],
        "rows written": sum(row.rows_written for row in result.tables),
        "written": sum(row.bytes for row in result.tables),
        "seconds": found["seconds"],
        "errors": found["errors"],
        "stale rows deleted": sum(row.rows_stale_deleted or 0 for row in result.tables),
        "rows left out": found["warnings"],
    }


def _difference(now: float, then: float) -> str:
    if now == then:
        return "as before"
    if not then:
        return "none before"
    share = (now - then) / then
    if abs(share) < 0.001:
        return "about as before"
    return f"{share:+.1%}" if abs(share) < 10 else f"{now / then:,.0f} times as much"


def _since(comparison: Comparison | None) -> Html:
    if comparison is None:
        return section(
            "Since the run before",
            tag("p", "No earlier run of this config is in the journal.", class_="dim"),
            id_="since",
        )
    before = comparison.before
    intro = f"Compared with {before.invocation_id[:8]} of {_when(before.started)}, which was {before.outcome}."
    changed = comparison.changed
    same = len(comparison.tables) - len(changed)
    words = [(word, sum(row.change == word for row in changed)) for word in ("changed", "added", "removed")]
    summed = ", ".join(f"{count:,} {word}" for word, count in [*words, ("the same", same)] if count) or "no tables"
    parts = [tag("p", f"{intro} Tables: {summed}.")]
    if changed:
        parts.append(changes(changed[:CHANGES_SHOWN]))
    if len(changed) > CHANGES_SHOWN:
        rest = changed[CHANGES_SHOWN:]
        parts.append(folded(f"{len(rest):,} more with smaller differences", changes(rest)))
    return section("Since the run before", *parts, id_="since")


def _plugins(result: Result) -> Html:
    return join((_plugin_list("Sources", result.sources), _plugin_list("Destinations", result.destinations)))


def _plugin_list(title: str, plugins: Sequence[PluginResult]) -> Html:
    entries = [
        tag("li", badge(part.outcome, TONES[part.outcome]), " ", part.plugin,
            tag("span", f" {span(part.seconds)}" if part.seconds else "", class_="dim"))
        for part in plugins
    ]  # fmt: skip
    return join((tag("h3", title), tag("ul", *entries, class_="plain")))
