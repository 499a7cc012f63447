"""duckdb: an embedded analytical database in one file."""

from catchment.destinations.duckdb.destination import DuckDB

__all__ = ["DuckDB"]
