"""`catchment validate-config`: check a config and every plugin's spec, and start nothing."""

from __future__ import annotations

import click

from catchment.cli.output import config_argument, load_plan, output_option, print_json


@click.command("validate-config")
@config_argument
@output_option
def command(config: tuple[str, ...], output: str) -> int:
    """Check CONFIG and every plugin's spec; nothing is started and nothing is reached."""
    from catchment.errors import SpecError

    try:
        checked = load_plan(config).config
    except SpecError as error:
        if output == "json":
            print_json({"valid": False, "problems": [_document(problem) for problem in error.problems]})
        else:
            for problem in error.problems:
                click.echo(f"Error: {problem}", err=True)
            count = len(error.problems)
            click.echo(f"{count} mistake{'s' if count > 1 else ''}; nothing was started", err=True)
        return 1
    plugins = [*checked.sources, *checked.destinations, *checked.transformers]
    if output == "json":
        print_json({"valid": True, "checked": [plugin.version_string for plugin in plugins]})
    else:
        for plugin in plugins:
            click.echo(f"ok: {plugin.kind} {plugin.version_string}")
    return 0


def _document(problem: object) -> dict[str, object]:
    from dataclasses import asdict

    from catchment.errors import Problem

    assert isinstance(problem, Problem)
    return asdict(problem)
