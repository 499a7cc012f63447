"""What of a run needs a look: errors, broken rules, rows that were put aside, stale rows that stayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from catchment.cli.html_report.elements import Html, badge, folded, join, section, shortened, table, tag

if TYPE_CHECKING:
    from catchment.engine.result import Expectation, Result, TableResult

GROUPS_SHOWN = 100
NAMES_SHOWN = 12
RULES_SHOWN = 300


@dataclass(slots=True)
class _Group:
    """Errors of the same text, wherever they came from."""

    message: str
    example: str
    count: int = 0
    places: list[str] = field(default_factory=list)


def troubles(result: Result) -> Html:
    """The section; a sentence where there is nothing to say."""
    parts = [*_errors(result), *_rules(result.tables), *_rejects(result.tables), *_stale(result.tables)]
    if not parts:
        whole = result.outcome == "complete"
        parts = [tag("p", "Nothing: every table is complete." if whole else "No table has an error.", class_="dim")]
    return section("What needs a look", *parts, id_="troubles")


def place(row: TableResult) -> str:
    """A table of a source in a destination."""
    return f"{row.table} ({row.source} → {row.destination})"


def _errors(result: Result) -> Iterator[Html]:
    groups: dict[str, _Group] = {}
    for part in (*result.sources, *result.destinations):
        if part.error:
            group = groups.setdefault(part.error, _Group(part.error, part.error))
            group.count += 1
            group.places.append(part.plugin)
    for row in result.tables:
        for error in row.errors:
            group = groups.setdefault(error.message, _Group(error.message, error.first_example))
            group.count += error.count
            group.places.append(place(row) + (f" [{error.client}]" if error.client else ""))
    if not groups:
        return
    found = sorted(groups.values(), key=lambda group: -group.count)
    yield tag("h3", "Errors")
    yield join(_error(group) for group in found[:GROUPS_SHOWN])
    if len(found) > GROUPS_SHOWN:
        yield tag("p", f"… and {len(found) - GROUPS_SHOWN:,} more texts", class_="dim")


def _error(group: _Group) -> Html:
    times = f"{group.count:,} times" if group.count > 1 else "once"
    inner = [tag("pre", shortened(group.message)), tag("p", f"{times}, in {_names(group.places)}", class_="dim")]
    if group.example not in ("", group.message):
        inner.append(folded("the first of them", tag("pre", shortened(group.example))))
    return tag("article", *inner, class_="bad")


def _names(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - NAMES_SHOWN:,} more" if len(different) > NAMES_SHOWN else ""
    return ", ".join(different[:NAMES_SHOWN]) + more


def _rules(rows: Iterable[TableResult]) -> Iterator[Html]:
    broken = [(row, each) for row in rows for each in row.expectations if not each.ok]
    if broken:
        yield tag("h3", "Broken rules of expect")
        yield _rule_table(broken)


def kept_rules(result: Result) -> Html:
    """The section about the rules of `expect` that are kept; nothing where there are none."""
    kept = [(row, each) for row in result.tables for each in row.expectations if each.ok]
    if not kept:
        return Html("")
    title = "1 rule is kept" if len(kept) == 1 else f"{len(kept):,} rules are kept"
    return section("Rules of expect", folded(title, _rule_table(kept)), id_="rules")


def _rule_table(found: Sequence[tuple[TableResult, Expectation]]) -> Html:
    rows = [
        (
            place(row),
            each.rule,
            shortened(each.found),
            badge("kept", "good") if each.ok else badge("broken", "warn" if each.severity == "warn" else "bad"),
        )
        for row, each in found[:RULES_SHOWN]
    ]
    more = f"… and {len(found) - RULES_SHOWN:,} more" if len(found) > RULES_SHOWN else ""
    return join((table(("table", "rule", "found", ""), rows), tag("p", more, class_="dim") if more else Html("")))


def _rejects(rows: Iterable[TableResult]) -> Iterator[Html]:
    found = sorted((row for row in rows if row.rows_rejected), key=lambda row: -row.rows_rejected)
    if found:
        yield tag("h3", "Rows that were left out")
        yield table(("table", "rows"), [(place(row), f"{row.rows_rejected:,}") for row in found[:RULES_SHOWN]])


def _stale(rows: Iterable[TableResult]) -> Iterator[Html]:
    """Tables that kept rows that are gone at the source, by the reason; what was deleted stands beside each table."""
    kept: dict[str, list[TableResult]] = {}
    for row in rows:
        if row.stale_kept_reason:
            kept.setdefault(row.stale_kept_reason, []).append(row)
    if not kept:
        return
    yield tag("h3", "Stale rows that were kept")
    for reason, tables in list(kept.items())[:GROUPS_SHOWN]:
        known = [row.rows_stale_kept for row in tables if row.rows_stale_kept is not None]
        count = f"{sum(known):,} rows in " if known else "in "
        yield tag(
            "article",
            tag("pre", shortened(reason)),
            tag("p", f"{count}{_names([place(row) for row in tables])}", class_="dim"),
            class_="warn",
        )
    if len(kept) > GROUPS_SHOWN:
        yield tag("p", f"… and {len(kept) - GROUPS_SHOWN:,} more reasons", class_="dim")
