"""What log records are about: fields of every record that is made while a block runs, whoever makes it.

A driver that warns of something does not know for which table it works; the thread that called it does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

_NOTHING: Mapping[str, str] = {}
_FIELDS: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=_NOTHING)


def current() -> Mapping[str, str]:
    """The fields in force; a thread that works for this one is given them, as it begins with none."""
    return _FIELDS.get()


@contextlib.contextmanager
def about(fields: Mapping[str, str] = _NOTHING, **more: str) -> Iterator[None]:
    """Add fields to what is logged by this thread while the block runs."""
    token = _FIELDS.set({**_FIELDS.get(), **fields, **more})
    try:
        yield
    finally:
        _FIELDS.reset(token)
