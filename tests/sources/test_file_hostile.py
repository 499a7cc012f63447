"""Files made to hurt the file source: endless rows, endless nesting, and little files that unpack to large ones."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time

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
    started = time.monotonic()

    command = [sys.executable, "-c", READ, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    errors, grown_kb = json.loads(done.stdout)
    assert grown_kb < 600 << 10
    assert time.monotonic() - started < 60
    assert all(name in text and len(text) < 1000 for text in errors)
    assert bool(errors) == (unit != b"\n")
