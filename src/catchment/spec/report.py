"""From a pydantic error to problems a person can act on: path, what is wrong, what is allowed, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from catchment.errors import Problem, did_you_mean
from catchment.redact import Redactor

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

MAX_PROBLEMS = 100
"""Mistakes in one document; with more of them nobody reads on."""

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
    redactor = Redactor(hidden)
    for item in error.errors(include_url=False, include_input=True):
        kind = item["type"]
        if kind == "is_instance_of":
            continue
        location = _keys(item, value)
        path = _path(prefix, location)
        if len(problems) == MAX_PROBLEMS:
            message = f"there are more than {MAX_PROBLEMS} mistakes, the rest is not shown"
            problems[prefix, ""] = Problem(message, path=prefix)
            break
        message, hint = _message(kind, item, location, model, redactor)
        problems.setdefault((path, message), Problem(message, path=path, hint=hint))
    return list(problems.values())


def _keys(item: Any, value: Any) -> list[int | str]:
    """Pydantic's location of a mistake without the parts that are branches of a union, not keys of `value`."""
    kept: list[int | str] = []
    for part in item["loc"]:
        in_list = isinstance(value, (list, tuple)) and isinstance(part, int)
        if in_list or (isinstance(value, Mapping) and part in value):
            value = value[part]
            kept.append(part)
    return [*kept, item["loc"][-1]] if item["type"] == "missing" else kept


def _path(prefix: str, location: Sequence[int | str]) -> str:
    path = prefix
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _message(
    kind: str, item: Any, location: Sequence[int | str], model: type[BaseModel], redactor: Redactor
) -> tuple[str, str]:
    got = _shown(item.get("input"), location, model, redactor)
    context = item.get("ctx") or {}
    if kind == "extra_forbidden":
        key = str(location[-1])
        known = _fields(model, location[:-1])
        return f'unknown field "{key}"', MOVED.get(key) or did_you_mean(key, known)
    if kind == "missing":
        return f"{location[-1]} is required", ""
    if kind == "literal_error":
        near = get_close_matches(str(item["input"]), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return f"expected one of {context['expected']}, got {got}", f"did you mean `{near[0]}`?" if near else ""
    if kind in ("greater_than_equal", "greater_than"):
        word = "at least" if kind == "greater_than_equal" else "more than"
        return f"expected a number of {word} {_limit(context, 'ge', 'gt')}, got {got}", ""
    if kind in ("less_than_equal", "less_than"):
        word = "at most" if kind == "less_than_equal" else "less than"
        return f"expected a number of {word} {_limit(context, 'le', 'lt')}, got {got}", ""
    if kind in ("too_short", "string_too_short"):
        return f"must not be empty, got {got}", ""
    if kind in ("value_error", "assertion_error"):
        text = str(context.get("error", item["msg"]))
        told = ", got " in text or "required" in text or isinstance(item["input"], Mapping)
        return (text if told else f"{text}, got {got}"), ""
    if kind == "string_type" and isinstance(item["input"], (int, float)):
        return f"expected a text, got {got}", "write it in quotes"
    if kind in _WANTED:
        return f"expected {_WANTED[kind]}, got {got}", ""
    return f"{str(item['msg'])[:1].lower()}{str(item['msg'])[1:]}, got {got}", ""


def _limit(context: Mapping[str, Any], *names: str) -> Any:
    limit = next(context[name] for name in names if name in context)
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _shown(value: Any, location: Sequence[int | str], model: type[BaseModel], redactor: Redactor) -> str:
    if is_secret(model, location) or redactor.text(repr(value)) != repr(value):
        return "a value that is not shown"
    return printed(value)


def printed(value: object) -> str:
    """A value of a config in a message: short, in YAML's words, and never what is inside a list or mapping."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_secret(model: type[BaseModel], location: Sequence[int | str]) -> bool:
    """Whether a path leads to a `Secret`, or into a list or mapping of them."""
    for end in range(1, len(location) + 1):
        owner = _model_at(model, location[: end - 1])
        field = owner.model_fields.get(str(location[end - 1])) if owner is not None else None
        if field is not None and "Secret" in str(field.annotation):
            return True
    return False


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
