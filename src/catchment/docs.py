"""From models to pages: what a plugin's spec, capabilities and types say, as Markdown and JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import entry_points
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from catchment import errors
from catchment.engine.result import result_schema
from catchment.plugin import Capabilities
from catchment.schema.changes import ChangeKind
from catchment.schema.types import type_string
from catchment.sdk.types import all_types_columns
from catchment.spec.fields import Secret
from catchment.spec.model import MODELS, BackendOptions, PluginConfig
from catchment.spec.schema import config_schema

GENERATED = "<!-- Written by `catchment docs`; change the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """File name below the reference folder → text, for everything of ours that is installed."""
    made = {"errors.md": _errors(), "cli.md": _cli(), "configuration.md": _configuration()}
    matrix = []
    for kind in ("source", "destination", "transformer"):
        for point in sorted(entry_points(group=f"catchment.{kind}s"), key=lambda point: point.name):
            if point.dist is None or point.dist.name != "catchment":
                continue
            plugin = point.load()
            spec = plugin.spec_type
            text = f"{GENERATED}# {kind} `{point.name}`\n\n{_intro(point.value)}\n\n{_spec(spec)}"
            text += f"Also as [JSON Schema](../schema/{kind}-{point.name}.json).\n\n"
            if kind == "destination":
                text += _capabilities(plugin.capabilities) + _types(plugin.capabilities)
                matrix.append((point.name, plugin.capabilities))
            made[f"{kind}s/{point.name}.md"] = text
            made[f"schema/{kind}-{point.name}.json"] = json.dumps(_json_schema(spec), indent=2) + "\n"
    made["matrix.md"] = _matrix(matrix)
    made["schema/result.json"] = json.dumps(result_schema(), indent=2) + "\n"
    return made


def _intro(target: str) -> str:
    import importlib

    module = importlib.import_module(target.partition(":")[0])
    text = (module.__doc__ or "").strip().partition(": ")[2].strip()
    return text[:1].upper() + text[1:]


def _json_schema(spec: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **spec.model_json_schema()}


def _spec(spec: type[BaseModel], title: str = "Spec") -> str:
    return _options(
        spec.model_fields, title, {name for name, field in spec.model_fields.items() if field.is_required()}
    )


def _options(fields: Mapping[str, FieldInfo], title: str, required: Collection[str]) -> str:
    """A table of the fields, and one for each model in them, however deep."""
    text = _table(fields, title, required)
    inner: dict[type[BaseModel], None] = {}
    waiting = [model for field in fields.values() for model in _models(field.annotation)]
    for model in waiting:
        if model not in inner:
            inner[model] = None
            waiting += [found for field in model.model_fields.values() for found in _models(field.annotation)]
    for model in inner:
        wanted = [name for name, field in model.model_fields.items() if field.is_required()]
        text += _table(model.model_fields, f"`{model.__name__}`", _REQUIRED.get(model, wanted))
    return text


def _table(fields: Mapping[str, FieldInfo], title: str, required: Collection[str]) -> str:
    lines = [f"## {title}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        kind = _type_text(field).replace("|", "\\|")
        default = "required" if name in required else _default(field)
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    return "\n".join(lines) + "\n\n"


_REQUIRED: Mapping[type[BaseModel], Collection[str]] = {BackendOptions: ("table_name", "connection")}
"""Fields that rules between fields require, though the model has a default."""


def _configuration() -> str:
    """Every option of a config's documents."""
    intro = (
        "What stands under `spec` of each kind of document. [The guide](../configuration.md) tells what it is good "
        "for, and the plugins' own pages what stands under the `spec` inside."
    )
    definitions = config_schema()["$defs"]
    shared = PluginConfig.model_fields
    parts = [f"{GENERATED}# Options of a config\n\n{intro}\n\n", _options(shared, "Every kind", ("name", "path"))]
    for kind, model in MODELS.items():
        own = {name: field for name, field in model.model_fields.items() if name not in shared}
        title = f"`kind: {kind}`"
        nothing = f"## {title}\n\nNo options besides those of every kind.\n\n"
        parts.append(_options(own, title, definitions[kind.title()]["required"]) if own else nothing)
    return "".join(parts).rstrip() + "\n"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models(argument)]


def _type_text(field: FieldInfo) -> str:
    """The type as a config's writer would say it."""
    return _named(field.annotation, field.metadata)


def _named(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if any(type(extra).__name__ == "BeforeValidator" for extra in metadata):
        return "duration"
    if origin is Annotated:
        return _named(arguments[0], arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" if value else '`""`' for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_named(argument) for argument in arguments if argument is not type(None))
    if origin in (tuple, list):
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return "mapping"
    names = {str: "text", bool: "bool", int: "int", float: "number", Secret: "text, secret"}
    return names.get(annotation) or f"`{annotation.__name__}`"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "empty"
    default = field.default
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, Secret):
        return '`""`'
    if isinstance(default, float) and _type_text(field) == "duration":
        return f"`{default:g}s`"
    return "unset" if default is None else f"`{json.dumps(default)}`"


_PUBLISHING = {"sync": "all tables of a sync at once", "table": "each table at once", "none": "as rows come"}


def _capabilities(able: Capabilities) -> str:
    rows = [
        ("write modes", ", ".join(f"`{mode}`" for mode in sorted(able.write_modes))),
        (
            "publishing",
            _PUBLISHING[able.publish],
        ),
        ("changes in `safe` mode", _kinds(able.safe_changes)),
        ("deletes single records", "yes" if able.delete_records else "no"),
        ("longest name", f"{able.max_identifier_bytes} bytes" if able.max_identifier_bytes else "no limit"),
        ("tables written at once", str(able.writers)),
        ("batch, where the spec sets none", _batch(able)),
    ]
    return "## What it can do\n\n| ability | here |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows) + "\n"


def _batch(able: Capabilities) -> str:
    parts = [
        f"{able.batch.rows:,} rows" if able.batch.rows else "",
        f"{able.batch.size_bytes:,} bytes" if able.batch.size_bytes else "",
        f"{able.batch.timeout_s:g} seconds" if able.batch.timeout_s else "",
    ]
    return " or ".join(part for part in parts if part)


def _types(able: Capabilities) -> str:
    """The types that do not come back as they went in."""
    stored_as = able.stored_as
    lines = ["## Types\n", "Every type comes back as it went in, but for these:\n", "| written | read |", "|---|---|"]
    changed = 0
    for column in all_types_columns():
        if column.name == "struct" or column.name.endswith("_list"):
            continue
        stored = stored_as(column.type)
        if not stored.equals(column.type):
            changed += 1
            lines.append(f"| `{type_string(column.type)}` | `{type_string(stored)}` |")
    for name, kind in (
        ("list", pa.list_(pa.int64())),
        ("struct", pa.struct([("a", pa.int64())])),
        ("map", pa.map_(pa.utf8(), pa.int64())),
    ):
        stored = stored_as(kind)
        if not stored.equals(kind):
            changed += 1
            lines.append(f"| {name} | `{type_string(stored)}` |")
    text = "\n".join(lines) + "\n" if changed else "## Types\n\nEvery type comes back as it went in.\n"
    if able.empty_for_null(pa.list_(pa.int64())):
        text += "\nNull lists and maps come back empty, null structs with nothing but nulls in them.\n"
    return text


def _matrix(rows: list[tuple[str, Capabilities]]) -> str:
    modes = ("append", "overwrite", "overwrite-delete-stale")
    lines = [f"{GENERATED}# Destinations\n", f"| destination | {' | '.join(modes)} | publishes | deletes records |"]
    lines.append("|---" * (len(modes) + 3) + "|")
    for name, able in rows:
        cells = [f"[{name}](destinations/{name}.md)"]
        cells += ["yes" if mode in able.write_modes else "" for mode in modes]
        cells += [_PUBLISHING[able.publish], "yes" if able.delete_records else ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "\n## Changes of tables\n",
        "| destination | with `migrate_mode: safe` | with `forced` as well |",
        "|---|---|---|",
    ]
    for name, able in rows:
        safe = _kinds(able.safe_changes)
        every = able.safe_changes == frozenset(get_args(ChangeKind))
        forced = "every other" if able.forced_changes is None else _kinds(able.forced_changes - able.safe_changes)
        lines.append(f"| {name} | {'every change' if every else safe} | {'' if every else forced} |")
    lines.append("\n[Migrations](../migrations.md) tells what the changes are.")
    return "\n".join(lines) + "\n"


def _kinds(kinds: Collection[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in sorted(kinds)) or "none"


def _errors() -> str:
    lines = [f"{GENERATED}# Errors\n", "| class | when |", "|---|---|"]
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.CatchmentError):
            lines.append(f"| `{name}` | {' '.join((value.__doc__ or '').split())} |")
    return "\n".join(lines) + "\n"


def _cli() -> str:
    import importlib

    import click

    from catchment.cli.main import COMMANDS, root

    commands = [("catchment", "Options that may stand before or behind any command.", root)]
    for name, (module, summary) in COMMANDS.items():
        command = importlib.import_module(f"catchment.cli.{module}").command
        commands.append((f"catchment {name}", summary, command))
        for inner in getattr(command, "commands", {}).values():
            if not inner.hidden:
                commands.append((f"catchment {name} {inner.name}", inner.get_short_help_str(100), inner))
    lines = [f"{GENERATED}# Commands\n"]
    for name, summary, command in commands:
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        lines.append(f"## `{name}`\n\n{summary}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(lines)
