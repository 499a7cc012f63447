"""What is foretold of a sync: every table as the sync would migrate it, and nothing done."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from catchment.engine.preview import Preview, preview
from catchment.engine.sync import Options
from tests.e2e.conftest import Store, at_clickhouse, duck, store  # noqa: F401
from tests.e2e.documents import HERE, destination, made, messages, plan, run, source, transformer

SECRET = "hunter2-hunter2"


def look(*documents, **options) -> Preview:
    return preview(plan(*documents), Options(**options))


def actions(found: Preview) -> dict[str, str]:
    return {row.table: row.action for row in found.tables}


VALUES = {"utf8": "x", "int64": 7}


def people(**columns):
    """A table with a key and those columns, and one row."""
    row = [1, *(VALUES[kind] for kind in columns.values())]
    return made(people={"columns": {"id": "int64", **columns}, "primary_key": ["id"], "rows": [row]})


@pytest.mark.parametrize("mode", ["overwrite-delete-stale", "overwrite", "append"])
def test_first_sync_creates_what_is_foretold_and_the_second_nothing(store: Store, mode):  # noqa: F811
    documents = [source(tables=["*"]), store.document(write_mode=mode, send_sync_summary=True)]

    before = look(*documents)
    assert store.tables() == []
    assert run(*documents).outcome == "complete"
    after = look(*documents)

    assert before.outcome == "changes"
    assert actions(before) == dict.fromkeys(["shops", "orders", "events", "cloudquery_sync_summaries"], "create")
    assert sorted(actions(before)) == store.tables()
    assert {row.table: {c.name for c in row.columns if c.primary_key} for row in before.tables} == {
        name: store.primary_key(name) for name in store.tables()
    }
    assert after.outcome == "unchanged"
    assert set(actions(after).values()) == {"none"}


@pytest.mark.parametrize("plugin", ["duckdb", "sqlite"])
def test_a_database_that_is_missing_is_not_made(tmp_path, plugin):
    path = tmp_path / "none.db"

    found = look(source(), destination(path=plugin, spec={"connection_string": str(path)}))

    assert actions(found) == {"shops": "create", "orders": "create"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plugin", ["duckdb", "sqlite"])
def test_a_folder_that_is_missing_is_an_error_as_in_a_sync(tmp_path, plugin):
    path = tmp_path / "no" / "none.db"

    found = look(source(), destination(path=plugin, spec={"connection_string": str(path)}))

    assert found.outcome == "failed"
    assert "does not exist; make it first" in found.destinations[0].error
    assert found.tables == []


def test_a_new_column_is_safe_and_rows_are_counted(store: Store):  # noqa: F811
    run(people(), store.document())

    [row] = look(people(name="utf8"), store.document()).tables

    assert (row.action, row.rows) == ("alter", 1)
    [change] = row.changes
    assert (change.kind, change.column, change.safety) == ("add_column", "name", "safe")
    assert change.text == "column `name` of type utf8 is new"


def test_a_column_that_is_gone_stays_and_is_no_change(store: Store):  # noqa: F811
    run(people(name="utf8"), store.document())

    found = look(people(), store.document())

    [row] = found.tables
    assert (found.outcome, row.action) == ("unchanged", "none")
    assert [change.text for change in row.changes] == ["column `name` is gone; it stays, null in new rows"]
    run(people(), store.document())
    assert store.query("select id, name from people") == [(1, None)]


def test_an_unsafe_change_is_refused_in_safe_mode_and_made_in_forced(store: Store):  # noqa: F811
    run(people(name="utf8"), store.document())

    safe = look(people(name="int64"), store.document())
    forced = look(people(name="int64"), store.document(migrate_mode="forced"))

    assert (safe.outcome, safe.tables[0].action) == ("changes", "refused")
    assert "cannot be migrated in `migrate_mode: safe`" in safe.tables[0].reason
    assert "run with `migrate_mode: forced`" in safe.tables[0].hint
    assert (forced.outcome, forced.tables[0].action) == ("changes", "recreate")
    for found in (safe, forced):
        [change] = found.tables[0].changes
        assert (change.kind, change.safety) == ("change_type", "forced")
    assert store.query("select name from people") == [("x",)]


def test_a_switch_of_the_write_mode_changes_the_key(store: Store):  # noqa: F811
    run(people(), store.document(write_mode="append"))

    [row] = look(people(), store.document(write_mode="overwrite", migrate_mode="forced")).tables

    # The rows that are there keep the new key, so the table need not be made anew.
    assert row.action == "alter"
    assert {change.kind for change in row.changes} >= {"change_primary_key"}


@pytest.mark.parametrize("store", ["duckdb", "postgresql", "sqlite"], indirect=True)
def test_views_are_named(store: Store):  # noqa: F811
    run(people(name="utf8"), store.document())
    execute(store, "create view names as select name from people", "create view few as select * from names")

    safe = look(people(name="int64"), store.document()).tables[0]
    forced = look(people(name="int64"), store.document(migrate_mode="forced")).tables[0]

    assert safe.dependents == forced.dependents == ["view `few`", "view `names`"]
    # PostgreSQL does not drop a table under a view; the others do, and the view looks for the new one.
    assert forced.action == ("refused" if store.plugin == "postgresql" else "recreate")


@pytest.mark.parametrize("publish", ["atomic", "stream"])
@pytest.mark.postgresql
def test_a_table_that_cannot_be_dropped_is_refused_as_foretold(postgresql_url, publish):
    database = at_postgresql(postgresql_url)
    forced = database.document(migrate_mode="forced", publish=publish)
    run(people(name="utf8"), forced)
    execute(database, "create view names as select name from people",
            "create table child (person bigint references people)")  # fmt: skip

    [row] = look(people(name="int64"), forced).tables
    result = run(people(name="int64"), forced)

    assert row.action == "refused"
    assert row.dependents[1] == "view `names`"
    assert "on table child" in row.dependents[0]
    assert row.reason in messages(result)
    assert "drop them and make them again" in messages(result)
    assert database.query("select name from people") == [("x",)]


@pytest.mark.duckdb
def test_a_table_with_children_in_duckdb_is_refused_as_foretold(duck: Store):  # noqa: F811
    run(people(name="utf8"), duck.document())
    execute(duck, "create table child (person bigint references people(id))")

    [row] = look(people(name="int64"), duck.document(migrate_mode="forced")).tables

    assert (row.action, row.dependents) == ("refused", ["foreign key of table `child`"])
    assert "people" in row.reason


def test_the_table_is_the_one_that_a_sync_writes(duck: Store):  # noqa: F811
    documents = [
        source(tables=["shops"], client_id_column=True),
        duck.document(write_mode="overwrite", sync_group_id="{{YEAR}}", transformers=["two"]),
        transformer("two", "tests.engine.plugins:Doubler"),
    ]

    [before] = look(*documents, columns_not_null=True).tables
    run(*documents, columns_not_null=True)

    have = duck.query("select name, \"notnull\", pk from pragma_table_info('shops_out')")
    assert before.table == "shops_out"
    assert [(c.name, c.not_null or c.primary_key, c.primary_key) for c in before.columns] == have
    assert [row.action for row in look(*documents, columns_not_null=True).tables] == ["none"]


def test_publishing_stale_rows_and_incremental_tables(duck: Store):  # noqa: F811
    backend = {"table_name": "cursors", "connection": "@@plugins.db.connection"}
    documents = [source(tables=["*"], backend_options=backend), duck.document()]

    rows = {row.table: row for row in look(*documents).tables}

    assert (rows["shops"].publish, rows["shops"].deletes_stale) == ("atomic", True)
    assert (rows["events"].publish, rows["events"].deletes_stale) == ("stream", False)
    assert rows["events"].is_incremental
    assert (rows["cursors"].role, rows["cursors"].action) == ("cursors", "create")
    run(*documents)
    assert sorted(rows) == duck.tables()
    assert {row.action for row in look(*documents).tables} == {"none"}


def test_tables_that_sources_share_are_told_once(duck: Store):  # noqa: F811
    backend = {"table_name": "cursors", "connection": "@@plugins.db.connection"}
    both = [source(name, tables=["shops"], backend_options=backend) for name in ("one", "two")]

    found = look(*both, duck.document(send_sync_summary=True))

    assert [(row.source, row.table) for row in found.tables] == [
        ("one", "shops"), ("one", "cloudquery_sync_summaries"), ("one", "cursors"), ("two", "shops"),
    ]  # fmt: skip


def test_a_table_that_a_transformer_fails_on_is_an_error(duck: Store):  # noqa: F811
    found = look(source(), duck.document(transformers=["bad"]), transformer("bad", f"{HERE}:Twice"))

    assert (found.outcome, actions(found)) == ("failed", {"shops": "create", "orders": "refused"})
    assert "duplicate column" in found.tables[1].reason


def test_one_that_fails_leaves_the_others(tmp_path, duck: Store):  # noqa: F811
    documents = [
        source("dead", "sqlite", spec={"connection_string": str(tmp_path / "none.db")}),
        source("alive", tables=["shops"], destinations=["db", "gone"]),
        duck.document(),
        destination("gone", "sqlite", spec={"connection_string": str(tmp_path / "no" / "x.db")}),
    ]

    found = look(*documents)

    assert found.outcome == "failed"
    errors = {part.name: part.error for part in found.sources}
    assert errors["alive"] == ""
    assert "there is no file" in errors["dead"]
    assert [bool(part.error) for part in found.destinations] == [False, True]
    assert actions(found) == {"shops": "create"}


def test_a_destination_without_a_catalogue_does_not_guess():
    found = look(source(tables=["shops"]), destination(path="test", write_mode="append"))

    assert (found.outcome, actions(found)) == ("unchanged", {"shops": "unknown"})
    assert found.tables[0].reason


def test_a_password_is_never_shown():
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/db"

    found = look(source(tables=["shops"]), destination(path="postgresql", spec={"connection_string": url}))

    assert found.outcome == "failed"
    assert found.destinations[0].error
    assert SECRET not in str(found.to_json())


def test_nothing_is_logged(duck: Store, caplog):  # noqa: F811
    run(source(), duck.document())
    caplog.clear()

    with caplog.at_level(logging.INFO, "catchment"):
        look(source(), duck.document())

    assert caplog.records == []


def test_nothing_in_a_database_changes(store: Store):  # noqa: F811
    run(source(), store.document(send_sync_summary=True))
    before = state(store)

    look(source(tables=["*"]), store.document(migrate_mode="forced", write_mode="append"))

    assert state(store) == before


def state(store: Store):  # noqa: F811
    """All that a database holds."""
    if store.plugin in ("duckdb", "sqlite"):
        with open(store.connection, "rb") as file:
            return file.read()
    rows = {name: store.query(f'select * from "{name}" order by 1, 2') for name in store.tables()}
    catalogues = {
        "postgresql": "select oid, relname, relfilenode from pg_class order by 1",
        "clickhouse": "select name, uuid, create_table_query from system.tables where database = currentDatabase() "
        "order by 1",
    }
    return rows, store.query(catalogues[store.plugin])


def at_postgresql(url: str) -> Store:
    import psycopg

    def query(text):
        with psycopg.connect(url) as connection:
            return connection.execute(text).fetchall()

    return Store("postgresql", url, query)


def execute(store: Store, *statements: str) -> None:  # noqa: F811
    """Change a database by hand."""
    import sqlite3

    import duckdb
    import psycopg

    connect: dict[str, Any] = {"duckdb": duckdb.connect, "sqlite": sqlite3.connect, "postgresql": psycopg.connect}
    connection = connect[store.plugin](store.connection)
    for statement in statements:
        connection.execute(statement)
    if store.plugin != "duckdb":
        connection.commit()
    connection.close()


@pytest.mark.parametrize("mode", ["overwrite-delete-stale", "overwrite"])
def test_another_order_is_made_by_a_publish_and_refused_to_a_live_table(clickhouse_url, mode):
    into = at_clickhouse(clickhouse_url)
    documents = [people(name="utf8"), into.document(write_mode=mode)]
    sorted_anew = [people(name="utf8"), into.document(write_mode=mode, spec={"order": [{"order_by": ["name", "id"]}]})]
    run(*documents)

    [row] = look(*sorted_anew).tables
    result = run(*sorted_anew)

    assert [change.kind for change in row.changes] == ["change_layout"]
    if mode == "overwrite":
        assert (row.action, result.outcome) == ("refused", "partial")
        assert "publish: atomic" in row.hint
    else:
        assert (row.action, row.reason, row.hint, result.outcome) == ("alter", "", "", "complete")
    assert actions(look(*sorted_anew)) == {"people": "refused" if mode == "overwrite" else "none"}
