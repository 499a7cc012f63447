"""`catchment schema`: the JSON Schema of a config, for editors."""

from __future__ import annotations

import click

from catchment.cli.output import output_option, print_json


@click.command("schema")
@output_option
def command(output: str) -> int:
    """Print the JSON Schema of a config, for editors and for checks outside of catchment."""
    from catchment.spec.schema import config_schema

    print_json(config_schema())
    return 0
