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
