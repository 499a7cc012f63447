"""Where the values of a document come from: file, line and column, and which must not be shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from catchment.errors import Problem
from catchment.redact import Redactor
from catchment.spec.report import printed

LONGEST = 10_000
"""Characters of a secret that is looked for in messages; of a longer one they have a part at most, which is masked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one value stands."""

    line: int
    column: int
    shown: str
    """Its path as it may be shown."""
    written: str = ""
    """The text with `${…}` that the value comes from; empty where it stands in the file itself."""
    masks: tuple[tuple[str, str], ...] = ()
    """What a message may have about it, and what is shown instead."""


@dataclass(slots=True)
class Origin:
    """Where everything in one document comes from; without a file it knows nothing and hides nothing."""

    file: str = ""
    line: int = 0
    column: int = 0
    places: dict[str, Place] = field(default_factory=dict)
    """By path."""
    secrets: set[str] = field(default_factory=set)
    """Values that came from outside the file; complete before the first problem is made."""
    unknown: set[str] = field(default_factory=set)
    """Paths whose `${…}` has no value."""
    _redactor: Redactor | None = None

    def is_unknown(self, path: str) -> bool:
        """Whether nothing can be said about the value at `path`, as its `${…}` has none."""
        return any(path == known or path.startswith((f"{known}.", f"{known}[")) for known in self.unknown)

    def text(self, path: str, value: object) -> str:
        """`value`, which stands at `path`, as it may be shown in a sentence: from outside the file, its `${…}`."""
        place = self._place(path)
        return place.written if place is not None and place.written else str(value)

    def problem(self, message: str, path: str = "", hint: str = "") -> Problem:
        """A mistake at `path`, with its place, and nothing in it that must not be shown."""
        place, rest = self._place(path), ""
        outer = path
        while place is None and outer:
            outer = outer[: max(outer.rfind("."), outer.rfind("["), 0)]
            place, rest = self._place(outer), path[len(outer) :]
        if place is None:
            return Problem(self._hidden(message), self.file, self.line, self.column, path, self._hidden(hint))
        if place.written and "expected a text" in message:
            hint = hint or "write it in quotes"
        for found, shown in place.masks:
            message = message.replace(found, shown)
        shown_path = (place.shown + rest).lstrip(".")
        return Problem(self._hidden(message), self.file, place.line, place.column, shown_path, self._hidden(hint))

    def _place(self, path: str) -> Place | None:
        """Known fields may be written in any case, so `spec.NAME` stands for `spec.name` too."""
        found = self.places.get(path)
        if found is None and self.places:
            found = next((place for known, place in self.places.items() if known.lower() == path.lower()), None)
        return found

    def _hidden(self, text: str) -> str:
        if self._redactor is None:
            self._redactor = Redactor(secret for secret in self.secrets if len(secret) <= LONGEST)
        return self._redactor.text(text)


def masks(
    value: object = None, written: str = "", *, key: str = "", shown_key: str = ""
) -> tuple[tuple[str, str], ...]:
    """What a message may have of a value that was written as `written`, and of a key that came from outside."""
    made = []
    if written:
        made.append((f"got {printed(value)}", f"got {written!r}"))
    if written and isinstance(value, str):
        made.append((repr(value), repr(written)))
    if key != shown_key:
        made.append((f'"{key}"', f'"{shown_key}"'))
    return tuple(made)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file, as they came, then by line and column; what concerns no file is last."""
    problems = list(problems)
    files = {file: number for number, file in enumerate(dict.fromkeys(p.file for p in problems if p.file))}
    return sorted(problems, key=lambda p: (files.get(p.file, len(files)), p.line, p.column))
