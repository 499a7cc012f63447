"""From a config to what will run: every plugin's spec and every destination's abilities are checked, nothing starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from catchment.engine import registry
from catchment.errors import CatchmentError, Problem, SpecError
from catchment.plugin import Capabilities
from catchment.spec.model import Config, DestinationConfig, PluginConfig, SourceConfig

CONNECTION = re.compile(r"@@plugins\.([a-zA-Z0-9_.-]+)\.connection")


@dataclass(frozen=True, slots=True)
class Plan:
    """A config whose plugins are there and whose wishes they can fulfil."""

    config: Config
    capabilities: Mapping[str, Capabilities]
    """By name of the destination; what it can do with its spec."""

    def is_atomic(self, destination: DestinationConfig) -> bool:
        """Whether full tables are staged and published together."""
        return (
            destination.write_mode == "overwrite-delete-stale"
            and destination.publish != "stream"
            and self.capabilities[destination.name].publish != "none"
        )


def make_plan(config: Config, problems: Sequence[Problem] = ()) -> Plan:
    """Check what only the plugins know. Raises `SpecError` with every mistake at once, `problems` in front of them."""
    problems = list(problems)
    capabilities: dict[str, Capabilities] = {}

    def attempt(plugin_config: PluginConfig, check: Callable[[], None]) -> None:
        try:
            check()
        except SpecError as error:
            problems.extend(plugin_config.located(problem) for problem in error.problems)
        except CatchmentError as error:
            problems.append(plugin_config.located(Problem(str(error.args[0]), hint=error.hint)))

    for source in config.sources:
        attempt(source, lambda source=source: _check_source(source))  # type: ignore[misc]
    for transformer in config.transformers:
        attempt(
            transformer,
            lambda it=transformer: registry.make_transformer(it.registry, it.path).init(it.spec),  # type: ignore[misc]
        )
    for destination in config.destinations:

        def check(destination: DestinationConfig = destination) -> None:
            plugin = registry.make_destination(destination.registry, destination.path)
            plugin.init(destination.spec, no_connection=True)
            capabilities[destination.name] = plugin.capabilities
            _check_destination(destination, plugin.capabilities)

        attempt(destination, check)
    for source in config.sources:
        attempt(source, lambda source=source: _check_backend(source, config, capabilities))  # type: ignore[misc]
    if problems:
        raise SpecError(problems)
    return Plan(config, capabilities)


def backend_destination(source: SourceConfig) -> str:
    """Name of the destination that keeps the source's cursors; empty if it keeps none."""
    if source.backend_options is None:
        return ""
    found = CONNECTION.fullmatch(source.backend_options.connection)
    return found[1] if found else ""


def _check_source(source: SourceConfig) -> None:
    plugin = registry.make_source(source.registry, source.path)
    plugin.init(source.spec, no_connection=True)
    plugin.close()


def _check_destination(destination: DestinationConfig, capabilities: Capabilities) -> None:
    problems = []
    if destination.write_mode not in capabilities.write_modes:
        known = ", ".join(f"`{mode}`" for mode in sorted(capabilities.write_modes))
        problems.append(
            Problem(
                f"`{destination.path}` cannot `{destination.write_mode}`",
                path="spec.write_mode",
                hint=f"write `write_mode` out, it can {known}",
            )
        )
    if destination.migrate_mode == "forced" and capabilities.forced_changes == frozenset():
        problems.append(
            Problem(f"`{destination.path}` cannot force a migration", path="spec.migrate_mode", hint="write `safe`")
        )
    if destination.publish == "atomic" and (
        capabilities.publish == "none" or destination.write_mode != "overwrite-delete-stale"
    ):
        reason = (
            f"`{destination.path}` cannot publish all tables at once"
            if capabilities.publish == "none"
            else f"`publish: atomic` needs `write_mode: overwrite-delete-stale`, not `{destination.write_mode}`"
        )
        problems.append(Problem(reason, path="spec.publish", hint="write `stream`, or leave it out"))
    problems.extend(
        Problem(f"`{key}` is not supported yet", path=f"spec.{key}", hint="leave it out")
        for key in ("max_rejects", "max_stale_ratio", "expect")
        if getattr(destination, key)
    )
    if problems:
        raise SpecError(problems)


def _check_backend(source: SourceConfig, config: Config, capabilities: Mapping[str, Capabilities]) -> None:
    if source.backend_options is None:
        return
    name = backend_destination(source)
    known = [destination.name for destination in config.destinations]
    path = "spec.backend_options.connection"
    if not name:
        raise SpecError(
            [
                Problem(
                    f"only a destination of this config can keep cursors, got {source.backend_options.connection!r}",
                    path=path,
                    hint="write `@@plugins.NAME.connection` with the name of a destination",
                )
            ]
        )
    if name not in known:
        names = ", ".join(f"`{destination}`" for destination in known)
        raise SpecError([Problem(f"destination `{name}` is not in the config", path=path, hint=f"there are {names}")])
    if name in capabilities and not capabilities[name].readable:
        raise SpecError([Problem(f"destination `{name}` cannot be read, so it cannot keep cursors", path=path)])
