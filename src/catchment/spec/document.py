"""From a file's text to its documents: values with `${…}` filled in, each with its place in the file.

References are filled in on parsed values, so what comes in can never change the structure around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from catchment.errors import Problem
from catchment.spec import nodes
from catchment.spec.origin import Origin, Place, masks
from catchment.spec.substitute import Filled, fill, has_reference, is_reference, shield, unshield

MAX_MISSING = 100
"""References without a value in one file; with more of them the rest is not looked at."""
MAX_WARNINGS = 100
MAX_DOCUMENTS = 1_000
"""Documents in one file."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a config: its value, and where its parts come from."""

    value: Any
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True)
class _At:
    """Where the reader is: the path, and the place of its key or item."""

    path: str
    place: Place
    depth: int = 0
    fills: bool = True
    """Whether `${…}` is filled in; not in what came out of one."""

    def item(self, index: int, node: nodes.Node) -> _At:
        """The item of a list."""
        place = Place(*self._mark(node), f"{self.place.shown}[{index}]", self.place.written)
        return replace(self, path=f"{self.path}[{index}]", place=place, depth=self.depth + 1)

    def key(self, name: str, shown: str, node: nodes.Node) -> _At:
        """The value of a key; `shown` is what may be shown of the key."""
        if self.place.written:
            shown = self.place.written
        path, shown_path = (f"{self.path}.{name}", f"{self.place.shown}.{shown}") if self.path else (name, shown)
        place = Place(*self._mark(node), shown_path, self.place.written, masks(key=name, shown_key=shown))
        return replace(self, path=path, place=place, depth=self.depth + 1)

    def _mark(self, node: nodes.Node) -> tuple[int, int]:
        return (node.line, node.column) if self.fills else (self.place.line, self.place.column)


@dataclass(slots=True)
class Reader:
    """One config file while it is read."""

    file: str
    environ: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    _budget: nodes.Budget = field(default_factory=nodes.Budget)
    _origin: Origin = field(default_factory=Origin)
    _missing: int = 0

    def documents(self, text: str) -> Iterator[Document]:
        """The documents that are not empty; what cannot be read is in `problems`."""
        try:
            for count, node in enumerate(nodes.compose(shield(text))):
                if count == MAX_DOCUMENTS:
                    raise nodes.Unreadable(f"more than {MAX_DOCUMENTS:,} documents", node.line, node.column)
                self._origin = Origin(self.file, node.line, node.column)
                value = self._value(node, _At("", Place(node.line, node.column, "")))
                yield Document(value, self._origin)
        except nodes.Unreadable as error:
            self.problems.append(Problem(unshield(str(error)), self.file, error.line, error.column, hint=error.hint))

    def _value(self, node: nodes.Node, at: _At) -> Any:
        """The value of a node; the place of every path goes into the origin."""
        self._spend(len(at.path), node, 1)
        if at.depth > nodes.MAX_DEPTH:
            raise nodes.Unreadable(f"more than {nodes.MAX_DEPTH} levels", node.line, node.column)
        self._origin.places[at.path] = at.place
        if isinstance(node, nodes.Mapping):
            return self._mapping(node, at)
        if isinstance(node, nodes.Sequence):
            return [self._value(item, at.item(index, item)) for index, item in enumerate(node.items)]
        if at.fills and has_reference(node.text):
            return self._filled(node, at)
        return self._scalar(node, node.text, at)

    def _mapping(self, node: nodes.Mapping, at: _At) -> dict[str, Any]:
        made: dict[str, Any] = {}
        # What is merged first wins over what is merged later, and the mapping's own keys win over both.
        for key, value in reversed(node.pairs):
            if nodes.is_merge(key):
                made.update(self._merged(value, at))
        lines: dict[str, int] = {}
        for key, value in node.pairs:
            if nodes.is_merge(key):
                continue
            name, shown = self._key(key, at)
            inner = at.key(name, shown, key)
            if name in lines:
                self._warn(_twice(shown, lines[name], key.line) if at.fills else _twice(), inner.place)
            lines[name] = key.line
            made[name] = self._value(value, inner)
        return made

    def _merged(self, node: nodes.Node, at: _At) -> dict[str, Any]:
        """What a merge key `<<` brings."""
        found = self._value(node, replace(at, depth=at.depth + 1))
        made: dict[str, Any] = {}
        for mapping in reversed(found if isinstance(found, list) else [found]):
            if isinstance(mapping, dict):
                made.update(mapping)
            else:
                self._tell("`<<` needs a mapping, or a list of them", at.place, node)
        return made

    def _key(self, node: nodes.Node, at: _At) -> tuple[str, str]:
        """A key, which is always a text, and what may be shown of it."""
        if not isinstance(node, nodes.Scalar):
            self._tell("a key has to be a single value", at.place, node, "write the key in quotes")
            return "", ""
        if at.fills and has_reference(node.text):
            filled = self._fill(node, at)
            if filled.missing:
                self._origin.unknown.add(f"{at.path}.{filled.text}" if at.path else filled.text)
            return filled.text, unshield(node.text) if filled.secrets else filled.text
        value = nodes.resolve(node.text) if node.is_plain else node.text
        if isinstance(value, bool):
            name = "true" if value else "false"
            if node.text.lower() != name:
                message = f"key `{node.text}` is read as `{name}`, as in YAML 1.1; write it in quotes if that is wrong"
                self._warn(message, replace(at.place, line=node.line, column=node.column))
            return name, name
        if value is None:
            self._tell("a key is missing in front of `:`", at.place, node, "write an empty one as `''`")
        return (node.text, node.text) if value is None else (str(value), str(value))

    def _filled(self, node: nodes.Scalar, at: _At) -> Any:
        """The value of a scalar with references in it."""
        filled = self._fill(node, at)
        if filled.missing:
            self._origin.unknown.add(at.path)
            return filled.text
        if filled.secrets:
            at = replace(at, place=replace(at.place, written=unshield(node.text)))
        if node.is_plain and is_reference(node.text):
            return self._typed(node, filled.text, at)
        text = filled.text
        alone = node.text.rstrip("\n")
        if node.is_block and is_reference(alone):
            inner = text[: len(text) - (len(node.text) - len(alone))]
            # A file that ends its last line itself needs no second line end from the block that it stands in.
            text = inner if inner.endswith("\n") else text
        # With other text around it, what comes in is always a text.
        return self._scalar(replace(node, is_plain=False), text, at)

    def _typed(self, node: nodes.Scalar, text: str, at: _At) -> Any:
        """What a plain scalar stands for that is wholly one `${…}`: a number, bool, null, list or mapping as in YAML.

        A value that is none of these stays as it is, to the last character; only blanks around a single line go.
        """
        stripped = text.strip()
        if stripped[:1] in ("{", "[", '"', "'"):
            try:
                found = list(nodes.compose(stripped))
            except nodes.Unreadable:
                found = []
            if len(found) == 1 and found[0].end == len(stripped) and _has_names_for_keys(found[0]):
                return self._value(found[0], replace(at, fills=False))
        if "\n" in stripped:
            return self._scalar(replace(node, is_plain=False), text, at)
        return self._scalar(node, stripped, at)

    def _scalar(self, node: nodes.Scalar, text: str, at: _At) -> Any:
        """The value of a scalar with the text `text`."""
        self._spend(len(text), node)
        try:
            value = nodes.scalar_value(node, text)
        except ValueError as error:
            self._origin.unknown.add(at.path)
            written = at.place.written
            self._tell(str(error).replace(repr(text), repr(written or text)), at.place, node)
            return text
        if at.place.written:
            hidden = (*at.place.masks, *masks(value, at.place.written))
            self._origin.places[at.path] = replace(at.place, masks=hidden)
            self._origin.secrets.add(text)
        return value

    def _fill(self, node: nodes.Scalar, at: _At) -> Filled:
        """The text of a scalar with every reference filled in, and a problem for each that has no value."""
        filled = fill(node.text, self.environ, lambda size: self._spend(size, node))
        self._origin.secrets.update(filled.secrets)
        for missing in filled.missing:
            self._tell(str(missing), at.place, node, missing.hint)
        self._missing += len(filled.missing)
        if self._missing > MAX_MISSING:
            message = f"more than {MAX_MISSING} `${{…}}` without a value, the rest is not looked at"
            raise nodes.Unreadable(message, node.line, node.column)
        return filled

    def _spend(self, size: int, node: nodes.Node, count: int = 0) -> None:
        try:
            self._budget.spend(size, count)
        except nodes.Unreadable as error:
            raise nodes.Unreadable(str(error), node.line, node.column) from None

    def _tell(self, message: str, place: Place, node: nodes.Node, hint: str = "") -> None:
        """Note a mistake; `node` may stand elsewhere than the key of its path."""
        self.problems.append(Problem(message, self.file, node.line, node.column, place.shown, hint))

    def _warn(self, message: str, place: Place) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(Problem(message, self.file, place.line, place.column, place.shown))


def _has_names_for_keys(node: nodes.Node) -> bool:
    """Whether every key in it is a single value: `{{YEAR}}` is YAML too, but meant as a text."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, nodes.Mapping):
            if not all(isinstance(key, nodes.Scalar) for key, _ in node.pairs):
                return False
            waiting.extend(value for _, value in node.pairs)
        elif isinstance(node, nodes.Sequence):
            waiting.extend(node.items)
    return True


def _twice(key: str = "", first: int = 0, second: int = 0) -> str:
    """The warning about a key that is given twice; what came from outside has no lines, and its keys are not shown."""
    if not key:
        return "a key is given twice; the last one counts"
    lines = f"in line {first}" if first == second else f"in lines {first} and {second}"
    return f"key `{key}` is given twice, {lines}; the last one counts"
