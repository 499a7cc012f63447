"""`catchment plugin list`: the plugins that are installed; none of them is imported."""

from __future__ import annotations

from dataclasses import asdict

import click

from catchment.cli.output import output_option, print_json


@click.group("plugin")
def command() -> None:
    """See what plugins there are."""


@command.command("list")
@output_option
def list_plugins(output: str) -> int:
    """List the installed plugins for `registry: python`."""
    from catchment.engine.registry import installed

    plugins = installed()
    if output == "json":
        print_json([asdict(plugin) for plugin in plugins])
    else:
        for plugin in plugins:
            click.echo(f"{plugin.kind:<12} {plugin.name:<14} {plugin.target}  ({plugin.distribution})")
    return 0
