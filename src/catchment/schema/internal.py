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

from catchment.schema import arrays, types
from catchment.schema.intervals import MonthIntervalType, interval_texts, is_interval
from catchment.schema.table import Column, Table

CQ_ID = "_cq_id"
CQ_PARENT_ID = "_cq_parent_id"
CQ_CLIENT_ID = "_cq_client_id"
CQ_SYNC_TIME = "_cq_sync_time"
CQ_SOURCE_NAME = "_cq_source_name"
CQ_SYNC_GROUP_ID = "_cq_sync_group_id"

ID = Column(CQ_ID, types.uuid(), "Id of the row.", not_null=True, unique=True)
PARENT_ID = Column(CQ_PARENT_ID, types.uuid(), "`_cq_id` of the parent row.")
CLIENT_ID = Column(CQ_CLIENT_ID, pa.utf8(), "The account, region or other slice the row comes from.")
"""Null in rows of syncs without it: it is asked for source by source, of tables that may have rows already."""
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


def cursor_table(name: str) -> Table:
    """The table that keeps the cursors of incremental tables, as the protocol has it."""
    return Table(
        name,
        (
            Column("key", pa.utf8(), primary_key=True, not_null=True),
            Column("value", pa.utf8()),
            Column("version", pa.uint64()),
        ),
    )


def hash_columns(table: Table, *, deterministic: bool) -> tuple[str, ...]:
    """The columns that `_cq_id` is a hash of; empty where it is random."""
    components = tuple(column.name for column in table.columns if column.primary_key_component)
    if components:
        return components
    if not deterministic or table.primary_keys in ((), (CQ_ID,)):
        return ()
    return table.primary_keys


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


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
        return arrays.uuid_texts(array.storage)
    if isinstance(kind, types.MACType):
        return arrays.colon_texts(array.storage)
    if isinstance(kind, MonthIntervalType):
        # The SDK's own text; everywhere else months are a number.
        return pc.binary_join_element_wise('{"months":', interval_texts(array), "}", "")
    if is_interval(kind):
        return interval_texts(array)
    if isinstance(kind, pa.BaseExtensionType):
        return array.storage.cast(pa.binary())
    if pa.types.is_dictionary(kind):
        return _texts(array.dictionary_decode())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_time(kind):
        return array.cast(pa.utf8())
    if pa.types.is_floating(kind):
        return _float_texts(array)
    if pa.types.is_decimal(kind):
        return arrays.decimal_texts(array)
    if pa.types.is_date(kind):
        return pc.strftime(array.cast(pa.timestamp("s")), "%Y-%m-%d")
    if pa.types.is_timestamp(kind):
        return pc.strftime(_whole_seconds(array), "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_duration(kind):
        unit = pa.scalar(kind.unit, pa.utf8())
        return pc.binary_join_element_wise(array.cast(pa.int64()).cast(pa.utf8()), unit, pa.scalar("", pa.utf8()))
    if pa.types.is_nested(kind):
        return _struct_texts(array) if pa.types.is_struct(kind) else arrays.list_texts(array, value_texts, ", ")
    return array.cast(pa.binary())


def _whole_seconds(array: pa.Array) -> pa.Array:
    """Timestamps cut to the second before them, as UTC without a zone.

    In whole numbers: `floor_temporal` runs over in the first second that nanoseconds reach.
    """
    numbers = array.cast(pa.int64())
    per_second = pa.scalar(_PER_SECOND[array.type.unit], pa.int64())
    seconds = pc.divide(numbers, per_second)
    # The division is cut towards 0, which is up before 1970.
    is_above = pc.less(numbers, pc.multiply(seconds, per_second))
    return pc.subtract(seconds, is_above.cast(pa.int64())).cast(pa.timestamp("s"))


def _float_texts(array: pa.Array) -> pa.Array:
    """Shortest decimals that read back as the values, never with an exponent; float32 as the float64 that it is."""
    values = array.cast(pa.float64())
    texts = values.cast(pa.utf8())
    # Arrow gives the same digits, but very large and very small values an exponent, and other names to the rest.
    other = pc.fill_null(pc.match_substring_regex(texts, "[a-z]"), False)
    if not pc.any(other).as_py():
        return texts
    return pc.replace_with_mask(texts, other, pa.array([_float_text(v) for v in values.filter(other).to_pylist()]))


def _float_text(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = f"{Decimal(repr(value)):f}"
    return re.sub(r"\.0*$|(\.\d*?)0+$", r"\1", text) if "." in text else text


def _struct_texts(array: pa.Array) -> pa.Array:
    """JSON as Go writes it (sorted, `<`, `>` and `&` escaped), value by value: a struct is hardly ever a key."""
    import json

    escaped = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
    texts = [
        None
        if value is None
        else json.dumps(value, default=str, separators=(",", ":"), sort_keys=True, ensure_ascii=False).translate(
            escaped
        )
        for value in array.to_pylist()
    ]
    return pa.array(texts, pa.utf8())
