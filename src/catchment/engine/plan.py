"""From a config to what will run: every plugin's spec and every destination's abilities are checked, nothing starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from catchment.engine import registry
from catchment.engine.connections import CONNECTION, names_in
from catchment.engine.foreign import CREDENTIALS
from catchment.errors import CatchmentError, Problem, SpecError
from catchment.plugin import Capabilities, Plugin
from catchment.redact import Redactor
from catchment.spec.fields import secrets_of
from catchment.spec.model import Config, DestinationConfig, PluginConfig, SourceConfig, TransformerConfig


@dataclass(frozen=True, slots=True)
class Plan:
    """A config whose plugins are there and whose wishes they can fulfil."""

    config: Config
    capabilities: Mapping[str, Capabilities]
    """By name of the destination; what it can do with its spec."""
    warnings: tuple[Problem, ...] = ()
    """What is allowed and perhaps not meant; a sync logs it at its start."""
    redactor: Redactor = field(default_factory=Redactor, repr=False, compare=False)
    """Knows every secret of the config and of its plugins; what is shown of a run goes through it."""

    def is_atomic(self, destination: DestinationConfig) -> bool:
        """Whether full tables are staged and published together."""
        return (
            destination.write_mode == "overwrite-delete-stale"
            and destination.publish != "stream"
            and self.capabilities[destination.name].publish != "none"
        )


def make_plan(config: Config, problems: Sequence[Problem] = (), redactor: Redactor | None = None) -> Plan:
    """Check what only the plugins know. Raises `SpecError` with every mistake at once, `problems` in front of them.

    `redactor` learns the secrets that are found on the way, also when the plan is not made.
    """
    problems = list(problems)
    redactor = redactor if redactor is not None else Redactor()
    redactor.add(config_secrets(config))
    capabilities: dict[str, Capabilities] = {}

    def attempt(plugin_config: PluginConfig, check: Callable[[], None]) -> None:
        if not plugin_config.path:
            # That it has none is among `problems`, and nothing can be asked of it.
            return
        try:
            check()
        except SpecError as error:
            problems.extend(plugin_config.located(problem) for problem in error.problems)
        except CatchmentError as error:
            problems.append(plugin_config.located(Problem(str(error.args[0]), hint=error.hint)))

    for source in config.sources:
        attempt(source, lambda source=source: _check_source(source, redactor))  # type: ignore[misc]
    for transformer in config.transformers:
        attempt(transformer, lambda it=transformer: _check_transformer(it, redactor))  # type: ignore[misc]
    for destination in config.destinations:

        def check(destination: DestinationConfig = destination) -> None:
            plugin = registry.destination_for(destination)
            with _noting(redactor, plugin):
                plugin.init(destination.spec, no_connection=True)
            capabilities[destination.name] = plugin.capabilities
            _check_destination(destination, plugin.capabilities)

        attempt(destination, check)
    for source in config.sources:
        attempt(source, lambda source=source: _check_backend(source, config, capabilities))  # type: ignore[misc]
    if problems:
        raise SpecError([_shown(problem, redactor) for problem in problems])
    return Plan(config, capabilities, tuple(_shown(warning, redactor) for warning in _warnings(config)), redactor)


def config_secrets(config: Config) -> frozenset[str]:
    """What must not be shown of a config, apart from what only its plugins know."""
    plugins: list[PluginConfig] = [*config.sources, *config.destinations, *config.transformers]
    credentials = {os.environ.get(name, "") for name in CREDENTIALS} - {""}
    return config.secrets.union(credentials, *(secrets_of(plugin) for plugin in plugins))


def backend_destination(source: SourceConfig) -> str:
    """Name of the destination that keeps the source's cursors; empty if it keeps none."""
    if source.backend_options is None:
        return ""
    found = CONNECTION.fullmatch(source.backend_options.connection)
    return found[1] if found else ""


def _reached(source: SourceConfig) -> set[str]:
    """The destinations whose connection the source is given."""
    return {backend_destination(source), *names_in(source.spec)} - {""}


def used_destinations(config: Config) -> list[DestinationConfig]:
    """The destinations that a source writes to or keeps its cursors in; no other is opened."""
    used = {name for source in config.sources for name in (*source.destinations, *_reached(source))}
    return [destination for destination in config.destinations if destination.name in used]


def _warnings(config: Config) -> Iterator[Problem]:
    for source in config.sources:
        if source.registry == "grpc":
            message = f"source `{source.name}` runs elsewhere, so that errors which it only logs cannot be seen"
            hint = "its tables count as complete without them; with `registry: local` its log is read"
            yield source.located(Problem(message, path="spec.registry", hint=hint))
    yield from _shared_cursors(config)
    for destination in config.destinations:
        if destination.pk_mode != "cq-id-only" or destination.write_mode == "append":
            continue
        for source in config.sources:
            if destination.name in source.destinations and not source.deterministic_cq_id:
                message = f"`pk_mode: cq-id-only`, but source `{source.name}` gives rows a new `_cq_id` in every sync"
                hint = f"set `deterministic_cq_id: true` in source `{source.name}` so that rows are overwritten"
                yield destination.located(Problem(message, path="spec.pk_mode", hint=hint))


def _shared_cursors(config: Config) -> Iterator[Problem]:
    """Sources of one foreign plugin with one table of cursors: such plugins name them by table, not by source."""
    seen: dict[tuple[str, str, str], str] = {}
    for source in config.sources:
        options = source.backend_options
        if options is None or source.registry == "python":
            continue
        first = seen.setdefault((source.path, options.connection, options.table_name), source.name)
        if first != source.name:
            message = f"the cursors of source `{first}` are in the same table, and `{source.path}` may mix them up"
            hint = "give each source a `table_name` of its own"
            yield source.located(Problem(message, path="spec.backend_options.table_name", hint=hint))


@contextlib.contextmanager
def _noting(redactor: Redactor, plugin: Plugin) -> Iterator[None]:
    """Learn the plugin's secrets when its `init` is through, or has failed."""
    try:
        yield
    finally:
        redactor.add(plugin.secrets)


def _shown(problem: Problem, redactor: Redactor) -> Problem:
    return replace(
        problem,
        message=redactor.text(problem.message),
        path=redactor.text(problem.path),
        hint=redactor.text(problem.hint),
    )


def _check_source(source: SourceConfig, redactor: Redactor) -> None:
    if source.client_id_column and source.registry != "python":
        text = f"a plugin of `registry: {source.registry}` cannot add `_cq_client_id`"
        raise SpecError([Problem(text, path="spec.client_id_column", hint="leave it out")])
    plugin = registry.source_for(source)
    with _noting(redactor, plugin):
        plugin.init(source.spec, no_connection=True)
    plugin.close()


def _check_transformer(transformer: TransformerConfig, redactor: Redactor) -> None:
    plugin = registry.transformer_for(transformer)
    with _noting(redactor, plugin):
        plugin.init(transformer.spec)


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
    if destination.max_rejects and not capabilities.rejects:
        text = f"`{destination.path}` does not say which row it refuses"
        problems.append(Problem(text, path="spec.max_rejects", hint="leave it out"))
    for key in ("max_stale_ratio", "expect"):
        if getattr(destination, key) not in (None, {}) and not capabilities.measures:
            text = f"`{destination.path}` cannot count the rows that it holds"
            problems.append(Problem(text, path=f"spec.{key}", hint="leave it out"))
    if problems:
        raise SpecError(problems)


def _check_backend(source: SourceConfig, config: Config, capabilities: Mapping[str, Capabilities]) -> None:
    known = [destination.name for destination in config.destinations]
    names = ", ".join(f"`{destination}`" for destination in known)
    missing = sorted(names_in(source.spec) - set(known))
    if missing:
        text = f"destination `{missing[0]}` is not in the config"
        raise SpecError([Problem(text, path="spec.spec", hint=f"there are {names}")])
    if source.backend_options is None:
        return
    name = backend_destination(source)
    path = "spec.backend_options.connection"
    if not name and source.registry != "python":
        # Whatever it is, the plugin dials it itself.
        return
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
        raise SpecError([Problem(f"destination `{name}` is not in the config", path=path, hint=f"there are {names}")])
    if name in capabilities and not capabilities[name].readable:
        raise SpecError([Problem(f"destination `{name}` cannot be read, so it cannot keep cursors", path=path)])
