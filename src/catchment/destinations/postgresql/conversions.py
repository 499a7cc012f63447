"""How a forced migration turns a column of one type into another, and which values it would change.

Where a cast fails the value does not fit either: `catchment.sdk.sql.obstacle` takes the error for the answer.
"""

from __future__ import annotations

import re

from catchment.sdk import sql

_WHOLE = ("smallint", "integer", "bigint")
_FLOATS = ("real", "double precision")
_MOMENTS = {"date", "timestamp without time zone"}
_DAY, _CLOCK = "[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}", "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{{1,6}})?"
_FITTING_TEXTS = {
    "boolean": "{0} in ('true', 'false')",
    "date": f"{{0}} ~ '^{_DAY}$' and {{0}}::date is not null",
    "time without time zone": f"{{0}} ~ '^{_CLOCK}$' and {{0}}::time is not null",
    "timestamp without time zone": f"{{0}} ~ '^{_DAY}[T ]{_CLOCK}Z?$' and {{0}}::timestamp is not null",
    "uuid": "({0}::uuid)::text = lower({0})",
    "jsonb": "{0}::jsonb is not null",
    "inet": "{0}::inet is not null",
    "macaddr": "{0}::macaddr is not null",
    **{kind: f"({{0}}::{kind})::text = {{0}}" for kind in _WHOLE},
    **{kind: f"({{0}}::{kind})::text::numeric = {{0}}::numeric" for kind in _FLOATS},
}
_OTHERS = {
    ("date", "timestamp without time zone"): sql.Conversion("{0}::timestamp", "{0}::timestamp is not null"),
    ("timestamp without time zone", "date"): sql.Conversion("{0}::date", "{0}::date::timestamp = {0}"),
    ("timestamp with time zone", "timestamp without time zone"): sql.Conversion("{0} at time zone 'UTC'"),
    ("json", "jsonb"): sql.Conversion("{0}::jsonb", "{0}::jsonb is not null"),
    ("cidr", "inet"): sql.Conversion("{0}::inet"),
    ("real", "double precision"): sql.Conversion("{0}::double precision"),
    ("double precision", "real"): sql.Conversion("{0}::real", "({0}::real)::double precision = {0}"),
}


def conversion(before: str, after: str) -> sql.Conversion | None:
    """How PostgreSQL turns values of one type into another; None where it does not, or only by changing them."""
    if after == "text":
        return _to_text(before)
    if before == "text" or before.startswith("character varying"):
        return _from_text(after)
    if (before, after) in _OTHERS:
        return _OTHERS[before, after]
    if before == "boolean" and _is_number(after):
        return sql.Conversion(f"{{0}}::integer::{after}", f"{{0}}::integer::{after} is not null")
    if after == "boolean" and _is_number(before):
        return sql.Conversion("({0} = 1)", "{0} in (0, 1)")
    if before.endswith("[]") and after.endswith("[]"):
        return _between_arrays(before.removesuffix("[]"), after.removesuffix("[]"))
    return _between_numbers(before, after) if _is_number(before) and _is_number(after) else None


def _between_arrays(before: str, after: str) -> sql.Conversion | None:
    """Arrays become each other as a whole; what comes back as it was fits."""
    if not (_is_number(before) and _is_number(after)) and {before, after} != _MOMENTS:
        return None
    return sql.Conversion(f"{{0}}::{after}[]", f"({{0}}::{after}[])::{before}[] = {{0}}")


def _to_text(before: str) -> sql.Conversion:
    if before == "bytea":
        return sql.Conversion("translate(encode({0}, 'base64'), E'\\n', '')")
    return sql.Conversion("array_to_json({0})::text" if before.endswith("[]") else "{0}::text")


def _from_text(after: str) -> sql.Conversion | None:
    is_decimal = _is_number(after) and after not in (*_WHOLE, *_FLOATS)
    fits = f"{{0}}::numeric::{after} = {{0}}::numeric" if is_decimal else _FITTING_TEXTS.get(after)
    return sql.Conversion(f"{{0}}::{after}", fits) if fits is not None else None


def _between_numbers(before: str, after: str) -> sql.Conversion:
    # The number that is shown: a float has more binary digits than its decimal ones say.
    exact = "{0}::text::numeric" if before in _FLOATS else "{0}::numeric"
    value = f"{exact}::{after}"
    return sql.Conversion(value, f"({value})::text::numeric = {exact}" if after in _FLOATS else f"{value} = {exact}")


def _is_number(name: str) -> bool:
    return name in (*_WHOLE, *_FLOATS) or bool(re.fullmatch(r"numeric(\(\d+,-?\d+\))?", name))
