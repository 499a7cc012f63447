"""From documents to a config: every document by itself, then the rules between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from catchment.errors import Problem, did_you_mean
from catchment.spec.document import Document
from catchment.spec.fields import ObjectPath, plain
from catchment.spec.model import (
    MODELS,
    VERSIONED,
    Config,
    DestinationConfig,
    PartlyWrong,
    PluginConfig,
    Require,
    SourceConfig,
    TransformerConfig,
)
from catchment.spec.origin import Origin, in_order
from catchment.spec.report import MAX_PROBLEMS, printed, problems_of

# https://semver.org, with the `v` that upstream wants.
SEMVER = re.compile(
    r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
HUB_NAMES = frozenset(
    {"aws", "azure", "clickhouse", "cloudflare", "csv", "digitalocean", "gcp", "github", "heroku", "k8s", "okta",
     "postgresql", "terraform"}
)  # fmt: skip
"""Names that upstream knew before `path` had to be written out."""


@dataclass(slots=True)
class _Found:
    """What is known of the documents while they are checked."""

    problems: list[Problem]
    warnings: list[Problem]
    configs: list[PluginConfig] = field(default_factory=list)
    partial: list[PluginConfig] = field(default_factory=list)
    """Of documents with mistakes: what is right in them, so that the rest can be checked too."""
    names: dict[str, list[tuple[str, Document]]] = field(default_factory=lambda: {kind: [] for kind in MODELS})
    """By kind; also of documents that are wrong otherwise."""
    uncertain: set[str] = field(default_factory=set)
    """Kinds of which there may be more, with names that could not be read."""


def make_config(
    documents: Iterable[Document],
    *,
    require: Require = "strict",
    problems: Sequence[Problem] = (),
    warnings: Sequence[Problem] = (),
) -> Config:
    """Check documents one by one and against each other. Raises `PartlyWrong` with every mistake.

    `problems` and `warnings` were met before, while files were read.
    """
    found = _Found(list(problems), list(warnings))
    if any(not problem.path for problem in problems):
        found.uncertain |= set(MODELS)
    secrets: set[str] = set()
    for document in documents:
        secrets |= document.origin.secrets
        if len(found.problems) > MAX_PROBLEMS:
            found.problems.append(document.origin.problem("the documents from here on are not looked at"))
            break
        _parse(document, found)
    found.problems.extend(_duplicates(found))
    found.problems.extend(_counts(found, require))
    if require == "strict":
        found.problems.extend(_references(found))
        found.problems.extend(_version_conflicts(found.configs))
    config = Config(
        tuple(config for config in found.configs if isinstance(config, SourceConfig)),
        tuple(config for config in found.configs if isinstance(config, DestinationConfig)),
        tuple(config for config in found.configs if isinstance(config, TransformerConfig)),
        tuple(in_order(found.warnings)),
        frozenset(secrets - _choices()),
    )
    if found.problems:
        raise PartlyWrong(in_order(found.problems), config)
    return config


def _parse(document: Document, found: _Found) -> None:
    """Check one document; what is right becomes a config."""
    origin = document.origin

    def problem(message: str, path: str = "", hint: str = "") -> None:
        if not origin.is_unknown(path):
            found.problems.append(origin.problem(message, path, hint))

    if isinstance(document.value, PluginConfig):
        _note_name(document.value.kind, {"name": document.value.name}, document, found)
        _take(document.value.model_copy(), document, found)
        return
    if not isinstance(document.value, Mapping):
        problem(f"expected a mapping with `kind` and `spec`, got {printed(document.value)}")
        found.uncertain |= set(MODELS)
        return
    value = _known_case(document.value, ("kind", "spec"))
    for count, key in enumerate(value):
        if key not in ("kind", "spec") and count < MAX_PROBLEMS:
            hint = "it belongs into `spec`" if key in _all_fields() else did_you_mean(key, ("kind", "spec"))
            problem(f'unknown field "{key}"', key, hint)
    kind = value.get("kind", "source")
    if not isinstance(kind, str) or kind not in MODELS:
        shown = origin.text("kind", kind) if isinstance(kind, str) else printed(kind)
        problem(f"unknown kind {shown}", "kind", did_you_mean(kind if isinstance(kind, str) else "", MODELS))
        found.uncertain |= set(MODELS)
        return
    spec = {} if value.get("spec") is None else value["spec"]
    if not isinstance(spec, Mapping):
        problem(f"expected a mapping, got {printed(spec)}", "spec")
        found.uncertain.add(kind)
        return
    broken = list(_no_texts(spec, "spec"))
    if broken:
        problem("is no text: it has half of a surrogate pair", broken[0])
        found.uncertain.add(kind)
        return
    model = MODELS[kind]
    cleaned = _cleaned(_known_case(spec, tuple(model.model_fields)))
    _note_name(kind, cleaned, document, found)
    try:
        config = model.model_validate_json(json.dumps(cleaned, default=plain))
    except ValidationError as error:
        for wrong in problems_of(error, model, cleaned, prefix="spec"):
            problem(_upstream_wording(wrong), wrong.path, _hint(wrong, kind))
        config = _without(error, model, cleaned, origin)
    if isinstance(cleaned.get("path"), ObjectPath):
        config.path = cleaned["path"]
    _take(config, document, found)


def _no_texts(value: Any, path: str) -> Iterator[str]:
    """Paths of what Python calls a text and Unicode does not; no file can hold it, but a dict from a program can."""
    if isinstance(value, str) and not value.isascii():
        if value.encode(errors="backslashreplace") != value.encode(errors="surrogatepass"):
            yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            shown = str(key).encode(errors="backslashreplace").decode()
            yield from [f"{path}.{shown}"] if shown != str(key) else _no_texts(item, f"{path}.{shown}")
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _no_texts(item, f"{path}[{place}]")


def _take(config: PluginConfig, document: Document, found: _Found) -> None:
    """Check the rules of one config and add it to those that are known."""
    origin = config._origin = document.origin
    for wrong in _rules(config, found.warnings):
        if not origin.is_unknown(wrong.path):
            found.problems.append(config.located(wrong))
    # Without a key that nobody knows the config says all that it says, and its plugin can be asked about the rest.
    keys = {re.split(r"[.\[]", path.removeprefix("spec."))[0] for path in origin.unknown}
    is_whole = not keys & set(type(config).model_fields) and all(path.startswith("spec.") for path in origin.unknown)
    (found.configs if is_whole else found.partial).append(config)


def _without(
    error: ValidationError, model: type[PluginConfig], spec: Mapping[str, Any], origin: Origin
) -> PluginConfig:
    """The config without the keys that are wrong; nothing more is said about those."""
    wrong = {str(item["loc"][0]) for item in error.errors(include_url=False, include_input=False) if item["loc"]}
    origin.unknown |= {f"spec.{key}" for key in wrong}
    return model.model_validate_json(
        json.dumps({key: value for key, value in spec.items() if key not in wrong}, default=plain)
    )


def _note_name(kind: str, spec: Mapping[str, Any], document: Document, found: _Found) -> None:
    name = spec.get("name")
    if isinstance(name, str) and name and not document.origin.is_unknown("spec.name"):
        found.names[kind].append((name, document))
    else:
        found.uncertain.add(kind)


def _rules(config: PluginConfig, warnings: list[Problem]) -> Iterator[Problem]:
    """Rules of one document that its types do not tell."""

    def warn(message: str, path: str, hint: str = "") -> None:
        warnings.append(config.located(Problem(message, path=path, hint=hint)))

    if not config.name:
        yield Problem("name is required", path="spec.name")
    if not config.path:
        hint = f"did you mean `path: cloudquery/{config.name}`?" if config.name in HUB_NAMES else ""
        yield Problem("path is required", path="spec.path", hint=hint)
    if config.registry == "github":
        warn("registry `github` is deprecated", "spec.registry", "write `registry: cloudquery`")
    if config._origin.is_unknown("spec.registry"):
        pass
    elif config.registry in VERSIONED:
        yield from _version_rules(config, warnings)
    elif config.version:
        if config.registry == "python":
            warn("`version` is ignored with `registry: python`", "spec.version", "leave it out")
        config.version = ""
    if isinstance(config, SourceConfig):
        yield from _source_rules(config, warnings)
    if (
        isinstance(config, DestinationConfig)
        and config.sync_group_id
        and config.write_mode == "overwrite-delete-stale"
        and not config._origin.is_unknown("spec.write_mode")
    ):
        yield Problem(
            "sync_group_id is not supported with write_mode: overwrite-delete-stale",
            path="spec.sync_group_id",
            hint="write `write_mode: append` or `write_mode: overwrite`",
        )


def _version_rules(config: PluginConfig, warnings: list[Problem]) -> Iterator[Problem]:
    version, path = config.version, "spec.version"
    if not version:
        yield Problem("version is required", path=path, hint="write it as `v1.2.3`; `registry: python` needs none")
    elif not version.startswith("v"):
        hint = f"write `v{version}`" if SEMVER.fullmatch(f"v{version}") else "write it as `v1.2.3`"
        yield Problem(f"version must start with v, got {version!r}", path=path, hint=hint)
    elif not SEMVER.fullmatch(version):
        told = Problem(f"version is not of the form `v1.2.3`, got {version!r}", path=path)
        warnings.append(config.located(told))


def _source_rules(config: SourceConfig, warnings: list[Problem]) -> Iterator[Problem]:
    if not config.tables:
        yield Problem("tables configuration is required", path="spec.tables", hint="write `tables: ['*']` for all")
    if "*" in config.tables:
        if len(config.tables) > 1:
            warnings.append(
                config.located(Problem("`tables` has `*` and more, which changes nothing", path="spec.tables"))
            )
        if config.skip_dependent_tables and "skip_dependent_tables" in config.model_fields_set:
            message = "`skip_dependent_tables` changes nothing, as `*` in `tables` names child tables too"
            warnings.append(config.located(Problem(message, path="spec.skip_dependent_tables")))
    options = config.backend_options
    if options is not None:
        for has, lacks in (("table_name", "connection"), ("connection", "table_name")):
            if getattr(options, has) and not getattr(options, lacks):
                yield Problem(f"{lacks} is required, as there is `{has}`", path=f"spec.backend_options.{lacks}")
        if not options.table_name and not options.connection:
            config.backend_options = None


def _counts(found: _Found, require: Require) -> Iterator[Problem]:
    """Whether there is anything to do; not asked where a document could not be read."""
    has = {kind: bool(found.names[kind]) or kind in found.uncertain for kind in MODELS}
    if require == "relaxed":
        if not has["source"] and not has["destination"]:
            yield Problem("expecting at least one source or destination")
        return
    for kind in ("source", "destination"):
        if not has[kind]:
            yield Problem(f"expecting at least one {kind}", hint=f"add a document with `kind: {kind}`")


def _references(found: _Found) -> Iterator[Problem]:
    """Names that a document uses and no document has."""
    for config in (*found.configs, *found.partial):
        if isinstance(config, SourceConfig):
            if not config.destinations and not config._origin.is_unknown("spec.destinations"):
                hint = did_you_mean("", [name for name, _ in found.names["destination"]])
                yield config.located(
                    Problem("at least one destination is required", path="spec.destinations", hint=hint)
                )
            yield from _unknown(config, "destinations", "destination", found)
        if isinstance(config, DestinationConfig):
            yield from _unknown(config, "transformers", "transformer", found)


def _unknown(config: PluginConfig, key: str, kind: str, found: _Found) -> Iterator[Problem]:
    known = [name for name, _ in found.names[kind]]
    shown = [document.origin.text("spec.name", name) for name, document in found.names[kind]]
    for index, name in enumerate(getattr(config, key)):
        if name in known or kind in found.uncertain or config._origin.is_unknown(f"spec.{key}[{index}]"):
            continue
        path = f"spec.{key}[{index}]"
        written = config._origin.text(path, name) or "''"
        message = f"{config.kind} {config.shown_name} references unknown {kind} {written}"
        yield config.located(Problem(message, path=path, hint=did_you_mean(written, shown)))


def _version_conflicts(configs: Sequence[PluginConfig]) -> Iterator[Problem]:
    """Sources of one plugin in two versions would make different tables of the same name."""
    sources = [config for config in configs if isinstance(config, SourceConfig)]
    for destination in configs:
        if not isinstance(destination, DestinationConfig):
            continue
        versions: dict[str, dict[str, str]] = {}
        for source in sources:
            if destination.name in source.destinations:
                versions.setdefault(source.path, {}).setdefault(source.version, source.shown_name)
        for path, names in versions.items():
            if len(names) > 1:
                which = " and ".join(f"`{name}` has {version or 'none'}" for version, name in names.items())
                message = (
                    f"destination {destination.shown_name} is used by multiple sources {path} with different versions"
                )
                yield destination.located(Problem(message, hint=f"source {which}"))


def _duplicates(found: _Found) -> Iterator[Problem]:
    for kind, names in found.names.items():
        first: dict[str, Document] = {}
        for name, document in names:
            if name not in first:
                first[name] = document
                continue
            before = first[name].origin.problem("", "spec.name")
            hint = f"the first is at {before.file}:{before.line}" if before.line else ""
            shown = document.origin.text("spec.name", name)
            yield document.origin.problem(f"duplicate {kind} name {shown}", "spec.name", hint)


def _all_fields() -> set[str]:
    return {name for model in MODELS.values() for name in model.model_fields}


def _choices() -> set[str]:
    """What a config may choose from, such as `append`: no secret, wherever it comes from."""
    fields = [field for model in MODELS.values() for field in model.model_fields.values()]
    return {choice for field in fields for choice in get_args(field.annotation) if isinstance(choice, str)}


def _known_case(value: Mapping[Any, Any], known: Iterable[str]) -> dict[str, Any]:
    """`value` with keys that differ from a known one in case alone spelled as that one; of two such, the last by name.

    So upstream has it, and lower case sorts last.
    """
    by_lower = {name.lower(): name for name in known}
    return {by_lower.get(str(key).lower(), str(key)): value[key] for key in sorted(value, key=str)}


def _cleaned(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` without keys whose null means unset; a null `write_mode` and its like stay and are refused."""
    strict = ("write_mode", "migrate_mode", "pk_mode")
    cleaned = {key: value for key, value in spec.items() if value is not None or key in strict}
    if cleaned.get("registry") == "":
        del cleaned["registry"]
    if hasattr(cleaned.get("path"), "as_plugin"):
        # JSON, through which types are checked, would not keep the object.
        cleaned["path"] = ObjectPath(cleaned["path"])
        cleaned.setdefault("registry", "python")
    for key in ("tables", "skip_tables", "destinations", "transformers"):
        if isinstance(cleaned.get(key), list):
            cleaned[key] = ["" if item is None else item for item in cleaned[key]]
    for key, known in (("backend_options", ("table_name", "connection")), ("timeouts", ("start", "idle", "stop"))):
        if isinstance(cleaned.get(key), Mapping):
            inner = _known_case(cleaned[key], known)
            cleaned[key] = {name: value for name, value in inner.items() if value is not None}
    return cleaned


def _upstream_wording(problem: Problem) -> str:
    """The message with the words that upstream has for the same mistake in front."""
    words = {
        "spec.write_mode": "invalid write mode",
        "spec.migrate_mode": "invalid migrate mode",
        "spec.pk_mode": "invalid pk mode",
        "spec.registry": "unknown registry",
    }
    is_choice = problem.path in words and problem.message.startswith("expected")
    return f"{words[problem.path]}: {problem.message}" if is_choice else problem.message


def _hint(problem: Problem, kind: str) -> str:
    """What to do about a mistake; a key of another kind of document is sent there."""
    key = problem.path.removeprefix("spec.")
    owners = [other for other, model in MODELS.items() if key in model.model_fields]
    is_unknown = problem.message.startswith("unknown field") and owners and kind not in owners
    return f"it belongs into a {' or '.join(owners)}" if is_unknown else problem.hint
