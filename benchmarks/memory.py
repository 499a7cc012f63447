"""How many MB a sync adds to a process: `python benchmarks/memory.py CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from catchment.allocator import choose_allocator


def added_mb(config: str) -> float:
    """The peak of a sync less what the process had before it, in MB."""
    # As the command line does, before Arrow is loaded.
    choose_allocator()
    from catchment.engine.plan import make_plan
    from catchment.engine.sync import Options, Sync
    from catchment.spec.load import load

    sync = Sync(make_plan(load([config])), Options())
    before = psutil.Process().memory_info().rss
    result = sync.run()
    assert result.outcome == "complete", result.outcome
    # Not `ru_maxrss`: that one begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text()
    return float(int(status.split("VmHWM:")[1].split()[0]) * 1024 - before) / 1e6


if __name__ == "__main__":
    print(f"added {added_mb(sys.argv[1]):.0f} MB")
