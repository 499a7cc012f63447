"""What several commands share: options, reading a config, and printing a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from catchment.engine.plan import Plan
    from catchment.spec.model import Config

F = TypeVar("F", bound=Callable[..., Any])


def config_argument(function: F) -> F:
    """The files and folders that a command reads."""
    return click.argument("config", nargs=-1, required=True, type=click.Path())(function)


def output_option(function: F) -> F:
    """`--output text|json`: with `json` one document on standard output and nothing else there."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Print text, or one JSON document.",
    )(function)


def load_config(paths: Sequence[str], *, relaxed: bool = False) -> Config:
    """The config in `paths`; its warnings go to standard error."""
    from catchment.spec.load import load

    config = load(paths, require="relaxed" if relaxed else "strict")
    for warning in config.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return config


def load_plan(paths: Sequence[str]) -> Plan:
    """The config in `paths` with its plugins checked. Raises `SpecError` with the mistakes of both at once."""
    from catchment.engine.plan import make_plan
    from catchment.spec.model import PartlyWrong

    try:
        config = load_config(paths)
    except PartlyWrong as error:
        return make_plan(error.config, error.problems)
    return make_plan(config)


def print_json(document: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))
