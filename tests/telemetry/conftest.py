"""Collectors, and configs that have something to tell."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.telemetry.collector import Collector, Silent

CONFIG = """
kind: source
spec: {{name: shop, registry: python, path: {path}, tables: ["*"], destinations: [db], {more} spec: {source}}}
---
kind: destination
spec: {{name: db, registry: python, path: duckdb, spec: {{connection_string: "{db}"}}}}
"""


@pytest.fixture
def collectors():
    """Makes collectors."""
    with contextlib.ExitStack() as stack:

        def make(kind=Collector, **options):
            made = kind(**options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def collector(collectors):
    return collectors()


@pytest.fixture
def silent(collectors):
    return collectors(Silent)


@pytest.fixture
def nobody():
    """An address at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def config(tmp_path, write_config):
    """Writes a config of one source, into DuckDB."""

    def make(source="{num_clients: 3, num_rows: 4, num_sub_rows: 2, tables: 1}", more="", path="test"):
        return write_config(
            CONFIG.format(source=source, more=more and more + ",", path=path, db=tmp_path / "out.duckdb")
        )

    return make
