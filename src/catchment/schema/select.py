"""Which tables a sync takes: `tables`, `skip_tables`, `skip_dependent_tables`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catchment.errors import Problem, SpecError, did_you_mean
from catchment.schema.table import Table


@dataclass(frozen=True, slots=True)
class Selection:
    """Globs of table names, as in a source's config; only `*` is special."""

    tables: tuple[str, ...] = ("*",)
    skip_tables: tuple[str, ...] = ()
    skip_dependent_tables: bool = True
    """Whether a child table needs to be named itself."""


def matches(pattern: str, name: str) -> bool:
    """Whether `name` matches the glob: `*` stands for any run of characters, none too; all else for itself."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - at >= len(last) and name.endswith(last)


def select(tables: Sequence[Table], selection: Selection) -> tuple[Table, ...]:
    """The selected ones of `tables`, which come parents first, in their order.

    A skipped table goes with all below it; a selected child brings its parents along, not its siblings. Raises
    `SpecError` for every pattern that matches nothing.
    """
    names = [table.name for table in tables]
    problems = [
        Problem(
            f"{key} include a pattern {pattern} with no matches",
            path=f"spec.{key}[{index}]",
            hint=did_you_mean(pattern, names) or "the source has no tables",
        )
        for key, patterns in (("tables", selection.tables), ("skip_tables", selection.skip_tables))
        for index, pattern in enumerate(patterns)
        if not any(matches(pattern, name) for name in names)
    ]
    if problems:
        raise SpecError(problems)
    skipped: set[str] = set()
    wanted: set[str] = set()
    for table in tables:
        if table.parent in skipped or any(matches(pattern, table.name) for pattern in selection.skip_tables):
            skipped.add(table.name)
        elif any(matches(pattern, table.name) for pattern in selection.tables) or (
            table.parent in wanted and not selection.skip_dependent_tables
        ):
            wanted.add(table.name)
    for table in reversed(tables):
        if table.name in wanted and table.parent:
            wanted.add(table.parent)
    return tuple(table for table in tables if table.name in wanted)
