"""`catchment tables`: pages or JSON about the tables of the sources in a config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from catchment.cli.output import REDACTOR, config_argument, fetch_plugins, load_config, output_option, print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catchment.schema.table import Table
    from catchment.spec.model import SourceConfig


@click.command("tables")
@config_argument
@output_option
@click.option("--output-dir", type=click.Path(path_type=Path), default=Path("cq-docs"), show_default=True,
              help="Folder that gets a folder for each source.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["json", "markdown"]), default="json", show_default=True,
              help="One JSON file, or a page for each table.")  # fmt: skip
@click.option("--filter", "which", type=click.Choice(["all", "spec"]), default="all", show_default=True,
              help="All tables, or those that the config's `tables` and `skip_tables` name.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, config: tuple[str, ...], output: str, output_dir: Path, form: str, which: str) -> int:
    """Write what tables and columns the sources in CONFIG have.

    With `--output json` they go to standard output, and into files only if `--output-dir` is given too.
    """
    from catchment.cli.pages import file_name

    writes = output == "text" or ctx.get_parameter_source("output_dir") is ParameterSource.COMMANDLINE
    documents: dict[str, list[dict[str, Any]]] = {}
    failed = False
    sources = load_config(config, output, relaxed=True).sources
    fetch_plugins(sources, output)
    for source in sources:
        plugin_name, tables, unreadable = _tables(source, which)
        for name, reason in unreadable.items():
            failed = True
            say(f"Error: table `{name}` of source `{source.name}` cannot be described: {reason}", err=True)
        documents[source.name] = documents_of(tables)
        if not writes:
            continue
        folder = output_dir / file_name(source.name)
        say(f'Generating docs for "{source.name}" to directory "{folder}"', err=output == "json")
        _write(folder, plugin_name, tables, form)
        say(f'Done generating docs for "{source.name}": {len(tables)} tables', err=output == "json")
    if output == "json":
        print_json(documents)
    return 1 if failed else 0


def _tables(source: SourceConfig, which: str) -> tuple[str, Sequence[Table], Mapping[str, str]]:
    """Name of the plugin, its tables, and those that it cannot describe, each with the reason."""
    from catchment.engine import registry
    from catchment.engine.sync import selection
    from catchment.schema.select import Selection

    plugin = registry.source_for(source)
    try:
        try:
            plugin.init(source.spec, no_connection=True)
        finally:
            REDACTOR.add(plugin.secrets)
        wanted = selection(source) if which == "spec" else Selection()
        return plugin.name, plugin.tables(wanted), plugin.unreadable(wanted)
    finally:
        plugin.close()


def _write(folder: Path, plugin_name: str, tables: Sequence[Table], form: str) -> None:
    from catchment.cli.pages import file_name, overview, page

    folder.mkdir(parents=True, exist_ok=True)
    if form == "json":
        text = json.dumps(documents_of(tables), indent=2, ensure_ascii=False)
        (folder / "__tables.json").write_text(text + "\n", encoding="utf-8")
        return
    (folder / "README.md").write_text(overview(plugin_name, tables), encoding="utf-8")
    for table in tables:
        (folder / f"{file_name(table.name)}.md").write_text(page(table, tables), encoding="utf-8")


def documents_of(tables: Sequence[Table], parent: str = "") -> list[dict[str, Any]]:
    """The tables below `parent`, by name, each with its relations: the shape of upstream's `__tables.json`."""
    return [
        _document(table, tables) for table in sorted(tables, key=lambda table: table.name) if table.parent == parent
    ]


def _document(table: Table, tables: Sequence[Table]) -> dict[str, Any]:
    from catchment.schema.internal import CQ_ID
    from catchment.schema.types import type_string

    has_components = any(column.primary_key_component for column in table.columns)
    columns = []
    for column in table.columns:
        flags = {
            "is_primary_key": column.primary_key_component
            or (column.primary_key and not (has_components and column.name == CQ_ID)),
            "is_incremental_key": column.incremental_key,
            "is_primary_key_component": column.primary_key_component,
            "type_schema": column.type_schema,
        }
        shown = {key: value for key, value in flags.items() if value}
        columns.append({"name": column.name, "type": type_string(column.type), **shown})
    more = {
        "is_paid": table.is_paid,
        "is_incremental": table.is_incremental,
        "permissions_needed": list(table.permissions_needed or ()),
        "sensitive_columns": list(table.sensitive_columns or ()),
    }
    return {
        "name": table.name,
        "title": table.title,
        "description": table.description,
        "columns": columns,
        "relations": documents_of(tables, table.name),
        **{key: value for key, value in more.items() if value},
    }
