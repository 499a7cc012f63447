"""What a config file says: sources, destinations and transformers, each field with its default and rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, WrapValidator, model_validator

from catchment.errors import Problem, SpecError
from catchment.spec.fields import Duration, ObjectPath, Secret, Share, Spec, object_path
from catchment.spec.origin import Origin

Kind: TypeAlias = Literal["source", "destination", "transformer"]
Registry: TypeAlias = Literal["cloudquery", "github", "local", "grpc", "docker", "python"]
Require: TypeAlias = Literal["strict", "relaxed"]

VERSIONED = ("cloudquery", "github")
"""Registries that need a version."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class Timeouts(_Part):
    """Limits for plugins that may be stuck."""

    start: Duration = 60.0
    """How long a spawned or remote plugin may take to start."""
    idle: Duration | None = None
    """How long a source may be silent, in process too, before what it has not read to its end counts as failed; unset:
    for ever."""
    stop: Duration = 5.0
    """How long a spawned plugin may take to end before it is killed."""


class BackendOptions(_Part):
    """Where a source keeps its cursors."""

    table_name: str = ""
    """Table of the destination that holds them."""
    connection: str = ""
    """`@@plugins.NAME.connection`, where NAME is a destination."""


class PluginConfig(_Part):
    """What all kinds of plugins have."""

    kind: ClassVar[Kind]

    name: str = ""
    """Name in this config; unique among its kind."""
    registry: Registry = "cloudquery"
    """Where the plugin comes from."""
    path: Annotated[str, WrapValidator(object_path)] = ""
    """Which plugin; what it looks like depends on the registry."""
    version: str = ""
    """Version, `v` and SemVer; required for the registries `cloudquery` and `github`."""
    docker_registry_auth_token: Secret = Secret("")
    """Sent as it is when an image is pulled."""
    env: list[str] | None = None
    """Environment variables that a spawned plugin may see; unset: all."""
    timeouts: Timeouts = Timeouts()
    """Limits for plugins that may be stuck."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """The plugin's own config."""

    _origin: Origin = PrivateAttr(default_factory=Origin)
    _program: str = PrivateAttr("")
    _image: str = PrivateAttr("")

    @model_validator(mode="after")
    def _objects_run_in_process(self) -> Self:
        if isinstance(self.path, ObjectPath) and self.is_registry_inferred:
            self.registry = "python"
        return self

    @property
    def is_registry_inferred(self) -> bool:
        """Whether the config does not say where the plugin comes from."""
        return "registry" not in self.model_fields_set

    @property
    def program(self) -> str:
        """The file that is executed; empty for what is none, or not on this machine yet."""
        return str(self.path) if self.registry == "local" else self._program

    @property
    def image(self) -> str:
        """The Docker image that runs; empty for what is none."""
        return str(self.path) if self.registry == "docker" else self._image

    def place(self, program: str, image: str) -> None:
        """Note where a plugin of a registry is now: the path of its program, or the image that it is published as."""
        self._program, self._image = program, image

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
        """`problem` with the file, line and column of its path in this document, and no value from outside it."""
        message = f'{self.kind} "{self.shown_name}": {problem.message}' if self.name else problem.message
        if problem.line:
            return replace(problem, message=message)
        return self._origin.problem(message, problem.path, problem.hint)

    @property
    def shown_name(self) -> str:
        """The name as messages may have it: where it came out of a `${…}`, that."""
        return self._origin.text("spec.name", self.name)


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
    """`host:port` of an OTLP/HTTP collector that the source's traces, metrics and logs are sent to."""
    otel_endpoint_insecure: bool = False
    """Whether that collector is spoken to without TLS."""
    on_error: Literal["continue", "stop"] = "continue"
    """What happens after a table failed."""
    client_id_column: bool = False
    """Whether rows get `_cq_client_id`, the account or region they come from."""


class RowRules(Spec):
    """How many rows of the source a table has to have after a sync."""

    min: Annotated[int, Field(ge=0)] | None = None
    """At least so many."""
    max: Annotated[int, Field(ge=0)] | None = None
    """At most so many."""
    change: Share | None = None
    """Largest change against the rows that were there before, as `30%` or `0.3`; a first sync is not held to it."""


class FreshRule(Spec):
    """How old the newest row may be."""

    column: str
    """A column of times or dates."""
    within: Duration
    """Time before the sync's start, such as `24h`."""


class Rules(Spec):
    """What the rows of a table have to keep; looked at before they become visible where `publish` is `atomic`."""

    rows: RowRules | None = None
    """How many there are."""
    not_null: list[str] = Field(default_factory=list)
    """Columns that have a value in every row."""
    unique: list[str] = Field(default_factory=list)
    """Columns each of whose values is in one row only."""
    fresh: FreshRule | None = None
    """How old the newest row may be."""
    values: dict[str, list[str | int | float | bool]] = Field(default_factory=dict)
    """Values that a column may have, besides null."""
    severity: Literal["error", "warn"] = "error"
    """Whether a broken rule keeps the table as it was and makes the sync incomplete, or is only told."""


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
    expect: dict[str, Rules] = Field(default_factory=dict)
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
class Config:
    """Every source, destination and transformer of a config, in the order of the documents."""

    sources: tuple[SourceConfig, ...] = ()
    destinations: tuple[DestinationConfig, ...] = ()
    transformers: tuple[TransformerConfig, ...] = ()
    warnings: tuple[Problem, ...] = ()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Values that came from `${…}`; they are never shown."""


class PartlyWrong(SpecError):
    """Raised with what could be read besides the mistakes, so that plugins can be asked about that too."""

    def __init__(self, problems: Sequence[Problem], config: Config) -> None:
        super().__init__(problems)
        self.config = config
