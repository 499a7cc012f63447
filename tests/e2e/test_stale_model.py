"""Which rows a sync leaves, whatever goes wrong: random syncs into a database, held against a model of plain dicts.

The model says the rule and nothing else. What was read is in the table; rows of the source that did not come again go
only if all that could hold them was read to its end and written. Publishing together differs in one thing: a family of
tables that cannot be whole stays as it was.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import hypothesis
import pytest
from hypothesis import strategies as st

from tests.e2e.documents import destination, run, source
from tests.e2e.forest import KEYED, PARENTS, SLICED

MANY_REJECTS = 100
CLIENTS = ("x", "y")
IDS = st.integers(1, 4)
SHARES = [f"{table} {client}" for table in PARENTS for client in (CLIENTS if table != "birds" else ("",))]


@dataclass(frozen=True)
class Read:
    """What one source finds and suffers in one sync."""

    name: str
    rows: dict[str, dict[int, str]]
    """By table, then by id: the client or parent row that the row belongs to."""
    clients: tuple[str, ...] = CLIENTS
    refused: frozenset[tuple[str, int]] = frozenset()
    fail_first: frozenset[str] = frozenset()
    fail_last: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()
    no_clients: frozenset[str] = frozenset()
    dead: bool = False
    by_client: bool = False
    """`client_id_column`"""

    def document(self, number: int) -> dict[str, Any]:
        """The source in a config."""
        spec = {
            "number": number,
            "clients": list(self.clients),
            "rows": {table: [list(row) for row in rows.items()] for table, rows in self.rows.items()},
            "refused": {table: [i for name, i in self.refused if name == table] for table in PARENTS},
            **{key: sorted(getattr(self, key)) for key in ("fail_first", "fail_last", "skip", "no_clients")},
            "dead": self.dead,
        }
        made: dict[str, Any] = source(
            self.name, "tests.e2e.forest:forest", ["*"], spec=spec, client_id_column=self.by_client
        )
        return made


@dataclass(frozen=True)
class Step:
    """One run of a config with one or both of the sources."""

    reads: tuple[Read, ...]
    publish: str
    max_rejects: int


# the strategies


def owners(table: str) -> st.SearchStrategy[str]:
    if table in SLICED:
        return st.sampled_from(CLIENTS)
    return IDS.map(str) if PARENTS[table] else st.just("")


def a_few(of: list[Any]) -> st.SearchStrategy[frozenset[Any]]:
    """Mostly nothing: a sync in which everything fails tells little."""
    return st.one_of(st.just(frozenset()), st.just(frozenset()), st.frozensets(st.sampled_from(of), max_size=2))


def reads(name: str) -> st.SearchStrategy[Read]:
    return st.builds(
        Read,
        name=st.just(name),
        rows=contents(),
        clients=st.sampled_from([CLIENTS, CLIENTS, CLIENTS, ("x",), ()]),
        refused=a_few([(table, number) for table in PARENTS for number in range(1, 5)]),
        fail_first=a_few(SHARES),
        fail_last=a_few(SHARES),
        skip=a_few(SHARES),
        no_clients=a_few(sorted(SLICED)),
        dead=st.sampled_from([False] * 9 + [True]),
        by_client=st.sampled_from([True, True, False]),
    )


def contents(least: int = 0) -> st.SearchStrategy[dict[str, dict[int, str]]]:
    return st.fixed_dictionaries(
        {table: st.dictionaries(IDS, owners(table), min_size=least, max_size=4) for table in PARENTS}
    )


def firsts(name: str) -> st.SearchStrategy[Read]:
    """Many rows without trouble, so that there is something to be deleted or kept afterwards."""
    return st.builds(Read, name=st.just(name), rows=contents(3), by_client=st.sampled_from([True, True, False]))


def steps(one: st.SearchStrategy[Read], two: st.SearchStrategy[Read]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        reads=st.one_of(st.tuples(one), st.tuples(one), st.tuples(one, two)),
        publish=st.sampled_from(["atomic", "stream"]),
        max_rejects=st.sampled_from([0, MANY_REJECTS]),
    )


def histories(most: int) -> st.SearchStrategy[list[Step]]:
    later = st.lists(steps(reads("one"), reads("two")), min_size=1, max_size=most)
    return st.tuples(steps(firsts("one"), firsts("two")), later).map(lambda parts: [parts[0], *parts[1]])


# the model


@dataclass
class Expected:
    """What the report has to say of one table."""

    complete: bool = False
    published: bool = True
    written: int = 0
    rejected: int = 0
    deleted: int = 0
    kept: int = 0


@dataclass
class Fetched:
    """What a source really gave of one table."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """Clients for which it was read at all."""
    failed: set[str] = field(default_factory=set)
    skipped: int = 0


def fetch(read: Read, number: int) -> dict[str, Fetched]:
    found: dict[str, Fetched] = {}
    for table, parent in PARENTS.items():
        part = found[table] = Fetched()
        if table in read.no_clients:
            part.failed.add("")
            continue
        if parent:
            calls = [(row["client"], str(row["id"])) for row in found[parent].rows]
        else:
            calls = [(client, client) for client in (read.clients if table in SLICED else ("",))]
        for client, owner in calls:
            share = f"{table} {client}"
            part.asked.add(client)
            if share in read.fail_first:
                part.failed.add(client)
                continue
            part.rows += [
                {"id": i, "owner": o, "client": client, "number": number, "source": read.name}
                for i, o in read.rows[table].items()
                if o == owner
            ]
            if share in read.skip:
                part.skipped += 1
            if share in read.skip or share in read.fail_last:
                part.failed.add(client)
    return found


def lineage(table: str) -> list[str]:
    """The table and those above it."""
    return [table, *lineage(PARENTS[table])] if table else []


def root(table: str) -> str:
    return lineage(table)[-1]


def whole_clients(read: Read, found: dict[str, Fetched], table: str) -> set[str]:
    """Clients whose share of the table is known to its last row."""
    top = root(table)
    listed = set() if top in read.no_clients else set(read.clients if top in SLICED else [""])
    return listed.difference(*(found[name].failed for name in lineage(table)))


class Model:
    """The tables as they have to be."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {table: [] for table in PARENTS}

    def sync(self, read: Read, number: int, step: Step) -> dict[str, Expected]:
        """Change the tables as the sync has to; what it has to report."""
        found = fetch(read, number)
        bad = {table: {i for name, i in read.refused if name == table} for table in PARENTS}
        refused = {table: [row for row in part.rows if row["id"] in bad[table]] for table, part in found.items()}
        # Without room for rejects a refused row ends its table.
        broken = {table for table in PARENTS if refused[table] and not step.max_rejects}
        lacking = {table for table in PARENTS if refused[table] and step.max_rejects}
        unread = {table for table, part in found.items() if part.failed}
        partial = {table for table in PARENTS if {*lineage(table)} & (unread | lacking)}
        held: set[str] = set()
        if step.publish == "atomic":
            tops = {root(table) for table in PARENTS if table in broken or (table in partial and table not in KEYED)}
            held = {table for table in PARENTS if root(table) in tops}
        said = {}
        for table in PARENTS:
            report = said[table] = Expected(complete=table not in partial | broken)
            report.rejected = found[table].skipped + (len(refused[table]) if table in lacking else 0)
            if table in held or table in broken:
                report.complete = report.published = False
                report.kept = sum(row["source"] == read.name for row in self.tables[table])
                continue
            good = [row for row in found[table].rows if row not in refused[table]]
            report.written = len(good)
            if table in KEYED:
                ids = {row["id"] for row in good}
                self.tables[table] = [row for row in self.tables[table] if row["id"] not in ids]
            self.tables[table] += [row if read.by_client else row | {"client": None} for row in good]
            stale = [row for row in self.tables[table] if row["source"] == read.name and row["number"] != number]
            if table in partial:
                sure = (
                    whole_clients(read, found, table) if read.by_client and not {*lineage(table)} & lacking else set()
                )
                gone = [row for row in stale if row["client"] in sure]
            else:
                gone = stale
            self.tables[table] = [row for row in self.tables[table] if row not in gone]
            report.deleted, report.kept = len(gone), len(stale) - len(gone)
        return said


# the real thing


COLUMNS = ("id", "owner", "number", "source", "client", "has_parent")


def has_parent(table: str, row: dict[str, Any], parents: list[dict[str, Any]]) -> bool:
    """Whether `_cq_parent_id` leads to a row: to that of the same key, or to the very one where there are no keys."""
    if PARENTS[table] in KEYED:
        return any(str(parent["id"]) == row["owner"] for parent in parents)
    return any(
        (str(p["id"]), p["number"], p["source"]) == (row["owner"], row["number"], row["source"]) for p in parents
    )


def wanted_rows(model: Model, table: str) -> Counter[tuple[Any, ...]]:
    parents = model.tables.get(PARENTS[table], [])
    return Counter(
        tuple({**row, "has_parent": has_parent(table, row, parents)}[key] for key in COLUMNS)
        for row in model.tables[table]
    )


def stored_rows(connection: duckdb.DuckDBPyConnection, table: str) -> Counter[tuple[Any, ...]]:
    found = connection.execute("select table_name, column_name from duckdb_columns()").fetchall()
    if table not in {name for name, _ in found}:
        return Counter()
    client = "_cq_client_id" if (table, "_cq_client_id") in found else "null"
    parent = PARENTS[table]
    has_parent = f"_cq_parent_id in (select _cq_id from {parent})" if parent in {name for name, _ in found} else "false"
    query = f"select id, owner, number, _cq_source_name, {client}, coalesce({has_parent}, false) from {table}"
    return Counter(connection.execute(query).fetchall())


def check(history: list[Step]) -> None:
    """Carry the steps out, and compare every table and every report after each."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/db.duckdb"
        for number, step in enumerate(history):
            into = destination(publish=step.publish, max_rejects=step.max_rejects, spec={"connection_string": path})
            documents = [read.document(number) for read in step.reads]
            result = run(*documents, into, sources_in_parallel=1)

            for read in step.reads:
                if read.dead:
                    assert [row for row in result.tables if row.source == read.name] == []
                    continue
                wanted = model.sync(read, number, step)
                rows = {row.table: row for row in result.tables if row.source == read.name}
                assert set(rows) == set(wanted)
                for table, row in rows.items():
                    want = wanted[table]
                    assert (row.complete, row.published) == (want.complete, want.published), (table, row)
                    assert row.rows_written == want.written, (table, row)
                    assert row.rows_rejected == want.rejected, (table, row)
                    assert (row.rows_stale_deleted or 0) == want.deleted, (table, row)
                    assert row.rows_stale_kept == want.kept, (table, row)
                    assert bool(row.stale_kept_reason) >= bool(want.kept), (table, row)
                troubled = any(not want.complete for want in wanted.values())
                assert (result.outcome != "complete") >= troubled or any(part.skip for part in step.reads)
            with duckdb.connect(path) as connection:
                for table in PARENTS:
                    assert stored_rows(connection, table) == wanted_rows(model, table), table


@pytest.mark.parametrize("publish", ["atomic", "stream"])
def test_a_refused_row_keeps_its_last_version_though_only_another_client_broke_off(publish):
    nothing: dict[str, dict[int, str]] = {table: {} for table in PARENTS}
    rows = nothing | {"trees": {1: "x", 2: "y", 3: "y"}}
    first = Read("one", rows, by_client=True)
    second = replace(first, fail_last=frozenset({"trees x"}), refused=frozenset({("trees", 2)}))

    check([Step((first,), publish, 0), Step((second,), publish, MANY_REJECTS)])


# Seconds when it passes; a failure is made small first.
@pytest.mark.timeout(900)
@hypothesis.settings(max_examples=20)
@hypothesis.given(histories(2))
def test_random_syncs_leave_what_the_model_says(history):
    check(history)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@hypothesis.settings(max_examples=500)
@hypothesis.given(histories(7))
def test_many_random_syncs_leave_what_the_model_says(history):
    check(history)
