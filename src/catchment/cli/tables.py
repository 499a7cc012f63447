"""`catchment tables`: the tables and columns of the sources in a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from catchment.cli.output import config_argument, load_config, output_option, print_json

if TYPE_CHECKING:
    from catchment.schema.table import Table


@click.command("tables")
@config_argument
@output_option
@click.option("--filter", "which", type=click.Choice(["all", "spec"]), default="all", show_default=True,
              help="All tables, or those that the config's `tables` and `skip_tables` name.")  # fmt: skip
def command(config: tuple[str, ...], output: str, which: str) -> int:
    """List the tables and columns of the sources in CONFIG."""
    from catchment.engine import registry
    from catchment.engine.sync import selection
    from catchment.schema.select import Selection

    documents: dict[str, list[dict[str, Any]]] = {}
    for source in load_config(config, relaxed=True).sources:
        plugin = registry.make_source(source.registry, source.path)
        try:
            plugin.init(source.spec)
            found = plugin.tables(selection(source) if which == "spec" else Selection())
        finally:
            plugin.close()
        documents[source.name] = [_document(table) for table in found]
        if output == "text":
            click.echo(f"{source.version_string}: {len(found)} tables")
            for table in found:
                _print_table(table)
    if output == "json":
        print_json(documents)
    return 0


def _document(table: Table) -> dict[str, Any]:
    from catchment.schema.types import type_string

    return {
        "name": table.name,
        "parent": table.parent,
        "description": table.description,
        "is_incremental": table.is_incremental,
        "columns": [
            {"name": column.name, "type": type_string(column.type), "is_primary_key": column.primary_key}
            for column in table.columns
        ],
    }


def _print_table(table: Table) -> None:
    from catchment.schema.types import type_string

    below = f" (below {table.parent})" if table.parent else ""
    click.echo(f"\n{table.name}{below}")
    if table.description:
        click.echo(f"  {table.description.splitlines()[0]}")
    for column in table.columns:
        click.echo(f"  - {column.name} {type_string(column.type)}{' (PK)' if column.primary_key else ''}")
