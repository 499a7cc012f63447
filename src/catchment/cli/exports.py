"""What commands export to other systems: OpenTelemetry's collectors, and the text file of `--prometheus-file`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catchment.cli import logs
from catchment.cli.output import AT_END, REDACTOR, say, settings

if TYPE_CHECKING:
    from catchment.engine.observe import Observer
    from catchment.engine.plan import Plan


def observers(plan: Plan) -> list[Observer]:
    """What the run of a plan is to tell; what they have left is sent at the end of the command."""
    from catchment.telemetry.exports import Exports

    def warn(text: str) -> None:
        say(f"Warning: {text}", err=True)

    exports = Exports(plan.config, REDACTOR, settings().invocation_id, logs.exporter(), warn)

    def close() -> None:
        for failure in exports.close():
            warn(failure)

    AT_END.append(close)
    return exports.observers


def text_file(place: str) -> list[Observer]:
    """What keeps the file up to date: it is begun now, and ended with the command; nothing where `place` is empty."""
    if not place:
        return []
    from catchment.telemetry.prometheus import TextFile

    file = TextFile(Path(place), REDACTOR, settings().invocation_id)
    if not file.is_read:
        say(f"Warning: node_exporter reads files that end in `.prom`, and not {place!r}", err=True)
    try:
        file.begin()
    except OSError as error:
        raise click.UsageError(f"--prometheus-file: {place!r} cannot be written: {error.strerror}") from None

    def close() -> None:
        try:
            file.end()
        except OSError as error:
            say(f"Warning: the file for Prometheus could not be written: {error}", err=True)

    AT_END.append(close)
    return [file]
