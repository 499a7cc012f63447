"""The spec of the file source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from catchment.sdk import Spec
from catchment.sources.file.text import column_type

Format = Literal["csv", "json", "parquet"]
Compression = Literal["none", "gzip", "bz2", "zstd"]


def _sign(value: str) -> str:
    if not value.isascii() or value in "\r\n\0":
        raise ValueError("expected one ASCII character that ends no line")
    return value


def _encoding(value: str) -> str:
    try:
        "".encode(value)
    except LookupError:
        raise ValueError(
            f"{value!r} is no text encoding; expected a name such as `utf-8`, `latin-1`, `utf-16`"
        ) from None
    return value


def _column_type(value: str) -> str:
    column_type(value)
    return value


Sign = Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_sign)]
ColumnType = Annotated[str, AfterValidator(_column_type)]


class CSVSpec(Spec):
    """How CSV files are written. Empty lines are no rows."""

    delimiter: Sign = ","
    """Character between values; unset: a tab for files called `.tsv`, else a comma."""
    header: bool = True
    """Whether the first line has the names; else columns are called `f0`, `f1` and so on."""
    null_values: tuple[str, ...] = ("",)
    """Texts that mean null; in a column of text only where they are not quoted."""
    quote: Sign | Literal[""] = '"'
    """Character around values that hold the delimiter or a line break; empty if there is none."""
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    """Encoding of the text."""

    @model_validator(mode="after")
    def _two_signs(self) -> CSVSpec:
        if self.delimiter == self.quote:
            raise ValueError(f"`delimiter` and `quote` are both {self.quote!r}")
        return self


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
    columns: dict[str, ColumnType] = Field(default_factory=dict)
    """Types of columns, where the one that is found in the files is not wanted: `int64`, `float64`, `string`, `bool`,
    `date`, `timestamp`, `json`, `uuid`, `decimal(P,S)`."""
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
