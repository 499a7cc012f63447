"""Keeps secrets out of what is shown: known ones are replaced in texts, results and log records."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from catchment import log_context

HIDDEN = "**********"
"""What stands in place of a secret."""
SHORTEST = 4
"""Characters of the shortest value that is replaced: a shorter one would blacken half of every text."""

_OPEN = frozenset({"true", "false", "null", "none"})
"""Values that tell nothing."""
# A secret may be a file of a megabyte: no pattern may look at a character more than a few times.
_URL = re.compile(r"(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]*+://[^\s:/?#@]*+:(?!\d+/)(\S{1,10000})@")
_URL_WITH_BLANKS = re.compile(r"://[^\s:/?#@]*:(?!\d+/)(.*)@", re.DOTALL)
# As Go's driver for MySQL has it: `user:password@tcp(host)/database`, where the password is written as it is.
_DSN = re.compile(r"[^\s:/?#@]++:(?!//)(.{1,10000})@[a-z0-9]{0,20}(?:\([^()]{0,300}\))?/[^@/]*", re.DOTALL)
_KEYED = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|token|secret|credential|(?:api|access|account|private|shared)_?key)[\w-]{0,100}+"
    r"\s{0,100}+=\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\"]\S*)",
    re.IGNORECASE,
)
_LONG_LINE = 8
"""Characters from which a line of a longer secret is one itself."""
MOST_PARTS = 1_000
"""Lines, values and passwords of one secret that are looked for; what has more is no credential, and hidden whole."""


class Redactor:
    """Replaces the secrets it knows, longest first; it may learn more at any time, from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: dict[str, str] = {}
        """What is replaced, and the pattern that finds it."""
        self._pattern: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Learn secrets, with the passwords in them, and how they look when they are quoted or encoded."""
        found: dict[str, str] = {}
        passwords = {secret: list(_some(passwords_in(secret))) for secret in set(secrets)}
        for secret, inside in passwords.items():
            for password in inside:
                # A piece is named by itself; inside a word it is no secret.
                found |= {piece: rf"(?<!\w){re.escape(piece)}(?!\w)" for piece in _some(_pieces(secret, password))}
        for secret, inside in passwords.items():
            for part in (secret, *inside, *_some(_leaves(secret))):
                found |= {form: re.escape(form) for form in _forms(part)}
        new = {form: pattern for form, pattern in found.items() if len(form) >= SHORTEST and form.lower() not in _OPEN}
        if new.items() <= self._known.items():
            return
        known = {**new, **self._known, **{form: found for form, found in new.items() if found == re.escape(form)}}
        longest_first = sorted(known, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(known[form] for form in longest_first))
        self._known = known

    def text(self, text: str) -> str:
        """`text` with every secret in it replaced."""
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None else text

    def value(self, value: Any) -> Any:
        """A JSON-like value with every text in it passed through `text`, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    @contextlib.contextmanager
    def guarding(self, name: str) -> Iterator[None]:
        """Have the records of the loggers `name` and below pass through here while the body runs."""
        below = [logger for logger in logging.root.manager.loggerDict if logger.startswith(f"{name}.")]
        loggers = [logging.getLogger(logger) for logger in (name, *below)]
        guard = RedactingFilter(self)
        for logger in loggers:
            logger.addFilter(guard)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(guard)


class RedactingFilter(logging.Filter):
    """Replaces secrets in a record: its message, its fields, and the text of its exception."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record is changed in place and has no arguments left."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            # A library's record whose arguments do not fit must not end what logged it.
            message = f"{record.msg} {record.args}"
        record.msg, record.args = self._redactor.text(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        # Handlers that print exceptions themselves would print the one that is not redacted.
        record.exc_info = None
        for text in ("exc_text", "stack_info"):
            if getattr(record, text):
                setattr(record, text, self._redactor.text(getattr(record, text)))
        for name, value in fields_of(record).items():
            setattr(record, name, self._redactor.value(value if _is_plain(value) else str(value)))
        return True


_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given to a log call as `extra=`, and what is known of the work that it was made in."""
    given = {name: value for name, value in vars(record).items() if name not in _OF_LOGGING}
    return {**log_context.current(), **given}


def passwords_in(text: str) -> Iterator[str]:
    """Passwords and tokens in URLs and connection strings."""
    for match in _URL.finditer(text):
        yield match[1]
    if text.count("://") == 1:
        yield from _URL_WITH_BLANKS.findall(text)
    dsn = _DSN.fullmatch(text)
    if dsn is not None:
        yield dsn[1]
    for value in _KEYED.findall(text):
        inner = value[1:-1] if value[0] in "'\"" else value
        yield inner
        yield re.sub(r"\\(.)", r"\1", inner)
        yield re.split(r"[&;,]", inner)[0]


def _pieces(text: str, password: str) -> Iterator[str]:
    """What a driver takes for a host or a database where a character of the password should have been escaped."""
    yield from re.split(r"[@:/?#%\s]+", password)
    if "://" not in text:
        # `password=two words` without quotes: the second word stands alone.
        yield from (word for word in _KEYED.sub(" ", text).split() if "=" not in word)


def _some(texts: Iterable[str]) -> Iterator[str]:
    """The first `MOST_PARTS` of them."""
    return itertools.islice(texts, MOST_PARTS)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int, float, list, tuple, Mapping))


def _forms(secret: str) -> Iterator[str]:
    """`secret` as it may turn up in a text."""
    from urllib.parse import quote, quote_plus, unquote

    lines = (line.strip() for line in secret.splitlines() if len(line) >= _LONG_LINE)
    for text in {secret, secret.strip(), *_some(lines)}:
        yield text
        yield " ".join(text.split())
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield quote(text, safe="")
        yield quote(text)
        yield quote_plus(text)
        yield unquote(text)


def _leaves(secret: str) -> Iterator[str]:
    """The texts in a secret that is a JSON document."""
    if secret.lstrip()[:1] not in ("{", "["):
        return
    with contextlib.suppress(ValueError, RecursionError):
        yield from texts_in(json.loads(secret))


def texts_in(value: Any) -> Iterator[str]:
    """Every text and number inside a JSON-like value, as text."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield str(value)
