"""`catchment sync`: run a config, show progress, report, and tell by the exit code what came of it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from catchment.cli.output import (
    REDACTOR,
    announce,
    config_argument,
    license_option,
    load_plan,
    not_null_option,
    output_option,
    print_json,
    say,
    settings,
    warn,
)

if TYPE_CHECKING:
    from catchment.engine.plan import Plan
    from catchment.engine.result import Result
    from catchment.engine.sync import Sync


@click.command("sync")
@config_argument
@output_option
@click.option("--no-migrate", is_flag=True, help="Leave tables as they are.")
@click.option("--fail-on", type=click.Choice(["never", "table-error", "error"]), default="table-error",
              show_default=True, help="Which outcome makes the exit code non-zero.")  # fmt: skip
@click.option("--sources-in-parallel", type=click.IntRange(1), help="Sources that run at once. [default: one per core]")
@click.option("--progress", type=click.Choice(["auto", "rich", "plain", "none"]), default="auto", show_default=True)
@click.option("--shard", default="", metavar="NUM/TOTAL", help="Sync this part of the tables and clients only.")
@click.option("--summary-location", default="", metavar="FILE",
              help="Add a line of JSON about each source and destination to this file.")  # fmt: skip
@click.option("--tables-metrics-location", default="", metavar="FILE",
              help="Keep a table of rows, errors and durations in this file while the sync runs.")  # fmt: skip
@click.option("--prometheus-file", default="", metavar="FILE",
              help="Write what the run came to into a `.prom` file for Prometheus' node_exporter.")  # fmt: skip
@click.option("--no-journal", is_flag=True, help="Do not note this run in the journal, which `catchment runs` reads.")
@license_option
@not_null_option
def command(config: tuple[str, ...], output: str, fail_on: str, progress: str, **given: Any) -> int:
    """Sync every source of CONFIG (files or folders) into its destinations.

    Exit code: 0 all tables complete, 2 some tables had errors, 1 failed, 130 interrupted.
    """
    from catchment.cli import exports, logs
    from catchment.cli.metrics import keep_metrics
    from catchment.cli.progress import watch
    from catchment.cli.report import counts, print_report
    from catchment.engine.result import exit_code
    from catchment.engine.sync import Options, Sync

    options = Options(
        invocation_id=settings().invocation_id,
        sources_in_parallel=given["sources_in_parallel"] or 0,
        migrate=not given["no_migrate"],
        shard=_shard(given["shard"]),
        columns_not_null=given["cq_columns_not_null"],
        summary_location=_place("--summary-location", given["summary_location"]),
    )
    metrics_location = _place("--tables-metrics-location", given["tables_metrics_location"])
    watching = exports.text_file(_place("--prometheus-file", given["prometheus_file"]))
    plan = load_plan(config, output)
    sync = Sync(plan, options, [*exports.observers(plan), *watching])
    signals = _interruptible(sync)
    announce_all("Starting sync for", plan, output)
    if progress == "auto" and settings().log_console:
        progress = "none"
    with keep_metrics(sync, metrics_location), watch(sync, _how(progress, output)):
        result = _run(sync, signals)
    code = exit_code(result.outcome, fail_on, signals[0] if signals else 0)  # type: ignore[arg-type]
    if not given["no_journal"]:
        _keep(result, config, code)
    for note in sync.notes:
        say(f"Warning: {note}", err=True)
    logs.log.info("Sync summary", extra={**counts(result), "outcome": result.outcome})
    if output == "json":
        print_json(result.to_json())
    else:
        print_report(result)
    return code


def announce_all(what: str, plan: Plan, output: str) -> None:
    """A line for each source: where its rows go."""
    for source in plan.config.sources:
        names = " ".join(d.version_string for d in plan.config.destinations if d.name in source.destinations)
        announce(f"{what}: {source.version_string} -> [{names}]", output)


def _keep(result: Result, config: Sequence[str], code: int) -> None:
    """Note the run in the journal; that it cannot be written does not undo the sync."""
    from catchment.cli.report import counts
    from catchment.engine.journal import Journal
    from catchment.errors import CatchmentError

    found = counts(result)
    try:
        paths = [REDACTOR.text(os.path.abspath(path)) for path in config]
        Journal(settings().cq_dir).add(
            REDACTOR.value(result.to_json()), config=paths, exit_code=code, rows=found["resources"],
            errors=found["errors"],
        )  # fmt: skip
    except (CatchmentError, OSError) as error:
        # The folder that the command was started in may be gone, and with it all relative names.
        warn(f"this run is not in the journal: {error}; `--no-journal` keeps none")


def _how(progress: str, output: str) -> str:
    """How progress is shown: standard output is not for it when a document goes there."""
    return "plain" if output == "json" and progress == "auto" else progress


def _run(sync: Sync, signals: Sequence[int]) -> Result:
    """Run on a thread of its own, so that the main one wakes up now and then, and can leave it if it is stuck.

    Python runs signal handlers on the main thread alone, and a signal that comes just before it begins to wait is seen
    when the wait ends.
    """
    from catchment.engine.giving_up import ENDING_S

    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(sync.run())
        except BaseException as error:
            outcome.set_exception(error)

    # What is loaded by now stays; the collector would look at all of it again and again (7% of a sync's CPU).
    gc.freeze()
    threading.Thread(target=work, name="sync", daemon=True).start()
    interrupted_at = 0.0
    while not wait([outcome], timeout=0.2).done:
        if signals:
            interrupted_at = interrupted_at or time.monotonic()
            if time.monotonic() - interrupted_at > ENDING_S:
                return sync.give_up(ENDING_S)
    return outcome.result()


def _interruptible(sync: Sync) -> list[int]:
    """Have the first signal end the sync in order and the second at once; the signals that came."""
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            _end_at_once(128 + number)
        say("Interrupted: ending in order, once more to end at once", err=True)
        threading.Thread(target=sync.interrupt, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return signals


def _end_at_once(code: int) -> None:
    """End the process though threads are in the middle of a write: nothing waits any more."""
    if sys.stderr is not None and sys.stderr.isatty():
        # The live table hides the cursor.
        sys.stderr.write("\x1b[?25h")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)


def _shard(text: str) -> tuple[int, int] | None:
    """`NUM/TOTAL` as numbers."""
    if not text:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"invalid shard format {text!r}: expected NUM/TOTAL, such as 1/4")
    number, total = int(parts[0]), int(parts[1])
    if not 1 <= number <= total:
        raise click.UsageError(f"invalid shard format {text!r}: NUM must be from 1 to TOTAL")
    return number, total


def _place(option: str, text: str) -> str:
    """A file that a sync writes, looked at before it starts rather than when its rows are in."""
    path = Path(text)
    if text and path.is_dir():
        raise click.UsageError(f"{option}: {text!r} is a folder, name a file")
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists()) if text else path
    if text and not (os.access(folder, os.W_OK) and (folder.is_dir() or folder == path)):
        raise click.UsageError(f"{option}: {text!r} cannot be written, as {str(folder)!r} cannot")
    return text
