"""Arrow messages that are little on the wire and want to be much in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from catchment.errors import ProtocolError
from catchment.sdk import Column, Table
from catchment.wire import codec

TABLE = Table("t", (Column("a", pa.large_binary()), Column("n", pa.int64())))


def record(table, *arrays, compression=None):
    """The bytes of a record with these columns."""
    sink = pa.BufferOutputStream()
    schema = table.to_schema()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(arrays), schema=schema))
    return sink.getvalue().to_pybytes()


def plain(rows=1000):
    return pa.array([b"x"] * rows, pa.large_binary()), pa.array(range(rows))


@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_what_is_honest_is_read(compression):
    _, [batch] = codec.RecordReader().from_bytes(record(TABLE, *plain(), compression=compression))

    assert batch.column("n").to_pylist() == list(range(1000))


READ = """
import json, resource, sys
from catchment.errors import ProtocolError
from catchment.wire import codec

data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    codec.RecordReader().from_bytes(data)
    told = ""
except ProtocolError as error:
    told = str(error)
print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, compression):
    value = pa.array([b"\0" * (1100 << 20)], pa.large_binary())
    (tmp_path / "bomb").write_bytes(record(TABLE, value, pa.array([1]), compression=compression))

    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path / "bomb")], capture_output=True, check=True)

    told, grown_kb = json.loads(done.stdout)
    assert "unpacks to 1,153," in told
    assert grown_kb < 50 << 10
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("lie", [0, 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 2])
def test_a_compressed_buffer_that_lies_about_its_length_is_refused(lie):
    whole = bytearray(record(TABLE, *plain(), compression="zstd"))
    place = whole.find((8000).to_bytes(8, "little"))
    whole[place : place + 8] = lie.to_bytes(8, "little")

    with pytest.raises(ProtocolError):
        codec.RecordReader().from_bytes(bytes(whole))


@pytest.mark.parametrize("rows", [1 << 24, 1 << 40])
def test_rows_of_which_nothing_is_there_are_refused(rows):
    nulls = Table("t", (Column("a", pa.null()),))
    whole = bytearray(record(nulls, pa.nulls(12_345)))
    assert codec.RecordReader().from_bytes(bytes(whole))[1][0].num_rows == 12_345
    for place in [i for i in range(len(whole) - 8) if whole[i : i + 8] == (12_345).to_bytes(8, "little")]:
        whole[place : place + 8] = rows.to_bytes(8, "little")

    with pytest.raises(ProtocolError, match=f"claims to have {rows:,} rows"):
        codec.RecordReader().from_bytes(bytes(whole))


def test_a_dictionary_that_is_a_bomb_is_refused():
    kind = pa.dictionary(pa.int32(), pa.large_binary())
    table = Table("t", (Column("a", kind),))
    values = pa.DictionaryArray.from_arrays(
        pa.array([0], pa.int32()), pa.array([b"\0" * (1100 << 20)], pa.large_binary())
    )

    with pytest.raises(ProtocolError, match="unpacks to 1,153,"):
        codec.RecordReader().from_bytes(record(table, values, compression="zstd"))


@pytest.mark.parametrize("length", [-1, 1 << 31, (1 << 63) - 1])
def test_a_buffer_that_is_longer_than_the_message_is_refused(length):
    whole = bytearray(record(TABLE, *plain()))
    place = whole.find((8000).to_bytes(8, "little"))
    assert place > 0
    whole[place : place + 8] = length.to_bytes(8, "little", signed=True)

    with pytest.raises(ProtocolError):
        codec.RecordReader().from_bytes(bytes(whole))
