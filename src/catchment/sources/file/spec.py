"""The spec of the file source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from catchment.sdk import Spec

Format = Literal["csv", "json", "parquet"]
Compression = Literal["none", "gzip", "bz2", "zstd"]


class CSVSpec(Spec):
    """How CSV files are written."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """Character between values."""
    header: bool = True
    """Whether the first line has the names; else columns are called `f0`, `f1` and so on."""
    null_values: tuple[str, ...] = ("",)
    """Texts that mean null where they are not quoted."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    """Character around values that hold the delimiter."""
    encoding: str = "utf-8"
    """Encoding of the text."""


class TableSpec(Spec):
    """A table made of the files that a pattern names."""

    name: str
    """Name of the table."""
    path: str | tuple[str, ...]
    """File, folder or glob, or a list of them; relative to the source's `path` if that is one folder."""
    format: Format | None = None
    """Format of the files; unset: from their names."""
    primary_keys: tuple[str, ...] = ()
    """Columns that tell rows apart."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Types of columns, where the one that is found in the files is not wanted."""
    csv: CSVSpec | None = None
    """How these CSV files are written; unset: as all others."""


class FileSpec(Spec):
    """Spec of the file source."""

    path: str | tuple[str, ...]
    """Folder, file or glob, or a list of them."""
    format: Format | None = None
    """Format of the files; unset: from their names."""
    compression: Compression | None = None
    """Compression of CSV and JSON files; unset: from their names."""
    tables: tuple[TableSpec, ...] = ()
    """Tables of several files, or with keys or types of their own; files in none of them are tables by themselves."""
    csv: CSVSpec = CSVSpec()
    """How CSV files are written."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Whether a row that cannot be read fails its table, or is left out and counted."""
    provenance: bool = False
    """Whether each row gets `_file` and `_line`."""
