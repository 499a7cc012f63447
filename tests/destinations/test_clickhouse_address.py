"""Connection strings of ClickHouse: those that upstream's plugin takes, and TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest

from catchment.destinations.clickhouse import ClickHouse
from catchment.destinations.clickhouse.address import Address, parse
from catchment.destinations.clickhouse.catalogue import Definitions
from catchment.destinations.clickhouse.spec import ClickHouseSpec
from catchment.errors import PluginError
from catchment.sdk import Column, Secret
from catchment.sdk.writer import DestinationHost
from tests.destinations.conftest import people, rows
from tests.destinations.proxy import Proxy


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("clickhouse://h", Address((("h", 8123),))),
        ("clickhouse://h:9000/db", Address((("h", 8123),), database="db")),
        ("clickhouse://h:9440/?secure=true", Address((("h", 8443),), is_secure=True)),
        ("tcp://h:9440?secure", Address((("h", 8443),), is_secure=True)),
        ("http://h:8124", Address((("h", 8124),))),
        ("https://h", Address((("h", 8443),), is_secure=True)),
        ("https://h:9440?skip_verify=true", Address((("h", 8443),), is_secure=True, is_verified=False)),
        ("clickhouse://u%40:p%2Fw%3A@h", Address((("h", 8123),), user="u@", password="p/w:")),
        ("clickhouse://h?username=u&password=p&database=d", Address((("h", 8123),), "u", "p", "d")),
        ("clickhouse://a:9000,b:9001,[::1]:9000/d", Address((("a", 8123), ("b", 9001), ("::1", 8123)), database="d")),
        ("clickhouse://127.0.0.1", Address((("127.0.0.1", 8123),), is_compressed=False)),
        ("clickhouse://127.0.0.1?compress=lz4", Address((("127.0.0.1", 8123),))),
        ("clickhouse://h?compress=none", Address((("h", 8123),), is_compressed=False)),
        (
            "clickhouse://h?dial_timeout=200ms&read_timeout=1m30s",
            Address((("h", 8123),), connect_timeout_s=0.2, read_timeout_s=90.0),
        ),
        (
            "clickhouse://h?max_execution_time=60&allow_x=true&debug=true&max_open_conns=5&block_buffer_size=10",
            Address((("h", 8123),), settings={"max_execution_time": "60", "allow_x": "1"}),
        ),
        ("http://h?http_path=/ch&http_proxy=http://p:3128", Address((("h", 8123),), path="ch", proxy="http://p:3128")),
    ],
)
def test_connection_strings_mean_what_they_mean_upstream(text, wanted):
    assert parse(text) == wanted


def test_any_of_several_hosts_may_come_first():
    text = f"clickhouse://{','.join(map(str, range(40)))}?connection_open_strategy=random"
    assert sorted(parse(text).hosts) == sorted((str(number), 8123) for number in range(40))
    assert len({parse(text).hosts for _ in range(3)}) == 3


def test_the_http_port_can_be_named():
    spec = ClickHouseSpec(connection_string=Secret("clickhouse://a:19000,b"), http_port=18123)
    assert spec.address().hosts == (("a", 18123), ("b", 18123))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a DSN such as"),
        ("host:9000", "expected a DSN such as"),
        ("clickhouse://h:port", "expected a host and a port, got 'h:port'"),
        ("clickhouse://a,,b", "expected a host, got ''"),
        ("clickhouse://h?secure=maybe", "expected `true` or `false`, got 'maybe'"),
        ("clickhouse://h?dial_timeout=10", "`dial_timeout`: expected a duration such as '30s' or '1h30m', got '10'"),
    ],
)
def test_connection_strings_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse(text)


def test_statements_for_a_cluster_of_replicas():
    spec = ClickHouseSpec.model_validate(
        {
            "connection_string": Secret("clickhouse://h"),
            "cluster": "my 'cluster'",
            "engine": {"name": "ReplicatedMergeTree", "parameters": ("/tables/{table}", "it's", 8192, 0.5, True)},
        },
    )
    definitions = Definitions(spec)
    table = people("t").with_columns([Column("id", people("t").column("id").type, primary_key=True)])
    assert definitions.create(table) == (
        r"create table if not exists `t` on cluster 'my \'cluster\'' (`id` Int64) "
        r"engine = ReplicatedMergeTree('/tables/{table}', 'it\'s', 8192, 0.5, true) order by (`id`) "
        """settings allow_nullable_key = 1 comment 'catchment key: ["id"]'"""
    )
    assert definitions.drop("t") == r"drop table if exists `t` on cluster 'my \'cluster\'' sync"


@pytest.fixture
def encrypted(tmp_path, clickhouse_url):
    """A connection string over TLS, and the certificate, which is good for `localhost` alone."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert",
               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    port = urlsplit(clickhouse_url).port
    proxy = Proxy(port, context=context)
    yield clickhouse_url.replace(f"127.0.0.1:{port}", f"localhost:{proxy.port}"), (tmp_path / "cert").read_text()
    proxy.close()


def test_tls_with_a_certificate_of_ones_own(open_destination, encrypted):
    url, certificate = encrypted
    destination = open_destination(ClickHouse, connection_string=f"{url}?secure=true", ca_cert=certificate)
    destination.insert(people(), rows(people(), (1, "a")))
    destination.expect(people(), rows(people(), (1, "a")))
    unchecked = open_destination(ClickHouse, connection_string=f"{url}?secure=true&skip_verify=true")
    unchecked.expect(people(), rows(people(), (1, "a")))


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_certificates_are_checked(encrypted, name):
    url, certificate = encrypted
    plugin = DestinationHost(ClickHouse)
    trusted = certificate if name != "localhost" else ""
    plugin.init(
        {"connection_string": f"{url.replace('localhost', name)}?secure=true", "ca_cert": trusted}, no_connection=True
    )
    with pytest.raises(PluginError, match=r"cannot be reached.*certificate verify failed"):
        plugin.test_connection()
    plugin.close()
