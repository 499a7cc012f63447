"""Texts and values by column: slices, nulls, what lies under nulls, empty arrays."""

from __future__ import annotations

import base64
import decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.schema import arrays
from tests import strategies

BINARY = st.sampled_from([pa.binary(), pa.large_binary(), pa.binary(5)])


@pytest.mark.parametrize(
    ("texts_of", "reference"),
    [
        (arrays.hex_texts, bytes.hex),
        (arrays.colon_texts, lambda value: value.hex(":")),
        (arrays.base64_texts, lambda value: base64.b64encode(value).decode()),
    ],
)
@given(strategies.slices(BINARY))
def test_bytes_have_the_text_of_each_value(texts_of, reference, sliced):
    array, values = sliced

    texts = texts_of(array)

    texts.validate(full=True)
    assert texts.to_pylist() == [None if value is None else reference(value) for value in values]


@given(strategies.slices(BINARY))
def test_hexadecimal_text_gives_the_bytes_back(sliced):
    array, values = sliced

    assert arrays.bytes_of_hex(arrays.hex_texts(array)).to_pylist() == values


def test_what_lies_under_nulls_does_no_harm():
    texts = pa.array(["zz", "0f", "f"])
    hidden = pa.Array.from_buffers(pa.utf8(), 3, [pa.py_buffer(b"\x02"), *texts.buffers()[1:]])

    assert arrays.bytes_of_hex(hidden).to_pylist() == [None, b"\x0f", None]
    assert arrays.base64_texts(hidden.cast(pa.binary())).to_pylist() == [None, "MGY=", None]


@pytest.mark.parametrize("text", ["f", "zz", "0 f0", "é"])
def test_what_is_not_hexadecimal_is_refused(text):
    with pytest.raises(pa.ArrowInvalid, match="hexadecimal"):
        arrays.bytes_of_hex(pa.array(["00", text]))


@pytest.mark.parametrize("scale", [-3, 0, 1, 5, 6, 7, 38])
@pytest.mark.parametrize("make", [pa.decimal128, pa.decimal256])
@given(numbers=st.lists(st.none() | st.integers(1 - 10**34, 10**34 - 1), min_size=1))
def test_decimals_have_every_digit_and_no_exponent(make, scale, numbers):
    values = [None if n is None else decimal.Decimal(n).scaleb(-scale, decimal.Context(prec=80)) for n in numbers]
    array = pa.array([None, *values], make(38, scale)).slice(1)

    expected = [None if value is None else f"{value:f}" if value else f"{abs(value):f}" for value in values]
    assert arrays.decimal_texts(array).to_pylist() == expected


def test_small_decimals_are_decimals_too():
    array = pa.array([decimal.Decimal("-0.01"), None], pa.decimal32(5, 2))

    assert arrays.decimal_texts(array).to_pylist() == ["-0.01", None]


@given(strategies.slices(strategies.kinds(st.just(pa.int16()))))
def test_list_values_are_those_of_the_slice_alone(sliced):
    array, values = sliced
    if not pa.types.is_nested(array.type) or pa.types.is_struct(array.type):
        return

    offsets, inner = arrays.list_values(array)

    assert len(offsets) == len(array) + 1
    assert offsets[0].as_py() == 0
    assert offsets[-1].as_py() == len(inner)
    found = inner.to_pylist()
    if pa.types.is_map(array.type):
        found = [(entry["key"], entry["value"]) for entry in found]
    starts = offsets.to_pylist()
    assert [found[a:b] for a, b, v in zip(starts, starts[1:], values, strict=False) if v is not None] == [
        value for value in array.to_pylist() if value is not None
    ]
