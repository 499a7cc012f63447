"""How a forced migration turns a column of one type into another, and which values it would change."""

from __future__ import annotations

import re

from catchment.sdk import sql

_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64}
_EXACT = 2**53
"""Whole numbers up to this are all doubles."""


def conversion(before: str, after: str) -> sql.Conversion | None:
    """How MySQL turns one type into another; it would round, and take `12x` for 12, without a word."""
    if before == "tinyint(1)":
        if after == "longtext":
            return sql.Conversion("case {0} when 1 then 'true' when 0 then 'false' end", "{0} in (0, 1)")
        return sql.Conversion("{0}", "{0} >= 0") if _range(after) else None
    if before == "longtext":
        return _from_text(after)
    if after == "longtext":
        return _to_text(before)
    if _range(before) is not None or before.startswith("decimal"):
        return _from_number(after)
    if before == "float" and after == "double":
        return sql.Conversion("{0} + 0e0")
    if before in ("float", "double") and _range(after) is not None:
        return sql.Conversion("{0}", f"{{0}} = floor({{0}}) and abs({{0}}) <= {_EXACT} and {_between(after)}")
    return None


def _from_text(after: str) -> sql.Conversion | None:
    if after == "tinyint(1)":
        return sql.Conversion("{0} = 'true'", "binary {0} in ('true', 'false')")
    if after == "json":
        return sql.Conversion("{0}", "json_valid({0})")
    if _range(after) is not None:
        digits = "{0} regexp '^(0|-?[1-9][0-9]{{0,17}})$'"
        return sql.Conversion("{0}", f"{digits} and {_between(after, 'cast({0} as signed)')}")
    return None


def _to_text(before: str) -> sql.Conversion | None:
    if before in ("float", "double"):
        return sql.Conversion("cast({0} + 0e0 as char)")
    if before == "json":
        return sql.Conversion("convert({0} using utf8mb4)")
    known = _range(before) is not None or before.startswith(("decimal", "date", "time"))
    return sql.Conversion("cast({0} as char)") if known else None


def _from_number(after: str) -> sql.Conversion | None:
    """From whole numbers and decimals."""
    if after == "tinyint(1)":
        return sql.Conversion("{0}", "{0} in (0, 1)")
    if _range(after) is not None:
        return sql.Conversion("{0}", f"{{0}} = floor({{0}}) and {_between(after)}")
    if after == "double":
        return sql.Conversion("{0}", f"{{0}} = floor({{0}}) and abs({{0}}) <= {_EXACT}")
    decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", after)
    if decimal is None:
        return None
    digits, scale = int(decimal[1]), int(decimal[2])
    return sql.Conversion("{0}", f"round({{0}}, {scale}) = {{0}} and abs({{0}}) < {10 ** (digits - scale)}")


def _range(kind: str) -> tuple[int, int] | None:
    """The least and the largest value of a type of whole numbers."""
    word, _, sign = kind.partition(" ")
    if word not in _BITS:
        return None
    bits = _BITS[word]
    return (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _between(kind: str, value: str = "{0}") -> str:
    low, high = _range(kind) or (0, 0)
    return f"{value} between {low} and {high}"
