"""clickhouse: tables of a ClickHouse database, written as Arrow and published by exchanging tables."""

from catchment.destinations.clickhouse.destination import ClickHouse

__all__ = ["ClickHouse"]
