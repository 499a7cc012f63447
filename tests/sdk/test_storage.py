"""Types and values as a database stores them: any depth, any slice, and back."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.schema import types
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import is_nested, map_array, map_type, numbered, restore
from tests import strategies


def plain(array):
    """Values of an array, extension types as what they are stored as."""
    return types.to_storage(array).to_pylist()


def as_lists(kind):
    """`kind` with plain lists and nullable fields, as `map_type` leaves it."""
    return map_type(kind, lambda leaf: leaf)


NO_NANO = st.sampled_from(
    [kind for kind in strategies.LEAVES if getattr(kind, "unit", "") != "ns" and not pa.types.is_duration(kind)]
)
"""Types whose values Python can hold."""


@given(strategies.slices(strategies.kinds(NO_NANO)))
def test_mapping_with_nothing_to_do_keeps_every_value_of_any_slice(sliced):
    array, _ = sliced

    made = map_array(array, lambda leaf: leaf)

    made.validate(full=True)
    assert made.type.equals(as_lists(array.type))
    assert repr(plain(made)) == repr(plain(array))


@given(strategies.slices(strategies.kinds(st.just(pa.int32()))))
def test_each_value_at_the_bottom_is_mapped_once(sliced):
    array, _ = sliced

    made = map_array(array, lambda leaf: pc.add(leaf.cast(pa.int64()), 1) if leaf.type == pa.int32() else leaf)

    made.validate(full=True)
    assert made.to_pylist() == [plus_one(value, array.type) for value in array.to_pylist()]


def plus_one(value, kind):
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: plus_one(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(plus_one(k, kind.key_type), plus_one(v, kind.item_type)) for k, v in value]
    if is_nested(kind):
        return [plus_one(inner, kind.value_type) for inner in value]
    return value + 1 if kind == pa.int32() else value


@given(strategies.slices(strategies.kinds(NO_NANO)))
def test_what_was_mapped_to_storage_is_restored_exactly(sliced):
    array, _ = sliced
    stored = map_array(array, lambda leaf: leaf.storage if isinstance(leaf.type, pa.BaseExtensionType) else leaf)

    back = restore(stored, array.type)

    back.validate(full=True)
    assert back.type.equals(array.type)
    assert repr(plain(back)) == repr(plain(array))


TEXTUAL = [types.uuid(), types.mac(), types.inet(), types.json()]


@given(strategies.slices(strategies.kinds(st.sampled_from(TEXTUAL))))
def test_ids_addresses_and_json_come_back_from_their_texts(sliced):
    array, _ = sliced
    texts = map_array(array, lambda leaf: to_text(leaf) if leaf.type in TEXTUAL else leaf)

    back = restore(texts, array.type)

    back.validate(full=True)
    assert plain(back) == plain(array)


@given(strategies.slices(st.sampled_from([k for k in strategies.LEAVES if pa.types.is_time(k)])))
def test_times_of_day_come_back_from_their_texts(sliced):
    array, _ = sliced

    assert restore(to_text(array), array.type).equals(array)
    assert restore(to_text(array).cast(pa.large_utf8()), array.type).equals(array)


@given(strategies.slices(st.sampled_from([pa.decimal128(19, 10), pa.decimal256(76, 40), pa.decimal128(38, 0)])))
def test_decimals_come_back_from_their_texts(sliced):
    array, _ = sliced

    assert restore(to_text(array), array.type).equals(array)


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda k: pa.list_(k, 2)])
@pytest.mark.parametrize("want", [pa.list_, pa.large_list, lambda k: pa.list_(k, 2)])
def test_every_kind_of_list_becomes_every_other(make, want):
    array = pa.array([[9, 9], [1, 2], None, [3, 4]], make(pa.int32())).slice(1)

    back = restore(array, want(pa.int64()))

    back.validate(full=True)
    assert back.type.equals(want(pa.int64()))
    assert back.to_pylist() == [[1, 2], None, [3, 4]]


def test_lists_of_pairs_become_maps():
    pair = pa.struct([pa.field("k", pa.utf8(), nullable=False), pa.field("v", pa.int32())])
    array = pa.array([[], [{"k": "a", "v": 1}], None], pa.list_(pair)).slice(1)

    assert restore(array, pa.map_(pa.utf8(), pa.int64())).to_pylist() == [[("a", 1)], None]


def test_fields_of_structs_are_found_by_name():
    array = pa.array([{"a": 0, "b": ""}, {"a": 1, "b": "x"}, None]).slice(1)
    want = pa.struct([pa.field("b", pa.utf8()), pa.field("a", pa.int16())])

    assert restore(array, want).to_pylist() == [{"b": "x", "a": 1}, None]


def test_structs_without_fields_keep_their_length():
    array = pa.array([{}, None, {}], pa.struct([])).slice(1)

    assert map_array(array, lambda leaf: leaf).to_pylist() == [None, {}]


def test_what_lies_under_nulls_need_not_fit():
    texts = pa.array(["junk", str(uuid.UUID(int=1))])
    mask = pa.array([True, False])
    hidden_in = [
        pa.StructArray.from_arrays([texts], ["a"], mask=mask),
        pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts, mask=mask),
        pa.FixedSizeListArray.from_arrays(texts, 1, mask=mask),
        pa.MapArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array(["k", "l"]), texts, mask=mask),
    ]
    wanted = [
        pa.struct([("a", types.uuid())]),
        pa.list_(types.uuid()),
        pa.list_(types.uuid()),
        pa.map_(pa.utf8(), types.uuid()),
    ]
    for array, want in zip(hidden_in, wanted, strict=True):
        back = restore(array, want)
        back.validate(full=True)
        assert to_text(map_array(back, to_text)).to_pylist()[0] is None
        assert str(uuid.UUID(int=1)) in to_text(map_array(back, to_text)).to_pylist()[1]


@pytest.mark.parametrize("text", ["0f", "zz" * 16, "0" * 31, "aa " * 11])
def test_text_that_is_no_uuid_is_refused(text):
    with pytest.raises(pa.ArrowInvalid):
        restore(pa.array([str(uuid.UUID(int=1)), text]), types.uuid())


@pytest.mark.parametrize(
    ("values", "have", "want"),
    [
        ([300], pa.int64(), pa.int8()),
        ([1.5], pa.float64(), pa.int64()),
        ([2**53 + 1], pa.int64(), pa.float64()),
        (["x"], pa.utf8(), pa.int64()),
        ([1_500], pa.timestamp("ms"), pa.timestamp("s", "UTC")),
        ([["x"]], pa.list_(pa.utf8()), pa.list_(pa.int64())),
    ],
)
def test_values_that_do_not_fit_are_refused(values, have, want):
    with pytest.raises(pa.ArrowInvalid):
        restore(pa.array(values, have), want)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_moments_keep_their_number_whatever_zone_they_show(zone):
    array = pa.array([0, 1_700_000_000], pa.timestamp("s", zone)).slice(1)

    assert restore(array, pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist() == [1_700_000_000_000_000]


@pytest.mark.parametrize(("count", "first", "expected"), [(0, 5, []), (3, 0, [0, 1, 2]), (2, -7, [-7, -6])])
def test_numbers_in_a_row(count, first, expected):
    assert numbered(count, first).to_pylist() == expected
