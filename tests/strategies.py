"""Hypothesis strategies of Arrow arrays: every type, nulls, nesting, and slices that do not begin at the front."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from catchment.schema import types
from catchment.schema.intervals import day_time_interval, month_interval

# A slow machine is no failure.
settings.register_profile("catchment", deadline=None)
settings.load_profile("catchment")

_FIRST, _LAST = datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else st.integers(0, (1 << bits) - 1)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[decimal.Decimal]:
    top = 10**precision - 1
    return st.integers(-top, top).map(lambda number: decimal.Decimal(number).scaleb(-scale, decimal.Context(prec=80)))


def _moments(unit: str) -> st.SearchStrategy[int]:
    per_second = _PER_SECOND[unit]
    if unit == "ns":
        return _integers(64)
    epoch = datetime.datetime(1970, 1, 1)
    first, last = (int((moment - epoch).total_seconds()) for moment in (_FIRST, _LAST))
    return st.integers(first * per_second, last * per_second)


LEAVES: dict[pa.DataType, st.SearchStrategy[object]] = {
    **{getattr(pa, f"int{bits}")(): _integers(bits) for bits in (8, 16, 32, 64)},
    **{getattr(pa, f"uint{bits}")(): _integers(bits, signed=False) for bits in (8, 16, 32, 64)},
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.utf8(): st.text(max_size=8),
    pa.large_utf8(): st.text(max_size=8),
    pa.binary(): st.binary(max_size=8),
    pa.large_binary(): st.binary(max_size=8),
    pa.binary(5): st.binary(min_size=5, max_size=5),
    types.uuid(): st.binary(min_size=16, max_size=16),
    types.mac(): st.sampled_from([6, 8, 20]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    types.inet(): st.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}".encode()),
    types.json(): st.sampled_from([b"null", b'{"a":[1,"\\u00e9"]}', b'"text"', b"[]", b"1.50"]),
    pa.decimal128(38, 0): _decimals(38, 0),
    pa.decimal128(19, 10): _decimals(19, 10),
    pa.decimal128(5, 5): _decimals(5, 5),
    pa.decimal256(76, 40): _decimals(76, 40),
    pa.date32(): st.dates(datetime.date(1, 1, 2)),
    pa.date64(): st.dates(datetime.date(1, 1, 2)),
    **{pa.timestamp(unit, "UTC"): _moments(unit) for unit in _PER_SECOND},
    pa.timestamp("us"): _moments("us"),
    pa.timestamp("ms", "Europe/Berlin"): _moments("ms"),
    **{pa.time32(unit): st.integers(0, 86_400 * _PER_SECOND[unit] - 1) for unit in ("s", "ms")},
    **{pa.time64(unit): st.integers(0, 86_400 * _PER_SECOND[unit] - 1) for unit in ("us", "ns")},
    **{pa.duration(unit): _integers(64) for unit in _PER_SECOND},
    month_interval(): _integers(32),
    day_time_interval(): _integers(64),
    pa.month_day_nano_interval(): st.tuples(_integers(32), _integers(32), _integers(64)).map(pa.MonthDayNano),
}
"""A strategy for each type without others in it, of values as `pa.array` takes them for the storage type."""


def kinds(leaves: st.SearchStrategy[pa.DataType] | None = None) -> st.SearchStrategy[pa.DataType]:
    """Types up to three levels deep."""
    return st.recursive(
        leaves if leaves is not None else st.sampled_from(list(LEAVES)),
        lambda inner: st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            st.tuples(inner, st.integers(0, 3)).map(lambda pair: pa.list_(*pair)),
            st.tuples(st.sampled_from([pa.utf8(), pa.int64()]), inner).map(lambda pair: pa.map_(*pair)),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda found: pa.struct([pa.field(f'f{n}"é', kind) for n, kind in enumerate(found)])
            ),
        ),
        max_leaves=3,
    )


def values(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Values of `kind` as `pa.array` takes them for the storage type; not null at the top, perhaps null within."""
    if kind in LEAVES:
        return LEAVES[kind]
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: st.none() | values(field.type) for field in kind})
    if pa.types.is_map(kind):
        pair = st.tuples(values(kind.key_type), st.none() | values(kind.item_type))
        return st.lists(pair, max_size=3)
    inner = st.none() | values(kind.value_type)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    return st.lists(inner, min_size=size or 0, max_size=3 if size is None else size)


@st.composite
def slices(draw: st.DrawFn, of: st.SearchStrategy[pa.DataType]) -> tuple[pa.Array, list[Any]]:
    """An array, most often cut out of a longer one so that its offset is not 0, and its values as they went in."""
    kind = draw(of)
    whole = draw(st.lists(st.none() | values(kind), max_size=10))
    array = types.from_storage(pa.array(whole, types.storage_type(kind)), kind)
    start = draw(st.integers(0, len(whole)))
    count = draw(st.integers(0, len(whole) - start))
    return array.slice(start, count), whole[start : start + count]
