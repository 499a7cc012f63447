"""The `_cq_` columns, the ids in them, and the names of staged tables."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from catchment.schema import types
from catchment.schema.table import Column, Table

CQ_ID = "_cq_id"
CQ_PARENT_ID = "_cq_parent_id"
CQ_CLIENT_ID = "_cq_client_id"
CQ_SYNC_TIME = "_cq_sync_time"
CQ_SOURCE_NAME = "_cq_source_name"
CQ_SYNC_GROUP_ID = "_cq_sync_group_id"

ID = Column(CQ_ID, types.uuid(), "Id of the row.", not_null=True, unique=True)
PARENT_ID = Column(CQ_PARENT_ID, types.uuid(), "`_cq_id` of the parent row.")
CLIENT_ID = Column(CQ_CLIENT_ID, pa.utf8(), "The account, region or other slice the row comes from.", not_null=True)
SYNC_TIME = Column(CQ_SYNC_TIME, pa.timestamp("us", "UTC"), "Start of the sync that wrote the row.")
SOURCE_NAME = Column(CQ_SOURCE_NAME, pa.utf8(), "Name of the source in the config.")
SYNC_GROUP_ID = Column(
    CQ_SYNC_GROUP_ID, pa.utf8(), "Group of syncs the row belongs to.", primary_key=True, not_null=True
)

STAGING_PREFIX = "_catchment_staging."
"""What the names of staged tables start with; a destination may put them in a schema of their own."""


def staging_name(run: str, number: int) -> str:
    """Name of the staged table `number` of a run; short, whatever the live table is called."""
    return f"{STAGING_PREFIX}{run}.{number}"


def is_staging(name: str) -> bool:
    """Whether a table of this name is staged."""
    return name.startswith(STAGING_PREFIX)


def staging_run(name: str) -> str:
    """The run that a staged table belongs to."""
    return name.removeprefix(STAGING_PREFIX).partition(".")[0]


def add_cq_ids(table: Table) -> Table:
    """`table` with `_cq_id` and `_cq_parent_id` in front; `_cq_id` is the primary key if there is no other."""
    own = replace(ID, primary_key=not table.primary_keys)
    others = [column for column in table.columns if column.name not in (CQ_ID, CQ_PARENT_ID)]
    return table.with_columns([own, PARENT_ID, *others])


def add_client_id(table: Table) -> Table:
    """`table` with `_cq_client_id` in front, unless it has one."""
    return table if CQ_CLIENT_ID in table else table.with_columns([CLIENT_ID, *table.columns])


def hash_columns(table: Table, *, deterministic: bool) -> tuple[str, ...]:
    """The columns that `_cq_id` is a hash of; empty where it is random."""
    components = tuple(column.name for column in table.columns if column.primary_key_component)
    if components:
        return components
    if not deterministic or table.primary_keys in ((), (CQ_ID,)):
        return ()
    return table.primary_keys


@functools.cache
def _version_masks(count: int) -> tuple[pa.Array, pa.Array]:
    """Alternating 64-bit masks that clear, then set, the version and variant bits of `count` UUIDs."""
    clear = bytes.fromhex("ffffffffffff0fff3fffffffffffffff")
    settle = bytes.fromhex("00000000000040008000000000000000")
    return tuple(
        pa.Array.from_buffers(pa.uint64(), count * 2, [None, pa.py_buffer(mask * count)]) for mask in (clear, settle)
    )


_MASKED_AT_ONCE = 1 << 16


def random_ids(count: int) -> pa.Array:
    """`count` random UUIDs, version 4."""
    clear, settle = _version_masks(_MASKED_AT_ONCE)
    raw = pa.Array.from_buffers(pa.uint64(), count * 2, [None, pa.py_buffer(os.urandom(count * 16))])
    pieces = []
    for start in range(0, count * 2, _MASKED_AT_ONCE * 2):
        piece = raw.slice(start, _MASKED_AT_ONCE * 2)
        pieces.append(pc.bit_wise_or(pc.bit_wise_and(piece, clear.slice(0, len(piece))), settle.slice(0, len(piece))))
    words = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces or [raw])
    storage = pa.Array.from_buffers(pa.binary(16), count, [None, words.buffers()[1]])
    return pa.ExtensionArray.from_storage(types.uuid(), storage)


def deterministic_ids(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Array:
    """One UUID per row from the row's values of `columns`, which all have one length; the SDK's algorithm.

    The text of every value is made by column; only the two hashes are made row by row.
    """
    parts: list[pa.Array | pa.Scalar] = []
    for name in sorted(columns, key=str.encode):
        parts += [pa.scalar(name.encode(), pa.binary()), value_texts(columns[name])]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary()))
    return _uuids(joined.to_pylist())


def _uuids(keys: Iterable[bytes]) -> pa.Array:
    sha256, sha1, zeros = hashlib.sha256, hashlib.sha1, bytes(16)
    raw = b"".join([sha1(zeros + sha256(key).digest()).digest()[:16] for key in keys])
    count = len(raw) // 16
    clear = bytes.fromhex("ffffffffffff0fff3fffffffffffffff")
    settle = bytes.fromhex("00000000000050008000000000000000")
    words = pa.Array.from_buffers(pa.uint64(), count * 2, [None, pa.py_buffer(raw)])
    masks = [
        pa.Array.from_buffers(pa.uint64(), count * 2, [None, pa.py_buffer(mask * count)]) for mask in (clear, settle)
    ]
    words = pc.bit_wise_or(pc.bit_wise_and(words, masks[0]), masks[1])
    storage = pa.Array.from_buffers(pa.binary(16), count, [None, words.buffers()[1]])
    return pa.ExtensionArray.from_storage(types.uuid(), storage)


def value_texts(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The text of every value as the SDK writes it, as binary; null is `(null)`."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    texts = _texts(array)
    return pc.fill_null(texts.cast(pa.binary()), pa.scalar(b"(null)", pa.binary()))


def _texts(array: pa.Array) -> pa.Array:
    """As `value_texts`, but a null stays null."""
    kind = array.type
    if isinstance(kind, types.UUIDType):
        return _dashed(array.storage)
    if isinstance(kind, types.MACType):
        return pa.array([None if value is None else value.hex(":") for value in array.storage.to_pylist()], pa.utf8())
    if isinstance(kind, pa.BaseExtensionType):
        return array.storage.cast(pa.binary())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return array.cast(pa.utf8())
    if pa.types.is_decimal(kind):
        return array.cast(pa.utf8()) if kind.scale >= 0 and kind.scale < 6 else _by_value(array)
    if pa.types.is_date(kind):
        return pc.strftime(array.cast(pa.timestamp("s")), "%Y-%m-%d")
    if pa.types.is_timestamp(kind):
        seconds = pc.floor_temporal(array.cast(pa.timestamp(kind.unit)), unit="second").cast(pa.timestamp("s"))
        return pc.strftime(seconds, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_time(kind):
        return array.cast(pa.utf8())
    if pa.types.is_duration(kind):
        unit = pa.scalar(kind.unit, pa.utf8())
        return pc.binary_join_element_wise(array.cast(pa.int64()).cast(pa.utf8()), unit, pa.scalar("", pa.utf8()))
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return array.cast(pa.binary())
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return array.cast(pa.binary())
    return _by_value(array)


def _dashed(storage: pa.Array) -> pa.Array:
    """The dashed text of 16-byte values."""
    hexes = pa.array([None if value is None else value.hex() for value in storage.to_pylist()], pa.utf8())
    ends = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
    parts = [pc.utf8_slice_codeunits(hexes, start, stop) for start, stop in ends]
    return pc.binary_join_element_wise(*parts, pa.scalar("-", pa.utf8()))


def _by_value(array: pa.Array) -> pa.Array:
    """Texts of types that Arrow has no function for: floats, high scales, lists, structs, intervals."""
    return pa.array([None if value is None else _text(value, array.type) for value in array.to_pylist()], pa.utf8())


def _text(value: object, kind: pa.DataType) -> str:
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list):
        inner = kind.value_type if hasattr(kind, "value_type") else None
        texts = value_texts(pa.array(value, inner) if inner is not None else pa.array(value)).to_pylist()
        return f"[{', '.join(text.decode() for text in texts)}]"
    if isinstance(value, dict):
        import json

        return json.dumps(value, default=str, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return str(value)


def _float_text(value: float) -> str:
    """Shortest decimal that reads back as `value`, never with an exponent."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = f"{Decimal(repr(value)):f}"
    return re.sub(r"\.0*$|(\.\d*?)0+$", r"\1", text) if "." in text else text
