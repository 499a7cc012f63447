"""JSON Schema of a config, made from the models, so that editors complete and check it.

Stricter than the reader in what the reader takes for old configs' sake: nulls, empty names, a missing `kind`.
"""

from __future__ import annotations

import copy
from typing import Any, get_args

from catchment.spec.model import MODELS, VERSIONED, Registry

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_NAMES = {**_TEXTS, "minItems": 1}
_WRITTEN: dict[str, dict[str, Any]] = {
    "name": _TEXT,
    "path": _TEXT,
    "registry": {"type": "string", "enum": ["", *get_args(Registry)]},
    "tables": _NAMES,
    "destinations": _NAMES,
    "skip_tables": {"anyOf": [_TEXTS, {"type": "null"}]},
    "transformers": {"anyOf": [_TEXTS, {"type": "null"}]},
    "skip_dependent_tables": {"type": ["boolean", "null"]},
    "deterministic_cq_id": {"type": "boolean"},
    "spec": {"type": ["object", "null"]},
    "table_name": _TEXT,
    "connection": _TEXT,
}
"""What the models cannot tell, as they take more than one should write."""
_REQUIRED = {
    "Source": ["name", "path", "tables", "destinations"],
    "Destination": ["name", "path"],
    "Transformer": ["name", "path"],
    "BackendOptions": ["table_name", "connection"],
}


def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one document of a config."""
    definitions: dict[str, Any] = {}
    for kind, model in MODELS.items():
        made = model.model_json_schema()
        definitions.update({name: _definition(name, inner) for name, inner in made.pop("$defs", {}).items()})
        definitions[kind.title()] = {**_definition(kind.title(), made), **_version_rule()}
    definitions["Spec"] = {
        "type": "object",
        "description": "One document of a config: a source, a destination or a transformer.",
        "additionalProperties": False,
        "required": ["kind", "spec"],
        "properties": {
            "kind": {"type": "string", "enum": list(MODELS), "description": "What the document describes."},
            "spec": {"type": "object", "description": "The source, destination or transformer itself."},
        },
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"properties": {"spec": {"$ref": f"#/$defs/{kind.title()}"}}},
            }
            for kind in MODELS
        ],
    }
    return {"$schema": DRAFT, "title": "catchment config", "$ref": "#/$defs/Spec", "$defs": definitions}


def _version_rule() -> dict[str, Any]:
    """`version` is needed where a registry keeps several; a missing `registry` is one of those."""
    return {
        "if": {"properties": {"registry": {"enum": ["", *VERSIONED]}}},
        "then": {"required": ["version"], "properties": {"version": {"pattern": "^v.*$"}}},
    }


def _definition(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's schema of a model with our rules in it and without what it says twice."""
    properties = {key: _property(key, value) for key, value in made["properties"].items()}
    definition = {**made, "properties": properties}
    definition.pop("title", None)
    if name in _REQUIRED:
        definition["required"] = list(_REQUIRED[name])
    return definition


def _property(key: str, made: dict[str, Any]) -> dict[str, Any]:
    kept = {part: value for part, value in made.items() if part not in ("title", "default")}
    if key in _WRITTEN:
        kept = {**copy.deepcopy(_WRITTEN[key]), "description": made["description"]}
    default = made.get("default")
    if isinstance(default, float) and kept.get("type") == "string":
        default = f"{default:g}s"
    if default not in (None, "") and not isinstance(default, dict) and key != "docker_registry_auth_token":
        kept["default"] = default
    return kept
