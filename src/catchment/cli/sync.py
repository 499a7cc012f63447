"""`catchment sync`: run a config, show progress, report, and tell by the exit code what came of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from catchment.cli.output import config_argument, load_plan, output_option, print_json


@click.command("sync")
@config_argument
@output_option
@click.option("--no-migrate", is_flag=True, help="Leave tables as they are.")
@click.option("--fail-on", type=click.Choice(["never", "table-error", "error"]), default="table-error",
              show_default=True, help="Which outcome makes the exit code non-zero.")  # fmt: skip
@click.option("--sources-in-parallel", type=click.IntRange(1), help="Sources that run at once. [default: one per core]")
@click.option("--progress", type=click.Choice(["auto", "rich", "plain", "none"]), default="auto", show_default=True)
@click.option("--invocation-id", default="", help="Id of this run. [default: a random UUID]")
@click.option("--shard", default="", help="NUM/TOTAL: sync this part of the tables and clients only.")
@click.option("--cq-columns-not-null", is_flag=True, hidden=True)
def command(
    config: tuple[str, ...],
    output: str,
    no_migrate: bool,
    fail_on: str,
    sources_in_parallel: int | None,
    progress: str,
    invocation_id: str,
    shard: str,
    cq_columns_not_null: bool,
) -> int:
    """Sync every source of CONFIG (files or folders) into its destinations.

    Exit code: 0 all tables complete, 2 some tables had errors, 1 failed, 130 interrupted.
    """
    from catchment.cli.progress import watch
    from catchment.cli.report import print_report
    from catchment.engine.result import exit_code
    from catchment.engine.sync import Options, Sync

    options = Options(
        invocation_id=invocation_id,
        sources_in_parallel=sources_in_parallel or 0,
        migrate=not no_migrate,
        shard=_shard(shard),
        columns_not_null=cq_columns_not_null,
    )
    plan = load_plan(config)
    sync = Sync(plan, options)
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            # A second signal means now: nothing waits any more.
            raise SystemExit(128 + number)
        click.echo("Interrupted: ending in order, once more to end at once", err=True)
        threading.Thread(target=sync.interrupt, daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    for source in plan.config.sources:
        names = " ".join(d.version_string for d in plan.config.destinations if d.name in source.destinations)
        click.echo(f"Starting sync for: {source.version_string} -> [{names}]", err=output == "json")
    with watch(sync, progress if output == "text" or progress != "auto" else "plain"):
        result = sync.run()
    if output == "json":
        print_json(result.to_json())
    else:
        print_report(result)
    return exit_code(result.outcome, fail_on, signals[0] if signals else 0)  # type: ignore[arg-type]


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
