"""A destination in a hundred lines: a folder with one JSON lines file for each table, replaced as a whole.

It keeps a table's rows in memory between `open` and `close`, so it is for small tables; what it shows is the contract:
rows of equal key are replaced, stale rows can be deleted, a schema that does not fit is refused, and a file is either
the old one or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from catchment.sdk import Capabilities, Column, Destination, MigrationRefused, PluginError, Spec, Table
from catchment.sdk.json_text import to_text

Row = dict[str, Any]


class FolderSpec(Spec):
    """Spec of the example."""

    folder: str
    """Folder of the files; it is made if it is missing."""


class Folder(Destination[FolderSpec]):
    """Writes each table into a file of its own."""

    name = "folder"
    capabilities = Capabilities(
        safe_changes=frozenset({"add_column", "remove_column", "remove_unique"}), stored_as=lambda kind: pa.utf8()
    )

    def open(self) -> None:
        """Make the folder."""
        self._root = Path(self.spec.folder)
        self._root.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Nothing is held."""

    def migrate(self, table: Table, *, force: bool) -> None:
        """New columns are fine, and so are missing ones; other keys or types are not, unless forced."""
        have, wanted = self._described(table.name), _description(table)
        if have is not None and not force:
            changed = [name for name in wanted if name in have and wanted[name] != have[name]]
            added = [c.name for c in table.columns if c.name not in have and (c.not_null or c.primary_key)]
            gone = [name for name in have if name not in wanted and have[name][1:] != [False, False]]
            if changed or added or gone:
                names = ", ".join([*changed, *added, *gone])
                raise MigrationRefused(
                    f"table `{table.name}`: {names} changed", hint="run with `migrate_mode: forced`, it drops the rows"
                )
        if have is None or (force and have != wanted and not self._only_safe(have, table)):
            self._save(table.name, [])
        merged = {**({} if have is None or force else have), **wanted}
        _replace(self._schema(table.name), json.dumps(merged))

    def write(self, table: Table, rows: pa.Table) -> None:
        """Add rows, or replace those of equal key; the last of equal ones wins."""
        columns = [to_text(column.combine_chunks()).to_pylist() for column in rows.columns]
        new: list[Row] = [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]
        kept = self._load(table.name)
        if table.primary_keys:
            by_key: dict[tuple[Any, ...], Row] = {}
            for row in [*kept, *new]:
                key = tuple(row[name] for name in table.primary_keys)
                if None in key:
                    raise PluginError(f"table `{table.name}`: a key is null in {row}")
                by_key[key] = row
            self._save(table.name, list(by_key.values()))
        else:
            self._save(table.name, [*kept, *new])

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Keep what is of another source, as new as the sync, or of another client."""
        rows = self._load(table.name)
        limit = to_text(pa.array([sync_time], pa.timestamp("us", "UTC")))[0].as_py()
        kept = [
            row
            for row in rows
            if row["_cq_source_name"] != source_name
            or row["_cq_sync_time"] >= limit
            or (clients is not None and row["_cq_client_id"] not in clients)
        ]
        self._save(table.name, kept)
        return len(rows) - len(kept)

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """All rows, every value as text."""
        rows = self._load(table.name)
        if rows:
            arrays = [pa.array([row.get(name) for row in rows], pa.utf8()) for name in table.column_names]
            yield pa.RecordBatch.from_arrays(arrays, names=list(table.column_names))

    def _only_safe(self, have: dict[str, list[Any]], table: Table) -> bool:
        wanted = _description(table)
        return all(have[name] == wanted[name] for name in have if name in wanted) and not any(
            column.not_null or column.primary_key for column in table.columns if column.name not in have
        ) and all(have[name][1:] == [False, False] for name in have if name not in wanted)  # fmt: skip

    def _described(self, name: str) -> dict[str, list[Any]] | None:
        path = self._schema(name)
        return dict(json.loads(path.read_text())) if path.exists() else None

    def _load(self, name: str) -> list[Row]:
        path = self._file(name)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _save(self, name: str, rows: list[Row]) -> None:
        _replace(self._file(name), "".join(json.dumps(row) + "\n" for row in rows))

    def _file(self, name: str) -> Path:
        return self._root / f"{name.replace('/', '_')}.jsonl"

    def _schema(self, name: str) -> Path:
        return self._root / f"{name.replace('/', '_')}.schema"


def _description(table: Table) -> dict[str, list[Any]]:
    """Type, key and not-null of each column."""

    def described(column: Column) -> list[Any]:
        return [str(column.type), column.primary_key, column.not_null and not column.primary_key]

    return {column.name: described(column) for column in table.columns}


def _replace(path: Path, text: str) -> None:
    """The whole new file under the old one's name, or none of it."""
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
