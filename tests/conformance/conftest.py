"""The database of a test, found by the test's own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.destinations import use_postgresql


@pytest.fixture
def postgresql_folder(tmp_path: Path, postgresql_url: str) -> None:
    use_postgresql(tmp_path, postgresql_url)
