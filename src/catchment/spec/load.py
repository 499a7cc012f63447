"""Read a config: files and folders, YAML and JSON, several documents, with `${…}` filled in on parsed values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from catchment.errors import Problem
from catchment.spec.check import make_config
from catchment.spec.document import Document, Reader
from catchment.spec.model import Config, PluginConfig, Require
from catchment.spec.substitute import read_text


def load(
    paths: Sequence[str | Path], *, require: Require = "strict", environ: Mapping[str, str] | None = None
) -> Config:
    """The config in files and folders. Raises `PartlyWrong` with every mistake in all of them."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    documents: list[Document] = []
    empty: list[Problem] = []
    for path in _files(paths, problems, empty):
        try:
            text = read_text(path)
        except OSError as error:
            problems.append(Problem(f"open {path}: {_reason(error)}", str(path)))
            continue
        except ValueError as error:
            problems.append(Problem(str(error), str(path)))
            continue
        reader = Reader(str(path), os.environ if environ is None else environ, problems, warnings)
        documents.extend(reader.documents(text))
    (warnings if documents else problems).extend(empty)
    return make_config(documents, require=require, problems=problems, warnings=warnings)


def load_documents(documents: Iterable[Mapping[str, Any] | PluginConfig], *, require: Require = "strict") -> Config:
    """The config in mappings with `kind` and `spec`, and in objects. Raises `PartlyWrong` with every mistake.

    A plugin may be given as the Python object itself, as the `path`. Nothing is substituted.
    """
    return make_config(
        [Document(it, it._origin) if isinstance(it, PluginConfig) else Document(it) for it in documents],
        require=require,
    )


def _files(paths: Sequence[str | Path], problems: list[Problem], empty: list[Problem]) -> list[Path]:
    """The files that are named; of a folder, those that end in `.yml` or `.yaml`, by name, sub-folders left out."""
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem(f"open {path}: {_reason(error)}", str(path)))
            continue
        wanted = [
            entry.name
            for entry in entries
            if entry.name.endswith((".yml", ".yaml"))
            and not entry.name.startswith(".")
            and not entry.is_dir(follow_symlinks=False)
        ]
        found.extend(path / name for name in wanted)
        if not wanted:
            hint = "name a file with another ending itself" if entries else ""
            empty.append(Problem("the folder has no file that ends in `.yml` or `.yaml`", str(path), hint=hint))
    return found


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
