"""Read a config: files and folders, YAML and JSON, several documents, with `${…}` filled in on parsed values.

YAML is composed into nodes first, so that every value knows its line and a substituted value can never change the
structure around it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from catchment.errors import Problem
from catchment.spec.model import Config, Document, PartlyWrong, Require, make_config

MAX_NODES = 100_000
"""Values in one file, aliases expanded; more is an attack or a mistake."""
MAX_DEPTH = 64
"""Levels of nesting."""

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(
    paths: Sequence[str | Path], *, require: Require = "strict", environ: Mapping[str, str] | None = None
) -> Config:
    """The config in files and folders. Raises `PartlyWrong` with every mistake in all of them."""
    problems: list[Problem] = []
    documents: list[Document] = []
    for path in _files(paths, problems):
        documents.extend(_File(path, os.environ if environ is None else environ, problems).documents())
    try:
        config = make_config(documents, require=require)
    except PartlyWrong as error:
        # Rules across documents say nothing reliable while some could not be read.
        found = [problem for problem in error.problems if not problems or problem.line]
        raise PartlyWrong([*problems, *found], error.config) from None
    if problems:
        raise PartlyWrong(problems, config)
    return config


def load_documents(documents: Iterable[Mapping[str, Any]], *, require: Require = "strict") -> Config:
    """The config in mappings with `kind` and `spec`."""
    return make_config([Document(document) for document in documents], require=require)


def _files(paths: Sequence[str | Path], problems: list[Problem]) -> list[Path]:
    """The files that are named; of a folder, those that end in `.yml` or `.yaml`, by name, sub-folders left out."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            names = sorted(entry.name for entry in path.iterdir())
            wanted = [name for name in names if name.endswith((".yml", ".yaml")) and not name.startswith(".")]
            found.extend(path / name for name in wanted if (path / name).is_file())
            if not wanted:
                problems.append(Problem("the folder has no file that ends in `.yml` or `.yaml`", str(path)))
        elif path.exists():
            found.append(path)
        else:
            problems.append(Problem(f"open {path}: no such file or directory", str(path)))
    return found


@dataclass(slots=True)
class _File:
    """One config file while it is read."""

    path: Path
    environ: Mapping[str, str]
    problems: list[Problem]
    hidden: set[str] = field(default_factory=set)
    _count: int = 0

    def documents(self) -> list[Document]:
        """The documents that are not empty."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(Problem(f"cannot be read: {error}", str(self.path)))
            return []
        made = []
        try:
            for node in yaml.compose_all(text, Loader=_LOADER):
                if node is None or (isinstance(node, yaml.ScalarNode) and node.value == "" and not node.style):
                    continue
                made.append(self._document(node))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 0
            text = " ".join(part for part in (error.context, error.problem) if part)
            self.problems.append(Problem(f"is no valid YAML: {text}", str(self.path), line))
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            self.problems.append(Problem(f"is no valid YAML: {str(error) or type(error).__name__}", str(self.path)))
        return made

    def _document(self, node: yaml.Node) -> Document:
        lines: dict[str, int] = {}
        self._count = 0
        value = self._value(node, "", lines, 0)

        def locate(path: str) -> tuple[str, int]:
            while path and path not in lines:
                path = path[: max(path.rfind("."), path.rfind("["), 0)]
            return str(self.path), lines.get(path, node.start_mark.line + 1)

        return Document(value, locate, frozenset(self.hidden))

    def _value(self, node: yaml.Node, path: str, lines: dict[str, int], depth: int) -> Any:
        """The value of a node, `${…}` filled in; every path's line goes into `lines`."""
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            limit = f"more than {MAX_NODES:,} values" if self._count > MAX_NODES else f"more than {MAX_DEPTH} levels"
            raise ValueError(f"{limit} (aliases expanded)")
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, lines, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{i}]", lines, depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str, lines: dict[str, int], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = self._value(value_node, path, lines, depth + 1)
                for mapping in merged if isinstance(merged, list) else [merged]:
                    made = {**mapping, **made}
                continue
            key = self._scalar(key_node, path)
            name = key if isinstance(key, str) else str(key_node.value)
            inner = f"{path}.{name}" if path else name
            lines[inner] = key_node.start_mark.line + 1
            made[name] = self._value(value_node, inner, lines, depth + 1)
        return made

    def _scalar(self, node: Any, path: str) -> Any:
        text = node.value
        if isinstance(text, str) and "${" in text:
            filled = self._filled(text, path, node.start_mark.line + 1)
            if filled is None:
                return text
            if not node.style and _REFERENCE.fullmatch(text):
                return self._typed(filled, path, node.start_mark.line + 1)
            return filled
        return _constructed(node)

    def _typed(self, text: str, path: str, line: int) -> Any:
        """A plain scalar that is wholly one `${…}`: its value read as YAML; text that is none stays text."""
        try:
            node = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError:
            return text
        if node is None:
            return None
        return _File(self.path, {}, self.problems)._plain(node)

    def _plain(self, node: yaml.Node) -> Any:
        """The value of a substituted node: nothing in it is substituted again."""
        if isinstance(node, yaml.MappingNode):
            return {str(key.value): self._plain(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item) for item in node.value]
        return _constructed(node)

    def _filled(self, text: str, path: str, line: int) -> str | None:
        """`text` with every `${…}` replaced; None, and a problem for each, where one has no value."""
        complete = True

        def value(match: re.Match[str]) -> str:
            nonlocal complete
            found, message = self._lookup(match[1])
            if found is None:
                complete = False
                self.problems.append(Problem(message, str(self.path), line, path))
                return match[0]
            if match[1] not in ("", "$") and len(found) >= 4:
                self.hidden.add(found)
            return found

        filled = _REFERENCE.sub(value, text)
        return filled if complete else None

    def _lookup(self, name: str) -> tuple[str | None, str]:
        """The value for what stands in `${…}`, or why there is none."""
        if name == "$":
            return "$", ""
        if name == "":
            return "${}", ""
        if name.startswith("file:"):
            try:
                return Path(name.removeprefix("file:")).read_text(encoding="utf-8"), ""
            except (OSError, UnicodeDecodeError) as error:
                return None, f"`${{{name}}}` cannot be read: {error}"
        if name.startswith("time:"):
            from catchment.spec.times import substitute

            try:
                return substitute(name.removeprefix("time:")), ""
            except ValueError as error:
                return None, f"failed to substitute time: {error}"
        variable, has_default, default = name.partition(":-")
        if variable in self.environ:
            return self.environ[variable], ""
        if has_default:
            return default, ""
        return None, f"env variable {variable} not found; set it, or write `${{{variable}:-default}}`"


def _constructed(node: yaml.Node) -> Any:
    """The Python value of a scalar; dates and times stay text, as upstream has them."""
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value
    return _SCALARS.construct_object(node, deep=True)


_SCALARS = yaml.SafeLoader("")
