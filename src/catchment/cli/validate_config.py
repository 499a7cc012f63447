"""`catchment validate-config`: check a config and every plugin's spec, and start nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from catchment.cli.output import config_argument, license_option, load_plan, output_option, print_json, say

if TYPE_CHECKING:
    from catchment.engine.plan import Plan
    from catchment.errors import SpecError
    from catchment.spec.model import PluginConfig


@click.command("validate-config")
@config_argument
@output_option
@license_option
def command(config: tuple[str, ...], output: str) -> int:
    """Check CONFIG and every plugin's spec; nothing is started and nothing is reached."""
    from catchment.errors import SpecError

    try:
        plan = load_plan(config, output)
    except SpecError as error:
        _refuse(error, output)
        return 1
    checked = [_checked(plugin, plan) for plugin in _plugins(plan)]
    if output == "json":
        warnings = [str(warning) for warning in (*plan.config.warnings, *plan.warnings)]
        print_json({"valid": True, "checked": checked, "warnings": warnings})
        return 0
    for plugin in checked:
        say(f"ok: {plugin['kind']} {plugin['plugin']}: {', '.join(plugin['what'])}")
    say(f"{len(checked)} plugins and how they refer to each other are checked; nothing was started or reached")
    return 0


def _refuse(error: SpecError, output: str) -> None:
    from dataclasses import asdict

    from catchment.cli.logs import log_failure

    log_failure(str(error))
    if output == "json":
        print_json({"valid": False, "error": str(error), "problems": [asdict(problem) for problem in error.problems]})
        return
    for problem in error.problems:
        say(f"Error: {problem}", err=True)
    count = len(error.problems)
    say(f"{count} mistake{'s' if count > 1 else ''}; nothing was started", err=True)


def _plugins(plan: Plan) -> list[PluginConfig]:
    return [*plan.config.sources, *plan.config.destinations, *plan.config.transformers]


def _checked(plugin: PluginConfig, plan: Plan) -> dict[str, Any]:
    """What was looked at, in words."""
    from catchment.spec.model import DestinationConfig, SourceConfig

    keys = f" ({', '.join(plugin.spec)})" if plugin.spec else ", which is empty"
    what = [f"its spec{keys}"]
    if isinstance(plugin, SourceConfig):
        what.append(f"its destinations ({', '.join(plugin.destinations)})")
        if plugin.backend_options is not None:
            what.append("where its cursors are kept")
    if isinstance(plugin, DestinationConfig):
        publish = "atomic" if plan.is_atomic(plugin) else "stream"
        what.append(
            f"that it can do what is asked (write_mode {plugin.write_mode}, migrate_mode {plugin.migrate_mode}, "
            f"publish {publish})"
        )
        if plugin.transformers:
            what.append(f"its transformers ({', '.join(plugin.transformers)})")
    return {"kind": plugin.kind, "plugin": plugin.version_string, "what": what}
