"""The log of a served plugin: lines on standard output, in the shape that CloudQuery's CLI reads.

A JSON line has `level`, `module`, `invocation_id`, `message` and fields; longer ones than the CLI's buffer are cut
inside, as it would throw away what is in them.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import sys
import threading
from typing import Any

from catchment.redact import fields_of

LINE_BYTES = 4096
"""Longest line that CloudQuery's CLI reads, its end included."""
TRACE = 5
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}


class PluginLog(logging.Handler):
    """Writes whole lines to a file descriptor."""

    def __init__(self, descriptor: int, *, json_lines: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._json_lines = json_lines
        self._invocation_id = ""
        self.path = ""
        """`kind/name` of the plugin, once it is known."""
        self._reader: select.poll | None = None
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            self._reader = select.poll()
            self._reader.register(descriptor, 0)

    def begin(self, invocation_id: str) -> None:
        """Name the run that follows in every line."""
        self._invocation_id = invocation_id

    def is_deserted(self) -> bool:
        """Whether the lines went into a pipe that nobody reads any more: the program that started the plugin is gone.

        Go's plugins die of their next line then; ours would live on, and keep what they have locked.
        """
        return self._reader is not None and bool(self._reader.poll(0))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a reader that is gone is no error."""
        try:
            line = self._json(record) if self._json_lines else self._text(record)
            os.write(self._descriptor, line)
        except OSError:
            pass
        except Exception:
            self.handleError(record)

    def _parts(self, record: logging.LogRecord) -> dict[str, Any]:
        kind, _, name = self.path.partition("/")
        made: dict[str, Any] = {"level": level_name(record.levelno), "module": f"{name}-{kind}" if name else "plugin"}
        if self._invocation_id:
            made["invocation_id"] = self._invocation_id
        fields = {key: value for key, value in fields_of(record).items() if value not in ("", None)}
        if record.exc_info:
            fields["stack"] = logging.Formatter().formatException(record.exc_info)
        return (
            made | {key: value for key, value in fields.items() if key not in made} | {"message": record.getMessage()}
        )

    def _json(self, record: logging.LogRecord) -> bytes:
        return fitting(self._parts(record))

    def _text(self, record: logging.LogRecord) -> bytes:
        parts = self._parts(record)
        named = " ".join(f"{key}={value}" for key, value in parts.items() if key not in ("level", "message"))
        return f"{parts['level'].upper()[:3]} {parts['message']} {named}\n".encode()


def fitting(line: dict[str, Any]) -> bytes:
    """`line` as JSON of less than `LINE_BYTES`: the longest texts in it are cut until it fits."""
    made = _encoded(line)
    while len(made) >= LINE_BYTES:
        texts = {key: str(value) for key, value in line.items() if key != "level"}
        longest = max(texts, key=lambda key: len(texts[key]))
        if len(texts[longest]) < 8:
            return _encoded({"level": line["level"], "message": "a log line with too many fields was left out"})
        line = line | {longest: texts[longest][: len(texts[longest]) * 2 // 3] + "…"}
        made = _encoded(line)
    return made


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace") + b"\n"


def level_name(number: int) -> str:
    """The protocol's word for a level of `logging`."""
    return next((name for name in ("error", "warn", "info", "debug") if number >= _LEVELS[name]), "trace")


def level_number(name: str) -> int:
    """The inverse of `level_name`."""
    return _LEVELS[name]


def start_log(level: str, *, json_lines: bool) -> PluginLog:
    """Log to what was standard output; what else is printed goes to standard error, so that every line is one."""
    sys.stdout.flush()
    handler = PluginLog(os.dup(1), json_lines=json_lines)
    os.dup2(2, 1)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level_number(level))
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    threading.excepthook = _thread_ended
    return handler


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    logging.getLogger("catchment.serve").error("a thread ended: %s", error, exc_info=error)
