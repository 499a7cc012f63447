"""What runs in a process of its own as a baseline: `python benchmarks/scripts.py NAME ARGUMENTS`."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa


def _columns(rows: int) -> list[pa.Array]:
    """The `_cq_` columns as a sync leaves them, made as fast as they can be."""
    import numpy as np

    moment = pa.scalar(datetime.datetime(2024, 1, 1), pa.timestamp("us"))
    ids = np.random.default_rng().bytes(16 * rows)
    return [
        pa.repeat(moment, rows),
        pa.repeat("bench", rows),
        pa.ExtensionArray.from_storage(
            pa.uuid(), pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(ids)])
        ),
        pa.nulls(rows, pa.uuid()),
    ]


_NAMES = ["_cq_sync_time", "_cq_source_name", "_cq_id", "_cq_parent_id"]


def _insert(database: str, reader: pa.RecordBatchReader, target: str) -> None:
    import duckdb

    with duckdb.connect(database) as connection:
        connection.execute(target)
        names = ", ".join(f'"{name}"' for name in reader.schema.names)
        connection.register("incoming", reader)
        connection.execute(f"insert into lineitem ({names}) select {names} from incoming")


def parquet_duckdb(parquet: str, database: str, target: str) -> None:
    """DuckDB inserting from a pyarrow reader."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(parquet)
    fields = [pa.field(name, column.type) for name, column in zip(_NAMES, _columns(0), strict=True)] + list(
        file.schema_arrow
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in file.iter_batches(65_536):
            yield pa.RecordBatch.from_arrays([*_columns(batch.num_rows), *batch.columns], schema=schema)

    schema = pa.schema(fields)
    _insert(database, pa.RecordBatchReader.from_batches(schema, batches()), target)


def postgresql_duckdb(url: str, database: str, target: str) -> None:
    """An ADBC record batch stream inserted by DuckDB."""
    import adbc_driver_postgresql.dbapi as adbc

    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select * from lineitem")
        reader = cursor.fetch_record_batch()
        # A numeric comes as text with a name of its own; DuckDB takes the text.
        plain = [
            f.with_type(f.type.storage_type if isinstance(f.type, pa.OpaqueType) else f.type) for f in reader.schema
        ]
        fields = [pa.field(name, column.type) for name, column in zip(_NAMES, _columns(0), strict=True)] + plain
        schema = pa.schema(fields)

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                arrays: list[Any] = [a.storage if isinstance(a.type, pa.OpaqueType) else a for a in batch.columns]
                yield pa.RecordBatch.from_arrays([*_columns(batch.num_rows), *arrays], schema=schema)

        _insert(database, pa.RecordBatchReader.from_batches(schema, batches()), target)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
