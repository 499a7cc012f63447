"""What several commands share: options, reading a config, and printing, from which secrets are kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from catchment.redact import Redactor

if TYPE_CHECKING:
    from catchment.engine.plan import Plan
    from catchment.spec.model import Config, PluginConfig

F = TypeVar("F", bound=Callable[..., Any])

REDACTOR = Redactor()
"""Knows the secrets of the config that this process runs; all that is printed and logged goes through it."""


AT_END: list[Callable[[], None]] = []
"""What is done when the command is over and all is said, before the process ends."""


class Settings(NamedTuple):
    """What the options of the root command say."""

    invocation_id: str
    cq_dir: str
    log_level: str = "info"
    log_format: str = "text"
    log_file: str = ""
    """Empty for none."""
    log_file_is_wanted: bool = False
    """Whether its name was given, so that a log that cannot be written is a mistake of the user's."""
    log_file_overwrite: bool = False
    log_console: bool = False


def settings() -> Settings:
    """The settings of the command that runs."""
    found = click.get_current_context().find_root().obj
    assert isinstance(found, Settings)
    return found


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


def license_option(function: F) -> F:
    """`--license FILE`, which upstream's paid plugins need."""

    def note(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value:
            say("Note: --license is ignored, as nothing here needs one", err=True)

    return click.option(
        "--license", expose_value=False, callback=note, metavar="FILE", help="Accepted and ignored: nothing needs one."
    )(function)


def not_null_option(function: F) -> F:
    """`--cq-columns-not-null`, which upstream hides too."""
    return click.option(
        "--cq-columns-not-null",
        is_flag=True,
        hidden=True,
        help="Declare `_cq_sync_time` and `_cq_source_name` as not null.",
    )(function)


def load_config(paths: Sequence[str], output: str = "text", *, relaxed: bool = False) -> Config:
    """The config in `paths`; the log begins here, and warnings go to standard error."""
    from catchment.cli import logs

    logs.start(settings(), REDACTOR)
    announce(f"Loading spec(s) from {', '.join(paths)}", output)
    logs.log.info("Loading spec(s)", extra={"paths": list(paths)})

    from catchment.engine.plan import config_secrets
    from catchment.engine.registry import native_twin
    from catchment.spec.load import load
    from catchment.spec.model import PartlyWrong

    try:
        config = load(paths, require="relaxed" if relaxed else "strict")
    except PartlyWrong as error:
        REDACTOR.add(config_secrets(error.config))
        raise
    REDACTOR.add(config_secrets(config))
    for warning in config.warnings:
        warn(str(warning))
    plugins = (*config.sources, *config.destinations, *config.transformers)
    for path, name in sorted({(plugin.path, native_twin(plugin)) for plugin in plugins}):
        if name:
            lines = f"  registry: python\n  path: {name}"
            say(f"Note: `{path}` is built in here and needs no download, if you write\n{lines}", err=True)
    return config


def load_plan(paths: Sequence[str], output: str = "text", *, fetch: bool = True) -> Plan:
    """The config in `paths` with its plugins checked and, with `fetch`, all of them on this machine.

    Raises `SpecError` with the mistakes of both at once, and `PluginError` for plugins that cannot be had.
    """
    from catchment.engine.acquire import needed
    from catchment.engine.plan import make_plan
    from catchment.spec.model import PartlyWrong

    try:
        config = load_config(paths, output)
    except PartlyWrong as error:
        return make_plan(error.config, error.problems, REDACTOR)
    plan = make_plan(config, redactor=REDACTOR)
    for warning in plan.warnings:
        say(f"Warning: {warning}", err=True)
    if fetch:
        fetch_plugins(needed(plan.config), output)
    return plan


def fetch_plugins(plugins: Iterable[PluginConfig], output: str = "text") -> None:
    """Download those plugins that are to be downloaded and that the cache lacks. Raises as `acquire`."""
    from catchment.engine.acquire import acquire

    acquire(plugins, settings().cq_dir, lambda text: announce(text, output), warn)


def say(text: str, *, err: bool = False) -> None:
    """Print a line without the secrets in it."""
    _print(REDACTOR.text(text), err=err)


def warn(text: str) -> None:
    """Print a warning to standard error, and log it."""
    from catchment.cli.logs import log

    say(f"Warning: {text}", err=True)
    log.warning("%s", text)


def announce(text: str, output: str) -> None:
    """Print what a command is about to do; with `--output json` to standard error."""
    say(text, err=output == "json")


def print_json(document: object) -> None:
    """Print one JSON document without the secrets in it."""
    _print(json.dumps(REDACTOR.value(document), indent=2, ensure_ascii=False, default=str))


def _print(text: str, *, err: bool = False) -> None:
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        # A reader that has seen enough, such as `head`, must not end a sync; what follows goes nowhere.
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
