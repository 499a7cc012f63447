"""Types of JSON values: what holds those of two blocks, and which are better kept as JSON text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

FIELDS = 500
"""Keys that an object may have, those inside it counted; one with more is a mapping whose keys are values."""

_EXACT = 1 << 53
"""Whole numbers up to this one are exact as float64 too."""


def merged(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds values of both; None if there is none but JSON text."""
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if is_number(one) and is_number(other):
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        value = merged(one.value_type, other.value_type)
        return None if value is None else pa.list_(value)
    if not (pa.types.is_struct(one) and pa.types.is_struct(other)):
        return None
    kinds = {field.name: field.type for field in one}
    for field in other:
        kind = merged(kinds.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        kinds[field.name] = kind
    return pa.struct(list(kinds.items()))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def leaves(kind: pa.DataType) -> Iterable[pa.DataType]:
    """The types at the bottom; an object without keys is one."""
    if pa.types.is_list(kind):
        yield from leaves(kind.value_type)
    elif pa.types.is_struct(kind) and kind.num_fields:
        for field in kind:
            yield from leaves(field.type)
    else:
        yield kind


def is_storable(kind: pa.DataType) -> bool:
    """Whether a table's column can have the type: objects have keys, and not too many."""
    found = list(leaves(kind))
    return len(found) <= FIELDS and not any(pa.types.is_struct(leaf) for leaf in found)


def has_leaf(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether `wanted` is at the bottom."""
    return any(leaf.equals(wanted) for leaf in leaves(kind))


def as_text(kind: pa.DataType, *, nulls: bool) -> pa.DataType:
    """`kind` with text for moments, as they are strings in JSON, and with `nulls` for what has no value at all."""
    if pa.types.is_list(kind):
        return pa.list_(as_text(kind.value_type, nulls=nulls))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, as_text(field.type, nulls=nulls)) for field in kind])
    return pa.utf8() if pa.types.is_timestamp(kind) or (nulls and pa.types.is_null(kind)) else kind


def clashing(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Keys whose values are of different kinds, at any depth."""
    seen: dict[tuple[str, ...], str] = {}
    found: set[str] = set()

    def look(path: tuple[str, ...], value: Any) -> None:
        if value is None:
            return
        kind = "number" if type(value) in (int, float) else type(value).__name__
        if seen.setdefault(path, kind) != kind:
            found.add(path[0])
        elif isinstance(value, dict):
            for key, inner in value.items():
                look((*path, key), inner)
        elif isinstance(value, list):
            for inner in value:
                look((*path, "[]"), inner)

    for row in rows:
        for key, value in row.items():
            if key not in found:
                look((key,), value)
    return found


def is_inexact(value: Any) -> bool:
    """Whether a whole number in `value` changes as float64."""
    if isinstance(value, dict):
        return any(is_inexact(inner) for inner in value.values())
    if isinstance(value, list):
        return any(is_inexact(inner) for inner in value)
    return isinstance(value, int) and not -_EXACT <= value <= _EXACT
