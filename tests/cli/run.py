"""Runs the real command, as a person does."""

from __future__ import annotations

import os
import subprocess
import sys

TEST_CONFIG = """
kind: source
spec: {{name: t, registry: python, path: test, tables: ["*"], destinations: [d], spec: {source}}}
---
kind: destination
spec: {{name: d, registry: python, path: test, write_mode: append, spec: {destination}}}
"""


def catchment(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "catchment", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=os.environ | environment, cwd=cwd, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
