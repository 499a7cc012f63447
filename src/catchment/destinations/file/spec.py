"""The spec of the file destination."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from catchment.sdk import BatchSpec, Spec

Format = Literal["csv", "json", "parquet"]


class CSVFormat(Spec):
    """How CSV files are written."""

    skip_header: bool = False
    """Whether the first line is a row instead of the names."""
    delimiter: Annotated[str, Field(pattern=r"^[\x00-\x7f]$")] = ","
    """Character between values, one byte."""


class JSONFormat(Spec):
    """How JSON files are written: one object a line, keys in order; there is nothing to set."""


class ParquetFormat(Spec):
    """How Parquet files are written."""

    version: Literal["v1.0", "v2.4", "v2.6", "v2Latest"] = "v2Latest"
    """Version of the format; `v2Latest` is 2.6."""
    root_repetition: Literal["undefined", "required", "optional", "repeated"] = "repeated"
    """Accepted as upstream has it; this writer's root is always `required`, which every reader takes."""
    max_row_group_length: Annotated[int, Field(ge=0)] = 134_217_728
    """Most rows in a row group; 0 means as many as a batch has."""


_FORMATS: dict[str, type[CSVFormat] | type[JSONFormat] | type[ParquetFormat]] = {
    "csv": CSVFormat,
    "json": JSONFormat,
    "parquet": ParquetFormat,
}


class FileSpec(BatchSpec):
    """Spec of the file destination."""

    path: Annotated[str, Field(min_length=1)]
    """Path of each file, with `{{TABLE}}`, `{{FORMAT}}`, `{{UUID}}`, `{{YEAR}}`, `{{MONTH}}`, `{{DAY}}`, `{{HOUR}}` and
    `{{MINUTE}}` (UTC). Without `{{TABLE}}` it is a folder: `/{{TABLE}}.<format>` is added."""
    format: Format
    """Format of the files."""
    format_spec: dict[str, Any] | None = None
    """Options of the format."""
    compression: Literal["", "gzip"] = ""
    """Compression of CSV and JSON files; Parquet has its own."""
    no_rotate: bool = False
    """Whether each table has one file that grows, instead of a file for each batch."""

    @field_validator("format_spec")
    @classmethod
    def _check_format_spec(cls, value: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        if value is not None and "format" in info.data:
            _FORMATS[info.data["format"]].model_validate(value)
        return value

    @model_validator(mode="after")
    def _check_path(self) -> FileSpec:
        has_uuid = "{{UUID}}" in self.path
        if self.no_rotate and has_uuid:
            raise ValueError("`path` must not contain {{UUID}} with `no_rotate: true`")
        if self.no_rotate and (self.batch_size or self.batch_size_bytes or self.batch_timeout):
            raise ValueError("`no_rotate: true` cannot go with `batch_size`, `batch_size_bytes` or `batch_timeout`")
        if not self.no_rotate and not has_uuid:
            raise ValueError("`path` must contain {{UUID}}, else each batch would replace the file of the one before")
        if self.compression == "gzip" and self.format == "parquet":
            raise ValueError("`compression: gzip` is for csv and json; Parquet files are compressed inside")
        return self

    @property
    def csv(self) -> CSVFormat:
        """Options of CSV."""
        return CSVFormat.model_validate(self.format_spec or {})

    @property
    def parquet(self) -> ParquetFormat:
        """Options of Parquet."""
        return ParquetFormat.model_validate(self.format_spec or {})
