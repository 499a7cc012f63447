"""Container images from what the tests run with: Python, a few packages, catchment and the tests' own plugins."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
BASE = "catchment-test-base:1"
PACKAGES = (
    "annotated_types", "google", "grpc", "pyarrow", "pydantic", "pydantic_core", "tenacity", "typing_extensions.py",
    "typing_inspection",
)  # fmt: skip
_NOT_NEEDED = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|site-packages|include|config-3[^/]*)(/|$)"
    r"|^(lib|_)(arrow_)?(flight|substrait|s3)|\.opt-[12]\.pyc$"
)


class Engine:
    """A Docker engine as tests see it: what it holds, and whatever else its API offers."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(
            base_url="http://docker", transport=httpx.HTTPTransport(uds=address.removeprefix("unix://")), timeout=120
        )

    def containers(self) -> list[dict[str, Any]]:
        """Every container, also those that do not run."""
        found: list[dict[str, Any]] = self.ask("GET", "/containers/json", params={"all": 1})
        return found

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer to a request, which has to succeed."""
        answer = self.client.request(method, path, **more)
        assert answer.is_success, answer.text
        lines = [json.loads(line) for line in answer.text.splitlines() if line]
        assert not [line for line in lines if isinstance(line, dict) and "error" in line], lines
        return lines[0] if len(lines) == 1 else lines


def base_image(engine: Engine) -> None:
    """Have the engine hold the image that the others are made from."""
    with io.BytesIO() as archive:
        with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
            for path in sorted(set(_files())):
                tar.add(path, recursive=False, filter=_readable)
            tar.addfile(_readable(tarfile.TarInfo("tmp"), tarfile.DIRTYPE))
        repository, tag = BASE.split(":")
        packages = f"{sysconfig.get_path('purelib')}:{ROOT / 'src'}:{ROOT}"
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": f"ENV PYTHONPATH={packages}"}
        engine.ask("POST", "/images/create", params=query, content=_chunks(archive))


def python_image(engine: Engine, name: str, code: str, user: str = "0:0") -> str:
    """An image that runs `code` whatever it is given; gives its name."""
    dockerfile = f"""FROM {BASE}
COPY program.py /program.py
USER {user}
ENTRYPOINT ["{_python()}", "/program.py"]
"""
    with io.BytesIO() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, text in {"program.py": code, "Dockerfile": dockerfile}.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(text.encode()), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
        content = archive.getvalue()
    engine.ask("POST", "/build", params={"t": name}, content=content, headers={"Content-Type": "application/x-tar"})
    return name


def plugin_image(engine: Engine, name: str, target: str, user: str = "0:0", before: str = "") -> str:
    """An image of one of the tests' plugins."""
    return python_image(engine, name, f"{before}\nfrom catchment.serve import serve\nserve({target!r})\n", user)


def _chunks(archive: io.BytesIO) -> Iterator[bytes]:
    archive.seek(0)
    # In one piece it would be copied for each part that is sent.
    while chunk := archive.read(1 << 20):
        yield chunk


def _python() -> str:
    return str(Path(sys.executable).resolve())


def _files() -> Iterator[Path]:
    """Everything that goes into the image, under the path that it has here."""
    packages = Path(sysconfig.get_path("purelib"))
    folders = [Path(sysconfig.get_path("stdlib")), ROOT / "src" / "catchment", *(packages / name for name in PACKAGES)]
    kept = [path for folder in folders for path in [folder, *folder.rglob("*")]
            if path.is_file() and not _NOT_NEEDED.search(str(path.relative_to(folder)))]  # fmt: skip
    tests = ("__init__.py", "engine/__init__.py", "engine/plugins.py", "wire/__init__.py", "wire/docker_plugins.py")
    kept += [Path(_python()), *(ROOT / "tests" / name for name in tests)]
    yield from kept
    programs = [path for path in kept if ".so" in path.name or path == Path(_python())]
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    yield from {Path(line) for line in re.findall(r"(?:=> )?(/\S+) \(0x", told)}


def _readable(entry: tarfile.TarInfo, kind: bytes = b"") -> tarfile.TarInfo:
    """Owner and rights of an image's own, so that any user may run what is there."""
    entry.type = kind or entry.type
    entry.uid = entry.gid = 0
    entry.mode = 0o1777 if kind else 0o755
    return entry
