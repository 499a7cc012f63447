"""Real syncs, whose traces, metrics and logs a real collector takes over HTTP."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace

import catchment as library
from catchment.errors import SpecError
from tests.cli.run import catchment

SECRET = "s3cr3t-h0rse-battery"
FAILING = "{num_clients: 2, num_rows: 4, tables: 2, fail_tables: [test_wide_table_1], fail_after_rows: 2}"


@pytest.fixture
def run(tmp_path):
    """Syncs a config with an environment; says how it went."""
    return lambda path, *options, **environment: catchment("sync", path, *options, cwd=tmp_path, **environment)


def exporting_to(collector):
    return {"OTEL_ENDPOINT": collector.address, "OTEL_ENDPOINT_INSECURE": "true"}


def test_without_being_asked_nothing_is_exported_and_nothing_imported(config, tmp_path):
    script = (
        "import sys, catchment\n"
        f"catchment.sync({str(config())!r}, fail_on='error')\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert done.stdout.strip() == "[]"


def test_a_sync_is_one_trace_of_its_sources_tables_clients_and_destinations(run, config, collector):
    done = run(config(), "--invocation-id", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", **exporting_to(collector))

    assert done.returncode == 0
    assert len({span.trace for span in collector.spans}) == 1
    root, source, table = (collector.one(name) for name in ("sync", "sync.source.shop", "sync.table.test_wide_table_0"))
    destination = collector.one("sync.destination.db")
    assert (root.parent, source.parent, table.parent, destination.parent) == (b"", root.id, source.id, source.id)
    assert root.about == {
        "sync.invocation.id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "sync.outcome": "complete",
        "sync.resources": 3 * 4 + 3 * 4 + 3 * 4 * 2 + 1 + 4, "sync.errors": 0,
    }  # fmt: skip
    assert root.resource.items() >= {
        "service.name": "catchment", "service.version": library.__version__,
        "service.instance.id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    }.items()  # fmt: skip
    assert source.about.items() >= {
        "sync.source.name": "shop", "sync.source.plugin": "shop (python@test)", "sync.outcome": "complete",
    }.items()  # fmt: skip
    assert destination.about == {"sync.destination.name": "db", "sync.destination.plugin": "db (python@duckdb)"}
    assert table.about.items() >= {
        "sync.table.name": "test_wide_table_0", "sync.resources": 4, "sync.client.id": "client_0", "sync.errors": 0,
    }.items()  # fmt: skip
    written = collector.one("sync.write.test_sub_table")
    assert written.parent == destination.id
    assert written.about.items() >= {
        "sync.rows_written": 24, "sync.published": True, "sync.complete": True, "sync.rows_stale_deleted": 0,
    }.items()  # fmt: skip
    assert written.about["sync.bytes"] > 0
    assert {span.name for span in collector.spans if span.parent == destination.id} >= {
        "sync.flush.db", "sync.publish.db",
    }  # fmt: skip
    assert collector.one("sync.open.db").parent == root.id
    assert not any(span.failed for span in collector.spans)
    assert all(root.started <= span.started <= span.ended <= root.ended for span in collector.spans)


def test_each_client_of_a_table_has_a_span_with_its_rows(run, config, collector):
    run(config(), **exporting_to(collector))

    whole, *clients = collector.named("sync.table.test_sub_table")[::-1]
    assert whole.about["sync.resources"] == 24
    assert {span.about["sync.client.id"]: span.about["sync.resources"] for span in clients} == {
        "client_0": 8, "client_1": 8, "client_2": 8,
    }  # fmt: skip
    assert {span.parent for span in clients} == {whole.id}


def test_the_spans_of_clients_are_bounded(run, config, collector):
    run(config(source="{num_clients: 700, num_rows: 1, num_sub_rows: 1}"), **exporting_to(collector))

    spans = [span for span in collector.spans if span.name.startswith("sync.table.") and "sync.client.id" in span.about]
    left_out = [span.about.get("sync.clients_without_span", 0) for span in collector.spans]
    assert len(spans) == 1_000 + 1
    assert sum(left_out) == 3 * 700 + 1 - 1_000 - 1


def test_a_failed_table_is_a_failed_span_with_the_message(run, config, collector):
    done = run(config(source=FAILING), **exporting_to(collector))

    reason = "`fail_tables` has table `test_wide_table_1`, and `fail_after_rows` is 2"
    assert done.returncode == 2
    failed = collector.one("sync.table.test_wide_table_1")
    assert (failed.failed, failed.message) == (True, reason)
    assert failed.events == [{"exception.message": reason, "sync.client.id": "client_0", "count": 1}]
    assert not collector.one("sync.table.test_wide_table_0").failed
    root = collector.one("sync")
    assert (root.failed, root.message, root.about["sync.errors"]) == (True, reason, 1)
    assert collector.value("sync.table.errors", table="test_wide_table_1") == 1
    assert collector.value("sync.table.errors", table="test_wide_table_0") == 0
    assert collector.value("sync.destination.complete", table="test_wide_table_1") == 0


def test_a_destination_that_cannot_be_opened_is_a_failed_span(run, write_config, collector, tmp_path):
    path = write_config(f"""
kind: source
spec: {{name: shop, registry: python, path: test, tables: ["*"], destinations: [db]}}
---
kind: destination
spec: {{name: db, registry: python, path: duckdb, spec: {{connection_string: "{tmp_path}/no/folder.duckdb"}}}}
""")

    done = run(path, **exporting_to(collector))

    assert done.returncode == 1
    assert collector.one("sync.open.db").failed
    assert "of the database does not exist" in collector.one("sync.open.db").message
    assert "none of its destinations can be used" in collector.one("sync.source.shop").message
    assert collector.one("sync").about["sync.outcome"] == "failed"


def test_metrics_tell_rows_bytes_errors_and_durations_by_their_upstream_names(run, config, collector):
    done = run(config(), **exporting_to(collector))

    assert done.stderr == ""
    about = {"sync.source.name": "shop", "sync.table.name": "test_sub_table", "sync.client.id": ""}
    assert collector.measured("sync.table.resources")[frozenset(about.items())] == 24
    assert collector.kinds["sync.table.resources"] == ("sum", True, "{row}")
    assert collector.kinds["sync.table.duration"] == ("sum", True, "ms")
    assert collector.value("sync.destination.rows_written", table="test_sub_table", destination="db") == 24
    assert collector.value("sync.destination.bytes_written", table="test_sub_table") > 24 * 16
    assert collector.value("sync.destination.complete", table="test_sub_table") == 1
    assert collector.value("sync.source.duration", source="shop") > 0
    assert collector.measured("sync.duration").keys() == {frozenset({("sync.outcome", "complete")})}


def test_stale_rows_are_counted_whether_they_go_or_stay(run, config, collector, tmp_path):
    run(config(source="{num_rows: 9, tables: 2, seed: 1}"))
    run(config(source="{num_rows: 4, tables: 2, seed: 1, fail_tables: [test_wide_table_1], fail_after_rows: 2}"),
        **exporting_to(collector))  # fmt: skip

    assert collector.value("sync.destination.rows_stale_deleted", table="test_wide_table_0") == 5
    assert collector.one("sync.write.test_wide_table_0").about["sync.rows_stale_deleted"] == 5
    kept = collector.one("sync.write.test_wide_table_1").about
    assert kept["sync.rows_stale_kept"] > 0
    assert kept["sync.stale_kept_reason"].startswith("it was read with 1 error")


def test_logs_belong_to_the_trace_and_the_span_of_their_source(run, config, collector):
    done = run(config(source=FAILING), **exporting_to(collector))

    assert done.returncode == 2
    records = {record.text: record for record in collector.records}
    failed = records["`fail_tables` has table `test_wide_table_1`, and `fail_after_rows` is 2"]
    assert failed.level == "ERROR"
    assert failed.about.items() >= {
        "source": "shop", "plugin": "test", "table": "test_wide_table_1", "client": "client_0", "module": "sync",
    }.items()  # fmt: skip
    assert re.fullmatch(r"[0-9a-f-]{36}", failed.about["invocation_id"])
    assert (failed.trace, failed.span) == (collector.one("sync").trace, collector.one("sync.source.shop").id)
    assert {"catchment", "Loading spec(s)", "Start sync", "End sync", "Sync summary"} <= records.keys()


def test_why_a_command_ends_is_exported_though_no_sync_began(run, write_config, collector):
    path = write_config("kind: source\nspec: {name: shop, registry: python, path: nothere, destinations: [d]}")

    done = run(path, **exporting_to(collector))

    assert done.returncode == 1
    (last,) = [record for record in collector.records if record.text == "exiting with error"]
    assert "nothere" in last.about["error"]


def test_debug_records_are_exported_only_if_they_are_logged(run, config, collectors):
    quiet, loud = collectors(), collectors()

    run(config(), **exporting_to(quiet))
    run(config(), "--log-level", "debug", **exporting_to(loud))

    assert not {record.level for record in quiet.records} & {"DEBUG", "TRACE"}
    assert {record.level for record in loud.records} <= {"INFO", "DEBUG", "WARN"}
    assert not [record for record in loud.records if record.about["module"].startswith(("urllib3", "opentelemetry"))]


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_the_standard_variables_ask_for_one_signal_alone(run, config, collector, signal):
    done = run(config(), **{f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": f"http://{collector.address}/v1/{signal}"})

    assert done.returncode == 0
    assert (bool(collector.spans), bool(collector.points), bool(collector.records)) == tuple(
        signal == each for each in ("traces", "metrics", "logs")
    )


def test_the_standard_variables_give_headers_compression_and_a_name(run, config, collector):
    run(config(), OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}", OTEL_EXPORTER_OTLP_HEADERS="x-key=4711",
        OTEL_EXPORTER_OTLP_COMPRESSION="none", OTEL_SERVICE_NAME="nightly",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test")  # fmt: skip

    assert {headers["x-key"] for headers in collector.headers} == {"4711"}
    assert not any("Content-Encoding" in headers for headers in collector.headers)
    assert collector.one("sync").resource.items() >= {
        "service.name": "nightly", "deployment.environment": "test", "service.version": library.__version__,
    }.items()  # fmt: skip
    assert collector.points
    assert collector.records


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {
    "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
}], ids=["all", "each"])  # fmt: skip
def test_the_standard_switches_turn_it_off(run, config, collector, off):
    done = run(config(), **exporting_to(collector), **off)

    assert done.returncode == 0
    assert collector.empty


def test_requests_are_compressed_as_upstream_compresses_them(run, config, collector):
    run(config(), **exporting_to(collector))

    assert {headers["Content-Encoding"] for headers in collector.headers} == {"gzip"}


def test_a_source_exports_to_a_collector_of_its_own(run, write_config, collectors, tmp_path):
    own, general = collectors(), collectors()
    sources = "".join(
        f'kind: source\nspec: {{name: {name}, registry: python, path: test, tables: ["*"], destinations: [db], {more}'
        f" spec: {{fail_immediately: true}}}}\n---\n"
        for name, more in (
            ("one", f'otel_endpoint: "{own.address}", otel_endpoint_insecure: true,'),
            ("two", ""),
        )
    )
    path = write_config(f"""{sources}
kind: destination
spec: {{name: db, registry: python, path: test, write_mode: append}}
""")

    done = run(path, **exporting_to(general))

    assert done.returncode == 2
    assert {s.name for s in own.spans if s.name.startswith("sync.source")} == {"sync.source.one"}
    assert {s.name for s in general.spans if s.name.startswith("sync.source")} == {"sync.source.one", "sync.source.two"}
    assert {dict(about)["sync.source.name"] for name, about in own.points if name != "sync.duration"} == {"one"}
    assert {record.about["source"] for record in own.records} == {"one"}
    assert {record.about.get("source") for record in general.records} >= {"one", "two"}


def test_a_source_with_a_collector_of_its_own_needs_no_environment(run, config, collector):
    done = run(config(more=f'otel_endpoint: "{collector.address}", otel_endpoint_insecure: true'))

    assert (done.returncode, done.stderr) == (0, "")
    assert collector.one("sync.source.shop")
    assert collector.value("sync.table.resources", table="test_sub_table") == 24


def test_collectors_that_are_not_reached_cost_seconds_and_one_warning(config, collector, nobody, silent, tmp_path):
    """All at once: each of them is waited for as long."""
    keyed = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{nobody}/v1/traces?key={SECRET}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET}",
    }
    cases = {
        "nobody": (nobody, "", {"OTEL_ENDPOINT": nobody, "OTEL_ENDPOINT_INSECURE": "true"}),
        "silent": (silent.address, "", {"OTEL_ENDPOINT": silent.address, "OTEL_ENDPOINT_INSECURE": "true"}),
        "keyed": (nobody, "", keyed),
        # Nobody has said that it is insecure.
        "tls": (collector.address, f'otel_endpoint: "{collector.address}"', {}),
    }

    def sync(name):
        _, more, environment = cases[name]
        (tmp_path / name).mkdir()
        path = config(more=more)
        path.write_text(path.read_text().replace("out.duckdb", f"{name}.duckdb"))
        started = time.monotonic()
        done = catchment("sync", path, cwd=tmp_path / name, **environment)
        return done, time.monotonic() - started

    with ThreadPoolExecutor(len(cases)) as pool:
        ended = dict(zip(cases, pool.map(sync, cases), strict=True))
    for name, (done, seconds) in ended.items():
        assert done.returncode == 0, name
        assert "Sync completed successfully" in done.stdout, name
        assert seconds < 20, name
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (name, done.stderr)
        assert lines[0].startswith("Warning: telemetry ("), name
        assert f"did not get through to {cases[name][0]}" in lines[0], name
    assert collector.empty
    assert "SSL" in ended["tls"][0].stderr
    told = ended["keyed"][0].stderr
    assert f"telemetry (traces) did not get through to {nobody}: " in told
    assert SECRET not in told + (tmp_path / "keyed" / "catchment.log").read_text()


def test_what_a_collector_refuses_is_one_warning(run, config, collectors):
    refusing = collectors(status=403)

    done = run(config(), **exporting_to(refusing))

    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "telemetry (logs, metrics, traces) did not get through" in line
    assert "403" in line


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"OTEL_ENDPOINT": "http://"}, "`OTEL_ENDPOINT`: expected host:port of an OTLP/HTTP collector, got 'http://'"),
        ({"OTEL_ENDPOINT": "x:1", "OTEL_ENDPOINT_INSECURE": "perhaps"}, "expected true or false, got 'perhaps'"),
        ({"OTEL_ENDPOINT": "ftp://x:1"}, "expected host:port of an OTLP/HTTP collector, got 'ftp://x:1'"),
        ({"OTEL_ENDPOINT": "x:99999"}, "expected host:port of an OTLP/HTTP collector, got 'x:99999'"),
    ],
)
def test_a_setting_that_cannot_be_right_ends_the_command(run, config, environment, reason):
    done = run(config(), **environment)

    assert done.returncode == 1
    assert reason in done.stderr


def test_an_address_of_a_source_that_cannot_be_right_ends_the_sync_before_it_starts(run, config, tmp_path):
    done = run(config(more='otel_endpoint: "ftp://x"'))

    assert done.returncode == 1
    assert "source `shop`: `otel_endpoint`: expected host:port" in done.stderr
    assert not (tmp_path / "out.duckdb").exists()


def test_another_protocol_of_the_environment_is_told_and_not_used(run, config, collector):
    done = run(config(), OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")

    assert done.returncode == 0
    assert "it is sent as http/protobuf only, and the environment asks for 'grpc'" in done.stderr
    assert collector.empty


@pytest.mark.parametrize("by_name", [True, False])
def test_missing_packages_are_named_and_end_only_what_asked_for_them(run, config, tmp_path, by_name):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "opentelemetry.py").write_text("raise ImportError('not installed')")
    asked = {"OTEL_ENDPOINT": "x:1"} if by_name else {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1"}

    done = run(config(), PYTHONPATH=str(hidden), **asked)

    assert done.returncode == (1 if by_name else 0)
    assert "telemetry to x:1 needs packages that are not installed" in done.stderr
    assert "pip install 'catchment[otel]'" in done.stderr


def test_a_config_runs_without_the_packages_that_its_source_would_export_by(run, config, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "opentelemetry.py").write_text("raise ImportError('not installed')")

    done = run(config(more='otel_endpoint: "x:1"'), PYTHONPATH=str(hidden))

    assert done.returncode == 0
    assert "Warning: telemetry is not exported: telemetry to x:1 needs packages that are not installed" in done.stderr
    assert "pip install 'catchment[otel]'" in done.stderr


def test_no_secret_is_in_anything_that_leaves(run, write_config, collector, tmp_path):
    (tmp_path / "leaky.py").write_text(f"""
import pyarrow as pa
from catchment.sdk import Secret, Source, Spec

class LeakySpec(Spec):
    password: Secret = Secret("")

source = Source("leaky", spec=LeakySpec, client=lambda spec: spec)

@source.discover
def tables(spec):
    from catchment.sdk import Column, Discovered, Table
    def read(ctx):
        ctx.log.warning("using %s", ctx.spec.password.reveal(), extra={{"key": [ctx.spec.password.reveal()]}})
        yield [{{"id": 1}}]
        raise ValueError(f"bad answer to {{ctx.spec.password.reveal()}}")
    name = "of_" + spec.password.reveal().replace("-", "_")
    for each in ("plain", "x{SECRET}"):
        yield Discovered(Table(each, (Column("id", pa.int64()),)), read)
""")
    path = write_config(f"""
kind: source
spec: {{name: shop, registry: python, path: "leaky:source", tables: ["*"], destinations: [db],
        otel_endpoint: "{collector.address}", otel_endpoint_insecure: true, spec: {{password: {SECRET}}}}}
---
kind: destination
spec: {{name: db, registry: python, path: test, write_mode: append}}
""")

    done = run(path, "--prometheus-file", tmp_path / "x.prom", PYTHONPATH=str(tmp_path), **exporting_to(collector))

    assert done.returncode == 2
    assert len(collector.named("sync")) == 2, "that of the source and that of the environment"
    assert SECRET.encode() not in collector.bodies
    assert SECRET not in (tmp_path / "x.prom").read_text()
    assert [span.message for span in collector.named("sync.table.plain")] == [
        "ValueError: bad answer to **********"
    ] * 2
    assert {"using **********"} == {record.text for record in collector.records if "using" in record.text}


def test_a_library_call_exports_as_the_command_does_and_leaves_no_handler(config, collector, monkeypatch):
    for name, value in exporting_to(collector).items():
        monkeypatch.setenv(name, value)

    def handlers():
        found = [*logging.getLogger("catchment").handlers, *logging.getLogger("opentelemetry").handlers]
        return [handler for handler in found if not isinstance(handler, logging.NullHandler)]

    before = handlers()

    result = library.sync(config(source=FAILING))

    assert result.outcome == "partial"
    assert collector.one("sync").about["sync.invocation.id"] == result.invocation_id
    assert collector.value("sync.table.resources", table="test_wide_table_0") == 4
    assert "ERROR" in {record.level for record in collector.records}
    assert handlers() == before
    assert not hasattr(trace.get_tracer_provider(), "resource")


def test_a_library_call_refuses_a_wrong_address_before_it_starts(config, tmp_path):
    with pytest.raises(SpecError, match="expected host:port"):
        library.sync(config(more='otel_endpoint: "ftp://x"'))

    assert not (tmp_path / "out.duckdb").exists()


def test_a_migration_is_traced_too(config, collector, tmp_path):
    done = catchment("migrate", config(), cwd=tmp_path, **exporting_to(collector))

    assert done.returncode == 0
    assert collector.one("sync").about["sync.outcome"] == "complete"
    assert "End migration" in {record.text for record in collector.records}


def test_metrics_come_while_a_sync_runs(run, config, collector):
    run(config(source="{tables: 1, num_rows: 20, rows_per_batch: 1, delay: 100ms}"),
        OTEL_METRIC_EXPORT_INTERVAL="200", **exporting_to(collector))  # fmt: skip

    assert collector.requests > 6
    assert collector.value("sync.table.resources", table="test_wide_table_0") == 20
