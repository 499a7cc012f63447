"""Services, a config writer, `--require`, and a loud word at the end about what could not run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import services

_missing: dict[str, str] = {}
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require", action="append", default=[], metavar="NAME",
                     help="fail, rather than leave out, tests that need this service (`all`: any)")  # fmt: skip
    parser.addoption("--soak", action="store_true", help="run long fault tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "postgresql_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgresql)
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="long; `make soak` runs it"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in _missing.items():
        terminalreporter.section("WHAT COULD NOT RUN HERE", sep="!", red=True, bold=True)
        terminalreporter.line(f"{name}: {reason}", red=True)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    import os

    for name in list(os.environ):
        if name.startswith(("PG", "CQ_", "CLOUDQUERY_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A running server, without a database."""
    required = request.config.getoption("--require")
    try:
        with services.postgresql() as url:
            yield url
    except services.Missing as error:
        _missing["postgresql"] = str(error)
        if {"all", "postgresql"} & set(required):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A new, empty database."""
    import psycopg

    name = f"catchment_{next(_numbers)}"
    with psycopg.connect(f"{postgresql_server} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    yield f"{postgresql_server} dbname={name}"
    with psycopg.connect(f"{postgresql_server} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a config file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / f"config-{next(_numbers)}.yml"
        path.write_text(text)
        return path

    return write
