"""Forced migrations: rows that fit the changed table stay, and where one does not, the log says which."""

from __future__ import annotations

import datetime
import logging
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catchment.errors import MigrationRefused
from catchment.messages import Insert, MigrateTable
from catchment.schema.types import json, uuid
from catchment.sdk import Column
from catchment.testing import data
from tests.destinations.conftest import NOW, Database, Staged, people, rows

KEPT_AS_BY_CLOUDQUERY = [
    (pa.utf8(), pa.decimal128(10, 2)),
    (pa.timestamp("us"), pa.date32()),
    (pa.list_(pa.timestamp("us")), pa.list_(pa.date32())),
]
"""A type in which CloudQuery's plugin keeps values of the other one, so that `safe` leaves the column as it is."""


class Forced(Database):
    """Whose tables are changed."""

    def change(self, before, after, values, new, *, staged):
        """Rows of another source in `before`, then a sync that forces `after` and brings one row of its own."""
        others = (("other", NOW, number, "theirs", value) for number, value in enumerate(values))
        self.destination.insert(before, data.batch(before, *others))
        plugin: Any = self.destination.plugin
        kinds = tuple(table.column("v").type if "v" in table else None for table in (before, after))
        if self.name == "duckdb" and kinds in KEPT_AS_BY_CLOUDQUERY:
            shape = self.query("select type from pragma_table_info('t')")
            plugin.destination.migrate(after, force=False)
            assert self.query("select type from pragma_table_info('t')") == shape
        else:
            with pytest.raises(MigrationRefused, match="migrate_mode: forced"):
                plugin.destination.migrate(after, force=False)
        row = rows(after, (77, "mine", new))
        if staged:
            Staged(self.destination).add(after, row, force=True).publish()
        else:
            self.destination.write(MigrateTable(after, force=True), Insert(after, row))


@pytest.fixture
def forced(database):
    return Forced(database.name, database.destination, database.query)


ALTERS_IN_PLACE = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, 123_456)
CHANGES = [
    (pa.int32(), pa.int64(), [5, -(2**31), None], [5, -(2**31), None], 2**40),
    (pa.int64(), pa.int16(), [5, -(2**15), None], [5, -(2**15), None], 7),
    (pa.int64(), pa.float64(), [5, 2**53, None], [5.0, float(2**53), None], 0.5),
    (pa.int64(), pa.utf8(), [5, -(2**63), None], ["5", str(-(2**63)), None], "x"),
    (pa.int64(), pa.decimal128(30, 2), [5, -(2**63), None], [Decimal(5), Decimal(-(2**63)), None], Decimal("0.25")),
    (pa.bool_(), pa.utf8(), [True, False, None], ["true", "false", None], "x"),
    (pa.bool_(), pa.int64(), [True, False, None], [1, 0, None], 9),
    (pa.int64(), pa.bool_(), [1, 0, None], [True, False, None], True),
    (pa.float32(), pa.float64(), [0.25, float("inf"), None], [0.25, float("inf"), None], 0.1),
    (pa.float64(), pa.int64(), [5.0, -7.0, None], [5, -7, None], 3),
    (pa.float64(), pa.utf8(), [0.1, 5.5, None], ["0.1", "5.5", None], "x"),
    (pa.decimal128(10, 2), pa.decimal128(20, 4), [Decimal("1.25"), None], [Decimal("1.25"), None], Decimal("0.0001")),
    (pa.decimal128(10, 2), pa.int64(), [Decimal("7.00"), None], [7, None], 3),
    (pa.utf8(), pa.int64(), ["12", "-5", None], [12, -5, None], 3),
    (pa.utf8(), pa.float64(), ["12", "0.1", "1.50", None], [12.0, 0.1, 1.5, None], 3.5),
    (pa.utf8(), pa.decimal128(10, 2), ["12", "0.5", None], [Decimal(12), Decimal("0.5"), None], Decimal(1)),
    (pa.utf8(), pa.bool_(), ["true", "false", None], [True, False, None], True),
    (pa.utf8(), pa.date32(), ["2024-02-29", None], [datetime.date(2024, 2, 29), None], datetime.date(1, 1, 1)),
    (pa.utf8(), pa.timestamp("us"), ["2024-05-06T07:08:09.123456Z", None], [MOMENT, None], MOMENT),
    (pa.date32(), pa.timestamp("us"), [datetime.date(2024, 5, 6)], [datetime.datetime(2024, 5, 6)], MOMENT),
    (pa.timestamp("us"), pa.date32(), [datetime.datetime(2024, 5, 6)], [datetime.date(2024, 5, 6)],
     datetime.date(1, 1, 1)),
    (pa.timestamp("us"), pa.utf8(), [MOMENT, None], ["2024-05-06 07:08:09.123456", None], "x"),
    (pa.binary(), pa.utf8(), [b"\0\xff\0" * 40, b"", None], ["AP8A" * 40, "", None], "x"),
    (uuid(), pa.utf8(), [bytes(16), None], ["00000000-0000-0000-0000-000000000000", None], "x"),
    (pa.list_(pa.int64()), pa.utf8(), [[1, None], [], None], ["[1,null]", "[]", None], "x"),
    (pa.utf8(), json(), ['{"a":[1]}', "null", None], ['{"a":[1]}', "null", None], b"1"),
    (pa.list_(pa.int32()), pa.list_(pa.int64()), [[1, None], [], None], [[1, None], [], None], [2**40]),
    (pa.list_(pa.int64()), pa.list_(pa.float64()), [[2**53, None], [], None], [[2.0**53, None], [], None], [0.5]),
    (pa.list_(pa.date32()), pa.list_(pa.timestamp("us")), [[datetime.date(2024, 5, 6), None]],
     [[datetime.datetime(2024, 5, 6), None]], [MOMENT]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHANGES)))
@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_rows_that_fit_another_type_stay(forced, number, staged):
    before, after, values, wanted, new = CHANGES[number]
    forced.change(people("t", ("v", before)), people("t", ("v", after)), values, new, staged=staged)
    shown = f"replace(v::{'text' if forced.name == 'postgresql' else 'varchar'}, ' ', '')" if after == json() else "v"
    assert forced.query(f"select {shown} from t where id < 77 order by id") == [(value,) for value in wanted]
    assert forced.query("select count(*) from t where id = 77 and v is not null") == [(1,)]
    forced.destination.write(MigrateTable(people("t", ("v", after))))


MISFITS = [
    (pa.utf8(), pa.int64(), "12a", 3),
    (pa.utf8(), pa.int64(), "012", 3),
    (pa.utf8(), pa.float64(), "0.12345678901234567890123", 0.5),
    (pa.utf8(), pa.timestamp("us"), "2024-02-31 00:00:00", MOMENT),
    (pa.utf8(), pa.timestamp("us"), "2024-02-03 00:00:00+02", MOMENT),
    (pa.utf8(), pa.date32(), "tomorrow", datetime.date(1, 1, 1)),
    (pa.utf8(), json(), "{", b"1"),
    (pa.utf8(), pa.bool_(), "yes", True),
    (pa.utf8(), pa.decimal128(10, 2), "0.125", Decimal(1)),
    (pa.int64(), pa.int32(), 2**31, 3),
    (pa.int64(), pa.float64(), 2**53 + 1, 0.5),
    (pa.int64(), pa.float64(), 2**63 - 1, 0.5),
    (pa.int64(), pa.bool_(), 2, True),
    (pa.float64(), pa.int64(), 0.5, 3),
    (pa.float64(), pa.int64(), float("nan"), 3),
    (pa.float64(), pa.float32(), 0.1, 0.5),
    (pa.float64(), pa.float32(), 1e300, 0.5),
    (pa.decimal128(20, 4), pa.decimal128(10, 2), Decimal("0.0001"), Decimal(1)),
    (pa.decimal128(20, 4), pa.float64(), Decimal("1234567890123456.0001"), 0.5),
    (pa.timestamp("us"), pa.date32(), MOMENT, datetime.date(1, 1, 1)),
    (pa.list_(pa.int64()), pa.list_(pa.int32()), [1, 2**31], [3]),
    (pa.list_(pa.int64()), pa.list_(pa.float64()), [2**53 + 1], [0.5]),
    (pa.list_(pa.timestamp("us")), pa.list_(pa.date32()), [MOMENT], [datetime.date(1, 1, 1)]),
]


@pytest.mark.parametrize("number", range(len(MISFITS)))
@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_a_value_that_does_not_fit_makes_the_table_anew_and_is_named(forced, number, staged, caplog):
    before, after, value, new = MISFITS[number]
    with caplog.at_level(logging.WARNING):
        forced.change(people("t", ("v", before)), people("t", ("v", after)), [value], new, staged=staged)
    assert forced.query("select id from t") == [(77,)]
    assert "column `v` holds" in caplog.text
    assert "table `t` is made anew, without the rows that were in it" in caplog.text


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_types_that_do_not_become_each_other_make_the_table_anew(forced, staged, caplog):
    with caplog.at_level(logging.WARNING):
        forced.change(
            people("t", ("v", uuid())), people("t", ("v", pa.date32())), [bytes(16)], datetime.date(1, 1, 1),
            staged=staged,
        )  # fmt: skip
    assert forced.query("select id from t") == [(77,)]
    assert "column `v` cannot be turned from" in caplog.text


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_a_table_that_is_switched_to_append_keeps_its_rows(forced, staged):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.int64()), keys=())
    forced.change(before, after, [5, 6], 7, staged=staged)
    assert forced.query("select id, v from t order by id") == [(0, 5), (1, 6), (77, 7)]
    forced.destination.insert(after, rows(after, (77, "mine", 8)))
    assert forced.query("select count(*) from t where id = 77") == [(2,)]


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
def test_another_key_keeps_rows_that_are_unique_in_it(forced, staged):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.int64()), keys=("id", "v"))
    forced.change(before, after, [5, 6], 7, staged=staged)
    assert forced.query("select id, v from t order by id") == [(0, 5), (1, 6), (77, 7)]
    forced.destination.insert(after, rows(after, (77, "mine", 8), (77, "again", 7)))
    assert forced.query("select name, v from t where id = 77 order by v") == [("again", 7), ("mine", 8)]


def test_rows_that_are_not_unique_in_a_new_key_make_the_table_anew(forced, caplog):
    before, after = people("t", ("v", pa.int64()), keys=()), people("t", ("v", pa.int64()), keys=("v",))
    with caplog.at_level(logging.WARNING):
        forced.change(before, after, [5, 5], 7, staged=True)
    assert "rows are not unique in `v`" in caplog.text
    assert forced.query("select v from t") == [(7,)]


def test_a_column_that_must_not_be_null_keeps_rows_where_it_never_is(forced, caplog):
    before = people("t", ("v", pa.int64()))
    after = people("t", Column("v", pa.int64(), not_null=True))
    forced.change(before, after, [5, 6], 7, staged=False)
    assert forced.query("select v from t order by id") == [(5,), (6,), (7,)]
    forced.destination.write(MigrateTable(before, force=True), Insert(before, rows(before, (78, "x", None))))
    assert forced.query("select v from t order by id") == [(5,), (6,), (7,), (None,)]
    with caplog.at_level(logging.WARNING):
        forced.destination.write(MigrateTable(after, force=True))
    assert "column `v` is null in a row" in caplog.text
    assert forced.query("select v from t") == []


def test_a_new_column_that_must_not_be_null_names_itself(forced, caplog):
    forced.destination.insert(people("t"), rows(people("t"), (1, "a")))
    after = people("t", Column("v", pa.int64(), not_null=True))
    with caplog.at_level(logging.WARNING):
        forced.destination.write(MigrateTable(after, force=True))
    assert "column `v` of type int64 not null is new" in caplog.text
    assert forced.query("select * from t") == []


def test_a_column_that_is_gone_stays_through_a_forced_change(forced):
    gone = ("gone", pa.list_(pa.struct([("select", pa.int64())])))
    before, after = people("t", ("v", pa.int64()), gone), people("t", ("v", pa.utf8()))
    forced.destination.insert(before, data.batch(before, ("other", NOW, 1, "a", 5, [{"select": 1}])))
    Staged(forced.destination).add(after, rows(after, (77, "mine", "x")), force=True).publish()
    forced.destination.expect(before.with_columns([*after.columns, before.column("gone")]), data.batch(
        people("t", ("v", pa.utf8()), gone), ("other", NOW, 1, "a", "5", [{"select": 1}]),
        ("suite", NOW, 77, "mine", "x", None),
    ))  # fmt: skip


def test_indexes_of_a_user_survive_a_forced_change(forced):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.utf8()))
    forced.destination.insert(before, rows(before, (1, "a", 5)))
    forced.query('create index "My index" on t (name)')
    forced.destination.write(MigrateTable(after, force=True))
    catalogue = "pg_indexes where indexname like 'My%'" if forced.name == "postgresql" else "duckdb_indexes()"
    name = "indexname" if forced.name == "postgresql" else "index_name"
    assert forced.query(f"select {name} from {catalogue}") == [("My index",)]
    assert forced.query("select v from t") == [("5",)]


def test_a_preview_foretells_whether_the_rows_stay(forced):
    before, after = people("t", ("v", pa.utf8())), people("t", ("v", pa.int64()))
    forced.destination.insert(before, rows(before, (1, "a", "5")))
    preview = forced.destination.plugin.preview
    assert [preview([after], force=force)[0].action for force in (False, True)] == ["refused", "alter"]
    forced.destination.insert(before, rows(before, (2, "a", "x")))
    assert preview([after], force=True)[0].action == "recreate"
    assert forced.query("select v from t order by id") == [("5",), ("x",)]


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
@ALTERS_IN_PLACE
def test_what_postgresql_keeps_on_a_table_survives_a_forced_change(forced, staged):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.utf8()))
    forced.destination.insert(before, rows(before, (1, "a", 5)))
    forced.query("create view v as select id, name from t; comment on table t is 'mine'; grant select on t to public")
    forced.query("create table pets (owner bigint references t (id) on delete cascade); insert into pets values (1)")
    forced.change(before.renamed("u"), after.renamed("u"), [1], "x", staged=staged)
    if staged:
        Staged(forced.destination, "cafe0002").add(after, rows(after, (1, "b", "x")), force=True).publish()
    else:
        forced.destination.write(MigrateTable(after, force=True), Insert(after, rows(after, (1, "b", "x"))))
    assert forced.query("select id, name from v") == [(1, "b")]
    assert forced.query("select v from t") == [("x",)]
    assert forced.query("select owner, obj_description('t'::regclass) from pets") == [(1, "mine")]


@pytest.mark.parametrize("staged", [False, True], ids=["stream", "atomic"])
@ALTERS_IN_PLACE
def test_what_hangs_on_a_changing_column_is_named_and_nothing_is_changed(forced, staged):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.utf8()))
    forced.destination.insert(before, rows(before, (1, "a", 5)))
    forced.query('create view "My View" as select v from t; create view harmless as select id from t')
    preview = forced.destination.plugin.preview([after], force=True)[0]
    assert (preview.action, "My View" in preview.reason, "harmless" in preview.reason) == ("refused", True, False)
    staged_table = Staged(forced.destination).add(after, rows(after, (1, "b", "x")), force=True)
    with pytest.raises(
        Exception, match='column `v` of table `t` cannot change while others hang on it: view `"My View"`'
    ):
        staged_table.publish() if staged else forced.destination.write(MigrateTable(after, force=True))
    assert forced.query('select v from "My View"') == [(5,)]


def test_a_foreign_key_that_needs_the_old_key_is_named(forced):
    before, after = people("t", ("v", pa.int64())), people("t", ("v", pa.int64()), keys=("v",))
    forced.destination.insert(before, rows(before, (1, "a", 5)))
    forced.query("create table pets (owner bigint references t (id))")
    with pytest.raises(MigrationRefused, match="pets"):
        forced.destination.plugin.destination.migrate(after, force=True)
    assert forced.query("select id from t") == [(1,)]
