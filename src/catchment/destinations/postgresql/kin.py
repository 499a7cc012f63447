"""CockroachDB and CrateDB: databases that speak PostgreSQL's protocol, and little of what PostgreSQL is quick by.

They are told by the first word of `select version()`. Rows go in one statement at a time, as upstream writes them:
there is no binary COPY that both take, no staging, and in CrateDB no transaction either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from catchment.destinations.postgresql import types
from catchment.destinations.postgresql.connection import MARK
from catchment.sdk import Capabilities, Column, PluginError, Table, inet, json, mac, sql, uuid
from catchment.sdk.json_text import to_text
from catchment.sdk.staging import CQ_ID
from catchment.sdk.storage import converted, restore

Name = Literal["CockroachDB", "CrateDB"]

_COCKROACH: Mapping[pa.DataType, str] = {
    pa.int8(): "int2",
    pa.int16(): "int2",
    pa.int32(): "int8",
    pa.int64(): "int8",
    pa.uint8(): "int2",
    pa.uint16(): "int8",
    pa.uint32(): "int8",
    mac(): "text",
}
_CRATE: Mapping[pa.DataType, str] = {
    pa.uint64(): "text",
    uuid(): "text",
    json(): "object",
    inet(): "ip",
    mac(): "text",
}
_BACK: Mapping[str, pa.DataType] = {
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "object": json(),
    "ip": inet(),
}


class _CrateDialect(sql.Dialect):
    """Columns of CrateDB begin with no underscore, so those of ours lose it, as upstream has them."""

    def quote(self, name: str) -> str:
        """`name` as a quoted identifier, without the underscores in front."""
        return sql.Dialect.quote(self, name.lstrip("_"))


@dataclass(frozen=True, slots=True)
class Kin:
    """How one of the two differs from PostgreSQL."""

    name: Name
    dialect: sql.Dialect

    @property
    def is_crate(self) -> bool:
        """Whether it is CrateDB, which has no transactions, no unique columns and fewer types."""
        return self.name == "CrateDB"

    def capabilities(self, of_postgresql: Capabilities) -> Capabilities:
        """What can be done here."""
        safe = of_postgresql.safe_changes - ({"remove_unique", "move_pk_to_cq_id"} if self.is_crate else set())
        return replace(
            of_postgresql,
            safe_changes=safe,
            kept_when_forced=frozenset(),
            publish="none",
            rejects=not self.is_crate,
            parallel_appends=False,
            stored_as=self.stored_as,
        )

    def stored_as(self, data_type: pa.DataType) -> pa.DataType:
        """What comes back: as from PostgreSQL, but text for what CrateDB has no type for, and its milliseconds."""
        if types.is_list(data_type) and not types.is_nested_list(data_type):
            return pa.list_(self.stored_as(data_type.value_type))
        if not self.is_crate:
            return types.stored_as(data_type)
        if pa.types.is_timestamp(data_type):
            return data_type if data_type.unit == "s" else pa.timestamp("ms", data_type.tz)
        is_text = self.dialect.type_name(data_type) == "text" and not data_type.equals(uuid())
        return pa.utf8() if is_text and not data_type.equals(mac()) else types.stored_as(data_type)

    def moment(self, moment: datetime) -> datetime:
        """A moment as a timestamp column has it: UTC without a zone, in CrateDB cut to milliseconds."""
        naive = moment.astimezone(UTC).replace(tzinfo=None)
        return naive.replace(microsecond=naive.microsecond // 1_000 * 1_000) if self.is_crate else naive

    def kept(self, table: Table) -> Table:
        """The table as it is made here. Raises `PluginError` for two columns that get one name."""
        if not self.is_crate:
            return table
        columns = [replace(c, name=c.name.lstrip("_"), unique=False) for c in table.columns]
        seen: dict[str, str] = {}
        for before, after in zip(table.columns, columns, strict=True):
            if seen.setdefault(after.name, before.name) != before.name:
                raise PluginError(
                    f"table `{table.name}` has the columns `{seen[after.name]}` and `{before.name}`, and CrateDB takes "
                    "no underscore in front",
                    hint="rename one with a transformer",
                )
        return table.with_columns(columns)

    def statements(self, have: Table | None, table: Table, found: sql.Migration, key: str) -> Iterator[str]:
        """What a migration of a `kept` table executes, each in a transaction of its own; `key` names the primary key.

        CockroachDB takes no `drop not null` in the transaction that changes the key.
        """
        name = self.dialect.table(table.name)
        if found.action == "recreate":
            yield f"drop table {name}"
        if found.action in ("create", "recreate"):
            yield sql.create_table(self.dialect, table)
        for change in found.changes if found.action == "alter" else ():
            if change.kind == "add_column" and change.current is not None:
                yield sql.add_column(self.dialect, table, table.column(change.column))
            elif change.kind == "remove_unique":
                yield f"drop index {self.dialect.quote(f'{table.name}_{change.column}_key')} cascade"
            elif change.kind == "move_pk_to_cq_id" and have is not None:
                quoted = self.dialect.quote(key)
                columns = self.dialect.quote(CQ_ID)
                yield f"alter table {name} drop constraint {quoted}, add constraint {quoted} primary key ({columns})"
                for column in have.primary_keys:
                    yield f"alter table {name} alter column {self.dialect.quote(column)} drop not null"

    def insert(self, table: Table) -> str:
        """The statement for one row: `MARK` for each value, cast to its column's type."""
        names = self.dialect.columns(table.column_names)
        marks = ", ".join(self._mark(column) for column in table.columns)
        statement = f"insert into {self.dialect.table(table.name)} ({names}) values ({marks})"
        if not table.primary_keys:
            return statement
        others = [name for name in table.column_names if name not in table.primary_keys]
        changes = ", ".join(f"{self.dialect.quote(name)} = excluded.{self.dialect.quote(name)}" for name in others)
        action = f"update set {changes}" if others else "nothing"
        return f"{statement} on conflict ({self.dialect.columns(table.primary_keys)}) do {action}"

    def rows(self, table: Table, rows: pa.Table) -> list[tuple[Any, ...]]:
        """Values of every row, as text where PostgreSQL's drivers would not say the same."""
        columns = [
            [value for chunk in array.chunks for value in converted(column.name, chunk, self._sent).to_pylist()]
            for column, array in zip(table.columns, rows.columns, strict=True)
        ]
        return list(zip(*columns, strict=True))

    def select(self, table: Table, have: Table) -> str:
        """The query for the columns of `table`, null where `have` has none of the name."""
        kept = self.kept(table)
        expressions = [
            f"{self.dialect.quote(c.name)}{self._read_cast(c.type)}" if c.name in have else "null" for c in kept.columns
        ]
        return f"select {', '.join(expressions)} from {self.dialect.table(table.name)}"

    def read(self, table: Table, values: Sequence[Sequence[Any]]) -> pa.RecordBatch:
        """Rows of that query, as `stored_as` declares them."""
        arrays = []
        for place, column in enumerate(table.columns):
            given = pa.array([row[place] for row in values], self._given(column.type))
            arrays.append(restore(given, self.stored_as(column.type)))
        return pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def _mark(self, column: Column) -> str:
        kind = self.dialect.type_name(column.type)
        return f"{MARK}::text[]::{kind}" if kind.endswith("[]") and kind != "bytea[]" else f"{MARK}::{kind}"

    def _sent(self, array: pa.Array) -> pa.Array:
        kind = array.type
        if types.is_list(kind) and not types.is_nested_list(kind):
            return types.map_list(array, self._sent)
        if types.is_bytes(kind) and not self.is_crate:
            return array.cast(pa.binary())
        if pa.types.is_timestamp(kind) or (pa.types.is_time(kind) and not self.is_crate):
            array = types.to_wire(array)
        if pa.types.is_timestamp(kind) and self.is_crate:
            array = array.cast(pa.timestamp("ms"), safe=False)
        return to_text(array)

    def _read_cast(self, kind: pa.DataType) -> str:
        if types.is_list(kind) and not types.is_nested_list(kind):
            return "" if not self._read_cast(kind.value_type) else "::text[]"
        return "" if not pa.types.is_string(self._given(kind)) else "::text"

    def _given(self, kind: pa.DataType) -> pa.DataType:
        """The Arrow type of what the driver gives for a column, which is cast to text where it is text here."""
        if types.is_list(kind) and not types.is_nested_list(kind):
            return pa.list_(self._given(kind.value_type))
        stored = self.dialect.arrow_type(self.dialect.type_name(kind))
        if pa.types.is_timestamp(stored):
            return pa.timestamp("us")
        plain = pa.types.is_boolean(stored) or pa.types.is_floating(stored) or pa.types.is_signed_integer(stored)
        is_moment = pa.types.is_date(stored) or pa.types.is_time(stored)
        return stored if plain or is_moment or types.is_bytes(stored) else pa.utf8()


def _type_name(of: Mapping[pa.DataType, str], *, is_crate: bool, data_type: pa.DataType) -> str:
    if isinstance(data_type, sql.Opaque):
        return str(data_type)
    if data_type in of:
        return of[data_type]
    if types.is_list(data_type) and not types.is_nested_list(data_type):
        return f"{_type_name(of, is_crate=is_crate, data_type=data_type.value_type)}[]"
    if is_crate and (pa.types.is_decimal(data_type) or pa.types.is_time(data_type) or types.is_bytes(data_type)):
        return "text"
    if is_crate and pa.types.is_date(data_type):
        return "timestamp without time zone"
    return types.type_name(data_type)


def _arrow_type(name: str) -> pa.DataType:
    if name.endswith("[]"):
        return pa.list_(_arrow_type(name[:-2]))
    return _BACK[name] if name in _BACK else types.arrow_type(name)


def _cockroach_type(data_type: pa.DataType) -> str:
    return _type_name(_COCKROACH, is_crate=False, data_type=data_type)


def _crate_type(data_type: pa.DataType) -> str:
    return _type_name(_CRATE, is_crate=True, data_type=data_type)


_KIN = {
    "cockroachdb": Kin("CockroachDB", sql.Dialect(type_name=_cockroach_type, arrow_type=_arrow_type, placeholder=MARK)),
    "cratedb": Kin(
        "CrateDB",
        _CrateDialect(type_name=_crate_type, arrow_type=_arrow_type, placeholder=MARK, inline_unique=False),
    ),
}


def kin_of(version: str) -> Kin | None:
    """What a server that calls itself by `version` is; None for PostgreSQL. Raises `PluginError` for any other."""
    word = version.split(" ")[0].lower()
    if word == "postgresql":
        return None
    if word not in _KIN:
        raise PluginError(f"the server calls itself {version[:60]!r}, and is none of PostgreSQL, CockroachDB, CrateDB")
    return _KIN[word]
