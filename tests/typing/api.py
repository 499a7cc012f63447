"""What a type checker knows of the library; `make check` has mypy read it, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import pyarrow as pa

import catchment
from catchment import Result, StoredTable


def synced() -> None:
    assert_type(catchment.sync("config.yml"), Result)
    assert_type(catchment.sync([Path("a.yml"), Path("b.yml")], fail_on="error", shard=(1, 2)), Result)
    assert_type(catchment.migrate([{"kind": "source", "spec": {}}]), Result)
    assert_type(catchment.sync("config.yml").tables[0].rows_written, int)


def read() -> None:
    rows = catchment.read("config.yml", "orders", destination="db", columns=["id"])
    assert_type(rows, StoredTable)
    batches: list[pa.RecordBatch] = list(rows)
    assert batches


def refused() -> None:
    catchment.snyc("config.yml")  # type: ignore[attr-defined]
    catchment.sync("config.yml", fail_on="sometimes")  # type: ignore[arg-type]
    catchment.sync(7)  # type: ignore[arg-type]
