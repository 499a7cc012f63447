"""Tables to and from Arrow schemas, against the bytes that the Go SDK writes."""

from __future__ import annotations

import base64
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.errors import ProtocolError
from catchment.schema import types
from catchment.schema.table import Column, Table, descendants, validate
from catchment.schema.types import from_storage, storage_type, to_storage, type_string
from catchment.testing import data

# Column `a`, text, all other attributes at their defaults, as arrow-go writes its IPC stream.
PLAIN = base64.b64decode(
    "//////gCAAAQAAAAAAAKAA4ADAALAAQACgAAABQAAAAAAAABBAAKAAwAAAAIAAQACgAAAAgAAABMAQAABgAAAAwBAADYAAAAqAAAAGwAAAAw"
    "AAAABAAAAKz9//8IAAAADAAAAAAAAAAAAAAADgAAAGNxOnRhYmxlX3RpdGxlAADU/f//CAAAABAAAAAEAAAAbnVsbAAAAAAaAAAAY3E6dGFi"
    "bGVfc2Vuc2l0aXZlX2NvbHVtbnMAAAz+//8IAAAAEAAAAAQAAABudWxsAAAAABsAAABjcTp0YWJsZV9wZXJtaXNzaW9uc19uZWVkZWQARP7/"
    "/wgAAAAQAAAABQAAAHBsYWluAAAADQAAAGNxOnRhYmxlX25hbWUAAABw/v//CAAAAAwAAAAAAAAAAAAAABQAAABjcTp0YWJsZV9kZXNjcmlw"
    "dGlvbgAAAACg/v//CAAAAAwAAAAAAAAAAAAAABwAAABjcTpleHRlbnNpb246Y29uc3RyYWludF9uYW1lAAAAAAEAAAAYAAAAAAASABgAFAAT"
    "ABIADAAAAAgABAASAAAAFAAAAEQBAABIAQAAAAAFAUQBAAAFAAAA+AAAALQAAABwAAAAOAAAAAQAAAAk////CAAAABAAAAAFAAAAZmFsc2UA"
    "AAATAAAAY3E6ZXh0ZW5zaW9uOnVuaXF1ZQBU////CAAAAAwAAAAAAAAAAAAAABgAAABjcTpleHRlbnNpb246dHlwZV9zY2hlbWEAAAAAiP//"
    "/wgAAAAQAAAABQAAAGZhbHNlAAAAIgAAAGNxOmV4dGVuc2lvbjpwcmltYXJ5X2tleV9jb21wb25lbnQAAMj///8IAAAAEAAAAAUAAABmYWxz"
    "ZQAAABgAAABjcTpleHRlbnNpb246cHJpbWFyeV9rZXkAAAAACAAMAAgABAAIAAAACAAAABAAAAAFAAAAZmFsc2UAAAAYAAAAY3E6ZXh0ZW5z"
    "aW9uOmluY3JlbWVudGFsAAAAAAAAAAAEAAQABAAAAAEAAABhAAAA/////wAAAAA="
)


def test_a_schema_that_go_wrote_is_read():
    schema = pa.ipc.open_stream(PLAIN).schema

    table = Table.from_schema(schema)

    assert table == Table("plain", (Column("a", pa.utf8()),))
    assert table.to_schema().equals(schema, check_metadata=True)
    assert list(table.to_schema().metadata) == list(schema.metadata)
    assert list(table.to_schema().field("a").metadata) == list(schema.field("a").metadata)


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
COLUMNS = st.builds(
    Column,
    name=TEXT,
    type=st.sampled_from([pa.int64(), types.uuid(), types.json(), pa.list_(types.inet())]),
    primary_key=st.booleans(),
    not_null=st.booleans(),
    unique=st.booleans(),
    incremental_key=st.booleans(),
    primary_key_component=st.booleans(),
    type_schema=TEXT,
)
TABLES = st.builds(
    Table,
    name=TEXT,
    columns=st.lists(COLUMNS, max_size=4, unique_by=lambda column: column.name).map(tuple),
    title=TEXT,
    description=TEXT,
    parent=TEXT,
    is_incremental=st.booleans(),
    pk_constraint_name=TEXT,
    permissions_needed=st.none() | st.lists(TEXT, max_size=2).map(tuple),
    sensitive_columns=st.none() | st.lists(TEXT, max_size=2).map(tuple),
    is_paid=st.booleans(),
)


@given(TABLES)
def test_tables_come_back_as_they_were(table):
    assert Table.from_schema(table.to_schema()) == table


def test_unknown_keys_are_left_out_and_only_true_is_true():
    field = pa.field("a", pa.int64(), metadata={"cq:extension:unique": "TRUE", "other": "x"})
    table = Table.from_schema(pa.schema([field], metadata={"cq:table_name": "t", "more": "y"}))

    assert table == Table("t", (Column("a", pa.int64()),))


def test_a_schema_without_a_name_is_refused():
    with pytest.raises(ProtocolError, match="cq:table_name"):
        Table.from_schema(pa.schema([pa.field("a", pa.int64())]))


def test_a_column_twice_is_refused():
    with pytest.raises(ProtocolError, match="duplicate column `a` in table `t`"):
        Table("t", (Column("a", pa.int64()), Column("a", pa.utf8())))


def test_trees_are_checked():
    tables = [Table(f"t{n}", (), parent=f"t{n - 1}" if n else "") for n in range(4)]
    validate(tables)
    assert [table.name for table in descendants(tables, "t1")] == ["t2", "t3"]

    with pytest.raises(ProtocolError, match="max depth"):
        validate([*tables, Table("t4", (), parent="t3")])
    with pytest.raises(ProtocolError, match="does not come before"):
        validate([Table("child", (), parent="later"), Table("later", ())])
    with pytest.raises(ProtocolError, match="duplicate table t0"):
        validate([tables[0], tables[0]])


@pytest.mark.parametrize("column", data.all_types("x").columns, ids=lambda column: column.name)
def test_every_type_goes_to_its_storage_and_back(column):
    table = Table("t", (replace(column, not_null=False),))
    array = data.rows(table, 3).column(0)

    stored = to_storage(array)

    assert stored.type.equals(storage_type(column.type))
    assert from_storage(stored, column.type).equals(array)
    part = array.slice(1, 1)
    assert from_storage(to_storage(part), column.type).equals(part)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.utf8(), "utf8"),
        (types.uuid(), "uuid"),
        (pa.timestamp("us", "UTC"), "timestamp[us, tz=UTC]"),
        (pa.decimal128(19, 10), "decimal(19, 10)"),
        (pa.list_(pa.int64()), "list<item: int64, nullable>"),
        (pa.binary(16), "fixed_size_binary[16]"),
    ],
)
def test_types_have_the_names_that_go_gives_them(kind, name):
    assert type_string(kind) == name


def test_columns_print_as_change_texts_need_them():
    assert str(Column("a", pa.int64(), primary_key=True, not_null=True)) == "a:int64:PK:NotNull"
