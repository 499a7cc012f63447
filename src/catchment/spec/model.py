"""What a config file says: sources, destinations and transformers, each field with its default and rule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from catchment.errors import Problem, SpecError, did_you_mean
from catchment.spec.fields import Duration
from catchment.spec.report import problems_of

Kind: TypeAlias = Literal["source", "destination", "transformer"]
Registry: TypeAlias = Literal["cloudquery", "github", "local", "grpc", "docker", "python"]
Require: TypeAlias = Literal["strict", "relaxed"]
Locate: TypeAlias = Callable[[str], tuple[str, int]]
"""From a path inside a document to file and line."""

REGISTRIES = ("cloudquery", "github", "local", "grpc", "docker", "python")
VERSIONED = ("cloudquery", "github")
SEMVER = re.compile(r"^v\d+\.\d+\.\d+([-+].*)?$")
KNOWN_PATHS = frozenset(
    "aws azure gcp digitalocean github heroku k8s okta terraform cloudflare postgresql csv clickhouse".split(" ")  # noqa: SIM905
)
"""Names that upstream knew before `path` had to be written out."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class Timeouts(_Part):
    """Limits for spawned and remote plugins."""

    start: Duration = 60.0
    """How long a plugin may take to start."""
    idle: Duration | None = None
    """How long a plugin may be silent; unset: for ever."""
    stop: Duration = 5.0
    """How long a plugin may take to end before it is killed."""


class BackendOptions(_Part):
    """Where a source keeps its cursors."""

    table_name: str
    """Table of the destination that holds them."""
    connection: str
    """`@@plugins.NAME.connection`, where NAME is a destination."""


class PluginConfig(_Part):
    """What all kinds of plugins have."""

    kind: ClassVar[Kind]

    name: str = ""
    """Name in this config; unique among its kind."""
    registry: Registry = "cloudquery"
    """Where the plugin comes from."""
    path: str = ""
    """Which plugin; what it looks like depends on the registry."""
    version: str = ""
    """Version, `v` and SemVer; required for the registries `cloudquery` and `github`."""
    docker_registry_auth_token: str = ""
    """Sent as it is when an image is pulled."""
    env: list[str] | None = None
    """Environment variables that a spawned plugin may see; unset: all."""
    timeouts: Timeouts = Timeouts()
    """Limits for spawned and remote plugins."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """The plugin's own config."""

    _locate: Locate | None = PrivateAttr(None)

    @property
    def version_string(self) -> str:
        """Name, and where the plugin comes from, as shown in output."""
        match self.registry:
            case "cloudquery":
                return f"{self.name} ({self.path}@{self.version})"
            case "github":
                return f"{self.name}@github ({self.path}@{self.version})"
            case "docker":
                return f"{self.name}@docker ({self.path})"
            case _:
                return f"{self.name} ({self.registry}@{self.path})"

    def located(self, problem: Problem) -> Problem:
        """`problem` with the file and line of its path in this document."""
        where = replace(problem, message=f'{self.kind} "{self.name}": {problem.message}')
        if self._locate is None or problem.line:
            return where
        file, line = self._locate(problem.path)
        return replace(where, file=file, line=line)


class SourceConfig(PluginConfig):
    """A source: what is read, and where it goes."""

    kind: ClassVar[Kind] = "source"

    tables: list[str] = Field(default_factory=list)
    """Globs of the tables to sync."""
    skip_tables: list[str] = Field(default_factory=list)
    """Globs of tables to leave out, with all below them."""
    skip_dependent_tables: bool = True
    """Whether child tables have to be named themselves."""
    destinations: list[str] = Field(default_factory=list)
    """Names of the destinations."""
    backend_options: BackendOptions | None = None
    """Where cursors of incremental tables are kept."""
    deterministic_cq_id: bool | None = None
    """Whether `_cq_id` is a hash of the keys. Unset: only for keyed tables that have child tables."""
    otel_endpoint: str = ""
    """`host:port` of an OTLP/HTTP collector for the plugin's own telemetry."""
    otel_endpoint_insecure: bool = False
    """Whether that collector is spoken to without TLS."""
    on_error: Literal["continue", "stop"] = "continue"
    """What happens after a table failed."""
    client_id_column: bool = False
    """Whether rows get `_cq_client_id`, the account or region they come from."""


class DestinationConfig(PluginConfig):
    """A destination: where rows go, and how they replace what is there."""

    kind: ClassVar[Kind] = "destination"

    write_mode: Literal["overwrite-delete-stale", "overwrite", "append"] = "overwrite-delete-stale"
    """Whether rows of equal keys are replaced, and rows that are gone at the source deleted."""
    migrate_mode: Literal["safe", "forced"] = "safe"
    """Whether a change of a table may lose rows."""
    pk_mode: Literal["default", "cq-id-only"] = "default"
    """Whether `_cq_id` replaces the tables' own keys."""
    sync_group_id: str = ""
    """Value of an added column `_cq_sync_group_id`; a template."""
    send_sync_summary: bool = False
    """Whether a row about each sync goes into `cloudquery_sync_summaries`."""
    transformers: list[str] = Field(default_factory=list)
    """Names of the transformers that rows pass, in this order."""
    publish: Literal["atomic", "stream"] | None = None
    """Whether a sync's tables become visible together at its end. Unset: where the destination can."""
    max_rejects: Annotated[int, Field(ge=0)] = 0
    """Rows per table that may be put aside before the table fails."""
    max_stale_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of a table's rows that may be deleted as stale."""
    expect: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rules per table that its rows have to keep."""


class TransformerConfig(PluginConfig):
    """A transformer: changes rows on their way to a destination."""

    kind: ClassVar[Kind] = "transformer"


MODELS: Mapping[str, type[PluginConfig]] = {
    "source": SourceConfig,
    "destination": DestinationConfig,
    "transformer": TransformerConfig,
}


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a config: its value, and where its parts stand."""

    value: Any
    locate: Locate = lambda path: ("", 0)
    hidden: frozenset[str] = frozenset()
    """Values that came from outside the file and must not be shown."""


@dataclass(frozen=True, slots=True)
class Config:
    """Every source, destination and transformer of a config, in the order of the documents."""

    sources: tuple[SourceConfig, ...] = ()
    destinations: tuple[DestinationConfig, ...] = ()
    transformers: tuple[TransformerConfig, ...] = ()
    warnings: tuple[Problem, ...] = ()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Values that came from `${…}`; they are never shown."""


def make_config(documents: Iterable[Document], *, require: Require = "strict") -> Config:
    """Check documents one by one and against each other. Raises `SpecError` with every mistake."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    configs: list[PluginConfig] = []
    hidden: set[str] = set()
    for document in documents:
        hidden |= document.hidden
        made = _parse(document, problems, warnings)
        if made is not None:
            configs.append(made)
    config = Config(
        tuple(config for config in configs if isinstance(config, SourceConfig)),
        tuple(config for config in configs if isinstance(config, DestinationConfig)),
        tuple(config for config in configs if isinstance(config, TransformerConfig)),
        tuple(warnings),
        frozenset(value for value in hidden if len(value) >= 4),
    )
    problems.extend(_duplicates(configs))
    if not problems or configs:
        problems.extend(_across(config, require, broken=bool(problems)))
    if problems:
        raise PartlyWrong(problems, config)
    return config


class PartlyWrong(SpecError):
    """Raised with what could be read besides the mistakes, so that plugins can be asked about that too."""

    def __init__(self, problems: Sequence[Problem], config: Config) -> None:
        super().__init__(problems)
        self.config = config


def _parse(document: Document, problems: list[Problem], warnings: list[Problem]) -> PluginConfig | None:
    value, locate = document.value, document.locate

    def problem(message: str, path: str = "", hint: str = "") -> None:
        file, line = locate(path)
        problems.append(Problem(message, file, line, path, hint))

    if not isinstance(value, Mapping):
        problem(f"expected a mapping with `kind` and `spec`, got {_short(value)}")
        return None
    value = _known_case(value, ("kind", "spec"))
    for key in value:
        if key not in ("kind", "spec"):
            problem(f'unknown field "{key}"', str(key), did_you_mean(str(key), ("kind", "spec")))
    kind = value.get("kind", "source")
    if kind not in MODELS:
        hint = (
            did_you_mean(kind, MODELS) if isinstance(kind, str) else "expected `source`, `destination` or `transformer`"
        )
        problem(f"unknown kind {kind}", "kind", hint)
        return None
    spec = value.get("spec")
    if spec is None:
        spec = {}
    if not isinstance(spec, Mapping):
        problem(f"expected a mapping, got {_short(spec)}", "spec")
        return None
    model = MODELS[kind]
    cleaned = _cleaned(_known_case(spec, tuple(model.model_fields)))
    try:
        config = model.model_validate_json(json.dumps(cleaned, default=str))
    except ValidationError as error:
        for found in problems_of(error, model, cleaned, prefix="spec", hidden=document.hidden):
            message = _upstream_wording(found)
            problem(message, found.path, found.hint)
        return None
    config._locate = locate
    for message, path, hint in _rules(config, warnings):
        problem(
            message if message.endswith("required") and not config.name else f'{kind} "{config.name}": {message}',
            path,
            hint,
        )
    return config


def _rules(config: PluginConfig, warnings: list[Problem]) -> Iterable[tuple[str, str, str]]:
    """Rules of one document that its types do not tell."""
    if not config.name:
        yield "name is required", "spec.name", ""
    if not config.path:
        hint = f"did you mean `path: cloudquery/{config.name}`?" if config.name in KNOWN_PATHS else ""
        yield "path is required", "spec.path", hint
    if config.registry in VERSIONED:
        if not config.version:
            yield "version is required", "spec.version", "write it as `v1.2.3`; `registry: python` needs none"
        elif not config.version.startswith("v"):
            yield f"version must start with v, got {config.version!r}", "spec.version", f"write `v{config.version}`"
        elif not SEMVER.match(config.version):
            warnings.append(config.located(Problem(f"version {config.version!r} is no SemVer", path="spec.version")))
        if config.registry == "github":
            warnings.append(config.located(Problem("registry `github` is deprecated", path="spec.registry")))
    elif config.version:
        if config.registry == "python":
            warnings.append(
                config.located(Problem("`version` is ignored with `registry: python`", path="spec.version"))
            )
        config.version = ""
    if isinstance(config, SourceConfig):
        if not config.tables:
            yield "tables configuration is required", "spec.tables", "write `tables: ['*']` for all of them"
        if "*" in config.tables and len(config.tables) > 1:
            warnings.append(
                config.located(Problem("`tables` has `*` and more, which changes nothing", path="spec.tables"))
            )
    if isinstance(config, DestinationConfig) and config.sync_group_id and config.write_mode == "overwrite-delete-stale":
        yield (
            "sync_group_id is not supported with write_mode: overwrite-delete-stale",
            "spec.sync_group_id",
            "write `write_mode: append` or `write_mode: overwrite`",
        )


def _across(config: Config, require: Require, *, broken: bool) -> Iterable[Problem]:
    """Rules that concern several documents; the counts are left out where a document could not be read."""
    if require == "relaxed":
        if not config.sources and not config.destinations and not broken:
            yield Problem("expecting at least one source or destination")
        return
    if not broken and not config.sources:
        yield Problem("expecting at least one source")
    if not broken and not config.destinations:
        yield Problem("expecting at least one destination")
    names = [destination.name for destination in config.destinations]
    transformers = [transformer.name for transformer in config.transformers]
    for source in config.sources:
        if not source.destinations:
            yield source.located(Problem("at least one destination is required", path="spec.destinations"))
        for index, name in enumerate(source.destinations):
            if name not in names and not broken:
                message = f"source {source.name} references unknown destination {name}"
                yield source.located(
                    Problem(message, path=f"spec.destinations[{index}]", hint=did_you_mean(name, names))
                )
    for destination in config.destinations:
        for index, name in enumerate(destination.transformers):
            if name not in transformers and not broken:
                message = f"destination {destination.name} references unknown transformer {name}"
                yield destination.located(
                    Problem(message, path=f"spec.transformers[{index}]", hint=did_you_mean(name, transformers))
                )
    yield from _version_conflicts(config)


def _version_conflicts(config: Config) -> Iterable[Problem]:
    for destination in config.destinations:
        versions: dict[str, set[str]] = {}
        for source in config.sources:
            if destination.name in source.destinations:
                versions.setdefault(source.path, set()).add(source.version)
        for path, found in versions.items():
            if len(found) > 1:
                yield destination.located(
                    Problem(
                        f"destination {destination.name} is used by multiple sources {path} with different versions"
                    )
                )


def _duplicates(configs: Sequence[PluginConfig]) -> Iterable[Problem]:
    seen: set[tuple[str, str]] = set()
    for config in configs:
        key = (config.kind, config.name)
        if config.name and key in seen:
            yield config.located(Problem(f"duplicate {config.kind} name {config.name}", path="spec.name"))
        seen.add(key)


def _known_case(value: Mapping[Any, Any], known: Sequence[str]) -> dict[str, Any]:
    """`value` with keys that differ from a known one in case alone spelled as that one."""
    by_lower = {name.lower(): name for name in known}
    return {by_lower.get(str(key).lower(), str(key)): item for key, item in value.items()}


def _cleaned(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` without keys whose null means unset; a null `write_mode` and its like stay and are refused."""
    strict = ("write_mode", "migrate_mode", "pk_mode")
    cleaned = {key: value for key, value in spec.items() if value is not None or key in strict}
    if cleaned.get("registry") == "":
        del cleaned["registry"]
    for key in ("tables", "skip_tables"):
        if isinstance(cleaned.get(key), list):
            cleaned[key] = ["" if item is None else item for item in cleaned[key]]
    return cleaned


def _upstream_wording(problem: Problem) -> str:
    """The message with the words that upstream has for the same mistake in front."""
    name = problem.path.removeprefix("spec.")
    words = {
        "write_mode": "invalid write mode",
        "migrate_mode": "invalid migrate mode",
        "pk_mode": "invalid pk mode",
        "registry": "unknown registry",
    }
    return f"{words[name]}: {problem.message}" if name in words else problem.message


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
