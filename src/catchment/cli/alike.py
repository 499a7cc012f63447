"""Texts that say the same of many tables and clients are told once: how often, of how many, and the first of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catchment.engine.result import TableResult

_NUMBERED = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")
"""What stands for one thing only, such as a request or an account; shorter numbers, such as a status, say something."""


@dataclass(slots=True)
class Alike:
    """What was said in the same words."""

    text: str
    """The first of the texts, as it was written."""
    example: str = ""
    """The whole text of the first error."""
    place: str = ""
    """Where the first one was said."""
    count: int = 0
    clients: set[tuple[str, str]] = field(default_factory=set)
    """Each with its source."""
    tables: set[tuple[str, str]] = field(default_factory=set)
    """Each with its source."""
    places: dict[str, None] = field(default_factory=dict)
    """Tables, destinations and clients for people, in the order they came."""
    kept: list[int | None] = field(default_factory=list)
    """Of each table, how many stale rows it kept; None where that is not known."""


def place(row: TableResult) -> str:
    """A table of a source in a destination."""
    return f"{row.table} ({row.source} → {row.destination})"


def errors_alike(rows: Iterable[TableResult], gone: dict[str, str]) -> list[Alike]:
    """The errors of tables, the most frequent first; without those that are the error of a destination as a whole."""
    found: dict[str, Alike] = {}
    seen: set[tuple[str, str, str, str]] = set()
    for row in rows:
        for error in row.errors:
            if error.message == gone.get(row.destination):
                continue
            key = _words(error.message, row.table, row.source, error.client)
            group = found.setdefault(key, Alike(error.message, error.first_example, _first(row, error.client)))
            # What went wrong at the source is told once for each of its destinations.
            once = (row.source, row.table, error.client, error.message)
            group.count += 0 if once in seen else error.count
            seen.add(once)
            group.tables.add((row.source, row.table))
            group.places[place(row) + (f" [{error.client}]" if error.client else "")] = None
            if error.client:
                group.clients.add((row.source, error.client))
    return sorted(found.values(), key=lambda group: -group.count)


def kept_alike(rows: Iterable[TableResult]) -> list[Alike]:
    """The reasons for which tables kept rows that may be gone at the source."""
    found: dict[str, Alike] = {}
    for row in rows:
        if row.stale_kept_reason:
            key = _words(row.stale_kept_reason, row.table, row.source, *(error.client for error in row.errors[:1]))
            group = found.setdefault(key, Alike(row.stale_kept_reason, place=_first(row, "")))
            group.count += 1
            group.places[place(row)] = None
            group.kept.append(row.rows_stale_kept)
    return list(found.values())


def rows_kept(group: Alike) -> str:
    """How many rows the tables of a group kept, as far as it is known."""
    known = sum(count for count in group.kept if count is not None)
    if None not in group.kept:
        return f"{known:,} row{'' if known == 1 else 's'}"
    return f"{known:,} rows and an unknown number" if known else "an unknown number of rows"


def _first(row: TableResult, client: str) -> str:
    return f"{row.source} → {row.destination} {row.table}" + (f" [{client}]" if client else "")


def _words(text: str, *own: str) -> str:
    """`text` without what tells one table, client or request from another."""
    names = {part for name in own for part in (name, *re.split(r"[:/|,\s]+", name)) if part}
    if names:
        each = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        text = re.sub(rf"(?<!\w)(?:{each})(?!\w)", "\0", text)
    return _NUMBERED.sub("\0", text)
