"""The `${time:EXPR|LAYOUT}` substitution: a point in time, written in Go's reference layout."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from catchment.spec.fields import duration_s

_RELATIVE = re.compile(
    r"(?:(\d+) (nanosecond|microsecond|millisecond|second|minute|hour|day|month|year)s?|([0-9.a-zµ]+))(?: |$)"
)
_SECONDS = {"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1, "minute": 60, "hour": 3600}
_LAYOUT = {
    "2006": "%Y", "01": "%m", "02": "%d", "15": "%H", "04": "%M", "05": "%S", "06": "%y", "Jan": "%b", "January": "%B",
    "Mon": "%a", "Monday": "%A", "MST": "%Z", "PM": "%p", "03": "%I",
}  # fmt: skip
_TOKEN = re.compile("|".join(sorted(map(re.escape, _LAYOUT), key=len, reverse=True)))


def substitute(text: str, now: datetime | None = None) -> str:
    """The text for what stands behind `time:`. Raises `ValueError` for an expression that is none."""
    expression, _, layout = text.partition("|")
    moment = point(expression, now or datetime.now().astimezone())
    if not layout:
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    return _TOKEN.sub(lambda match: moment.strftime(_LAYOUT[match[0]]), layout.partition("|")[0])


def point(expression: str, now: datetime) -> datetime:
    """The point in time: `now`, a date, RFC 3339, a signed Go duration, or `N units … ago` / `… from now`."""
    if expression == "now":
        return now
    if re.fullmatch(r"\d{4}-\d\d-\d\d", expression):
        return datetime.fromisoformat(expression).replace(tzinfo=UTC)
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", expression):
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", expression))
    for ending, sign in ((" ago", -1), (" from now", 1), ("ago", -1), ("from now", 1)):
        if expression.endswith(ending):
            return _shifted(expression.removesuffix(ending), sign, now, expression)
    try:
        sign = -1 if expression.startswith("-") else 1
        return now + timedelta(seconds=sign * float(str(duration_s(expression.lstrip("+-")))))
    except ValueError:
        raise ValueError(f"invalid time format: {expression}") from None


def _shifted(text: str, sign: int, now: datetime, whole: str) -> datetime:
    seconds, days, months, at = 0.0, 0, 0, 0
    while at < len(text):
        match = _RELATIVE.match(text, at)
        if match is None:
            raise ValueError(f"invalid time format: {whole}")
        at = match.end()
        count, unit = int(match[1] or 0), match[2]
        if unit is None:
            try:
                seconds += float(str(duration_s(match[3])))
            except ValueError:
                raise ValueError(f"invalid time format: {whole}") from None
        elif unit in ("year", "month"):
            months += count * (12 if unit == "year" else 1)
        elif unit == "day":
            days += count
        else:
            seconds += count * _SECONDS[unit]
    moment = now + timedelta(seconds=sign * seconds)
    whole_months = moment.year * 12 + moment.month - 1 + sign * months
    # A day that the month does not have runs over into the next one, as in Go.
    first = moment.replace(year=whole_months // 12, month=whole_months % 12 + 1, day=1)
    return first + timedelta(days=moment.day - 1 + sign * days)
