"""What is said when a command cannot go on: one message, never a traceback for a user's mistake."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from catchment.cli.logs import log_failure
from catchment.cli.output import print_json, say
from catchment.errors import CatchmentError, SpecError


def tell(error: Exception, arguments: Sequence[str]) -> int:
    """Print and log `error`; the exit code. With `--output json` among the arguments, as a JSON document."""
    text = _text(error)
    log_failure(text)
    if not isinstance(error, (CatchmentError, click.ClickException, click.Abort, OSError)):
        # A bug of ours or of a plugin: whoever mends it needs to see where.
        say("".join(traceback.format_exception(error)).rstrip(), err=True)
    if wants_json(arguments):
        document: dict[str, Any] = {"error": text}
        if isinstance(error, SpecError):
            document["problems"] = [asdict(problem) for problem in error.problems]
        print_json(document)
    else:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            say(error.ctx.get_usage(), err=True)
        say(f"Error: {text}", err=True)
    return 130 if isinstance(error, click.Abort) else 1


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for a JSON document; also where it could not be parsed to its end."""
    return "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)


def _text(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, click.Abort):
        return "aborted"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return str(error) if isinstance(error, CatchmentError) else f"{type(error).__name__}: {error}"
