"""Columns out of dataclasses, pydantic models, typed dicts and Arrow schemas."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import ipaddress
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import pyarrow as pa
import pydantic
import pytest

from catchment.errors import PluginError
from catchment.schema import types
from catchment.sdk.models import columns_of

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = 1


class Mood(enum.StrEnum):
    GOOD = "good"


class Level(enum.IntEnum):
    HIGH = 1


@dataclass
class Base:
    id: int
    """Number of the row."""
    name: str = ""
    """What the base calls it."""
    kind: ClassVar[str] = "x"
    """No column."""


@dataclass
class Derived(Base):
    name: str = "other"
    """What it is called,
    over two lines."""
    tags: list[str] = field(default_factory=list)
    made: InitVar[int] = 0


class Model(pydantic.BaseModel):
    id: int
    """Below the field."""
    size: float = pydantic.Field(1.5, description="In the field.")
    extra: Any = None
    limit: ClassVar[int] = 3
    _private: int = pydantic.PrivateAttr(0)


class SubModel(Model):
    flag: bool = False
    """Of the subclass."""


class Typed(TypedDict):
    id: int
    """Number."""
    note: NotRequired[str]


class Pair(NamedTuple):
    left: int
    right: str


class Plain:
    limit: ClassVar = 3
    id: int
    """Number."""


def described(schema):
    return {column.name: column.description for column in columns_of(schema)}


def test_texts_below_attributes_describe_columns_of_base_and_subclass():
    assert described(Derived) == {
        "id": "Number of the row.",
        "name": "What it is called,\nover two lines.",
        "tags": "",
    }


def test_fields_of_pydantic_models_are_columns_and_nothing_else_is():
    assert described(SubModel) == {
        "id": "Below the field.",
        "size": "In the field.",
        "extra": "",
        "flag": "Of the subclass.",
    }


@pytest.mark.parametrize(
    ("schema", "names"), [(Typed, ["id", "note"]), (Pair, ["left", "right"]), (Plain, ["id"]), (Base, ["id", "name"])]
)
def test_each_kind_of_class_gives_its_columns_in_order(schema, names):
    assert [column.name for column in columns_of(schema)] == names
    assert all(not column.not_null for column in columns_of(schema))


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, pa.utf8()),
        (bool, pa.bool_()),
        (int, pa.int64()),
        (float, pa.float64()),
        (bytes, pa.binary()),
        (datetime.datetime, pa.timestamp("us", "UTC")),
        (datetime.date, pa.date32()),
        (datetime.time, pa.time64("us")),
        (datetime.timedelta, pa.duration("us")),
        (uuid.UUID, types.uuid()),
        (ipaddress.IPv4Address, types.inet()),
        (ipaddress.IPv6Interface, types.inet()),
        (ipaddress.IPv4Network, types.inet()),
        (decimal.Decimal, pa.decimal128(38, 10)),
        (Any, types.json()),
        (dict, types.json()),
        (dict[str, int], types.json()),
        (Mapping[str, int], types.json()),
        (collections.OrderedDict[str, int], types.json()),
        (list, types.json()),
        (list[Any], types.json()),
        (list[dict[str, Any]], types.json()),
        (tuple[int, ...], types.json()),
        (set[int], types.json()),
        (frozenset[int], types.json()),
        (Base, types.json()),
        (list[Base], types.json()),
        (list[int], pa.list_(pa.int64())),
        (list[list[str]], pa.list_(pa.list_(pa.utf8()))),
        (Sequence[str], pa.list_(pa.utf8())),
        (list[uuid.UUID], pa.list_(types.uuid())),
        (list[int | None], pa.list_(pa.int64())),
        (Optional[int], pa.int64()),  # noqa: UP045
        (int | None, pa.int64()),
        (int | str, types.json()),
        (Union[int, str, None], types.json()),  # noqa: UP007
        (Literal["a", "b"], pa.utf8()),
        (Literal[1, 2], pa.int64()),
        (Literal["a", None], pa.utf8()),
        (Literal["a", 1], types.json()),
        (Annotated[int, "note"], pa.int64()),
        (Annotated[int, pa.int8()], pa.int8()),
        (Annotated[decimal.Decimal, "note", pa.decimal128(10, 2)], pa.decimal128(10, 2)),
        (Annotated[Base, pa.struct([("id", pa.int64())])], pa.struct([("id", pa.int64())])),
        (Annotated[int | None, "note"], pa.int64()),
        (Annotated[int, pa.int8()] | None, pa.int8()),
        (UserId, pa.int64()),
        (Color, types.json()),
        (Mood, pa.utf8()),
        (Level, pa.int64()),
    ],
)  # fmt: skip
def test_annotations_become_types(hint, expected):
    schema = type("Row", (), {"__annotations__": {"value": hint}})

    [column] = columns_of(schema)

    assert column.type.equals(expected)


@pytest.mark.parametrize("hint", [Callable[[int], int], T, Literal, list[Callable[[], int]]])
def test_an_annotation_without_a_type_is_named_with_what_to_write(hint):
    schema = type("Row", (), {"__annotations__": {"id": int, "value": hint}})

    with pytest.raises(
        PluginError, match=r"`Row\.value`: no column type for .*write `Annotated\[\.\.\., pa\.int64\(\)\]`"
    ):
        columns_of(schema)


@pytest.mark.parametrize("schema", [dict, type("Empty", (), {})])
def test_a_class_without_attributes_is_refused(schema):
    with pytest.raises(PluginError, match="has no annotated attributes"):
        columns_of(schema)


def test_arrow_schemas_keep_their_types_and_what_may_not_be_null():
    schema = pa.schema([pa.field("id", pa.int8(), nullable=False), pa.field("u", types.uuid())])

    assert [(c.name, c.type, c.not_null) for c in columns_of(schema)] == [
        ("id", pa.int8(), True), ("u", types.uuid(), False),
    ]  # fmt: skip


def test_a_class_whose_source_is_nowhere_has_no_descriptions():
    scope = {"__name__": "nowhere"}
    exec("class Row:\n    id: int\n    'Number.'\n", scope)

    assert described(scope["Row"]) == {"id": ""}
