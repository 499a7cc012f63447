"""Ask the advisory service about every pinned dependency, and say loudly when nobody could be asked.

pip-audit gets an environment of its own, `.venv/audit`, once the service has answered. Exit code: 0 nothing is known
against them, or the service does not answer (with `--required` that is 1 as well), 1 an advisory, or a package that
was not looked up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVICE = "https://api.osv.dev/v1/query"
PATIENCE_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where the service does not answer")
    parser.add_argument("--url", default=SERVICE)
    parser.add_argument("file", nargs="?", default=str(ROOT / "constraints.txt"))
    given = parser.parse_args()
    reason = unreachable(given.url)
    if reason:
        print(f"!!! THE DEPENDENCIES WERE NOT AUDITED: {given.url} does not answer ({reason})")
        return int(given.required)
    command = ["--disable-pip", "--require-hashes", "-r", given.file, "-s", "osv", "--osv-url", given.url]
    done = subprocess.run(
        [program(), "-m", "pip_audit", *command, "-f", "json", "--progress-spinner", "off"],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.strip():
        print(f"!!! THE DEPENDENCIES WERE NOT AUDITED: pip-audit ended with {done.returncode}")
        return 1
    lines, code = verdict(json.loads(done.stdout)["dependencies"])
    print("\n".join(lines))
    return code


def program() -> str:
    """The interpreter that has pip-audit, in the versions that are pinned."""
    folder = ROOT / ".venv" / "audit"
    python = str(folder / "bin" / "python")
    pins = ["--require-hashes", "-r", str(ROOT / "constraints-audit.txt")]
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins], check=True)
    return python


def unreachable(url: str) -> str:
    """Why the service cannot be asked; empty if it answers a question about one package."""
    question = json.dumps({"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "25.0"}).encode()
    try:
        request = urllib.request.Request(url, question, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            json.load(answer)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def verdict(dependencies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What to print, and the exit code. pip-audit itself takes packages that nobody looked up for sound ones."""
    lines = []
    for each in dependencies:
        if "skip_reason" in each:
            lines.append(f"not audited: {each['name']}: {each['skip_reason']}")
        for found in each.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"]) or "no version"
            lines.append(f"{each['name']} {each['version']}: {found['id']}, mended in {fixed}")
    return lines or [f"{len(dependencies)} dependencies, nothing is known against them"], int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
