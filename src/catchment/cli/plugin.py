"""`catchment plugin`: the plugins that are installed, and those that a config needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from catchment.cli.elsewhere import answer
from catchment.cli.output import announce, config_argument, load_config, output_option, print_json, say, settings, warn

if TYPE_CHECKING:
    from catchment.spec.model import PluginConfig


@click.group("plugin")
def command() -> None:
    """See what plugins there are, and fetch those that a config needs."""


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
    """Have every plugin of CONFIG on this machine, and tell what to do about those that cannot be had.

    Plugins of the registries `cloudquery` and `github` go into the cache of `--cq-dir`, images of `docker` into the
    Docker engine. Plugins for `registry: python` are Python packages, which `pip` installs.
    """
    from catchment.engine.acquire import install as install_plugins

    loaded = load_config(config, output, relaxed=True)
    plugins: list[PluginConfig] = [*loaded.sources, *loaded.destinations, *loaded.transformers]
    outcomes = install_plugins(plugins, settings().cq_dir, lambda text: announce(text, output), warn)
    states = {id(outcome.config): outcome for outcome in outcomes}
    found: list[dict[str, str]] = []
    for plugin in plugins:
        outcome = states.get(id(plugin))
        missing = str(outcome.error or "") if outcome is not None else _missing(plugin)
        new = "downloaded" if outcome is not None and outcome.is_new else "installed"
        place = plugin.image or plugin.program
        found.append({"kind": plugin.kind, "plugin": plugin.version_string, "missing": missing,
                      "state": "missing" if missing else new, "place": "" if missing else place})  # fmt: skip
    lacking = [entry for entry in found if entry["missing"]]
    if output == "json":
        document: dict[str, object] = {"plugins": found}
        if lacking:
            document["error"] = f"{len(lacking)} of {len(found)} plugins cannot be used"
        print_json(document)
    else:
        for entry in found:
            say(f"{entry['kind']} {entry['plugin']}: {entry['missing'] or entry['state']}")
        if lacking:
            say(f"Error: {len(lacking)} of {len(found)} plugins cannot be used", err=True)
    return 1 if lacking else 0


def _missing(plugin: PluginConfig) -> str:
    """Why a plugin cannot be used, and what to install; empty if it can."""
    from catchment.engine.foreign import REGISTRIES, check
    from catchment.engine.registry import factory, missing_packages
    from catchment.errors import CatchmentError

    try:
        if plugin.registry in REGISTRIES:
            check(plugin)
            return ""
        factory(plugin.kind, plugin.registry, plugin.path)
    except CatchmentError as error:
        return str(error)
    packages = missing_packages(plugin.kind, plugin.path)
    if not packages:
        return ""
    return f"lacks {', '.join(packages)}; pip install 'catchment[{plugin.path}]'"


@command.command("serve", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(name: str, arguments: tuple[str, ...]) -> None:
    """Serve the installed plugin NAME over gRPC, for `registry: grpc` and for other CLIs.

    NAME is that of `catchment plugin list`, as `destination/duckdb` where several have it, or `package.module:Object`.
    ARGUMENTS are those of `serve` in CloudQuery's plugins, such as `--network unix --address /tmp/plugin.sock`.
    """
    from catchment.serve import serve as serve_plugin

    # The root command takes these options wherever they stand.
    log_options = ["--log-level", settings().log_level, "--log-format", settings().log_format]
    serve_plugin(_target(name), ["serve", *log_options, *arguments])


def _target(name: str) -> str:
    """`package.module:Object` of an installed plugin."""
    from catchment.engine.registry import installed
    from catchment.errors import did_you_mean

    if ":" in name:
        return name
    plugins = installed()
    found = [plugin for plugin in plugins if name in (plugin.name, f"{plugin.kind}/{plugin.name}")]
    if len(found) == 1:
        return found[0].target
    if found:
        choices = " or ".join(f"`{plugin.kind}/{plugin.name}`" for plugin in found)
        raise click.ClickException(f"several plugins are called `{name}`; write {choices}")
    hint = did_you_mean(name, [f"{plugin.kind}/{plugin.name}" for plugin in plugins])
    raise click.ClickException(f"no plugin is called `{name}`; {hint}")


for _name in ("publish", "docs", "uiassets"):
    command.add_command(answer(f"plugin {_name}"))
