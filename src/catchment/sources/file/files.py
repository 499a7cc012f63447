"""Which files make which table: paths, folders and globs, formats by name, names of tables."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from catchment.sdk import PluginError
from catchment.sources.file.blocks import COMPRESSIONS
from catchment.sources.file.spec import CSVSpec, FileSpec, Format, TableSpec
from catchment.sources.file.text import column_type

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Files:
    """The files of one table."""

    name: str
    paths: tuple[Path, ...]
    format: Format | None
    """None where it is told neither by the spec nor by the names."""
    csv: CSVSpec
    compression: str | None
    declared: Mapping[str, pa.DataType] = field(default_factory=dict)
    primary_keys: tuple[str, ...] = ()


def find(spec: FileSpec) -> list[Files]:
    """The tables of the spec: named patterns first, then every file that is in none.

    A named pattern without a file gives a table without files. Raises `PluginError` where nothing is found at all, and
    for two tables of one name.
    """
    roots = _listed(spec.path)
    base = Path(roots[0]) if len(roots) == 1 and Path(roots[0]).is_dir() else None
    found: list[Files] = []
    taken: set[str] = set()
    for table in spec.tables:
        paths = [path for pattern in _listed(table.path) for path in _matching(pattern, base)]
        found.append(_files(spec, table.name, _once(paths), table))
        taken.update(map(os.path.realpath, paths))
    others = []
    for root in roots:
        matching = _matching(root, None)
        if not matching and not spec.tables:
            raise PluginError(f"no file matches {root!r}", hint="`path` is a file, a folder or a glob")
        others += matching
    for path in _once(others):
        if os.path.realpath(path) not in taken and (spec.format is not None or _format_of(path) is not None):
            found.append(_files(spec, _snake(path), (path,), None))
    if not found:
        raise PluginError(f"no CSV, JSON or Parquet file in {', '.join(map(repr, roots))}", hint="set `format`")
    _check_names(found)
    return found


def _check_names(found: Sequence[Files]) -> None:
    seen: dict[str, Files] = {}
    for files in found:
        other = seen.setdefault(files.name, files)
        if other is not files:
            first, second = (one.paths[0] if one.paths else "no file" for one in (other, files))
            raise PluginError(
                f"{first} and {second} are both table `{files.name}`",
                hint="give one of them a name of its own under `tables`",
            )


def _listed(path: str | Sequence[str]) -> Sequence[str]:
    return [path] if isinstance(path, str) else path


def _files(spec: FileSpec, name: str, paths: tuple[Path, ...], table: TableSpec | None) -> Files:
    chosen = (table.format if table is not None else None) or spec.format
    formats = {chosen or _format_of(path) for path in paths}
    options = (table.csv if table is not None else None) or spec.csv
    if "delimiter" not in options.model_fields_set and paths and all(".tsv" in _suffixes(path)[:1] for path in paths):
        options = options.model_copy(update={"delimiter": "\t"})
    return Files(
        name,
        paths,
        formats.pop() if len(formats) == 1 else None,
        options,
        spec.compression,
        {} if table is None else {column: column_type(kind) for column, kind in table.columns.items()},
        () if table is None else table.primary_keys,
    )


def _matching(pattern: str, base: Path | None) -> list[Path]:
    """The files that a pattern names, sorted; hidden ones only if they are named in full."""
    path = Path(pattern) if base is None else base / pattern
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    if path.is_file():
        return [path]
    names = glob.glob(pattern, root_dir=base, recursive=True)
    paths = (Path(name) if base is None else base / name for name in names)
    return sorted(path for path in paths if path.is_file())


def _once(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Each file once, under the first of its names: links may lead in circles."""
    return tuple({os.path.realpath(path): path for path in reversed(paths)}.values())[::-1]


def _suffixes(path: Path) -> list[str]:
    """The endings that tell format and compression, from the last but for the compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[::-1]


def _format_of(path: Path) -> Format | None:
    suffixes = _suffixes(path)
    return _FORMATS.get(suffixes[0]) if suffixes else None


def _snake(path: Path) -> str:
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() in COMPRESSIONS or suffix.lower() in _FORMATS:
            name = name.removesuffix(suffix)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"\W+", "_", name).strip("_").lower() or "table"
