"""What differs between two tables, and what a destination may do about it."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from catchment.errors import MigrationRefused
from catchment.schema import types
from catchment.schema.changes import changes, classify, merged, plan
from catchment.schema.table import Column, Table

ID = Column("id", pa.int64(), primary_key=True, not_null=True)
CQ = Column("_cq_id", types.uuid(), unique=True, not_null=True)
NAME = Column("name", pa.utf8())


def kinds(have, want):
    return [(change.kind, change.column) for change in changes(Table("t", tuple(have)), Table("t", tuple(want)))]


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        ([ID, NAME], [ID, NAME], []),
        ([ID, NAME], [NAME, ID], []),
        ([ID], [ID, NAME], [("add_column", "name")]),
        ([ID], [ID, replace(NAME, not_null=True)], [("add_column_not_null", "name")]),
        ([ID], [ID, replace(NAME, primary_key=True)], [("change_primary_key", "name")]),
        ([ID, NAME], [ID], [("remove_column", "name")]),
        ([ID, replace(NAME, not_null=True)], [ID], [("remove_column_not_null", "name")]),
        ([ID, NAME], [NAME], [("change_primary_key", "id")]),
        ([ID, NAME], [ID, replace(NAME, type=pa.int64())], [("change_type", "name")]),
        ([ID, NAME], [ID, replace(NAME, not_null=True)], [("change_not_null", "name")]),
        ([ID, replace(NAME, unique=True)], [ID, NAME], [("remove_unique", "name")]),
        ([ID, NAME], [ID, replace(NAME, unique=True)], []),
        (
            [CQ, ID],
            [replace(CQ, primary_key=True, unique=False), replace(ID, primary_key=False, not_null=False)],
            [("move_pk_to_cq_id", "_cq_id")],
        ),
    ],
)
def test_changes(have, want, expected):
    assert kinds(have, want) == expected


def test_classes():
    [change] = changes(Table("t", (ID,)), Table("t", (ID, NAME)))

    assert classify(change, {"add_column"}, None) == "safe"
    assert classify(change, set(), None) == "forced"
    assert classify(change, set(), {"change_type"}) == "impossible"


def test_every_refused_change_is_named():
    have, want = Table("t", (ID, NAME)), Table("t", (replace(ID, type=pa.utf8()), replace(NAME, type=pa.bool_())))

    with pytest.raises(MigrationRefused) as refused:
        plan(have, want, safe=set(), forced=None, force=False)

    assert str(refused.value) == (
        "table `t` cannot be migrated in `migrate_mode: safe`: column `id` changed from int64 to utf8; "
        "column `name` changed from utf8 to bool; run with `migrate_mode: forced` (it may drop the table's rows), "
        "or migrate the table by hand"
    )
    assert len(plan(have, want, safe=set(), forced=None, force=True)) == 2
    with pytest.raises(MigrationRefused, match="cannot be migrated here"):
        plan(have, want, safe=set(), forced=set(), force=True)


def test_merging_loses_nothing():
    have = Table("t", (ID, replace(NAME, not_null=True)))
    want = Table("t", (Column("new", pa.int64()), ID))

    assert merged(have, want).columns == (ID, NAME, Column("new", pa.int64()))


def test_a_switch_of_the_write_mode_is_told_as_one_thing_beside_other_changes():
    keyed, keyless = Table("t", (CQ, ID, NAME)), Table("t", (CQ, replace(ID, primary_key=False), NAME))
    other = keyed.with_columns([CQ, ID, replace(NAME, type=pa.int64())])

    with pytest.raises(MigrationRefused) as refused:
        plan(keyless, other, safe=set(), forced=None, force=False)

    assert (
        "it has no primary key, as `write_mode: append` makes it, and this write mode needs (`id`); "
        "column `name` changed from utf8 to int64; run with `migrate_mode: forced`"
    ) in str(refused.value)
    assert "go back to `write_mode: append`" in str(refused.value)
    with pytest.raises(
        MigrationRefused, match=r"it has the primary key \(`id`\) of .*, and `write_mode: append` needs"
    ):
        plan(keyed, keyless, safe=set(), forced=None, force=False)


def test_a_column_that_joins_the_key_is_no_switch_of_the_write_mode():
    with pytest.raises(MigrationRefused) as refused:
        plan(Table("t", (ID, NAME)), Table("t", (ID, replace(NAME, primary_key=True))), safe=set(), forced=None,
             force=False)  # fmt: skip

    assert "column `name` is now part of the primary key" in str(refused.value)
    assert "write_mode" not in str(refused.value)
