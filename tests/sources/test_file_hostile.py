"""Files made to hurt the file source: endless rows, endless nesting, and little files that unpack to large ones."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MEGABYTE = 1 << 20

# Beginning, what is repeated after it, and how often.
CSV = {
    "one line": (b"a,b\n", b"x", 100 * MEGABYTE),
    "one quoted value": (b'a,b\n"', b"x\n", 50 * MEGABYTE),
    "only quotes": (b"", b'"', 100 * MEGABYTE),
    "quotes where none belong": (b'a\n"', b'\n"x"y,', 2 * MEGABYTE),
    "only delimiters": (b"a,b\n", b",", 100 * MEGABYTE),
    "only line breaks": (b"a,b\n", b"\n", 100 * MEGABYTE),
    "zeros": (b"", b"\0", 100 * MEGABYTE),
}
JSON = {
    "one line": (b'{"a": "', b"x", 100 * MEGABYTE),
    "deep lists": (b'{"a": ', b"[", 20 * MEGABYTE),
    "deep lists on a line each": (b"", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 16),
    "an endless array": (b"[", b'"x', 50 * MEGABYTE),
    "a deep array": (b"", b"[", 100 * MEGABYTE),
    "only nulls": (b"", b"null\n", MEGABYTE),
    "only line breaks": (b'{"a": 1}\n', b"\n", 100 * MEGABYTE),
    "zeros": (b"", b"\0", 100 * MEGABYTE),
}

READ = """
import json, resource, sys
from catchment.plugin import SyncRequest
from catchment.schema.select import Selection
from catchment.sources.file import file

plugin = file.as_plugin()
plugin.init({"path": sys.argv[1]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
errors = [m.message for m in plugin.sync(SyncRequest(Selection(("*",), ()))) if type(m).__name__ == "TableError"]
print(json.dumps([errors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [pytest.param(f"t.{ending}.gz", content, id=f"{ending}: {kind}")
     for ending, cases in (("csv", CSV), ("json", JSON)) for kind, content in cases.items()],
)  # fmt: skip
def test_hostile_files_are_refused_in_bounded_memory_and_time(tmp_path, name, content):
    """Packed a thousandfold: what counts is the size of the rows, not of the file."""
    head, unit, times = content
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(16):
            stream.write(unit * (times // 16))
    errors = bounded(tmp_path / name)

    assert all(name in text and len(text) < 1000 for text in errors)
    assert bool(errors) == (unit != b"\n")


def bounded(path):
    """The errors of reading a file in a process of its own, in bounded memory and time."""
    started = time.monotonic()
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors, grown_kb = json.loads(done.stdout)
    assert grown_kb < 600 << 10
    assert time.monotonic() - started < 60
    return errors


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path, compression="zstd")


def test_a_parquet_file_of_500_bytes_with_one_text_in_every_row_is_read_piece_by_piece(tmp_path):
    indices = pa.array([0] * 4_000, pa.int32())
    parquet(tmp_path / "t.parquet", a=pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 500_000])))
    assert (tmp_path / "t.parquet").stat().st_size < 1_000

    # Two gigabytes, of which a part is there at a time.
    assert bounded(tmp_path / "t.parquet") == []


def test_a_parquet_file_with_a_text_in_lists_of_every_row_is_read_piece_by_piece(tmp_path):
    inner = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000, pa.int32()), pa.array(["x" * 500_000]))
    lists = pa.ListArray.from_arrays(pa.array(range(0, 4_001, 4), pa.int32()), inner)
    parquet(tmp_path / "t.parquet", a=lists)

    assert bounded(tmp_path / "t.parquet") == []


@pytest.mark.parametrize("kind", ["a list of nulls", "a page of zeros"])
def test_a_parquet_row_that_is_little_in_the_file_and_much_in_memory_is_refused(tmp_path, kind):
    if kind == "a list of nulls":
        value = pa.ListArray.from_arrays(pa.array([0, 50_000_000], pa.int32()), pa.nulls(50_000_000, pa.int64()))
    else:
        value = pa.array(["\0" * 100_000_000])
    parquet(tmp_path / "t.parquet", a=value)
    assert (tmp_path / "t.parquet").stat().st_size < 20_000

    [error] = bounded(tmp_path / "t.parquet")

    assert "MB on the average, at most 64 MB are read" in error


def broken_footers(whole):
    """A file's bytes with a footer that lies about its length, or is none."""
    length = int.from_bytes(whole[-8:-4], "little")
    for lie in (0, 1, length + 1, len(whole) - 8, len(whole), 2**31 - 1, 2**32 - 1):
        yield whole[:-8] + lie.to_bytes(4, "little") + whole[-4:]
    yield whole[:-4]
    yield b"PAR1" + b"\0" * 1000 + b"PAR1"
    yield whole[:4] + b"\xff" * (len(whole) - 8 - 4) + whole[-8:]


def changed(whole, seed):
    """The same with some bytes of its pages and its footer changed."""
    drawn = random.Random(seed)
    made = bytearray(whole)
    for _ in range(drawn.choice([1, 1, 2, 8])):
        made[drawn.randrange(4, len(made) - 8)] = drawn.choice([0, 1, 0x7F, 0x80, 0xFF, drawn.randrange(256)])
    return bytes(made)


def test_parquet_files_that_lie_end_in_an_error_or_in_rows(tmp_path):
    rows = 2_000
    parquet(tmp_path / "whole", n=list(range(rows)), t=[f"text {i % 7}" for i in range(rows)],
            l=[[i, None] for i in range(rows)], s=[{"x": "y" * (i % 5)} for i in range(rows)])  # fmt: skip
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    lies = [*broken_footers(whole), *(changed(whole, seed) for seed in range(300))]
    for number, lie in enumerate(lies):
        (tmp_path / f"t{number:03}.parquet").write_bytes(lie)

    errors = bounded(tmp_path)

    # Whatever could not be read is named, and the process lives on.
    told = "\n".join(errors)
    assert [number for number in range(10) if f"t{number:03}.parquet" not in told] == []
    assert all(len(text) < 2_000 for text in errors)
