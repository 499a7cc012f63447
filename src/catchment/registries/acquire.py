"""Have a plugin: from the cache, or downloaded, verified and unpacked into it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from catchment.errors import PluginError
from catchment.registries import cache
from catchment.registries.cache import Damaged, Entry, Record
from catchment.registries.wanted import Wanted
from catchment.registries.watch import Watch

log = logging.getLogger("catchment.registries")


@dataclass(frozen=True, slots=True)
class Acquired:
    """A plugin that is on this machine, or the image that it is instead."""

    program: Path | None
    image: str
    is_new: bool
    """Whether it was downloaded now."""


def acquire(wanted: Wanted, folder: Path, watch: Watch) -> Acquired:
    """The plugin. What is in the cache below `folder`, and whole, is used without a request to anyone.

    Raises `PluginError` where it cannot be had; then the cache is as before.
    """
    entry = Entry(folder, wanted)
    try:
        try:
            found = entry.found()
        except Damaged as error:
            found = None
            watch.warn(f"{error}; it is fetched again")
        if found is not None:
            return _acquired(entry, found, is_new=False)
        with entry.locked(watch):
            # Another process may have been at it while we waited.
            found = _sound(entry)
            if found is not None:
                return _acquired(entry, found, is_new=False)
            with entry.filled() as part:
                record = _fetch(wanted, part, watch)
        return _acquired(entry, record, is_new=True)
    except OSError as error:
        raise PluginError(
            f"{wanted}: the cache in {os.fspath(folder)!r} cannot be written: {error.strerror}",
            hint="name another folder with `--cq-dir`",
        ) from error


def _acquired(entry: Entry, record: Record, *, is_new: bool) -> Acquired:
    return Acquired(None if record.image else entry.program, record.image, is_new)


def _sound(entry: Entry) -> Record | None:
    try:
        return entry.found()
    except Damaged:
        return None


def _fetch(wanted: Wanted, part: Path, watch: Watch) -> Record:
    """Download the plugin into a folder. Nothing of it is unpacked before its digest is known to be right."""
    # The cache is used without what speaks HTTP.
    from catchment.registries import archive, github, hub, web

    packed = part / "plugin.zip"
    with web.Web(str(wanted), watch) as connection:
        if wanted.registry == "github":
            found: web.Download | str = github.download(wanted, packed, connection)
        else:
            found = hub.download(wanted, packed, connection)
    if isinstance(found, str):
        record = Record(hub.API_URL, image=found)
    else:
        url = web.shown(found.url)
        if not found.told_sha256:
            watch.warn(f"{wanted}: the registry tells no checksum of {url}; its SHA-256 is {found.sha256}")
        elif found.told_sha256 != found.sha256:
            raise PluginError(
                f"{wanted}: checksum mismatch: expected {found.told_sha256}, got {found.sha256} from {url}",
                hint="it was neither unpacked nor kept; try again, and if that does not help, tell its publisher",
            )
        program = part / cache.PROGRAM
        archive.unpack(packed, found.members, program, str(wanted))
        packed.unlink()
        record = Record(url, found.sha256, bool(found.told_sha256), cache.digest(program))
    cache.write_record(part, record)
    log.info("fetched %s", wanted, extra={"url": record.url, "sha256": record.archive_sha256, "image": record.image})
    return record
