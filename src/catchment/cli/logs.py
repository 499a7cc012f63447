"""The log of a run: a file, and standard error if asked; every line names the run, secrets are in none."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from catchment import __version__
from catchment.cli.output import AT_END, Settings, say
from catchment.redact import RedactingFilter, Redactor, fields_of

if TYPE_CHECKING:
    from catchment.telemetry.otlp import Exporter

log = logging.getLogger("catchment.cli")

_EXPORTERS: list[Exporter] = []
"""The one of the command that runs, or none."""

TRACE = 5
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_NAMES = (
    (logging.CRITICAL, "fatal", "FTL"),
    (logging.ERROR, "error", "ERR"),
    (logging.WARNING, "warn", "WRN"),
    (logging.INFO, "info", "INF"),
    (logging.DEBUG, "debug", "DBG"),
    (0, "trace", "TRC"),
)


def start(settings: Settings, redactor: Redactor) -> None:
    """Begin the log. Raises `click.ClickException` when a file that was asked for cannot be opened."""
    handlers: list[logging.Handler] = []
    if settings.log_file:
        try:
            handlers.append(_File(settings.log_file, mode="w" if settings.log_file_overwrite else "a"))
        except OSError as error:
            text = f"the log file {settings.log_file!r} cannot be opened: {error.strerror}"
            if settings.log_file_is_wanted:
                raise click.ClickException(f"{text}; name another one, or use --no-log-file") from None
            say(f"Warning: {text}; nothing is logged", err=True)
    if settings.log_console:
        handlers.append(logging.StreamHandler(sys.stderr))
    exporter = _exporter(settings, redactor)
    if exporter is not None and exporter.handler is not None:
        handlers.append(exporter.handler)
    formatter = (_Json if settings.log_format == "json" else _Text)(settings.invocation_id)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(RedactingFilter(redactor))
    root = logging.getLogger()
    # Without any handler Python would print warnings to standard error.
    root.handlers = handlers or [logging.NullHandler()]
    root.setLevel(_LEVELS[settings.log_level])
    # What they say of requests has addresses with signatures in them.
    for name in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # That a collector is away is told once, at the end.
    logging.getLogger("opentelemetry").propagate = False
    logging.captureWarnings(True)
    # A full disk must not print a traceback for each line that is not logged.
    logging.raiseExceptions = False
    threading.excepthook = _thread_ended
    log.info("catchment", extra={"version": __version__, "cq_dir": settings.cq_dir})


def log_failure(text: str) -> None:
    """Log why the command ends, if there is a log."""
    if logging.getLogger().handlers:
        log.error("exiting with error", extra={"error": text})


def _exporter(settings: Settings, redactor: Redactor) -> Exporter | None:
    """The exporter that the environment asks for; it stays until the command has ended."""
    from catchment.telemetry import collectors

    if collectors.from_environment(os.environ) is None:
        return None
    from catchment.telemetry.exports import from_environment

    def warn(text: str) -> None:
        say(f"Warning: {text}", err=True)

    def close() -> None:
        _EXPORTERS.clear()
        failure = made.close() if made is not None else ""
        if failure:
            warn(failure)

    made = from_environment(os.environ, redactor, settings.invocation_id, warn)
    if made is not None:
        _EXPORTERS.append(made)
        AT_END.append(close)
    return made


def exporter() -> Exporter | None:
    """What the environment had telemetry exported by; None for nothing."""
    return _EXPORTERS[0] if _EXPORTERS else None


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """A thread's last exception, which Python would print with all that is in it."""
    error = args.exc_value or args.exc_type()
    log.critical("a thread ended", exc_info=error)
    say(f"Error: a thread ended: {type(error).__name__}: {error}", err=True)


class _File(logging.FileHandler):
    """A file that only its owner may read."""

    def _open(self) -> Any:
        def open_privately(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return open(self.baseFilename, self.mode, encoding="utf-8", opener=open_privately)


class _Formatter(logging.Formatter):
    def __init__(self, invocation_id: str) -> None:
        super().__init__()
        self._invocation_id = invocation_id

    def parts(self, record: logging.LogRecord) -> tuple[str, str, dict[str, Any]]:
        """Time, module and fields of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        fields = {name: value for name, value in fields_of(record).items() if value not in ("", None)}
        if record.exc_text:
            fields.setdefault("error", record.exc_text.rpartition("\n")[2])
        return moment, record.name.removeprefix("catchment."), fields | {"invocation_id": self._invocation_id}


class _Text(_Formatter):
    """`2026-11-22T11:30:29Z INF Start sync destinations=["db"] invocation_id=… module=sync source=files`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback of an exception below it."""
        moment, module, fields = self.parts(record)
        code = next(code for level, _, code in _NAMES if record.levelno >= level)
        fields["module"] = module
        named = [f"{name}={_quoted(fields[name])}" for name in sorted(fields, key=lambda name: (name != "error", name))]
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        traceback = f"\n{record.exc_text}" if record.exc_text else ""
        return f"{moment} {code} {' '.join([message, *named])}{traceback}"


class _Json(_Formatter):
    """`{"level":"info","module":"sync","invocation_id":"…",<fields>,"time":"…","message":"…"}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        moment, module, fields = self.parts(record)
        level = next(name for level, name, _ in _NAMES if record.levelno >= level)
        made = {"level": level, "module": module, "invocation_id": fields.pop("invocation_id"), **fields}
        if record.exc_text:
            made["stacktrace"] = record.exc_text
        made |= {"time": moment, "message": record.getMessage()}
        return json.dumps(made, ensure_ascii=False, separators=(",", ":"), default=str)


def _quoted(value: Any) -> str:
    """A field's value as text, in quotes where it has to be."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    plain = value.isascii() and value.isprintable() and not set(value) & set(' "\\')
    return value if plain else json.dumps(value, ensure_ascii=False)
