"""`catchment plugin`: the plugins that are installed, and those that a config lacks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from catchment.cli.elsewhere import answer
from catchment.cli.output import config_argument, load_config, output_option, print_json, say

if TYPE_CHECKING:
    from catchment.spec.model import PluginConfig


@click.group("plugin")
def command() -> None:
    """See what plugins there are, and which a config lacks."""


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
            say(f"{plugin.kind:<12} {plugin.name:<14} {plugin.target}  ({plugin.distribution})")
    return 0


@command.command("install")
@config_argument
@output_option
def install(config: tuple[str, ...], output: str) -> int:
    """Tell which plugins of CONFIG are installed, and what to install for those that are not.

    Nothing is downloaded: plugins for `registry: python` are Python packages, which `pip` installs.
    """
    loaded = load_config(config, output, relaxed=True)
    plugins: list[PluginConfig] = [*loaded.sources, *loaded.destinations, *loaded.transformers]
    found = [{"kind": p.kind, "plugin": p.version_string, "missing": _missing(p)} for p in plugins]
    lacking = [entry for entry in found if entry["missing"]]
    if output == "json":
        document: dict[str, object] = {"plugins": found}
        if lacking:
            document["error"] = f"{len(lacking)} of {len(found)} plugins cannot be used"
        print_json(document)
    else:
        for entry in found:
            say(f"{entry['kind']} {entry['plugin']}: {entry['missing'] or 'installed'}")
        if lacking:
            say(f"Error: {len(lacking)} of {len(found)} plugins cannot be used", err=True)
    return 1 if lacking else 0


def _missing(plugin: PluginConfig) -> str:
    """Why a plugin cannot be used, and what to install; empty if it can."""
    from catchment.engine.registry import factory, missing_packages
    from catchment.errors import CatchmentError

    try:
        factory(plugin.kind, plugin.registry, plugin.path)
    except CatchmentError as error:
        return str(error)
    packages = missing_packages(plugin.kind, plugin.path)
    if not packages:
        return ""
    return f"lacks {', '.join(packages)}; pip install 'catchment[{plugin.path}]'"


for _name in ("publish", "docs", "uiassets"):
    command.add_command(answer(f"plugin {_name}"))
