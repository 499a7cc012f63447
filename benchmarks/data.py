"""What the jobs need: TPC-H lineitem and a table of many kinds of values as Parquet, and config files."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
DATA = HERE / "data"
MIXED_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """Rows that jobs load."""

    name: str
    """What the names of jobs call it."""
    table: str
    primary_keys: tuple[str, ...]
    make: Callable[[], Path]
    """Gives the Parquet file, which is made once."""

    @property
    def parquet(self) -> Path:
        """The file with the rows."""
        return self.make()

    def source(self) -> dict[str, object]:
        """The file source with the table and its key."""
        path = str(self.parquet)
        table = {"name": self.table, "path": path, "primary_keys": list(self.primary_keys)}
        return {"path": "file", "spec": {"path": path, "tables": [table]}}


def config(folder: Path, name: str, source: dict[str, object], destination: dict[str, object], mode: str) -> Path:
    """A config file with one source and one destination; `path` and `spec` of each are given."""
    path = folder / f"{name}.yml"
    documents = [
        {"kind": "source", "spec": {"name": "bench", "registry": "python", "tables": ["*"], "destinations": ["db"],
                                    **source}},
        {"kind": "destination", "spec": {"name": "db", "registry": "python", "write_mode": mode, **destination}},
    ]  # fmt: skip
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


def _lineitem(million_rows: int) -> Path:
    """Lineitem of `million_rows` million rows, made once."""
    whole = DATA / "lineitem.parquet"
    if not whole.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        tool = Path(sys.executable).with_name("tpchgen-cli")
        subprocess.run([tool, "parquet", "-s", "1", "--tables=lineitem", f"--output-dir={DATA}"], check=True)
    if million_rows == 6:
        return whole
    part = DATA / "one" / "lineitem.parquet"
    if not part.exists():
        import pyarrow.parquet as pq

        part.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetFile(whole) as file, pq.ParquetWriter(part, file.schema_arrow) as writer:
            left = million_rows * 1_000_000
            for batch in file.iter_batches(100_000):
                writer.write_batch(batch.slice(0, left))
                left -= min(left, batch.num_rows)
                if not left:
                    break
    return part


def _mixed() -> Path:
    """A million rows of 16 columns, uuid, json, timestamps and lists among them, made once."""
    path = DATA / "mixed.parquet"
    if path.exists():
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(1)
    numbers = range(MIXED_ROWS)
    ids = pa.array(numbers, pa.int64())
    moments = [1_600_000_000_000_000 + number * 1_000_000 for number in numbers]
    texts = [f"name of {number % 9973}, and more" for number in numbers]
    table = pa.table(
        {
            "id": ids,
            "uid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(_bytes(chance, 16), pa.binary(16))),
            "payload": pa.ExtensionArray.from_storage(
                pa.json_(),
                pa.array([f'{{"id": {n}, "tags": ["a", "b"], "nested": {{"x": {n % 7}}}}}' for n in numbers]),
            ),
            "created": pa.array(moments, pa.timestamp("us", "UTC")),
            "changed": pa.array(moments, pa.timestamp("us")),
            "tags": pa.array([["red", f"tag-{number % 31}"] for number in numbers]),
            "name": pa.array(texts),
            "note": pa.array([None if number % 10 == 0 else text for number, text in enumerate(texts)]),
            "email": pa.array([f"user{number}@example.org" for number in numbers]),
            "amount": pa.array([number * 12_345 for number in numbers], pa.int64()).cast(pa.decimal128(23, 4)),
            "ratio": pa.array([chance.random() for _ in numbers]),
            "visits": pa.array([None if number % 9 == 0 else number % 1000 for number in numbers], pa.int32()),
            "active": pa.array([number % 3 == 0 for number in numbers]),
            "day": pa.array([18_000 + number % 2000 for number in numbers], pa.int32()).cast(pa.date32()),
            "hash": pa.array(_bytes(chance, 20), pa.binary()),
            "country": pa.array(["ch", "de", "us", "jp"] * (MIXED_ROWS // 4)),
        }
    )
    pq.write_table(table, path, row_group_size=100_000)
    return path


def _bytes(chance: random.Random, size: int) -> list[bytes]:
    whole = chance.randbytes(size * MIXED_ROWS)
    return [whole[start : start + size] for start in range(0, size * MIXED_ROWS, size)]


_LINEITEM_KEYS = ("l_orderkey", "l_linenumber")
LINEITEM = Load("6m", "lineitem", _LINEITEM_KEYS, functools.partial(_lineitem, 6))
LINEITEM_1M = Load("1m", "lineitem", _LINEITEM_KEYS, functools.partial(_lineitem, 1))
MIXED = Load("mixed", "mixed", ("id",), _mixed)
