"""Servers and connections that go away while a whole sync runs."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests import services
from tests.conftest import needed
from tests.destinations.proxy import Proxy, before, before_mysql
from tests.e2e.conftest import Store, at_clickhouse, at_mysql, at_postgresql
from tests.e2e.documents import messages, run
from tests.faults import flood
from tests.faults.flood import FOUND, wanted

ROWS = 20_000
each_way = pytest.mark.parametrize("publish", ["atomic", "stream"])
SERVERS = ["postgresql", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("mysql", "clickhouse"))]


@pytest.fixture(params=SERVERS)
def between(request):
    """A proxy before a server, a new database of it through the proxy, and past it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
        with before(url) as (proxy, through):
            yield proxy, at_postgresql(through), at_postgresql(url)
    elif request.param == "mysql":
        dsn = request.getfixturevalue("mariadb_dsn")
        with before_mysql(dsn) as (proxy, through):
            yield proxy, at_mysql(through), at_mysql(dsn)
    else:
        url = request.getfixturevalue("clickhouse_url")
        port = urlsplit(url).port
        proxy = Proxy(port, b"exchange tables")
        with contextlib.closing(proxy):
            yield proxy, at_clickhouse(url.replace(str(port), str(proxy.port))), at_clickhouse(url)


def check(result, store: Store, publish):
    """A sync that says that it is complete has brought everything; one that does not has lost nothing."""
    found = sorted(store.query(FOUND))
    if result.outcome == "complete":
        assert found == wanted(ROWS, 2)
    elif publish == "atomic":
        assert messages(result)
        assert found in (wanted(ROWS, 1), wanted(ROWS, 2))
    else:
        assert messages(result)
        assert {number for number, _, _ in found} >= {number for number, _, _ in wanted(ROWS, 1)}
        assert set(found) <= {*wanted(ROWS, 1), *wanted(ROWS, 2)}


@each_way
@pytest.mark.parametrize("moment", ["copy", "before", "after"])
def test_a_sync_whose_connection_is_cut_is_whole_or_says_that_it_is_not(between, publish, moment):
    proxy, through, past = between
    spec = {"batch_size": 5_000}

    def sync(version):
        return run(flood.document(rows=ROWS, version=version), through.document(publish=publish, spec=spec))

    assert sync(1).outcome == "complete"
    proxy.cut, proxy.skip_commits = moment, random.randrange(3)

    result = sync(2)

    check(result, past, publish)
    proxy.cut = ""
    result = sync(3)
    assert result.outcome == "complete", messages(result)
    assert sorted(past.query(FOUND)) == wanted(ROWS, 3)
    assert past.tables() == ["drops"]


@pytest.fixture(params=SERVERS)
def own_server(request):
    """A server of the test's own, and a new database of it."""
    with needed(request, "mariadb" if request.param == "mysql" else request.param), contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            postgresql = stack.enter_context(services.postgresql_server("-c shared_buffers=64MB"))
            yield postgresql, at_postgresql(f"{postgresql.url} dbname=postgres")
        elif request.param == "mysql":
            mysql = stack.enter_context(services.mariadb())
            mysql.run("create database x")
            yield mysql, at_mysql(mysql.dsn("x"))
        else:
            clickhouse = stack.enter_context(services.clickhouse())
            at_clickhouse(clickhouse.url).query("create database x")
            yield clickhouse, at_clickhouse(clickhouse.url + "x")


@pytest.mark.parametrize("publish", ["atomic", pytest.param("stream", marks=pytest.mark.thorough)])
def test_a_sync_whose_server_is_killed_is_whole_or_says_that_it_is_not(own_server, publish):
    server, store = own_server

    def sync(version):
        return run(
            flood.document(rows=ROWS, version=version), store.document(publish=publish, spec={"batch_size": 500})
        )

    began = time.monotonic()
    assert sync(1).outcome == "complete"
    moment = random.uniform(0, time.monotonic() - began)
    print(f"killed after {moment} s")

    def kill_and_start():
        server.kill()
        time.sleep(0.5)
        server.start()

    killer = threading.Timer(moment, kill_and_start)
    killer.start()
    result = sync(2)
    killer.join()

    check(result, store, publish)
    result = sync(3)
    assert result.outcome == "complete", messages(result)
    assert sorted(store.query(FOUND)) == wanted(ROWS, 3)
    assert store.tables() == ["drops"]
