"""Every error that catchment raises on purpose, one class per reaction of the engine.

CatchmentError                 ours, raised on purpose; `hint` is printed after the message
├─ SpecError                   the config is wrong                → nothing was started
├─ PluginError                 a plugin failed                    → that table ends, the sync goes on
│  ├─ Transient                try again later                    → the writer or scheduler retries
│  ├─ PluginLost               the plugin as a whole is gone      → all its tables end, other plugins go on
│  ├─ RowsRefused              a batch has rows that do not fit    → they are looked for, named or put aside
│  ├─ Unsupported              the plugin cannot do this          → found before the sync starts
│  └─ MigrationRefused         an unsafe change in `safe` mode    → nothing is written to that table
└─ ProtocolError               the other side of the wire broke   → the sync ends

A message says what happened, with the value, and what to do; names stand in backquotes, values as `repr`,
secrets never. It starts in lower case and ends without a full stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class CatchmentError(Exception):
    """Any failure that catchment explains itself; all else is a bug and keeps its traceback."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What to do next, in one sentence; empty where the message says it already."""

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return f"{message}; {self.hint}" if self.hint else message


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a config: where it is, what is wrong, what to write instead."""

    message: str
    file: str = ""
    line: int = 0
    """Line in the file, from 1; 0 where the config did not come from a file."""
    column: int = 0
    """Column in that line, from 1, in characters; 0 where it is not known."""
    path: str = ""
    """Path inside the document, such as `spec.tables[0]`."""
    hint: str = ""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        where = " ".join(part for part in (place, self.path) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.hint}" if self.hint else text


class SpecError(CatchmentError):
    """Raised while a config is read, with every mistake in it; nothing was started."""

    def __init__(self, problems: Sequence[Problem] | str, *, hint: str = "") -> None:
        self.problems = (Problem(problems, hint=hint),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(CatchmentError):
    """Raised when a plugin fails on a table; the table ends there and the sync goes on."""


class Transient(PluginError):
    """Raised by a plugin for a failure that left nothing behind and may pass; the call is repeated with back-off."""

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        """Seconds to wait before the next try, when the other side said so."""


class PluginLost(PluginError):
    """Raised when a plugin as a whole is gone (a server that stays away, a process that died): all its tables end."""


class RowsRefused(PluginError):
    """Raised by a destination for a batch with rows that it cannot take; the rows alone are at fault, none went in."""

    def __init__(self, message: str, *, hint: str = "", column: str = "") -> None:
        super().__init__(message, hint=hint)
        self.column = column
        """The column that is at fault, where that is known."""


class Unsupported(PluginError):
    """Raised when a plugin is asked for what it never declared; the engine asks before a sync starts."""


class MigrationRefused(PluginError):
    """Raised when a table would have to change in a way that `migrate_mode: safe` does not allow."""


class ProtocolError(CatchmentError):
    """Raised when the other side of the wire breaks the protocol; the sync ends."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest known one, else at most ten of them; empty if there are none."""
    names = sorted(set(known))
    near = get_close_matches(name, names, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    if not names:
        return ""
    shown = ", ".join(f"`{known_name}`" for known_name in names[:10])
    return f"known names are {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
