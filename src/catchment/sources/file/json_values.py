"""JSON text as one object a line: lines as they are, the elements of an array, and objects over several lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catchment.sdk import PluginError
from catchment.sources.file.blocks import BLOCK_BYTES, ROW_BYTES, Readable, blocks, is_utf8, open_stream
from catchment.sources.file.blocks import shown as shown_text

DEPTH = 50
"""Levels that objects and lists may be nested: Arrow's reader does not survive any number of them."""

_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows of a file, one a line; lines may be blank or broken."""

    text: bytes
    first: int
    """Line of the file that the first one is."""
    numbers: tuple[int, ...] = ()
    """Line of the file that each row starts on, where rows do not have one each."""

    @property
    def count(self) -> int:
        """How many lines there are."""
        return self.text.count(b"\n") + (not self.text.endswith(b"\n"))

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, each with its number in the file."""
        lines = self.text.split(b"\n")
        for number, line in zip(self.numbers or range(self.first, self.first + len(lines)), lines, strict=False):
            if line.strip():
                yield number, line

    def is_plain(self) -> bool:
        """Whether Arrow's reader can be given the text: every line begins an object, and none is too deep."""
        begins = self.text.startswith(b"{") and self.text.count(b"\n{") == self.count - 1
        return begins and is_utf8(self.text) and is_shallow(self.text)


def read_lines(path: Path, compression: str | None) -> Iterator[Lines]:
    """The rows of a file, some megabytes at a time."""
    line = 1
    try:
        with open_stream(path, compression) as stream:
            peeked = _Peeked(stream)
            head = peeked.head.lstrip(b"\xef\xbb\xbf").lstrip()
            if _spans_lines(head):
                yield from _Values(path, peeked).lines()
                return
            for line, block, _ in blocks(peeked, lambda text: text.rfind(b"\n") + 1, path):
                if block.strip():
                    yield Lines(block, line)
    except OSError as error:
        raise PluginError(f"{path}:{line} or later: cannot be read: {error}") from error


def _spans_lines(head: bytes) -> bool:
    """Whether a file that begins like this is an array, or has objects over several lines."""
    first, _, others = head.partition(b"\n")
    if head.startswith(b"["):
        # A list on a line of its own, with rows below it, is a row that is wrong.
        return not (first.rstrip().endswith(b"]") and others.lstrip()[:1] in (b"{", b"["))
    return first.strip() == b"{"


def is_shallow(text: bytes) -> bool:
    """Whether nothing in `text` is nested deeper than `DEPTH`."""
    return _is_shallow(text) or _is_shallow(_STRING.sub(b"", text))


def _is_shallow(text: bytes) -> bool:
    """As `is_shallow`, but no for text with many brackets that have no partner: those in strings count."""
    brackets = text.translate(None, delete=_BRACKETS)
    for level in range(DEPTH):
        inner = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(inner) == len(brackets):
            return len(inner) + level < DEPTH
        brackets = inner
    return not brackets


class _Peeked:
    """A stream whose beginning was looked at."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.head: bytes = stream.read(BLOCK_BYTES)
        self._is_new = True

    def read(self, size: int) -> bytes:
        if self._is_new:
            self._is_new = False
            return self.head
        found: bytes = self._stream.read(size)
        return found


class _Values:
    """Reads an array, or objects one after the other, element by element: only one of them is held whole."""

    def __init__(self, path: Path, stream: Readable) -> None:
        self._path = path
        self._stream = stream
        self._decode = json.JSONDecoder().raw_decode
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._line = 1
        self._is_over = False

    def lines(self) -> Iterator[Lines]:
        """The elements, each on a line of its own."""
        rows: list[str] = []
        numbers: list[int] = []
        size = 0
        for number, row in self._elements():
            rows.append(row)
            numbers.append(number)
            size += len(row)
            if size >= BLOCK_BYTES:
                yield Lines("\n".join(rows).encode(), numbers[0], tuple(numbers))
                rows, numbers, size = [], [], 0
        if rows:
            yield Lines("\n".join(rows).encode(), numbers[0], tuple(numbers))

    def _elements(self) -> Iterator[tuple[int, str]]:
        is_array = self._next() == "["
        if is_array:
            self._skip(1)
        following = self._next()
        while following and not (is_array and following == "]"):
            yield self._element()
            following = self._next()
            if is_array and following == ",":
                self._skip(1)
                following = self._next()
                if following == "]":
                    self._fail("a comma without an element after it")
            elif is_array and following != "]":
                self._fail("expected `,` or `]`" if following else "the array is never closed")
        if is_array:
            if not following:
                self._fail("the array is never closed")
            self._skip(1)
            if self._next():
                self._fail("text after the end of the array")

    def _element(self) -> tuple[int, str]:
        """The line and the text of the element that starts here, on one line."""
        while True:
            try:
                end = self._decode(self._text, self._at)[1]
                if end < len(self._text) or self._is_over:
                    break
            except RecursionError:
                self._fail("nested too deeply")
            except ValueError as error:
                # Within the text that is there a fault may be the end of what was read.
                if self._is_over:
                    position = getattr(error, "pos", self._at)
                    self._skip(max(position - self._at, 0))
                    self._fail(getattr(error, "msg", str(error)))
            self._more()
        raw, line = self._text[self._at : end], self._line
        self._skip(end - self._at)
        # No string holds a bare line break, so all of them are space.
        return line, raw.replace("\r", " ").replace("\n", " ")

    def _next(self) -> str:
        """The character that follows space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._skip(found.end() - self._at)
            if self._at < len(self._text) or self._is_over:
                return self._text[self._at : self._at + 1]
            self._more()

    def _skip(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _more(self) -> None:
        """Read on; as much again as waits, so that a long element is not looked at over and over."""
        waiting = len(self._text) - self._at
        if waiting > ROW_BYTES:
            self._fail(f"an element of more than {ROW_BYTES >> 20} MB")
        raw = self._stream.read(max(waiting, BLOCK_BYTES))
        try:
            self._text = self._text[self._at :] + self._utf8.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            self._fail(f"no UTF-8 text: {error.reason}")
        self._at = 0
        self._is_over = not raw

    def _fail(self, reason: str) -> None:
        """Raises `PluginError`. Where an element is broken, nobody can tell where the next one starts."""
        raise PluginError(
            f"{self._path}:{self._line}: {reason}: {shown_text(self._text[self._at : self._at + 200])}",
            hint="mend the array, or write one object on each line: of those single ones can be left out",
        )


Values = dict[str, tuple[Any, str]]
"""Value and text of each key of an object."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def values_of(line: bytes, *, strict: bool = True) -> Values:
    """The keys of the object on a line. Raises `ValueError` for all else, and for a key that is there twice."""
    text = line.decode()
    decode = (_STRICT if strict else _LENIENT).raw_decode
    found: Values = {}
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("expected an object")
    at = _after_space(text, at + 1)
    try:
        while text[at : at + 1] != "}":
            if text[at : at + 1] != '"':
                raise ValueError("expected a key in double quotes")
            key, at = decode(text, at)
            at = _after_space(text, at)
            if text[at : at + 1] != ":":
                raise ValueError(f"expected `:` after key {key!r}")
            start = _after_space(text, at + 1)
            value, at = decode(text, start)
            if key in found:
                raise ValueError(f"key {key!r} is there twice")
            found[key] = value, text[start:at]
            at = _after_space(text, at)
            if text[at : at + 1] == ",":
                at = _after_space(text, at + 1)
                if text[at : at + 1] == "}":
                    raise ValueError("a comma without a key after it")
            elif text[at : at + 1] != "}":
                raise ValueError("expected `,` or `}`")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _after_space(text, at + 1) != len(text):
        raise ValueError("text after the end of the object")
    return found


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


_LENIENT = json.JSONDecoder()
_STRICT = json.JSONDecoder(parse_constant=_no_constant)
