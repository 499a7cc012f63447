"""What `migrate_mode: forced` keeps of a table of MySQL or MariaDB, and what it cannot."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catchment.destinations.mysql import MySQL
from catchment.messages import Insert, MigrateTable
from catchment.sdk import Column
from tests.destinations.conftest import Staged, people, rows


@pytest.fixture
def destination(open_destination, mysql_dsn):
    return open_destination(MySQL, connection_string=mysql_dsn)


CHANGES: dict[str, tuple[pa.DataType, pa.DataType, list[Any], list[Any]]] = {
    "bool to text": (pa.bool_(), pa.utf8(), [True, False, None], ["true", "false", None]),
    "wider": (pa.int16(), pa.int64(), [-5, 7, None], [-5, 7, None]),
    "narrower": (pa.int64(), pa.uint8(), [0, 255, None], [0, 255, None]),
    "number to text": (pa.int64(), pa.utf8(), [-(2**63), 1, None], [str(-(2**63)), "1", None]),
    "text to number": (pa.utf8(), pa.int32(), ["-12", "0", None], [-12, 0, None]),
    "double to number": (pa.float64(), pa.int32(), [2.0, -3.0, None], [2, -3, None]),
    "double to text": (pa.float64(), pa.utf8(), [0.1, 2.5, None], ["0.1", "2.5", None]),
    "float to double": (pa.float32(), pa.float64(), [0.1, 2.5, None], [0.10000000149011612, 2.5, None]),
    "number to double": (pa.int64(), pa.float64(), [2**53, 1, None], [2.0**53, 1.0, None]),
    "decimal": (pa.decimal128(10, 2), pa.decimal128(12, 1), [Decimal("1.50"), None], [Decimal("1.5"), None]),
    "text to json": (pa.utf8(), pa.list_(pa.int64()), ["[1, 2]", None], ["[1, 2]", None]),
    "json to text": (pa.list_(pa.int64()), pa.utf8(), [[1], None], ["[1]", None]),
    "text to bool": (pa.utf8(), pa.bool_(), ["true", "false", None], [1, 0, None]),
}
MISFITS: dict[str, tuple[pa.DataType, pa.DataType, list[Any], str]] = {
    "narrower": (pa.int64(), pa.uint8(), [1, 256], "256"),
    "text to number": (pa.utf8(), pa.int32(), ["1", "1x"], "1x"),
    "text with a fraction": (pa.utf8(), pa.int32(), ["1", "1.5"], "1.5"),
    "double to number": (pa.float64(), pa.int32(), [1.0, 1.5], "1.5"),
    "number to double": (pa.int64(), pa.float64(), [1, 2**53 + 1], str(2**53 + 1)),
    "decimal": (pa.decimal128(10, 2), pa.decimal128(12, 1), [Decimal("1.55")], "1.55"),
    "text to bool": (pa.utf8(), pa.bool_(), ["true", "TRUE"], "TRUE"),
    "no way": (pa.utf8(), pa.binary(), ["a"], "cannot be turned from longtext into longblob"),
}


@pytest.mark.parametrize("publish", [False, True], ids=["streamed", "published"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_forced_change_keeps_the_rows_that_fit(destination, ask_mysql, what, publish):
    before, after, old, new = CHANGES[what]
    table, changed = (people("people", ("v", kind)) for kind in (before, after))
    destination.insert(table, rows(table, *((n, "old", value) for n, value in enumerate(old)), source="other"))
    ask_mysql("create index by_name on people (name(10))")
    (foretold,) = destination.plugin.preview([changed], force=True)
    assert foretold.action == "alter"
    if publish:
        Staged(destination).add(changed, rows(changed, (100, "new", None)), force=True).publish()
    else:
        destination.write(MigrateTable(changed, force=True), Insert(changed, rows(changed, (100, "new", None))))
    assert [value for (value,) in ask_mysql("select v from people where id < 100 order by id")] == new
    assert ask_mysql("select name from people where id = 100") == [("new",)]
    assert "by_name" in ask_mysql("show create table people")[0][1]
    destination.write(MigrateTable(changed))
    assert [name for (name,) in ask_mysql("show tables")] == ["people"]


@pytest.mark.parametrize("publish", [False, True], ids=["streamed", "published"])
@pytest.mark.parametrize("what", MISFITS)
def test_a_forced_change_that_one_value_does_not_fit_makes_the_table_anew_and_names_it(
    destination, ask_mysql, caplog, what, publish
):
    before, after, old, named = MISFITS[what]
    table, changed = (people("people", ("v", kind)) for kind in (before, after))
    destination.insert(table, rows(table, *((n, "old", value) for n, value in enumerate(old)), source="other"))
    (foretold,) = destination.plugin.preview([changed], force=True)
    assert foretold.action == "recreate"
    if publish:
        Staged(destination).add(changed, rows(changed, (100, "new", None)), force=True).publish()
    else:
        destination.write(MigrateTable(changed, force=True), Insert(changed, rows(changed, (100, "new", None))))
    assert named in caplog.text
    assert ask_mysql("select id, v from people") == [(100, None)]


def test_a_forced_change_of_the_key_keeps_rows_that_are_unique_in_it(destination, ask_mysql):
    destination.insert(people(), rows(people(), (1, "a"), (2, "b")))
    destination.write(MigrateTable(people(keys=("id", "name")), force=True))
    assert len(ask_mysql("select * from people")) == 2
    destination.write(MigrateTable(people(keys=()), force=True))
    destination.write(MigrateTable(people(keys=("name",)), force=True))
    assert len(ask_mysql("select * from people")) == 2
    strict = people("people", Column("must", pa.int64(), not_null=True), keys=("name",))
    destination.write(MigrateTable(strict, force=True))
    assert ask_mysql("select * from people") == []
