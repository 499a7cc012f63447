"""file: CSV, JSON lines or Parquet files on local disk."""

from catchment.destinations.file.destination import File

__all__ = ["File"]
