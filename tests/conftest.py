"""Services, a config writer, `--require`, and a loud word at the end about what could not run."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import services

# A loaded machine is no failure, and CI judges a change by the same examples each time.
hypothesis.settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("here")

_numbers = itertools.count(1)

UNHURRIED = (
    "cli/", "conformance/", "destinations/", "e2e/", "faults/", "registries/", "telemetry/", "wire/", "test_api",
    "test_docs", "test_examples", "engine/test_endings", "sources/test_file_hostile", "spec/test_hostile",
)  # fmt: skip
"""Tests that start processes, build whole databases or wait for limits of time: `make quick` leaves them out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require", action="append", default=[], metavar="NAME",
                     help="fail, rather than leave out, tests that need this service (`all`: any)")  # fmt: skip
    parser.addoption("--soak", action="store_true", help="run long fault tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        if {"postgresql_server", "debian_postgresql_folder"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.postgresql)
        if {"clickhouse_server", "clickhouse_folder"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.clickhouse)
        if {"mariadb_server", "mysql_dsn", "mariadb_folder", "mysql8_folder"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.mysql)
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)
        if str(item.path.relative_to(here)).startswith(UNHURRIED):
            item.add_marker(pytest.mark.unhurried)
        soaks = item.get_closest_marker("soak") is not None
        (left_out if soaks and not config.getoption("--soak") else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what could not run; the reports come from every process that ran tests."""
    reasons = collections.Counter(
        (report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section("WHAT COULD NOT RUN HERE", sep="!", red=True, bold=True)
    for reason, count in reasons.items():
        terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}", red=True)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("PG", "CQ_", "CLOUDQUERY_", "OTEL_", "DOCKER_")):
            monkeypatch.delenv(name)


@contextlib.contextmanager
def needed(request: pytest.FixtureRequest, name: str, *, everywhere: bool = True) -> Iterator[None]:
    """Leave the test out if a service is missing, or fail if it is required; `all` means those that run everywhere."""
    try:
        yield
    except services.Missing as error:
        if {name, *(["all"] if everywhere else [])} & set(request.config.getoption("--require")):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def docker_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a running Docker engine without images and containers."""
    with needed(request, "docker"), services.docker_engine() as address:
        yield address


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running server, without a database."""
    with needed(request, "postgresql"), services.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def debian_postgresql_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running server of the version that Debian has, without a database."""
    with needed(request, "postgresql-debian", everywhere=False), services.postgresql_server(tls=True) as server:
        yield server.url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A new, empty database."""
    from tests.postgresql_pool import pool

    with pool(postgresql_server).database() as url:
        yield url


@pytest.fixture
def debian_postgresql_url(debian_postgresql_server: str) -> Iterator[str]:
    """A new, empty database of Debian's version."""
    from tests.postgresql_pool import pool

    with pool(debian_postgresql_server).database() as url:
        yield url


@pytest.fixture(scope="session")
def clickhouse_server(request: pytest.FixtureRequest) -> Iterator[services.ClickHouseServer]:
    """A running ClickHouse server."""
    with needed(request, "clickhouse"), services.clickhouse() as server:
        yield server


@pytest.fixture
def clickhouse_url(clickhouse_server: services.ClickHouseServer) -> Iterator[str]:
    """A new, empty database."""
    import clickhouse_connect

    name = f"catchment_{next(_numbers)}"
    url = clickhouse_server.url + name
    with clickhouse_connect.get_client(dsn=clickhouse_server.url, dedicated_pool=True) as client:
        client.command(f"create database {name}")
        yield url
        client.command(f"drop database {name} sync")


@pytest.fixture(scope="session")
def mariadb_server(request: pytest.FixtureRequest) -> Iterator[services.MySQLServer]:
    """A running MariaDB server."""
    with needed(request, "mariadb"), services.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def mysql8_server(request: pytest.FixtureRequest) -> Iterator[services.MySQLServer]:
    """A running MySQL 8 server, where there is one."""
    with needed(request, "mysql8", everywhere=False), services.mysql8() as server:
        yield server


@pytest.fixture
def mariadb_dsn(mariadb_server: services.MySQLServer) -> Iterator[str]:
    """A new, empty database of MariaDB."""
    with _new_database(mariadb_server) as dsn:
        yield dsn


@pytest.fixture
def mysql8_dsn(mysql8_server: services.MySQLServer) -> Iterator[str]:
    """A new, empty database of MySQL."""
    with _new_database(mysql8_server) as dsn:
        yield dsn


@contextlib.contextmanager
def _new_database(server: services.MySQLServer) -> Iterator[str]:
    name = f"catchment_{next(_numbers)}"
    server.run(f"create database {name}")
    yield server.dsn(name)
    server.run(f"drop database {name}")


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a config file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / f"config-{next(_numbers)}.yml"
        path.write_text(text)
        return path

    return write
