"""Imports point down, files and functions stay short, and `--help` loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "catchment"

MAY_IMPORT = {
    "errors": set(),
    "schema": {"errors"},
    "messages": {"schema", "errors"},
    "allocator": set(),
    "channel": set(),
    "log_context": set(),
    "coalesce": {"channel", "messages", "schema", "errors"},
    "plugin": {"channel", "messages", "schema", "errors"},
    "redact": {"log_context"},
    "spec": {"redact", "errors"},
    "sdk": {
        "serve",
        "log_context",
        "coalesce",
        "channel",
        "plugin",
        "messages",
        "schema",
        "spec.fields",
        "spec.times",
        "errors",
    },
    "testing": {"sdk", "channel", "plugin", "messages", "schema", "errors"},
    "sources": {"sdk"},
    "destinations": {"sdk"},
    "transformers": {"sdk"},
    "wire": {"log_context", "coalesce", "channel", "plugin", "messages", "schema", "redact", "errors"},
    "serve": {"allocator", "wire", "plugin", "errors", ""},
    "registries": {"errors", ""},
    "engine": {
        "log_context",
        "registries",
        "coalesce",
        "wire",
        "channel",
        "plugin",
        "messages",
        "schema",
        "spec",
        "redact",
        "errors",
        "",
    },
    "telemetry": {"engine", "spec", "redact", "errors", ""},
    "docs": {"sdk", "spec", "schema", "engine", "plugin", "cli", "errors"},
    "cli": {
        "allocator",
        "serve",
        "telemetry",
        "engine",
        "docs",
        "spec",
        "schema",
        "plugin",
        "messages",
        "redact",
        "errors",
        "",
    },
    "api": {"telemetry", "engine", "spec", "plugin", "schema", "redact", "errors"},
    "__main__": {"cli"},
    "": {"api"},
}
"""What each room may import besides itself; `spec.fields` means that one module of `spec`."""


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(path: Path) -> Iterator[str]:
    """Names below `catchment` that a module imports, however late."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "catchment":
                names = [f"catchment.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] == "catchment":
                yield name.removeprefix("catchment").lstrip(".")


def is_allowed(room: str, name: str) -> bool:
    own = name.split(".")[0] == room or name.startswith("__")
    return own or any(name == other or (other and name.startswith(f"{other}.")) for other in MAY_IMPORT[room])


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    wrong = [name for name in imports(path) if not is_allowed(room_of(path), name)]

    assert not wrong


def test_the_check_bites():
    assert is_allowed("sources", "sdk.json_text")
    assert not is_allowed("sources", "schema.table")
    assert not is_allowed("sdk", "spec.model")
    assert not is_allowed("schema", "plugin")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]

    assert len(text.splitlines()) <= 500
    assert [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno >= 60] == []


def test_help_loads_no_heavy_module():
    script = (
        "import sys\n"
        "from catchment.cli.main import main\n"
        "sys.argv = ['catchment', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pyarrow', 'pydantic', 'numpy', 'duckdb', 'rich', 'yaml', 'tenacity', 'psycopg', 'grpc', 'google'}\n"
        "heavy |= {'httpx', 'opentelemetry', 'prometheus_client'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "HEAVY []" in done.stdout


def test_listing_plugins_imports_none():
    script = (
        "import sys\n"
        "from catchment.engine.registry import installed\n"
        "installed()\n"
        "found = [n for n in sys.modules if n.startswith(('catchment.sources', 'catchment.destinations'))]\n"
        "print(found)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
