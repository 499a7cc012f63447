"""The databases that faults are made in, each read with its own driver."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import services
from tests.conftest import needed
from tests.e2e.conftest import Store, at_clickhouse, at_file, at_mysql, at_postgresql, at_sqlite

PLACES = [
    "duckdb",
    "sqlite",
    "postgresql",
    pytest.param("mysql", marks=pytest.mark.thorough),
    pytest.param("clickhouse", marks=pytest.mark.thorough),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new, empty database of each kind."""
    match request.param:
        case "duckdb":
            return at_file(str(tmp_path / "db.duckdb"))
        case "sqlite":
            return at_sqlite(str(tmp_path / "db.sqlite"))
        case "postgresql":
            return at_postgresql(request.getfixturevalue("postgresql_url"))
        case "mysql":
            return at_mysql(request.getfixturevalue("mariadb_dsn"))
    return at_clickhouse(request.getfixturevalue("clickhouse_url"))


SmallDisk = Callable[[str, int], Path]


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """Makes a disk of so many megabytes at a place, or gives the one that is there another size."""
    made: list[Path] = []
    # No folder of pytest's, which nobody else may enter: servers run as somebody else.
    root = Path(tempfile.mkdtemp(prefix="cmdisk-", dir="/tmp"))
    root.chmod(0o755)

    def mount(name: str, megabytes: int) -> Path:
        folder = root / name
        again = folder in made
        folder.mkdir(exist_ok=True)
        size = f"size={megabytes}m"
        how = ["-o", f"remount,{size}"] if again else ["-t", "tmpfs", "-o", size, "tmpfs"]
        command: list[str | Path] = ["mount", *how, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise services.Missing(f"no disk that can be filled: {done.stderr.strip() or 'mount failed'} (needs root)")
        if not again:
            made.append(folder)
        return folder

    with contextlib.ExitStack() as stack:
        stack.enter_context(needed(request, "small_disk", everywhere=False))
        mount("probe", 1)
        yield mount
        for folder in made:
            subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def duck_file(tmp_path: Path) -> Store:
    """One database, where the kind does not matter."""
    return at_file(str(tmp_path / "one.duckdb"))
