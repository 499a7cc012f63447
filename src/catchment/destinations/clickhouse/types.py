"""Arrow types as ClickHouse has them, values on their way there and back, and how both are written in SQL."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sdk import Column, PluginError, RowsRefused, mac, sql, uuid
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import is_interval, is_nested, list_values, map_type, restore

MARK = "\0"
"""What stands for a value in statements that are put together: no identifier can hold it."""

_NAMES: Mapping[pa.DataType, str] = {
    pa.bool_(): "Bool",
    **{getattr(pa, f"int{bits}")(): f"Int{bits}" for bits in (8, 16, 32, 64)},
    **{getattr(pa, f"uint{bits}")(): f"UInt{bits}" for bits in (8, 16, 32, 64)},
    pa.float16(): "Float32",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.date32(): "Date32",
    pa.date64(): "Date32",
    uuid(): "UUID",
}
_BACK: Mapping[str, pa.DataType] = {
    **{name: kind for kind, name in _NAMES.items() if kind not in (pa.float16(), pa.date64())},
    "String": pa.utf8(),
}
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Unit → digits behind the second."""
_UNITS = {str(digits): unit for unit, digits in _DIGITS.items()}
_ZONE = re.compile(r"[A-Za-z]+/[A-Za-z0-9_+/-]+")
_KEYS = ("String", "FixedString", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "UUID",
         "Date32")  # fmt: skip
"""Types that the keys of a map may have."""
NEVER_NULL = ("Array", "Map", "Tuple", "Nested", "Variant", "Dynamic", "JSON", "Object", "AggregateFunction")
"""Types that `Nullable` cannot be put around."""


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any kind."""
    return (
        is_nested(kind) and not pa.types.is_map(kind) and not pa.types.is_struct(kind) and not pa.types.is_union(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are kept as text because ClickHouse has no type for them."""
    if pa.types.is_map(kind):
        return type_name(kind.key_type).partition("(")[0] not in _KEYS
    if pa.types.is_struct(kind):
        return bool(kind.num_fields == 0)
    if pa.types.is_decimal(kind):
        return bool(kind.scale < 0 or kind.scale > kind.precision)
    return bool(
        pa.types.is_duration(kind)
        or is_interval(kind)
        or pa.types.is_null(kind)
        or pa.types.is_dictionary(kind)
        or pa.types.is_union(kind)
    )


def is_compound(kind: pa.DataType) -> bool:
    """Whether the column cannot be null: ClickHouse has no null lists, structs and maps, only empty ones."""
    return is_nested(kind) and not _is_text(kind)


def type_name(kind: pa.DataType) -> str:
    """The column type, the same that upstream's plugin makes but for `date64`; what is inside may be null."""
    if isinstance(kind, sql.Opaque):
        return str(kind)
    if kind in _NAMES:
        return _NAMES[kind]
    if _is_text(kind):
        return "String"
    if pa.types.is_map(kind):
        return f"Map({type_name(kind.key_type)}, {nullable(kind.item_type)})"
    if pa.types.is_struct(kind):
        return f"Tuple({', '.join(f'{quote(field.name)} {nullable(field.type)}' for field in kind)})"
    if is_nested(kind):
        return f"Array({nullable(kind.value_type)})"
    if pa.types.is_decimal(kind):
        return f"Decimal({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) and _is_zone(kind.tz) else ""
        return f"DateTime64({_DIGITS[kind.unit]}{f', {text_literal(zone)}' if zone else ''})"
    if pa.types.is_fixed_size_binary(kind) and not isinstance(kind, pa.BaseExtensionType):
        return f"FixedString({kind.byte_width})"
    return "String"


def nullable(kind: pa.DataType) -> str:
    """The column type for values that may be null."""
    name = type_name(kind)
    never = is_compound(kind) or (isinstance(kind, sql.Opaque) and split(name)[0] in NEVER_NULL)
    return name if never else f"Nullable({name})"


def _is_zone(name: str | None) -> bool:
    """Whether ClickHouse has a time zone of this name; UTC goes without saying, and it knows no plain offsets."""
    return bool(name and _ZONE.fullmatch(name) and name != "Etc/UTC")


def split(name: str) -> tuple[str, list[str]]:
    """A type as the catalogue shows it, as its name and its arguments."""
    base, bracket, inside = name.partition("(")
    if not bracket:
        return name, []
    found, depth, start, quoted, position = [], 0, 0, "", 0
    inside = inside[:-1]
    while position < len(inside):
        letter = inside[position]
        if quoted:
            position += letter == "\\"
            quoted = "" if letter == quoted else quoted
        elif letter in "'`\"":
            quoted = letter
        elif letter == "," and depth == 0:
            found.append(inside[start:position].strip())
            start = position + 1
        else:
            depth += (letter == "(") - (letter == ")")
        position += 1
    return base, [*found, inside[start:].strip()]


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a type as the catalogue shows it; one that Arrow does not have is kept by name."""
    if name in _BACK:
        return _BACK[name]
    base, arguments = split(name)
    match base, arguments:
        case (("Nullable" | "LowCardinality"), [inner]):
            return arrow_type(inner)
        case "Array", [inner]:
            return pa.list_(arrow_type(inner))
        case "Map", [key, item]:
            return pa.map_(arrow_type(key), arrow_type(item))
        case "Tuple", _ if all(_FIELD.fullmatch(argument) for argument in arguments):
            return pa.struct([_field(argument) for argument in arguments])
        case "FixedString", [size]:
            return pa.binary(int(size))
        case "Decimal", [precision, scale]:
            maker = pa.decimal128 if int(precision) <= 38 else pa.decimal256
            return maker(int(precision), int(scale))
        case "DateTime64", [digits, *zone] if digits in _UNITS:
            return pa.timestamp(_UNITS[digits], unescaped(zone[0][1:-1]) if zone else "UTC")
    return sql.Opaque(name)


_FIELD = re.compile(r"(`(?:[^`\\]|\\.|``)*`|[A-Za-z_][A-Za-z0-9_]*) (.+)", re.DOTALL)


def _field(text: str) -> pa.Field:
    found = _FIELD.fullmatch(text)
    assert found is not None
    return pa.field(unquoted(found[1]), arrow_type(found[2]))


_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}


def unescaped(text: str) -> str:
    """What stands between the quotes of a text or a name in the catalogue."""
    return re.sub(r"\\(.)", lambda found: _ESCAPED.get(found[1], found[1]), text, flags=re.DOTALL)


def unquoted(expression: str) -> str:
    """The column that an expression is, if it is no more than its name."""
    return unescaped(expression[1:-1].replace("``", "`")) if expression.startswith("`") else expression


def bytes_for_texts(kind: pa.DataType) -> pa.DataType:
    """The type with every text in it as binary."""
    return map_type(kind, lambda leaf: pa.binary() if pa.types.is_string(leaf) else leaf)


def is_foreign(kind: pa.DataType) -> bool:
    """Whether a type of the catalogue is one that Arrow does not have, or holds such."""
    if pa.types.is_map(kind):
        return is_foreign(kind.key_type) or is_foreign(kind.item_type)
    if pa.types.is_struct(kind):
        return any(is_foreign(field.type) for field in kind)
    return is_foreign(kind.value_type) if is_list(kind) else isinstance(kind, sql.Opaque)


def stored_as(kind: pa.DataType) -> pa.DataType:
    """What comes back: the same, but text for durations and intervals, and plain lists for every kind of list."""
    if _is_text(kind):
        return pa.utf8()
    if not is_nested(kind):
        return kind
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, stored_as(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(stored_as(kind.key_type), stored_as(kind.item_type))
    return pa.list_(stored_as(kind.value_type))


def to_wire(array: pa.Array) -> pa.Array:
    """Values as ClickHouse takes them; null lists, structs and maps become empty, as it has no others."""
    kind = array.type
    if _is_text(kind):
        return to_text(array)
    if not is_nested(kind):
        return _leaf(array)
    if pa.types.is_struct(kind):
        children = [to_wire(child) for child in array.flatten()]
        fields = [pa.field(field.name, child.type) for field, child in zip(kind, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields)
    offsets, values = list_values(array)
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(offsets, to_wire(values.field(0)), to_wire(values.field(1)))
    return pa.ListArray.from_arrays(offsets, to_wire(values))


def _leaf(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return array.storage
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_date64(kind):
        return array.cast(pa.date32())
    if pa.types.is_decimal(kind) and kind.bit_width < 128:
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    if pa.types.is_time(kind):
        number = array.cast(pa.int32()) if pa.types.is_time32(kind) else array
        return number.cast(pa.int64()).cast(pa.timestamp(kind.unit))
    if pa.types.is_string_view(kind):
        return array.cast(pa.utf8())
    return array.cast(pa.binary()) if pa.types.is_binary_view(kind) else array


_NARROW = (datetime.date(1900, 1, 1), datetime.date(2299, 12, 31))
"""First and last day of dates and times before ClickHouse had more."""


def loses_nulls(array: pa.Array) -> bool:
    """Whether there is a null list, struct or map in it, which becomes empty."""
    kind = array.type
    if not is_compound(kind):
        return False
    if array.null_count:
        return True
    if pa.types.is_struct(kind):
        return any(loses_nulls(child) for child in array.flatten())
    values = list_values(array)[1]
    return any(loses_nulls(child) for child in (values.flatten() if pa.types.is_map(kind) else [values]))


def check_days(array: pa.Array, name: str) -> None:
    """Raises `RowsRefused` for a day that an older ClickHouse would turn into another one; `array` is as it is sent."""
    kind = array.type
    if pa.types.is_date32(kind) or (pa.types.is_timestamp(kind) and kind.unit != "ns"):
        first, last = (pa.scalar(day, pa.date32()) for day in _NARROW)
        days = (
            array.cast(pa.timestamp(kind.unit)).cast(pa.date32(), safe=False) if pa.types.is_timestamp(kind) else array
        )
        if pc.any(pc.or_(pc.less(days, first), pc.greater(days, last))).as_py():
            raise RowsRefused(
                f"column `{name}` holds a day outside {_NARROW[0]} to {_NARROW[1]}, which this ClickHouse cannot keep",
                hint="make it null or another day before it is written, or use a newer server",
                column=name,
            )
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            check_days(child, name)
    elif is_nested(kind):
        values = list_values(array)[1]
        for child in values.flatten() if pa.types.is_map(kind) else [values]:
            check_days(child, name)


def select_expression(column: Column, have: Column | None) -> str:
    """How a column is selected so that it can be restored; `have` is what it is, None: it is missing."""
    name = quote(column.name)
    if have is None:
        return f"cast(null as Nullable(String)) as {name}"
    if is_foreign(have.type):
        return f"toString({name}) as {name}"
    if "UUID" not in type_name(have.type):
        return name
    return f"cast({name} as {_read_name(have.type, is_null=not have.not_null)}) as {name}"


def _read_name(kind: pa.DataType, *, is_null: bool = True) -> str:
    """The type that a column is read as: text for uuids, which older versions give in another order of bytes."""
    if kind.equals(uuid()):
        name = "String"
    elif pa.types.is_map(kind):
        return f"Map({_read_name(kind.key_type, is_null=False)}, {_read_name(kind.item_type)})"
    elif pa.types.is_struct(kind):
        return f"Tuple({', '.join(f'{quote(field.name)} {_read_name(field.type)}' for field in kind)})"
    elif is_list(kind):
        return f"Array({_read_name(kind.value_type)})"
    else:
        name = type_name(kind)
    return f"Nullable({name})" if is_null else name


def restored(array: pa.Array, column: Column) -> pa.Array:
    """Values as they were selected, as `stored_as` declares them."""
    want = stored_as(column.type)
    if array.null_count == len(array) and is_nested(want) and not is_nested(array.type):
        # There is no such column.
        return pa.nulls(len(array), want)
    # Bytes come as text without being any, which only those of hardware addresses are taken for.
    plain = map_type(want, lambda leaf: pa.binary() if leaf.equals(mac()) else leaf)
    return restore(restore(array, plain, _cast), want)


def _cast(array: pa.Array, want: pa.DataType) -> pa.Array:
    if pa.types.is_time(want) and pa.types.is_timestamp(array.type):
        number = array.cast(pa.int64())
        return (number.cast(pa.int32()) if pa.types.is_time32(want) else number).cast(want)
    return restore(array, want)


class Literal(str):
    """A value as it stands in a statement."""


def text_literal(text: str) -> str:
    """A text as it stands in a statement."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _literal(value: Any) -> str:
    if isinstance(value, Literal):
        return value
    if isinstance(value, datetime.datetime):
        moment = value.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return f"toDateTime64('{moment}', 6, 'UTC')"
    return text_literal(str(value))


def bound(statement: str, values: Sequence[Any]) -> str:
    """A statement in which the values stand where `MARK` stood."""
    first, *rest = statement.split(MARK)
    return first + "".join(_literal(value) + part for value, part in zip(values, rest, strict=True))


def _parameter(scalar: pa.Scalar) -> Literal:
    """A predicate's value, in the type of its column."""
    kind = scalar.type
    if is_compound(kind):
        raise PluginError(f"rows cannot be looked for by values of type {kind}", hint="name another column")
    return literal_of(pa.repeat(scalar, 1))


def literal_of(array: pa.Array) -> Literal:
    """The first value of an array as it stands in a statement, in the type of its column."""
    kind, wire = array.type, to_wire(array.slice(0, 1))
    if pa.types.is_binary(wire.type) or pa.types.is_large_binary(wire.type) or pa.types.is_string(wire.type):
        return Literal(f"unhex('{wire.cast(pa.binary())[0].as_py().hex()}')")
    if pa.types.is_timestamp(wire.type):
        moment = wire.cast(pa.timestamp(wire.type.unit)).cast(pa.utf8())[0].as_py()
        return Literal(f"toDateTime64('{moment}', {_DIGITS[wire.type.unit]}, 'UTC')")
    if pa.types.is_fixed_size_binary(wire.type) and not kind.equals(uuid()):
        return Literal(f"cast(unhex('{wire[0].as_py().hex()}') as {type_name(kind)})")
    return Literal(f"cast({text_literal(to_text(array.slice(0, 1))[0].as_py())} as {type_name(kind)})")


def quote(name: str) -> str:
    """A quoted identifier."""
    return DIALECT.quote(name)


_WITHOUT_MEANING = ((r"^(\d{{4}}-\d\d-\d\d)T", r"\1 "), ("Z$", ""), (r"(\.\d*?)0+$", r"\1"), (r"\.$", ""))
"""In texts of numbers and moments: the letters of a moment, zeros at the end of a fraction."""


def _plain(text: str) -> str:
    """A text without what has no meaning in it."""
    for pattern, instead in _WITHOUT_MEANING:
        text = f"replaceRegexpOne({text}, {text_literal(pattern)}, {text_literal(instead)})"
    return text


def _conversion(before: str, after: str) -> sql.Conversion | None:
    """How a forced migration turns a column into another type; there and back again is the proof that it fits."""
    was_compound, is_compound = (split(name)[0] in NEVER_NULL for name in (before, after))
    if after == "String":
        return sql.Conversion("toJSONString({0})" if was_compound else "toString({0})")
    if was_compound or is_compound:
        return _between_arrays(before, after)
    given = _plain("{0}") if before == "String" else "{0}"
    value = f"accurateCastOrNull({given}, {text_literal(after)})"
    if before == "String":
        return sql.Conversion(value, f"{_plain(f'toString({value})')} = {given}")
    return sql.Conversion(value, f"accurateCastOrNull({value}, {text_literal(before)}) = {{0}}")


def _between_arrays(before: str, after: str) -> sql.Conversion | None:
    """Each element by itself; arrays of texts, and of other arrays, do not become others."""
    (was, inner_before), (becomes, inner_after) = split(before), split(after)
    if was != "Array" or becomes != "Array":
        return None
    ((given,), (wanted,)) = inner_before, inner_after
    if any(split(name)[0] in (*NEVER_NULL, "String") for name in (given, wanted)):
        return None
    found = _conversion(given, wanted)
    assert found is not None
    value, fits = found.value.format("x"), found.fits.format("x")
    return sql.Conversion(f"arrayMap(x -> {value}, {{0}})", f"arrayAll(x -> x is null or {fits}, {{0}})")


DIALECT = sql.Dialect(
    type_name=type_name,
    arrow_type=arrow_type,
    placeholder=MARK,
    quote_char="`",
    escape_char="\\",
    inline_unique=False,
    to_parameter=_parameter,
    conversion=_conversion,
    shown="toString({0})",
)
