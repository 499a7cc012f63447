"""What runs in a process of its own as a baseline: `python benchmarks/scripts.py NAME ARGUMENTS`."""

from __future__ import annotations

import itertools
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


def _insert(database: str, reader: pa.RecordBatchReader, table: str, target: str) -> None:
    import duckdb

    with duckdb.connect(database) as connection:
        connection.execute(target)
        own = ", ".join(f'"{name}"' for name in reader.schema.names)
        names, values = ", ".join(_CQ_COLUMNS), ", ".join(_CQ_COLUMNS.values())
        connection.execute("set preserve_insertion_order = false")
        connection.register("incoming", reader)
        connection.execute(f"insert into {table} ({names}, {own}) select {values}, {own} from incoming")


def parquet_duckdb(parquet: str, database: str, table: str, target: str) -> None:
    """DuckDB inserting from a pyarrow reader."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(parquet)
    reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(65_536))
    # The sync keeps moments as UTC without saying so; DuckDB would work that out for each of them.
    naive = pa.schema(f.with_type(pa.timestamp(f.type.unit)) if pa.types.is_timestamp(f.type) else f
                      for f in reader.schema)  # fmt: skip
    _insert(database, reader.cast(naive), table, target)


def postgresql_duckdb(url: str, database: str, table: str, target: str) -> None:
    """An ADBC record batch stream inserted by DuckDB."""
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        reader = cursor.fetch_record_batch()
        # A numeric comes as text with a name of its own; DuckDB takes the text.
        schema = pa.schema(
            f.with_type(f.type.storage_type if isinstance(f.type, pa.OpaqueType) else f.type) for f in reader.schema
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                arrays = [a.storage if isinstance(a.type, pa.OpaqueType) else a for a in batch.columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        _insert(database, pa.RecordBatchReader.from_batches(schema, batches()), table, target)


def parquet_sqlite(parquet: str, database: str, table: str) -> None:
    """ADBC ingesting a pyarrow reader into a table without a key, in one transaction.

    The file has values that a sync stored, or lineitem, of which ADBC takes decimals and dates as text.
    """
    import uuid

    import adbc_driver_sqlite.dbapi as adbc
    import pyarrow.parquet as pq

    # The same ids in every batch: nothing looks at them, and making them is not what is measured.
    ids = pa.array([str(uuid.uuid4()) for _ in range(65_536)])

    def batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        for batch in file.iter_batches(len(ids)):
            if "_cq_id" in batch.schema.names:
                yield batch
                continue
            rows = batch.num_rows
            own = [pa.repeat("2024-01-01 00:00:00.000000Z", rows), pa.repeat("bench", rows), ids.slice(0, rows),
                   pa.nulls(rows, pa.utf8())]  # fmt: skip
            arrays = [
                array.cast(pa.utf8()) if pa.types.is_decimal(array.type) or pa.types.is_date(array.type) else array
                for array in batch.columns
            ]
            yield pa.RecordBatch.from_arrays([*own, *arrays], names=[*_CQ_COLUMNS, *batch.schema.names])

    reader = batches(pq.ParquetFile(parquet))
    first = next(reader)
    with adbc.connect(database) as connection, connection.cursor() as cursor:
        rows = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], reader))
        cursor.adbc_ingest(table, rows, mode="create")
        connection.commit()


def parquet_clickhouse(parquet: str, url: str) -> None:
    """The driver's own insert, a million rows at a time."""
    import datetime
    import os

    import clickhouse_connect
    import pyarrow.parquet as pq

    count = 1_000_000
    ids = pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(os.urandom(16 * count))])
    moment = pa.scalar(datetime.datetime(2024, 1, 1), pa.timestamp("us", "UTC"))
    with clickhouse_connect.get_client(dsn=url, compress=False, dedicated_pool=True) as client:
        for batch in pq.ParquetFile(parquet).iter_batches(count):
            rows = batch.num_rows
            own = [pa.repeat(moment, rows), pa.repeat("bench", rows), ids.slice(0, rows), pa.nulls(rows, pa.utf8())]
            # ClickHouse knows uuids by their bytes and JSON by its text.
            arrays = [a.storage if isinstance(a.type, pa.BaseExtensionType) else a for a in batch.columns]
            table = pa.Table.from_arrays([*own, *arrays], names=[*_CQ_COLUMNS, *batch.schema.names])
            client.insert_arrow("base", table)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
