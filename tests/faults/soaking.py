"""What the long fault runs share: a table whose rows all say which version they are of, and who looks at it when."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from tests.e2e.conftest import Store
from tests.e2e.documents import source

ROWS = 1_000_000
COUNTS = "select count(*), min(version), max(version), sum(id) from wide"
TEXT = "x" * 60
LONG_S = 240.0
"""Seconds after which no more servers are killed."""


def ids(version: int) -> list[int]:
    """Every fifth id differs from those of all other versions, so that it leaves stale rows behind."""
    return [number if number % 5 else number + version * ROWS for number in range(ROWS)]


@dataclass
class Soak:
    """Syncs of one table into one database, from a file that changes."""

    folder: Path
    store: Store
    left: Callable[[], list[str]]
    """What no run may leave behind in the database, or beside it."""
    seed: int = field(default_factory=lambda: random.randrange(1 << 32))
    version: int = 0
    _sums: dict[int, int] = field(default_factory=dict)
    """Of the ids of each version."""

    def begin(self) -> random.Random:
        """Load the table, and give the chance that later points come from."""
        print(f"seed {self.seed}")
        (self.folder / "data").mkdir()
        files = source(
            "files", "file", ["*"],
            spec={"path": str(self.folder / "data"),
                  "tables": [{"name": "wide", "path": "wide.parquet", "primary_keys": ["id"]}]},
        )  # fmt: skip
        (self.folder / "config.yml").write_text(yaml.safe_dump_all([files, self.store.document()]))
        self.write()
        self.finish()
        return random.Random(self.seed)

    def take_time(self) -> float:
        """Seconds that a sync takes here and now, which a reader that looks on slows down."""
        self.write()
        began = time.monotonic()
        self.finish()
        seconds = time.monotonic() - began
        print(f"an undisturbed sync takes {seconds:.1f} s")
        return seconds

    def write(self) -> int:
        """The next version of the file."""
        self.version += 1
        numbers = ids(self.version)
        self._sums[self.version] = sum(numbers)
        made = pa.array(numbers)
        texts = pc.binary_join_element_wise(made.cast(pa.utf8()), pa.scalar(TEXT), "")
        table = pa.table({"id": made, "version": pa.repeat(self.version, ROWS), "text": texts})
        pq.write_table(table, self.folder / "data" / "wide.parquet")
        return self.version

    def sync(self) -> subprocess.Popen[bytes]:
        """A sync in a process of its own; what it says is in `log`."""
        command = [sys.executable, "-m", "catchment", "sync", "config.yml", "--progress", "none", "--no-log-file"]
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def finish(self) -> None:
        """A sync that nobody disturbs, after which the table is the file."""
        assert self.sync().wait(timeout=300) == 0, (self.folder / "log").read_text()
        assert self.seen() == self.version

    def seen(self) -> int:
        """The version that is in the table, which has to be whole."""
        [found] = self.store.query(COUNTS)
        count, first, last, total = (int(number) for number in found)
        assert (count, first, total) == (ROWS, last, self._sums[last]), f"half a version: {found}"
        return last

    def check_the_end(self) -> None:
        """Row for row the table is the file, and nothing else is there."""
        self.finish()
        found = sorted(self.store.query("select id, version, text from wide"))
        assert found == sorted((number, self.version, f"{number}{TEXT}") for number in ids(self.version))
        tables = self.store.tables()
        assert tables == ["wide"], f"left behind: {tables}"
        assert self.left() == []

    @contextlib.contextmanager
    def watched(self, *, absent: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """A reader that looks on all the while, and must see nothing but whole versions, none before an older one.

        `absent` are the errors that it gets while the server is down.
        """
        seen: list[int] = []
        wrong: list[BaseException] = []
        done = threading.Event()

        def poll() -> None:
            while not done.wait(0.05) and not wrong:
                try:
                    seen.append(self.seen())
                except absent:
                    continue
                except BaseException as error:
                    wrong.append(error)

        reader = threading.Thread(target=poll, daemon=True)
        reader.start()
        try:
            yield
        finally:
            done.set()
            reader.join()
        print(f"a reader saw {len(seen)} whole tables of {len(set(seen))} versions")
        assert wrong == []
        assert seen == sorted(seen)
        assert len(set(seen)) > 1, "the reader saw no version come"


def kill_syncs(soak: Soak, chance: random.Random, times: int) -> None:
    """Kill so many syncs at points that are spread over the whole of one; after each, one whole version is there."""
    # Some end before they are killed: the last moment of a run is among the points too.
    seconds = 1.1 * soak.take_time()
    last, killed, published = soak.seen(), 0, 0
    while killed < times:
        version = soak.write()
        process = soak.sync()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.1, seconds))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        seen = soak.seen()
        assert seen in (last, version)
        published += seen == version
        last = seen
    print(f"{killed} syncs were killed, {published} versions were published meanwhile")


def kill_servers(soak: Soak, chance: random.Random, times: int, server: Any) -> None:
    """Kill the server so many times while a sync runs and start it again; the next sync makes everything right.

    On a machine that is slow it is half as often at the least.
    """
    ends: list[int] = []
    seconds = soak.take_time()
    began = time.monotonic()
    while len(ends) < times and (len(ends) < times // 2 or time.monotonic() - began < LONG_S):
        last, version = soak.seen(), soak.write()
        process = soak.sync()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.1, seconds))
        server.kill()
        time.sleep(chance.uniform(0, 2))
        server.start()
        ends.append(process.wait(timeout=300))
        seen = soak.seen()
        assert ends[-1] in (0, 1, 2), (soak.folder / "log").read_text()
        # What says that it ended well has published; what says that it did not may have come as far as that.
        assert seen == version or (seen == last and ends[-1] != 0)
        soak.finish()
    print(f"{len(ends)} servers were killed; the syncs ended with {ends}")
