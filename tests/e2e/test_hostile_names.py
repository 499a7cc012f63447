"""Names from outside are only names: of tables, columns, sources, clients, files and cursors, and values in rules."""

from __future__ import annotations

import pytest

from tests.e2e.documents import made, messages, run, source

NAMES = [
    '"; drop table bystander; --',
    "'); drop table bystander; --",
    "`; drop table bystander; --",
    "a\\'b %s $1 ? :x {0}",
]
each_name = pytest.mark.parametrize("name", NAMES)


AWKWARD = {
    "a line break": "a\nb",
    "a zero": "a\0b",
    "half a zero": "\0",
    "percents": "%s%n%(x)s%",
    "a backslash": "\\",
    "an open quote": "'",
    "quotes": "''\"\"``",
    "brackets": "[x](y){z}",
    "a comment": "x/*",
    "very long": "x" * 5000 + "'",
    "beyond U+FFFF": "🎉 '",
    "backwards": "\u202e'tset",
    "two forms": "e\u0301'",
    "a quote that looks like one": "\u02bc; drop table bystander; --",
    "blanks": " ' ",
}


@pytest.fixture
def store(each_store):
    """MySQL as well."""
    return each_store


@pytest.fixture
def bystander(store):
    """A table of somebody else's, which has to be there at the end."""
    assert run(made(bystander={"columns": {"id": "int64"}, "rows": [[1]]}), store.document()).outcome == "complete"
    yield
    assert store.query("select id from bystander") == [(1,)]


def hostile(name, *rows, **more):
    tables = {
        name: {"columns": {name: "utf8", "note": "utf8"}, "primary_key": [name], "rows": [list(row) for row in rows]},
        f"{name}2": {"columns": {name: "utf8"}, "parent": name, "rows": [[name]]},
    }
    document = made(**tables)
    document["spec"] |= {"name": name, **more}
    return document


@each_name
@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_tables_columns_sources_and_rules(store, bystander, name, publish):
    rules = {"values": {name: [name, f"{name}x"]}, "unique": [name], "not_null": [name], "rows": {"change": "100%"}}
    into = store.document(publish=publish, max_stale_ratio=0.9, expect={name: rules}, max_rejects=3)

    first = run(hostile(name, (name, "old"), (f"{name}x", "old"), client_id_column=True), into)
    second = run(hostile(name, (name, "new"), client_id_column=True), into)

    assert (first.outcome, second.outcome) == ("complete", "complete"), messages(first) + messages(second)
    rows = {row.table: row for row in second.tables}
    assert (rows[name].rows_written, rows[name].rows_stale_deleted) == (1, 1)
    assert all(found.ok for found in rows[name].expectations)
    assert len(rows[name].expectations) == 4
    assert rows[f"{name}2"].rows_written == 1


@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_awkward_names_are_only_names_or_refused_as_such(store, bystander, kind, publish):
    documents = []
    for where in ("table", "column", "source", "value"):
        names = {each: AWKWARD[kind] if where == each else f"{each}_{where}" for each in ("table", "column", "value")}
        columns = {"id": "int64", names["column"]: "utf8"}
        table = {"columns": columns, "primary_key": ["id"], "rows": [[1, names["value"]]]}
        documents.append(made(**{names["table"]: table}))
        documents[-1]["spec"]["name"] = AWKWARD[kind] if where == "source" else where

    result = run(*documents, store.document(publish=publish))

    whole = 0
    for part in result.sources:
        rows = [row for row in result.tables if row.source == part.name]
        told = part.error + "".join(error.message for row in rows for error in row.errors)
        assert "syntax" not in told.lower(), told
        assert (part.outcome == "complete" and [row.complete for row in rows] == [True]) != bool(told), told
        whole += not told
    # One table for each, and that of the bystander.
    assert len(store.tables()) == whole + 1 or whole < len(documents)


@each_name
def test_a_table_of_cursors(store, bystander, name):
    into = store.document(publish="stream")
    state = {"table_name": name, "connection": "@@plugins.db.connection"}
    events = source(name, tables=["events"], backend_options=state)

    for _ in range(2):
        result = run(events, into)
        assert result.outcome == "complete", messages(result)

    assert store.query("select count(*) from events") == [(6,)]


@each_name
def test_files_and_their_headers(store, bystander, name, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    quoted = name.replace('"', '""')
    (folder / f"{name.replace('/', '')}.csv").write_text(f'"{quoted}",id\n"{quoted}",1\n')
    files = source("files", "file", ["*"], spec={"path": str(folder), "provenance": True})

    result = run(files, store.document())

    assert result.outcome == "complete", messages(result) + result.sources[0].error
    [table] = result.tables
    assert table.rows_written == 1
