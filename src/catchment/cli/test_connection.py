"""`catchment test-connection`: try to reach every source and destination of a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from catchment.cli.output import REDACTOR, config_argument, fetch_plugins, load_config, output_option, print_json, say

if TYPE_CHECKING:
    from catchment.spec.model import DestinationConfig, SourceConfig


@click.command("test-connection")
@config_argument
@output_option
def command(config: tuple[str, ...], output: str) -> int:
    """Try to reach every source and destination of CONFIG."""
    loaded = load_config(config, output, relaxed=True)
    results = [_result("source", it.version_string, lambda it=it: _try_source(it, output)) for it in loaded.sources]  # type: ignore[misc]
    results += [
        _result("destination", it.version_string, lambda it=it: _try_destination(it, output))  # type: ignore[misc]
        for it in loaded.destinations
    ]
    failed = sum(not result["success"] for result in results)
    if output == "json":
        document: dict[str, object] = {"results": results}
        if failed:
            document["error"] = "at least one test connection failed"
        print_json(document)
    else:
        say("Test Connection Results")
        width = max(len(str(result["plugin_ref"])) for result in results)
        for result in results:
            state = "Success"
            if not result["success"]:
                state = f"Failure: {result['failure_code']} \t {result['failure_description']}"
            say(f"{result['plugin_kind']:<12} {result['plugin_ref']:<{width}} {state}")
        if failed:
            say("Error: at least one test connection failed", err=True)
    return 1 if failed else 0


def _try_source(source: SourceConfig, output: str) -> None:
    from catchment.engine import registry

    fetch_plugins([source], output)
    plugin = registry.source_for(source)
    try:
        try:
            plugin.init(source.spec, no_connection=True)
        finally:
            REDACTOR.add(plugin.secrets)
        plugin.test_connection()
    finally:
        plugin.close()


def _try_destination(destination: DestinationConfig, output: str) -> None:
    from catchment.engine import registry

    fetch_plugins([destination], output)
    plugin = registry.destination_for(destination)
    try:
        try:
            plugin.init(destination.spec, no_connection=True)
        finally:
            REDACTOR.add(plugin.secrets)
        plugin.test_connection()
    finally:
        plugin.close()


def _result(kind: str, plugin: str, attempt: Callable[[], None]) -> dict[str, object]:
    """What came of an attempt, with upstream's keys and codes."""
    from catchment.cli.logs import log
    from catchment.errors import CatchmentError, SpecError, Unsupported

    code = description = ""
    try:
        attempt()
    except SpecError as error:
        code, description = "INVALID_SPEC", str(error)
    except Unsupported as error:
        code, description = "UNIMPLEMENTED", str(error)
    except CatchmentError as error:
        code, description = "UNKNOWN", str(error)
    except Exception as error:
        # A plugin's own mistake must not keep the others from being tried.
        code, description = "OTHER", f"{type(error).__name__}: {error}"
        log.exception("a test connection failed", extra={"plugin": plugin})
    return {
        "plugin_ref": plugin,
        "plugin_kind": kind,
        "success": not code,
        "failure_code": code,
        "failure_description": description,
    }
