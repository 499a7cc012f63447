"""What of a run needs a look: errors, broken rules, rows that were put aside, stale rows that stayed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from catchment.cli.alike import Alike, errors_alike, kept_alike, place, rows_kept
from catchment.cli.html_report.elements import Html, badge, folded, join, section, shortened, table, tag

if TYPE_CHECKING:
    from catchment.engine.result import Expectation, Result, TableResult

GROUPS_SHOWN = 100
NAMES_SHOWN = 12
RULES_SHOWN = 300


def troubles(result: Result) -> Html:
    """The section; a sentence where there is nothing to say."""
    parts = [*_errors(result), *_rules(result.tables), *_rejects(result.tables), *_stale(result.tables)]
    if not parts:
        whole = result.outcome == "complete"
        parts = [tag("p", "Nothing: every table is complete." if whole else "No table has an error.", class_="dim")]
    return section("What needs a look", *parts, id_="troubles")


def _errors(result: Result) -> Iterator[Html]:
    wholes: dict[str, Alike] = {}
    for part in (*result.sources, *result.destinations):
        if part.error:
            group = wholes.setdefault(part.error, Alike(part.error))
            group.count += 1
            group.places[part.plugin] = None
    gone = {part.name: part.error for part in result.destinations if part.error}
    found = sorted([*wholes.values(), *errors_alike(result.tables, gone)], key=lambda group: -group.count)
    if not found:
        return
    yield tag("h3", "Errors")
    yield join(_error(group) for group in found[:GROUPS_SHOWN])
    if len(found) > GROUPS_SHOWN:
        yield tag("p", f"… and {len(found) - GROUPS_SHOWN:,} more texts", class_="dim")


def _error(group: Alike) -> Html:
    times = f"{group.count:,} times" if group.count > 1 else "once"
    clients = f" for {len(group.clients):,} clients" if len(group.clients) > 1 else ""
    inner = [
        tag("pre", shortened(group.text)),
        tag("p", f"{times}{clients}, in {_names(list(group.places))}", class_="dim"),
    ]
    if group.example not in ("", group.text):
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
    kept = kept_alike(rows)
    if not kept:
        return
    yield tag("h3", "Stale rows that were kept")
    for group in kept[:GROUPS_SHOWN]:
        yield tag(
            "article",
            tag("pre", shortened(group.text)),
            tag("p", f"{rows_kept(group)} in {_names(list(group.places))}", class_="dim"),
            class_="warn",
        )
    if len(kept) > GROUPS_SHOWN:
        yield tag("p", f"… and {len(kept) - GROUPS_SHOWN:,} more reasons", class_="dim")
