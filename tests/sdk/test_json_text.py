"""Values as text: against a plain value-by-value reference, over every type, nesting and slice."""

from __future__ import annotations

import base64
import datetime
import json
import math
import string
import struct

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.errors import PluginError
from catchment.schema import arrays, types
from catchment.schema.intervals import day_time_interval, is_interval, month_interval
from catchment.sdk.json_text import to_json_text, to_text
from tests import strategies

EPOCH = datetime.datetime(1970, 1, 1)


def moment_text(value, unit):
    places = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    seconds, rest = divmod(value, 10**places)
    text = (EPOCH + datetime.timedelta(seconds=seconds)).isoformat()
    return f"{text}.{rest:0{places}}" if places else text


def text_of(value, kind):
    """What `to_text` gives for one value of a type that holds no others; not for floats."""
    if isinstance(kind, types.UUIDType):
        digits = value.hex()
        return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])
    if isinstance(kind, types.MACType):
        return value.hex(":")
    if kind.equals(day_time_interval()):
        days, milliseconds = struct.unpack("<ii", value.to_bytes(8, "little", signed=True))
        return f'{{"days":{days},"milliseconds":{milliseconds}}}'
    if kind.equals(month_interval()):
        return str(value)
    if isinstance(kind, pa.BaseExtensionType):
        return value.decode()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, pa.MonthDayNano):
        return f'{{"months":{value.months},"days":{value.days},"nanoseconds":{value.nanoseconds}}}'
    if pa.types.is_timestamp(kind):
        return moment_text(value, kind.unit) + "Z"
    if pa.types.is_time(kind):
        return moment_text(value, kind.unit).removeprefix("1970-01-01T")
    if pa.types.is_duration(kind):
        return f"{value}{kind.unit}"
    if pa.types.is_decimal(kind):
        return f"{value:f}"
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    return str(value)


def parsed(value, kind):
    """What `json.loads` makes of the JSON text of one value."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: parsed(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [{"key": parsed(k, kind.key_type), "value": parsed(v, kind.item_type)} for k, v in value]
    if pa.types.is_nested(kind):
        return [parsed(inner, kind.value_type) for inner in value]
    if pa.types.is_floating(kind):
        return float_of(value, kind)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return value
    if kind.equals(month_interval()):
        return {"months": value}
    text = text_of(value, kind)
    return json.loads(text) if isinstance(kind, types.JSONType) or is_interval(kind) else text


def float_of(value, kind):
    if not math.isfinite(value):
        return str(value)
    return round_to_float32(value) if pa.types.is_float32(kind) else value


def round_to_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def same_width(found, kind):
    """JSON as parsed, its float32 numbers rounded to their width: their text is the shortest of that width."""
    if found is None or isinstance(found, str):
        return found
    if pa.types.is_struct(kind):
        return {field.name: same_width(found[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [
            {"key": same_width(e["key"], kind.key_type), "value": same_width(e["value"], kind.item_type)} for e in found
        ]
    if pa.types.is_nested(kind):
        return [same_width(inner, kind.value_type) for inner in found]
    return round_to_float32(found) if pa.types.is_float32(kind) else found


@given(strategies.slices(strategies.kinds()))
def test_json_text_reads_back_as_the_values_of_any_slice(sliced):
    array, values = sliced

    texts = to_json_text(array)

    texts.validate(full=True)
    found = [None if text is None else same_width(json.loads(text), array.type) for text in texts.to_pylist()]
    # A null of the column stays one, so that a cell is null and not the text `null`.
    assert [text is None for text in texts.to_pylist()] == [value is None for value in values]
    assert found == [parsed(value, array.type) for value in values]


NOT_FLOATS = [kind for kind in strategies.LEAVES if not pa.types.is_floating(kind)]


@pytest.mark.parametrize("kind", NOT_FLOATS, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_plain_text_is_that_of_each_value_of_any_slice(kind, data):
    array, values = data.draw(strategies.slices(st.just(kind)))

    texts = to_text(array)

    texts.validate(full=True)
    assert texts.type.equals(pa.utf8())
    assert texts.to_pylist() == [None if value is None else text_of(value, array.type) for value in values]


@given(strategies.slices(st.sampled_from([pa.float32(), pa.float64()])))
def test_plain_text_of_floats_reads_back_as_the_same_number(sliced):
    array, values = sliced
    width = round_to_float32 if pa.types.is_float32(array.type) else float

    found = [None if text is None else width(float(text)) for text in to_text(array).to_pylist()]

    assert list(map(repr, found)) == list(map(repr, values))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_json_strings_are_those_of_the_standard_library(texts):
    assert to_json_text(pa.array(texts, pa.utf8())).to_pylist() == [
        json.dumps(text, ensure_ascii=False) for text in texts
    ]


def test_each_control_character_quote_and_backslash_is_escaped():
    texts = [*map(chr, range(0x21)), '"', "\\", "\\n", "\x7f", "é", "日", "🎉", "\u2028", string.printable, ""]

    assert to_json_text(pa.array(texts)).to_pylist() == [json.dumps(text, ensure_ascii=False) for text in texts]


def test_field_names_are_escaped_too():
    array = pa.array([{'a"\\\n': 1}])

    assert json.loads(to_json_text(array)[0].as_py()) == {'a"\\\n': 1}


def test_values_of_dictionaries_keep_their_kind():
    assert to_json_text(pa.array([1, 2, None, 1]).dictionary_encode().slice(1)).to_pylist() == ["2", None, "1"]
    assert to_json_text(pa.array([["x", "y"]], pa.list_(pa.dictionary(pa.int32(), pa.utf8())))).to_pylist() == [
        '["x","y"]'
    ]
    assert to_text(pa.array(["x", None]).dictionary_encode()).to_pylist() == ["x", None]


def test_months_are_a_number_by_themselves_and_an_object_inside_json():
    months = pa.ExtensionArray.from_storage(month_interval(), pa.array([3, None], pa.int32()))
    listed = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), months)

    assert to_text(months).to_pylist() == ["3", None]
    assert to_json_text(listed).to_pylist() == ['[{"months":3},null]']


def test_what_lies_under_a_null_list_is_not_shown():
    values = pa.array(["hidden", "seen", "also"])
    array = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), values, mask=pa.array([True, False]))

    assert to_json_text(array).to_pylist() == [None, '["seen","also"]']


def test_what_lies_under_a_null_struct_is_not_shown():
    array = pa.StructArray.from_arrays([pa.array([1, 2])], ["a"], mask=pa.array([True, False]))

    assert to_json_text(array).to_pylist() == [None, '{"a":2}']


def test_structs_without_fields_and_columns_of_nulls_have_text():
    assert to_json_text(pa.array([{}, None, {}], pa.struct([])).slice(1)).to_pylist() == [None, "{}"]
    assert to_json_text(pa.nulls(2)).to_pylist() == [None, None]
    assert to_json_text(pa.array([[None, None], []], pa.list_(pa.null()))).to_pylist() == ["[null,null]", "[]"]


@pytest.mark.parametrize("make", [pa.list_view, pa.large_list_view])
def test_views_of_lists_are_lists(make):
    array = pa.array([[1], [2, 3], None], make(pa.int64())).slice(1)

    assert to_json_text(array).to_pylist() == ["[2,3]", None]


def test_a_union_is_refused_by_name():
    array = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])

    with pytest.raises(PluginError, match=r"sparse_union.*cast the column"):
        to_text(array)


def test_a_small_slice_costs_its_own_rows_alone():
    seen = []
    array = pa.ListArray.from_arrays(pa.array(range(0, 100_001, 10), pa.int32()), pa.array(range(100_000)))

    def texts_of(values):
        seen.append(len(values))
        return values.cast(pa.utf8())

    arrays.list_texts(array.slice(500, 2), texts_of, ",")

    assert seen == [20]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.timestamp("us", "UTC"), 2**62, f"{2**62}us"),
        (pa.timestamp("s"), -(2**60), f"{-(2**60)}s"),
        (pa.date32(), 2**31 - 1, "2147483647d"),
        (pa.date64(), 2**62, f"{2**62}ms"),
        (pa.date64(), 1, "1970-01-01 00:00:00.001"),
        (pa.time32("s"), 90_000, "90000s"),
        (pa.time64("ns"), -1, "-1ns"),
    ],
)
def test_moments_that_no_calendar_has_are_the_numbers_that_they_are(kind, value, text):
    whole = pa.array([value, None, 86_400_000 if pa.types.is_date64(kind) else 1], kind)
    assert to_text(whole).to_pylist()[:2] == [text, None]
    assert to_json_text(whole.slice(0, 1)).to_pylist() == [f'"{text}"']
