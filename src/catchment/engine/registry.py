"""From `registry` and `path` in a config to a plugin; installed plugins are found by entry point."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING, Any, cast

from catchment.engine.foreign import DOWNLOADED, REGISTRIES, foreign
from catchment.errors import PluginError, SpecError, did_you_mean
from catchment.plugin import DestinationPlugin, Kind, Plugin, PluginFactory, SourcePlugin, TransformerPlugin
from catchment.spec.fields import ObjectPath

if TYPE_CHECKING:
    from catchment.spec.model import DestinationConfig, PluginConfig, SourceConfig, TransformerConfig


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A plugin that an installed package registers; nothing of it was imported."""

    kind: Kind
    name: str
    target: str
    """`package.module:Object`."""
    distribution: str
    """Name and version of the package that brings it."""


def installed() -> list[InstalledPlugin]:
    """Every registered plugin, by kind and name."""
    found = [
        InstalledPlugin(kind, point.name, point.value, f"{point.dist.name} {point.dist.version}" if point.dist else "")
        for kind in ("source", "destination", "transformer")
        for point in _points(kind)
    ]
    return sorted(found, key=lambda plugin: (plugin.kind, plugin.name))


def factory(kind: Kind, registry: str, path: str) -> PluginFactory:
    """The object that makes the plugin.

    Raises `SpecError` for an unknown name, a registry whose plugins have no such object, and an object that is no
    plugin; `PluginError` when its module cannot be imported.
    """
    if registry != "python":
        raise SpecError(f"{kind} plugin `{path}` runs elsewhere", hint="only `registry: python` runs in process")
    if isinstance(path, ObjectPath):
        return cast(PluginFactory, path.plugin)
    module_name, _, attribute = path.partition(":")
    if not attribute:
        module_name, _, attribute = _entry_point(kind, path).value.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(
            f"{kind} plugin `{path}` cannot be imported: {error}",
            hint=f"install what it needs, for a plugin of ours `pip install 'catchment[{path}]'`",
        ) from error
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None or not hasattr(found, "as_plugin"):
        raise SpecError(
            f"{kind} plugin `{path}`: `{attribute}` in module `{module_name}` is "
            + ("missing" if found is None else f"no plugin but {found!r}"),
            hint="name a `Source` object, or a class derived from `Destination` or `Transformer`",
        )
    return cast(PluginFactory, found)


def missing_packages(kind: Kind, name: str) -> list[str]:
    """Packages that an installed plugin needs at run time and that are not there: those of the extra of its name."""
    points = {point.name: point for point in _points(kind)}
    package = points[name].dist if name in points else None
    found = []
    for requirement in (package.requires or ()) if package is not None else ():
        wanted, _, marker = requirement.partition(";")
        match = re.match(r"[\w.-]+", wanted.strip())
        if match is None or not re.search(rf"""extra\s*==\s*['"]{re.escape(name)}['"]""", marker):
            continue
        try:
            version(match[0])
        except PackageNotFoundError:
            found.append(match[0])
    return found


def make_source(registry: str, path: str) -> SourcePlugin:
    """A fresh source plugin. Raises as `factory`, and `SpecError` when `path` names a plugin of another kind."""
    return cast(SourcePlugin, _made("source", registry, path, "sync"))


def make_destination(registry: str, path: str) -> DestinationPlugin:
    """A fresh destination plugin; raises as `make_source`."""
    return cast(DestinationPlugin, _made("destination", registry, path, "session"))


def make_transformer(registry: str, path: str) -> TransformerPlugin:
    """A fresh transformer plugin; raises as `make_source`."""
    return cast(TransformerPlugin, _made("transformer", registry, path, "transform"))


def native_twin(config: PluginConfig) -> str:
    """Name of the installed plugin that does what a downloaded one of upstream's does; empty if there is none."""
    team, _, name = config.path.partition("/")
    if config.registry not in DOWNLOADED or team != "cloudquery":
        return ""
    return name if any(point.name == name for point in _points(config.kind)) else ""


def source_for(config: SourceConfig) -> SourcePlugin:
    """The source that a config names, wherever it comes from; raises as `make_source`."""
    made = foreign(config) if config.registry in REGISTRIES else make_source(config.registry, config.path)
    return cast(SourcePlugin, made)


def destination_for(config: DestinationConfig) -> DestinationPlugin:
    """The destination that a config names; raises as `make_source`."""
    made = foreign(config) if config.registry in REGISTRIES else make_destination(config.registry, config.path)
    return cast(DestinationPlugin, made)


def transformer_for(config: TransformerConfig) -> TransformerPlugin:
    """The transformer that a config names; raises as `make_source`."""
    made = foreign(config) if config.registry in REGISTRIES else make_transformer(config.registry, config.path)
    return cast(TransformerPlugin, made)


def _made(kind: Kind, registry: str, path: str, method: str) -> Plugin:
    plugin = factory(kind, registry, path).as_plugin()
    if not hasattr(plugin, method):
        raise SpecError(f"plugin `{path}` is no {kind}", hint=f"`catchment plugin list` shows every {kind}")
    return plugin


def _points(kind: Kind) -> Sequence[EntryPoint]:
    return list(entry_points(group=f"catchment.{kind}s"))


def _entry_point(kind: Kind, name: str) -> EntryPoint:
    points = {point.name: point for point in _points(kind)}
    if name in points:
        return points[name]
    hint = did_you_mean(name, points)
    raise SpecError(f"{kind} plugin {name!r} is not installed", hint=hint or "write `package.module:Object`")
