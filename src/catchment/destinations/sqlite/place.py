"""Where the database is and how it is opened: a path, or a URI, with options behind a `?`.

The options that begin with an underscore are those of the Go driver that upstream's plugin uses
(https://github.com/mattn/go-sqlite3#connection-string); every one is a pragma. The others belong to SQLite, which takes
them from a URI (https://www.sqlite.org/uri.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote

_BOOLEAN = {"0": "0", "no": "0", "false": "0", "off": "0", "1": "1", "yes": "1", "true": "1", "on": "1"}
_NUMBER: dict[str, str] = {}
"""Any whole number."""


def _words(text: str) -> dict[str, str]:
    return {word: word for word in text.split()}


_PRAGMAS: dict[str, dict[str, str]] = {
    "auto_vacuum": {**_words("none full incremental"), "0": "0", "1": "1", "2": "2"},
    "busy_timeout": _NUMBER,
    "cache_size": _NUMBER,
    "case_sensitive_like": _BOOLEAN,
    "defer_foreign_keys": _BOOLEAN,
    "foreign_keys": _BOOLEAN,
    "ignore_check_constraints": _BOOLEAN,
    "journal_mode": _words("delete truncate persist memory wal off"),
    "locking_mode": _words("normal exclusive"),
    "query_only": _BOOLEAN,
    "recursive_triggers": _BOOLEAN,
    "secure_delete": {**_BOOLEAN, "fast": "fast"},
    "synchronous": {**_words("off normal full extra"), "0": "0", "1": "1", "2": "2", "3": "3"},
    "writable_schema": _BOOLEAN,
}
"""Pragma → the words that are values of it → how they are written."""
KEPT_IN_FILE = frozenset({"auto_vacuum", "journal_mode"})
"""Pragmas that change the file."""
_OTHER_NAMES = {
    "vacuum": "auto_vacuum",
    "timeout": "busy_timeout",
    "cslike": "case_sensitive_like",
    "defer_fk": "defer_foreign_keys",
    "fk": "foreign_keys",
    "journal": "journal_mode",
    "locking": "locking_mode",
    "rt": "recursive_triggers",
    "sync": "synchronous",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A connection string, taken apart."""

    target: str
    """What the driver opens."""
    path: Path | None
    """The file; None where the database is in memory."""
    pragmas: Mapping[str, str]
    """What is set on the connection."""


def parse(text: str) -> Place:
    """Take a connection string apart. Raises `ValueError` for an option with a wrong value."""
    name, mark, query = text.partition("?") if text.find("?") > 0 else (text, "", "")
    options = {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}
    pragmas = {}
    for key, value in options.items():
        pragma = _OTHER_NAMES.get(key.removeprefix("_"), key.removeprefix("_"))
        if key.startswith("_") and pragma in _PRAGMAS and value:
            pragmas[pragma] = _value(key, value.lower(), _PRAGMAS[pragma])
    if not name.startswith("file:"):
        # Only a URI has options of SQLite's own.
        return Place(name, None if name in ("", ":memory:") else Path(name), pragmas)
    path = unquote(name.removeprefix("file:").partition("#")[0])
    if path.startswith("//"):
        # An authority, which may be `localhost` or nothing.
        path = path[path.find("/", 2) :] if "/" in path[2:] else path
    in_memory = path in ("", ":memory:") or options.get("mode") == "memory"
    return Place(f"{name}{mark}{query}", None if in_memory else Path(path), pragmas)


def _value(key: str, value: str, words: Mapping[str, str]) -> str:
    if words is _NUMBER:
        if not value.removeprefix("-").isdecimal():
            raise ValueError(f"option `{key}` of the connection string is a whole number, not {value!r}")
        return value
    if value not in words:
        known = ", ".join(f"`{word}`" for word in words)
        raise ValueError(f"option `{key}` of the connection string is one of {known}, not {value!r}")
    return words[value]
