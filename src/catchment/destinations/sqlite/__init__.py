"""sqlite: an embedded database in one file that everything can read."""

from catchment.destinations.sqlite.destination import SQLite, SQLiteSpec

__all__ = ["SQLite", "SQLiteSpec"]
