"""What runs in a process of its own as a baseline: `python benchmarks/scripts.py NAME ARGUMENTS`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa

_CQ_COLUMNS = {
    "_cq_sync_time": "timestamp '2024-01-01'",
    "_cq_source_name": "'bench'",
    "_cq_id": "uuid()",
    "_cq_parent_id": "null",
}
"""The `_cq_` columns as a sync leaves them; DuckDB makes them up faster than anything outside it."""


def _insert(database: str, reader: pa.RecordBatchReader, target: str) -> None:
    import duckdb

    with duckdb.connect(database) as connection:
        connection.execute(target)
        own = ", ".join(f'"{name}"' for name in reader.schema.names)
        names, values = ", ".join(_CQ_COLUMNS), ", ".join(_CQ_COLUMNS.values())
        connection.execute("set preserve_insertion_order = false")
        connection.register("incoming", reader)
        connection.execute(f"insert into lineitem ({names}, {own}) select {values}, {own} from incoming")


def parquet_duckdb(parquet: str, database: str, target: str) -> None:
    """DuckDB inserting from a pyarrow reader."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(parquet)
    _insert(database, pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(65_536)), target)


def postgresql_duckdb(url: str, database: str, target: str) -> None:
    """An ADBC record batch stream inserted by DuckDB."""
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select * from lineitem")
        reader = cursor.fetch_record_batch()
        # A numeric comes as text with a name of its own; DuckDB takes the text.
        schema = pa.schema(
            f.with_type(f.type.storage_type if isinstance(f.type, pa.OpaqueType) else f.type) for f in reader.schema
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                arrays = [a.storage if isinstance(a.type, pa.OpaqueType) else a for a in batch.columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        _insert(database, pa.RecordBatchReader.from_batches(schema, batches()), target)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
