"""`catchment validate-config`: check a config and every plugin's spec, and sync nothing."""

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
    """Check CONFIG and every plugin's spec; programs of `registry: local` are started to ask what theirs may have."""
    from catchment.engine.foreign import REGISTRIES
    from catchment.engine.foreign_spec import Held, hold
    from catchment.errors import SpecError

    try:
        plan = load_plan(config, output, fetch=False)
        plugins = _plugins(plan)
        held = [hold(each, plan.redactor) if each.registry in REGISTRIES else Held() for each in plugins]
        problems = [problem for each in held for problem in each.problems]
        if problems:
            raise SpecError(problems)
    except SpecError as error:
        _refuse(error, output)
        return 1
    checked = [_checked(plugin, plan, each.unchecked) for plugin, each in zip(plugins, held, strict=True)]
    if output == "json":
        warnings = [str(warning) for warning in (*plan.config.warnings, *plan.warnings)]
        print_json({"valid": True, "checked": checked, "warnings": warnings})
        return 0
    for plugin in checked:
        if plugin["what"]:
            say(f"ok: {plugin['kind']} {plugin['plugin']}: {', '.join(plugin['what'])}")
        if plugin["unchecked"]:
            say(f"not checked: {plugin['kind']} {plugin['plugin']}: its spec, as {plugin['unchecked']}")
    say(f"{len(checked)} plugins and how they refer to each other are checked; nothing was read or written")
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
    say(f"{count} mistake{'s' if count > 1 else ''}; nothing was read or written", err=True)


def _plugins(plan: Plan) -> list[PluginConfig]:
    return [*plan.config.sources, *plan.config.destinations, *plan.config.transformers]


def _checked(plugin: PluginConfig, plan: Plan, unchecked: str) -> dict[str, Any]:
    """What was looked at, in words; `unchecked` is why its spec was not."""
    from catchment.spec.model import DestinationConfig, SourceConfig

    keys = f" ({', '.join(plugin.spec)})" if plugin.spec else ", which is empty"
    what = [] if unchecked else [f"its spec{keys}"]
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
    return {"kind": plugin.kind, "plugin": plugin.version_string, "what": what, "unchecked": unchecked}
