"""From YAML text to nodes that know their line and column, and from a scalar's text to its value.

Nodes are built from the parser's events, so that neither deep nesting nor an alias that contains itself costs anything
before it is refused. Scalars are read as upstream's parser (yaml.v2) reads them: YAML 1.1 without dates.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

MAX_BYTES = 10_000_000
"""Bytes of one file."""
MAX_CHARACTERS = 50_000_000
"""Characters that the values and paths of one file may add up to, aliases and references expanded."""
MAX_NODES = 100_000
"""Values in one file, aliases expanded; more is an attack or a mistake."""
MAX_DEPTH = 64
"""Levels of nesting."""
MAX_TAG_DIRECTIVES = 100
"""Lines that start with `%TAG`; the parser compares each with all others."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML = "tag:yaml.org,2002:"


class Unreadable(ValueError):
    """Raised for text that is no YAML, or too much of it; `line` and `column` count from 1, 0 where unknown."""

    def __init__(self, message: str, line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it is written."""

    text: str
    is_plain: bool
    """Whether it is written without quotes and tag, and not as a block."""
    is_block: bool
    tag: str
    line: int
    column: int
    end: int
    """Characters of the text up to its end."""


@dataclass(slots=True)
class Sequence:
    """A list of nodes."""

    line: int
    column: int
    end: int = 0
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys and values in the order of the file; no key is compared with another yet."""

    line: int
    column: int
    end: int = 0
    items: list[Node] = field(default_factory=list)
    """Key, value, key, value."""

    @property
    def pairs(self) -> list[tuple[Node, Node]]:
        """Each key with its value."""
        return list(zip(self.items[::2], self.items[1::2], strict=True))


Node: TypeAlias = Scalar | Sequence | Mapping


@dataclass(slots=True)
class Budget:
    """What is left of the limits while a file is read."""

    nodes: int = MAX_NODES
    characters: int = MAX_CHARACTERS

    def spend(self, characters: int, nodes: int = 0) -> None:
        """Take so much. Raises `Unreadable` when there is nothing left."""
        self.nodes -= nodes
        self.characters -= characters
        if self.nodes < 0:
            raise Unreadable(f"more than {MAX_NODES:,} values, counting each use of an alias")
        if self.characters < 0:
            raise Unreadable(
                f"more than {MAX_CHARACTERS:,} characters, counting each use of an alias and of a `${{…}}`"
            )


def compose(text: str) -> Iterator[Node]:
    """The root of every document that is not empty. Raises `Unreadable`."""
    if len(re.findall(r"^%TAG", text, re.MULTILINE)) > MAX_TAG_DIRECTIVES:
        raise Unreadable(f"more than {MAX_TAG_DIRECTIVES} `%TAG` directives")
    try:
        yield from _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        message = " ".join(part for part in (error.context, error.problem) if part)
        if "nesting depth" in message:
            # Some versions of libyaml have a limit of their own, and tell of it before the levels can be counted.
            raise Unreadable(f"more than {MAX_DEPTH} levels", line, column) from None
        lines = text.splitlines()
        is_tab = 0 < line <= len(lines) and re.match(r" *\t", lines[line - 1])
        hint = "a tab cannot indent, use spaces" if is_tab else ""
        raise Unreadable(f"is no valid YAML: {message}", line, column, hint) from None
    except yaml.reader.ReaderError:
        found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        before = text[: found.start()] if found else ""
        raise Unreadable(
            f"is no valid YAML: the character {found[0]!r} is not allowed; write it as an escape in double quotes"
            if found
            else "is no valid YAML: it has a character that is not allowed",
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
        ) from None


def _composed(text: str) -> Iterator[Node]:
    anchors: dict[str, Node] = {}
    stack: list[Sequence | Mapping] = []
    count = 0
    # Types of PyYAML leave out what events have.
    events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
    for event in events:
        start, end = event.start_mark, event.end_mark
        if isinstance(event, yaml.DocumentStartEvent):
            anchors.clear()
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            closed = stack.pop()
            closed.end = end.index
            node: Node = closed
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            line, column = start.line + 1, start.column + 1
            if count > MAX_NODES:
                raise Unreadable(f"more than {MAX_NODES:,} values", line, column)
            made = _aliased(event, anchors, stack) if isinstance(event, yaml.AliasEvent) else _node(event)
            if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
                anchors[event.anchor] = made
            if isinstance(event, yaml.CollectionStartEvent):
                if len(stack) == MAX_DEPTH:
                    raise Unreadable(f"more than {MAX_DEPTH} levels", line, column)
                assert not isinstance(made, Scalar)
                stack.append(made)
                continue
            node = made
        else:
            continue
        if not stack:
            if not (isinstance(node, Scalar) and node.is_plain and not node.text and not node.tag):
                yield node
        else:
            stack[-1].items.append(node)


def _node(event: Any) -> Node:
    mark = event.start_mark
    line, column = mark.line + 1, mark.column + 1
    if isinstance(event, yaml.SequenceStartEvent):
        return Sequence(line, column)
    if isinstance(event, yaml.MappingStartEvent):
        return Mapping(line, column)
    # `!` alone says that the value is a text.
    tag = "str" if event.tag == "!" else str(event.tag or "").removeprefix(_YAML)
    return Scalar(event.value, event.implicit[0], event.style in ("|", ">"), tag, line, column, event.end_mark.index)


def _aliased(event: Any, anchors: dict[str, Node], stack: list[Sequence | Mapping]) -> Node:
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    node = anchors.get(event.anchor)
    if node is None:
        raise Unreadable(f"is no valid YAML: alias `*{event.anchor}` has no anchor `&{event.anchor}`", line, column)
    if any(node is outer for outer in stack):
        raise Unreadable(f"alias `*{event.anchor}` stands inside what it repeats", line, column)
    return node


def is_merge(key: Node) -> bool:
    """Whether a key is the merge key `<<`."""
    return isinstance(key, Scalar) and key.text == "<<" and (key.tag == "merge" or key.is_plain)


_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def resolve(text: str) -> Any:
    """The value of a plain scalar: None, a bool, a number, or the text itself; dates and times stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if _INT.fullmatch(digits) and len(digits) < 4000:
        is_octal = re.fullmatch(r"[-+]?0[0-7]+", digits)
        return int(digits, 8 if is_octal else 0)
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        # JSON, in which plugins get their spec, knows one kind of number.
        return text if math.isinf(value) else int(value) if value.is_integer() and abs(value) < 2**63 else value
    return text


def scalar_value(node: Scalar, text: str) -> Any:
    """The value of a scalar whose text, references filled in, is `text`. Raises `ValueError` with what is wrong."""
    tag = node.tag
    if tag == "binary":
        try:
            return base64.b64decode(text, validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("`!!binary` needs a text in base64 that is UTF-8") from None
    if tag in ("int", "float", "bool", "null"):
        value = resolve(text)
        fits: dict[str, tuple[type, ...]] = {
            "int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)
        }  # fmt: skip
        if type(value) not in fits[tag]:
            raise ValueError(f"`!!{tag}` does not fit {text!r}")
    elif tag or not node.is_plain:
        return text
    else:
        value = resolve(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text!r}; write it in quotes if it is a text")
    return value
