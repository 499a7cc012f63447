"""Foreign plugins with the faces of local ones, against plugins of ours behind a real socket."""

from __future__ import annotations

import contextlib
import time

import pyarrow as pa
import pytest

from catchment.channel import Budget
from catchment.destinations.sqlite import SQLite
from catchment.errors import PluginError, PluginLost, ProtocolError, SpecError, Unsupported
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, RowsSkipped, SourceError, TableError
from catchment.plugin import SyncRequest
from catchment.schema.select import Selection
from catchment.testing import data
from catchment.transformers.test import Test as PassThrough
from catchment.wire.client import RemoteDestination, RemoteSource, RemoteTransformer
from catchment.wire.peer import Connected
from tests.engine.plugins import Doubler, Recorder, shop
from tests.wire.serving import connected, served

EVERYTHING = SyncRequest(Selection(("*",), (), False))


@pytest.fixture
def source():
    with served(shop.as_plugin) as address:
        plugin = RemoteSource("shop", connected(address))
        yield plugin
        plugin.close()


@pytest.fixture
def destination():
    Recorder.made.clear()
    with served(Recorder.as_plugin) as address:
        plugin = RemoteDestination("recorder", connected(address))
        yield plugin
        plugin.close()


TABLE = data.named("t", ("id", pa.int64()), ("name", pa.utf8()))


def test_source_tells_the_tables_that_are_selected(source):
    source.init({}, no_connection=True)

    assert [table.name for table in source.tables(Selection(("*",), (), False))] == ["shops", "orders", "events"]
    assert [table.name for table in source.tables(Selection(("events",), ()))] == ["events"]
    assert source.tables(Selection(("events",), ()))[0].is_incremental


def test_source_sends_tables_first_then_rows(source):
    source.init({})

    messages = list(source.sync(EVERYTHING))

    assert [message.table.name for message in messages[:3]] == ["shops", "orders", "events"]
    assert all(isinstance(message, MigrateTable) for message in messages[:3])
    rows = [message for message in messages if isinstance(message, Insert)]
    assert {m.table.name: sum(r.batch.num_rows for r in rows if r.table.name == m.table.name) for m in rows} == {
        "shops": 2, "orders": 4, "events": 3,
    }  # fmt: skip


def test_small_records_of_a_table_come_as_one_batch(source):
    source.init({"orders": list(range(500))})

    rows = [message for message in source.sync(EVERYTHING) if isinstance(message, Insert)]

    assert sum(message.batch.num_rows for message in rows if message.table.name == "orders") == 1000
    assert len([message for message in rows if message.table.name == "orders"]) < 5


def test_errors_of_tables_come_with_their_text(source):
    source.init({"fail": ["orders"]})

    errors = [message for message in source.sync(EVERYTHING) if isinstance(message, TableError)]

    assert {error.table_name for error in errors} == {"orders"}
    assert "orders broke off" in errors[0].message


def test_failure_of_the_whole_source_is_raised_with_its_words(source):
    source.init({"dead": True})

    with pytest.raises(PluginError, match=r"source plugin `shop`: failed to sync records: the shop cannot be reached"):
        list(source.sync(EVERYTHING))


def test_wrong_spec_is_refused_by_the_plugin(source):
    with pytest.raises(PluginError, match="no_such_key"):
        source.init({"no_such_key": 1})


def test_source_that_is_left_early_stops(source):
    source.init({"orders": list(range(2000)), "shops": list(range(50))})
    messages = source.sync(EVERYTHING)
    next(messages)
    messages.close()

    assert eventually(lambda: list(source.sync(SyncRequest(Selection(("events",), ())))))


def eventually(attempt):
    """What `attempt` gives once the plugin is free again."""
    for _ in range(200):
        with contextlib.suppress(PluginError):
            return attempt()
        time.sleep(0.02)
    return attempt()


def test_client_ids_cannot_be_asked_for(source):
    source.init({})

    with pytest.raises(Unsupported, match="client_id_column"):
        list(source.sync(SyncRequest(Selection(), client_id_column=True)))


def test_rows_arrive_in_order_and_count_once_the_stream_has_ended(destination):
    destination.init({})
    session = destination.session(Budget(1 << 20))
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, data.batch(TABLE, (1, "a"), (2, "b"))))

    assert session.stats()["t"].rows == 0
    assert session.stats()["t"].rows_taken == 2
    session.write(DeleteStale(TABLE, "me", data.SYNC_TIME))
    session.flush()

    assert session.stats()["t"].rows == 2
    assert [call[0] for call in Recorder.made[-1].calls] == ["migrate", "write", "delete_stale"]


def test_error_of_the_destination_names_plugin_and_table(destination):
    destination.init({"refuse": ["t"]})
    session = destination.session(Budget(1 << 20))
    session.write(MigrateTable(TABLE))
    session.write(Insert(TABLE, data.batch(TABLE, (1, "a"))))

    with pytest.raises(PluginLost, match=r"destination plugin `recorder`: write failed: table `t`: t is refused"):
        session.flush()
    with pytest.raises(PluginLost, match="t is refused"):
        session.write(Insert(TABLE, data.batch(TABLE, (1, "a"))))
    with pytest.raises(PluginLost, match="t is refused"):
        session.flush()


def test_error_that_names_its_table_is_told_as_it_is(tmp_path):
    with served(SQLite.as_plugin) as address:
        plugin = RemoteDestination("sqlite", connected(address))
        plugin.init({"connection_string": str(tmp_path / "x.db")})
        changed = data.named("t", ("id", pa.utf8()), ("name", pa.utf8()))
        session = plugin.session(Budget(1 << 20))
        session.write(MigrateTable(TABLE))
        session.flush()
        session = plugin.session(Budget(1 << 20))
        session.write(MigrateTable(changed))
        with pytest.raises(PluginLost) as lost:
            session.flush()
        plugin.close()

    text = str(lost.value)
    assert "table `t` cannot be migrated" in text
    assert text.count("table `t`") == 1


def test_destination_that_gives_up_early_is_noticed_while_rows_are_sent(destination):
    destination.init({"refuse": ["t"]})
    session = destination.session(Budget(1 << 20))
    session.write(MigrateTable(TABLE))
    batch = data.rows(TABLE, 1000)

    def write_on():
        for _ in range(5000):
            session.write(Insert(TABLE, batch))

    with pytest.raises(PluginLost, match="t is refused"):
        write_on()


def test_another_session_can_be_opened_after_one_broke(destination):
    destination.init({"refuse": ["t"]})
    session = destination.session(Budget(1 << 20))
    session.write(Insert(TABLE, data.batch(TABLE, (1, "a"))))
    with pytest.raises(PluginLost):
        session.flush()
    other = data.named("other", ("id", pa.int64()))

    again = destination.session(Budget(1 << 20))
    again.write(Insert(other, data.batch(other, (1,))))
    again.flush()

    assert again.stats()["other"].rows == 1


def test_session_that_is_closed_breaks_its_stream_off(destination):
    destination.init({})
    session = destination.session(Budget(1 << 20))
    session.write(MigrateTable(TABLE))

    session.close()

    assert session.stats()["t"].rows == 0


def test_stale_rows_of_some_clients_only_cannot_be_deleted(destination):
    destination.init({})

    with pytest.raises(Unsupported, match="some clients"):
        destination.session(Budget(1)).write(DeleteStale(TABLE, "me", data.SYNC_TIME, clients=("a",)))


def test_deletions_of_records_reach_the_destination(destination):
    destination.init({})
    session = destination.session(Budget(1 << 20))
    session.write(DeleteRecord("t"))

    with pytest.raises(PluginLost, match="cannot delete single records"):
        session.flush()


def test_transformer_answers_for_tables_and_batches():
    with served(Doubler.as_plugin) as address:
        plugin = RemoteTransformer("doubler", connected(address))
        plugin.init({})
        made = plugin.transform_table(TABLE)
        assert made.name == "t_out"
        out: list[pa.RecordBatch] = []
        for number in range(20):
            assert list(plugin.transform(TABLE, data.batch(TABLE, (number, "x")))) == []
            out += plugin.collect()
        out += plugin.collect(last=True)
        plugin.close()

    assert [insert.batch.column("twice")[0].as_py() for insert in out] == [2 * number for number in range(20)]
    assert {insert.table for insert in out} == {made}


def test_transformer_that_fails_says_why():
    with served(PassThrough.as_plugin) as address:
        plugin = RemoteTransformer("test", connected(address))
        plugin.init({"fail_immediately": True})
        list(plugin.transform(TABLE, data.batch(TABLE, (1, "x"))))

        with pytest.raises(PluginError, match="failing at the transformer stage"):
            list(plugin.collect(last=True))
        plugin.close()


def test_plugin_of_another_kind_is_told_apart():
    with served(Recorder.as_plugin) as address:
        plugin = RemoteSource("recorder", connected(address))
        plugin.init({})
        with pytest.raises(Unsupported, match="`recorder` is a destination, no source"):
            plugin.tables(Selection())
        plugin.close()


def test_nobody_at_the_address(tmp_path):
    plugin = RemoteSource("x", Connected(f"unix://{tmp_path}/none", start_s=0.5))

    with pytest.raises(PluginLost, match="no plugin answers at unix://"):
        plugin.init({})
    plugin.close()


def test_unknown_option_of_an_encrypted_address_is_refused():
    with pytest.raises(SpecError, match="unknown option `color`"):
        Connected("grpcs://localhost:1?color=red")


def test_secrets_are_known_by_their_keys():
    plugin = RemoteDestination("x", Connected("localhost:1"))
    spec = {"connection_string": "host=a", "auth": [{"Token": "t0ken"}], "name": "plain", "api_key": "k", "n": 1}

    plugin.init(spec, no_connection=True)

    assert plugin.secrets == {"host=a", "t0ken", "k"}


def test_hidden_errors_make_tables_or_the_source_incomplete():
    from catchment.wire.client import _hidden
    from catchment.wire.output import Logged

    logged = [
        Logged("known already", "a"),
        Logged("column failed", "b", "eu"),
        Logged("who knows"),
        Logged("a table of another name", "zzz"),
        Logged("left out", "b", "eu", 3),
    ]

    assert list(_hidden(logged, {"a": False, "b": True})) == [
        TableError("b", "column failed", "eu"),
        SourceError("who knows"),
        SourceError("a table of another name"),
        RowsSkipped("b", 3, "left out", "eu"),
    ]


def test_version_that_is_too_old_or_too_new_is_said():
    from catchment.wire import service
    from catchment.wire._pb import plugin_pb2 as pb
    from tests.wire.serving import listening

    for versions, hint in (([0, 1], "upgrade the plugin"), ([4, 5], "upgrade catchment"), ([], "upgrade the plugin")):
        answer = {service.VERSIONS: lambda request, context, v=versions: pb.GetVersions.Response(versions=v)}
        with listening(service.handlers(answer)) as address, pytest.raises(ProtocolError, match=hint):
            connected(address).channel()


def test_oldest_discovery_is_asked_where_the_newer_one_is_missing():
    from catchment.wire import service
    from catchment.wire._pb import plugin_pb2 as pb
    from tests.wire.serving import listening

    answer = {service.VERSION_NAMES: lambda request, context: pb.GetVersionNames.Response(versions=["v2", "v3"])}
    with listening(service.handlers(answer)) as address:
        peer = connected(address)
        peer.channel()
        peer.close()
    with listening([]) as address, pytest.raises(ProtocolError, match="no plugin"):
        connected(address).channel()
