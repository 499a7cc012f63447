"""`expect` and `max_stale_ratio`: what a table's rows have to keep, asked of the destination.

Staged rows are asked about before they become visible, so that a broken rule leaves the last good state; rows that are
visible as they come are asked about afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catchment.engine.result import Expectation
from catchment.errors import PluginError, did_you_mean
from catchment.plugin import DestinationPlugin, Measure
from catchment.schema.internal import CQ_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME
from catchment.schema.select import matches
from catchment.schema.table import Table

if TYPE_CHECKING:
    from catchment.engine.target import Target
    from catchment.spec.model import Rules


@dataclass(frozen=True, slots=True)
class Question:
    """One rule about one table: what is asked, and whether an answer keeps it."""

    rule: str
    """As the report names it, such as `rows min 10`."""
    measure: Measure
    keeps: Callable[[int], bool]
    shown: Callable[[int], str] = str
    """What was found, for people."""


@dataclass(slots=True)
class Expectations:
    """The rules of one destination, for the rows of one source."""

    destination: DestinationPlugin
    source_name: str
    sync_time: datetime
    rules: Mapping[str, Rules] = field(default_factory=dict)
    """By glob of the table's name."""
    max_stale_ratio: float | None = None
    before: dict[str, int] = field(default_factory=dict)
    """Rows of the source that were there before the sync, by name of the live table; where they are needed."""

    def note(self, live: Table) -> None:
        """Count what is there before rows become visible one by one. Raises `PluginError`."""
        if any(rules.rows is not None and rules.rows.change is not None for rules in self._of(live)):
            self.before[live.name] = self._count(live)

    def unexpected(self, staged: Iterable[Target], incomplete: Mapping[str, str]) -> dict[str, str]:
        """Source's tables whose new rows are not as they have to be, or would take too many old ones with them."""
        reasons: dict[str, str] = {}
        for target in staged:
            if target.failed:
                continue
            try:
                # Nothing is deleted from a table that was not read to its end.
                reason = self._check(target) or ("" if target.source.name in incomplete else self._check_stale(target))
            except PluginError as error:
                reason = f"what is expected of it could not be checked: {error}"
            if reason:
                target.result.add_error("", reason)
                reasons[target.source.name] = reason
        return reasons

    def look_at(self, visible: Iterable[Target]) -> None:
        """Ask about tables whose rows are visible already."""
        for target in visible:
            reason = "" if target.failed else self._check(target)
            if reason:
                target.result.add_error("", reason)

    def keeps_stale(self, target: Target) -> bool:
        """Whether the stale rows of a table stay though it was read to its end, as they are too many."""
        try:
            reason = self._check_stale(target)
        except PluginError as error:
            reason = f"how much would be deleted could not be found out: {error}"
        if reason:
            target.result.stale_kept_reason = reason
            target.result.add_error("", reason)
        return bool(reason)

    def _check(self, target: Target) -> str:
        """Ask about a table and note every answer in its result; the rules that are broken."""
        broken = []
        for rules in self._of(target.live):
            for name, ok, found in self._answers(target, rules):
                target.result.expectations.append(Expectation(name, ok, rules.severity, found))
                if not ok and rules.severity == "error":
                    broken.append(f"`expect` is broken: {name}, found {found}")
        return "; ".join(broken)

    def _check_stale(self, target: Target) -> str:
        """Why too much of a table would be deleted; empty if that is not so, or nobody asked."""
        if self.max_stale_ratio is None:
            return ""
        live = target.live
        there = self._count(live)
        if not there:
            return ""
        gone = self._gone(target, there)
        if gone <= there * self.max_stale_ratio:
            return ""
        return (
            f"{gone:,} of its {there:,} rows would be deleted as stale, more than `max_stale_ratio` "
            f"{self.max_stale_ratio:g} allows; if they are gone at the source, raise it for one sync or leave it out"
        )

    def _gone(self, target: Target, there: int) -> int:
        live, keys = target.live, target.live.primary_keys
        if not target.staged:
            moment = pa.scalar(self.sync_time, live.column(CQ_SYNC_TIME).type)
            return self._ask(live, Measure("older", CQ_SYNC_TIME, (moment,)))
        if keys and keys != (CQ_ID,):
            return self._ask(live, Measure("absent", other=target.written.name), keys=keys)
        # Rows that nothing tells apart from those of the last sync: only their number does.
        return max(there - self._ask(target.written, Measure("rows"), source_name=""), 0)

    def _of(self, live: Table) -> Iterator[Rules]:
        for glob, rules in self.rules.items():
            if matches(glob, live.name):
                yield rules

    def _answers(self, target: Target, rules: Rules) -> Iterator[tuple[str, bool, str]]:
        asked = target.written
        # A staged table holds this sync's rows only.
        source_name = "" if target.staged else self.source_name
        try:
            questions = list(self._questions(target, rules))
            found = self.destination.measure(
                asked, [each.measure for each in questions], keys=target.live.primary_keys, source_name=source_name
            )
        except PluginError as error:
            yield "all rules", False, f"that they cannot be checked: {error}"
            return
        for question, count in zip(questions, found, strict=True):
            yield question.rule, question.keeps(count), question.shown(count)

    def _questions(self, target: Target, rules: Rules) -> Iterator[Question]:
        if rules.rows is not None:
            yield from self._about_rows(target, rules)
        for name in rules.not_null:
            self._column(target, name)
            yield Question(f"not_null {name}", Measure("nulls", name), _is_none, _rows("without a value"))
        for name in rules.unique:
            self._column(target, name)
            yield Question(
                f"unique {name}", Measure("duplicates", name), _is_none, _rows("with a value of another row")
            )
        if rules.fresh is not None:
            limit = self.sync_time - timedelta(seconds=rules.fresh.within)
            moment = _moment(limit, self._column(target, rules.fresh.column), rules.fresh.column)
            yield Question(
                f"fresh {rules.fresh.column} within {timedelta(seconds=rules.fresh.within)}",
                Measure("newer", rules.fresh.column, (moment,)),
                bool,
                _rows(f"from {limit:%FT%TZ} or later"),
            )
        for name, values in rules.values.items():
            allowed = tuple(_value(value, self._column(target, name), name) for value in values)
            yield Question(f"values {name}", Measure("others", name, allowed), _is_none, _rows("with another value"))

    def _about_rows(self, target: Target, rules: Rules) -> Iterator[Question]:
        assert rules.rows is not None
        least, most, change = rules.rows.min, rules.rows.max, rules.rows.change
        if least is not None:
            yield Question(f"rows min {least}", Measure("rows"), lambda count: count >= least, _rows())
        if most is not None:
            yield Question(f"rows max {most}", Measure("rows"), lambda count: count <= most, _rows())
        if change is not None:
            before = self._count(target.live) if target.staged else self.before.get(target.live.name, 0)
            yield Question(
                f"rows change {change:.0%}",
                Measure("rows"),
                # The first sync has nothing to be held against.
                lambda count: not before or abs(count - before) <= change * before,
                lambda count: f"{_rows()(count)}, {before:,} before",
            )

    def _count(self, live: Table) -> int:
        """Rows of the source in the live table; 0 where it is not there, or nobody signed its rows."""
        have = self.destination.stored_table(live.name)
        return self._ask(live, Measure("rows")) if have is not None and CQ_SOURCE_NAME in have else 0

    def _ask(self, table: Table, measure: Measure, *, keys: Sequence[str] = (), source_name: str | None = None) -> int:
        name = self.source_name if source_name is None else source_name
        return self.destination.measure(table, [measure], keys=keys, source_name=name)[0]

    def _column(self, target: Target, name: str) -> pa.DataType:
        if name not in target.live:
            raise PluginError(
                f"table `{target.live.name}` has no column `{name}`", hint=did_you_mean(name, target.live.column_names)
            )
        return target.live.column(name).type


def _is_none(count: int) -> bool:
    return count == 0


def _rows(what: str = "") -> Callable[[int], str]:
    return lambda count: f"{count:,} row{'' if count == 1 else 's'} {what}".rstrip()


def _moment(limit: datetime, kind: pa.DataType, name: str) -> pa.Scalar:
    if pa.types.is_timestamp(kind):
        return pa.scalar(limit if kind.tz else limit.astimezone(UTC).replace(tzinfo=None), pa.timestamp("us", kind.tz))
    if pa.types.is_date(kind):
        return pa.scalar(limit.date(), pa.date32())
    raise PluginError(f"column `{name}` is {kind}, which is no time or date that `fresh` could be told by")


def _value(value: Any, kind: pa.DataType, name: str) -> pa.Scalar:
    try:
        made = pa.scalar(value)
        return made if made.type.equals(kind) else made.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise PluginError(f"`values` of column `{name}` has {value!r}, which is no {kind}") from error
