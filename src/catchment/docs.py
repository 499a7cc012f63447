"""From models to pages: what a plugin's spec, capabilities and types say, as Markdown and JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from catchment import errors
from catchment.plugin import Capabilities
from catchment.schema.types import type_string
from catchment.sdk.types import all_types_columns
from catchment.spec.fields import Secret

GENERATED = "<!-- Written by `catchment docs`; change the code, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """File name below the reference folder → text, for everything of ours that is installed."""
    made = {"errors.md": _errors(), "cli.md": _cli()}
    matrix = []
    for kind in ("source", "destination", "transformer"):
        for point in sorted(entry_points(group=f"catchment.{kind}s"), key=lambda point: point.name):
            if point.dist is None or point.dist.name != "catchment":
                continue
            plugin = point.load()
            spec = plugin.spec_type
            text = f"{GENERATED}# {kind} `{point.name}`\n\n{_intro(point.value)}\n\n{_spec(spec)}"
            if kind == "destination":
                text += _capabilities(plugin.capabilities) + _types(plugin.capabilities.stored_as)
                matrix.append((point.name, plugin.capabilities))
            made[f"{kind}s/{point.name}.md"] = text
            made[f"schema/{kind}-{point.name}.json"] = json.dumps(_json_schema(spec), indent=2) + "\n"
    made["matrix.md"] = _matrix(matrix)
    return made


def _intro(target: str) -> str:
    import importlib

    module = importlib.import_module(target.partition(":")[0])
    return (module.__doc__ or "").strip().partition(": ")[2].strip().capitalize()


def _json_schema(spec: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **spec.model_json_schema()}


def _spec(spec: type[BaseModel], title: str = "Spec") -> str:
    lines = [f"## {title}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    nested: list[type[BaseModel]] = []
    for name, field in spec.model_fields.items():
        nested += [model for model in _models(field.annotation) if model not in nested]
        kind = _type_text(field).replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {_default(field)} | {' '.join((field.description or '').split())} |")
    text = "\n".join(lines) + "\n\n"
    return text + "".join(_spec(model, f"`{model.__name__}`") for model in nested)


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
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_named(argument) for argument in arguments if argument is not type(None))
    if origin in (tuple, list):
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return "mapping"
    names = {str: "text", bool: "bool", int: "int", float: "number", Secret: "text, secret"}
    return names.get(annotation) or f"`{annotation.__name__}`"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "empty"
    default = field.default
    if isinstance(default, BaseModel):
        return "see below"
    return "unset" if default is None else f"`{json.dumps(default)}`"


def _capabilities(able: Capabilities) -> str:
    rows = [
        ("write modes", ", ".join(f"`{mode}`" for mode in sorted(able.write_modes))),
        (
            "publishing",
            {"sync": "all tables of a sync at once", "table": "each table at once", "none": "as rows come"}[
                able.publish
            ],
        ),
        ("changes in `safe` mode", ", ".join(f"`{kind}`" for kind in sorted(able.safe_changes)) or "none"),
        ("deletes single records", "yes" if able.delete_records else "no"),
        ("longest name", f"{able.max_identifier_bytes} bytes" if able.max_identifier_bytes else "no limit"),
        ("tables written at once", str(able.writers)),
        ("batch, where the spec sets none", _batch(able)),
    ]
    return "## What it can do\n\n| | |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows) + "\n"


def _batch(able: Capabilities) -> str:
    parts = [
        f"{able.batch.rows:,} rows" if able.batch.rows else "",
        f"{able.batch.size_bytes:,} bytes" if able.batch.size_bytes else "",
        f"{able.batch.timeout_s:g} seconds" if able.batch.timeout_s else "",
    ]
    return " or ".join(part for part in parts if part)


def _types(stored_as: Callable[[pa.DataType], pa.DataType]) -> str:
    """The types that do not come back as they went in."""
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
    return "\n".join(lines) + "\n" if changed else "## Types\n\nEvery type comes back as it went in.\n"


def _matrix(rows: list[tuple[str, Capabilities]]) -> str:
    kinds = sorted({kind for _, able in rows for kind in able.safe_changes})
    head = ["destination", "append", "overwrite", "overwrite-delete-stale", "publish", "delete records", *kinds]
    lines = [f"{GENERATED}# Destinations\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, able in rows:
        cells = [f"[{name}](destinations/{name}.md)"]
        cells += ["yes" if mode in able.write_modes else "" for mode in head[1:4]]
        cells += [able.publish, "yes" if able.delete_records else ""]
        cells += ["safe" if kind in able.safe_changes else "forced" for kind in kinds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _errors() -> str:
    lines = [f"{GENERATED}# Errors\n", "| class | when |", "|---|---|"]
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.CatchmentError):
            lines.append(f"| `{name}` | {' '.join((value.__doc__ or '').split())} |")
    return "\n".join(lines) + "\n"


def _cli() -> str:
    import importlib

    import click

    from catchment.cli.main import COMMANDS

    lines = [f"{GENERATED}# Commands\n"]
    for name, (module, summary) in COMMANDS.items():
        command = importlib.import_module(f"catchment.cli.{module}").command
        context = click.Context(command, info_name=f"catchment {name}", max_content_width=100, terminal_width=100)
        lines.append(f"## `catchment {name}`\n\n{summary}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(lines)
