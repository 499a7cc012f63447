"""postgresql: tables of a PostgreSQL database, written by binary COPY and published by renaming."""

from catchment.destinations.postgresql.destination import PostgreSQL

__all__ = ["PostgreSQL"]
