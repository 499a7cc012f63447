"""The extension types inside of anything: to storage and back without a value changing."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.schema import types
from tests import strategies

EXTENSIONS = st.sampled_from([types.uuid(), types.mac(), types.inet(), types.json()])


def storage_values(values, kind):
    """Values as `pylist` of the storage type gives them."""
    return pa.array(values, types.storage_type(kind)).to_pylist()


@given(strategies.slices(strategies.kinds(EXTENSIONS)))
def test_any_slice_goes_to_its_storage_and_back(sliced):
    array, values = sliced

    stored = types.to_storage(array)
    back = types.from_storage(stored, array.type)

    stored.validate(full=True)
    back.validate(full=True)
    assert stored.type.equals(types.storage_type(array.type))
    assert not types.has_extension(stored.type)
    assert stored.to_pylist() == storage_values(values, array.type)
    assert back.type.equals(array.type)
    assert back.equals(array)


@given(strategies.slices(strategies.kinds(EXTENSIONS)))
def test_columns_in_chunks_go_to_their_storage_and_back(sliced):
    array, values = sliced
    column = pa.chunked_array([array, array.slice(1), array.slice(0, 0)], array.type)

    stored = types.to_storage(column)

    assert stored.to_pylist() == storage_values(values + values[1:], array.type)
    assert types.from_storage(stored, array.type).equals(column)


def test_fields_that_may_not_be_null_stay_so():
    kind = pa.struct([pa.field("id", types.uuid(), nullable=False), pa.field("n", pa.int8())])
    array = types.from_storage(pa.array([{"id": bytes(16), "n": 1}, None], types.storage_type(kind)), kind).slice(1)

    assert types.to_storage(array).type.field("id").nullable is False
    assert types.from_storage(types.to_storage(array), kind).equals(array)


@pytest.mark.parametrize("kind", [pa.int64(), pa.list_(pa.utf8()), pa.struct([("a", pa.int8())])])
def test_what_holds_no_extension_type_is_handed_through(kind):
    array = pa.nulls(2, kind)

    assert types.to_storage(array) is array
    assert types.from_storage(array, kind) is array
