"""What PostgreSQL is given that it may not like: names, values, roles, connection strings."""

from __future__ import annotations

import datetime
import threading
import time
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest

from catchment.destinations.postgresql import PostgreSQL
from catchment.errors import PluginError, SpecError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.types import inet, json
from catchment.sdk import Column
from catchment.sdk.writer import DestinationHost, Retries
from catchment.testing import data
from tests import services
from tests.destinations.conftest import NOW, Staged, people, rows

NAMES = [
    'quo"te',
    '"; drop table live; --',
    "per%cent %s %(x)s %d %%",
    "back\\slash \\' E'",
    "semi;colon",
    "dollar $1 $$",
    "sp ace",
    "Über 日本 🎉",
    "select",
    "new\nline",
    "pg_mine",
]


@pytest.fixture
def destination(open_destination, postgresql_url):
    return open_destination(PostgreSQL, connection_string=postgresql_url)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_of_tables_columns_and_sources_are_only_names(destination, ask, name):
    ask("create table live as select 1 as x")
    unique = Column(f"{name}u", pa.int64(), unique=True)
    table = data.sourced(name, (name, pa.int64()), ("list", pa.list_(json())), unique, keys=[name])
    quoted = '"' + name.replace('"', '""') + '"'
    batch = data.batch(table, (name, NOW, 1, [b"1"], 1), (name, NOW, 2, None, 2), ("other", NOW, 3, None, 3))

    destination.insert(table, batch)
    destination.insert(table, batch)
    later = NOW + datetime.timedelta(seconds=1)
    for hang in (False, True):
        if hang:
            ask(f"create view v as select * from {quoted}")
        Staged(destination, f"cafe{hang:04}").add(
            table, data.batch(table, (name, later, 2, None, 7)), source=name
        ).publish()
        assert sorted(ask(f"select * from {quoted}"), key=lambda row: row[2])[0][2:] == (2, None, 7)
        assert len(ask(f"select * from {quoted}")) == 2
    destination.delete_stale(table, name, later + datetime.timedelta(seconds=1))
    assert len(ask(f"select * from {quoted}")) == 1
    where = (PredicateGroup((Predicate(name, pa.array([3])), Predicate("_cq_source_name", pa.array(["other"])))),)
    destination.write(MigrateTable(table), DeleteRecord(name, where))
    assert ask(f"select * from {quoted}") == []
    assert ask("select * from live") == [(1,)]


def test_names_of_63_bytes_fit_and_longer_ones_are_refused_by_name(destination, ask):
    name, column = "é" * 31 + "x", "日" * 21
    table = data.sourced(
        name, (column, pa.int64()), Column(column[:20] + "xyz", pa.int64(), unique=True), keys=[column]
    )
    for _ in range(2):
        destination.publish(table, data.batch(table, ("suite", NOW, 1, 2)))
    assert ask("select relname from pg_class where relkind = 'r' and relname like 'é%%'") == [(name,)]
    for long in (people("x" * 64), people("people", ("日" * 21 + "y", pa.utf8()))):
        culprit = long.name if len(long.name) > 63 else long.column_names[-1]
        for write in (lambda t=long: destination.write(MigrateTable(t)), lambda t=long: destination.publish(t)):
            with pytest.raises(PluginError, match=f"`{culprit}` has 64 bytes, PostgreSQL takes 63"):
                write()


def test_keys_of_tables_with_one_long_beginning_do_not_meet(open_destination, postgresql_url, ask):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url, create_performance_indexes=True)
    more = [Column("c" * length, pa.int64(), unique=True) for length in (59, 60)]
    tables = [people("t" * 60 + ending, *more) for ending in ("", "a", "b", "ab")]
    for run in range(3):
        staged = Staged(destination, f"cafe000{run}")
        for table in tables:
            staged.add(table, rows(table, (1, "a", 1, 1), (2, "b", 2, 2)))
        staged.publish()
        for table in tables:
            # A primary key, two unique columns and an index for speed.
            assert ask("select count(*) from pg_index where indrelid = %s::regclass", f'"{table.name}"') == [(4,)]
    for table in tables:
        streamed = table.renamed("s" + table.name[:59] + table.name[60:])
        destination.insert(streamed, rows(streamed, (1, "a", 1, 1)))
        assert ask("select count(*) from pg_index where indrelid = %s::regclass", f'"{streamed.name}"') == [(4,)]
        # A unique column that no longer is one, whatever its constraint is called.
        plain = streamed.with_columns(
            [Column(c.name, c.type, primary_key=c.primary_key, not_null=c.not_null) for c in streamed.columns]
        )
        destination.insert(plain, rows(plain, (3, "a", 1, 1)))


@pytest.mark.parametrize("keys", [("id",), ()])
@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [(pa.utf8(), "a\0b", "0x00"), (json(), b'{"a": "\\u0000"}', "u0000")],
    ids=["text", "json"],
)
def test_a_nul_is_named_with_its_column_and_row(destination, ask, kind, value, word, keys):
    table = people("people", ("odd", kind), keys=keys)
    good = rows(table, (1, "a", b"1" if kind == json() else "x"))
    destination.insert(table, good)
    bad = rows(table, (2, "b", None), (3, "c", value))
    with pytest.raises(PluginError, match=rf'(?s)"id":3.*{word}.*column `odd`.*NUL character') as caught:
        destination.write(Insert(table, bad))
    assert "_catchment_rows" not in str(caught.value)
    with pytest.raises(PluginError, match=r'(?s)"id":3.*column `odd`'):
        destination.publish(table, bad)
    assert ask("select id from people") == [(1,)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.float64(), float("nan")),
        (pa.float64(), float("inf")),
        (pa.float32(), float("-inf")),
        (pa.uint64(), 2**64 - 1),
        (pa.decimal128(38, 0), Decimal(10**38 - 1)),
        (pa.decimal256(76, 10), Decimal("-" + "9" * 66 + "." + "9" * 10)),
        (pa.date32(), datetime.date(1, 1, 1)),
        (pa.date32(), datetime.date(9999, 12, 31)),
        (pa.timestamp("us"), datetime.datetime(1, 1, 1)),
        (pa.timestamp("us"), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)),
        (pa.timestamp("s"), datetime.datetime(1969, 12, 31, 23, 59, 59)),
        (pa.timestamp("ms"), datetime.datetime(1969, 12, 31, 23, 59, 59, 999000)),
        (pa.time64("us"), datetime.time(23, 59, 59, 999999)),
        (pa.binary(), b"\0\xff"),
        (pa.utf8(), ""),
    ],
)
def test_extreme_values_arrive_as_they_are(destination, ask, kind, value):
    table = people("people", ("v", kind))
    destination.insert(table, rows(table, (1, "a", value)))
    destination.publish(table.renamed("staged"), rows(table, (1, "a", value)))
    for name in ("people", "staged"):
        found = ask(f"select v from {name}")[0][0]
        assert found == value or (found != found and value != value)


@pytest.mark.parametrize(
    ("nanoseconds", "moment"),
    [
        (1, datetime.datetime(1970, 1, 1)),
        (999_999_999_999, datetime.datetime(1970, 1, 1, 0, 16, 39, 999999)),
        (-1_000, datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)),
        (-(2**63) + 1, datetime.datetime(1677, 9, 21, 0, 12, 43, 145225)),
    ],
)
def test_nanoseconds_are_cut_to_microseconds(destination, ask, nanoseconds, moment):
    table = people("people", ("v", pa.timestamp("ns")))
    destination.insert(table, rows(table, (1, "a", nanoseconds)))
    assert abs(ask("select v from people")[0][0] - moment) <= datetime.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.date32(), 2**31 - 1),
        (pa.date32(), -(2**31)),
        (pa.timestamp("ms"), 2**62),
        (pa.timestamp("us"), -(2**63)),
        (pa.timestamp("s"), 2**60),
    ],
)
def test_moments_that_postgresql_has_no_room_for_are_refused(destination, ask, kind, value):
    table = people("people", ("v", kind))
    destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match=r"out of range|column `v`"):
        destination.write(Insert(table, rows(table, (1, "a", value))))
    assert ask("select v::text from people") == []


def test_a_value_that_is_no_address_is_named(destination):
    table = people("people", ("v", inet()))
    destination.write(MigrateTable(table))
    with pytest.raises(PluginError, match=r"10\.0\.0\.300"):
        destination.write(Insert(table, rows(table, (1, "a", b"10.0.0.300"))))


def test_an_empty_load_empties_the_table_and_a_first_one_makes_it(destination, ask):
    table = people()
    destination.publish(table)
    assert ask("select count(*) from people") == [(0,)]
    destination.insert(table, rows(table, (1, "a")))
    assert destination.publish(table).stale_deleted == 1
    assert ask("select count(*) from people") == [(0,)]


def test_a_table_of_1590_columns(destination, ask):
    wide = data.sourced("wide", ("id", pa.int64()), *((f"column_{n}", pa.int16()) for n in range(1587)))
    for tied in (False, True):
        if tied:
            ask("comment on table wide is 'tied'")
        destination.publish(wide, data.batch(wide, ("suite", NOW, 1, *range(1587))))
    destination.insert(wide, data.batch(wide, ("suite", NOW, 2, *range(1587))))
    assert ask("select id, column_1586 from wide order by id") == [(1, 1586), (2, 1586)]


def test_another_schema_by_the_connection_string(open_destination, postgresql_url, ask):
    ask('create schema "My Schema"; create table people (x int)')
    url = f"{postgresql_url} options='-csearch_path=\"My\\\\ Schema\"'"
    destination = open_destination(PostgreSQL, connection_string=url)
    for number in range(3):
        destination.publish(people(), rows(people(), (number, "a")))
    destination.insert(people("streamed"), rows(people(), (1, "a")))
    assert ask('select id from "My Schema".people') == [(2,)]
    assert ask('select id from "My Schema".streamed') == [(1,)]
    assert ask("select * from people") == []


def test_a_schema_that_is_not_there_is_an_error_of_the_table(open_destination, postgresql_url):
    destination = open_destination(PostgreSQL, connection_string=f"{postgresql_url} options=-csearch_path=nowhere")
    with pytest.raises(PluginError, match="no schema has been selected"):
        destination.insert(people(), rows(people(), (1, "a")))


@pytest.fixture
def poor(postgresql_url, ask):
    """A role that may make tables in `public`, and no schema."""
    name = f"poor_{ask('select current_database()')[0][0]}"
    ask(f"create role {name} login; grant usage, create on schema public to {name}")
    yield name, postgresql_url.replace("user=postgres", f"user={name}")
    ask(f"drop owned by {name} cascade; drop role {name}")


def test_a_role_that_may_not_make_a_schema_is_told_what_to_do(open_destination, poor, ask):
    name, url = poor
    destination = open_destination(PostgreSQL, connection_string=url)
    with pytest.raises(
        PluginError, match=r"permission denied.*grant the role `create` on the database.*publish: stream"
    ):
        destination.publish(people(), rows(people(), (1, "a")))
    destination.insert(people(), rows(people(), (1, "a")))
    ask(f"create schema _catchment_staging; grant usage, create on schema _catchment_staging to {name}")
    destination = open_destination(PostgreSQL, connection_string=url)
    Staged(destination, "cafe0002").add(people(), rows(people(), (2, "b"))).publish()
    assert ask("select id from people") == [(2,)]


def test_staged_tables_of_another_role_are_not_in_the_way(open_destination, poor, ask):
    name, url = poor
    ask(f"create schema _catchment_staging; grant usage, create on schema _catchment_staging to {name}")
    ask('create table _catchment_staging."dead0001.0" (x int)')
    destination = open_destination(PostgreSQL, connection_string=url)
    destination.publish(people(), rows(people(), (2, "b")))
    assert ask("select id from people") == [(2,)]


def test_a_table_of_another_role_is_merged_into_and_stays_theirs(open_destination, poor, ask, destination):
    name, url = poor
    destination.publish(people(), rows(people(), (1, "a")))
    ask(f"grant select, insert, update, delete on people to {name}")
    ask(f"grant usage, create on schema _catchment_staging to {name}")
    theirs = open_destination(PostgreSQL, connection_string=url)
    Staged(theirs, "cafe0002").add(people(), rows(people(), (2, "b"))).publish()
    assert ask("select id, relowner::regrole::text from people, pg_class where oid = 'people'::regclass") == [
        (2, "postgres")
    ]


def test_a_server_that_is_not_there_is_told_quickly():
    started = time.monotonic()
    plugin = PostgreSQL.as_plugin()
    with pytest.raises(PluginError, match=r"the database cannot be reached: .*port 1 failed: Connection refused"):
        plugin.init({"connection_string": "host=127.0.0.1 port=1 user=x dbname=x"})
    plugin.close()
    assert time.monotonic() - started < 3


def test_a_host_that_never_answers_is_given_up_after_the_time_of_the_string(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        plugin = PostgreSQL.as_plugin()
        port = silent.getsockname()[1]
        with pytest.raises(PluginError, match="cannot be reached"):
            plugin.init({"connection_string": f"host=127.0.0.1 port={port} user=x dbname=x connect_timeout=2"})
        plugin.close()
        assert time.monotonic() - started < 5


def test_a_database_or_role_that_is_not_there_is_named(postgresql_server):
    for part, word in [("dbname=nope", "nope"), ("dbname=postgres user=nobody", "nobody")]:
        plugin = PostgreSQL.as_plugin()
        with pytest.raises(PluginError, match=f'"{word}" does not exist'):
            plugin.init({"connection_string": f"{postgresql_server} {part}"})
        plugin.close()


def test_a_connection_string_that_cannot_be_read_is_refused():
    plugin = PostgreSQL.as_plugin()
    with pytest.raises((PluginError, SpecError), match="connection_string"):
        plugin.init({"connection_string": "host=127.0.0.1 nonsense"})
    plugin.close()


def test_a_wrong_password_is_told_without_the_password():
    with services.postgresql_server(login="scram-sha-256") as server:
        plugin = PostgreSQL.as_plugin()
        wrong = f"{server.url} dbname=postgres password='so wrong 99'"
        with pytest.raises(PluginError, match="password authentication failed") as caught:
            plugin.init({"connection_string": wrong})
        assert "so wrong" not in str(caught.value)
        plugin.close()
        right = PostgreSQL.as_plugin()
        right.init({"connection_string": f"{server.url} dbname=postgres password={services.PASSWORD}"})
        right.close()


def test_nothing_is_left_open_or_lying_about(open_destination, postgresql_url, ask):
    destination = open_destination(PostgreSQL, connection_string=postgresql_url)
    table = people()
    destination.publish(table, rows(table, (1, "a"), (1, "b")))
    destination.insert(table, rows(table, (2, "b")))
    with pytest.raises(PluginError):
        destination.write(Insert(table, rows(table, (None, "b"))))
    with pytest.raises(PluginError):
        Staged(destination, "cafe0002").add(table, rows(table, (None, "b"))).publish()
    destination.write(MigrateTable(table), DeleteStale(table, "suite", NOW))
    busy = "select state from pg_stat_activity where application_name = 'catchment' and state <> 'idle'"
    assert ask(busy) == []
    assert ask("select relname from pg_class where relpersistence = 't' and relkind = 'r'") == []
    assert ask("select relname from pg_class where relname like '%%cafe%%'") == []
    destination.plugin.close()
    left = "select pid from pg_stat_activity where application_name = 'catchment'"
    for _ in range(50):
        if not ask(left):
            break
        time.sleep(0.1)
    assert ask(left) == []
    names = ask("select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace")
    assert names == [("people",)]
    assert ask("select nspname from pg_namespace where nspname like '\\_catchment%%'") == []


def test_a_name_of_the_users_own_is_what_the_server_shows(open_destination, postgresql_url, ask):
    open_destination(PostgreSQL, connection_string=f"{postgresql_url} application_name=nightly")
    assert ask("select count(*) > 0 from pg_stat_activity where application_name = 'nightly'") == [(True,)]


def test_a_server_that_has_no_connection_to_spare_is_asked_again(postgresql_url, ask):
    name = f"few_{ask('select current_database()')[0][0]}"
    ask(f"create role {name} login connection limit 1; grant all on schema public to {name}")
    url = postgresql_url.replace("user=postgres", f"user={name}")
    try:
        holder = psycopg.connect(url)
        threading.Timer(0.5, holder.close).start()
        plugin = DestinationHost(PostgreSQL, Retries(attempts=20, first_wait_s=0.1, longest_wait_s=0.2))
        plugin.init({"connection_string": url})
        plugin.close()
        assert holder.closed
    finally:
        ask(f"drop owned by {name}; drop role {name}")


@pytest.mark.parametrize("name", ["pg_class", "pg_stats"])
def test_a_table_with_the_name_of_a_system_table_is_refused(destination, name):
    table = people(name)
    with pytest.raises(PluginError, match=f"`{name}` has the name of one of PostgreSQL's own"):
        destination.insert(table, rows(table, (1, "a")))
    with pytest.raises(PluginError, match=f"`{name}` has the name of one of PostgreSQL's own"):
        destination.publish(table, rows(table, (1, "a")))
