"""A table, and the kinds of rows that a source may give for it."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pydantic

from catchment.schema.table import Column, Table
from catchment.sdk.rows import batches

TABLE = Table("t", (Column("id", pa.int64()), Column("name", pa.utf8())))
UTC = datetime.UTC
MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@dataclass
class Row:
    id: int
    name: str = ""


class Model(pydantic.BaseModel):
    id: int
    name: str | None = None


class Named(NamedTuple):
    id: int
    name: str


class Color(enum.Enum):
    RED = "red"


def read(yielded, table=TABLE):
    """What comes out, as rows of values."""
    return [row for batch in batches(table, yielded) for row in batch.to_pylist()]
