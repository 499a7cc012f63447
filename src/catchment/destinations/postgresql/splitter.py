"""Texts cut into pieces for embedding, at the largest unit that fits: paragraphs, lines, words, characters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

_SEPARATORS = ("\n\n", "\n", " ", "")


def split(text: str, size: int, overlap: int, separators: Sequence[str] = _SEPARATORS) -> list[str]:
    """Pieces of at most `size` characters, each beginning with up to `overlap` of the one before; none of ''."""
    at = next((separator for separator in separators if separator in text), separators[-1])
    finer = separators[separators.index(at) + 1 :]
    found: list[str] = []
    short: list[str] = []
    for part in text.split(at) if at else text:
        if len(part) < size or not finer:
            short.append(part)
            continue
        found += _gathered(short, at, size, overlap)
        short = []
        found += split(part, size, overlap, finer)
    return [*found, *_gathered(short, at, size, overlap)]


def _gathered(parts: Sequence[str], joint: str, size: int, overlap: int) -> Iterator[str]:
    """Neighbours put together as long as they fit."""
    window: deque[str] = deque()
    length = 0
    for part in parts:
        if window and length + len(part) + len(joint) > size:
            yield from _trimmed(joint.join(window))
            while window and (length > overlap or length + len(part) + len(joint) > size):
                length -= len(window.popleft()) + (len(joint) if window else 0)
        length += len(part) + (len(joint) if window else 0)
        window.append(part)
    yield from _trimmed(joint.join(window))


def _trimmed(text: str) -> Iterator[str]:
    if text.strip():
        yield text.strip()
