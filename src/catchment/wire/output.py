"""What a started plugin prints: its log lines are read, counted, and logged here under their own level.

Plugins log JSON objects on standard output. A source's errors may be there only, so no line is lost for its length.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from catchment import log_context

LINE_BYTES = 1 << 20
"""Bytes of a line that are kept; of a longer one the beginning is, and its level."""
LAST_LINES = 20
"""Lines that are told when the plugin dies."""
_LEVELS = {
    "trace": 5,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.ERROR,
    "fatal": logging.ERROR,
    "panic": logging.ERROR,
}
_LEVEL = re.compile(rb'"level"\s*:\s*"(\w+)"')
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


@dataclass(frozen=True, slots=True)
class Logged:
    """An error line, or a line that tells of rows left out."""

    text: str
    table: str = ""
    """The table that it names; empty if it names none."""
    client: str = ""
    rows_skipped: int = 0


class Output:
    """Reads both streams of a process, or the one of a container, on a thread of its own until they end."""

    def __init__(self, name: str, stdout: IO[bytes], stderr: IO[bytes] | None = None) -> None:
        self.warnings = 0
        self.errors = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        """The last lines, as text."""
        self._log = logging.getLogger(f"catchment.plugin.{name}")
        self._logged: list[Logged] = []
        self._streams = {stdout.fileno(): _Lines(self._json)}
        self._files = [stdout]
        if stderr is not None:
            self._streams[stderr.fileno()] = _Lines(self._plain)
            self._files.append(stderr)
        self._wake, self._waker = os.pipe()
        self._settled = threading.Condition()
        self._asked = self._answered = 0
        self._ended = False
        about = {**log_context.current(), "plugin": name}
        self._thread = threading.Thread(target=self._read_about, args=(about,), name=f"log-{name}", daemon=True)
        self._thread.start()

    def settle(self, timeout_s: float = 2.0) -> None:
        """Return when everything that the process has printed by now is counted."""
        with self._settled:
            if self._ended:
                return
            self._asked += 1
            wanted = self._asked
            os.write(self._waker, b"!")
            self._settled.wait_for(lambda: self._ended or self._answered >= wanted, timeout=timeout_s)

    def take(self) -> list[Logged]:
        """The error lines since the last call."""
        taken, self._logged = self._logged, []
        return taken

    def close(self, timeout_s: float = 1.0) -> None:
        """Read to the end, which comes when the process and all it started have ended; give up after a while."""
        self._thread.join(timeout_s)
        with self._settled:
            if not self._ended:
                self._ended = True
                os.write(self._waker, b"!")
        self._thread.join(timeout_s)

    def _read_about(self, about: Mapping[str, str]) -> None:
        with log_context.about(about):
            self._read()

    def _read(self) -> None:
        try:
            while self._streams and not self._ended:
                ready, _, _ = select.select([*self._streams, self._wake], [], [])
                for descriptor in ready:
                    if descriptor != self._wake:
                        self._take(descriptor)
                if ready == [self._wake]:
                    asked = self._asked
                    os.read(self._wake, 4096)
                    # Only what is there at this moment counts, and nothing was.
                    with self._settled:
                        self._answered = asked
                        self._settled.notify_all()
        finally:
            with self._settled:
                self._ended = True
                self._settled.notify_all()
                for file in self._files:
                    file.close()
                os.close(self._wake)
                os.close(self._waker)

    def _take(self, descriptor: int) -> None:
        data = os.read(descriptor, 1 << 16)
        if data:
            self._streams[descriptor].add(data)
        else:
            self._streams.pop(descriptor).end()

    def _plain(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self.last.append(text[:2000])
        self._log.info("%s", text, extra={"stream": "stderr"})

    def _json(self, line: bytes) -> None:
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._no_object(line)
            return
        name = str(found.pop("level", ""))
        text = str(found.pop("message", "") or found.pop("event", "") or found.pop("msg", ""))
        self._note(name, text, found)

    def _no_object(self, line: bytes) -> None:
        """A line that is no JSON, or one that was cut."""
        level = _LEVEL.search(line) if len(line) >= LINE_BYTES else None
        text = line.decode(errors="replace")
        if level is not None:
            table = re.search(r'"table"\s*:\s*"([^"\\]+)"', text)
            self._note(level[1].decode(), text[:2000] + "…", {"table": table[1]} if table else {})
            return
        self.last.append(text[:2000])
        self._log.info("%s", text, extra={"level": "unknown"})

    def _note(self, name: str, text: str, fields: dict[str, Any]) -> None:
        level = _LEVELS.get(name.lower(), logging.ERROR)
        error = str(fields.get("error", ""))
        told = f"{text}: {error}" if error and error not in text else text
        if level >= logging.WARNING:
            self.last.append(told[:2000])
            table, client = (str(fields.get(key, "") or "") for key in ("table", "client"))
            skipped = fields.get("rows_skipped")
            if level >= logging.ERROR:
                self.errors += name.lower() in _LEVELS
                self._logged.append(Logged(told, table, client))
            else:
                self.warnings += 1
                if isinstance(skipped, int) and table:
                    self._logged.append(Logged(told, table, client, skipped))
        if self._log.isEnabledFor(level):
            extra = {f"plugin_{key}" if key in _TAKEN else str(key): value for key, value in fields.items()}
            self._log.log(level, "%s", text if name.lower() in _LEVELS else f"unknown level: {text}", extra=extra)


class _Lines:
    """Cuts a stream into lines; of a line that is too long the rest is dropped."""

    def __init__(self, take: Any) -> None:
        self._take = take
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take what was read."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._keep(part)
            self.end()
        self._keep(rest)

    def end(self) -> None:
        """The line is whole."""
        line = b"".join(self._parts).strip()
        self._parts, self._size = [], 0
        if line:
            self._take(line)

    def _keep(self, part: bytes) -> None:
        part = part[: LINE_BYTES - self._size]
        if part:
            self._parts.append(part)
            self._size += len(part)
