"""Specs of plugins that run elsewhere, held against the JSON Schema that the plugin itself gives for its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catchment.engine.foreign import foreign
from catchment.errors import CatchmentError, Problem, did_you_mean
from catchment.redact import Redactor

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from catchment.spec.model import PluginConfig


@dataclass(frozen=True, slots=True)
class Held:
    """What came of one spec."""

    problems: tuple[Problem, ...] = ()
    unchecked: str = ""
    """Why it could not be held against anything; empty if it was."""


def hold(config: PluginConfig, redactor: Redactor) -> Held:
    """Ask the plugin for the schema of its spec, for which its program is started, but not initialised.

    What would have to be reached or downloaded is not asked. `redactor` learns the values that sound like secrets.
    """
    if not config.program:
        return Held(unchecked="its plugin is not on this machine" if config.registry != "grpc" else "it runs elsewhere")
    plugin = foreign(config)
    try:
        plugin.init(config.spec, no_connection=True)
        redactor.add(plugin.secrets)
        schema = plugin.spec_schema()
    except CatchmentError as error:
        return Held(unchecked=" ".join(str(error.args[0]).split()))
    finally:
        plugin.close()
    return _held(config, schema)


def _held(config: PluginConfig, schema: str | None) -> Held:
    # It is slow to import, and only this command needs it.
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not schema:
        return Held(unchecked="its plugin gives no schema for it")
    try:
        document = json.loads(schema)
        jsonschema.Draft202012Validator.check_schema(document)
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        # A registry of its own: the default one would fetch what a schema refers to.
        validator = jsonschema.Draft202012Validator(document, registry=Registry(), format_checker=checker)
        problems = {problem: None for error in validator.iter_errors(dict(config.spec)) for problem in _problems(error)}
    except (ValueError, jsonschema.SchemaError, Unresolvable, re.error) as error:
        return Held(unchecked=f"its plugin gives a schema that cannot be used: {' '.join(str(error).split())[:200]}")
    return Held(tuple(config.located(problem) for problem in problems))


def _problems(error: ValidationError) -> Iterator[Problem]:
    """A mistake in words like those about our own specs."""
    from jsonschema.exceptions import best_match

    # Of alternatives that all fail, the one that came nearest says most.
    error = best_match([error]) or error
    path = "spec.spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    wanted: Any = error.validator_value
    found: Any = error.instance
    match error.validator:
        case "required":
            for name in wanted:
                if name not in found:
                    yield Problem(f"{name} is required", path=f"{path}.{name}")
        case "additionalProperties" if wanted is False and known:
            for name in found:
                if name not in known:
                    yield Problem(f'unknown field "{name}"', path=f"{path}.{name}", hint=did_you_mean(name, known))
        case "type" | "oneOf" | "anyOf" if types := _types(error):
            yield Problem(f"expected {' or '.join(types)}, got {found!r}", path=path)
        case _:
            yield Problem(error.message, path=path)


def _types(error: ValidationError) -> list[str]:
    """The types that a value may have, alternatives included; empty where more than its type is wrong."""
    if error.validator == "type":
        wanted: Any = error.validator_value
        return [*wanted] if isinstance(wanted, list) else [str(wanted)]
    found = [_types(each) if not each.relative_path else [] for each in error.context or ()]
    return [name for names in found for name in names] if all(found) else []
