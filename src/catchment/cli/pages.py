"""The Markdown pages that `catchment tables --format markdown` writes, in upstream's layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from catchment.schema.internal import CQ_ID
from catchment.schema.table import Table, children_of
from catchment.schema.types import type_string


def overview(plugin_name: str, tables: Sequence[Table]) -> str:
    """The page that lists every table, each below its parent."""
    lines = [f"# Source Plugin: {plugin_name}", "", "## Tables", "", *_listed(tables, "", 0)]
    return "\n".join(lines) + "\n"


def page(table: Table, tables: Sequence[Table]) -> str:
    """The page of one table: what it is, its keys, its relations, its columns."""
    parts = [f"# Table: {table.name}"]
    if table.is_paid:
        parts.append("This table is part of a paid offer.")
    if table.title:
        parts.append(f"This table shows data for {table.title}.")
    parts += [part for part in (table.description, *_keys(table)) if part]
    if table.parent or children_of(tables, table.name):
        parts.append("## Relations")
    if table.parent:
        parts.append(f"This table depends on {_link(table.parent)}.")
    children = sorted(child.name for child in children_of(tables, table.name))
    if children:
        parts.append("These tables depend on it:\n" + "\n".join(f"  - {_link(name)}" for name in children))
    parts += ["## Columns", _columns(table)]
    return "\n\n".join(parts) + "\n"


def file_name(name: str) -> str:
    """A name from a config or a database as that of a file: it leads to no other folder."""
    flat = name.replace("/", "_").replace("\\", "_").replace("\0", "_")
    return f"_{flat}" if flat.startswith(".") else flat


def _listed(tables: Sequence[Table], parent: str, depth: int) -> Iterator[str]:
    for table in sorted(children_of(tables, parent), key=lambda table: table.name):
        yield f"{'  ' * depth}- {_link(table.name)}{' (Incremental)' if table.is_incremental else ''}"
        yield from _listed(tables, table.name, depth + 1)


def _keys(table: Table) -> Iterator[str]:
    if len(table.primary_keys) == 1:
        yield f"Its primary key is **{table.primary_keys[0]}**."
    elif table.primary_keys:
        yield f"Its composite primary key is ({_bold(table.primary_keys)})."
    else:
        yield "It has no primary key."
    components = [column.name for column in table.columns if column.primary_key_component]
    if components:
        yield f"These columns together make `{CQ_ID}`: ({_bold(components)})."
    incremental = [column.name for column in table.columns if column.incremental_key]
    if table.is_incremental:
        by = f" by ({_bold(incremental)})" if incremental else ""
        yield f"It is synced incrementally{by}."


def _columns(table: Table) -> str:
    lines = ["|Name|Type|", "|-|-|"]
    for column in table.columns:
        mark = " (PK)" if column.primary_key else ""
        mark += " (Incremental Key)" if column.incremental_key else ""
        lines.append(f"|{_cell(column.name)}{mark}|`{type_string(column.type)}`|")
    return "\n".join(lines)


def _link(name: str) -> str:
    return f"[{name}]({file_name(name)}.md)"


def _bold(names: Sequence[str]) -> str:
    return ", ".join(f"**{name}**" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
