"""`catchment migrate`: make and change tables as a sync would, without rows."""

from __future__ import annotations

import click

from catchment.cli.output import (
    config_argument,
    license_option,
    load_plan,
    not_null_option,
    output_option,
    print_json,
    say,
    settings,
)


@click.command("migrate")
@config_argument
@output_option
@click.option("--sources-in-parallel", type=click.IntRange(1), help="Sources that run at once. [default: one per core]")
@license_option
@not_null_option
def command(config: tuple[str, ...], output: str, sources_in_parallel: int | None, cq_columns_not_null: bool) -> int:
    """Create and change every table that a sync of CONFIG would write; no rows."""
    from catchment.cli.exports import observers
    from catchment.cli.report import print_report
    from catchment.cli.sync import announce_all
    from catchment.engine.result import exit_code
    from catchment.engine.sync import Options, migrate

    plan = load_plan(config, output)
    options = Options(
        invocation_id=settings().invocation_id,
        sources_in_parallel=sources_in_parallel or 0,
        columns_not_null=cq_columns_not_null,
    )
    announce_all("Starting migration for", plan, output)
    result = migrate(plan, options, observers(plan))
    if output == "json":
        print_json(result.to_json())
    elif result.outcome == "complete":
        say(f"Migration completed successfully. Tables: {len(result.tables)}")
    else:
        print_report(result, "Migration")
    return exit_code(result.outcome, "table-error")
