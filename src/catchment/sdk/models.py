"""From a dataclass, a pydantic model or an Arrow schema to columns: names, types and descriptions at once."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import datetime
import decimal
import enum
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
    ipaddress.IPv4Network: types.inet(),
    ipaddress.IPv6Network: types.inet(),
    decimal.Decimal: pa.decimal128(38, 10),
    Any: types.json(),
}
_WRAPPERS = (typing.Required, typing.NotRequired, typing.Final)


def columns_of(schema: type | pa.Schema) -> list[Column]:
    """The columns of a declaration. Raises `PluginError` for an annotation that has no column type.

    Every column is nullable: values are not checked against annotations, and a type hint is no promise of an API.
    """
    if isinstance(schema, pa.Schema):
        return [Column.from_field(field) for field in schema]
    hints = typing.get_type_hints(schema, include_extras=True)
    docs = _attribute_docs(schema)
    columns = [
        Column(name, _arrow_type(hints[name], f"{schema.__name__}.{name}"), description=docs.get(name, ""))
        for name in _names(schema, hints)
    ]
    if not columns:
        raise PluginError(
            f"`{schema.__name__}` has no annotated attributes to make columns of; "
            "give a dataclass, a pydantic model or a `pa.Schema`"
        )
    return columns


def _names(schema: type, hints: Mapping[str, Any]) -> list[str]:
    """The attributes that hold a row's values: neither class variables nor private ones of a model."""
    if dataclasses.is_dataclass(schema):
        return [field.name for field in dataclasses.fields(schema)]
    if hasattr(schema, "model_fields"):
        return list(schema.model_fields)
    return [
        name
        for name, hint in hints.items()
        if not name.startswith("__") and hint is not typing.ClassVar and typing.get_origin(hint) is not typing.ClassVar
    ]


def _arrow_type(hint: Any, where: str) -> pa.DataType:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        chosen = [extra for extra in arguments[1:] if isinstance(extra, pa.DataType)]
        return chosen[0] if chosen else _arrow_type(arguments[0], where)
    if origin in _WRAPPERS:
        return _arrow_type(arguments[0], where)
    if isinstance(hint, typing.NewType):
        return _arrow_type(hint.__supertype__, where)
    if origin in (typing.Union, python_types.UnionType):
        real = [argument for argument in arguments if argument is not type(None)]
        return _arrow_type(real[0], where) if len(real) == 1 else types.json()
    if origin is typing.Literal:
        kinds = {type(argument) for argument in arguments} - {type(None)}
        return _arrow_type(kinds.pop(), where) if len(kinds) == 1 else types.json()
    if hint in _ARROW:
        return _ARROW[hint]
    if origin in (list, collections.abc.Sequence) and arguments:
        inner = _arrow_type(arguments[0], where)
        return types.json() if inner.equals(types.json()) else pa.list_(inner)
    if isinstance(origin or hint, type) and origin is not collections.abc.Callable:
        return _of_class(origin or hint)
    raise PluginError(
        f"`{where}`: no column type for {hint!r}; write `Annotated[..., pa.int64()]` or another Arrow type"
    )


def _of_class(found: type) -> pa.DataType:
    """Text and whole numbers for enumerations of those, JSON for whatever has parts."""
    if issubclass(found, enum.Enum):
        return next((_ARROW[base] for base in (str, int) if issubclass(found, base)), types.json())
    return types.json()


def _attribute_docs(schema: type) -> dict[str, str]:
    """The text below each attribute, where the source is there to be read; a subclass's own goes first."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if base.__module__ not in ("builtins", "typing", "pydantic.main"):
            found.update(_own_docs(base))
    for name, field in getattr(schema, "model_fields", {}).items():
        if field.description:
            found[name] = field.description
    return found


def _own_docs(schema: type) -> dict[str, str]:
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
