"""Opening text files and cutting them into blocks of whole rows, in bounded memory whatever the file holds."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from catchment.sdk import PluginError

BLOCK_BYTES = 4 << 20
"""Bytes of text that are parsed at once."""
ROW_BYTES = 64 << 20
"""Bytes that a single row may have; a longer one is nearly always a quote or a bracket that is never closed."""
SHOWN_CHARACTERS = 120
"""Characters of a broken row or value that a message shows."""

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Compression by the last part of a file's name."""

_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class BadRow:
    """A row that cannot be read."""

    path: Path
    line: int
    """Line that the row starts on, from 1; for a Parquet file the number of the row."""
    reason: str
    unit: str = ""
    """What `line` counts, if not lines."""

    def __str__(self) -> str:
        return f"{self.path}:{self.unit}{self.line}: {self.reason}"


Bad = Callable[[BadRow], None]
"""What is done with a row that cannot be read: raise, or count it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file, in order."""

    batch: pa.RecordBatch
    lines: Callable[[], pa.Array]
    """Gives the line that each row starts on; null for Parquet, which has none."""


class Readable(Protocol):
    """Anything that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def shown(text: str | bytes) -> str:
    """The start of a text as a message shows it."""
    if isinstance(text, bytes):
        text = text[: SHOWN_CHARACTERS * 4].decode(errors="backslashreplace")
    return repr(text) if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]!r}..."


def open_stream(path: Path, compression: str | None, encoding: str = "utf-8") -> Any:
    """A stream of the file's bytes, decompressed, as UTF-8; a context manager with `read`."""
    if compression is None:
        compression = COMPRESSIONS.get(path.suffix.lower())
    stream = pa.input_stream(str(path), compression=None if compression == "none" else compression)
    return stream if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig") else _Recoded(stream, encoding)


class _Recoded:
    """A stream as UTF-8. Bytes that are no text in the encoding pass as they are, so that their row is found bad."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")

    def read(self, size: int) -> bytes:
        while True:
            raw = self._stream.read(size)
            text = self._decoder.decode(raw, final=not raw)
            if text or not raw:
                return text.encode(errors="surrogateescape")

    def __enter__(self) -> _Recoded:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stream.close()


def blocks(stream: Readable, whole: Callable[[bytes], int], path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """The stream in pieces of whole rows, each with its first line; `whole` tells how many bytes are whole rows.

    What is left at the end comes last, with False as it may be cut off. Raises `PluginError` for a row longer than
    `ROW_BYTES`.
    """
    rest, line, is_first = b"", 1, True
    # As much again as waits, so that a long row is not looked at over and over.
    while data := stream.read(max(BLOCK_BYTES, len(rest))):
        rest += data
        if is_first:
            rest, is_first = rest.removeprefix(_BOM), False
            if rest[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise PluginError(
                    f"{path}: the file is UTF-16", hint="set `csv.encoding: utf-16`; JSON has to be UTF-8"
                )
        end = whole(rest)
        if end:
            yield line, rest[:end], True
            line += line_breaks(rest[:end])
            rest = rest[end:]
        elif len(rest) > ROW_BYTES:
            raise PluginError(
                f"{path}:{line}: a row of more than {ROW_BYTES >> 20} MB that starts with {shown(rest)}",
                hint="a quote or a bracket may never be closed, or the file is not of this format",
            )
    if rest:
        yield line, rest, False


def line_breaks(block: bytes) -> int:
    """How many lines end in `block`; carriage returns count where there are no line feeds."""
    return block.count(b"\n") or block.count(b"\r")


def is_utf8(block: bytes) -> bool:
    """Whether all of `block` is UTF-8."""
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
