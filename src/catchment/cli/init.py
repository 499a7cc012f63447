"""`catchment init`: a working config for a source and a destination."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catchment.cli.output import output_option, print_json, say

if TYPE_CHECKING:
    from catchment.plugin import Kind

SCHEMA_FILE = "catchment.schema.json"
"""What `catchment schema` prints, beside the config, so that an editor needs no network."""

EXAMPLES: dict[tuple[str, str], str] = {
    ("source", "file"): "path: ./data   # a folder, a file or a glob; CSV, JSON lines or Parquet",
    ("source", "postgresql"): "connection_string: ${SOURCE_POSTGRESQL}   # postgresql://user:password@host/database",
    ("source", "sqlite"): "connection_string: ./source.db",
    ("source", "test"): "num_rows: 10",
    ("destination", "duckdb"): "connection_string: ./catchment.duckdb",
    ("destination", "mysql"): "connection_string: ${DESTINATION_MYSQL}   # user:password@tcp(host:3306)/database",
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
@output_option
def command(source: str | None, destination: str | None, spec_path: Path | None, yes: bool, output: str) -> int:
    """Write a working config to start from. On a terminal it asks for what is not given."""
    source = _chosen("source", source, "file", yes)
    destination = _chosen("destination", destination, "duckdb", yes)
    path = spec_path or Path(f"{source}_to_{destination}.yml")
    if path.exists():
        raise click.ClickException(f"{path} is there already; name another file with --spec-path")
    schema = _schema()
    path.write_text(f"# yaml-language-server: $schema={SCHEMA_FILE}\n{_config(source, destination)}", encoding="utf-8")
    path.with_name(SCHEMA_FILE).write_text(schema, encoding="utf-8")
    if output == "json":
        print_json({"path": str(path), "source": source, "destination": destination})
    else:
        say(f"Wrote {path}. Fill it in, then run: catchment sync {path}")
    return 0


def _schema() -> str:
    from catchment.spec.schema import config_schema

    return json.dumps(config_schema(), indent=2) + "\n"


def _chosen(kind: Kind, name: str | None, default: str, yes: bool) -> str:
    """The plugin that was named or is picked; unknown names are refused with the nearest one."""
    from catchment.engine.registry import installed
    from catchment.errors import SpecError, did_you_mean

    names = [plugin.name for plugin in installed() if plugin.kind == kind]
    if name is None and yes:
        return default
    if name is None and not (sys.stdin is not None and sys.stdin.isatty()):
        listed = ", ".join(f"`{known}`" for known in names)
        raise click.UsageError(f"name a {kind} with --{kind} (there are {listed}), or take the defaults with --yes")
    if name is None:
        return _asked(kind, names, default)
    if name not in names:
        raise SpecError(f'{kind} plugin "{name}" not found', hint=did_you_mean(name, names))
    return name


def _asked(kind: str, names: list[str], default: str) -> str:
    """What a person at the terminal picks, by number or by name; asked again until it is one."""
    from catchment.errors import did_you_mean

    for number, name in enumerate(names, 1):
        click.echo(f"{number:>3}  {name}", err=True)
    while True:
        answer = str(click.prompt(f"{kind.capitalize()} (number or name)", default=default, err=True)).strip()
        if answer in names:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        click.echo(f"{answer!r} is none of them; {did_you_mean(answer, names)}", err=True)


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


def _spec(kind: Kind, name: str) -> str:
    text = EXAMPLES.get((kind, name))
    if text is None:
        text = "\n    ".join(f"{key}: " for key in _required(kind, name))
    return f"  spec:\n    {text}\n" if text else ""


def _required(kind: Kind, name: str) -> list[str]:
    """The required keys of a stranger's plugin."""
    from catchment.engine.registry import factory

    found: Any = factory(kind, "python", name)
    return [key for key, field in found.spec_type.model_fields.items() if field.is_required()]
