"""A table and its columns, to and from an Arrow schema with the protocol's `cq:` metadata.

Tables are kept flat: a child names its parent, and parents come before their children wherever tables stand in a row.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from catchment.errors import ProtocolError
from catchment.schema.types import type_string

MAX_DEPTH = 4
"""Levels of tables, the top one included."""

_FLAGS = {
    "incremental_key": b"cq:extension:incremental",
    "primary_key": b"cq:extension:primary_key",
    "primary_key_component": b"cq:extension:primary_key_component",
    "unique": b"cq:extension:unique",
}
_TYPE_SCHEMA = b"cq:extension:type_schema"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    description: str = ""
    """For docs and database comments; not on the wire."""
    primary_key: bool = False
    not_null: bool = False
    """Declared to destinations; values are not checked against it."""
    unique: bool = False
    incremental_key: bool = False
    primary_key_component: bool = False
    """Whether the column goes into the hash of a deterministic `_cq_id` though it is no key."""
    type_schema: str = ""
    """JSON text that describes what is in a JSON column; empty if unknown."""

    def __str__(self) -> str:
        marks = {
            "PK": self.primary_key,
            "NotNull": self.not_null,
            "Unique": self.unique,
            "IncrementalKey": self.incremental_key,
            "PrimaryKeyComponent": self.primary_key_component,
        }
        return ":".join([self.name, type_string(self.type), *(mark for mark, on in marks.items() if on)])

    def to_field(self) -> pa.Field:
        """The Arrow field, with all five `cq:` keys."""
        metadata = {key: b"true" if getattr(self, name) else b"false" for name, key in _FLAGS.items()}
        metadata[_TYPE_SCHEMA] = self.type_schema.encode()
        return pa.field(self.name, self.type, nullable=not self.not_null, metadata=dict(sorted(metadata.items())))

    @classmethod
    def from_field(cls, field: pa.Field) -> Column:
        """The column of an Arrow field; only the exact text `true` is true, unknown keys are left out."""
        metadata: Mapping[bytes, bytes] = field.metadata or {}
        flags: dict[str, Any] = {name: metadata.get(key) == b"true" for name, key in _FLAGS.items()}
        return cls(
            name=field.name,
            type=field.type,
            not_null=not field.nullable,
            type_schema=metadata.get(_TYPE_SCHEMA, b"").decode(),
            **flags,
        )


@dataclass(frozen=True)
class Table:
    """A table: its name, its columns, and what the protocol says of it. Raises `ProtocolError` for a column twice."""

    name: str
    columns: tuple[Column, ...]
    title: str = ""
    description: str = ""
    parent: str = ""
    """Name of the parent table; empty at the top."""
    is_incremental: bool = False
    """Whether a sync goes on where the last one ended."""
    pk_constraint_name: str = ""
    permissions_needed: tuple[str, ...] | None = None
    sensitive_columns: tuple[str, ...] | None = None
    """Names of columns, or `column.path` into a JSON column."""
    is_paid: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        seen: set[str] = set()
        for column in self.columns:
            if column.name in seen:
                raise ProtocolError(f"duplicate column `{column.name}` in table `{self.name}`")
            seen.add(column.name)

    @functools.cached_property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @functools.cached_property
    def primary_keys(self) -> tuple[str, ...]:
        """Names of the primary key's columns, in order; empty for a table that rows are only added to."""
        return tuple(column.name for column in self.columns if column.primary_key)

    @functools.cached_property
    def arrow_schema(self) -> pa.Schema:
        """Names and types of the columns, without metadata and all nullable: what its batches have."""
        return pa.schema([pa.field(column.name, column.type) for column in self.columns])

    @functools.cached_property
    def _columns_by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    def column(self, name: str) -> Column:
        """The column called `name`. Raises `KeyError`."""
        return self._columns_by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns_by_name

    def with_columns(self, columns: Iterable[Column]) -> Table:
        """The same table with other columns."""
        return replace(self, columns=tuple(columns))

    def renamed(self, name: str) -> Table:
        """The same table under another name."""
        return replace(self, name=name)

    def without_keys(self) -> Table:
        """The same table without primary key and unique columns."""
        return self.with_columns(replace(column, primary_key=False, unique=False) for column in self.columns)

    def to_schema(self) -> pa.Schema:
        """The Arrow schema with every `cq:` key that the protocol writes, keys in alphabetical order."""
        metadata = {
            "cq:extension:constraint_name": self.pk_constraint_name,
            "cq:table_description": self.description,
            "cq:table_name": self.name,
            "cq:table_permissions_needed": _json_list(self.permissions_needed),
            "cq:table_sensitive_columns": _json_list(self.sensitive_columns),
            "cq:table_title": self.title,
        }
        if self.is_incremental:
            metadata["cq:extension:incremental"] = "true"
        if self.parent:
            metadata["cq:table_depends_on"] = self.parent
        if self.is_paid:
            metadata["cq:table_paid"] = "true"
        return pa.schema([column.to_field() for column in self.columns], metadata=dict(sorted(metadata.items())))

    @classmethod
    def from_schema(cls, schema: pa.Schema) -> Table:
        """The table of an Arrow schema; unknown keys are left out. Raises `ProtocolError` if it has no name."""
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        if "cq:table_name" not in metadata:
            raise ProtocolError("missing table name: the schema has no metadata `cq:table_name`")
        return cls(
            name=metadata["cq:table_name"],
            columns=tuple(Column.from_field(field) for field in schema),
            title=metadata.get("cq:table_title", ""),
            description=metadata.get("cq:table_description", ""),
            parent=metadata.get("cq:table_depends_on", ""),
            is_incremental=metadata.get("cq:extension:incremental") == "true",
            pk_constraint_name=metadata.get("cq:extension:constraint_name", ""),
            permissions_needed=_parsed_list(metadata.get("cq:table_permissions_needed", "null")),
            sensitive_columns=_parsed_list(metadata.get("cq:table_sensitive_columns", "null")),
            is_paid=metadata.get("cq:table_paid") == "true",
        )


def children_of(tables: Iterable[Table], name: str) -> tuple[Table, ...]:
    """The tables whose parent is `name`."""
    return tuple(table for table in tables if table.parent == name)


def descendants(tables: Sequence[Table], name: str) -> tuple[Table, ...]:
    """The tables below `name`, parents before children."""
    below = {name}
    found = []
    for table in tables:
        if table.parent in below:
            below.add(table.name)
            found.append(table)
    return tuple(found)


def validate(tables: Sequence[Table]) -> None:
    """Raises `ProtocolError` for a name twice, a parent that does not come before, and more than four levels."""
    depth: dict[str, int] = {}
    for table in tables:
        if table.name in depth:
            raise ProtocolError(f"found duplicate tables in plugin: duplicate table {table.name}")
        if table.parent and table.parent not in depth:
            raise ProtocolError(f"table `{table.name}`: its parent `{table.parent}` does not come before it")
        depth[table.name] = depth.get(table.parent, 0) + 1
        if depth[table.name] > MAX_DEPTH:
            raise ProtocolError(f"table `{table.name}`: max depth exceeded, max depth is {MAX_DEPTH}")


def _json_list(values: tuple[str, ...] | None) -> str:
    return "null" if values is None else json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def _parsed_list(text: str) -> tuple[str, ...] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return tuple(str(value) for value in values) if isinstance(values, list) else None
