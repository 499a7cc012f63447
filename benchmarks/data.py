"""What the jobs need: TPC-H lineitem as Parquet, config files, and a PostgreSQL server with psql."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
DATA = HERE / "data"


def lineitem(million_rows: int) -> Path:
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


def parquet_source(path: Path) -> dict[str, object]:
    """The file source with lineitem and its key."""
    table = {"name": "lineitem", "path": str(path), "primary_keys": ["l_orderkey", "l_linenumber"]}
    return {"path": "file", "spec": {"path": str(path), "tables": [table]}}
