"""How a download is followed and broken off, and how long it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may take."""

    connect_s: float = 10.0
    stalled_s: float = 30.0
    """How long the other side may take for an answer, and for each piece of `piece_bytes`."""
    piece_bytes: int = 32 << 10
    total_s: float = 1800.0
    """How long a download may take with all its attempts, and another process that is at the same plugin."""
    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0
    """Longest wait before another attempt; whoever asks for more gets none."""
    archive_bytes: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Watch:
    """Whoever waits for a download."""

    tell: Callable[[str], None]
    """Told what goes on, a line at a time."""
    warn: Callable[[str], None]
    """Told what may be wrong and does not end it."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to break it off."""
    limits: Limits = Limits()
