"""What a sync would do to the tables of its destinations, found out without doing any of it.

The tables go through the pipelines of a sync, so that they are those that it would migrate; what a pipeline sends to
its destination is noted here, and the destination is asked about it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, TypeVar

from catchment import __version__
from catchment.engine import registry
from catchment.engine.pipeline import Pipeline
from catchment.engine.plan import Plan, backend_destination, used_destinations
from catchment.engine.result import PluginResult
from catchment.engine.summary import stamped
from catchment.engine.sync import Options, Sync, selection
from catchment.engine.target import Target
from catchment.errors import CatchmentError, PluginError
from catchment.messages import MigrateTable, WriteMessage
from catchment.plugin import PreviewAction, PreviewedChange, Published, Swap, TablePreview, WriteMode, WriteStats
from catchment.redact import Redactor
from catchment.schema.internal import add_client_id, cursor_table
from catchment.schema.table import Table
from catchment.schema.types import type_string
from catchment.spec.model import DestinationConfig, SourceConfig

log = logging.getLogger("catchment.preview")

V = TypeVar("V")
Outlook: TypeAlias = Literal["unchanged", "changes", "failed"]
EXIT_CODES: Mapping[Outlook, int] = {"unchanged": 0, "changes": 2, "failed": 1}


@dataclass(slots=True)
class PreviewedColumn:
    """A column as the table would have it."""

    name: str
    type: str
    primary_key: bool
    not_null: bool


@dataclass(slots=True)
class PreviewedTable:
    """One table of a source in one destination: what would become of it."""

    source: str
    destination: str
    table: str
    role: Literal["rows", "sync_summary", "cursors"] = "rows"
    """What it is for: a source's rows, the table of `send_sync_summary`, or that of `backend_options`."""
    parent: str = ""
    write_mode: WriteMode = "append"
    migrate_mode: Literal["safe", "forced"] = "safe"
    publish: Literal["atomic", "stream"] = "stream"
    """Whether rows become visible at the end, with those of the source's other tables, or as they come."""
    deletes_stale: bool = False
    """Whether rows of earlier syncs of the source, that do not come again, would be deleted."""
    is_incremental: bool = False
    columns: list[PreviewedColumn] = field(default_factory=list)
    action: PreviewAction = "unknown"
    changes: list[PreviewedChange] = field(default_factory=list)
    reason: str = ""
    """Why the action is `refused` or `unknown`."""
    hint: str = ""
    """What to do about it."""
    rows: int | None = None
    """Rows that are in the table, of every source; None where the catalogue does not say."""
    dependents: list[str] = field(default_factory=list)
    """Views and the like that hang on a table that is, or would have to be, made anew."""

    @property
    def is_error(self) -> bool:
        """Whether the table cannot be written at all, whatever the database has."""
        return self.action == "refused" and not self.changes

    def answered(self, answer: TablePreview) -> PreviewedTable:
        """The same with what the destination says."""
        if self.publish == "atomic" and answer.when_published is not None:
            answer = answer.when_published
        return replace(
            self,
            action=answer.action,
            changes=list(answer.changes),
            reason=answer.reason,
            hint=answer.hint,
            rows=answer.rows,
            dependents=list(answer.dependents),
        )


@dataclass(slots=True)
class PreviewedPlugin:
    """A source or destination of the config."""

    name: str
    plugin: str
    error: str = ""
    """Why nothing can be said of its tables; empty if something can."""


@dataclass(slots=True)
class Preview:
    """What a sync would do to every table."""

    invocation_id: str
    version: str
    created: datetime
    outcome: Outlook = "unchanged"
    sources: list[PreviewedPlugin] = field(default_factory=list)
    destinations: list[PreviewedPlugin] = field(default_factory=list)
    tables: list[PreviewedTable] = field(default_factory=list)

    def settle(self) -> None:
        """Set `outcome` from what the parts say."""
        failed = any(part.error for part in (*self.sources, *self.destinations))
        if failed or any(row.is_error for row in self.tables):
            self.outcome = "failed"
        elif any(row.action not in ("none", "unknown") for row in self.tables):
            self.outcome = "changes"

    def to_json(self) -> dict[str, Any]:
        """The preview as JSON values."""
        created = self.created.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {**asdict(self), "created": created}


def preview(plan: Plan, options: Options | None = None) -> Preview:
    """Ask every destination what a sync of `plan` would do to its tables; raises nothing for a plugin that fails."""
    return _Preview(plan, options).look()


class _Preview(Sync):
    """A run that opens no destination and sends it nothing."""

    def look(self) -> Preview:
        """Every source and destination in turn."""
        found = Preview(self.result.invocation_id, __version__, self.result.started)
        self._tables = found.tables
        with self.plan.redactor.guarding("catchment"):
            try:
                for destination in used_destinations(self.plan.config):
                    self._open(destination)
                for source in self.plan.config.sources:
                    self.result.sources.append(self._look_at(source))
            finally:
                self._close()
        found.sources = [_part(result) for result in self.result.sources]
        found.destinations = [_part(result) for result in self.result.destinations]
        found.settle()
        return _redacted(found, self.plan.redactor)

    def _open(self, config: DestinationConfig) -> None:
        result = self._results[config.name] = PluginResult(config.name, config.version_string)
        self.result.destinations.append(result)
        try:
            plugin = registry.destination_for(config)
            self._destinations[config.name] = plugin
            # To connect may be to make: an embedded database is a file that opening creates.
            plugin.init(config.spec, no_connection=True, invocation_id=self.result.invocation_id)
        except Exception as error:
            self._fail(config.name, error)

    def _look_at(self, config: SourceConfig) -> PluginResult:
        result = PluginResult(config.name, config.version_string)
        pipelines: list[Pipeline] = []
        source = None
        try:
            source = registry.source_for(config)
            pipelines += [
                self._pipeline(config, destination, self.result.started) for destination in self._usable(config)
            ]
            if not pipelines:
                raise PluginError(f"source `{config.name}`: none of its destinations can be used")
            source.init(config.spec, no_connection=True, invocation_id=self.result.invocation_id)
            tables = source.tables(selection(config))
            unreadable = source.unreadable(selection(config))
            if not tables and not unreadable:
                raise PluginError("no tables are left to sync; check `tables` and `skip_tables`")
            full = [add_client_id(table) if config.client_id_column else table for table in tables]
            for pipeline in pipelines:
                self._ask(config, pipeline, full, unreadable)
            self._ask_about_cursors(config)
        except Exception as error:
            result.error = _told(error)
        finally:
            if source is not None:
                self._end(source, pipelines)
        return result

    def _ask(
        self, source: SourceConfig, pipeline: Pipeline, tables: Sequence[Table], unreadable: Mapping[str, str]
    ) -> None:
        """Bring `tables` on their way through a pipeline of a sync, and ask about what comes out."""
        config = self._configs[pipeline.destination_name]
        notes = _Notes()
        noted = replace(pipeline, _session=notes)
        for table in tables:
            noted.migrate(table)
        for name, reason in unreadable.items():
            noted.leave(Table(name, ()), reason)
        rows = [self._row(config, target) for target in noted.targets.values()]
        wanted = [notes.asked[row.table] for row in rows if row.action != "refused"]
        if config.send_sync_summary:
            table = stamped(pipeline)
            row = PreviewedTable(source.name, config.name, table.name, "sync_summary", columns=_columns(table))
            row.migrate_mode = config.migrate_mode
            if not self._is_told(row):
                rows.append(row)
                wanted.append(table)
        answers = self._answers(config.name, wanted, force=pipeline.force)
        if answers is not None:
            left = iter(answers)
            self._tables += [row if row.action == "refused" else row.answered(next(left)) for row in rows]

    def _ask_about_cursors(self, source: SourceConfig) -> None:
        name = backend_destination(source)
        if source.backend_options is None or not name or name in self._unusable:
            return
        table = cursor_table(source.backend_options.table_name)
        row = PreviewedTable(source.name, name, table.name, "cursors", write_mode="overwrite", columns=_columns(table))
        if not self._is_told(row):
            self._tables += [row.answered(answer) for answer in self._answers(name, [table], force=False) or ()]

    def _answers(self, destination: str, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview] | None:
        """What the destination says; None if it cannot be asked."""
        try:
            return self._destinations[destination].preview(tables, force=force)
        except Exception as error:
            self._fail(destination, error)
            return None

    def _row(self, config: DestinationConfig, target: Target) -> PreviewedTable:
        row = PreviewedTable(
            target.result.source,
            config.name,
            target.live.name,
            parent=target.live.parent,
            write_mode=config.write_mode,
            migrate_mode=config.migrate_mode,
            publish="atomic" if target.staged else "stream",
            deletes_stale=target.cleans,
            is_incremental=target.source.is_incremental,
            columns=_columns(target.live),
        )
        if target.failed:
            row.action, row.reason = "refused", "; ".join(group.message for group in target.result.errors)
        return row

    def _is_told(self, row: PreviewedTable) -> bool:
        """Whether another source, which shares the table, has it already."""
        return any((told.destination, told.table, told.role) == (row.destination, row.table, row.role)
                   for told in self._tables)  # fmt: skip

    def _fail(self, destination: str, error: Exception) -> None:
        self._results[destination].error = _told(error)
        self._unusable.add(destination)


class _Notes:
    """A `WriteSession` that notes which tables it is to migrate, and takes nothing else."""

    def __init__(self) -> None:
        self.asked: dict[str, Table] = {}
        """By name of the live table."""

    def write(self, message: WriteMessage) -> None:
        """Note a table."""
        if not isinstance(message, MigrateTable):
            raise PluginError(f"a preview writes nothing, and was given {type(message).__name__}")
        self.asked[message.table.name] = message.table

    def flush(self) -> None:
        """There is nothing to write."""

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """There is nothing to publish."""
        return {}

    def stats(self) -> Mapping[str, WriteStats]:
        """Nothing was written."""
        return {}

    def close(self) -> None:
        """There is nothing to end."""


def _columns(table: Table) -> list[PreviewedColumn]:
    return [
        PreviewedColumn(column.name, type_string(column.type), column.primary_key, column.not_null)
        for column in table.columns
    ]


def _told(error: Exception) -> str:
    """What is said of a failure; one that a plugin did not explain goes into the log with its traceback."""
    if isinstance(error, CatchmentError):
        return str(error)
    log.error("a plugin failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _part(result: PluginResult) -> PreviewedPlugin:
    return PreviewedPlugin(result.name, result.plugin, result.error)


def _redacted(value: V, redactor: Redactor) -> V:
    """A copy without the secrets in any of its texts."""
    made: Any = value
    if isinstance(value, str):
        made = redactor.text(value)
    elif isinstance(value, list):
        made = [_redacted(item, redactor) for item in value]
    elif is_dataclass(value) and not isinstance(value, type):
        made = replace(value, **{item.name: _redacted(getattr(value, item.name), redactor) for item in fields(value)})
    return made  # type: ignore[no-any-return]
