"""Rows as CSV, JSON lines and Parquet, and back. Cells are written as upstream writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Set
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.file.spec import FileSpec
from catchment.sdk import PluginError
from catchment.sdk import json as json_type
from catchment.sdk.json_text import to_json_text, to_text
from catchment.sdk.storage import is_interval, is_nested, map_array, map_type

READ_ROWS = 65_536


def cell(array: pa.Array) -> pa.Array:
    """A leaf as JSON has it: booleans and numbers stay, everything else is text."""
    kind = array.type
    if kind.equals(json_type()) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return array
    if pa.types.is_floating(kind) or is_interval(kind):
        return array
    text = to_text(array)
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        # No digits behind the point that say nothing.
        text = pc.replace_substring_regex(text, r"(\.[0-9]*?)0+(Z?)$", r"\1\2")
        text = pc.replace_substring_regex(text, r"\.(Z?)$", r"\1")
    return text


def csv_cell(array: pa.Array) -> pa.Array:
    """A column as CSV cells: numbers and booleans, which are written without quotes, and text."""
    kind = array.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array
    return to_json_text(map_array(array, cell)) if is_nested(array.type) else to_text(array)


def json_lines(rows: pa.Table) -> Iterator[bytes]:
    """One object a line, keys in alphabetical order, each key in every object."""
    names = sorted(rows.column_names)
    for batch in rows.to_batches():
        columns = [map_array(batch.column(name), cell) for name in names]
        lines = to_json_text(pa.StructArray.from_arrays(columns, names=names))
        joined = pc.binary_join_element_wise(lines, "\n", "")
        data = joined.buffers()[2]
        if data is not None:
            start = joined.offset
            offsets = joined.buffers()[1]
            first, last = (_offset(offsets, start), _offset(offsets, start + len(joined)))
            yield data.slice(first, last - first).to_pybytes()


def _offset(offsets: pa.Buffer, index: int) -> int:
    return int(pa.Array.from_buffers(pa.int32(), index + 1, [None, offsets])[index].as_py())


def write_csv(rows: pa.Table, file: IO[bytes], spec: FileSpec, *, header: bool) -> None:
    """CSV with quotes where they are needed, and a line of names if `header`."""
    import pyarrow.csv as pcsv

    columns = [pa.chunked_array([csv_cell(chunk) for chunk in column.chunks]) for column in rows.columns]
    options = pcsv.WriteOptions(include_header=header, delimiter=spec.csv.delimiter, quoting_style="needed")
    pcsv.write_csv(pa.Table.from_arrays(columns, names=rows.column_names), file, options)


def parquet_leaf(array: pa.Array) -> pa.Array:
    """A leaf as Parquet keeps it without an Arrow schema beside it."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType) or _parquet_text(kind):
        return to_text(array)
    if pa.types.is_large_string(kind):
        return array.cast(pa.utf8())
    if pa.types.is_large_binary(kind):
        return array.cast(pa.binary())
    if pa.types.is_date64(kind):
        return array.cast(pa.date32())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_time32(kind) and kind.unit == "s":
        return array.cast(pa.time32("ms"))
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return array.cast(pa.timestamp("ms", kind.tz))
    return array


def _parquet_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_duration(kind) or is_interval(kind) or pa.types.is_null(kind) or pa.types.is_dictionary(kind)
    )


def parquet_rows(rows: pa.Table) -> pa.Table:
    """Rows as Parquet keeps them."""
    columns = [pa.chunked_array([map_array(chunk, parquet_leaf) for chunk in column.chunks]) for column in rows.columns]
    return pa.Table.from_arrays(columns, names=rows.column_names)


def stored_as(file_format: str, data_type: pa.DataType) -> pa.DataType:
    """The type that a file gives back for a column."""
    if file_format == "csv":
        return pa.utf8()
    if file_format == "json":
        plain = pa.types.is_boolean(data_type) or pa.types.is_integer(data_type) or pa.types.is_floating(data_type)
        return data_type if plain else pa.utf8()
    return parquet_type(data_type)


def parquet_type(data_type: pa.DataType) -> pa.DataType:
    """The type that a column has in a Parquet file."""
    return map_type(data_type, lambda leaf: parquet_leaf(pa.nulls(0, leaf)).type)


def read_csv(file: IO[bytes], names: list[str], spec: FileSpec) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file by column name; empty cells are null."""
    lines = csv.reader(_text_lines(file), delimiter=spec.csv.delimiter)
    header = names if spec.csv.skip_header else next(lines, names)
    for line in lines:
        yield {name: text or None for name, text in zip(header, line, strict=True)}


def read_header(file: IO[bytes], spec: FileSpec) -> Iterator[list[str]]:
    """The lines of a CSV file, the first of which has the names."""
    return csv.reader(_text_lines(file), delimiter=spec.csv.delimiter)


def _text_lines(file: IO[bytes]) -> Iterator[str]:
    for line in file:
        yield line.decode()


def read_json(file: IO[bytes], plain: Set[str], documents: Set[str], intervals: Set[str]) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file by column name; what is in no `plain` column is text, JSON text in `documents`."""
    for line in file:
        row = json.loads(line)
        for name in intervals & row.keys():
            # A number of months alone is an object in JSON, and a number elsewhere.
            if isinstance(row[name], dict) and row[name].keys() == {"months"}:
                row[name] = str(row[name]["months"])
        yield {name: value if name in plain else _text(value, quoted=name in documents) for name, value in row.items()}


def _text(value: Any, *, quoted: bool) -> str | None:
    if value is None or (isinstance(value, str) and not quoted):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parquet_writer(file: IO[bytes], schema: pa.Schema, spec: FileSpec) -> Any:
    """A writer of the version that the spec wants."""
    import pyarrow.parquet as pq

    version = spec.parquet.version.removeprefix("v").replace("2Latest", "2.6")
    try:
        return pq.ParquetWriter(file, schema, version=version, compression="snappy", store_schema=False)
    except pa.ArrowNotImplementedError as error:
        raise PluginError(f"Parquet has no type for a column: {error}") from error
