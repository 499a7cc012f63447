"""What a plugin is distributed with: its tables and spec as JSON, and a launcher for each platform."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catchment.errors import PluginError, SpecError
from catchment.plugin import Kind, PluginFactory, kind_of
from catchment.schema.select import Selection
from catchment.schema.table import Table, children_of
from catchment.schema.types import type_string

TARGETS = (("linux", "amd64"), ("linux", "arm64"), ("darwin", "amd64"), ("darwin", "arm64"))
"""Where a launcher runs: wherever a script may be a program."""
LAUNCHER = '#!/usr/bin/env python3\nfrom catchment.serve import serve\nserve("{target}")\n'


@dataclass(slots=True)
class Described:
    """A plugin and what is said of it."""

    factory: PluginFactory
    team: str
    version: str

    @property
    def name(self) -> str:
        """Name of the plugin."""
        return str(getattr(self.factory, "name", ""))

    @property
    def kind(self) -> Kind:
        """What it is."""
        return kind_of(self.factory.as_plugin())

    @property
    def path(self) -> str:
        """`team/kind/name`."""
        return f"{self.team}/{self.kind}/{self.name}"

    def tables(self) -> list[Table]:
        """Every table of a source, without a spec. Raises `PluginError` where they depend on one."""
        plugin: Any = self.factory.as_plugin()
        try:
            plugin.init({}, no_connection=True)
            return list(plugin.tables(Selection(("*",), ())))
        except SpecError as error:
            raise PluginError(f"the tables of `{self.name}` depend on its spec: {error}") from error
        finally:
            plugin.close()


def spec_schema(factory: PluginFactory) -> str | None:
    """The JSON Schema of a plugin's spec."""
    model: Any = getattr(factory, "spec_type", None)
    if model is None:
        return None
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema)


def write_tables(described: Described, directory: Path, file_format: str) -> None:
    """`__tables.json`, sorted and nested. Raises `PluginError` for a plugin without tables."""
    if file_format == "markdown":
        raise PluginError("a plugin writes no Markdown", hint="use the `tables` command of the CLI, or `--format json`")
    if described.kind != "source":
        raise PluginError(f"`{described.name}` is a {described.kind}, only sources have tables")
    directory.mkdir(parents=True, exist_ok=True)
    tables = described.tables()
    top = sorted((table for table in tables if not table.parent), key=lambda table: table.name)
    _write(directory / "__tables.json", [_nested(table, tables) for table in top])


def _nested(table: Table, tables: list[Table]) -> dict[str, Any]:
    marks = {
        "is_primary_key": "primary_key",
        "is_primary_key_component": "primary_key_component",
        "is_incremental_key": "incremental_key",
    }
    columns = [
        {"name": column.name, "type": type_string(column.type)}
        | {key: True for key, attribute in marks.items() if getattr(column, attribute)}
        for column in table.columns
    ]
    below = sorted(children_of(tables, table.name), key=lambda child: child.name)
    return {
        "name": table.name,
        "title": table.title or _title(table.name),
        "description": table.description,
        "columns": columns,
        "relations": [_nested(child, tables) for child in below],
    }


def write_package(described: Described, options: argparse.Namespace, target: str) -> None:
    """Everything that `publish` of CloudQuery's CLI takes."""
    directory = Path(options.plugin_directory)
    dist = Path(options.dist_dir) if options.dist_dir else directory / "dist"
    docs = Path(options.docs_dir) if options.docs_dir else directory / "docs"
    message = options.message
    if message.startswith("@"):
        message = Path(message[1:]).read_text(encoding="utf-8")
    dist.mkdir(parents=True, exist_ok=True)
    if described.kind == "source":
        tables = described.tables()
        _write(dist / "tables.json", [_flat(table, tables) for table in tables])
    schema = spec_schema(described.factory)
    if schema is not None:
        _write(dist / "spec_json_schema.json", json.loads(schema))
    (dist / "docs").mkdir(exist_ok=True)
    for page in sorted(docs.glob("*.md")):
        (dist / "docs" / page.name).write_bytes(page.read_bytes())
    targets = []
    for system, machine in TARGETS:
        name = f"plugin-{described.name}-{options.version}-{system}-{machine}"
        data = _archive(name, LAUNCHER.format(target=target))
        (dist / f"{name}.zip").write_bytes(data)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        targets.append({"os": system, "arch": machine, "path": f"{name}.zip", "checksum": checksum})
    _write(
        dist / "package.json",
        {
            "schema_version": 1,
            "team": described.team,
            "kind": described.kind,
            "name": described.name,
            "message": message.strip().replace("\r\n", "\n").replace("\r", "\n"),
            "version": options.version,
            "protocols": [3],
            "supported_targets": targets,
            "package_type": "native",
        },
    )


def _flat(table: Table, tables: list[Table]) -> dict[str, Any]:
    components = any(column.primary_key_component for column in table.columns)
    columns = []
    for column in table.columns:
        key = column.primary_key_component if components and column.name == "_cq_id" else column.primary_key
        entry: dict[str, Any] = {
            "name": column.name,
            "description": column.description,
            "type": type_string(column.type),
            "incremental_key": column.incremental_key,
            "not_null": column.not_null,
            "primary_key": key or column.primary_key_component,
            "unique": column.unique,
        }
        columns.append(entry | ({"type_schema": column.type_schema} if column.type_schema else {}))
    made: dict[str, Any] = {
        "name": table.name,
        "title": table.title or _title(table.name),
        "description": table.description,
        "is_incremental": table.is_incremental,
        "is_paid": table.is_paid,
        "relations": [child.name for child in children_of(tables, table.name)],
        "permissions_needed": table.permissions_needed,
        "sensitive_columns": table.sensitive_columns,
        "columns": columns,
    }
    return made | ({"parent": table.parent} if table.parent else {})


def _title(name: str) -> str:
    return " ".join(word.capitalize() for word in name.split("_"))


def _archive(name: str, text: str) -> bytes:
    """A zip of one program; the same bytes every time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = 0o755 << 16
        archive.writestr(member, text)
    return made.getvalue()


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
