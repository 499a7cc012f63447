"""mysql: tables of a MySQL or MariaDB database, written by `load data` and published by renaming."""

from catchment.destinations.mysql.destination import MySQL, MySQLSpec

__all__ = ["MySQL", "MySQLSpec"]
