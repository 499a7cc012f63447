"""file: CSV, JSON lines and Parquet files of a local disk, one table per file or per named pattern."""

from catchment.sources.file.source import file

__all__ = ["file"]
