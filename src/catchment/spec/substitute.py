"""The references of a config, `${NAME}`, `${file:PATH}`, `${time:EXPR|LAYOUT}`: how they are found and what they say.

Before YAML is parsed, the characters of every reference are moved to a private range of Unicode, one for one: a
reference may then hold any character that YAML gives a meaning to, and columns stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from catchment.spec.nodes import MAX_BYTES, Unreadable

MAX_FILE_BYTES = 1_000_000
"""Bytes of a file that a `${file:…}` names."""

_SHIFT = 0xF0000
_REFERENCE = re.compile(r"\$\{[^}\r\n]*\}")
_OPENING = "\U000f0024\U000f007b"
_SHIELDED = re.compile("\U000f0024\U000f007b([^\U000f007d]*)\U000f007d")


def shield(text: str) -> str:
    """`text` with every reference out of YAML's sight. Raises `Unreadable` for one that has such characters already."""
    if _OPENING in text:
        raise Unreadable("has characters of a private range in the place of `${`", hint="write `${` itself")
    return "".join(map(_shield_line, re.split(r"([\r\n])", text)))


def _shield_line(line: str) -> str:
    # Nothing is looked for behind the last brace, else a row of open references would be searched again and again.
    end = line.rfind("}") + 1
    return _REFERENCE.sub(lambda match: "".join(map(_moved, match[0])), line[:end]) + line[end:]


def unshield(text: str) -> str:
    """`text` with every reference as it was written."""
    return _SHIELDED.sub(lambda match: "".join(map(_moved_back, match[0])), text)


def has_reference(text: str) -> bool:
    """Whether a shielded text has a reference in it."""
    return _SHIELDED.search(text) is not None


def is_reference(text: str) -> bool:
    """Whether a shielded text is one reference and nothing else."""
    return _SHIELDED.fullmatch(text) is not None


def _moved(character: str) -> str:
    return chr(ord(character) + _SHIFT) if ord(character) < 0xFFFE else character


def _moved_back(character: str) -> str:
    return chr(ord(character) - _SHIFT) if ord(character) >= _SHIFT else character


class NotFound(ValueError):
    """Raised for a reference without a value."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Filled:
    """A text with its references filled in."""

    text: str
    secrets: tuple[str, ...]
    """Values that came from the environment and from files."""
    missing: tuple[NotFound, ...]
    """One for each reference that has no value; those stand in the text as they are written."""


def fill(shielded: str, environ: Mapping[str, str], spend: Callable[[int], None]) -> Filled:
    """Replace every reference once; what comes in is not looked at again. `spend` is told the size of each value."""
    secrets: list[str] = []
    missing: list[NotFound] = []

    def value(match: re.Match[str]) -> str:
        name = "".join(map(_moved_back, match[1]))
        try:
            found, is_secret = _lookup(name, environ)
        except NotFound as error:
            missing.append(error)
            return f"${{{name}}}"
        spend(len(found))
        if is_secret and found:
            secrets.append(found)
        return found

    return Filled(_SHIELDED.sub(value, shielded), tuple(secrets), tuple(missing))


def _lookup(name: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The value for what stands in `${…}`, and whether it must not be shown."""
    if name == "$":
        return "$", False
    if name == "":
        return "${}", False
    if "${" in name:
        raise NotFound(f"`${{{name}}}` has a reference in a reference", "write out the inner one")
    if name.startswith("file:"):
        return _content(name), True
    if name.startswith("time:"):
        from catchment.spec.times import substitute

        try:
            return substitute(name.removeprefix("time:")), False
        except ValueError as error:
            raise NotFound(
                f"failed to substitute time: {error}", "write `${time:now}` or `${time:1 day ago}`"
            ) from None
    variable, has_default, default = name.partition(":-")
    if not variable:
        raise NotFound(f"`${{{name}}}` names no variable")
    found = environ.get(variable, "")
    if has_default and not found:
        return default, False
    if variable not in environ:
        raise NotFound(f"env variable {variable} not found", _hint(variable, environ))
    try:
        found.encode()
    except UnicodeEncodeError:
        raise NotFound(f"env variable {variable} is not UTF-8") from None
    return found, True


def _hint(variable: str, environ: Mapping[str, str]) -> str:
    if variable != variable.strip():
        return f"write `${{{variable.strip()}}}`, without spaces"
    near = get_close_matches(variable, environ, n=1)
    return f"did you mean `{near[0]}`?" if near else f"set it, or write `${{{variable}:-default}}`"


def _content(name: str) -> str:
    path = name.removeprefix("file:")
    try:
        return read_text(Path(path), MAX_FILE_BYTES)
    except OSError as error:
        raise NotFound(f"open {path}: {(error.strerror or str(error)).lower()}", _hint_of_file(path)) from None
    except ValueError as error:
        raise NotFound(f"file {path} {error}") from None


def _hint_of_file(path: str) -> str:
    return "" if Path(path).is_absolute() else "a path counts from the working folder, not from the config"


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """A file's text, line ends as they are. Raises `OSError`, and `ValueError` for what is no text or too long."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"is larger than {limit:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
