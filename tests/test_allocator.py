"""Which allocator Arrow has in a process of ours."""

import os
import platform
import subprocess
import sys

import pyarrow as pa
import pytest

HAS_JEMALLOC = (
    sys.platform == "linux" and platform.machine() == "x86_64" and "jemalloc" in pa.supported_memory_backends()
)

COMMAND = """
import sys
from catchment.cli.main import main
sys.argv = ["catchment", "schema"]
try:
    main()
finally:
    import pyarrow
    print("allocator:", pyarrow.default_memory_pool().backend_name)
"""


@pytest.mark.parametrize(
    ("wished", "used"),
    [
        pytest.param(None, "jemalloc", marks=pytest.mark.skipif(not HAS_JEMALLOC, reason="Arrow has no jemalloc here")),
        ("system", "system"),
    ],
)
def test_the_command_line_takes_jemalloc_unless_told_otherwise(wished, used):
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    if wished:
        environment["ARROW_DEFAULT_MEMORY_POOL"] = wished

    done = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, text=True, check=True)

    assert f"allocator: {used}" in done.stdout
    assert not done.stderr


def test_the_library_leaves_it_to_the_program():
    code = "import catchment, os; catchment.sync; print(os.environ.get('ARROW_DEFAULT_MEMORY_POOL'))"
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "None"
