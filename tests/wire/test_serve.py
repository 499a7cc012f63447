"""A served plugin, driven by the vendor's client code and started with the arguments of CloudQuery's CLI."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from typing import Any

import grpc
import pyarrow as pa
import pytest
from cloudquery.discovery_v1 import discovery_pb2, discovery_pb2_grpc
from cloudquery.plugin_v3 import plugin_pb2 as vendor
from cloudquery.plugin_v3 import plugin_pb2_grpc

from catchment.serve import main
from catchment.testing import data
from catchment.wire import codec
from catchment.wire.logs import LINE_BYTES, fitting
from tests.wire.serving import served
from tests.wire.test_local import ROOT

TABLE = data.named("t", ("id", pa.int64()), ("name", pa.utf8()), keys=["id"])
MIGRATE = vendor.Write.Request(migrate_table=vendor.Write.MessageMigrateTable(table=codec.table_to_bytes(TABLE)))


def insert(*rows):
    record = codec.RecordWriter().to_bytes(TABLE, data.batch(TABLE, *rows))
    return vendor.Write.Request(insert=vendor.Write.MessageInsert(record=record))


@contextlib.contextmanager
def started(target, *arguments, network="unix", address="", env=None):
    """A plugin in a process of its own: the process, a stub, and the lines of its log so far."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from catchment.serve import serve; serve({target!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", "--log-level", "info", "--log-format", "json", "--network", network,
         "--address", address, "--no-sentry", *arguments],
        stdout=subprocess.PIPE, env=os.environ | (env or {}),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        target = f"unix://{address}" if network == "unix" else address
        deadline = time.monotonic() + 20
        while not answers(target) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 200 << 20)]) as channel:
            yield process, plugin_pb2_grpc.PluginStub(channel), channel
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answers(target):
    is_path = target.startswith("unix://")
    host, _, port = target.rpartition(":")
    family = socket.AF_UNIX if is_path else socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(target.removeprefix("unix://") if is_path else (host.strip("[]"), int(port)))
        except OSError:
            return False
    return True


@pytest.fixture
def stub():
    """A stub of the test source, in a thread."""
    from catchment.sources.test import test

    with served(test.as_plugin, schema="{}") as address, grpc.insecure_channel(address) as channel:
        yield plugin_pb2_grpc.PluginStub(channel)


def test_everything_that_needs_no_init_is_answered(stub):
    assert stub.GetName(vendor.GetName.Request()).name == "test"
    assert stub.GetVersion(vendor.GetVersion.Request()).version == "v1.2.3"
    assert stub.GetSpecSchema(vendor.GetSpecSchema.Request()).json_schema == "{}"
    assert stub.TestConnection(vendor.TestConnection.Request(spec=b"{}")).success


def test_spec_that_is_wrong_is_told_as_such(stub):
    answer = stub.TestConnection(vendor.TestConnection.Request(spec=b'{"no_such_key": 1}'))

    assert (answer.success, answer.failure_code) == (False, "INVALID_SPEC")
    assert "no_such_key" in answer.failure_description
    for spec in (b'{"no_such_key": 1}', b"[]", b"{"):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Init(vendor.Init.Request(spec=spec))
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert (caught.value.details() or "").startswith("failed to init plugin:")


@pytest.mark.parametrize("spec", [b"", b"null", b"{}", b" null\n"])
def test_empty_specs_are_all_the_same(stub, spec):
    stub.Init(vendor.Init.Request(spec=spec))

    assert stub.GetTables(vendor.GetTables.Request(tables=["*"])).tables


def test_tables_come_parents_first(stub):
    stub.Init(vendor.Init.Request())

    found = stub.GetTables(vendor.GetTables.Request(tables=["*"])).tables

    names = [codec.table_from_bytes(table).name for table in found]
    parents = {codec.table_from_bytes(table).name: codec.table_from_bytes(table).parent for table in found}
    assert all(not parents[name] or names.index(parents[name]) < names.index(name) for name in names)


def test_sync_sends_all_tables_then_rows(stub):
    stub.Init(vendor.Init.Request(spec=b'{"num_clients": 1, "num_rows": 2}'))

    kinds = [r.WhichOneof("message") for r in stub.Sync(vendor.Sync.Request(tables=["*"], withErrorMessages=True))]

    first_row = kinds.index("insert")
    assert set(kinds[:first_row]) == {"migrate_table"}
    assert "migrate_table" not in kinds[first_row:]


@pytest.mark.parametrize("wanted", [True, False])
def test_error_messages_come_if_they_are_wanted(stub, wanted):
    stub.Init(vendor.Init.Request(spec=b'{"fail_tables": ["test_some_table"]}'))

    kinds = [r.WhichOneof("message") for r in stub.Sync(vendor.Sync.Request(tables=["*"], withErrorMessages=wanted))]

    assert ("error" in kinds) == wanted


def test_what_another_kind_would_do_is_unimplemented(stub):
    stub.Init(vendor.Init.Request())
    for call in (
        lambda: stub.Write(iter([MIGRATE])),
        lambda: list(stub.Read(vendor.Read.Request(table=codec.table_to_bytes(TABLE)))),
        lambda: stub.TransformSchema(vendor.TransformSchema.Request()),
        lambda: list(stub.Transform(iter([]))),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_nothing_works_before_init(stub):
    with pytest.raises(grpc.RpcError, match="call Init first"):
        stub.GetTables(vendor.GetTables.Request(tables=["*"]))


def test_sync_without_a_table_left_says_what_to_review(stub):
    stub.Init(vendor.Init.Request())

    with pytest.raises(grpc.RpcError, match="check `tables` and `skip_tables`") as caught:
        list(stub.Sync(vendor.Sync.Request(tables=["test_paid_table"], skip_tables=["*"])))
    assert caught.value.code() == grpc.StatusCode.UNKNOWN


def test_second_sync_at_once_is_refused(stub):
    stub.Init(vendor.Init.Request(spec=b'{"num_rows": 100000, "rows_per_batch": 1, "delay": "50ms"}'))
    first = stub.Sync(vendor.Sync.Request(tables=["*"]))
    next(first)

    with pytest.raises(grpc.RpcError, match="plugin already in use"):
        list(stub.Sync(vendor.Sync.Request(tables=["*"])))
    first.cancel()


def test_backend_with_half_of_its_options_is_refused(stub):
    stub.Init(vendor.Init.Request())
    request = vendor.Sync.Request(tables=["*"], backend=vendor.Sync.BackendOptions(table_name="x"))

    with pytest.raises(grpc.RpcError, match="backend_options"):
        list(stub.Sync(request))


def test_broken_messages_are_refused_and_the_server_lives(tmp_path):
    from catchment.destinations.sqlite import SQLite

    broken = [
        vendor.Write.Request(insert=vendor.Write.MessageInsert(record=b"garbage")),
        vendor.Write.Request(insert=vendor.Write.MessageInsert(record=insert((1, "x")).insert.record[:-60])),
        vendor.Write.Request(insert=vendor.Write.MessageInsert()),
        vendor.Write.Request(migrate_table=vendor.Write.MessageMigrateTable(table=b"\xff\xff\xff\xff\0")),
        vendor.Write.Request(migrate_table=vendor.Write.MessageMigrateTable()),
    ]
    with served(SQLite.as_plugin) as address, grpc.insecure_channel(address) as channel:
        stub = plugin_pb2_grpc.PluginStub(channel)
        stub.Init(vendor.Init.Request(spec=json.dumps({"connection_string": str(tmp_path / "x")}).encode()))
        for request in broken:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Write(iter([MIGRATE, request]))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        stub.Write(iter([MIGRATE, vendor.Write.Request(), insert((1, "kept"))]))
        read = list(stub.Read(vendor.Read.Request(table=codec.table_to_bytes(TABLE))))
        (batch,) = codec.RecordReader().from_bytes(read[0].record)[1]
        assert batch.to_pydict() == {"id": [1], "name": ["kept"]}
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Read(vendor.Read.Request(table=b"nonsense")))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        raw: Any = channel.unary_unary("/cloudquery.plugin.v3.Plugin/Init")
        with pytest.raises(grpc.RpcError):
            raw(b"\xff\xff\xff")


def test_discovery_is_answered_in_both_versions(stub, tmp_path):
    with started("catchment.sources.test:test", address=str(tmp_path / "s")) as (_, _, channel):
        found = discovery_pb2_grpc.DiscoveryStub(channel).GetVersions(discovery_pb2.GetVersions.Request())

        assert list(found.versions) == [3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_flushes_and_ends_well(tmp_path, number):
    database = tmp_path / "x.sqlite"
    address = str(tmp_path / "s")
    requests: queue.Queue[Any] = queue.Queue()
    with started("catchment.destinations.sqlite:SQLite", address=address) as (process, stub, _):
        stub.Init(vendor.Init.Request(spec=json.dumps({"connection_string": str(database)}).encode()))
        call = stub.Write.future(iter(requests.get, None))
        requests.put(MIGRATE)
        for number_of_row in range(100):
            requests.put(insert((number_of_row, "x")))
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(number)
        status = process.wait(timeout=5)
        requests.put(None)

        assert call.exception(timeout=5) is not None
    assert status == 0
    assert time.monotonic() - began < 5
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (100,)


def test_deserted_by_the_program_that_started_it_it_flushes_and_ends(tmp_path):
    database = tmp_path / "x.sqlite"
    with started("catchment.destinations.sqlite:SQLite", address=str(tmp_path / "s")) as (process, stub, _):
        stub.Init(vendor.Init.Request(spec=json.dumps({"connection_string": str(database)}).encode()))
        requests: queue.Queue[Any] = queue.Queue()
        call = stub.Write.future(iter(requests.get, None))
        requests.put(MIGRATE)
        requests.put(insert((1, "x")))
        time.sleep(0.5)
        assert process.poll() is None
        # As when it is killed: its end of the pipe closes, and no signal is sent.
        process.stdout.close()
        status = process.wait(timeout=5)
        requests.put(None)

        assert call.exception(timeout=5) is not None
    assert status == 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (1,)


def test_log_that_goes_into_a_file_deserts_nobody(tmp_path):
    address = str(tmp_path / "s")
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from catchment.serve import serve; serve(sys.argv.pop(1))"
    command = [sys.executable, "-c", script, "catchment.sources.test:test", "serve", "--network", "unix"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--address", address], stdout=log)
    try:
        deadline = time.monotonic() + 20
        while not answers(f"unix://{address}") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(timeout=5) == 0


def test_log_lines_have_the_shape_that_the_cli_reads(tmp_path):
    with started("catchment.sources.test:test", "--otel-endpoint", "localhost:1", "--otel-endpoint-insecure",
                 "--license", "none", address=str(tmp_path / "s")) as (process, stub, _):  # fmt: skip
        stub.Init(vendor.Init.Request(spec=b'{"fail_tables": ["*"]}', invocation_id="run-1"))
        list(stub.Sync(vendor.Sync.Request(tables=["*"])))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=5)
        lines = [json.loads(line) for line in process.stdout]

    assert {line["level"] for line in lines} <= {"trace", "debug", "info", "warn", "error"}
    assert all(line["module"] == "test-source" and line["message"] for line in lines)
    assert lines[0]["message"] == "listening"
    assert lines[0]["plugin"].startswith("catchment/source/test@")
    failed = [line for line in lines if line["level"] == "error"]
    assert {line["invocation_id"] for line in failed} == {"run-1"}
    assert all(line["table"] for line in failed)


def test_long_log_lines_are_cut_inside_and_keep_level_and_table():
    line = {"level": "error", "table": "t", "stack": "é" * 100_000, "message": "m" * 5000}

    made = fitting(line)

    assert len(made) < LINE_BYTES
    read = json.loads(made)
    assert (read["level"], read["table"]) == ("error", "t")
    assert len(fitting({"level": "info"} | {f"field{n}": n for n in range(2000)})) < LINE_BYTES


@pytest.mark.parametrize(("network", "address", "dialled"), [
    ("tcp", "127.0.0.1:{port}", "127.0.0.1:{port}"),
    ("tcp4", "localhost:{port}", "127.0.0.1:{port}"),
    ("tcp", "0.0.0.0:{port}", "127.0.0.1:{port}"),
    ("tcp", ":{port}", "127.0.0.1:{port}"),
])  # fmt: skip
def test_networks_are_served(network, address, dialled):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    with started("catchment.sources.test:test", network=network, address=address.format(port=port)):
        deadline = time.monotonic() + 20
        while not answers(dialled.format(port=port)) and time.monotonic() < deadline:
            time.sleep(0.02)
        with grpc.insecure_channel(dialled.format(port=port)) as channel:
            assert plugin_pb2_grpc.PluginStub(channel).GetName(vendor.GetName.Request()).name == "test"


@pytest.mark.parametrize(("network", "address", "text"), [
    ("unixpacket", "/tmp/x", "unixpacket"), ("tcp", "nonsense", "host:port"),
    ("unix", "/no/such/folder/s", "cannot listen"),
])  # fmt: skip
def test_what_cannot_be_served_ends_with_status_1(network, address, text):
    script = "from catchment.serve import serve; serve('catchment.sources.test:test')"

    done = subprocess.run([sys.executable, "-c", script, "serve", "--network", network, "--address", address],
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip

    assert done.returncode == 1
    assert text in done.stdout


def test_plugin_that_cannot_be_imported_ends_with_status_1(tmp_path):
    script = "from catchment.serve import serve; serve('catchment.sources.none:none')"

    done = subprocess.run([sys.executable, "-c", script, "serve", "--network", "unix",
                           "--address", str(tmp_path / "s")],
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip

    assert done.returncode == 1
    assert "cannot be imported" in done.stdout


def test_booleans_are_flags_with_or_without_a_value(capsys):
    with pytest.raises(SystemExit):
        main("x:y", ["serve", "--no-sentry=maybe"])
    assert "expected true or false" in capsys.readouterr().err


def test_info_tells_package_and_version(capsys):
    from catchment.sources.test import test

    assert main(test, ["info"], version="v9") == 0

    assert capsys.readouterr().err == "Package and version: catchment/source/test@v9\n"


def test_doc_writes_nested_tables(tmp_path):
    assert main("catchment.sources.test:test", ["doc", str(tmp_path / "docs")]) == 0

    tables = json.loads((tmp_path / "docs" / "__tables.json").read_text())
    assert [table["name"] for table in tables] == sorted(table["name"] for table in tables)
    (parent,) = (table for table in tables if table["relations"])
    assert parent["columns"][0].keys() >= {"name", "type"}


def test_doc_in_markdown_and_of_a_destination_is_refused(tmp_path, capsys):
    assert main("catchment.sources.test:test", ["doc", str(tmp_path), "--format", "markdown"]) == 1
    assert "tables" in capsys.readouterr().err
    assert main("catchment.destinations.test:Test", ["doc", str(tmp_path)]) == 1
    assert "only sources have tables" in capsys.readouterr().err


def test_package_holds_what_a_hub_needs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "overview.md").write_text("# Overview")
    (tmp_path / "news").write_text("what\r\nis new\n")

    assert main("catchment.sources.test:test",
                ["package", "-m", f"@{tmp_path / 'news'}", "v1.0.0", str(tmp_path)]) == 0  # fmt: skip

    dist = tmp_path / "dist"
    package = json.loads((dist / "package.json").read_text())
    assert (package["message"], package["version"], package["protocols"]) == ("what\nis new", "v1.0.0", [3])
    assert (package["kind"], package["name"], package["package_type"]) == ("source", "test", "native")
    assert json.loads((dist / "spec_json_schema.json").read_text())["type"] == "object"
    assert json.loads((dist / "tables.json").read_text())[0]["columns"]
    assert (dist / "docs" / "overview.md").read_text() == "# Overview"
    target = next(t for t in package["supported_targets"] if (t["os"], t["arch"]) == ("linux", "amd64"))
    with zipfile.ZipFile(dist / target["path"]) as archive:
        (name,) = archive.namelist()
        assert name == "plugin-test-v1.0.0-linux-amd64"
        archive.extract(name, tmp_path)
    done = subprocess.run([sys.executable, str(tmp_path / name), "info"], capture_output=True, text=True, check=True)
    assert "catchment/source/test@" in done.stderr


def test_command_serves_an_installed_plugin_by_name(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "catchment", "plugin", "serve", "destination/sqlite", "--network",
                                "unix", "--address", str(tmp_path / "s"), "--log-format", "json"],
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["plugin"].startswith("catchment/destination/sqlite@")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_command_asks_back_where_a_name_is_not_enough():
    done = subprocess.run([sys.executable, "-m", "catchment", "plugin", "serve", "sqlite"],
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip

    assert done.returncode == 1
    assert "`source/sqlite`" in done.stderr
    assert "`destination/sqlite`" in done.stderr


@pytest.mark.parametrize(("arguments", "usage"), [([], "NAME [ARGUMENTS]"), (["destination/test"], "--otel-endpoint")])
def test_help_of_the_command_and_of_the_plugin_that_it_serves(arguments, usage):
    done = subprocess.run([sys.executable, "-m", "catchment", "plugin", "serve", *arguments, "--help"],
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert usage in done.stdout
