"""postgresql: tables of a PostgreSQL database, read as Arrow from one snapshot."""

from catchment.sources.postgresql.source import postgresql

__all__ = ["postgresql"]
