"""How a forced migration turns a column of one type into another, and which values it would change."""

from __future__ import annotations

import re

from catchment.sdk import sql

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)")
_MOMENTS = {"DATE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"}
_TIMES = {"TIME", "TIME_NS"}
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"


def conversion(before: str, after: str) -> sql.Conversion | None:
    """How DuckDB turns one type into another; what a cast there and back does not give again does not fit."""
    cast = f"try_cast({{0}} as {after})"
    if after == "VARCHAR":
        if before == "BLOB":
            return sql.Conversion("base64({0})")
        is_nested = before.endswith("]") or before.startswith(("STRUCT", "MAP"))
        return sql.Conversion("cast(to_json({0}) as varchar)" if is_nested else "cast({0} as varchar)")
    if before == "VARCHAR":
        fits = _text_fits(after)
        return sql.Conversion(cast, f"{cast} is not null and {fits}") if fits else None
    if before == "BOOLEAN" and _NUMBER.fullmatch(after):
        return sql.Conversion(cast)
    if after == "BOOLEAN" and _NUMBER.fullmatch(before):
        return sql.Conversion(cast, "{0} in (0, 1)")
    return sql.Conversion(cast, f"try_cast({cast} as {before}) = {{0}}") if _are_alike(before, after) else None


def _are_alike(before: str, after: str) -> bool:
    """Whether values of one type may be values of the other, also in lists."""
    if before.endswith("[]") and after.endswith("[]"):
        return _are_alike(before.removesuffix("[]"), after.removesuffix("[]"))
    kinds = (_NUMBER.fullmatch, _MOMENTS.__contains__, _TIMES.__contains__)
    return any(is_one(before) and is_one(after) for is_one in kinds)


def _text_fits(after: str) -> str:
    """Whether a text says what a value of the type can hold; empty where text does not become one."""
    digits = re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", after)
    if digits:
        fraction = f"(\\.[0-9]{{{{1,{digits[1]}}}}})?" if digits[1] != "0" else ""
        return f"regexp_full_match({{0}}, '-?[0-9]+{fraction}')"
    day, zone = "[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}", "Z?"
    found = {
        "FLOAT": "regexp_full_match({0}, '-?[0-9.]{{1,6}}')",
        "DOUBLE": "regexp_full_match({0}, '-?[0-9.]{{1,15}}')",
        "BOOLEAN": "{0} in ('true', 'false')",
        "DATE": f"regexp_full_match({{0}}, '{day}')",
        "TIME": f"regexp_full_match({{0}}, '{_CLOCK}(\\.[0-9]{{{{1,6}}}})?')",
        "TIME_NS": f"regexp_full_match({{0}}, '{_CLOCK}(\\.[0-9]{{{{1,9}}}})?')",
        "TIMESTAMP": f"regexp_full_match({{0}}, '{day}[T ]{_CLOCK}(\\.[0-9]{{{{1,6}}}})?{zone}')",
        "TIMESTAMP_NS": f"regexp_full_match({{0}}, '{day}[T ]{_CLOCK}(\\.[0-9]{{{{1,9}}}})?{zone}')",
        "UUID": "cast(try_cast({0} as UUID) as varchar) = lower({0})",
        "JSON": "json_valid({0})",
    }.get(after, "")
    is_whole = re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER", after)
    return f"cast(try_cast({{0}} as {after}) as varchar) = {{0}}" if is_whole else found
