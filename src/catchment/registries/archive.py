"""Take one file out of a zip archive that nobody vouches for."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from catchment.errors import PluginError

LARGEST_BYTES = 4 << 30
"""Largest file that is taken out."""
LARGEST_RATIO = 100
"""How much larger than the archive a file may be; programs come to 3 to 5."""
_SMALL_BYTES = 16 << 20
"""Files up to this size are taken whatever their ratio: they hurt nobody."""
_PIECE_BYTES = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError,
           OverflowError)  # fmt: skip
"""What `zipfile` raises for damaged archives, for methods that it lacks, and where a password is needed."""


def unpack(archive: Path, members: Sequence[str], to: Path, what: str) -> None:
    """Write the first of `members` that the archive has to `to`, which is new and executable for its owner alone.

    `what` is the plugin's name for messages. Nothing else is taken out, so that no name in the archive becomes a path.
    Raises `PluginError` for what is no archive or a damaged one, for a member that is no plain file, and for one that
    is larger than `LARGEST_BYTES`, or than `LARGEST_RATIO` times the archive.
    """
    most = min(LARGEST_BYTES, max(_SMALL_BYTES, LARGEST_RATIO * archive.stat().st_size))
    size = 0
    with open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "wb") as file:
        for piece in _pieces(archive, members, what):
            size += len(piece)
            # The size that the archive claims is not believed.
            if size > most:
                raise PluginError(f"{what}: the program in the archive is larger than {most:,} bytes")
            file.write(piece)


def _pieces(archive: Path, members: Sequence[str], what: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(_member(opened, members, what)) as source:
            while piece := source.read(_PIECE_BYTES):
                yield piece
    except _BROKEN as error:
        raise PluginError(
            f"{what}: the archive is damaged: {error}", hint="nothing of it was kept, try again"
        ) from error


def _member(opened: zipfile.ZipFile, members: Sequence[str], what: str) -> zipfile.ZipInfo:
    for name in members:
        found = [member for member in opened.infolist() if member.filename == name]
        if len(found) > 1:
            raise PluginError(f"{what}: the archive has {name!r} {len(found)} times, so it is not used")
        if found:
            mode = found[0].external_attr >> 16
            # Archives made without Unix modes have 0.
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise PluginError(f"{what}: {name!r} in the archive is no plain file, so it is not used")
            return found[0]
    names = [member.filename for member in opened.infolist()]
    listed = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    wanted = " or ".join(repr(name) for name in members)
    raise PluginError(f"{what}: expected {wanted} in the archive, got {listed or 'nothing'}")
