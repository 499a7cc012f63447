"""The `${time:EXPR|LAYOUT}` substitution: a point in time, written in Go's reference layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from catchment.spec.fields import duration_s

RFC3339 = "2006-01-02T15:04:05Z07:00"
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNITS_NS = {"nanosecond": 1, "ns": 1, "microsecond": 10**3, "us": 10**3, "millisecond": 10**6, "second": 10**9,
             "minute": 60 * 10**9, "hour": 3600 * 10**9}  # fmt: skip
_PART = re.compile(
    r"(?:([0-9]+) (?:(nanosecond|microsecond|millisecond|second|minute|hour|day|month|year)s?|(ns|us))|([0-9.a-zµ]+))"
    r"(?: (?=[^ ])|$)"
)
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
# In the order in which Go looks for them (`nextStdChunk` in https://go.dev/src/time/format.go).
_TOKEN = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|002|0[1-6]|15|2006|_2006|__2|_2|PM|pm"
    r"|-070000|-07:00:00|-0700|-07:00|-07|Z070000|Z07:00:00|Z0700|Z07:00|Z07|[.,](?:0+|9+)(?![0-9])|[1-5]"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, to the nanosecond."""

    at: datetime
    nanoseconds: int = 0
    """Those below a microsecond, 0 to 999."""


def substitute(text: str, now: datetime | None = None) -> str:
    """The text for what stands behind `time:`. Raises `ValueError` for an expression that is none."""
    expression, _, rest = text.partition("|")
    try:
        moment = point(expression, now)
    except (ValueError, OverflowError):
        raise ValueError(f"invalid time format: {expression}") from None
    return write(moment, rest.partition("|")[0] or RFC3339)


def write(moment: Moment, layout: str) -> str:
    """`moment` in a Go layout."""
    return _TOKEN.sub(lambda match: _written(match[0], moment), layout)


def _written(token: str, moment: Moment) -> str:
    at = moment.at
    match token:
        case "2006":
            return f"{at.year:04d}"
        case "_2006":
            return f"_{at.year:04d}"
        case "002":
            return f"{at.timetuple().tm_yday:03d}"
        case "__2":
            return f"{at.timetuple().tm_yday:3d}"
        case "MST":
            return _zone(at)
    if token[0] in ".,":
        digits = f"{at.microsecond:06d}{moment.nanoseconds:03d}".ljust(len(token) - 1, "0")[: len(token) - 1]
        shown = digits if token[1] == "0" else digits.rstrip("0")
        return f"{token[0]}{shown}" if shown else ""
    if token[0] in "-Z":
        return _offset(token, at)
    hour = at.hour % 12 or 12
    return {
        "06": f"{at.year % 100:02d}", "January": _MONTHS[at.month - 1], "Jan": _MONTHS[at.month - 1][:3],
        "01": f"{at.month:02d}", "1": str(at.month), "02": f"{at.day:02d}", "_2": f"{at.day:2d}", "2": str(at.day),
        "Monday": _DAYS[at.weekday()], "Mon": _DAYS[at.weekday()][:3], "15": f"{at.hour:02d}", "03": f"{hour:02d}",
        "3": str(hour), "04": f"{at.minute:02d}", "4": str(at.minute), "05": f"{at.second:02d}", "5": str(at.second),
        "PM": "PM" if at.hour >= 12 else "AM", "pm": "pm" if at.hour >= 12 else "am",
    }[token]  # fmt: skip


def _offset(token: str, at: datetime) -> str:
    seconds = round((at.utcoffset() or timedelta()).total_seconds())
    if token[0] == "Z" and seconds == 0:
        return "Z"
    parts = [f"{abs(seconds) // 3600:02d}", f"{abs(seconds) // 60 % 60:02d}", f"{abs(seconds) % 60:02d}"]
    count = len(token.replace(":", "")) // 2
    return ("-" if seconds < 0 else "+") + (":" if ":" in token else "").join(parts[:count])


def _zone(at: datetime) -> str:
    """The zone's abbreviation; of one that has only an offset, that: `+02`, `-0330`."""
    name = at.tzname() or ""
    if re.fullmatch(r"[A-Z]{3,5}", name):
        return name
    minutes = _offset("-0700", at)
    return minutes.removesuffix("00")


def point(expression: str, now: datetime | None = None) -> Moment:
    """The point in time: `now`, a date, RFC 3339, a Go duration, or `N units … ago` / `… from now`.

    Without `now` it is the clock's, in the zone of this computer, whose summer time is heeded. Raises `ValueError` and
    `OverflowError` for anything else.
    """
    if expression == "now":
        return Moment(now or datetime.now().astimezone())
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", expression):
        return Moment(datetime.fromisoformat(expression).replace(tzinfo=UTC))
    timestamp = _TIMESTAMP.fullmatch(expression)
    if timestamp is not None:
        digits = (timestamp[2] or "").ljust(9, "0")
        at = datetime.fromisoformat(timestamp[1] + timestamp[3])
        return Moment(at.replace(microsecond=int(digits[:6])), int(digits[6:]))
    for ending, sign in ((" ago", -1), (" from now", 1)):
        if f" {expression}".endswith(ending):
            return _shifted(f" {expression}".removesuffix(ending).lstrip(), sign, now)
    sign = -1 if expression.startswith("-") else 1
    unsigned = expression[1:] if expression[:1] in ("+", "-") else expression
    return _moved(now, 0, 0, sign * _nanoseconds(unsigned))


def _shifted(text: str, sign: int, now: datetime | None) -> Moment:
    nanoseconds, days, months, at = 0, 0, 0, 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ValueError(text)
        at = match.end()
        count, unit = int(match[1] or 0), match[2] or match[3]
        if unit is None:
            nanoseconds += _nanoseconds(match[4])
        elif unit in ("year", "month"):
            months += count * (12 if unit == "year" else 1)
        elif unit == "day":
            days += count
        else:
            nanoseconds += count * _UNITS_NS[unit]
    return _moved(now, sign * months, sign * days, sign * nanoseconds)


def _nanoseconds(text: str) -> int:
    if text.startswith(("+", "-")):
        raise ValueError(text)
    return round(float(str(duration_s(text))) * 10**9)


def _moved(now: datetime | None, months: int, days: int, nanoseconds: int) -> Moment:
    """`now` with months and days counted on the calendar, the rest on the clock."""
    start = now or datetime.now().astimezone()
    at = start
    if months or days:
        count = start.year * 12 + start.month - 1 + months
        # A day that the month does not have runs over into the next one, as in Go.
        first = start.replace(year=count // 12, month=count % 12 + 1, day=1)
        at = first + timedelta(days=start.day - 1 + days)
        if now is None:
            at = at.replace(tzinfo=None).astimezone()
    microseconds, rest = divmod(nanoseconds, 1000)
    at += timedelta(microseconds=microseconds)
    return Moment(at.astimezone() if now is None else at, rest)
