"""How large an Arrow message is once it is unpacked, told before anything is: a few bytes may stand for any number.

Offsets are those of the flatbuffers `Message`, `RecordBatch` and `DictionaryBatch` in
https://github.com/apache/arrow/blob/main/format/Message.fbs; Arrow has verified the tables when it gives a message.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from catchment.errors import ProtocolError
from catchment.wire.limits import MAX_MESSAGE_BYTES

MOST_BYTES = 5 * MAX_MESSAGE_BYTES
"""Bytes of a message whose buffers are compressed; those of one that is not are what came."""
MOST_ROWS = 10_000_000
"""Rows of which nothing is there, as every value is null."""
ROWS_A_BYTE = 8
"""Most rows that a byte tells of otherwise: each has a bit at least."""

_HEADER, _DATA, _LENGTH, _BUFFERS, _COMPRESSION = 2, 1, 0, 2, 3


def check(message: pa.ipc.Message) -> None:
    """Raises `ProtocolError` for a message that would become far more in memory than it is on the wire."""
    if message.type not in ("record batch", "dictionary"):
        return
    meta = message.metadata.to_pybytes()
    body = message.body
    size = body.size if body is not None else 0
    try:
        rows, unpacked = _measured(meta, memoryview(body) if body is not None else memoryview(b""), message.type)
    except (struct.error, IndexError) as error:
        raise ProtocolError(f"a record of {size:,} bytes cannot be read: {error}") from error
    if unpacked > max(MOST_BYTES, size):
        raise ProtocolError(f"a record of {size:,} bytes unpacks to {unpacked:,}, at most {MOST_BYTES:,} are taken")
    if rows > max(MOST_ROWS, ROWS_A_BYTE * unpacked):
        raise ProtocolError(f"a record of {size:,} bytes claims to have {rows:,} rows")


def _measured(meta: bytes, body: memoryview, kind: str) -> tuple[int, int]:
    """Rows and unpacked bytes."""
    header = _table(meta, _root(meta), _HEADER)
    if kind == "dictionary":
        header = _table(meta, header, _DATA)
    place = _field(meta, header, _LENGTH)
    rows = struct.unpack_from("<q", meta, place)[0] if place else 0
    if not _field(meta, header, _COMPRESSION):
        return rows, len(body)
    start = _table(meta, header, _BUFFERS)
    (count,) = struct.unpack_from("<I", meta, start)
    total = 0
    for number in range(count):
        offset, length = struct.unpack_from("<qq", meta, start + 4 + 16 * number)
        if length >= 8:
            # The unpacked length is in front of each buffer; -1 is for one that is as it is.
            (unpacked,) = struct.unpack_from("<q", body, offset)
            total += unpacked if unpacked >= 0 else length
    return rows, total


def _root(meta: bytes) -> int:
    return int(struct.unpack_from("<I", meta, 0)[0])


def _field(meta: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it is left out."""
    vtable = table - struct.unpack_from("<i", meta, table)[0]
    (size,) = struct.unpack_from("<H", meta, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", meta, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _table(meta: bytes, table: int, number: int) -> int:
    """Where the table, or vector, that a field points to is. Raises `IndexError` if the field is left out."""
    place = _field(meta, table, number)
    if not place:
        raise IndexError("its header is not whole")
    return int(place + struct.unpack_from("<I", meta, place)[0])
