"""`catchment migrate`: make and change tables as a sync would, without rows."""

from __future__ import annotations

import click

from catchment.cli.output import config_argument, load_plan, output_option, print_json


@click.command("migrate")
@config_argument
@output_option
@click.option("--sources-in-parallel", type=click.IntRange(1), help="Sources that run at once. [default: one per core]")
def command(config: tuple[str, ...], output: str, sources_in_parallel: int | None) -> int:
    """Create and change every table that a sync of CONFIG would write; no rows."""
    from catchment.cli.report import print_report
    from catchment.engine.result import exit_code
    from catchment.engine.sync import Options, migrate

    result = migrate(load_plan(config), Options(sources_in_parallel=sources_in_parallel or 0))
    if output == "json":
        print_json(result.to_json())
    elif result.outcome == "complete":
        click.echo(f"Migration completed successfully. Tables: {len(result.tables)}")
    else:
        print_report(result)
    return exit_code(result.outcome, "table-error")
