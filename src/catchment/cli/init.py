"""`catchment init`: a working config for a source and a destination."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

EXAMPLES: dict[tuple[str, str], str] = {
    ("source", "file"): "path: ./data   # a folder, a file or a glob; CSV, JSON lines or Parquet",
    ("source", "postgresql"): "connection_string: ${SOURCE_POSTGRESQL}   # postgresql://user:password@host/database",
    ("source", "sqlite"): "connection_string: ./source.db",
    ("source", "test"): "num_rows: 10",
    ("destination", "duckdb"): "connection_string: ./catchment.duckdb",
    (
        "destination",
        "postgresql",
    ): "connection_string: ${DESTINATION_POSTGRESQL}   # postgresql://user:password@host/db",
    ("destination", "sqlite"): "connection_string: ./catchment.db",
    ("destination", "file"): "path: ./output/{{TABLE}}/{{UUID}}.{{FORMAT}}\n    format: parquet",
    ("destination", "test"): "",
}
"""What stands under `spec` of a plugin of ours; a plugin that is not here gets its required keys."""


@click.command("init")
@click.option("--source", help="Name of a source plugin, such as `file`.")
@click.option("--destination", help="Name of a destination plugin, such as `duckdb`.")
@click.option(
    "--spec-path", type=click.Path(path_type=Path), help="File to write. [default: SOURCE_to_DESTINATION.yml]"
)
@click.option("--yes", is_flag=True, help="Ask nothing: `file` into `duckdb` where no other is named.")
def command(source: str | None, destination: str | None, spec_path: Path | None, yes: bool) -> int:
    """Write a working config to start from."""
    source = _chosen("source", source, "file", yes)
    destination = _chosen("destination", destination, "duckdb", yes)
    path = spec_path or Path(f"{source}_to_{destination}.yml")
    if path.exists():
        raise click.ClickException(f"{path} is there already; name another file with --spec-path")
    path.write_text(_config(source, destination), encoding="utf-8")
    click.echo(f"Wrote {path}. Fill it in, then run: catchment sync {path}")
    return 0


def _chosen(kind: str, name: str | None, default: str, yes: bool) -> str:
    """The plugin that was named or is picked; unknown names are refused with the nearest one."""
    from catchment.engine.registry import installed
    from catchment.errors import SpecError, did_you_mean

    names = [plugin.name for plugin in installed() if plugin.kind == kind]
    if name is None:
        if yes or not sys.stdin.isatty():
            return default
        name = str(click.prompt(f"{kind.capitalize()}", type=click.Choice(names), default=default))
    if name not in names:
        raise SpecError(f'{kind} plugin "{name}" not found', hint=did_you_mean(name, names))
    return name


def _config(source: str, destination: str) -> str:
    append = "\n  write_mode: append" if destination == "file" else ""
    return f"""kind: source
spec:
  name: {source}
  registry: python
  path: {source}
  tables: ["*"]
  destinations: [{destination}]
{_spec("source", source)}---
kind: destination
spec:
  name: {destination}
  registry: python
  path: {destination}{append}
{_spec("destination", destination)}"""


def _spec(kind: str, name: str) -> str:
    text = EXAMPLES.get((kind, name))
    if text is None:
        text = "\n    ".join(f"{key}: " for key in _required(kind, name))
    return f"  spec:\n    {text}\n" if text else ""


def _required(kind: str, name: str) -> list[str]:
    """The required keys of a stranger's plugin."""
    from catchment.engine.registry import factory

    found: Any = factory(kind, "python", name)  # type: ignore[arg-type]
    return [key for key, field in found.spec_type.model_fields.items() if field.is_required()]
