"""CockroachDB and CrateDB. Neither runs where these tests do: a real PostgreSQL calls itself by their names.

Its `version()` is one of ours, in a schema that comes before its own; types that only CrateDB has are domains there.
So what is shown is which statements are chosen, and that they do what they should in PostgreSQL's own SQL; that the two
take them stands in their manuals and in what upstream sends, and is not shown here.
"""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from catchment.destinations.postgresql import PostgreSQL
from catchment.destinations.postgresql.kin import kin_of
from catchment.errors import MigrationRefused, PluginError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.internal import CQ_ID
from catchment.schema.types import inet, json, mac, uuid
from catchment.sdk import Column, sql
from catchment.testing import data
from tests.destinations.conftest import NOW, people, rows
from tests.e2e.documents import destination as destination_document
from tests.e2e.documents import made, messages, run

VERSIONS = {
    "CockroachDB": "CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27 01:53:43, go1.19.10)",
    "CrateDB": "CrateDB 5.8.3 (built 4a5d5e3/2024-09-17T13:00:00Z, Linux 5.15.0 amd64, OpenJDK 64-Bit 22.0.2+9)",
}


def pretend(ask, url, name):
    """Have the server of `url` call itself so; the connection string that shows it."""
    ask("create schema other")
    ask(f"create function other.version() returns text language sql as $$ select '{VERSIONS[name]}'::text $$")
    if name == "CrateDB":
        ask("create domain other.object as jsonb; create domain other.ip as inet")
    return f"{url} options='-csearch_path=other,pg_catalog'"


@pytest.fixture
def open_as(open_destination, postgresql_url, ask):
    """Opens a destination on a server that calls itself by the name."""
    return lambda name, **spec: open_destination(
        PostgreSQL, connection_string=pretend(ask, postgresql_url, name), **spec
    )


def kinds(ask, name):
    query = (
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = %s::regclass and attnum > 0 order by attnum"
    )
    return dict(ask(query, f"other.{name}"))


COLUMNS = [
    (pa.bool_(), True, "boolean", "boolean"),
    (pa.int8(), -5, "smallint", "smallint"),
    (pa.int32(), 5, "bigint", "integer"),
    (pa.int64(), 2**63 - 1, "bigint", "bigint"),
    (pa.uint8(), 255, "smallint", "smallint"),
    (pa.uint16(), 65_535, "bigint", "integer"),
    (pa.uint32(), 2**32 - 1, "bigint", "bigint"),
    (pa.uint64(), 2**64 - 1, "numeric(20,0)", "text"),
    (pa.float32(), 0.25, "real", "real"),
    (pa.float64(), 0.1, "double precision", "double precision"),
    (pa.decimal128(20, 3), Decimal("1.500"), "numeric(20,3)", "text"),
    (pa.utf8(), "it's", "text", "text"),
    (pa.binary(), b"\0\xff", "bytea", "text"),
    (pa.date32(), datetime.date(2024, 5, 6), "date", "timestamp without time zone"),
    (pa.time64("us"), datetime.time(7, 8, 9, 5000), "time without time zone", "text"),
    (pa.timestamp("ms", "UTC"), NOW.replace(microsecond=123_000), *["timestamp without time zone"] * 2),
    (uuid(), bytes(range(16)), "uuid", "text"),
    (json(), b'{"a": [1, null]}', "jsonb", "object"),
    (inet(), b"10.0.0.0/8", "inet", "ip"),
    (mac(), b"abcdef", "text", "text"),
    (pa.duration("s"), 5, "text", "text"),
    (pa.struct([("a", pa.int8())]), {"a": 1}, "text", "text"),
    (pa.list_(pa.int32()), [1, None], "bigint[]", "integer[]"),
    (pa.list_(pa.utf8()), ["a", None, 'q"\\,{}', ""], "text[]", "text[]"),
    (pa.list_(uuid()), [bytes(16), None], "uuid[]", "text[]"),
    (pa.list_(pa.binary()), [b"\0", None], "bytea[]", "text[]"),
]
"""Arrow type, value, and column type in each, which are upstream's."""


@pytest.mark.parametrize("name", VERSIONS)
def test_rows_of_every_type_go_in_and_come_back(open_as, ask, name):
    destination = open_as(name)
    table = data.sourced("t", ("id", pa.int64()), *((f"c{n}", kind) for n, (kind, *_) in enumerate(COLUMNS)))
    nothing = rows(table, (2, *[None] * len(COLUMNS)))
    batch = rows(table, (1, *(value for _, value, *_ in COLUMNS)))
    destination.insert(table, batch, nothing)
    place = 2 + list(VERSIONS).index(name)
    found = kinds(ask, "t")
    names = [f"c{n}" for n in range(len(COLUMNS))]
    assert [found[key].removeprefix("other.") for key in names] == [column[place] for column in COLUMNS]
    if name == "CockroachDB":
        destination.expect(table, batch, nothing)
    else:
        [back] = destination.plugin.read(table)
        assert back.num_rows == 2
        assert ask("select c12, c16, c10 from other.t where id = 1") == [
            ("AP8=", "00010203-0405-0607-0809-0a0b0c0d0e0f", "1.500")
        ]
    destination.write(MigrateTable(table))


@pytest.mark.parametrize("name", VERSIONS)
def test_rows_of_equal_keys_are_replaced_and_the_last_one_wins(open_as, ask, name):
    destination = open_as(name)
    table = people()
    destination.insert(table, rows(table, (1, "a"), (2, "b"), (1, "c")))
    destination.insert(table, rows(table, (2, "d")))
    assert ask("select id, name from other.people order by id") == [(1, "c"), (2, "d")]
    only = data.named("only", ("id", pa.int64()), keys=["id"])
    for _ in range(2):
        destination.insert(only, data.batch(only, (1,)))
    assert ask("select * from other.only") == [(1,)]
    destination.write(MigrateTable(table), DeleteStale(table, "suite", NOW))
    assert len(ask("select * from other.people")) == 2
    where = (PredicateGroup((Predicate("id", pa.array([1])),)),)
    destination.write(MigrateTable(table), DeleteRecord("people", where))
    assert ask("select id from other.people") == [(2,)]
    destination.write(MigrateTable(table), DeleteStale(table, "suite", NOW + datetime.timedelta(seconds=1)))
    assert ask("select id from other.people") == []


def test_columns_of_cratedb_lose_their_underscores(open_as, ask):
    destination = open_as("CrateDB")
    table = people("t", (CQ_ID, uuid()))
    destination.insert(table, rows(table, (1, "a", bytes(16))))
    assert list(kinds(ask, "t")) == ["cq_source_name", "cq_sync_time", "id", "name", "cq_id"]
    [back] = destination.plugin.read(table)
    assert back.schema.names == list(table.column_names)
    assert back.column("_cq_source_name").to_pylist() == ["suite"]
    twice = people("u", ("_name", pa.utf8()))
    with pytest.raises(
        PluginError, match="table `u` has the columns `name` and `_name`, and CrateDB takes no underscore"
    ):
        destination.write(MigrateTable(twice))


def test_unique_columns_are_made_by_cockroachdb_alone(open_as, ask):
    destination = open_as("CrateDB")
    table = people("t", Column("u", pa.int64(), unique=True))
    destination.insert(table, rows(table, (1, "a", 5), (2, "b", 5)))
    assert ask("select count(*) from pg_constraint where conrelid = 'other.t'::regclass and contype = 'u'") == [(0,)]


@pytest.mark.parametrize("name", VERSIONS)
def test_what_can_be_done_is_declared_once_the_server_has_told_what_it_is(open_as, name):
    able = open_as(name).plugin.capabilities
    assert (able.publish, able.kept_when_forced, able.parallel_appends) == ("none", frozenset(), False)
    assert able.rejects is (name == "CockroachDB")
    assert ("move_pk_to_cq_id" in able.safe_changes) is (name == "CockroachDB")
    assert PostgreSQL.capabilities.publish == "sync"
    assert able.stored_as(pa.timestamp("us")) == pa.timestamp("us" if name == "CockroachDB" else "ms")
    assert able.stored_as(pa.decimal128(5, 2)) == (pa.decimal128(5, 2) if name == "CockroachDB" else pa.utf8())


@pytest.mark.parametrize("name", VERSIONS)
def test_changes_of_tables(open_as, ask, name):
    destination = open_as(name)
    before, after = people("t", ("gone", pa.utf8())), people("t", ("new", pa.int32()))
    destination.insert(before, rows(before, (1, "a", "x")))
    assert destination.plugin.preview([after], force=False)[0].action == "alter"
    destination.insert(after, rows(after, (2, "b", 5)))
    assert ask("select id, gone, new from other.t order by id") == [(1, "x", None), (2, None, 5)]
    other = people("t", ("new", pa.utf8()))
    assert destination.plugin.preview([other], force=True)[0].action == "recreate"
    with pytest.raises(MigrationRefused, match="column `new` changed from"):
        destination.plugin.destination.migrate(other, force=False)
    destination.write(MigrateTable(other, force=True), Insert(other, rows(other, (3, "c", "y"))))
    assert ask("select id, new from other.t") == [(3, "y")]


def test_cockroachdb_moves_the_key_and_then_lets_the_old_one_be_null(open_as, ask):
    destination = open_as("CockroachDB")
    unique = Column(CQ_ID, uuid(), unique=True, not_null=True)
    before, after = people("t", unique), people("t", Column(CQ_ID, uuid()), keys=(CQ_ID,))
    destination.insert(before, rows(before, (1, "a", bytes(16))))
    destination.insert(after, rows(after, (None, "b", bytes(15) + b"x")))
    assert ask("select id, name from other.t order by name") == [(1, "a"), (None, "b")]


def test_cockroachdb_drops_the_index_of_a_column_that_is_no_longer_unique():
    kin = kin_of(VERSIONS["CockroachDB"])
    assert kin is not None
    have = people("t", Column("u", pa.int64(), unique=True))
    want = people("t", ("u", pa.int64()))
    able = kin.capabilities(PostgreSQL.capabilities)
    found = sql.migration(kin.dialect, sql.normalized(kin.dialect, have), want, able, force=False)
    assert list(kin.statements(have, want, found, "t_pkey")) == ['drop index "t_u_key" cascade']


def test_a_server_of_another_name_is_refused(open_destination, postgresql_url, ask):
    ask("create schema other")
    ask("create function other.version() returns text language sql as $$ select 'Redshift 1'::text $$")
    url = f"{postgresql_url} options='-csearch_path=other,pg_catalog'"
    words = "the server calls itself 'Redshift 1', and is none of PostgreSQL, CockroachDB, CrateDB"
    with pytest.raises(PluginError, match=words):
        open_destination(PostgreSQL, connection_string=url)


def test_embeddings_are_refused_where_there_is_no_such_extension(open_as):
    table = {"source_table_name": "a", "target_table_name": "b", "embed_columns": ["x"]}
    config = {"tables": [table], "openai_embedding": {"api_key": "k", "model_name": "text-embedding-3-small"}}
    with pytest.raises(PluginError, match="`pgvector_config` needs PostgreSQL, and the server is CockroachDB"):
        open_as("CockroachDB", pgvector_config=config)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_whole_sync_streams_there(postgresql_url, ask, name):
    url = pretend(ask, postgresql_url, name)
    document = destination_document("db", "postgresql", spec={"connection_string": url})
    columns = {"id": "int64", "name": "utf8"}
    for values in ([[1, "Ann"], [2, "Bo"]], [[2, "Bob"]]):
        people = {"columns": columns, "primary_key": ["id"], "rows": values}
        result = run(made(people=people), document)
        assert result.outcome == "complete", messages(result)
    assert ask("select id, name from other.people") == [(2, "Bob")]
    assert ask("select nspname from pg_namespace where nspname like '\\_catchment%%'") == []


def test_a_row_that_cockroachdb_refuses_is_named_and_the_others_stay_out(open_as, ask):
    destination = open_as("CockroachDB")
    table = people()
    destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match=r'(?s)"id":null.*column `id`'):
        destination.write(Insert(table, rows(table, (1, "a"), (None, "b"))))
    assert ask("select * from other.people") == []


def test_publish_atomic_is_refused_where_the_server_turns_out_to_be_another(postgresql_url, ask):
    url = pretend(ask, postgresql_url, "CockroachDB")
    document = destination_document("db", "postgresql", spec={"connection_string": url}, publish="atomic")
    people = {"columns": {"id": "int64"}, "primary_key": ["id"], "rows": [[1]]}
    result = run(made(people=people), document)
    [used] = result.destinations
    assert used.error.startswith("its server cannot publish rows that were staged; write `publish: stream`")
    assert ask("select to_regclass('other.people') is null") == [(True,)]
