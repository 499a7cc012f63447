"""Arrow types as MySQL has them, values as `load data` takes them, and values as a query gives them back."""

from __future__ import annotations

import contextlib
import json as plain_json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.mysql.connection import MARK, Exact, Server
from catchment.destinations.mysql.conversions import conversion
from catchment.sdk import Column, PluginError, RowsRefused, Table, json, sql, uuid
from catchment.sdk.json_text import to_text
from catchment.sdk.storage import bytes_of_hex, hex_texts, is_interval, is_nested, raw_bytes, restore

MAX_NAME = 64
"""Characters of a name (https://dev.mysql.com/doc/refman/8.0/en/identifier-length.html)."""
MAX_COLUMNS = 1_017
"""Columns of a table of InnoDB (https://dev.mysql.com/doc/refman/8.0/en/innodb-limits.html)."""
MAX_KEY_BYTES = 3_072
"""Bytes of a key of InnoDB."""
_MAX_DIGITS, _MAX_SCALE = 65, 30

_NAMES: Mapping[pa.DataType, str] = {
    pa.bool_(): "tinyint(1)",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "tinyint unsigned",
    pa.uint16(): "smallint unsigned",
    pa.uint32(): "int unsigned",
    pa.uint64(): "bigint unsigned",
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
    uuid(): "binary(16)",
    json(): "json",
}
_BACK: Mapping[str, pa.DataType] = {
    **{name: kind for kind, name in _NAMES.items() if kind != pa.float16()},
    "mediumint": pa.int32(),
    "mediumint unsigned": pa.uint32(),
    "date": pa.date32(),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext", "varchar", "char"), pa.utf8()),
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob", "varbinary", "binary"), pa.binary()),
    **dict.fromkeys(("datetime", "timestamp"), pa.timestamp("us")),
    "time": pa.time64("us"),
}


def type_name(data_type: pa.DataType) -> str:
    """The column type; where it is not the one that upstream's plugin makes, it holds more."""
    if isinstance(data_type, sql.Opaque):
        return str(data_type)
    if data_type in _NAMES:
        return _NAMES[data_type]
    if is_nested(data_type):
        return "json"
    if _is_decimal(data_type):
        return f"decimal({data_type.precision},{data_type.scale})"
    if pa.types.is_date(data_type):
        return "date"
    if pa.types.is_time(data_type):
        return "time(6)"
    if pa.types.is_timestamp(data_type):
        return "datetime(6)"
    return "longblob" if _is_binary(data_type) else "longtext"


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type for a type as the catalogue names it; foreign ones are kept by name."""
    if name in _BACK:
        return _BACK[name]
    # Older servers give numbers a width for display, which `zerofill` would need.
    plain = re.sub(r"^((?:tiny|small|medium|big)?int)\(\d+\)", r"\1", name)
    if plain in _BACK:
        return _BACK[plain]
    decimal = re.fullmatch(r"decimal\((\d+),(\d+)\)", name)
    if decimal:
        maker = pa.decimal128 if int(decimal[1]) <= 38 else pa.decimal256
        return maker(int(decimal[1]), int(decimal[2]))
    sized = re.fullmatch(r"(char|varchar|binary|varbinary|datetime|timestamp|time)\(\d+\)", name)
    return _BACK[sized[1]] if sized else sql.Opaque(name)


def _is_decimal(data_type: pa.DataType) -> bool:
    """Whether the type is one that MySQL has as well; others are text."""
    if not pa.types.is_decimal(data_type):
        return False
    return bool(data_type.precision <= _MAX_DIGITS and 0 <= data_type.scale <= min(_MAX_SCALE, data_type.precision))


def _is_binary(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_fixed_size_binary(data_type)
        or pa.types.is_binary_view(data_type)
    )


def stored_as(data_type: pa.DataType) -> pa.DataType:
    """What comes back: microseconds for nanoseconds, text for durations, intervals and anything nested."""
    if (
        is_nested(data_type)
        or pa.types.is_duration(data_type)
        or is_interval(data_type)
        or pa.types.is_null(data_type)
        or pa.types.is_dictionary(data_type)
    ):
        return pa.utf8()
    if pa.types.is_timestamp(data_type) and data_type.unit == "ns":
        return pa.timestamp("us", data_type.tz)
    return pa.time64("us") if pa.types.is_time64(data_type) else data_type


def is_text(data_type: pa.DataType) -> bool:
    """Whether the column's type is a text of any length."""
    return bool(data_type.equals(pa.utf8()))


def fits_text(data_type: pa.DataType) -> bool:
    """Whether upstream's plugin keeps such values in a text column, where ours can go as well."""
    return bool(
        pa.types.is_float16(data_type)
        or pa.types.is_decimal(data_type)
        or pa.types.is_date(data_type)
        or pa.types.is_time(data_type)
        or pa.types.is_map(data_type)
        or pa.types.is_large_list(data_type)
        or pa.types.is_fixed_size_list(data_type)
    )


_KEY_BYTES = {"tinyint": 1, "smallint": 2, "int": 4, "bigint": 8, "float": 4, "double": 8, "date": 3, "time": 6}


def with_key_types(table: Table) -> Table:
    """`table` with a bounded type for each text in a key: MySQL has no index over a text that may be of any length."""
    wide = [column for column in table.columns if column.primary_key and _is_unbounded(column.type)]
    fixed = sum(_fixed_bytes(c.type) for c in table.columns if c.primary_key and not _is_unbounded(c.type))
    share = (MAX_KEY_BYTES - fixed) // max(len(wide), 1)
    return table.with_columns(
        [
            replace(column, type=_bounded(column.type, share if column.primary_key else MAX_KEY_BYTES))
            if _is_unbounded(column.type) and (column.primary_key or column.unique)
            else column
            for column in table.columns
        ]
    )


def _is_unbounded(data_type: pa.DataType) -> bool:
    return type_name(data_type) in ("longtext", "longblob", "json")


def _fixed_bytes(data_type: pa.DataType) -> int:
    name = type_name(data_type).partition("(")[0].removesuffix(" unsigned")
    return _KEY_BYTES.get(name, 32)


def _bounded(data_type: pa.DataType, size: int) -> sql.Opaque:
    return sql.Opaque(f"varbinary({size})" if type_name(data_type) == "longblob" else f"varchar({size // 4})")


_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"))
NULL = "\\N"


def to_field(array: pa.Array, column: Column, server: Server) -> pa.Array:
    """Values as fields of `load data`: text with what ends a field or a line escaped, bytes as hexadecimal digits.

    Raises `RowsRefused` for a value that the server would keep as another one.
    """
    texts = _texts(array, column)
    if type_name(array.type) == "json" and not server.is_mariadb:
        _check_numbers(texts, column)
    if not pa.types.is_binary(texts.type) and _may_need_escape(array.type):
        if _needs_escape(texts):
            for character, escaped in _ESCAPES:
                texts = pc.replace_substring(texts, character, escaped)
        if server.pads and column.primary_key and pc.any(pc.ends_with(texts, " ")).as_py():
            raise RowsRefused(
                f"key column `{column.name}` holds a text with a blank at its end, which this server does not see",
                hint="trim it with a transformer, or use MySQL 8.0.17 or later, or MariaDB",
                column=column.name,
            )
    texts = texts.cast(pa.binary())
    return pc.fill_null(texts, NULL.encode()) if texts.null_count else texts


def _needs_escape(texts: pa.Array) -> bool:
    """Whether anything in the texts means something to `load data`: looked for in all of them at once, as bytes."""
    raw = raw_bytes(texts)
    return any(character.encode() in raw for character, _ in _ESCAPES)


def is_plain(data_type: pa.DataType) -> bool:
    """Whether Arrow can tell whether two values are the same, and they are text or a moment."""
    return bool(pa.types.is_string(data_type) or pa.types.is_timestamp(data_type))


def constant(array: pa.Array, column: Column) -> str:
    """The one value of an array as it stands in SQL."""
    return f"_utf8mb4 X'{_texts(array, column)[0].as_py().encode().hex()}'"


def is_hex(data_type: pa.DataType) -> bool:
    """Whether values travel as hexadecimal digits."""
    return _is_binary(data_type) or bool(data_type.equals(uuid()))


def _may_need_escape(kind: pa.DataType) -> bool:
    return type_name(kind) in ("longtext", "json")


def _texts(array: pa.Array, column: Column) -> pa.Array:
    kind = array.type
    if is_hex(kind):
        return hex_texts(array.storage if kind.equals(uuid()) else array)
    if pa.types.is_boolean(kind):
        return array.cast(pa.uint8()).cast(pa.utf8())
    if pa.types.is_floating(kind):
        # A float32 as the float64 that it is: its shortest digits would be rounded twice.
        wide = array.cast(pa.float64())
        if not pc.all(pc.is_finite(wide), min_count=0).as_py():
            found = wide.filter(pc.invert(pc.is_finite(wide)))[0].as_py()
            raise RowsRefused(
                f"column `{column.name}` holds {found!r}, which MySQL has no number for",
                hint="make it null or a number before it is written",
                column=column.name,
            )
        return wide.cast(pa.utf8())
    if column.primary_key and getattr(kind, "unit", "") == "ns" and not pa.types.is_duration(kind):
        _check_whole(array, column)
    if pa.types.is_timestamp(kind):
        naive = array.cast(pa.timestamp(kind.unit)) if kind.tz else array
        # Nanoseconds are cut.
        return (pc.cast(naive, pa.timestamp("us"), safe=False) if kind.unit == "ns" else naive).cast(pa.utf8())
    if pa.types.is_time(kind):
        return pc.cast(array, pa.time64("us"), safe=False).cast(pa.utf8())
    if pa.types.is_large_string(kind) or pa.types.is_string(kind):
        return array
    return to_text(array)


_LONG_NUMBER = r"[0-9.]{17,}|[0-9][eE][-+]?[0-9]{2}"


def _check_numbers(texts: pa.Array, column: Column) -> None:
    """Raises `RowsRefused` for a number in JSON that MySQL would round: it keeps 64 bits of each."""
    long = texts.filter(pc.match_substring_regex(texts, _LONG_NUMBER))
    for text in long.to_pylist():
        # Only whole documents tell numbers from texts that look like them; few have any.
        numbers: list[str] = []
        with contextlib.suppress(ValueError):
            plain_json.loads(text, parse_int=numbers.append, parse_float=numbers.append)
        for number in numbers:
            if _is_rounded(number):
                raise RowsRefused(
                    f"column `{column.name}` holds the JSON number {number}, which MySQL would round",
                    hint="make it a text, with a transformer",
                    column=column.name,
                )


def _is_rounded(number: str) -> bool:
    exact = Decimal(number)
    if exact == exact.to_integral_value() and -(2**63) <= exact < 2**64 and "e" not in number.lower():
        return False
    return Decimal(repr(float(exact))) != exact


def _check_whole(array: pa.Array, column: Column) -> None:
    """Raises `RowsRefused` for nanoseconds in a key: cut, two keys might become one."""
    numbers = array.cast(pa.int64())
    cut = pc.multiply(pc.divide(numbers, 1000), 1000)
    if not pc.all(pc.equal(numbers, cut), min_count=0).as_py():
        raise RowsRefused(
            f"key column `{column.name}` holds nanoseconds, MySQL keeps microseconds",
            hint="make it text or a number with a transformer",
            column=column.name,
        )


def select_expression(column: Column, have: Column) -> str:
    """How a column is selected as text without a tab, a line break or a backslash; `have` is what it is."""
    name, kind = DIALECT.quote(column.name), have.type
    if isinstance(kind, sql.Opaque):
        name = {"geometry": f"st_astext({name})", "bit": f"{name} + 0"}.get(_family(str(kind)), name)
        return f"hex(convert({name} using utf8mb4))"
    if pa.types.is_floating(kind):
        # A float is shown with six digits, the double that it is with all it needs; `+ 0` would take the sign of `-0`.
        return f"{name} * 1e0"
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_temporal(kind) or kind.equals(pa.bool_()):
        return name
    return f"hex({name})" if is_hex(kind) else f"hex(convert({name} using utf8mb4))"


def _family(name: str) -> str:
    word = name.partition("(")[0]
    shapes = ("geometry", "point", "linestring", "polygon")
    return "geometry" if word.endswith(shapes) or word.endswith("collection") else word


def csv_type(have: Column) -> pa.DataType:
    """The type that the text of `select_expression` is parsed as."""
    kind = have.type
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return kind
    return pa.utf8()


def from_csv(array: pa.Array, column: Column, have: Column) -> pa.Array:
    """Parsed text as `stored_as` declares it. Raises `pa.ArrowInvalid` for a value that does not fit."""
    want = stored_as(column.type)
    if pa.types.is_boolean(have.type):
        array = array.cast(pa.int8()).cast(pa.bool_())
    elif isinstance(have.type, (pa.BaseExtensionType, sql.Opaque)) or not (
        pa.types.is_primitive(have.type) or pa.types.is_decimal(have.type)
    ):
        array = bytes_of_hex(array)
        array = array if is_hex(want) else array.cast(pa.utf8())
    if pa.types.is_string(array.type) and pa.types.is_timestamp(want):
        array = array.cast(pa.timestamp(want.unit))
    if pa.types.is_string(array.type) and pa.types.is_time(want):
        # The server shows microseconds, whatever the unit was.
        array = restore(array, pa.time64("us"))
    if pa.types.is_float16(want):
        return array.cast(pa.float64()).cast(want)
    return restore(array, want)


def to_parameter(scalar: pa.Scalar) -> Any:
    """A predicate's value in the form that its column has."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    array = pa.repeat(scalar, 1)
    if is_hex(kind):
        return (array.storage if kind.equals(uuid()) else array)[0].as_py()
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return scalar.as_py()
    texts = _texts(array, Column("predicate", kind))[0].as_py()
    if pa.types.is_floating(kind):
        return float(texts)
    return texts if pa.types.is_temporal(kind) or type_name(kind) == "json" else Exact(texts)


def check_names(table: Table) -> None:
    """Raises `PluginError` for a table or a name that MySQL cannot have."""
    if len(table.columns) > MAX_COLUMNS:
        raise PluginError(
            f"table `{table.name}` has {len(table.columns):,} columns, MySQL takes {MAX_COLUMNS:,}",
            hint="leave some out with a transformer",
        )
    seen: dict[str, str] = {}
    for name in table.column_names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise PluginError(
                f"table `{table.name}` has the columns `{other}` and `{name}`, which are one name to MySQL",
                hint="rename one with a transformer",
            )
    for name in (table.name, *table.column_names):
        reason = _wrong_with(name)
        if reason:
            raise PluginError(f"table `{table.name}`: the name `{name}` {reason}", hint="rename it with a transformer")


def _wrong_with(name: str) -> str:
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, MySQL takes {MAX_NAME}"
    if any(ord(character) > 0xFFFF for character in name):
        return "has a character beyond U+FFFF, which MySQL takes in no name"
    return "ends in a blank, which MySQL takes in no name" if name.endswith(" ") else ""


def created_as(table: Table, collation: str) -> str:
    """`create table` with bounded keys, in an engine that has transactions."""
    return f"{sql.create_table(DIALECT, with_key_types(table))} engine=InnoDB character set utf8mb4 collate {collation}"


def key_definitions(table: Table, collation: str) -> Mapping[str, str]:
    """The bounded columns of the primary key, by name, with a collation that tells all values apart."""
    kinds = {column.name: type_name(column.type) for column in with_key_types(table).columns if column.primary_key}
    text = f" character set utf8mb4 collate {collation}"
    return {
        name: f"{DIALECT.quote(name)} {kind}{text if kind.startswith('varchar') else ''} not null"
        for name, kind in kinds.items()
        if kind.startswith("var")
    }


def definitions(table: Table, names: Sequence[str]) -> Mapping[str, str]:
    """The definitions of some columns, by name."""
    bounded = with_key_types(table)
    return {name: sql.column_definition(DIALECT, bounded.column(name)) for name in names}


def _upstream(kind: pa.DataType) -> pa.DataType:
    """What upstream's plugin keeps values as, where `fits_text` does not say it."""
    is_fixed = pa.types.is_fixed_size_binary(kind) and not isinstance(kind, pa.BaseExtensionType)
    return pa.utf8() if is_fixed else kind


DIALECT = sql.Dialect(
    type_name=type_name,
    arrow_type=arrow_type,
    placeholder=MARK,
    quote_char="`",
    same="<=>",
    conversion=conversion,
    shown="cast({0} as char)",
    to_parameter=to_parameter,
    upstream=_upstream,
)
