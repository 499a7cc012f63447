"""`catchment test-connection`: try to reach every source and destination of a config."""

from __future__ import annotations

from collections.abc import Callable

import click

from catchment.cli.output import config_argument, load_config, output_option, print_json


@click.command("test-connection")
@config_argument
@output_option
def command(config: tuple[str, ...], output: str) -> int:
    """Try to reach every source and destination of CONFIG."""
    from catchment.engine import registry

    loaded = load_config(config, relaxed=True)
    outcomes: list[dict[str, object]] = []
    for source in loaded.sources:

        def try_source() -> None:
            plugin = registry.make_source(source.registry, source.path)  # noqa: B023
            try:
                plugin.init(source.spec)  # noqa: B023
                plugin.test_connection()
            finally:
                plugin.close()

        outcomes.append(_outcome("source", source.version_string, try_source))
    for destination in loaded.destinations:

        def try_destination() -> None:
            plugin = registry.make_destination(destination.registry, destination.path)  # noqa: B023
            plugin.init(destination.spec, no_connection=True)  # noqa: B023
            plugin.test_connection()

        outcomes.append(_outcome("destination", destination.version_string, try_destination))
    if output == "json":
        print_json({"results": outcomes})
    else:
        for outcome in outcomes:
            state = "Success" if outcome["success"] else f"Failure: {outcome['error']}"
            click.echo(f"{outcome['kind']:<12} {outcome['plugin']}  {state}")
    return 0 if all(outcome["success"] for outcome in outcomes) else 1


def _outcome(kind: str, plugin: str, attempt: Callable[[], None]) -> dict[str, object]:
    from catchment.errors import CatchmentError

    try:
        attempt()
    except CatchmentError as error:
        return {"kind": kind, "plugin": plugin, "success": False, "error": str(error)}
    return {"kind": kind, "plugin": plugin, "success": True, "error": ""}
