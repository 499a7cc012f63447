"""Which tables kept how many old rows, and why: the report has it for every way in which stale rows stay."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from catchment.cli.report import print_report
from catchment.destinations.duckdb import DuckDB
from catchment.plugin import Capabilities
from tests.e2e.documents import HERE, destination, made, messages, run, source

MODES = pytest.mark.parametrize("publish", ["atomic", "stream"])
SELF = "tests.e2e.test_stale_kept"


def regions(fail=(), by_client=False, **rows):
    spec = {"regions": {name: list(numbers) for name, numbers in rows.items()}, "fail": list(fail)}
    return source("regions", f"{HERE}:regions", ["machines", "disks"], spec=spec, client_id_column=by_client)


def people(*rows, keys=("id",), kind="utf8", **others):
    columns = {"id": "int64", "note": kind}
    return made(people={"columns": columns, "primary_key": list(keys), "rows": [list(r) for r in rows]}, **others)


def kept(result):
    return {row.table: row.rows_stale_kept for row in result.tables}


def reasons(result):
    return {row.table: row.stale_kept_reason for row in result.tables}


@MODES
def test_rows_of_a_table_that_broke_off(each_store, publish):
    run(regions(east=[1, 2], west=[3, 4]), each_store.document(publish=publish))
    result = run(regions(fail=["west"], east=[1], west=[3]), each_store.document(publish=publish))

    assert kept(result) == {"machines": 2, "disks": 2}
    assert reasons(result)["machines"] == "it was read with 1 error: region west broke off"
    assert reasons(result)["disks"].startswith("its parent table `machines` is not complete")
    assert each_store.query("select id from machines order by id") == [(1,), (2,), (3,), (4,)]


@MODES
def test_rows_of_clients_that_broke_off(each_store, publish):
    rows = {"east": [1, 2], "west": [3, 4], "north": [5]}
    run(regions(by_client=True, **rows), each_store.document(publish=publish))
    result = run(regions(["west"], by_client=True, east=[1], west=[3]), each_store.document(publish=publish))

    # One of the west and one of the north; one of the east is deleted.
    assert kept(result) == {"machines": 2, "disks": 2}
    assert {row.rows_stale_deleted for row in result.tables} == {1}
    assert "only those of `east` are deleted" in reasons(result)["machines"]


def test_a_reason_names_a_few_clients_and_counts_the_others(duck):
    rows = {f"r{number:02}": [number] for number in range(20)}
    result = run(regions(["r19"], by_client=True, **rows), duck.document())

    assert reasons(result)["machines"].endswith(
        "only those of `r00`, `r01`, `r02`, `r03`, `r04` and 14 more are deleted"
    )


@MODES
def test_rows_of_a_table_whose_stale_rows_are_too_many(each_store, publish):
    run(people((1, "a"), (2, "b"), (3, "c"), (4, "d")), each_store.document(publish=publish))
    result = run(people((1, "x")), each_store.document(publish=publish, max_stale_ratio=0.5))

    # An atomic one is not published at all, so each of its rows is old.
    assert kept(result) == {"people": 4 if publish == "atomic" else 3}
    assert "more than `max_stale_ratio` 0.5 allows" in reasons(result)["people"]
    assert result.outcome == "partial"


def test_rows_of_a_table_that_is_held_back_and_of_its_relations(each_store):
    pets = {"columns": {"pet": "int64"}, "primary_key": ["pet"], "parent": "people", "rows": [[1]]}
    run(people((1, "a"), (2, "b"), pets=pets), each_store.document())
    result = run(people((1, "a"), pets=pets), each_store.document(expect={"people": {"rows": {"min": 2}}}))

    broken = "`expect` is broken: rows min 2, found 1 row"
    held = f"not published: it is held back with its relation `people`: {broken}"
    assert kept(result) == {"people": 2, "pets": 1}
    assert reasons(result) == {"people": f"not published: {broken}", "pets": held}
    assert messages(result) == f"{broken}\n{held}"
    assert [(row.complete, row.published, row.rows_written) for row in result.tables] == [(False, False, 0)] * 2
    assert result.outcome == "partial"


@MODES
def test_rows_of_a_table_that_could_not_be_written(each_store, publish):
    run(people((1, "a"), (2, "b"), kind="utf8!"), each_store.document(publish=publish))
    result = run(people((1, "a"), (3, None), kind="utf8!"), each_store.document(publish=publish))

    assert kept(result) == {"people": 2}
    why = "not published: writing table `people` failed" if publish == "atomic" else "writing it failed"
    assert reasons(result) == {"people": why}
    assert each_store.query("select id from people order by id") == [(1,), (2,)]


@MODES
def test_a_first_sync_that_breaks_off_keeps_none(each_store, publish):
    result = run(regions(fail=["west"], east=[1], west=[3]), each_store.document(publish=publish))

    assert kept(result) == {"machines": 0, "disks": 0}


@MODES
def test_a_whole_table_keeps_none_and_needs_no_reason(each_store, publish):
    for rows in ([(1, "a"), (2, "b")], [(1, "a")]):
        result = run(people(*rows), each_store.document(publish=publish))

    assert (kept(result), reasons(result)) == ({"people": 0}, {"people": ""})


def test_rows_that_were_left_out_of_a_table_without_a_key_are_an_error(duck):
    skipping = source(spec={"skip": ["shops"]}, tables=["shops"])
    nothing = duck.document(pk_mode="cq-id-only")
    run(source(tables=["shops"]), nothing)
    result = run(skipping, nothing)

    # Nothing of it is published, so to call it complete would be a lie.
    assert result.outcome == "partial"
    assert "not published: table `shops` has no keys to merge by, and the source left out 1 row" in messages(result)
    assert kept(result) == {"shops": 2}


@pytest.mark.parametrize("write_mode", ["overwrite", "append"])
def test_where_nothing_is_to_be_deleted_nothing_is_said_to_be_kept(duck, write_mode):
    for _ in range(2):
        result = run(regions(fail=["west"], east=[1], west=[3]), duck.document(write_mode=write_mode))

    assert kept(result) == {"machines": None, "disks": None}
    assert set(reasons(result).values()) == {""}


class Asked(DuckDB):
    """Notes of which tables it was asked for a number."""

    name = "asked"
    tables: ClassVar[list[str]] = []

    def measure(self, table, measures, *, keys, source_name):
        # Rows of a later date are looked for before the first row comes, in every table that is written as they come.
        Asked.tables += [table.name for measure in measures if measure.kind != "newer"]
        return super().measure(table, measures, keys=keys, source_name=source_name)


class Mute(DuckDB):
    """Cannot count, as plugins behind the protocol cannot."""

    name = "mute"
    capabilities: Capabilities = replace(DuckDB.capabilities, measures=False)


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_only_tables_that_kept_something_are_counted_and_once(tmp_path, publish):
    into = destination("db", f"{SELF}:Asked", publish=publish, spec={"connection_string": str(tmp_path / "x.duckdb")})
    others = {f"t{number}": {"columns": {"id": "int64"}, "primary_key": ["id"], "rows": [[1]]} for number in range(9)}
    Asked.tables.clear()
    run(people((1, "a"), kind="utf8!", **others), into)
    assert Asked.tables == []

    run(people((1, None), kind="utf8!", **others), into)

    assert Asked.tables == ["people"]


def test_a_destination_that_cannot_count_leaves_the_number_open_and_the_report_says_so(tmp_path, capsys):
    into = destination("db", f"{SELF}:Mute", publish="stream", spec={"connection_string": str(tmp_path / "x.duckdb")})
    run(regions(east=[1, 2], west=[3, 4]), into)
    result = run(regions(fail=["west"], east=[1], west=[3]), into)
    print_report(result)

    assert kept(result) == {"machines": None, "disks": None}
    assert "machines: stale rows are kept (an unknown number of rows): it was read with" in capsys.readouterr().out
