"""What differs between two runs, table by table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from catchment.engine.result import Result, TableResult

Change: TypeAlias = Literal["added", "removed", "changed", "same"]

SLOWER_BY_S = 1.0
SLOWER_BY_RATIO = 1.5
"""Seconds, and times, by which a table has to be slower or faster for that alone to be a change."""


def seconds(row: TableResult) -> float:
    """How long a table took: reading and writing go on side by side, the longer one counts."""
    return max(row.seconds_read, row.seconds_written)


def error_count(row: TableResult) -> int:
    """Errors of a table, equal ones each time that they came."""
    return sum(group.count for group in row.errors)


_MEASURES: dict[str, Callable[[TableResult], Any]] = {
    "rows_written": lambda row: row.rows_written,
    "bytes": lambda row: row.bytes,
    "seconds": seconds,
    "errors": error_count,
    "rows_rejected": lambda row: row.rows_rejected,
    "rows_stale_deleted": lambda row: row.rows_stale_deleted,
    "complete": lambda row: row.complete,
}
_JITTERS = ("bytes", "seconds")
"""What no two runs have alike."""


@dataclass(frozen=True, slots=True)
class TableChange:
    """A table in the run before and in the one after; None where a run does not have it."""

    source: str
    destination: str
    table: str
    before: TableResult | None
    after: TableResult | None

    @property
    def change(self) -> Change:
        """What became of the table; seconds alone count if they differ much."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        for name, measure in _MEASURES.items():
            if name not in _JITTERS and measure(self.before) != measure(self.after):
                return "changed"
        less, more = sorted((seconds(self.before), seconds(self.after)))
        return "changed" if more - less >= SLOWER_BY_S and more >= less * SLOWER_BY_RATIO else "same"

    @property
    def more_rows(self) -> int:
        """Rows that were written beyond those of the run before."""
        return (self.after.rows_written if self.after else 0) - (self.before.rows_written if self.before else 0)

    def to_json(self) -> dict[str, Any]:
        """Names, the change, and each measure before and after."""
        measures = {
            name: {"before": _of(measure, self.before), "after": _of(measure, self.after)}
            for name, measure in _MEASURES.items()
        }
        names = {"source": self.source, "destination": self.destination, "table": self.table}
        return {**names, "change": self.change, **measures}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs and their tables: those of the run after in its order, then those that are gone."""

    before: Result
    after: Result
    tables: list[TableChange]

    @property
    def changed(self) -> list[TableChange]:
        """The tables that differ, those whose rows changed most first."""
        found = [table for table in self.tables if table.change != "same"]
        return sorted(found, key=lambda table: -abs(table.more_rows))

    def to_json(self) -> dict[str, Any]:
        """Both runs and every table as JSON values."""
        runs = {}
        for name, result in (("before", self.before), ("after", self.after)):
            document = result.to_json()
            runs[name] = {key: document[key] for key in ("invocation_id", "started", "ended", "outcome")}
        return {**runs, "tables": [table.to_json() for table in self.tables]}


def compare(before: Result, after: Result) -> Comparison:
    """What differs between two runs; tables are told by source, destination and name."""
    old = {_key(row): row for row in before.tables}
    new = {_key(row): row for row in after.tables}
    tables = [TableChange(*key, old.get(key), new.get(key)) for key in dict.fromkeys([*new, *old])]
    return Comparison(before, after, tables)


def _key(row: TableResult) -> tuple[str, str, str]:
    return row.source, row.destination, row.table


def _of(measure: Callable[[TableResult], Any], row: TableResult | None) -> Any:
    return None if row is None else measure(row)
