"""The cache of downloaded plugins: a folder for each, which appears whole or not at all.

`<cq-dir>/plugins/<kind>/<team>/<name>/<version>/<registry>-<machine>/` holds `plugin`, the program, and `plugin.json`
with its digest and where it came from. What upstream's CLI keeps stands beside it and is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from catchment.errors import PluginError
from catchment.registries.wanted import Wanted
from catchment.registries.watch import Watch

PROGRAM = "plugin"
RECORD = "plugin.json"
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a cached plugin."""

    url: str
    """Where it came from, without what may be secret in it."""
    archive_sha256: str = ""
    """Digest of the archive that was downloaded."""
    is_verified: bool = False
    """Whether the registry told that digest too."""
    sha256: str = ""
    """Digest of the program."""
    image: str = ""
    """Name of the Docker image that it is instead of a program."""


class Damaged(PluginError):
    """Raised for a cached plugin that is not what was put there."""


class Entry:
    """The place of one plugin in the cache."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._cache = folder / "plugins"
        version = self._cache / wanted.kind / wanted.team / wanted.name / wanted.version
        self._name = f"{wanted.registry}-{wanted.target}"
        self._folder = version / self._name
        self._what = str(wanted)

    @property
    def program(self) -> Path:
        """The file that is executed."""
        return (self._folder / PROGRAM).absolute()

    def found(self) -> Record | None:
        """What is there, looked through to its last byte; None for nothing. Raises `Damaged`."""
        try:
            text = (self._folder / RECORD).read_text(encoding="utf-8")
        except FileNotFoundError:
            if self._folder.exists():
                raise Damaged(f"{self._what}: its place in the cache has no {RECORD!r}") from None
            return None
        try:
            record = Record(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise Damaged(f"{self._what}: {RECORD!r} in the cache cannot be read: {error}") from error
        if not record.image:
            self._check(record)
        return record

    @contextlib.contextmanager
    def locked(self, watch: Watch) -> Iterator[None]:
        """Keep every other process, and thread, from this entry until the block ends.

        The lock is the kernel's, so a process that is killed holds none. Its file stays: to remove it would let two in.
        """
        _make_folders(self._folder.parent, self._cache)
        path = self._folder.parent / f".{self._name}.lock"
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "wb") as file:
            self._wait(file.fileno(), path, watch)
            yield

    @contextlib.contextmanager
    def filled(self) -> Iterator[Path]:
        """A new folder, which becomes the entry when the block ends well; only while it is locked."""
        part, old = (self._folder.with_name(f".{self._name}.{ending}") for ending in ("part", "old"))
        for left in (part, old):
            # A process that was killed left it.
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(mode=0o700)
        try:
            yield part
            if self._folder.exists():
                self._folder.rename(old)
            part.rename(self._folder)
        finally:
            for left in (part, old):
                shutil.rmtree(left, ignore_errors=True)

    def _check(self, record: Record) -> None:
        program = self._folder / PROGRAM
        try:
            mode = program.lstat().st_mode
            if not stat.S_ISREG(mode) or not os.access(program, os.X_OK):
                raise Damaged(f"{self._what}: what the cache has is no executable file")
            found = digest(program)
        except OSError as error:
            raise Damaged(f"{self._what}: what the cache has cannot be read: {error.strerror}") from error
        if found != record.sha256:
            raise Damaged(f"{self._what}: what the cache has was changed: SHA-256 is {found}, not {record.sha256}")

    def _wait(self, descriptor: int, path: Path, watch: Watch) -> None:
        begun = time.monotonic()
        is_told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                waited = time.monotonic() - begun
            if watch.stop.wait(_POLL_S):
                raise PluginError(f"{self._what}: broken off")
            if waited > watch.limits.total_s:
                raise PluginError(
                    f"{self._what}: another process held {str(path)!r} for {waited:.0f} seconds",
                    hint="it is downloading the plugin; end it if it hangs, and try again",
                )
            if waited > 1 and not is_told:
                watch.tell(f"Waiting for another process that downloads {self._what}")
                is_told = True


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a plugin into the folder that is to become its entry."""
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_folders(folder: Path, top: Path) -> None:
    """Make `folder` and what lies between it and `top`, for the owner alone; what is above `top` as usual."""
    top.parent.mkdir(parents=True, exist_ok=True)
    for each in (*reversed(folder.parents), folder):
        if each == top or top in each.parents:
            each.mkdir(mode=0o700, exist_ok=True)
