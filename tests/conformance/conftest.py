"""The database of a test, found by the test's own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.destinations import use_clickhouse, use_mysql, use_postgresql


@pytest.fixture
def postgresql_folder(tmp_path: Path, postgresql_url: str) -> None:
    use_postgresql(tmp_path, postgresql_url)


@pytest.fixture
def debian_postgresql_folder(tmp_path: Path, debian_postgresql_url: str) -> None:
    use_postgresql(tmp_path, debian_postgresql_url)


@pytest.fixture
def clickhouse_folder(tmp_path: Path, clickhouse_url: str) -> None:
    use_clickhouse(tmp_path, clickhouse_url)


@pytest.fixture
def mariadb_folder(tmp_path: Path, mariadb_dsn: str) -> None:
    use_mysql(tmp_path, mariadb_dsn)


@pytest.fixture
def mysql8_folder(tmp_path: Path, mysql8_dsn: str) -> None:
    use_mysql(tmp_path, mysql8_dsn)
