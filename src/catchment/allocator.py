"""Which allocator Arrow takes its memory from; chosen before Arrow is loaded, so this module imports nothing heavy."""

from __future__ import annotations

import os
import platform
import sys


def choose_allocator() -> None:
    """Have Arrow use jemalloc, in a process that is ours; `ARROW_DEFAULT_MEMORY_POOL` of the user's is obeyed.

    Batches are made on one thread and freed on another. What Arrow takes otherwise gives their pages back to the
    system each time, so that each new batch faults them in again: see "The allocator" in docs/architecture.md.
    """
    # Arrow's wheels for other machines come without it, and Arrow complains about one that it lacks.
    if sys.platform == "linux" and platform.machine() == "x86_64":
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
