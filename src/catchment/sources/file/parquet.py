"""Reading Parquet files: types from their footers, rows a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catchment.sdk import PluginError, json, uuid
from catchment.sdk.storage import is_nested, numbered
from catchment.sources.file.blocks import Bad, Part
from catchment.sources.file.parquet_size import Sizes
from catchment.sources.file.text import type_name, typed

_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises about a file that is broken, or made to be; names that are no UTF-8 are a `ValueError`."""


class Columns:
    """The columns of some Parquet files: the union of their schemas, with types that hold every value."""

    def __init__(self, table: str, declared: Mapping[str, pa.DataType]) -> None:
        self._table = table
        self._declared = declared
        self.schema = pa.schema([])

    def look(self, path: Path) -> None:
        """Take a file into account."""
        try:
            found = pq.read_schema(path)
        except _BROKEN as error:
            raise PluginError(f"{path} is no Parquet file that can be read: {error}") from error
        twice = sorted({name for name in found.names if found.names.count(name) > 1})
        if twice:
            raise PluginError(f"{path}: column {twice[0]!r} is there twice")
        kinds = pa.schema([(f.name, self._declared.get(f.name, plain(f.type))) for f in found])
        try:
            self.schema = pa.unify_schemas([self.schema, kinds], promote_options="permissive")
        except pa.ArrowException as error:
            raise PluginError(
                f"table `{self._table}`: {path} does not fit the files before it: {error}",
                hint="name the column under `columns` with a type that both go into, or make two tables",
            ) from error


def read(path: Path, wanted: pa.Schema, bad: Bad) -> Iterator[Part]:
    """The rows, with the columns of `wanted` that the file has."""
    first = 1
    try:
        with pq.ParquetFile(path) as opened:
            # One row group after the other: asked for all of them, the reader keeps the bytes of the whole file.
            sizes = Sizes(path, opened)
            for group in range(opened.num_row_groups):
                for batch in opened.iter_batches(batch_size=sizes.of(group), row_groups=[group]):
                    yield _part(path, batch, wanted, first, bad)
                    first += batch.num_rows
    except _BROKEN as error:
        raise PluginError(f"{path} cannot be read to its end: {error}") from error


def plain(kind: pa.DataType) -> pa.DataType:
    """The type that a column has for values of `kind`: encodings and views are not kept, only what they stand for."""
    if isinstance(kind, pa.BaseExtensionType):
        known = {"arrow.uuid": uuid(), "arrow.json": json()}
        return known.get(kind.extension_name, kind)
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return pa.utf8()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field.with_type(plain(kind.key_type)), kind.item_field.with_type(plain(kind.item_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(plain(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain(kind.value_type)))
    return kind


def _part(path: Path, batch: pa.RecordBatch, wanted: pa.Schema, first: int, bad: Bad) -> Part:
    if not set(batch.schema.names) <= set(wanted.names):
        raise PluginError(f"{path}: the columns changed while it was read", hint="run the sync again")
    kinds = {name: wanted.field(name).type for name in batch.schema.names}
    columns, has_texts = {}, False
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        kind = kinds[name]
        if not array.type.equals(kind):
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            if pa.types.is_large_string(array.type):
                array = array.cast(pa.utf8())
            if pa.types.is_string(array.type):
                has_texts = has_texts or not pa.types.is_string(kind)
            else:
                array = _cast(path, name, array, kind)
        columns[name] = array
    lines = partial(pa.nulls, batch.num_rows, pa.int64())
    if not has_texts:
        return Part(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), lines)
    part = typed(path, columns, kinds, partial(numbered, batch.num_rows, first), bad, unit="row ")
    return Part(part.batch, partial(pa.nulls, part.batch.num_rows, pa.int64()))


def _cast(path: Path, name: str, array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values as the type that the table has: a wider one, or a declared one. Raises `PluginError` if one changes."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    try:
        if kind.equals(json()) and is_nested(array.type):
            from catchment.sdk.json_text import to_json_text

            return pa.ExtensionArray.from_storage(kind, to_json_text(array).cast(pa.binary()))
        if isinstance(kind, pa.BaseExtensionType):
            return pa.ExtensionArray.from_storage(kind, array.cast(kind.storage_type))
        if pa.types.is_string(kind) and is_nested(array.type):
            raise pa.ArrowInvalid("nested values are no text")
        if pa.types.is_decimal128(kind) and pa.types.is_integer(array.type):
            # Arrow wants room for every number of the type; what matters is whether those that are there fit.
            array = array.cast(pa.decimal128(38, min(kind.scale, 19)))
        return pc.cast(array, kind, safe=True)
    except pa.ArrowException as error:
        raise PluginError(
            f"{path}: column `{name}` is {array.type}, which does not go into {type_name(kind)}: {error}",
            hint="give the column another type under `columns`, or make two tables",
        ) from error
