"""From a pydantic error to problems a person can act on: path, what is wrong, what is allowed, the nearest name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from catchment.errors import Problem, did_you_mean

MOVED = {
    "concurrency": "it belongs into the plugin's own `spec`",
    "table_concurrency": "it belongs into the plugin's own `spec`",
    "resource_concurrency": "it belongs into the plugin's own `spec`",
    "scheduler": "it belongs into the plugin's own `spec`",
    "backend": "use `backend_options`",
    "backend_spec": "use `backend_options`",
    "batch_size": "it belongs into the destination's own `spec`",
    "batch_size_bytes": "it belongs into the destination's own `spec`",
}
"""Keys that older configs have, and where they went."""

_WANTED = {
    "string_type": "a text",
    "bool_type": "`true` or `false`",
    "bool_parsing": "`true` or `false`",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
}


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    value: Mapping[str, Any],
    *,
    prefix: str,
    hidden: frozenset[str] = frozenset(),
) -> list[Problem]:
    """One problem per mistake. Values in `hidden`, and those of secret fields, are not shown."""
    problems: dict[tuple[str, str], Problem] = {}
    for item in error.errors(include_url=False, include_input=True):
        kind = item["type"]
        if kind == "is_instance_of":
            continue
        location = [part for part in item["loc"] if not _is_branch(part)]
        path = _path(prefix, location)
        message, hint = _message(kind, item, location, model, hidden)
        problems.setdefault((path, message), Problem(message, path=path, hint=hint))
    return list(problems.values())


def _is_branch(part: int | str) -> bool:
    """Whether a part of pydantic's location is a branch of a union, not a key."""
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool", "none", "Secret"})


def _path(prefix: str, location: Sequence[int | str]) -> str:
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _message(
    kind: str, item: Any, location: Sequence[int | str], model: type[BaseModel], hidden: frozenset[str]
) -> tuple[str, str]:
    got = _shown(item.get("input"), location, model, hidden)
    context = item.get("ctx") or {}
    if kind == "extra_forbidden":
        key = str(location[-1])
        known = _fields(model, location[:-1])
        return f'unknown field "{key}"', MOVED.get(key, "") if key not in known and key in MOVED else did_you_mean(
            key, known
        )
    if kind == "missing":
        return f"{location[-1]} is required", ""
    if kind == "literal_error":
        return f"expected one of {context.get('expected')}, got {got}", ""
    if kind in ("greater_than_equal", "greater_than"):
        word = "at least" if kind == "greater_than_equal" else "more than"
        limit = context.get("ge", context.get("gt"))
        return f"expected a number of {word} {limit}, got {got}", ""
    if kind in ("less_than_equal", "less_than"):
        word = "at most" if kind == "less_than_equal" else "less than"
        limit = context.get("le", context.get("lt"))
        return f"expected a number of {word} {limit}, got {got}", ""
    if kind in ("too_short", "string_too_short"):
        return f"must not be empty, got {got}", ""
    if kind in ("value_error", "assertion_error"):
        text = str(context.get("error", item["msg"]))
        return (text if ", got " in text or "required" in text else f"{text}, got {got}"), ""
    if kind in _WANTED:
        return f"expected {_WANTED[kind]}, got {got}", ""
    return f"{str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, got {got}", ""


def _shown(value: Any, location: Sequence[int | str], model: type[BaseModel], hidden: frozenset[str]) -> str:
    text = repr(value)
    if _is_secret(model, location) or any(secret in text for secret in hidden):
        return "a value that is not shown"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_secret(model: type[BaseModel], location: Sequence[int | str]) -> bool:
    owner = _model_at(model, location[:-1])
    field = owner.model_fields.get(str(location[-1])) if owner is not None and location else None
    return field is not None and "Secret" in str(field.annotation)


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    owner = _model_at(model, location)
    return list(owner.model_fields) if owner is not None else []


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that a path leads to; None where it leaves the models."""
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        found = _models_in(field.annotation) if field is not None else []
        if not found:
            return None
        model = found[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
