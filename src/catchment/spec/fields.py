"""The building blocks of plugin specs: the base model, secrets, durations, batch limits, and how a spec is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from catchment.errors import Problem, SpecError
from catchment.redact import Redactor, passwords_in
from catchment.spec.report import is_secret, problems_of


class Secret:
    """A text that is never shown: `repr`, `str` and error messages hide it; `reveal` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        made = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(metadata={"secret": True}))
        return core_schema.json_or_python_schema(
            json_schema=made,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), made]),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
DURATION_PATTERN = r"^[-+]?([0-9]*(\.[0-9]*)?[a-z]+)+$"


def duration_s(value: object) -> object:
    """Seconds of a duration text such as `1h30m`, `1.5h` or `500ms`. Raises `ValueError` for any other text."""
    if not isinstance(value, str):
        raise ValueError("expected a duration such as '30s' or '1h30m'")
    text = value.removeprefix("+")
    parts = _PART.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise ValueError("expected a duration such as '30s' or '1h30m' (units ns, us, ms, s, m, h)")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Duration = Annotated[
    float,
    BeforeValidator(duration_s),
    Field(json_schema_extra={"type": "string", "pattern": DURATION_PATTERN}),
]
"""Seconds, written as a duration text in a config."""


def _share(value: object) -> object:
    """`30%` as 0.3."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            pass
    return value


Share = Annotated[
    float,
    Field(ge=0),
    BeforeValidator(_share),
    Field(json_schema_extra={"type": ["number", "string"], "pattern": r"^[0-9]*\.?[0-9]+%$"}),
]
"""A part of a whole, written as a number or as a percentage."""


class Spec(BaseModel):
    """The base of every plugin's spec: frozen, strict about types, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
    )


class BatchSpec(Spec):
    """When rows are written: whichever limit is reached first. Unset limits are chosen from measurement."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows in a batch."""
    batch_size_bytes: Annotated[int, Field(ge=1)] | None = None
    """Bytes in memory of a batch."""
    batch_timeout: Duration | None = None
    """How long a started batch may wait."""


S = TypeVar("S", bound=Spec)


class ObjectPath(str):
    """The `path` of a plugin that is given as the Python object itself; as a text its name."""

    plugin: Any

    def __new__(cls, plugin: Any) -> Self:
        """The path for an object with `as_plugin`."""
        is_class = isinstance(plugin, type)
        made = super().__new__(cls, f"{plugin.__module__}:{plugin.__qualname__}" if is_class else plugin.name)
        made.plugin = plugin
        return made


def object_path(value: object, handler: Callable[[Any], Any]) -> Any:
    """Let the object of a plugin stand for its `path`."""
    if isinstance(value, ObjectPath):
        return value
    return ObjectPath(value) if hasattr(value, "as_plugin") else handler(value)


def plain(value: object) -> str:
    """The text for a value of a library user's config that JSON has no form for."""
    return value.reveal() if isinstance(value, Secret) else str(value)


def parse_spec(spec_type: type[S], value: Mapping[str, Any] | None, *, where: str) -> S:
    """A plugin's spec from what the config says. Raises `SpecError` with every mistake; `where` names the plugin."""
    try:
        # Through JSON, so that lists stand for tuples as in any config file while scalars are taken strictly.
        return spec_type.model_validate_json(json.dumps(dict(value or {}), default=plain))
    except ValidationError as error:
        hidden = frozenset(_written_secrets(spec_type, value or {}, ()))
        problems = problems_of(error, spec_type, value or {}, prefix="spec.spec", hidden=hidden)
        # A validator of the plugin's author may have put the value into its words.
        shown = Redactor(hidden)
        raise SpecError(
            [Problem(f"{where}: {shown.text(p.message)}", path=p.path, hint=shown.text(p.hint)) for p in problems]
        ) from None


def secrets_of(spec: BaseModel) -> frozenset[str]:
    """What must not be shown of a plugin's spec: its `Secret` fields, and passwords inside URLs and other texts."""
    return frozenset(_secrets(spec))


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, str):
        yield from passwords_in(value)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _secrets(item)


def _written_secrets(spec_type: type[BaseModel], value: Any, location: tuple[int | str, ...]) -> Iterator[str]:
    """The same of a spec that is not valid, as far as its shape tells."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _written_secrets(spec_type, item, (*location, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _written_secrets(spec_type, item, (*location, index))
    elif isinstance(value, str):
        if is_secret(spec_type, location):
            yield value
        yield from passwords_in(value)
