"""From a dataclass, a pydantic model or an Arrow schema to columns: names, types and descriptions at once."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import decimal
import inspect
import ipaddress
import itertools
import textwrap
import types as python_types
import typing
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from catchment.errors import PluginError
from catchment.schema import types
from catchment.schema.table import Column

_ARROW: Mapping[Any, pa.DataType] = {
    str: pa.utf8(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
    datetime.datetime: pa.timestamp("us", "UTC"),
    datetime.date: pa.date32(),
    datetime.time: pa.time64("us"),
    datetime.timedelta: pa.duration("us"),
    uuid.UUID: types.uuid(),
    ipaddress.IPv4Address: types.inet(),
    ipaddress.IPv6Address: types.inet(),
    ipaddress.IPv4Interface: types.inet(),
    ipaddress.IPv6Interface: types.inet(),
    decimal.Decimal: pa.decimal128(38, 10),
    Any: types.json(),
}


def columns_of(schema: type | pa.Schema) -> list[Column]:
    """The columns of a declaration. Raises `PluginError` for an annotation that has no column type.

    Every column is nullable: values are not checked against annotations, and a type hint is no promise of an API.
    """
    if isinstance(schema, pa.Schema):
        return [Column.from_field(field) for field in schema]
    hints = typing.get_type_hints(schema, include_extras=True)
    docs = _attribute_docs(schema)
    names = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else list(hints)
    return [
        Column(name, _arrow_type(hints[name], f"{schema.__name__}.{name}"), description=docs.get(name, ""))
        for name in names
        if not name.startswith("__") and typing.get_origin(hints[name]) is not typing.ClassVar
    ]


def _arrow_type(hint: Any, where: str) -> pa.DataType:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        chosen = [extra for extra in arguments[1:] if isinstance(extra, pa.DataType)]
        return chosen[0] if chosen else _arrow_type(arguments[0], where)
    if origin in (typing.Union, python_types.UnionType):
        real = [argument for argument in arguments if argument is not type(None)]
        return _arrow_type(real[0], where) if len(real) == 1 else types.json()
    if hint in _ARROW:
        return _ARROW[hint]
    if origin is list and arguments:
        inner = _arrow_type(arguments[0], where)
        return types.json() if inner.equals(types.json()) else pa.list_(inner)
    if origin in (dict, list, tuple, set) or hint in (dict, list, tuple) or isinstance(hint, type):
        return types.json()
    if origin is typing.Literal:
        return _arrow_type(type(arguments[0]), where)
    raise PluginError(
        f"`{where}`: no column type for {hint!r}; write `Annotated[..., pa.int64()]` or another Arrow type"
    )


def _attribute_docs(schema: type) -> dict[str, str]:
    """The text below each attribute, where the source is there to be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(schema))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return {}
    found: dict[str, str] = {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            found[statement.target.id] = inspect.cleandoc(following.value.value)
    return found
